// Every change of the registry's tables, one object for one change inside the writer's transaction.
// Private to the SQLite store. What must happen in memory after the commit is collected in Effects;
// nothing outside the database is touched here.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "necrocode/registry/sqlite_answers.hpp"
#include "necrocode/registry/sqlite_rows.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

/// To be applied after the commit, and only then.
struct Effects {
  struct Lease {
    std::string token;
    std::string task_id;
    std::chrono::milliseconds duration{0};
  };
  std::vector<Lease> leases_started;
  std::vector<std::string> leases_ended;      ///< tokens
  std::vector<std::string> cancel_requested;  ///< tokens of running tasks that are to stop
  CommitNews news;
};

class SqliteChange final : public TaskChanges {
 public:
  SqliteChange(db::Database& database, SystemTime now);

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
  net::IdempotencyStore& answers() override { return answers_; }
  void expire(const std::string& task_id, const std::string& token);

  const Effects& effects() const { return effects_; }

 private:
  /// What ends an attempt besides its new state.
  struct Outcome {
    TaskState state;
    std::string event_type;
    Json event_data = Json::object();
    bool counts = true;  ///< as one of max_attempts, and in `attempt`
  };

  // Steps shared by the operations.
  void require_lease(const TaskRow& row, const LeaseToken& token) const;
  /// Under which attempt what `token`'s holder says is filed, also after its lease has ended: the
  /// one its claim was counted as; 0, no attempt, when that claim was handed back, because the next
  /// claim counts under its number. Without a token the task's current attempt.
  int attempt_of(const TaskRow& row, const LeaseToken& token);
  /// True when `token`'s own attempt brought the task into the final state `status`, and no claim
  /// came after it: the same call told again, since its answer was lost.
  bool is_told_again(const TaskRow& row, TaskState status, const LeaseToken& token);
  void require_version(const TaskRow& row, const VersionCondition& expected) const;
  void require_transition(const TaskRow& row, TaskState to) const;
  /// Writes `row`'s changing columns, one version further, and the counters of both states.
  void save(TaskRow& row, TaskState previous);
  void record(const TaskRow& row, const std::string& type, const Json& data);
  Event insert_event(const TaskRow& row, const NewEvent& event, int attempt);
  /// After the last of a call's: require_room_for_artifacts().
  ArtifactRef insert_artifact(const TaskRow& row, const ArtifactRef& artifact, int attempt);
  void require_room_for_artifacts(const TaskRow& row);
  void end_attempt(TaskRow& row, std::string_view outcome, bool counts);
  /// Leaves `running`: ends the lease, records, unblocks. The only way out of that state.
  void finish(TaskRow& row, Outcome outcome);
  /// Any other transition.
  void move(TaskRow& row, TaskState to, const std::string& event_type, const Json& data);
  void unblock_dependents(const TaskRow& parent);
  void apply_status(TaskRow& row, TaskState status, const std::optional<Failure>& failure);
  void count(std::int64_t spec_id, TaskState state, int change);
  bool merge_metadata(TaskRow& row, const Json& metadata) const;
  std::vector<ClaimedTask> claim(const ClaimRequest& request);
  ClaimOutcome claim_or_refuse(const ClaimRequest& request);
  void give_back(const LeaseRef& lease);
  std::vector<std::int64_t> ready_tasks(const ClaimRequest& request);
  ClaimedTask start_lease(std::int64_t seq, const ClaimRequest& request);
  /// `row` as its lease's holder gets it; the lease lasts its whole time from now.
  ClaimedTask hold_lease(const TaskRow& row);
  std::optional<ClaimedTask> claim_next(const TaskRow& row, const LeaseToken& token,
                                        const NextClaim& next);
  /// What claim_next() answered to the holder of `token`, while that lease lives.
  std::optional<ClaimedTask> next_of(const TaskRow& row, const LeaseToken& token);
  ClaimRequest terms_of(const TaskRow& row, const LeaseToken& token);

  // Submission (sqlite_submit.cpp).
  struct Submitting;
  bool open_taskset(Submitting& submitting);
  void put_task(Submitting& submitting, std::size_t index);
  void insert_task(Submitting& submitting, std::size_t index, const std::string& id);
  void update_task(Submitting& submitting, std::size_t index, TaskRow row);
  void find_unnamed(Submitting& submitting);
  /// The task of that full id, unless this submission removes it; each id is looked up once.
  std::optional<std::int64_t> find_dependency(Submitting& submitting, const std::string& id);
  void put_dependencies(Submitting& submitting, std::size_t index);
  void remove_unnamed(Submitting& submitting);
  void refuse_cycles(const Submitting& submitting);
  void refuse_cycle(const std::vector<std::int64_t>& path, std::size_t index);
  void settle_dependencies(std::int64_t seq, bool created);
  std::vector<std::int64_t> parents_of(std::int64_t seq);

  db::Database& database_;
  SystemTime now_;
  std::int64_t now_ms_;
  SqliteAnswers answers_;
  Effects effects_;
};

}  // namespace necrocode::registry
