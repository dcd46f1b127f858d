#include "necrocode/runner/executor.hpp"

#include <algorithm>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/change_set.hpp"
#include "necrocode/runner/repository_map.hpp"

namespace necrocode::runner {
namespace {

constexpr std::size_t kTreeBytes = 8 * limits::kKiB;
/// Files that nobody named, in whole or in part.
constexpr std::size_t kSuggestedFiles = 8;
constexpr std::size_t kPartBytes = 8 * limits::kKiB;
constexpr std::size_t kSmallestPartBytes = limits::kKiB;
constexpr std::size_t kFilesShown = 64;
constexpr std::size_t kFilesRead = 256;
constexpr std::size_t kHeadingBytes = 32;  // the fences, and what is said of a file
constexpr std::size_t kReadBytes = 4 * limits::kMiB;

void add_list(std::string& prompt, std::string_view heading,
              const std::vector<std::string>& items) {
  if (items.empty()) return;
  prompt.append("\n").append(heading).append("\n");
  for (const std::string& item : items) prompt.append("- ").append(item).append("\n");
}

// A fence longer than any run of backticks in the content.
std::string fence_for(const std::string& content) {
  std::string fence = "```";
  while (content.find(fence) != std::string::npos) fence += '`';
  return fence;
}

void add_content(std::string& prompt, const std::string& file, bool read_only,
                 const std::string& content, bool whole) {
  const std::string fence = fence_for(content);
  prompt += "\n" + printable(file) + (read_only ? " (read-only)" : "") +
            (whole ? "" : " (in part: change it by edits, never as a whole)") + ":\n" + fence +
            "\n" + content + (content.ends_with('\n') ? "" : "\n") + fence + "\n";
}

// Those changed before, the task's related and read-only ones, then those that the task's words
// suggest. What does not fit is shown in part.
void add_contents(std::string& prompt, const Assignment& assignment,
                  const std::set<std::string>& words) {
  std::vector<std::string> wanted = assignment.changed_files;
  const auto want = [&wanted](const std::string& file) {
    if (std::find(wanted.begin(), wanted.end(), file) == wanted.end()) wanted.push_back(file);
  };
  for (const auto* patterns : {&assignment.task.related_files, &assignment.task.readonly_files}) {
    for (const std::string& file : assignment.tracked_files) {
      if (matches_any(*patterns, file)) want(file);
    }
  }
  const std::size_t named = wanted.size();
  for (std::size_t i = 0; i < std::min(kSuggestedFiles, assignment.relevant_files.size()); ++i) {
    want(assignment.relevant_files[i]);
  }
  std::size_t left = limits::kPromptContextBytes;
  std::size_t shown_files = 0;
  for (std::size_t i = 0; i < std::min(wanted.size(), kFilesRead) && shown_files < kFilesShown &&
                          left >= kSmallestPartBytes;
       ++i) {
    const auto content = read_workspace_file(assignment.root, wanted[i], kReadBytes);
    if (!content || !is_utf8(*content)) continue;
    // One large file leaves room for others.
    const std::size_t share =
        std::min(left, i < named ? std::max(left / 2, kPartBytes) : kPartBytes);
    const bool whole = content->size() <= (i < named ? left : share);
    const std::string shown = whole ? *content : excerpt_of(*content, words, share);
    if (shown.empty() && !content->empty()) continue;  // one endless line
    ++shown_files;
    left -= std::min(left, shown.size() + wanted[i].size() + kHeadingBytes);
    add_content(prompt, wanted[i], matches_any(assignment.task.readonly_files, wanted[i]), shown,
                whole);
  }
}

// The user's untracked files, and all that is in a repository of theirs inside this one.
void require_not_the_users(const Assignment& assignment, const std::string& path) {
  bool is_theirs = assignment.users_files.contains(path);
  for (std::size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    is_theirs = is_theirs || assignment.users_files.contains(path.substr(0, slash) + "/.git");
  }
  if (!is_theirs) return;
  throw ImplementationError("\"" + printable(path) + "\" is an untracked file of the user's");
}

// A submodule's folder is tracked as one entry; what lies in it belongs to another repository.
void require_not_in_submodule(const Assignment& assignment, const std::string& path) {
  for (std::size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string folder = path.substr(0, slash);
    std::error_code error;
    if (std::binary_search(assignment.tracked_files.begin(), assignment.tracked_files.end(),
                           folder) &&
        std::filesystem::is_directory(
            std::filesystem::symlink_status(assignment.root / folder, error))) {
      throw ImplementationError("\"" + printable(path) + "\" lies in the submodule \"" +
                                printable(folder) + "\"");
    }
  }
}

Json changes_json(const std::vector<llm::CodeChange>& changes) {
  Json list = Json::array();
  for (const llm::CodeChange& change : changes) {
    Json edits = Json::array();
    for (const llm::Edit& edit : change.edits)
      edits.push_back(Json::Array{edit.search, edit.replace});
    list.push_back(Json::object({{"path", change.file_path},
                                 {"operation", llm::to_string(change.operation)},
                                 {"content", change.content},
                                 {"edits", std::move(edits)},
                                 {"diff", change.diff}}));
  }
  return list;
}

}  // namespace

std::set<std::string> task_words(const TaskContext& task) {
  return telling_words(task.title + "\n" + join(task.acceptance_criteria, "\n") + "\n" +
                       task.description);
}

std::string describe_task(const Assignment& assignment) {
  const TaskContext& task = assignment.task;
  std::string prompt = "Task " + task.task_id.str() + ": " + task.title + "\n";
  if (!task.description.empty()) prompt += "\n" + task.description + "\n";
  add_list(prompt, "Acceptance criteria:", task.acceptance_criteria);
  add_list(prompt, "Already in the tree, from the tasks it depends on:", assignment.dependencies);
  add_list(prompt, "The change is accepted when these commands succeed:", assignment.test_commands);
  add_list(prompt, "Files that must not be changed:", task.readonly_files);
  add_list(prompt, "Earlier attempts at this task ended so:", assignment.earlier_attempts);
  return prompt;
}

std::string build_prompt(const Assignment& assignment) {
  std::string prompt = describe_task(assignment);
  prompt += "\nFiles in the repository:\n" + tree_of(assignment.tracked_files, kTreeBytes);
  add_contents(prompt, assignment, task_words(assignment.task));
  if (!assignment.failed_tests.empty()) {
    prompt +=
        "\nYour earlier change is in the files above, and this test fails. Answer with the changes "
        "that mend it, on top of what is there.\n" +
        assignment.failed_tests;
  }
  if (!assignment.unusable_answer.empty()) {
    prompt += "\nYour last answer was not used, because: " + assignment.unusable_answer +
              "\nAnswer again, in the form asked for.\n";
  }
  return prompt;
}

std::string LlmExecutor::prompt(const Assignment& assignment) const {
  return build_prompt(assignment);
}

Implementation LlmExecutor::implement(const Assignment& assignment, const CallContext& context,
                                      llm::Spending& spending, Transcript& transcript) {
  const TaskContext& task = assignment.task;
  const std::string prompt = masker_.mask(build_prompt(assignment));
  transcript.asked(prompt);
  spending.count_calls(1);
  const LLMResponse answer =
      llm_.generate_code(prompt, assignment.root, task.max_tokens, context, &spending);
  transcript.answered(answer.model, answer.raw, answer.usage.to_json());
  for (const llm::CodeChange& change : answer.code_changes) {
    require_not_the_users(assignment, change.file_path);
    require_not_in_submodule(assignment, change.file_path);
  }
  Implementation implementation;
  implementation.changed_files =
      apply_changes(assignment.root, answer.code_changes, task.readonly_files);
  implementation.explanation = answer.explanation;
  implementation.model = answer.model;
  implementation.attempts = answer.attempts;
  implementation.usage = answer.usage;
  implementation.answer_digest = sha256_hex(changes_json(answer.code_changes).dump());
  return implementation;
}

}  // namespace necrocode::runner
