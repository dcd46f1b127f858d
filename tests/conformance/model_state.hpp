// What the model store knows, whole: copied before each change, and put back when that fails.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/net/idempotency.hpp"
#include "necrocode/registry/attempt_policy.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

struct ModelEdge {
  std::int64_t parent = 0;
  DependencyPolicy policy = DependencyPolicy::kBlock;
  bool met = false;
  friend bool operator==(const ModelEdge&, const ModelEdge&) = default;
};

struct ModelAttempt {
  AttemptRecord record;  ///< without its artifacts
  std::int64_t epoch = 0;
  std::string token;
  ClaimRequest terms;
  std::string next_token;  ///< of the lease that its completion claimed
  bool expired = false;    ///< its end was told by nobody
};

struct ModelTask {
  std::int64_t seq = 0;  ///< the order of creation
  std::string id;
  std::string spec;
  std::string number;
  TaskState state = TaskState::kBlocked;
  Json fields;
  Json metadata;
  Json failure;
  int attempt = 0;
  std::int64_t epoch = 0;
  std::int64_t version = 0;
  SystemTime created_at;
  SystemTime updated_at;
  std::vector<ModelEdge> edges;  ///< to its parents
  std::vector<ModelAttempt> attempts;
  std::vector<ArtifactRef> artifacts;
  std::map<FailureClass, int> failures;  ///< since the last retry
  std::optional<SystemTime> not_before;  ///< looked at when it becomes ready
  std::optional<SteadyTime> wait_ends;   ///< of a ready task that waits until then
  // Of the lease, when there is one.
  std::string token;
  std::chrono::milliseconds lease{0};
  SteadyTime lease_ends;
  std::string runner_id;
  bool cancel_requested = false;

  int open_edges() const;
  std::string text(std::string_view field) const { return fields[field].string_or(""); }
  int priority() const { return static_cast<int>(fields["priority"].as_int().value_or(0)); }
  std::vector<std::string> texts(std::string_view field) const;
};

struct ModelTaskset {
  std::string name;
  std::int64_t version = 0;
  Json metadata;
  TasksetLimits limits;
  std::int64_t spent_micros = 0;  ///< of a dollar
  std::int64_t spent_tokens = 0;
  SystemTime created_at;
  SystemTime updated_at;
};

struct ModelProvider {
  ParkedProvider parked;
  SteadyTime ends;
  bool due = false;
  std::string probe_token;  ///< of the probe's lease; empty: none runs
};

struct ModelEvent {
  Event event;
  std::int64_t task_seq = 0;  ///< an id may be used again after its task was removed
  std::string spec;
};

struct ModelState {
  std::map<std::string, ModelTaskset> tasksets;
  std::map<std::int64_t, ModelTask> tasks;  ///< by seq
  std::vector<ModelEvent> events;
  std::map<std::string, ModelProvider> providers;
  std::map<std::string, std::pair<net::KeptAnswer, SystemTime>> answers;
  std::int64_t last_seq = 0;
  std::int64_t last_event = 0;

  ModelTask* find(const std::string& id);
  /// By a full or an unambiguous bare id. NotFound, Conflict, TaskContextValidationError.
  ModelTask& get(const std::string& id);
  ModelTaskset& taskset(const std::string& spec);  ///< NotFound
  std::int64_t running(const std::string& spec) const;

  /// Why the ready `task` is not for a claimant of that provider; empty: it is claimable.
  std::vector<WaitReason> reasons_against(const ModelTask& task, const std::string& provider,
                                          const StoreOptions& options) const;
  std::vector<WaitReason> holders_of(const ModelTask& task) const;
  /// As others see it.
  Task told(const ModelTask& task) const;
  std::vector<AttemptRecord> attempts(const ModelTask& task) const;
  Explanation explain(const ModelTask& task, const StoreOptions& options) const;
  bool anything_claimable(const StoreOptions& options) const;
  /// When time alone changes something next.
  std::optional<SteadyTime> next_due() const;
};

/// Sorts as people count: "1.2" before "1.10"; leading zeros count for nothing.
std::vector<std::string> natural_order(const std::string& text);

}  // namespace necrocode::registry
