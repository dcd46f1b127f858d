// Every change of the registry's tables, one object for one change inside the writer's transaction.
// Private to the SQLite store. What must happen in memory after the commit is collected in Effects;
// nothing outside the database is touched here.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/registry/attempt_policy.hpp"
#include "necrocode/registry/sqlite_answers.hpp"
#include "necrocode/registry/sqlite_rows.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

/// To be applied after the commit, and only then.
struct Effects {
  struct Lease {
    std::int64_t seq = 0;
    std::string token;
    std::string task_id;
    std::chrono::milliseconds duration{0};
  };
  /// Until what may be claimed; `not_before_ms` tells it from an earlier wait of the same task.
  struct TaskWait {
    std::int64_t seq = 0;
    std::int64_t not_before_ms = 0;
    std::chrono::milliseconds duration{0};
  };
  struct ProviderWait {
    std::string name;
    std::int64_t until_ms = 0;
    std::chrono::milliseconds duration{0};
  };
  std::vector<Lease> leases_started;
  std::vector<std::string> leases_ended;      ///< tokens
  std::vector<std::string> cancel_requested;  ///< tokens of running tasks that are to stop
  std::vector<TaskWait> task_waits;
  std::vector<ProviderWait> provider_waits;
  CommitNews news;
};

class SqliteChange final : public TaskChanges {
 public:
  /// Of a taskset's numbers what decides whether more of its tasks may run.
  struct Numbers {
    std::int64_t running = 0;
    std::int64_t max_running = 0;  ///< 0: no limit; so each of these
    std::int64_t spent_usd_micros = 0;
    std::int64_t budget_usd_micros = 0;
    std::int64_t spent_tokens = 0;
    std::int64_t budget_tokens = 0;
    bool is_full() const;
  };
  /// What a commit knows of a taskset. Its numbers are written when somebody first asks for them,
  /// and at the end: in between the table may say neither the old nor the new.
  struct SpecInCommit {
    std::array<int, kTaskStates.size()> counts{};  ///< not yet in the table, as what was spent
    std::int64_t spent_usd_micros = 0;
    std::int64_t spent_tokens = 0;
    bool lanes_stale = false;          ///< they do not show yet what its tasks are
    std::optional<Numbers> numbers{};  ///< with what is not yet in the table; once asked for
  };
  using SpecsInCommit = std::map<std::int64_t, SpecInCommit>;  ///< by spec_id

  /// `specs`: shared by the changes of one commit.
  SqliteChange(db::Database& database, SystemTime now, const StoreOptions& options,
               SpecsInCommit& specs);

  bool submit(const Submission& submission) override;
  Task set_status(const std::string& task_id, const StatusChange& change) override;
  Event add_event(const std::string& task_id, const NewEvent& event) override;
  ArtifactRef add_artifact(const std::string& task_id, const NewArtifact& artifact) override;
  std::vector<ClaimOutcome> claim(const std::vector<ClaimRequest>& requests) override;
  bool lives(const LeaseRef& lease) override;
  void give_back(const std::vector<LeaseRef>& leases) override;
  Completed complete(const std::string& task_id, const Completion& completion,
                     const NextClaim& next, const VersionCondition& expected) override;
  Task cancel(const std::string& task_id, const std::string& reason,
              const VersionCondition& expected) override;
  Task retry(const std::string& task_id, const VersionCondition& expected) override;
  Task patch(const std::string& task_id, const TaskPatch& patch) override;
  ParkedProvider park(const std::string& provider, SystemTime until,
                      const std::string& reason) override;
  void unpark(const std::string& provider) override;
  net::IdempotencyStore& answers() override { return answers_; }

  // What time alone brings, told by who keeps it.
  void expire(const std::string& task_id, const std::string& token);
  void end_wait(const Effects::TaskWait& wait);
  void end_wait(const Effects::ProviderWait& wait);
  /// True when more can be removed. `events_after`: how far the events have been looked through; 0
  /// from the beginning.
  bool purge(const Retention& retention, std::int64_t& events_after);

  /// Brings the numbers and lanes of all tasksets up to date with their tasks. No change after it.
  void end_commit();
  Effects& effects() { return effects_; }

 private:
  /// What ends an attempt besides its new state.
  struct Outcome {
    TaskState state;
    std::string event_type;
    Json event_data = Json::object();
    bool counts = true;    ///< in `attempt`, and against max_attempts
    bool expired = false;  ///< nobody told it: the lease was not renewed
    std::optional<FailureClass> failure_class{};
    std::chrono::milliseconds wait{0};     ///< of a task that is ready again
    std::optional<SystemTime> retry_at{};  ///< as the failure said it
  };
  struct Provider {
    std::string name;
    bool due = false;
    std::int64_t probe = 0;  ///< seq of the task that tries it; 0: none
  };
  /// Of a lane that has a claimable task: what it is chosen by.
  struct LaneHead {
    std::string skill;
    std::string provider;
    std::int64_t priority = 0;
    std::int64_t share = 0;
    std::int64_t seq = 0;
  };

  // Steps shared by the operations (sqlite_changes.cpp).
  void require_lease(const TaskRow& row, const LeaseToken& token) const;
  /// The attempt that `token` belongs to, or belonged to; the current one without a token.
  int attempt_of(const TaskRow& row, const LeaseToken& token);
  /// True when the last holder tells its final state once more.
  bool is_told_again(const TaskRow& row, TaskState status, const LeaseToken& token);
  void require_version(const TaskRow& row, const VersionCondition& expected) const;
  void require_transition(const TaskRow& row, TaskState to) const;
  /// Writes `row`'s changing columns, one version further, and counts the transition.
  void save(TaskRow& row, TaskState previous);
  void count(std::int64_t spec_id, TaskState state, int change);
  void record(const TaskRow& row, const std::string& type, const Json& data);
  Event insert_event(const TaskRow& row, const NewEvent& event, int attempt);
  /// After the last of a call's: require_room_for_artifacts().
  ArtifactRef insert_artifact(const TaskRow& row, const ArtifactRef& artifact, int attempt);
  void require_room_for_artifacts(const TaskRow& row);
  bool merge_metadata(TaskRow& row, const Json& metadata) const;
  void apply_status(TaskRow& row, TaskState status);
  void fail_or_retry(TaskRow& row, const std::optional<Failure>& failure);

  // Attempts and leaving `running` (sqlite_attempts.cpp).
  /// The row of its lease's attempt, `failure` with it.
  void end_attempt(TaskRow& row, const Outcome& outcome);
  /// Leaves `running`: ends the lease, records, lets others go on. The only way out of that state.
  void finish(TaskRow& row, Outcome outcome);
  void keep_usage(const TaskRow& row, const Json& metadata);
  void keep_place(const TaskRow& row, const NewEvent& event, const LeaseToken& token);
  int attempts_used(const TaskRow& row, FailureClass failure_class);
  void end_probe(const TaskRow& row, const Outcome& outcome);
  void release_held(const TaskRow& row);

  // Dependencies (sqlite_dependencies.cpp).
  /// Any transition but out of `running`; its dependents hear of an end.
  void move(TaskRow& row, TaskState to, const std::string& event_type, const Json& data);
  void transition(TaskRow& row, TaskState to, const std::string& event_type, const Json& data);
  /// Sets what a task that becomes ready waits for.
  void enter_ready(TaskRow& row);
  /// Where a task belongs that neither runs nor has ended.
  TaskState resting_state(const TaskRow& row);
  /// A parent whose failure cancels this task.
  std::optional<std::string> dooming_parent(const TaskRow& row);
  /// After a task has ended or was merged: its dependents are ready, or cancelled, and so on.
  void tell_dependents(const TaskRow& ended);
  /// The dependents that this ended.
  std::vector<TaskRow> tell_each_dependent(const TaskRow& parent);
  /// Marks as met what `parent` meets now, and returns whose edges those were.
  std::vector<std::int64_t> meet_edges(const TaskRow& parent);
  /// One dependency less; ready when it was the last.
  void dependency_met(std::int64_t child, const TaskRow& parent);
  /// After its metadata has changed.
  void tell_merged(const TaskRow& row);

  // Claims and lanes (sqlite_claims.cpp).
  std::vector<ClaimedTask> claim(const ClaimRequest& request);
  ClaimOutcome claim_or_refuse(const ClaimRequest& request);
  void give_back(const LeaseRef& lease);
  /// Brings the lanes up to date with their tasks: before a claim.
  void settle_lanes();
  void write_lanes(std::int64_t spec_id, SpecInCommit& spec);
  /// Into the table, and asks for them. Nothing: the taskset has been removed.
  const Numbers* write_numbers(std::int64_t spec_id, SpecInCommit& spec);
  std::optional<TaskRow> next_claimable(const ClaimRequest& request);
  std::optional<TaskRow> named_claimable(const ClaimRequest& request);
  std::optional<LaneHead> best_lane(const ClaimRequest& request);
  /// Of all specs' lanes with this skill and provider.
  std::optional<LaneHead> first_lane(const std::string& skill, const std::string& provider);
  static LaneHead read_head(const db::Statement& lane);
  bool may_run(const LaneHead& head, const ClaimRequest& request);
  bool provider_allows(const std::string& provider);
  bool skill_is_full(const std::string& skill);
  bool spec_is_full(std::int64_t spec_id);
  /// True when a running task touches the row's files: then it is held until that one ends.
  bool hold_for_touches(const TaskRow& row);
  std::vector<Provider>& providers();
  Provider* find_provider(const std::string& name);
  ClaimedTask start_lease(TaskRow row, const ClaimRequest& request);
  /// `row` as its lease's holder gets it; the lease lasts its whole time from now.
  ClaimedTask hold_lease(const TaskRow& row);
  std::optional<ClaimedTask> claim_next(const TaskRow& row, const LeaseToken& token,
                                        const NextClaim& next);
  /// What claim_next() answered to the holder of `token`, while that lease lives.
  std::optional<ClaimedTask> next_of(const TaskRow& row, const LeaseToken& token);
  ClaimRequest terms_of(const TaskRow& row, const LeaseToken& token);
  std::int64_t lane_of(std::int64_t spec_id, const std::string& skill, const std::string& provider);

  // Submission (sqlite_submit.cpp).
  struct Submitting;
  bool open_taskset(Submitting& submitting);
  bool put_limits(Submitting& submitting);
  void put_task(Submitting& submitting, std::size_t index);
  void insert_task(Submitting& submitting, std::size_t index, const std::string& id);
  void update_task(Submitting& submitting, std::size_t index, TaskRow row);
  void write_fields(const TaskRow& row, const TaskSpec& task);
  void find_unnamed(Submitting& submitting);
  /// The task of that full id, unless this submission removes it; each id is looked up once.
  std::optional<std::int64_t> find_dependency(Submitting& submitting, const std::string& id);
  void put_dependencies(Submitting& submitting, std::size_t index);
  void remove_unnamed(Submitting& submitting);
  void refuse_cycles(const Submitting& submitting);
  void refuse_cycle(const std::vector<std::int64_t>& path, std::size_t index);
  void settle_dependencies(Submitting& submitting, std::int64_t seq, bool created);
  void meet_done_parents(std::int64_t spec_id);
  std::vector<std::int64_t> parents_of(std::int64_t seq);
  std::map<std::int64_t, DependencyPolicy> edges_of(std::int64_t seq);

  // Retention (sqlite_purge.cpp).
  bool purge_tasksets(std::int64_t before_ms);
  void purge_task(std::int64_t spec_id, std::int64_t seq);
  std::int64_t purge_events_of(std::int64_t spec_id, std::int64_t max);
  bool purge_events(std::int64_t before_ms, std::int64_t& after);

  db::Database& database_;
  SystemTime now_;
  std::int64_t now_ms_;
  const StoreOptions& options_;
  SqliteAnswers answers_;
  SpecsInCommit& specs_;
  std::optional<std::vector<Provider>> providers_;
  Effects effects_;
};

[[noreturn]] void refuse_change(const TaskRow& row, const std::string& why);
std::string event_for(TaskState state);

}  // namespace necrocode::registry
