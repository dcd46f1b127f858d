// The changes of one of the model store's transactions.
#pragma once

#include <set>

#include "conformance/model_state.hpp"
#include "necrocode/base/clock.hpp"

namespace necrocode::registry {

class ModelAnswers final : public net::IdempotencyStore {
 public:
  ModelAnswers(ModelState& state, SystemTime now) : state_(state), now_(now) {}
  std::optional<net::KeptAnswer> find(const std::string& name) override;
  void keep(const std::string& name, const net::KeptAnswer& answer) override;
  void forget(const std::string& name) override { state_.answers.erase(name); }

 private:
  ModelState& state_;
  SystemTime now_;
};

class ModelChanges final : public TaskChanges {
 public:
  ModelChanges(ModelState& state, const Clock& clock, const StoreOptions& options);

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

  void do_due();
  void purge(const Retention& retention);

 private:
  /// How a run ends.
  struct End {
    TaskState state = TaskState::kReady;
    std::string event_type;
    Json data = Json::object();
    Json failure{};       ///< of the attempt's record
    bool counts = true;   ///< as an attempt
    std::string probe{};  ///< the failure's class, or "done", or "" for what proves nothing
    std::optional<SystemTime> retry_at{};
    std::optional<SystemTime> not_before{};  ///< of the next attempt
  };

  // model_changes.cpp
  void record(const ModelTask& task, const std::string& type, const Json& data);
  Event insert_event(const ModelTask& task, const NewEvent& event, int attempt);
  void note_slot(ModelTask& task, const std::string& token, const Event& event);
  ArtifactRef insert_artifact(ModelTask& task, const ArtifactRef& artifact, int attempt);
  void require_room_for_artifacts(const ModelTask& task) const;
  int attempt_of(const ModelTask& task, const LeaseToken& token) const;
  bool merge_metadata(ModelTask& task, const Json& metadata) const;
  void tell_if_merged(const ModelTask& task);
  void apply_status(ModelTask& task, TaskState status);
  void fail(ModelTask& task, const std::optional<Failure>& failure);
  void require_lease(const ModelTask& task, const LeaseToken& token) const;
  void require_version(const ModelTask& task, const VersionCondition& expected) const;
  void require_transition(const ModelTask& task, TaskState to) const;
  bool is_told_again(const ModelTask& task, TaskState status, const LeaseToken& token) const;
  void expire(ModelTask& task);
  void spend(ModelTask& task, const Json& metadata);

  // model_moves.cpp
  void changed(ModelTask& task);
  void move(ModelTask& task, TaskState to, const std::string& type, const Json& data);
  /// The only way out of `running`.
  void end_run(ModelTask& task, const End& end);
  void answer_probe(const std::string& token, const End& end);
  /// What the state that `task` has now means for those that depend on it.
  void tell_children(const ModelTask& task);
  bool is_met(const ModelTask& child, const ModelEdge& edge) const;
  /// A blocked or ready child one of whose parents has failed, where that cancels it: then true.
  bool cancel_if_doomed(ModelTask& child);
  /// The same, and its children are not told yet.
  bool doom(ModelTask& child);
  /// Sets the state; a task that becomes ready waits for its not_before from now on.
  void enter(ModelTask& task, TaskState state);

  // model_claims.cpp
  std::vector<ClaimedTask> claim_one_request(const ClaimRequest& request);
  ModelTask* best_for(const ClaimRequest& request);
  ClaimedTask start_lease(ModelTask& task, const ClaimRequest& request);
  ClaimedTask hold_lease(ModelTask& task);
  std::optional<ClaimedTask> claim_next(ModelTask& task, const std::string& token,
                                        const NextClaim& next);
  std::optional<ClaimedTask> next_of(const ModelTask& task, const std::string& token);

  // model_submit.cpp
  struct Submitting;
  void put_taskset(Submitting& submitting);
  void put_task(Submitting& submitting, std::size_t index);
  void put_edges(Submitting& submitting, std::size_t index);
  void remove_unnamed(Submitting& submitting);
  void refuse_cycles(const Submitting& submitting) const;
  void settle(Submitting& submitting, std::size_t index);
  void settle_done(Submitting& submitting, std::size_t index);

  ModelState& state_;
  const Clock& clock_;
  const StoreOptions& options_;
  SystemTime now_;
  ModelAnswers answers_;
};

}  // namespace necrocode::registry
