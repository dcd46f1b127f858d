// TaskContext: one task as the runner takes it (SPEC section 9), from a file or from a claim.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/config/executor_chain.hpp"

namespace necrocode::runner {

struct TaskContext {
  explicit TaskContext(TaskId id) : task_id(std::move(id)) {}

  TaskId task_id;
  std::string title;
  std::string description;
  std::vector<std::string> acceptance_criteria;
  std::vector<std::string> dependencies;
  std::string required_skill;
  std::string repo_url;             ///< used unless slot_path is given
  std::filesystem::path slot_path;  ///< an existing clone, by hand or from another pool
  std::string branch_name;  ///< always set: the default is feature/task-{spec}-{number}-{slug}
  std::string base_branch;  ///< empty: the remote's HEAD
  std::vector<std::string> base_commits;  ///< what its dependencies pushed
  std::vector<std::string> test_commands;
  std::string playbook_path;  ///< used only from a trusted place (playbook_choice.hpp)
  bool fail_fast = true;      ///< the first failing test command ends the round
  std::chrono::seconds timeout{1800};
  std::chrono::seconds test_timeout{600};
  std::vector<std::string> related_files;
  std::vector<std::string> readonly_files;  ///< paths or globs that the change must not touch
  int max_tokens = 0;                       ///< 0: the configuration's
  config::ExecutorChain executor;           ///< empty: the configuration's
  Json metadata;

  std::vector<std::string> warnings;  ///< unknown keys and the like, for the log

  friend bool operator==(const TaskContext&, const TaskContext&) = default;
};

struct TaskDefaults {
  std::chrono::seconds timeout{1800};
  std::chrono::seconds test_timeout{600};
  std::string repo_url;            ///< from --repo
  config::ExecutorChain executor;  ///< from --executor: whatever the task says
};

/// Throws TaskContextValidationError that names every defect at once.
TaskContext read_task_context(const Json& json, const TaskDefaults& defaults);
/// Whose task it is, or nothing when that cannot be read.
std::optional<TaskId> task_id_of(const Json& json);
/// A task or taskset file, JSON or YAML by its ending (.json; else YAML). Throws
/// TaskContextValidationError or ConfigError.
Json read_task_file(const std::filesystem::path& file, std::size_t bytes_max = 4 * limits::kMiB);

/// True when `path` is one of `patterns`, or matches one: `*` and `?` within a segment, `**` across
/// segments; a pattern that ends with '/' matches everything below it.
bool matches_any(const std::vector<std::string>& patterns, std::string_view path);

}  // namespace necrocode::runner
