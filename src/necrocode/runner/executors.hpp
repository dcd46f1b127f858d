// Executors: who may make a task's change, by the names that tasks and configuration use, and which
// of them a task is for.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "necrocode/config/executor_chain.hpp"
#include "necrocode/git/repository.hpp"
#include "necrocode/runner/executor.hpp"
#include "necrocode/runner/run_log.hpp"
#include "necrocode/runner/test_runner.hpp"

namespace necrocode::runner {

/// The run that an executor works for, and where. All of it lives longer than the executor.
struct ExecutorScope {
  const TaskContext& task;
  const TestRunner::Workspace& workspace;  ///< what of it a command sees
  const git::Repository& repository;
  RunLog& log;
  std::filesystem::path folder;  ///< for it alone, outside of the workspace; not there yet
};
/// Throws ConfigError for an executor that cannot work on this machine.
using MakeExecutor = std::function<std::unique_ptr<TaskExecutor>(const ExecutorScope&)>;

/// What the configuration says.
struct ExecutorChoices {
  config::ExecutorChain usual = {"llm"};
  std::map<std::string, config::ExecutorChain> by_spec, by_skill;
  std::string agent;  ///< what "command" alone means
};

/// Immutable, so thread-safe as far as its makers are.
class Executors {
 public:
  /// `makers`: by "llm", "command:codex", …
  Executors(ExecutorChoices choices, std::map<std::string, MakeExecutor> makers)
      : choices_(std::move(choices)), makers_(std::move(makers)) {}

  /// The task's own chain, else that of its spec, of its skill, the usual one. Throws
  /// TaskContextValidationError that names the known ones for an unknown executor, and for
  /// "command" when there is no configured agent.
  config::ExecutorChain chain_of(const TaskContext& task) const;
  /// `name`: one of chain_of().
  std::unique_ptr<TaskExecutor> make(const std::string& name, const ExecutorScope& scope) const {
    return makers_.at(name)(scope);
  }

 private:
  const config::ExecutorChain& configured(const TaskContext& task) const;
  ExecutorChoices choices_;
  std::map<std::string, MakeExecutor> makers_;
};

}  // namespace necrocode::runner
