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
  bool became_ready = false;           ///< a task
  std::vector<std::string> events_of;  ///< the tasks that have new events; more than once for many
};

struct TasksetPage {
  std::vector<Taskset> items;  ///< without their tasks
  std::optional<std::string> next_cursor;
};

struct TaskGraph {
  struct Node {
    std::string id;
    std::string title;
    TaskState state = TaskState::kBlocked;
    bool external = false;  ///< of another taskset
  };
  std::string spec_name;
  std::vector<Node> nodes;
  std::vector<std::pair<std::string, std::string>> edges;  ///< parent, child
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
  virtual bool submit(const Submission& submission) = 0;
  /// Conflict for an illegal transition or without the lease's token; LostUpdate. The final state
  /// told again by the last holder changes nothing.
  virtual Task set_status(const std::string& task_id, const StatusChange& change) = 0;
  /// Conflict when the lease token was never one of this task's.
  virtual Event add_event(const std::string& task_id, const NewEvent& event) = 0;
  /// TaskContextValidationError beyond limits::kTaskArtifacts or kTaskArtifactBytes of one task.
  virtual ArtifactRef add_artifact(const std::string& task_id, const NewArtifact& artifact) = 0;
  /// Serves the requests in their order, in one transaction, without waiting; one outcome each. A
  /// ready task goes to one claimant, highest priority first, then oldest. A request that names no
  /// task, or an ambiguous one, is refused alone: NotFound, Conflict or TaskContextValidationError
  /// in its outcome.
  virtual std::vector<ClaimOutcome> claim(const std::vector<ClaimRequest>& requests) = 0;
  /// True when that lease has not ended.
  virtual bool lives(const LeaseRef& lease) = 0;
  /// Undoes a claim whose answer never reached its claimant: no attempt is counted. Nothing happens
  /// when the lease has ended meanwhile.
  virtual void give_back(const std::vector<LeaseRef>& leases) = 0;
  /// Conflict when the lease is lost, then LostUpdate, then Conflict for an illegal transition.
  /// Told again by the last holder it changes nothing, and answers the next lease that it gave
  /// while that one lives. A next task that is unknown or ambiguous is none, as one that is not
  /// ready.
  virtual Completed complete(const std::string& task_id, const Completion& completion,
                             const NextClaim& next, const VersionCondition& expected = {}) = 0;
  /// LostUpdate; Conflict for a task that is done or failed.
  virtual Task cancel(const std::string& task_id, const std::string& reason,
                      const VersionCondition& expected = {}) = 0;
  /// Gives a failed or cancelled task new attempts: it is ready, or blocked while dependencies are
  /// open. Nothing else brings a cancelled one back. LostUpdate; Conflict for a running or done
  /// task.
  virtual Task retry(const std::string& task_id, const VersionCondition& expected = {}) = 0;

  /// The answers kept for Idempotency-Key, of this transaction too.
  virtual net::IdempotencyStore& answers() = 0;
};

/// Thread-safe; throws as TaskChanges does.
class TaskStore {
 public:
  virtual ~TaskStore() = default;

  /// Runs `work` as one transaction, once, on a thread of the store's or the caller's; returns when
  /// it is durable. What `work` throws undoes all of it and comes through. It must not call the
  /// store, nor wait for anything.
  virtual void transact(const std::function<void(TaskChanges&)>& work) = 0;
  /// What `operation` returned in a transaction of its own.
  template <class Operation>
  auto change(Operation&& operation) {
    std::optional<std::invoke_result_t<Operation&, TaskChanges&>> result;
    transact([&](TaskChanges& changes) { result = operation(changes); });
    return std::move(*result);
  }

  /// One result a lease, in order; never throws for a lost lease.
  virtual std::vector<HeartbeatResult> heartbeat(const std::vector<LeaseRef>& leases) = 0;

  // Leases.
  /// Ends every lease that is due: its task is ready again, or failed after its last attempt, or
  /// cancelled if that was asked for. Returns how long until the next one may be due.
  virtual std::optional<std::chrono::nanoseconds> expire_leases() = 0;

  // Queries. A page of tasks or events ends after its limit or limits::kPageBytes of stored text,
  // with at least one item.
  virtual Task task(const std::string& task_id) = 0;
  virtual TaskPage tasks(const TaskQuery& query) = 0;
  virtual Taskset taskset(const std::string& spec) = 0;
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
