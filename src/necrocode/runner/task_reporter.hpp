// TaskReporter: what a run tells the Task Registry. Without a registry, or for a task it does not
// know, every call does nothing, so that the orchestrator reads the same with and without services.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "necrocode/registry/client.hpp"
#include "necrocode/runner/lease_keeper.hpp"
#include "necrocode/runner/run_result.hpp"

namespace necrocode::runner {

class TaskReporter {
 public:
  /// `registry` and `claim` null: silent.
  TaskReporter(TaskRegistryClient* registry, const registry::ClaimedTask* claim)
      : registry_(claim ? registry : nullptr), claim_(claim) {}

  /// Progress is worth telling, never worth failing for: errors are logged.
  void event(const std::string& event_type, const Json& data, const CallContext& context);
  /// The same after the end, when no lease is held any more.
  void late_event(const std::string& event_type, const Json& data, const CallContext& context);
  /// Throws TimeoutError (cancelled, "the lease was lost") when the task is somebody else's by now.
  void require_lease(const CallContext& context);
  /// Parks the provider when `failure` is of its quota and says until when: everybody who asks it
  /// would meet the same. Without a provider's name nothing.
  void park(const std::string& provider, const std::optional<RunFailure>& failure,
            const CallContext& context);
  /// Ends the task: done, failed, cancelled or handed back, with its artifacts, in one call.
  /// False when the registry did not take it (lease lost, out of reach); then it is logged.
  bool finish(const RunResult& result, registry::TaskState state, const CallContext& context);
  /// A line for each task that `task` depends on: its id, and as far as the registry tells it the
  /// title and the pushed branch. Never throws for a registry that does not
  /// answer.
  std::vector<std::string> describe_dependencies(const TaskContext& task,
                                                 const CallContext& context) const;
  /// How earlier attempts at the task ended, a line each: why they failed, not who ran them.
  std::vector<std::string> describe_attempts() const;
  /// Renews the task's lease while the result lives; nothing without a claim.
  std::optional<LeaseKeeper::Held> keep_lease(LeaseKeeper* keeper, LeaseKeeper::Tell tell);

 private:
  void send(const std::string& event_type, const Json& data, const LeaseToken& lease,
            const CallContext& context);
  TaskRegistryClient* registry_;
  const registry::ClaimedTask* claim_;
};

}  // namespace necrocode::runner
