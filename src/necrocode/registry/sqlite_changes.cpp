#include "necrocode/registry/sqlite_changes.hpp"

#include <algorithm>
#include <string>

#include "necrocode/base/time_format.hpp"

namespace necrocode::registry {
namespace {

bool is_allowed(TaskState from, TaskState to) {
  switch (from) {
    case TaskState::kBlocked:
      return to == TaskState::kReady || to == TaskState::kCancelled;
    case TaskState::kReady:
      return to == TaskState::kRunning || to == TaskState::kBlocked || to == TaskState::kCancelled;
    case TaskState::kRunning:
      return is_final(to) || to == TaskState::kReady;
    case TaskState::kFailed:
      return to == TaskState::kReady;
    case TaskState::kDone:
    case TaskState::kCancelled:
      break;
  }
  return false;
}

/// `added`'s members put over `whole`'s. By an index: Json::set looks through all members each
/// time.
Json merged_members(Json whole, const Json& added) {
  Json::Object& members = whole.members();
  std::map<std::string, std::size_t, std::less<>> places;
  for (std::size_t i = 0; i < members.size(); ++i) places[members[i].first] = i;
  for (const auto& [name, value] : added.members()) {
    const auto [place, fresh] = places.try_emplace(name, members.size());
    if (fresh) {
      members.emplace_back(name, value);
    } else {
      members[place->second].second = value;
    }
  }
  return whole;
}

}  // namespace

void refuse_change(const TaskRow& row, const std::string& why) {
  ErrorInfo info;
  info.target = row.id;
  throw Conflict(why, std::move(info));
}

std::string event_for(TaskState state) {
  switch (state) {
    case TaskState::kReady:
      return "TaskReady";
    case TaskState::kRunning:
      return "TaskStarted";
    case TaskState::kDone:
      return "TaskCompleted";
    case TaskState::kFailed:
      return "TaskFailed";
    case TaskState::kCancelled:
      return "TaskCancelled";
    case TaskState::kBlocked:
      break;
  }
  return "TaskUpdated";
}

SqliteChange::SqliteChange(db::Database& database, SystemTime now, const StoreOptions& options,
                           SpecsInCommit& specs)
    : database_(database),
      now_(now),
      now_ms_(to_unix_ms(now)),
      options_(options),
      answers_(database, now),
      specs_(specs) {}

void SqliteChange::require_lease(const TaskRow& row, const LeaseToken& token) const {
  if (row.lease_token == token.value) return;
  if (row.lease_token.empty()) refuse_change(row, "the lease has ended");
  if (token.value.empty()) refuse_change(row, "the task is leased; its lease_token is needed");
  refuse_change(row, "the lease_token is not that of the task's lease");
}

int SqliteChange::attempt_of(const TaskRow& row, const LeaseToken& token) {
  if (token.value.empty() || token.value == row.lease_token) return row.attempt;
  db::Statement& query =
      database_.prepare("SELECT attempt FROM attempts WHERE task_seq = ? AND token = ?");
  if (!query.bind(row.seq).bind(token.value).step()) {
    refuse_change(row, "the lease_token was never one of this task's");
  }
  const auto attempt = static_cast<int>(query.integer(0));
  query.reset();
  return attempt;
}

bool SqliteChange::is_told_again(const TaskRow& row, TaskState status, const LeaseToken& token) {
  if (row.state != status || !is_final(status) || token.value.empty()) return false;
  db::Statement& query = database_.prepare(
      "SELECT epoch FROM attempts WHERE task_seq = ? AND token = ? AND NOT expired");
  if (!query.bind(row.seq).bind(token.value).step()) return false;
  const bool last = query.integer(0) == row.epoch;
  query.reset();
  return last;
}

void SqliteChange::require_version(const TaskRow& row, const VersionCondition& expected) const {
  if (!expected || expected(row.version)) return;
  ErrorInfo info;
  info.target = row.id;
  throw LostUpdate("the task has changed: its version is " + std::to_string(row.version), info);
}

void SqliteChange::require_transition(const TaskRow& row, TaskState to) const {
  if (!is_allowed(row.state, to)) {
    refuse_change(row, "a task cannot go from " + std::string(to_string(row.state)) + " to " +
                           std::string(to_string(to)));
  }
  if (row.state == TaskState::kBlocked && to == TaskState::kReady && row.open_dependencies > 0) {
    refuse_change(row,
                  "the task waits for " + std::to_string(row.open_dependencies) + " other tasks");
  }
}

void SqliteChange::save(TaskRow& row, TaskState previous) {
  ++row.version;
  row.updated_ms = now_ms_;
  if (row.state != TaskState::kReady) row.hold = 0;
  database_
      .prepare(
          "UPDATE tasks SET state = ?, metadata = ?, failure = ?, open_dependencies = ?, "
          "attempt = ?, retry_epoch = ?, epoch = ?, lease_token = ?, lease_ms = ?, runner_id = ?, "
          "cancel_requested = ?, hold = ?, not_before_ms = ?, version = ?, updated_ms = ? "
          "WHERE seq = ?")
      .bind(static_cast<int>(row.state))
      .bind(row.metadata)
      .bind(row.failure.empty() ? std::nullopt : std::optional(row.failure))
      .bind(row.open_dependencies)
      .bind(row.attempt)
      .bind(row.retry_epoch)
      .bind(row.epoch)
      .bind(row.lease_token.empty() ? std::nullopt : std::optional(row.lease_token))
      .bind(row.lease_ms)
      .bind(row.runner_id)
      .bind(row.cancel_requested)
      .bind(row.hold)
      .bind(row.not_before_ms)
      .bind(row.version)
      .bind(row.updated_ms)
      .bind(row.seq)
      .run();
  if (row.state == previous) return;
  count(row.spec_id, previous, -1);
  count(row.spec_id, row.state, 1);
}

void SqliteChange::count(std::int64_t spec_id, TaskState state, int change) {
  SpecInCommit& spec = specs_[spec_id];
  spec.counts[static_cast<std::size_t>(state)] += change;
  spec.lanes_stale = true;
  if (spec.numbers && state == TaskState::kRunning) spec.numbers->running += change;
}

bool SqliteChange::merge_metadata(TaskRow& row, const Json& metadata) const {
  if (metadata.members().empty()) return false;
  const Json merged = merged_members(Json::parse(row.metadata), metadata);
  std::string text = merged.dump();
  if (text == row.metadata) return false;
  ErrorInfo info;
  info.target = row.id;
  if (merged.size() > limits::kMetadataMembers) {
    throw TaskContextValidationError("the task's metadata would have more than " +
                                         std::to_string(limits::kMetadataMembers) + " members",
                                     std::move(info));
  }
  if (text.size() > limits::kMetadataBytes) {
    throw ResourceLimitError("the task's metadata would be more than " +
                                 std::to_string(limits::kMetadataBytes) + " bytes",
                             std::move(info));
  }
  row.metadata = std::move(text);
  return true;
}

Event SqliteChange::insert_event(const TaskRow& row, const NewEvent& event, int attempt) {
  database_
      .prepare(
          "INSERT INTO events (task_seq, spec_id, task_id, event_type, data, timestamp_ms, "
          "recorded_ms, attempt) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
      .bind(row.seq)
      .bind(row.spec_id)
      .bind(row.id)
      .bind(event.event_type)
      .bind(event.data.is_null() ? "{}" : event.data.dump())
      .bind(to_unix_ms(event.timestamp))
      .bind(now_ms_)
      .bind(attempt)
      .run();
  auto& told = effects_.news.events_of;
  if (told.empty() || told.back() != row.id) told.push_back(row.id);
  Event recorded;
  recorded.id = database_.last_insert_id();
  recorded.task_id = row.id;
  recorded.event_type = event.event_type;
  recorded.data = event.data;
  recorded.timestamp = event.timestamp;
  recorded.recorded_at = now_;
  recorded.attempt = attempt;
  return recorded;
}

void SqliteChange::record(const TaskRow& row, const std::string& type, const Json& data) {
  NewEvent event;
  event.event_type = type;
  event.data = data;
  event.timestamp = now_;
  insert_event(row, event, row.attempt);
}

ArtifactRef SqliteChange::insert_artifact(const TaskRow& row, const ArtifactRef& artifact,
                                          int attempt) {
  database_
      .prepare(
          "INSERT INTO artifacts (task_seq, type, uri, size_bytes, metadata, created_ms, attempt) "
          "VALUES (?, ?, ?, ?, ?, ?, ?)")
      .bind(row.seq)
      .bind(artifact.type)
      .bind(artifact.uri)
      .bind(artifact.size_bytes)
      .bind(artifact.metadata.is_null() ? "{}" : artifact.metadata.dump())
      .bind(to_unix_ms(artifact.created_at))
      .bind(attempt)
      .run();
  ArtifactRef recorded = artifact;
  recorded.attempt = attempt;
  return recorded;
}

void SqliteChange::require_room_for_artifacts(const TaskRow& row) {
  const ArtifactTotals totals = artifact_totals(database_, row.seq);
  if (totals.count <= limits::kTaskArtifacts && totals.bytes <= limits::kTaskArtifactBytes) return;
  ErrorInfo info;
  info.target = row.id;
  throw TaskContextValidationError("a task has at most " + std::to_string(limits::kTaskArtifacts) +
                                       " artifact references of " +
                                       std::to_string(limits::kTaskArtifactBytes) + " bytes",
                                   std::move(info));
}

Event SqliteChange::add_event(const std::string& task_id, const NewEvent& event) {
  const TaskRow row = load_row(database_, task_id);
  const int attempt = attempt_of(row, event.lease_token);
  keep_place(row, event, event.lease_token);
  return insert_event(row, event, attempt);
}

ArtifactRef SqliteChange::add_artifact(const std::string& task_id, const NewArtifact& artifact) {
  TaskRow row = load_row(database_, task_id);
  const ArtifactRef recorded =
      insert_artifact(row, artifact.artifact, attempt_of(row, artifact.lease_token));
  require_room_for_artifacts(row);
  save(row, row.state);  // the task's representation has changed: a new ETag
  return recorded;
}

Task SqliteChange::set_status(const std::string& task_id, const StatusChange& change) {
  TaskRow row = load_row(database_, task_id);
  if (is_told_again(row, change.status, change.lease_token)) return to_task(database_, row);
  if (!row.lease_token.empty() || !change.lease_token.value.empty()) {
    require_lease(row, change.lease_token);
  }
  require_version(row, change.expected);
  if (row.state != change.status) {
    require_transition(row, change.status);
    keep_usage(row, change.metadata);
  }
  const bool metadata_changed = merge_metadata(row, change.metadata);
  if (row.state != change.status) {
    apply_status(row, change.status);
  } else if (metadata_changed) {
    save(row, row.state);
  }
  if (metadata_changed) tell_merged(row);
  return to_task(database_, row);
}

void SqliteChange::apply_status(TaskRow& row, TaskState status) {
  if (row.state == TaskState::kRunning) {
    const bool handed_back = status == TaskState::kReady;
    if (handed_back && row.cancel_requested) status = TaskState::kCancelled;
    Outcome outcome{status, event_for(status)};
    outcome.counts = !handed_back;
    if (handed_back) outcome.event_data.set("reason", "handed back");
    if (status == TaskState::kFailed) {
      row.failure.clear();
      outcome.failure_class = FailureClass::kAgent;
    }
    finish(row, std::move(outcome));
    return;
  }
  const Json data = Json::object({{"from", to_string(row.state)}, {"to", to_string(status)}});
  if (status == TaskState::kRunning) {  // an existing client, without a lease
    ++row.epoch;
    ++row.attempt;
    database_
        .prepare(
            "INSERT INTO attempts (task_seq, epoch, attempt, token, runner_id, skills, lease_ms, "
            "started_ms) VALUES (?, ?, ?, '', '', '[]', 0, ?)")
        .bind(row.seq)
        .bind(row.epoch)
        .bind(row.attempt)
        .bind(now_ms_)
        .run();
  }
  std::string type = event_for(status);
  if (is_final(row.state)) {  // failed, or by retry() alone: cancelled
    type = "TaskRetried";
    row.retry_epoch = row.epoch;
    row.not_before_ms = 0;
    status = row.open_dependencies > 0 ? TaskState::kBlocked : TaskState::kReady;
  }
  move(row, status, type, data);
}

void SqliteChange::fail_or_retry(TaskRow& row, const std::optional<Failure>& failure) {
  const FailureClass failure_class =
      parse_failure_class(failure ? failure->failure_class : "").value_or(FailureClass::kAgent);
  Outcome outcome{TaskState::kFailed, event_for(TaskState::kFailed)};
  outcome.failure_class = failure_class;
  if (failure) outcome.event_data = failure->to_json();
  row.failure = failure ? outcome.event_data.dump() : "";
  const auto wait = wait_before_retry(Json::parse(row.fields), failure_class,
                                      attempts_used(row, failure_class) + 1,
                                      failure ? failure->retry_at : std::nullopt, now_);
  if (failure) outcome.retry_at = failure->retry_at;
  if (wait && row.cancel_requested) {
    outcome.state = TaskState::kCancelled;
    outcome.event_type = event_for(TaskState::kCancelled);
  } else if (wait) {
    outcome.state = TaskState::kReady;
    outcome.event_type = "TaskRetried";
    outcome.wait = *wait;
  }
  finish(row, std::move(outcome));
}

Completed SqliteChange::complete(const std::string& task_id, const Completion& completion,
                                 const NextClaim& next, const VersionCondition& expected) {
  TaskRow row = load_row(database_, task_id);
  const LeaseToken& token = completion.lease_token;
  if (is_told_again(row, completion.status, token)) {  // changes nothing, and is no error
    return {to_task(database_, row), next.wanted ? next_of(row, token) : std::nullopt};
  }
  if (!row.lease_token.empty() || !token.value.empty()) require_lease(row, token);
  require_version(row, expected);
  require_transition(row, completion.status);
  for (const Event& event : completion.events) {
    const NewEvent added{event.event_type, event.data, event.timestamp, token};
    keep_place(row, added, token);
    insert_event(row, added, row.attempt);
  }
  for (const ArtifactRef& artifact : completion.artifacts) {
    insert_artifact(row, artifact, row.attempt);
  }
  if (!completion.artifacts.empty()) require_room_for_artifacts(row);
  keep_usage(row, completion.metadata);
  merge_metadata(row, completion.metadata);
  if (completion.status == TaskState::kFailed) {
    fail_or_retry(row, completion.failure);
  } else {
    apply_status(row, completion.status);
  }
  Completed completed{to_task(database_, row), std::nullopt};
  if (next.wanted) completed.next = claim_next(row, token, next);
  return completed;
}

Task SqliteChange::cancel(const std::string& task_id, const std::string& reason,
                          const VersionCondition& expected) {
  TaskRow row = load_row(database_, task_id);
  require_version(row, expected);
  const Json data = reason.empty() ? Json::object() : Json::object({{"reason", reason}});
  if (row.state == TaskState::kRunning && !row.lease_token.empty()) {
    if (!row.cancel_requested) {
      row.cancel_requested = true;
      save(row, row.state);
      Json asked = data;
      record(row, "TaskUpdated", asked.set("cancel_requested", true));
      effects_.cancel_requested.push_back(row.lease_token);
    }
  } else if (row.state == TaskState::kRunning) {
    finish(row, {TaskState::kCancelled, event_for(TaskState::kCancelled), data});
  } else if (row.state != TaskState::kCancelled) {
    require_transition(row, TaskState::kCancelled);
    move(row, TaskState::kCancelled, event_for(TaskState::kCancelled), data);
  }
  return to_task(database_, row);
}

Task SqliteChange::retry(const std::string& task_id, const VersionCondition& expected) {
  TaskRow row = load_row(database_, task_id);
  require_version(row, expected);
  // Told again: it waits for its new attempt already.
  if (row.state == TaskState::kReady || row.state == TaskState::kBlocked) {
    return to_task(database_, row);
  }
  if (row.state != TaskState::kFailed && row.state != TaskState::kCancelled) {
    refuse_change(row, "only a failed or cancelled task can be retried, this one is " +
                           std::string(to_string(row.state)));
  }
  apply_status(row, TaskState::kReady);
  return to_task(database_, row);
}

Task SqliteChange::patch(const std::string& task_id, const TaskPatch& patch) {
  TaskRow row = load_row(database_, task_id);
  require_version(row, patch.expected);
  Json fields = Json::parse(row.fields);
  if (patch.priority) fields.set("priority", *patch.priority);
  if (patch.labels) fields.set("labels", *patch.labels);
  const std::string text = fields.dump();
  const bool fields_changed = text != row.fields;
  const bool metadata_changed = merge_metadata(row, patch.metadata);
  if (!fields_changed && !metadata_changed) return to_task(database_, row);
  if (fields_changed) {
    row.fields = text;
    row.priority = patch.priority.value_or(row.priority);
    database_.prepare("UPDATE task_fields SET fields = ? WHERE seq = ?")
        .bind(text)
        .bind(row.seq)
        .run();
    database_.prepare("UPDATE tasks SET priority = ? WHERE seq = ?")
        .bind(row.priority)
        .bind(row.seq)
        .run();
    specs_[row.spec_id].lanes_stale = true;
  }
  save(row, row.state);
  record(row, "TaskUpdated", Json::object({{"fields", fields_changed}}));
  if (metadata_changed) tell_merged(row);
  return to_task(database_, row);
}

}  // namespace necrocode::registry
