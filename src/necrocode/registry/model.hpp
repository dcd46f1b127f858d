// The Task Registry's vocabulary, shared by its client and its service.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/json.hpp"

namespace necrocode {
class JsonFields;
}

namespace necrocode::registry {

/// blocked → ready → running → done | failed | cancelled; failed → ready, and cancelled →
/// ready by retry alone, so that its dependents are no dead end.
enum class TaskState { kBlocked, kReady, kRunning, kDone, kFailed, kCancelled };
inline constexpr std::array kTaskStates = {TaskState::kBlocked, TaskState::kReady,
                                           TaskState::kRunning, TaskState::kDone,
                                           TaskState::kFailed,  TaskState::kCancelled};
std::string_view to_string(TaskState state);
/// `in_progress` is read as running. Nothing for an unknown name.
std::optional<TaskState> parse_task_state(std::string_view name);
bool is_final(TaskState state);

/// What becomes of a task when one that it depends on fails or is cancelled.
enum class DependencyPolicy {
  kBlock,   ///< it waits until that one is retried and done; the default
  kCancel,  ///< it is cancelled too
  kRun      ///< it may run as if that one were done
};
std::string_view to_string(DependencyPolicy policy);
/// block, cancel, run. Nothing for an unknown name.
std::optional<DependencyPolicy> parse_dependency_policy(std::string_view name);

/// What a task was submitted with, field by field as in the JSON (examples/task.json).
struct TaskSpec {
  std::string number;  ///< "1.1"
  std::string title;
  std::string description;
  std::vector<std::string> acceptance_criteria;
  std::vector<std::string> dependencies;  ///< numbers of the same spec, or full ids
  /// One policy for all dependencies, or as an object one for each that is named as there; block
  /// for the others. `on_dependency_failure`.
  std::map<std::string, DependencyPolicy> dependency_policies;
  DependencyPolicy dependency_policy = DependencyPolicy::kBlock;  ///< of those without their own
  std::string required_skill;
  std::string provider;                  ///< the model provider it needs; "": the claimant's
  std::vector<std::string> touches;      ///< globs of the files it changes (touches.hpp)
  std::optional<SystemTime> not_before;  ///< no claim before then
  bool done = false;                     ///< it needs no run: done elsewhere, or ticked by hand
  std::string repo_url;
  std::string branch_name;
  std::string base_branch;
  std::vector<std::string> test_commands;
  std::vector<std::string> related_files;
  std::vector<std::string> readonly_files;
  std::vector<std::string> labels;
  int priority = 0;  ///< higher first
  /// Every field as it was sent, these and the others (fail_fast, timeout_seconds, executor …), for
  /// the runner; unknown ones are dropped.
  Json fields;

  /// Reads one element of a taskset; collects defects into `reader`'s errors.
  static TaskSpec from_json(JsonFields& reader);
};

/// A task's pointer to an artifact. Only recorded: nobody has looked whether it is there.
struct ArtifactRef {
  std::string type;  ///< "diff", "log", "test" …
  std::string uri;
  std::optional<std::int64_t> size_bytes;
  Json metadata;
  SystemTime created_at;
  int attempt = 0;
  Json to_json() const;
  static ArtifactRef from_json(const Json& json);
};

/// A task as the registry tells it.
struct Task {
  std::string id;  ///< full
  std::string spec_name;
  std::string number;
  TaskState state = TaskState::kReady;
  Json fields;  ///< as submitted
  Json metadata;
  std::vector<std::string> dependencies;  ///< full ids
  std::vector<ArtifactRef> artifacts;
  /// The pushed commits of its dependencies, to start from; set in a claim's answer.
  std::vector<std::string> base_commits;
  int attempt = 0;
  std::int64_t version = 0;  ///< grows with each change; the ETag
  std::string runner_id;     ///< of the lease, when running
  bool cancel_requested = false;
  std::string blocked_reason;  ///< why a blocked task waits, "" otherwise
  /// {"class","reason","retry_at"} of the last attempt that failed, until the task is done; null
  /// when that one told none.
  Json failure;
  std::optional<SystemTime> not_before;  ///< of a ready task that waits: no claim before then
  SystemTime created_at;
  SystemTime updated_at;
  Json to_json() const;
  /// Throws InvalidResponse.
  static Task from_json(const Json& json);
};

/// Why an attempt ended badly, and so whether it is worth another one (attempt_policy.hpp).
struct Failure {
  std::string failure_class;           ///< agent, tests, infrastructure, quota, conflict
  std::string reason;                  ///< for people
  std::optional<SystemTime> retry_at;  ///< no other attempt before then
  Json to_json() const;
};

/// What is known of one attempt: a lease's time, and what its holder told at the end or on the way
/// (its completion's `usage`, `branch` and `commit`; a SlotAllocated event's `slot_id` and `branch`
/// under its token). A run without a lease is one too, of no runner.
struct AttemptRecord {
  int attempt = 0;  ///< as people count; 0: handed back, and so none
  std::string runner_id;
  std::string provider;
  std::string slot_id;
  std::string branch;
  std::string commit;
  SystemTime started_at;
  std::optional<SystemTime> ended_at;
  /// The state that it left the task in: done, failed, cancelled, or ready (to be tried again, or
  /// handed back). Empty while it runs.
  std::string outcome;
  Json failure;  ///< as Failure::to_json(), or null
  double cost_usd = 0;
  std::int64_t tokens = 0;
  std::vector<ArtifactRef> artifacts;
  Json to_json() const;
  static AttemptRecord from_json(const Json& json);
};

/// A task that is ours until the lease ends.
struct ClaimedTask {
  Task task;
  /// The attempts before this one, oldest first, at most limits::kAttemptsTold of the last.
  std::vector<AttemptRecord> previous_attempts;
  LeaseToken lease_token;
  SystemTime expires_at;               ///< by the registry's clock, for people
  std::chrono::milliseconds lease{0};  ///< how long from now
  Json to_json() const;
  static ClaimedTask from_json(const Json& json);
};

/// A lease, by its task and its token.
struct LeaseRef {
  std::string task_id;
  LeaseToken token;
};

/// Which tasks to lease, and for how long.
struct ClaimRequest {
  RunnerId runner_id;
  std::vector<std::string> skills;          ///< empty: any task
  std::chrono::milliseconds lease{60'000};  ///< at least 1 s
  std::chrono::milliseconds wait{0};        ///< long poll; at most limits::kClaimWaitMax
  int max = 1;                              ///< tasks; at most limits::kClaimMax
  std::optional<std::string> task_id;       ///< just this one
  /// Where this runner's model calls go, for tasks that name no provider; tasks that name another
  /// one are not given. Empty: it can serve any, and is never parked.
  std::string provider;
  Json to_json() const;
};

/// Why a task does not run now. More than one reason may hold.
struct WaitReason {
  /// state, dependency, not_before, spec_limit, skill_limit, budget, provider, touches
  std::string kind;
  std::string detail;                 ///< for people
  std::string task_id{};              ///< the other task, where there is one
  std::optional<SystemTime> until{};  ///< where it is known
};
struct Explanation {
  std::string task_id;
  TaskState state = TaskState::kBlocked;
  bool claimable = false;           ///< the next claimant with its skill and provider may get it
  std::vector<WaitReason> reasons;  ///< empty when it is claimable or running
  Json to_json() const;
  static Explanation from_json(const Json& json);
};

/// A provider whose tasks wait, as POST /providers/{name}/park asked for.
struct ParkedProvider {
  std::string name;
  SystemTime until;
  std::string reason;
  std::string probe;  ///< the task that tries it again since `until`; empty: none yet
  Json to_json() const;
  static ParkedProvider from_json(const Json& json);
};

/// One line of a task's history. The registry sets id, recorded_at and attempt.
struct Event {
  std::int64_t id = 0;  ///< grows; what a resuming reader gives as `after`
  std::string task_id;
  std::string event_type;
  Json data;
  SystemTime timestamp;    ///< the sender's
  SystemTime recorded_at;  ///< the registry's
  int attempt = 0;
  Json to_json() const;
  static Event from_json(const Json& json);
};

/// What a finished task says, in one call.
struct Completion {
  LeaseToken lease_token;
  TaskState status = TaskState::kDone;  ///< done, failed, cancelled, or ready (handed back)
  Json metadata;
  std::vector<ArtifactRef> artifacts;
  std::vector<Event> events;  ///< event_type, data, timestamp
  std::optional<Failure> failure;
  Json to_json() const;
};

/// What a renewed lease is told.
struct HeartbeatAnswer {
  SystemTime expires_at;          ///< by the registry's clock, for people
  bool cancel_requested = false;  ///< give the task up, and complete it as cancelled
};

/// Which tasks to list; empty fields select all.
struct TaskQuery {
  std::string spec;
  std::vector<TaskState> states;  ///< any of them
  std::string skill;
  std::string label;
  std::string text;                 ///< in title or description
  std::optional<SystemTime> since;  ///< last changed then or later
  std::optional<SystemTime> until;  ///< last changed before
  std::string sort = "number";      ///< number, priority, age
  int limit = 100;                  ///< of a page; at most limits::kPageSizeMax
  std::string cursor;               ///< the last page's next_cursor
};
/// One page of tasks.
struct TaskPage {
  std::vector<Task> items;
  std::optional<std::string> next_cursor;  ///< nothing: this was the last
};
/// Which events to read; empty fields select all.
struct EventFilter {
  std::string task_id{};
  std::string spec{};
  std::string type{};
  std::int64_t after = 0;             ///< the last seen event's id; 0: from the first
  std::optional<SystemTime> since{};  ///< recorded then or later; not of a feed
  std::optional<SystemTime> until{};  ///< recorded before; not of a feed
  /// "/tasks/{id}/events?…" or "/events?…", without `after`.
  std::string path() const;
};
/// One page of events, oldest first.
struct EventPage {
  std::vector<Event> items;
  std::optional<std::string> next_cursor;
};

/// When a dependency is met. kMerged: when the parent is done and its metadata says
/// `"merged": true`; the child then starts from its base branch, which has the parent's work.
enum class UnblockOn { kDone, kMerged };
std::string_view to_string(UnblockOn when);

/// What holds for a taskset as a whole; 0: no limit.
struct TasksetLimits {
  int max_running = 0;             ///< tasks at once
  double budget_usd = 0;           ///< no claim once so much is spent
  std::int64_t budget_tokens = 0;  ///< the same
  UnblockOn unblock_on = UnblockOn::kDone;
  friend bool operator==(const TasksetLimits&, const TasksetLimits&) = default;
};

enum class TasksetPart { kHead, kWhole };

/// The tasks of one spec, submitted together.
struct Taskset {
  std::string spec_name;
  std::int64_t version = 0;  ///< grows with each submit that changes something
  std::vector<Task> tasks;
  bool head_only = false;  ///< without its tasks
  /// Of the tasks that the answer had no room for: TaskQuery::cursor of this spec, by number.
  std::optional<std::string> next_cursor;
  Json metadata;
  Json counts;  ///< state → number
  TasksetLimits limits;
  double spent_usd = 0;  ///< as its attempts told it, failed ones too
  std::int64_t spent_tokens = 0;
  SystemTime created_at;
  SystemTime updated_at;
  Json to_json() const;
  static Taskset from_json(const Json& json);
};

}  // namespace necrocode::registry
