#include "necrocode/runner/playbook_choice.hpp"

#include <algorithm>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

struct Found {
  std::string text;
  std::string origin;
};

Found read_given(const fs::path& file) {
  try {
    return {read_file(file, limits::kMiB), file.string()};
  } catch (const StorageError& error) {
    throw PlaybookExecutionError("the playbook cannot be read: " + std::string(error.summary()));
  }
}

// Links are followed, then looked at: what they lead out to is not the operator's folder.
std::optional<fs::path> inside(const fs::path& folder, const fs::path& path) {
  if (folder.empty()) return std::nullopt;
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  if (error) {
    throw PlaybookExecutionError("playbooks.directory cannot be used: " + folder.string() + ": " +
                                 error.message());
  }
  const fs::path real = fs::canonical(root / path, error);
  if (error || !real.string().starts_with(root.string() + "/")) return std::nullopt;
  return real;
}

// What a server may take for another path than it looks like is nothing that a glob means.
bool is_trusted(const std::vector<std::string>& trusted, const std::string& url) {
  const std::size_t scheme = url.find("://");
  const std::string_view path =
      std::string_view(url).substr(scheme == std::string::npos ? 0 : scheme + 3);
  const std::vector<std::string_view> parts = split(path, '/');
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool at_an_end = i == 0 || i + 1 == parts.size();
    if (parts[i] == "." || parts[i] == ".." || (parts[i].empty() && !at_an_end)) return false;
  }
  return url.find('%') == std::string::npos && matches_any(trusted, url);
}

std::optional<Found> find_named(const TaskContext& task, const std::string& repository,
                                const PlaybookPlaces& places, const ReadAtHead& read_at_head,
                                std::vector<std::string>& warnings) {
  const std::string& path = task.playbook_path;
  const std::string told = "\"" + printable(path) + "\"";
  if (const auto file = inside(places.directory, path)) return read_given(*file);
  if (fs::path(path).is_absolute()) {
    throw PlaybookExecutionError("the playbook " + told +
                                 " is not in the folder of playbooks.directory");
  }
  if (!is_trusted(places.trusted_repositories, repository)) {
    warnings.push_back("the playbook " + told +
                       " is not used: it is not in playbooks.directory, and the repository is not "
                       "one of playbooks.trusted_repositories");
    return std::nullopt;
  }
  auto text = read_at_head(path);
  if (!text) {
    throw PlaybookExecutionError("the playbook " + told +
                                 " is neither in playbooks.directory nor a file of at most 1 MiB "
                                 "on the repository's default branch");
  }
  return Found{std::move(*text), path + " of the repository"};
}

void no_target(std::vector<PlaybookStep>& steps) {
  for (PlaybookStep& step : steps) {
    step.target = false;
    no_target(step.parallel);
    no_target(step.otherwise);
  }
}

}  // namespace

ChosenPlaybook choose_playbook(const TaskContext& task, const std::string& repository,
                               const PlaybookPlaces& places, const ReadAtHead& read_at_head,
                               const std::vector<std::string>& detected, int test_retries) {
  ChosenPlaybook chosen;
  std::optional<Found> found;
  if (!places.file.empty()) {
    found = read_given(places.file);
  } else if (!task.playbook_path.empty()) {
    found = find_named(task, repository, places, read_at_head, chosen.warnings);
  }
  if (!found && !places.fallback.empty()) found = read_given(places.fallback);
  if (found) {
    chosen.playbook = read_playbook(found->text, found->origin);
    chosen.origin = found->origin;
  }
  const bool own = !task.test_commands.empty();
  if (!own && found) return chosen;
  if (own) no_target(chosen.playbook.steps);
  Playbook commands =
      playbook_of(own ? task.test_commands : detected, task.fail_fast, test_retries);
  std::move(commands.steps.begin(), commands.steps.end(),
            std::back_inserter(chosen.playbook.steps));
  if (!found) chosen.origin = own ? "the task's test_commands" : "the repository's files";
  return chosen;
}

Playbook read_playbook_file(const fs::path& file) {
  const Found found = read_given(file);
  return read_playbook(found.text, found.origin);
}

Json playbook_values(const TaskContext& task, const std::string& branch,
                     const std::string& base_commit) {
  return Json::object({{"task_id", task.task_id.str()},
                       {"spec_name", task.task_id.spec()},
                       {"number", task.task_id.number()},
                       {"title", task.title},
                       {"description", task.description},
                       {"branch", branch},
                       {"base_branch", task.base_branch},
                       {"base_commit", base_commit},
                       {"required_skill", task.required_skill},
                       {"metadata", task.metadata.is_object() ? task.metadata : Json::object()}});
}

}  // namespace necrocode::runner
