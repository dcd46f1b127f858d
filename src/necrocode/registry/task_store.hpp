// TaskStore: where the registry's truth lives, as domain operations. Changes are made in durable
// transactions, together with the events they cause and the answers kept for Idempotency-Key; when
// one returns, it is on disk. Nothing here assumes one process or one clock: which clock ends a
// lease is the store's matter.
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/net/idempotency.hpp"
#include "necrocode/registry/model.hpp"

namespace necrocode::registry {

/// The task changed since the version that the caller had seen (If-Match; HTTP 412).
class LostUpdate : public Conflict {
 public:
  using Conflict::Conflict;
};

/// Whether a task may be changed that is at this version (If-Match); nothing: whatever it is at.
using VersionCondition = std::function<bool(std::int64_t version)>;

struct Submission {
  std::string spec_name;
  std::vector<TaskSpec> tasks;  ///< TaskSpec::number without the spec, each once
  std::optional<Json> metadata;
  // Of TasksetLimits; nothing: as it was, or its default.
  std::optional<int> max_running{};
  std::optional<double> budget_usd{};
  std::optional<std::int64_t> budget_tokens{};
  std::optional<UnblockOn> unblock_on{};
  bool replace = false;  ///< removes tasks that are not named and have not begun
};

struct StatusChange {
  TaskState status = TaskState::kReady;
  Json metadata;  ///< merged into the task's
  LeaseToken lease_token;
  VersionCondition expected;
};

struct NewEvent {
  std::string event_type;
  Json data;
  SystemTime timestamp;
  /// Files it under that lease's attempt, also when the lease has ended; under attempt 0 when the
  /// claim was handed back, as that was no attempt.
  LeaseToken lease_token;
};
struct NewArtifact {
  ArtifactRef artifact;
  LeaseToken lease_token;
};

/// What may be changed of a task at any time; nothing: as it was.
struct TaskPatch {
  std::optional<int> priority;
  std::optional<std::vector<std::string>> labels;
  Json metadata;  ///< merged into the task's
  VersionCondition expected;
};

/// What one of several claims came to.
struct ClaimOutcome {
  std::vector<ClaimedTask> claimed;  ///< empty where nothing was ready
  std::exception_ptr refusal;        ///< why it can never succeed as it is asked for
  /// `claimed`, or throws `refusal`.
  const std::vector<ClaimedTask>& get() const {
    if (refusal) std::rethrow_exception(refusal);
    return claimed;
  }
};

/// What `complete` claims next: nothing, or on the given terms, or on those of the finished lease.
struct NextClaim {
  bool wanted = false;
  std::optional<ClaimRequest> terms;  ///< `max` is 1
};
struct Completed {
  Task task;
  std::optional<ClaimedTask> next;
};

struct HeartbeatResult {
  std::string task_id;
  std::optional<HeartbeatAnswer> answer;
  /// Why there is no answer: Conflict for a lost lease or an ambiguous id, NotFound,
  /// TaskContextValidationError.
  std::exception_ptr problem;
};

struct EventQuery {
  std::string task_id;  ///< empty: of all tasks
  std::string spec;
  std::string type;
  std::optional<SystemTime> since;  ///< recorded then or later
  std::optional<SystemTime> until;  ///< recorded before
  std::int64_t after = 0;           ///< the last seen event's id
  int limit = static_cast<int>(limits::kPageSizeDefault);
  std::size_t bytes_max = limits::kPageBytes;  ///< of stored text; the first event always comes
};

/// What others may go on with after a commit.
struct CommitNews {
  bool became_claimable = false;       ///< a task; a claim that found none may find one now
  bool due_sooner = false;             ///< do_due() has something to do before it said
  std::vector<std::string> events_of;  ///< the tasks that have new events; more than once for many
};

struct TasksetPage {
  std::vector<Taskset> items;  ///< without their tasks
  std::optional<std::string> next_cursor;
};

/// What is removed for its age; nothing: never.
struct Retention {
  /// Tasksets all of whose tasks are final, unchanged for so long, and needed by no other one that
  /// is not; with their attempts, artifact references and events.
  std::optional<std::chrono::milliseconds> tasksets;
  std::optional<std::chrono::milliseconds> events;
};

/// What an operator sets for all tasksets together.
struct StoreOptions {
  std::map<std::string, int> max_running_by_skill;  ///< of tasks with that required_skill
};

struct TaskGraph {
  struct Node {
    std::string id;
    std::string title;
    TaskState state = TaskState::kBlocked;
    bool external = false;  ///< of another taskset
  };
  struct Edge {
    std::string parent;
    std::string child;
    DependencyPolicy policy = DependencyPolicy::kBlock;
  };
  std::string spec_name;
  std::vector<Node> nodes;
  std::vector<Edge> edges;
};

/// The changes that can be made within one transaction, with the events they cause. A task id may
/// be bare where it is unambiguous. Every operation throws NotFound for an unknown task or taskset,
/// Conflict for an ambiguous id (naming the candidates), TaskContextValidationError for wrong
/// input, and StorageError when the store itself failed.
class TaskChanges {
 public:
  virtual ~TaskChanges() = default;
  /// TaskContextValidationError also for a dependency that does not exist or closes a cycle
  /// (named).
  /// True when the taskset is new.
  ///
  /// What is submitted as done is so before the others' dependencies are looked at, whatever the
  /// order of the tasks. A dependency once met stays met until the task's dependencies or their
  /// policies change; then all of them are looked at anew, and a parent that has failed acts at
  /// once. A not_before is looked at when the task becomes ready, and when it is changed; from then
  /// on the monotonic clock counts. What a running task holds (its touches, its skill) is what its
  /// fields say now.
  virtual bool submit(const Submission& submission) = 0;
  /// Conflict for an illegal transition or without the lease's token; LostUpdate. The final state
  /// told again by the last holder changes nothing.
  virtual Task set_status(const std::string& task_id, const StatusChange& change) = 0;
  /// Conflict when the lease token was never one of this task's.
  virtual Event add_event(const std::string& task_id, const NewEvent& event) = 0;
  /// TaskContextValidationError beyond limits::kTaskArtifacts or kTaskArtifactBytes of one task.
  virtual ArtifactRef add_artifact(const std::string& task_id, const NewArtifact& artifact) = 0;
  /// Serves the requests in their order, in one transaction, without waiting; one outcome each. A
  /// claimable task goes to one claimant: of the highest priority, then of the spec with the fewest
  /// running tasks, then the oldest. Claimable is a ready task
  /// - whose not_before has passed,
  /// - whose spec and whose skill run fewer tasks than they may, and whose budget is not spent,
  /// - whose provider (its own, else the claimant's) is not parked, or is to be probed by it, and
  /// - whose `touches` overlap with those of no running task on the same repo_url.
  /// A task that is named is given without regard to skills and order, and else not at all. A
  /// request that names no task, or an ambiguous one, is refused alone: NotFound, Conflict or
  /// TaskContextValidationError in its outcome.
  virtual std::vector<ClaimOutcome> claim(const std::vector<ClaimRequest>& requests) = 0;
  /// True when that lease has not ended.
  virtual bool lives(const LeaseRef& lease) = 0;
  /// Undoes a claim whose answer never reached its claimant: no attempt is counted. Nothing happens
  /// when the lease has ended meanwhile.
  virtual void give_back(const std::vector<LeaseRef>& leases) = 0;
  /// Conflict when the lease is lost, then LostUpdate, then Conflict for an illegal transition. A
  /// failure ends the task, or makes it ready again with a `not_before`, as attempt_policy.hpp
  /// says; a task whose cancellation was asked for is cancelled instead of made ready. What the
  /// metadata tells (`usage.cost_usd`, `usage.total_tokens`, `branch`, `commit`) is kept in the
  /// attempt's record, and counts against the taskset's budget.
  /// Told again by the last holder it changes nothing, and answers the next lease that it gave
  /// while that one lives. A next task that is unknown or ambiguous is none, as one that is not
  /// ready.
  virtual Completed complete(const std::string& task_id, const Completion& completion,
                             const NextClaim& next, const VersionCondition& expected = {}) = 0;
  /// LostUpdate; Conflict for a task that is done or failed.
  virtual Task cancel(const std::string& task_id, const std::string& reason,
                      const VersionCondition& expected = {}) = 0;
  /// Gives a failed or cancelled task new attempts: it is ready, or blocked while dependencies are
  /// open, also where a parent that has failed would cancel it: it then waits for that one's retry.
  /// It waits for no not_before. Nothing else brings a cancelled one back. LostUpdate; Conflict for
  /// a running or done task.
  virtual Task retry(const std::string& task_id, const VersionCondition& expected = {}) = 0;
  /// LostUpdate. A lease does not matter: none of it is the runner's. Nothing happens when all of
  /// it is so already.
  virtual Task patch(const std::string& task_id, const TaskPatch& patch) = 0;
  /// Tasks that need this provider wait until then and use up no attempt. Then one of them is given
  /// out as a probe: when it ends otherwise than by quota, all go on; else the provider stays
  /// parked until the failure's retry_at (without one that lies ahead for a minute). A probe that
  /// proves nothing (handed back, its lease ended, cancelled, class infrastructure) is followed by
  /// another at once. A later call replaces an earlier one, and forgets its probe. A time that has
  /// passed lets it be probed at once, one beyond limits::kParkTimeMax from now counts as that.
  virtual ParkedProvider park(const std::string& provider, SystemTime until,
                              const std::string& reason) = 0;
  /// NotFound for one that is not parked.
  virtual void unpark(const std::string& provider) = 0;

  /// The answers kept for Idempotency-Key, of this transaction too.
  virtual net::IdempotencyStore& answers() = 0;
};

/// Thread-safe; throws as TaskChanges does.
class TaskStore {
 public:
  virtual ~TaskStore() = default;

  /// Runs `work` as one transaction, on a thread of the store's or the caller's; returns when it is
  /// durable. What `work` throws undoes all of it and comes through. It must not call the store,
  /// nor wait for anything. A store may have to undo it and run it again: it leaves nothing that
  /// its second run trips over.
  virtual void transact(const std::function<void(TaskChanges&)>& work) = 0;
  /// The same without waiting: `done` is called once, on a thread of the store's, when the work is
  /// durable, or with what it threw. It must return soon and not call transact(). Many of these
  /// share one sync, however few threads there are to wait for it.
  virtual void transact_later(std::function<void(TaskChanges&)> work,
                              std::function<void(std::exception_ptr)> done) = 0;
  /// What `operation` returned in a transaction of its own.
  template <class Operation>
  auto change(Operation&& operation) {
    std::optional<std::invoke_result_t<Operation&, TaskChanges&>> result;
    transact([&](TaskChanges& changes) { result = operation(changes); });
    return std::move(*result);
  }

  /// One result a lease, in order; never throws for a lost lease.
  virtual std::vector<HeartbeatResult> heartbeat(const std::vector<LeaseRef>& leases) = 0;

  /// Does what time alone brings. A lease that is due ends: its task is ready again, or failed
  /// after its last attempt, or cancelled if that was asked for. A `not_before` that has passed
  /// lets its task be claimed; a parked provider's `until` lets it be probed. Returns how long
  /// until there is something to do again; a commit may make it sooner (CommitNews::due_sooner).
  virtual std::optional<std::chrono::nanoseconds> do_due() = 0;
  /// Removes at most some thousand rows of what is too old; true when there is more.
  virtual bool purge(const Retention& retention) = 0;

  // Queries. A page of tasks or events ends after its limit or limits::kPageBytes of stored text,
  // with at least one item.
  virtual Task task(const std::string& task_id) = 0;
  virtual TaskPage tasks(const TaskQuery& query) = 0;
  /// Oldest first, the running one included.
  virtual std::vector<AttemptRecord> attempts(const std::string& task_id) = 0;
  virtual Explanation explain(const std::string& task_id) = 0;
  /// By name.
  virtual std::vector<ParkedProvider> parked_providers() = 0;
  /// Its tasks by number, as far as they go into a page of limits::kTasksPerSubmit.
  virtual Taskset taskset(const std::string& spec, TasksetPart part) = 0;
  /// By name; `cursor` is the last seen name.
  virtual TasksetPage tasksets(const std::string& cursor, int limit) = 0;
  virtual EventPage events(const EventQuery& query) = 0;
  /// The id of the newest event; 0: there is none. A lower one never comes later.
  virtual std::int64_t newest_event() = 0;
  virtual TaskGraph graph(const std::string& spec) = 0;
  /// Of all tasks, by state; a state without tasks is 0.
  virtual std::map<TaskState, std::int64_t> counts() = 0;

  /// `listener` is called after each commit that has news, on a thread of the store's; it must
  /// return at once and not call the store.
  virtual void on_commit(std::function<void(const CommitNews&)> listener) = 0;
  /// Throws StorageError when the store cannot work.
  virtual void check() = 0;
};

}  // namespace necrocode::registry
