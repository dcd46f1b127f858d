// Which playbook proves a task. Only from trusted places: a file that the operator names or keeps
// in his folder, or one of a repository that he trusts, as it stands on that one's default branch:
// what a task names as its base, and what it depends on, may be the work of models.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/runner/playbook.hpp"
#include "necrocode/runner/task_context.hpp"

namespace necrocode::runner {

struct PlaybookPlaces {
  std::filesystem::path file;       ///< `--playbook`: for every task, whatever it names
  std::filesystem::path directory;  ///< `playbooks.directory`: a task's playbook_path is below it
  std::filesystem::path fallback;   ///< `default_playbook_path`: of a task that names none
  /// `playbooks.trusted_repositories`: URLs, or globs of them, whose own playbooks are used; one
  /// that ends with '/' means all below it.
  std::vector<std::string> trusted_repositories;
};

struct ChosenPlaybook {
  Playbook playbook;  ///< no steps: nothing proves this task
  std::string origin;
  std::vector<std::string> warnings;
};

/// What a repository holds on its default branch; nothing when there is no such file.
using ReadAtHead = std::function<std::optional<std::string>(const std::string& path)>;

/// The playbook's steps, then the task's own test_commands, which are then the only targets;
/// without a playbook those commands, else `detected`. `test_retries`: of these commands, not of a
/// playbook's steps. A task's playbook that only an untrusted
/// repository may hold is not used, which is a warning; the default one steps in. Throws
/// PlaybookExecutionError: not there, outside of the folder, or wrong.
ChosenPlaybook choose_playbook(const TaskContext& task, const std::string& repository,
                               const PlaybookPlaces& places, const ReadAtHead& read_at_head,
                               const std::vector<std::string>& detected, int test_retries = 0);

/// Throws PlaybookExecutionError.
Playbook read_playbook_file(const std::filesystem::path& file);

/// What conditions and commands of a playbook may ask for.
Json playbook_values(const TaskContext& task, const std::string& branch,
                     const std::string& base_commit);

}  // namespace necrocode::runner
