#include "conformance/model_changes.hpp"

#include <algorithm>
#include <cmath>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::registry {
namespace {

SystemTime in_whole_ms(SystemTime time) {
  return from_unix_ms(to_unix_ms(time));
}

ErrorInfo about(const ModelTask& task) {
  ErrorInfo info;
  info.target = task.id;
  return info;
}

bool is_allowed(TaskState from, TaskState to) {
  switch (from) {
    case TaskState::kBlocked:
      return to == TaskState::kReady || to == TaskState::kCancelled;
    case TaskState::kReady:
      return to == TaskState::kBlocked || to == TaskState::kRunning || to == TaskState::kCancelled;
    case TaskState::kRunning:
      return to == TaskState::kReady || is_final(to);
    case TaskState::kFailed:
      return to == TaskState::kReady;
    case TaskState::kDone:
    case TaskState::kCancelled:
      break;
  }
  return false;
}

std::string event_for(TaskState state) {
  constexpr std::array<const char*, 6> kTypes = {"TaskUpdated",   "TaskReady",  "TaskStarted",
                                                 "TaskCompleted", "TaskFailed", "TaskCancelled"};
  return kTypes[static_cast<std::size_t>(state)];
}

}  // namespace

std::optional<net::KeptAnswer> ModelAnswers::find(const std::string& name) {
  const auto found = state_.answers.find(name);
  if (found == state_.answers.end()) return std::nullopt;
  if (found->second.second + limits::kIdempotencyKeyTime <= now_) return std::nullopt;
  return found->second.first;
}

void ModelAnswers::keep(const std::string& name, const net::KeptAnswer& answer) {
  if (!find(name)) state_.answers[name] = {answer, now_};
}

ModelChanges::ModelChanges(ModelState& state, const Clock& clock, const StoreOptions& options)
    : state_(state),
      clock_(clock),
      options_(options),
      now_(in_whole_ms(clock.system_now())),
      answers_(state, now_) {}

void ModelChanges::require_lease(const ModelTask& task, const LeaseToken& token) const {
  if (task.token != token.value) throw Conflict("the lease is not the task's", about(task));
}

void ModelChanges::require_version(const ModelTask& task, const VersionCondition& expected) const {
  if (expected && !expected(task.version)) throw LostUpdate("the task has changed", about(task));
}

void ModelChanges::require_transition(const ModelTask& task, TaskState to) const {
  const bool open =
      task.state == TaskState::kBlocked && to == TaskState::kReady && task.open_edges() > 0;
  if (open || !is_allowed(task.state, to)) throw Conflict("an illegal transition", about(task));
}

bool ModelChanges::is_told_again(const ModelTask& task, TaskState status,
                                 const LeaseToken& token) const {
  if (task.state != status || !is_final(status) || token.value.empty()) return false;
  return std::any_of(task.attempts.begin(), task.attempts.end(), [&](const ModelAttempt& attempt) {
    return attempt.token == token.value && attempt.epoch == task.epoch && !attempt.expired;
  });
}

int ModelChanges::attempt_of(const ModelTask& task, const LeaseToken& token) const {
  if (token.value.empty()) return task.attempt;
  for (const ModelAttempt& attempt : task.attempts) {
    if (attempt.token == token.value) return attempt.record.attempt;
  }
  throw Conflict("the lease_token was never one of this task's", about(task));
}

Event ModelChanges::insert_event(const ModelTask& task, const NewEvent& event, int attempt) {
  ModelEvent& entry = state_.events.emplace_back();
  entry.task_seq = task.seq;
  entry.spec = task.spec;
  entry.event = {++state_.last_event,          task.id, event.event_type, event.data,
                 in_whole_ms(event.timestamp), now_,    attempt};
  return entry.event;
}

void ModelChanges::record(const ModelTask& task, const std::string& type, const Json& data) {
  insert_event(task, {type, data, now_, {}}, task.attempt);
}

void ModelChanges::note_slot(ModelTask& task, const std::string& token, const Event& event) {
  if (event.event_type != "SlotAllocated" || token.empty()) return;
  for (ModelAttempt& attempt : task.attempts) {
    if (attempt.token != token) continue;
    AttemptRecord& record = attempt.record;
    record.slot_id = event.data["slot_id"].string_or(record.slot_id);
    record.branch = event.data["branch"].string_or(record.branch);
  }
}

Event ModelChanges::add_event(const std::string& task_id, const NewEvent& event) {
  ModelTask& task = state_.get(task_id);
  const Event added = insert_event(task, event, attempt_of(task, event.lease_token));
  note_slot(task, event.lease_token.value, added);
  return added;
}

ArtifactRef ModelChanges::insert_artifact(ModelTask& task, const ArtifactRef& artifact,
                                          int attempt) {
  ArtifactRef& added = task.artifacts.emplace_back(artifact);
  if (added.metadata.is_null()) added.metadata = Json::object();
  added.created_at = in_whole_ms(added.created_at);
  added.attempt = attempt;
  return added;
}

void ModelChanges::require_room_for_artifacts(const ModelTask& task) const {
  std::size_t bytes = 0;
  for (const ArtifactRef& artifact : task.artifacts) {
    bytes += artifact.type.size() + artifact.uri.size() + artifact.metadata.dump().size();
  }
  if (task.artifacts.size() > limits::kTaskArtifacts || bytes > limits::kTaskArtifactBytes) {
    throw TaskContextValidationError("too many artifact references", about(task));
  }
}

ArtifactRef ModelChanges::add_artifact(const std::string& task_id, const NewArtifact& artifact) {
  ModelTask& task = state_.get(task_id);
  const ArtifactRef added =
      insert_artifact(task, artifact.artifact, attempt_of(task, artifact.lease_token));
  require_room_for_artifacts(task);
  changed(task);
  return added;
}

bool ModelChanges::merge_metadata(ModelTask& task, const Json& metadata) const {
  Json merged = task.metadata;
  for (const auto& [name, value] : metadata.members()) merged.set(name, value);
  if (merged == task.metadata) return false;
  if (merged.size() > limits::kMetadataMembers) {
    throw TaskContextValidationError("too many members of metadata", about(task));
  }
  if (merged.dump().size() > limits::kMetadataBytes) {
    throw ResourceLimitError("too large a metadata", about(task));
  }
  task.metadata = std::move(merged);
  return true;
}

/// A done task's metadata may say now what its children wait for.
void ModelChanges::tell_if_merged(const ModelTask& task) {
  if (task.state == TaskState::kDone) tell_children(task);
}

Task ModelChanges::set_status(const std::string& task_id, const StatusChange& change) {
  ModelTask& task = state_.get(task_id);
  if (is_told_again(task, change.status, change.lease_token)) return state_.told(task);
  require_lease(task, change.lease_token);
  require_version(task, change.expected);
  if (task.state != change.status) {
    require_transition(task, change.status);
    if (task.state == TaskState::kRunning) spend(task, change.metadata);
  }
  const bool merged = merge_metadata(task, change.metadata);
  if (task.state != change.status) {
    apply_status(task, change.status);
  } else if (merged) {
    changed(task);
    tell_if_merged(task);
  }
  return state_.told(task);
}

void ModelChanges::apply_status(ModelTask& task, TaskState status) {
  if (task.state == TaskState::kRunning) {
    End end;
    const bool handed_back = status == TaskState::kReady;
    end.state = handed_back && task.cancel_requested ? TaskState::kCancelled : status;
    end.event_type = event_for(end.state);
    end.counts = !handed_back;
    if (handed_back) end.data.set("reason", "handed back");
    if (end.state == TaskState::kDone) end.probe = "done";
    if (end.state == TaskState::kFailed) {
      task.failure = Json();
      end.probe = "agent";
    }
    end_run(task, end);
    return;
  }
  const Json data = Json::object({{"from", to_string(task.state)}, {"to", to_string(status)}});
  if (is_final(task.state)) {
    task.failures.clear();
    task.not_before.reset();
    const bool open = task.open_edges() > 0;
    move(task, open ? TaskState::kBlocked : TaskState::kReady, "TaskRetried", data);
    return;
  }
  if (status == TaskState::kRunning) {  // without a lease
    ModelAttempt& attempt = task.attempts.emplace_back();
    attempt.epoch = ++task.epoch;
    attempt.record.attempt = ++task.attempt;
    attempt.record.started_at = now_;
  }
  move(task, status, event_for(status), data);
}

void ModelChanges::fail(ModelTask& task, const std::optional<Failure>& failure) {
  const auto known = parse_failure_class(failure ? failure->failure_class : "");
  const FailureClass failure_class = known.value_or(FailureClass::kAgent);
  const int used = ++task.failures[failure_class];
  const std::optional<SystemTime> retry_at = failure ? failure->retry_at : std::nullopt;
  const auto wait = wait_before_retry(task.fields, failure_class, used, retry_at, now_);
  End end;
  end.state = !wait                   ? TaskState::kFailed
              : task.cancel_requested ? TaskState::kCancelled
                                      : TaskState::kReady;
  end.event_type = end.state == TaskState::kReady ? "TaskRetried" : event_for(end.state);
  if (failure) end.data = end.failure = failure->to_json();
  end.probe = to_string(failure_class);
  end.retry_at = retry_at;
  task.failure = end.failure;
  if (end.state == TaskState::kReady) end.not_before = now_ + *wait;
  end_run(task, end);
}

void ModelChanges::expire(ModelTask& task) {
  End end;
  end.data = end.failure = Json::object({{"class", "infrastructure"},
                                         {"reason", "the lease was not renewed"},
                                         {"runner_id", task.runner_id}});
  end.probe = "infrastructure";
  const int used = ++task.failures[FailureClass::kInfrastructure];
  if (task.cancel_requested) {
    end.state = TaskState::kCancelled;
  } else if (used >= max_attempts(task.fields, FailureClass::kInfrastructure)) {
    end.state = TaskState::kFailed;
  }
  end.event_type = end.state == TaskState::kReady ? "TaskRetried" : event_for(end.state);
  task.failure = end.failure;
  for (ModelAttempt& attempt : task.attempts) {
    if (attempt.epoch == task.epoch) attempt.expired = true;
  }
  end_run(task, end);
}

void ModelChanges::spend(ModelTask& task, const Json& metadata) {
  const Json& usage = metadata["usage"];
  const double usd = usage["cost_usd"].as_double().value_or(0);
  const std::int64_t micros = usd > 0 ? std::llround(usd * 1e6) : 0;
  const auto tokens =
      std::clamp<std::int64_t>(usage["total_tokens"].as_int().value_or(0), 0, 1'000'000'000'000);
  ModelTaskset& taskset = state_.tasksets.at(task.spec);
  taskset.spent_micros += micros;
  taskset.spent_tokens += tokens;
  for (ModelAttempt& attempt : task.attempts) {
    if (attempt.epoch != task.epoch) continue;
    AttemptRecord& record = attempt.record;
    record.cost_usd = static_cast<double>(micros) / 1e6;
    record.tokens = tokens;
    record.branch = metadata["branch"].string_or(record.branch);
    record.commit = metadata["commit"].string_or(record.commit);
  }
}

Completed ModelChanges::complete(const std::string& task_id, const Completion& completion,
                                 const NextClaim& next, const VersionCondition& expected) {
  ModelTask& task = state_.get(task_id);
  const LeaseToken& token = completion.lease_token;
  if (is_told_again(task, completion.status, token)) {
    return {state_.told(task), next.wanted ? next_of(task, token.value) : std::nullopt};
  }
  require_lease(task, token);
  require_version(task, expected);
  require_transition(task, completion.status);
  for (const Event& event : completion.events) {
    insert_event(task, {event.event_type, event.data, event.timestamp, {}}, task.attempt);
    note_slot(task, token.value, event);
  }
  for (const ArtifactRef& artifact : completion.artifacts) {
    insert_artifact(task, artifact, task.attempt);
  }
  require_room_for_artifacts(task);
  merge_metadata(task, completion.metadata);
  const bool ran = task.state == TaskState::kRunning;
  if (ran) spend(task, completion.metadata);
  if (ran && completion.status == TaskState::kFailed) {
    fail(task, completion.failure);
  } else {
    apply_status(task, completion.status);
  }
  Completed completed{state_.told(task), std::nullopt};
  if (next.wanted) completed.next = claim_next(task, token.value, next);
  return completed;
}

Task ModelChanges::cancel(const std::string& task_id, const std::string& reason,
                          const VersionCondition& expected) {
  ModelTask& task = state_.get(task_id);
  require_version(task, expected);
  Json data = Json::object();
  if (!reason.empty()) data.set("reason", reason);
  if (!task.token.empty()) {
    if (!task.cancel_requested) {
      task.cancel_requested = true;
      changed(task);
      record(task, "TaskUpdated", data.set("cancel_requested", true));
    }
  } else if (task.state == TaskState::kRunning) {
    End end{TaskState::kCancelled, "TaskCancelled"};
    end.data = data;
    end_run(task, end);
  } else if (task.state != TaskState::kCancelled) {
    require_transition(task, TaskState::kCancelled);
    move(task, TaskState::kCancelled, "TaskCancelled", data);
  }
  return state_.told(task);
}

Task ModelChanges::retry(const std::string& task_id, const VersionCondition& expected) {
  ModelTask& task = state_.get(task_id);
  require_version(task, expected);
  if (task.state == TaskState::kRunning || task.state == TaskState::kDone) {
    throw Conflict("only a failed or cancelled task can be retried", about(task));
  }
  if (is_final(task.state)) apply_status(task, TaskState::kReady);
  return state_.told(task);
}

Task ModelChanges::patch(const std::string& task_id, const TaskPatch& patch) {
  ModelTask& task = state_.get(task_id);
  require_version(task, patch.expected);
  const bool merged = merge_metadata(task, patch.metadata);
  bool fields = false;
  if (patch.priority && task.fields["priority"] != Json(*patch.priority)) {
    task.fields.set("priority", *patch.priority);
    fields = true;
  }
  if (patch.labels && task.fields["labels"] != Json(*patch.labels)) {
    task.fields.set("labels", *patch.labels);
    fields = true;
  }
  if (merged || fields) {
    changed(task);
    record(task, "TaskUpdated", Json::object({{"fields", fields}}));
    tell_if_merged(task);
  }
  return state_.told(task);
}

ParkedProvider ModelChanges::park(const std::string& provider, SystemTime until,
                                  const std::string& reason) {
  const auto wait = std::clamp<SystemTime::duration>(until - now_, SystemTime::duration::zero(),
                                                     limits::kParkTimeMax);
  ModelProvider& entry = state_.providers[provider];
  entry.parked = {provider, std::min(in_whole_ms(until), now_ + limits::kParkTimeMax), reason, ""};
  entry.ends = clock_.steady_now() + wait;
  entry.due = wait.count() == 0;
  entry.probe_token.clear();
  return entry.parked;
}

void ModelChanges::unpark(const std::string& provider) {
  ErrorInfo info;
  info.target = provider;
  if (state_.providers.erase(provider) == 0) throw NotFound("it is not parked", std::move(info));
}

void ModelChanges::do_due() {
  const SteadyTime time = clock_.steady_now();
  for (auto& [seq, task] : state_.tasks) {
    if (!task.token.empty() && task.lease_ends <= time) expire(task);
  }
  for (auto& [seq, task] : state_.tasks) {
    if (!task.wait_ends || *task.wait_ends > time) continue;
    task.wait_ends.reset();
    changed(task);
  }
  for (auto& [name, provider] : state_.providers) {
    if (provider.ends <= time) provider.due = true;
  }
}

void ModelChanges::purge(const Retention& retention) {
  const auto is_old = [&](SystemTime time, std::chrono::milliseconds age) {
    return time < now_ - age;
  };
  std::set<std::string> kept;
  for (const auto& [name, taskset] : state_.tasksets) {
    if (!retention.tasksets || !is_old(taskset.updated_at, *retention.tasksets)) kept.insert(name);
  }
  for (const auto& [seq, task] : state_.tasks) {
    if (is_final(task.state) && retention.tasksets &&
        is_old(task.updated_at, *retention.tasksets)) {
      continue;
    }
    kept.insert(task.spec);
  }
  for (const auto& [seq, task] : state_.tasks) {
    if (is_final(task.state)) continue;
    for (const ModelEdge& edge : task.edges) kept.insert(state_.tasks.at(edge.parent).spec);
  }
  std::erase_if(state_.events, [&](const ModelEvent& event) {
    return state_.tasksets.count(event.spec) > 0 && kept.count(event.spec) == 0;
  });
  for (auto& [seq, task] : state_.tasks) {
    std::erase_if(task.edges, [&](const ModelEdge& edge) {
      return kept.count(state_.tasks.at(edge.parent).spec) == 0;
    });
  }
  std::erase_if(state_.tasks,
                [&](const auto& entry) { return kept.count(entry.second.spec) == 0; });
  std::erase_if(state_.tasksets, [&](const auto& entry) { return kept.count(entry.first) == 0; });
  if (!retention.events) return;
  const auto young = std::find_if(state_.events.begin(), state_.events.end(), [&](const auto& e) {
    return !is_old(e.event.recorded_at, *retention.events) && e.event.recorded_at <= now_;
  });
  state_.events.erase(
      std::remove_if(state_.events.begin(), young,
                     [&](const auto& e) { return is_old(e.event.recorded_at, *retention.events); }),
      young);
}

}  // namespace necrocode::registry
