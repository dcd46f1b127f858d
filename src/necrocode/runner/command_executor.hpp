// CommandExecutor: an agent program makes the change, in the run's own work tree, in the sandbox,
// with the metering proxy as its only network. Its word counts for nothing, and neither does its
// exit code when it left a change: what is in the work tree is the change, and tests decide.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "necrocode/agent/adapter.hpp"
#include "necrocode/agent/agent_runner.hpp"
#include "necrocode/runner/executors.hpp"

namespace necrocode::runner {

/// What the agent programs of a process share; lives longer than its executors.
struct AgentServices {
  process::Sandbox& sandbox;
  const Masker& masker;
  /// As MeteringProxy::open(); the proxy may be started by the first call.
  std::function<std::unique_ptr<llm::MeteredRun>(llm::MeteredRunOptions)> open_run;
  process::ResourceLimits limits{};   ///< of one program
  std::optional<double> daily_usd{};  ///< cap of all programs of this host
};

/// Each call of implement() is a round of one session: the second goes on where the first ended,
/// with the same home.
///
/// The change is what differs from the index, without ignored files. Throws ImplementationError
/// when nothing does, or what does cannot be taken: read-only files (they are put back), a
/// repository in the repository, more than 10,000 files, or a file above 32 MiB. When the program
/// failed or left nothing, and its last exchange with the model service failed for good, then that
/// is thrown, as of a model client's: Unauthorized, RateLimited, ServiceError, Unavailable.
/// ResourceLimitError when a limit ended it; TimeoutError when the context did.
class CommandExecutor final : public TaskExecutor {
 public:
  /// Throws ConfigError when the program is not installed; SecurityError for a lent clone in a
  /// sandbox that cannot cover its `.git`.
  CommandExecutor(const agent::AgentAdapter& adapter, const AgentServices& services,
                  const ExecutorScope& scope);
  /// Of the task; of what went wrong, when its session has begun. Never a file's content: the
  /// program reads what it wants to.
  std::string prompt(const Assignment& assignment) const override;
  Implementation implement(const Assignment& assignment, const CallContext& context,
                           llm::Spending& spending, Transcript& transcript) override;

 private:
  struct Change {
    std::vector<std::string> files;
    std::vector<std::string> read_only;     ///< of those that may not be changed
    std::vector<std::string> repositories;  ///< folders with a `.git` of their own
  };

  void open(const CallContext& context, const llm::Spending& spending);
  agent::AgentRound run_program(const std::string& prompt, const CallContext& context);
  llm::Usage account(const llm::Metered& metered, llm::Spending& spending);
  Change look(const Assignment& assignment, const CallContext& context) const;
  void require_ended_well(const agent::AgentRound& round, const Change& change) const;
  void require_usable(const Change& change, const Assignment& assignment,
                      const CallContext& context) const;
  void put_back(const std::vector<std::string>& files, const Assignment& assignment,
                const CallContext& context) const;
  std::string name() const { return "the agent program \"" + adapter_.name + "\""; }

  const agent::AgentAdapter& adapter_;
  const AgentServices& services_;
  ExecutorScope scope_;
  process::Gate gate_;
  std::unique_ptr<llm::MeteredRun> run_;  ///< from the first round on
  llm::Metered counted_;                  ///< of it, in earlier rounds
  bool session_ = false;                  ///< a round has been run
  std::string change_digest_;             ///< of all changes so far
};

}  // namespace necrocode::runner
