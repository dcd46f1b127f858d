#include "necrocode/runner/executor.hpp"

#include <algorithm>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/change_set.hpp"

namespace necrocode::runner {
namespace {

constexpr std::size_t kFileListBytes = 8 * limits::kKiB;

void add_list(std::string& prompt, std::string_view heading,
              const std::vector<std::string>& items) {
  if (items.empty()) return;
  prompt.append("\n").append(heading).append("\n");
  for (const std::string& item : items) prompt.append("- ").append(item).append("\n");
}

void add_file_list(std::string& prompt, const std::vector<std::string>& files) {
  prompt += "\nFiles in the repository:\n";
  std::size_t used = 0;
  std::size_t shown = 0;
  for (const std::string& file : files) {
    used += file.size() + 1;
    if (used > kFileListBytes) break;
    prompt += file + "\n";
    ++shown;
  }
  if (shown < files.size()) prompt += "… and " + std::to_string(files.size() - shown) + " more\n";
}

// A fence longer than any run of backticks in the content.
std::string fence_for(const std::string& content) {
  std::string fence = "```";
  while (content.find(fence) != std::string::npos) fence += '`';
  return fence;
}

// Related and read-only files, those changed before first; whole files, as far as the budget goes.
void add_contents(std::string& prompt, const Assignment& assignment) {
  std::vector<std::string> wanted = assignment.changed_files;
  const auto want = [&wanted](const std::string& file) {
    if (std::find(wanted.begin(), wanted.end(), file) == wanted.end()) wanted.push_back(file);
  };
  for (const auto* patterns : {&assignment.task.related_files, &assignment.task.readonly_files}) {
    for (const std::string& file : assignment.tracked_files) {
      if (matches_any(*patterns, file)) want(file);
    }
  }
  std::size_t left = limits::kPromptContextBytes;
  for (const std::string& file : wanted) {
    const auto content = read_workspace_file(assignment.root, file, left);
    if (!content || content->size() > left || !is_utf8(*content)) continue;
    left -= content->size();
    const bool read_only = matches_any(assignment.task.readonly_files, file);
    const std::string fence = fence_for(*content);
    prompt += "\n" + file + (read_only ? " (read-only):\n" : ":\n") + fence + "\n" + *content +
              (content->ends_with('\n') ? "" : "\n") + fence + "\n";
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

std::string build_prompt(const Assignment& assignment) {
  const TaskContext& task = assignment.task;
  std::string prompt = "Task " + task.task_id.str() + ": " + task.title + "\n";
  if (!task.description.empty()) prompt += "\n" + task.description + "\n";
  add_list(prompt, "Acceptance criteria:", task.acceptance_criteria);
  add_list(prompt, "Already in the tree, from the tasks it depends on:", task.dependencies);
  add_list(prompt, "The change is accepted when these commands succeed:", assignment.test_commands);
  add_list(prompt, "Files that must not be changed:", task.readonly_files);
  add_file_list(prompt, assignment.tracked_files);
  add_contents(prompt, assignment);
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

Implementation LlmExecutor::implement(const Assignment& assignment, const CallContext& context,
                                      llm::Spending& spending) {
  const TaskContext& task = assignment.task;
  const LLMResponse answer = llm_.generate_code(
      masker_.mask(build_prompt(assignment)), assignment.root, task.max_tokens, context, &spending);
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
