// TaskRegistryClient: the Task Registry's HTTP calls, each as one method. Of the registry's rules
// nothing is repeated here: it answers, or says why not.
#pragma once

#include <functional>
#include <string>

#include "necrocode/base/call_context.hpp"
#include "necrocode/net/service_caller.hpp"
#include "necrocode/registry/model.hpp"

namespace necrocode {

/// Thread-safe. Every call throws what ServiceCaller::call() documents: NotFound for an unknown
/// task or taskset, Conflict with the candidates for an ambiguous number,
/// TaskContextValidationError for what the registry refuses, InvalidResponse for an answer that is
/// not as the protocol says.
///
/// With ServiceOptions::spool, what a run tells about its task (update_task_status, add_event,
/// add_artifact, complete_or_keep) is kept there while the registry is out of reach, and counts as
/// told: it is delivered later, in order, and what is returned is made from what was sent. settle()
/// says whether all of it has gone out.
///
/// A task id is full ("app:1.1") or a bare number ("1.1") where that is
/// unambiguous. `lease` is the token of the claim; while a task is leased, changes without it are a
/// Conflict.
class TaskRegistryClient {
 public:
  static constexpr const char* kDefaultUrl = "http://127.0.0.1:8000";
  /// Both throw ConfigError for a URL or token that cannot be used; see ServiceOptions.
  explicit TaskRegistryClient(const std::string& base_url = kDefaultUrl);
  explicit TaskRegistryClient(net::ServiceOptions options);

  /// `status`: ready, blocked, in_progress or running, done, failed, cancelled. Conflict for an
  /// illegal transition or without the lease's token.
  registry::Task update_task_status(const std::string& task_id, const std::string& status,
                                    const Json& metadata = Json::object(),
                                    const LeaseToken& lease = {}, const CallContext& context = {});
  /// Appends to the task's history. `data` is kept as it is, at most limits::kEventBytes. The event
  /// as recorded, with its id.
  registry::Event add_event(const std::string& task_id, const std::string& event_type,
                            const Json& data = Json::object(), const LeaseToken& lease = {},
                            const CallContext& context = {});
  /// Records that the task has an artifact. The uri is not checked, nothing is uploaded.
  void add_artifact(const std::string& task_id, const std::string& type, const std::string& uri,
                    std::optional<std::int64_t> size_bytes = {},
                    const Json& metadata = Json::object(), const LeaseToken& lease = {},
                    const CallContext& context = {});
  /// The task as it stands, its artifacts included.
  registry::Task get_task(const std::string& task_id, const CallContext& context = {});
  /// Waits until nothing that was told about the task is kept any more; false when the context
  /// ended first. At once true without a spool.
  bool settle(const std::string& task_id, const CallContext& context = {});
  /// Once, without retries, within the health timeout. Never throws.
  net::HealthStatus health_check();

  /// Creates or updates the taskset {"spec_name","tasks":[…]}, whole or not at all; tasks are
  /// matched by number. TaskContextValidationError with every defect, a cycle of dependencies among
  /// them.
  /// With `kHead` the answer has no tasks, which a large one should not.
  registry::Taskset submit(const Json& taskset, const CallContext& context = {},
                           registry::TasksetPart part = registry::TasksetPart::kWhole);
  /// The taskset with its tasks, or without them.
  registry::Taskset get_taskset(const std::string& spec, const CallContext& context = {},
                                registry::TasksetPart part = registry::TasksetPart::kWhole);
  /// All of them, page by page.
  std::vector<registry::Taskset> list_tasksets(const CallContext& context = {});
  /// Leases up to `request.max` ready tasks, highest priority first. Empty when there is no work
  /// within `request.wait`.
  std::vector<registry::ClaimedTask> claim(const registry::ClaimRequest& request,
                                           const CallContext& context = {});
  /// Renews the lease for as long as it was claimed for, and tells whether the task is to be given
  /// up. Conflict when the lease is lost.
  registry::HeartbeatAnswer heartbeat(const std::string& task_id, const LeaseToken& lease,
                                      const CallContext& context = {});
  /// The same for many leases (at most limits::kHeartbeatsPerCall) in one call; one answer each, in
  /// order, nothing for a lease that is lost.
  std::vector<std::optional<registry::HeartbeatAnswer>> heartbeats(
      const std::vector<registry::LeaseRef>& leases, const CallContext& context = {});
  /// Ends the lease: state, artifacts and events in one transaction, which also makes dependents
  /// ready. Conflict when the lease is lost.
  registry::Task complete(const std::string& task_id, const registry::Completion& completion,
                          const CallContext& context = {});
  /// The same, for who cannot wait: false when the registry is out of reach and the completion is
  /// kept (ServiceOptions::spool). It is tried at once also while earlier reports are kept.
  bool complete_or_keep(const std::string& task_id, const registry::Completion& completion,
                        const CallContext& context = {});
  /// A task that nobody runs is cancelled at once; a running one gets `cancel_requested`. Conflict
  /// when it is done or has failed.
  registry::Task cancel(const std::string& task_id, const std::string& reason = {},
                        const CallContext& context = {});
  /// A failed or cancelled task gets new attempts: it is ready, or blocked while its dependencies
  /// are open; one that waits already stays as it is.
  /// Conflict in any other state.
  registry::Task retry(const std::string& task_id, const CallContext& context = {});
  /// {"priority","labels","metadata"}: each that is there replaces the task's, metadata is merged.
  /// Also while it runs.
  registry::Task patch(const std::string& task_id, const Json& changes,
                       const CallContext& context = {});
  /// Why it does not run.
  registry::Explanation explain(const std::string& task_id, const CallContext& context = {});
  /// What each attempt came to, oldest first, the running one included.
  std::vector<registry::AttemptRecord> attempts(const std::string& task_id,
                                                const CallContext& context = {});
  /// Tasks of this model provider wait until then and use up no attempt; then one of them tries it.
  registry::ParkedProvider park(const std::string& provider, SystemTime until,
                                const std::string& reason = {}, const CallContext& context = {});
  /// They go on. NotFound for a provider that is not parked.
  void unpark(const std::string& provider, const CallContext& context = {});
  std::vector<registry::ParkedProvider> parked_providers(const CallContext& context = {});
  /// One page of the tasks that `query` selects.
  registry::TaskPage list(const registry::TaskQuery& query = {}, const CallContext& context = {});
  /// One page of the events that `filter` selects, in order.
  registry::EventPage events(const registry::EventFilter& filter, int limit = 1000,
                             const CallContext& context = {});
  /// Gives `on_event` each of them, and then each new one as it comes, in order, none left out and
  /// none twice, over restarts of the registry too; on the caller's thread, so that it may call
  /// this client. True when it said false (enough), false when the context ended. Throws what it
  /// throws, and what any call does: Unavailable when the registry is not back within its retries.
  bool watch(const registry::EventFilter& filter,
             const std::function<bool(const registry::Event&)>& on_event,
             const CallContext& context = {});
  /// {"nodes","edges","levels"} as the registry gives it; or dot / mermaid text as a JSON string.
  Json graph(const std::string& spec, const std::string& format = "json",
             const CallContext& context = {});

  const std::string& base_url() const { return caller_.base_url(); }

 private:
  registry::Taskset with_all_tasks(registry::Taskset taskset, const CallContext& context);

  net::ServiceCaller caller_;
};

}  // namespace necrocode
