// One store under random commands. Two sides that are given the same commands tell the same,
// whatever their tokens, event ids and versions are: what they tell is free of them.
#pragma once

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "conformance/random_commands.hpp"
#include "support/registry_fixture.hpp"

namespace necrocode::registry {

class RandomSide {
 public:
  RandomSide(TaskStore& store, const ManualClock& clock) : store_(&store), clock_(clock) {}
  /// The same store, opened again.
  void reopened(TaskStore& store) { store_ = &store; }

  /// What the command came to: an answer or the kind of error. Commands of time and opening are not
  /// the store's.
  Json perform(const Command& command);
  /// All that can be read.
  Json everything();
  /// What a claim asks for, and whether it would get something now.
  std::vector<ClaimRequest> requests_of(const Command& command) const;
  bool would_get(const ClaimRequest& request);

 private:
  struct Seen {
    std::string id;
    std::string token;
    bool ended = false;  ///< by us, as far as we know
  };

  Json answer(const Command& command);
  /// `operation` in a transaction, which is undone where the command says so.
  Json change(const Command& command, const std::function<Json(TaskChanges&)>& operation);
  Json submit(const Command& command);
  Json claim(const Command& command);
  Json complete(const Command& command);
  Json set_status(const Command& command);
  Json heartbeat(const Command& command);
  Json patch(const Command& command);
  Json park(const Command& command);
  Json add_event(const Command& command);
  Json add_artifact(const Command& command);
  Json kept_answer(const Command& command);
  Json purge(const Command& command);
  Json query_tasks(const Command& command);
  Json query_events(const Command& command);
  Json query_task(const std::string& id);

  std::string id_of(const Command& command) const;
  Seen lease_of(const Command& command, int further = 0) const;
  void note_end(const LeaseToken& token);
  LeaseToken token_of(const Command& command, const Seen& lease) const;
  /// Where the command speaks of a lease's task, with its token.
  std::pair<std::string, LeaseToken> target_of(const Command& command) const;
  VersionCondition expected_of(const Command& command, const std::string& id) const;
  ClaimRequest claim_request(const Command& command) const;
  TaskSpec task_spec_of(const std::string& spec, int position, const std::vector<int>& task) const;
  std::optional<SystemTime> time_of(int choice) const;

  Json told(const Task& task);
  Json told(const ClaimedTask& claimed);
  Json told(const Taskset& taskset, bool with_tasks);
  Json told(const Explanation& explanation) const;
  Json told(const std::vector<AttemptRecord>& records) const;
  Json told(const std::vector<ClaimedTask>& claimed);
  static Json told(const Event& event);
  std::vector<Event> history();
  void forget_removed_tasks();

  TaskStore* store_;
  const ManualClock& clock_;
  std::vector<Seen> leases_;
  std::map<std::string, std::string> token_names_;
  std::map<std::string, std::int64_t> versions_;  ///< as last seen
  std::map<std::string, std::string> cursors_;    ///< of each order's last page
};

}  // namespace necrocode::registry
