#include "necrocode/registry/sqlite_changes.hpp"

#include <algorithm>

#include "necrocode/base/time_format.hpp"

namespace necrocode::registry {
namespace {

[[noreturn]] void refuse(const TaskRow& row, const std::string& why) {
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

/// A final task needs none of its lease's columns; the attempts table keeps who did what.
void drop_lease(TaskRow& row) {
  row.lease_token.clear();
  row.lease_ms = 0;
  row.runner_id.clear();
  row.cancel_requested = false;
}

int max_attempts(const TaskRow& row) {
  return static_cast<int>(Json::parse(row.fields)["max_attempts"].as_int().value_or(kMaxAttempts));
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

bool same_filter(const ClaimRequest& a, const ClaimRequest& b) {
  return a.skills == b.skills && a.task_id == b.task_id;
}

}  // namespace

SqliteChange::SqliteChange(db::Database& database, SystemTime now)
    : database_(database), now_(now), now_ms_(to_unix_ms(now)), answers_(database, now) {}

void SqliteChange::require_lease(const TaskRow& row, const LeaseToken& token) const {
  if (row.lease_token == token.value) return;
  if (row.lease_token.empty()) refuse(row, "the lease has ended");
  if (token.value.empty()) refuse(row, "the task is leased; its lease_token is needed");
  refuse(row, "the lease_token is not that of the task's lease");
}

int SqliteChange::attempt_of(const TaskRow& row, const LeaseToken& token) {
  if (token.value.empty() || token.value == row.lease_token) return row.attempt;
  db::Statement& query =
      database_.prepare("SELECT attempt FROM attempts WHERE task_seq = ? AND token = ?");
  if (!query.bind(row.seq).bind(token.value).step()) {
    refuse(row, "the lease_token was never one of this task's");
  }
  const auto attempt = static_cast<int>(query.integer(0));
  query.reset();
  return attempt;
}

bool SqliteChange::is_told_again(const TaskRow& row, TaskState status, const LeaseToken& token) {
  if (row.state != status || !is_final(status) || token.value.empty()) return false;
  db::Statement& query =
      database_.prepare("SELECT epoch FROM attempts WHERE task_seq = ? AND token = ?");
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
    refuse(row, "a task cannot go from " + std::string(to_string(row.state)) + " to " +
                    std::string(to_string(to)));
  }
  if (row.state == TaskState::kBlocked && to == TaskState::kReady && row.open_dependencies > 0) {
    refuse(row, "the task waits for " + std::to_string(row.open_dependencies) + " other tasks");
  }
}

void SqliteChange::save(TaskRow& row, TaskState previous) {
  ++row.version;
  row.updated_ms = now_ms_;
  database_
      .prepare(
          "UPDATE tasks SET state = ?, metadata = ?, failure = ?, open_dependencies = ?, "
          "attempt = ?, attempts_used = ?, epoch = ?, lease_token = ?, lease_ms = ?, "
          "runner_id = ?, cancel_requested = ?, version = ?, updated_ms = ? WHERE seq = ?")
      .bind(static_cast<int>(row.state))
      .bind(row.metadata)
      .bind(row.failure.empty() ? std::nullopt : std::optional(row.failure))
      .bind(row.open_dependencies)
      .bind(row.attempt)
      .bind(row.attempts_used)
      .bind(row.epoch)
      .bind(row.lease_token.empty() ? std::nullopt : std::optional(row.lease_token))
      .bind(row.lease_ms)
      .bind(row.runner_id)
      .bind(row.cancel_requested)
      .bind(row.version)
      .bind(row.updated_ms)
      .bind(row.seq)
      .run();
  if (row.state == previous) return;
  count(row.spec_id, previous, -1);
  count(row.spec_id, row.state, 1);
  if (row.state == TaskState::kReady) effects_.news.became_ready = true;
}

void SqliteChange::count(std::int64_t spec_id, TaskState state, int change) {
  database_
      .prepare(
          "INSERT INTO task_counts (spec_id, state, tasks) VALUES (?1, ?2, max(?3, 0)) "
          "ON CONFLICT DO UPDATE SET tasks = tasks + ?3")
      .bind(spec_id)
      .bind(static_cast<int>(state))
      .bind(change)
      .run();
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
  return insert_event(row, event, attempt_of(row, event.lease_token));
}

ArtifactRef SqliteChange::add_artifact(const std::string& task_id, const NewArtifact& artifact) {
  TaskRow row = load_row(database_, task_id);
  const ArtifactRef recorded =
      insert_artifact(row, artifact.artifact, attempt_of(row, artifact.lease_token));
  require_room_for_artifacts(row);
  save(row, row.state);  // the task's representation has changed: a new ETag
  return recorded;
}

void SqliteChange::end_attempt(TaskRow& row, std::string_view outcome, bool counts) {
  database_
      .prepare(
          "UPDATE attempts SET ended_ms = ?, outcome = ?, attempt = iif(?, attempt, 0) "
          "WHERE task_seq = ? AND epoch = ?")
      .bind(now_ms_)
      .bind(outcome)
      .bind(counts)
      .bind(row.seq)
      .bind(row.epoch)
      .run();
  if (!row.lease_token.empty()) effects_.leases_ended.push_back(row.lease_token);
  drop_lease(row);
}

void SqliteChange::finish(TaskRow& row, Outcome outcome) {
  record(row, outcome.event_type, outcome.event_data);
  end_attempt(row, to_string(outcome.state), outcome.counts);
  if (!outcome.counts) {
    --row.attempt;
    --row.attempts_used;
  }
  row.state = outcome.state;
  // A dependency may have been added while it ran.
  if (row.state == TaskState::kReady && row.open_dependencies > 0) row.state = TaskState::kBlocked;
  if (row.state == TaskState::kDone) row.failure.clear();
  save(row, TaskState::kRunning);
  if (row.state == TaskState::kDone) unblock_dependents(row);
}

void SqliteChange::move(TaskRow& row, TaskState to, const std::string& event_type,
                        const Json& data) {
  const TaskState previous = row.state;
  row.state = to;
  save(row, previous);
  record(row, event_type, data);
}

void SqliteChange::unblock_dependents(const TaskRow& parent) {
  std::vector<std::int64_t> freed;
  {
    db::Statement& update = database_.prepare(
        "UPDATE tasks SET open_dependencies = open_dependencies - 1 "
        "WHERE seq IN (SELECT child FROM dependencies WHERE parent = ?) "
        "RETURNING seq, state, open_dependencies");
    update.bind(parent.seq);
    while (update.step()) {
      const bool blocked = static_cast<TaskState>(update.integer(1)) == TaskState::kBlocked;
      if (blocked && update.integer(2) == 0) freed.push_back(update.integer(0));
    }
  }
  std::sort(freed.begin(), freed.end());
  for (const std::int64_t seq : freed) {
    TaskRow child = load_row(database_, seq);
    move(child, TaskState::kReady, "TaskReady", Json::object({{"after", parent.id}}));
  }
}

Task SqliteChange::set_status(const std::string& task_id, const StatusChange& change) {
  TaskRow row = load_row(database_, task_id);
  if (is_told_again(row, change.status, change.lease_token)) return to_task(database_, row);
  if (!row.lease_token.empty() || !change.lease_token.value.empty()) {
    require_lease(row, change.lease_token);
  }
  require_version(row, change.expected);
  if (row.state != change.status) require_transition(row, change.status);
  const bool metadata_changed = merge_metadata(row, change.metadata);
  if (row.state != change.status) {
    apply_status(row, change.status, std::nullopt);
  } else if (metadata_changed) {
    save(row, row.state);
  }
  return to_task(database_, row);
}

void SqliteChange::apply_status(TaskRow& row, TaskState status,
                                const std::optional<Failure>& failure) {
  if (row.state == TaskState::kRunning) {
    const bool handed_back = status == TaskState::kReady;
    if (handed_back && row.cancel_requested) status = TaskState::kCancelled;
    Outcome outcome{status, event_for(status)};
    outcome.counts = !handed_back;
    if (handed_back) outcome.event_data.set("reason", "handed back");
    if (status == TaskState::kFailed) {
      if (failure) outcome.event_data = failure->to_json();
      row.failure = failure ? outcome.event_data.dump() : "";
    }
    finish(row, std::move(outcome));
    return;
  }
  Json data = Json::object({{"from", to_string(row.state)}, {"to", to_string(status)}});
  if (status == TaskState::kRunning) {  // an existing client, without a lease
    ++row.epoch;
    ++row.attempt;
    ++row.attempts_used;
  }
  std::string type = event_for(status);
  if (is_final(row.state)) {  // failed, or by retry() alone: cancelled
    type = "TaskRetried";
    row.attempts_used = 0;
    if (row.open_dependencies > 0) status = TaskState::kBlocked;
  }
  move(row, status, type, data);
}

std::vector<std::int64_t> SqliteChange::ready_tasks(const ClaimRequest& request) {
  std::vector<std::int64_t> ready;
  if (request.task_id) {
    const TaskRow row = load_row(database_, *request.task_id);
    if (row.state == TaskState::kReady) ready.push_back(row.seq);
    return ready;
  }
  // `state = 1` stands literally so that the partial index applies.
  db::Statement& query = request.skills.empty()
                             ? database_.prepare(
                                   "SELECT seq FROM tasks INDEXED BY tasks_ready WHERE state = 1 "
                                   "ORDER BY priority DESC, seq LIMIT ?1")
                             : database_.prepare(
                                   "SELECT seq FROM tasks INDEXED BY tasks_ready WHERE state = 1 "
                                   "AND (skill = '' OR skill IN (SELECT value FROM json_each(?2))) "
                                   "ORDER BY priority DESC, seq LIMIT ?1");
  query.bind(request.max);
  if (!request.skills.empty()) query.bind(Json(request.skills).dump());
  while (query.step()) ready.push_back(query.integer(0));
  return ready;
}

std::vector<ClaimOutcome> SqliteChange::claim(const std::vector<ClaimRequest>& requests) {
  std::vector<ClaimOutcome> outcomes;
  std::vector<const ClaimRequest*> unserved;
  for (const ClaimRequest& request : requests) {
    const bool hopeless = std::any_of(unserved.begin(), unserved.end(), [&](const auto* earlier) {
      return same_filter(*earlier, request);
    });
    outcomes.push_back(hopeless ? ClaimOutcome{} : claim_or_refuse(request));
    const ClaimOutcome& outcome = outcomes.back();
    if (outcome.claimed.empty() && !outcome.refusal && !hopeless) unserved.push_back(&request);
  }
  return outcomes;
}

/// Only for a wrong task_id, before anything is changed; any other error undoes the transaction.
ClaimOutcome SqliteChange::claim_or_refuse(const ClaimRequest& request) {
  try {
    return {claim(request), nullptr};
  } catch (const NotFound&) {
    return {{}, std::current_exception()};
  } catch (const Conflict&) {
    return {{}, std::current_exception()};
  } catch (const TaskContextValidationError&) {
    return {{}, std::current_exception()};
  }
}

std::vector<ClaimedTask> SqliteChange::claim(const ClaimRequest& request) {
  std::vector<ClaimedTask> claimed;
  for (const std::int64_t seq : ready_tasks(request)) claimed.push_back(start_lease(seq, request));
  return claimed;
}

ClaimedTask SqliteChange::start_lease(std::int64_t seq, const ClaimRequest& request) {
  TaskRow row = load_row(database_, seq);
  ++row.epoch;
  ++row.attempt;
  ++row.attempts_used;
  row.state = TaskState::kRunning;
  row.lease_token = random_hex(16);
  row.lease_ms = request.lease.count();
  row.runner_id = request.runner_id.value;
  row.cancel_requested = false;
  save(row, TaskState::kReady);
  database_
      .prepare(
          "INSERT INTO attempts (task_seq, epoch, attempt, token, runner_id, skills, lease_ms, "
          "started_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
      .bind(row.seq)
      .bind(row.epoch)
      .bind(row.attempt)
      .bind(row.lease_token)
      .bind(row.runner_id)
      .bind(Json(request.skills).dump())
      .bind(row.lease_ms)
      .bind(now_ms_)
      .run();
  record(row, "TaskAssigned",
         Json::object({{"runner_id", row.runner_id},
                       {"lease_seconds", static_cast<double>(row.lease_ms) / 1000}}));
  return hold_lease(row);
}

ClaimedTask SqliteChange::hold_lease(const TaskRow& row) {
  ClaimedTask claimed;
  claimed.task = to_task(database_, row);
  claimed.task.base_commits = base_commits(database_, row.seq);
  claimed.lease_token.value = row.lease_token;
  claimed.lease = std::chrono::milliseconds(row.lease_ms);
  claimed.expires_at = now_ + claimed.lease;
  effects_.leases_started.push_back({row.lease_token, row.id, claimed.lease});
  if (row.cancel_requested) effects_.cancel_requested.push_back(row.lease_token);
  return claimed;
}

bool SqliteChange::lives(const LeaseRef& lease) {
  db::Statement& query =
      database_.prepare("SELECT 1 FROM tasks WHERE id = ? AND lease_token = ? AND state = 2");
  const bool found = query.bind(lease.task_id).bind(lease.token.value).step();
  query.reset();
  return found;
}

void SqliteChange::give_back(const std::vector<LeaseRef>& leases) {
  for (const LeaseRef& lease : leases) give_back(lease);
}

void SqliteChange::give_back(const LeaseRef& lease) {
  TaskRow row = load_row(database_, lease.task_id);
  if (row.lease_token.empty() || row.lease_token != lease.token.value) return;
  Outcome outcome{TaskState::kReady, event_for(TaskState::kReady)};
  if (row.cancel_requested) outcome = {TaskState::kCancelled, event_for(TaskState::kCancelled)};
  outcome.event_data.set("reason", "the claimant was gone before the answer");
  outcome.counts = false;
  finish(row, std::move(outcome));
}

ClaimRequest SqliteChange::terms_of(const TaskRow& row, const LeaseToken& token) {
  db::Statement& query = database_.prepare(
      "SELECT runner_id, skills, lease_ms FROM attempts WHERE task_seq = ? AND token = ?");
  ClaimRequest terms;
  if (!query.bind(row.seq).bind(token.value).step()) {
    refuse(row, "claim_next: true needs a lease; give the claim's body instead");
  }
  terms.runner_id.value = query.text(0);
  for (const Json& skill : Json::parse(query.text(1)).items()) {
    terms.skills.push_back(skill.string_or(""));
  }
  terms.lease = std::chrono::milliseconds(query.integer(2));
  query.reset();
  return terms;
}

std::optional<ClaimedTask> SqliteChange::claim_next(const TaskRow& row, const LeaseToken& token,
                                                    const NextClaim& next) {
  const ClaimRequest terms = next.terms ? *next.terms : terms_of(row, token);
  std::vector<ClaimedTask> claimed;
  try {
    claimed = claim(terms);
  } catch (const NotFound&) {  // thrown before anything is claimed
    return std::nullopt;
  } catch (const Conflict&) {  // ambiguous
    return std::nullopt;
  }
  if (claimed.empty()) return std::nullopt;
  database_.prepare("UPDATE attempts SET next_token = ? WHERE task_seq = ? AND token = ?")
      .bind(claimed.front().lease_token.value)
      .bind(row.seq)
      .bind(token.value)
      .run();
  return std::move(claimed.front());
}

std::optional<ClaimedTask> SqliteChange::next_of(const TaskRow& row, const LeaseToken& token) {
  // Looks through the running tasks, which are few beside all tasks.
  db::Statement& query = database_.prepare(
      "SELECT t.seq FROM attempts a JOIN tasks t INDEXED BY tasks_running "
      "ON t.state = 2 AND t.lease_token = a.next_token WHERE a.task_seq = ? AND a.token = ?");
  if (!query.bind(row.seq).bind(token.value).step()) return std::nullopt;
  const std::int64_t seq = query.integer(0);
  query.reset();
  return hold_lease(load_row(database_, seq));
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
    insert_event(row, {event.event_type, event.data, event.timestamp, {}}, row.attempt);
  }
  for (const ArtifactRef& artifact : completion.artifacts) {
    insert_artifact(row, artifact, row.attempt);
  }
  if (!completion.artifacts.empty()) require_room_for_artifacts(row);
  merge_metadata(row, completion.metadata);
  apply_status(row, completion.status, completion.failure);
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
    refuse(row, "only a failed or cancelled task can be retried, this one is " +
                    std::string(to_string(row.state)));
  }
  apply_status(row, TaskState::kReady, std::nullopt);
  return to_task(database_, row);
}

void SqliteChange::expire(const std::string& task_id, const std::string& token) {
  TaskRow row = load_row(database_, task_id);
  if (row.lease_token != token) return;  // finished while the expiry was on its way
  Json data = Json::object({{"class", "infrastructure"},
                            {"reason", "the lease was not renewed"},
                            {"runner_id", row.runner_id}});
  if (row.cancel_requested) {
    finish(row, {TaskState::kCancelled, event_for(TaskState::kCancelled), data});
  } else if (row.attempts_used < max_attempts(row)) {
    finish(row, {TaskState::kReady, "TaskRetried", data});
  } else {
    row.failure = data.dump();
    finish(row, {TaskState::kFailed, event_for(TaskState::kFailed), data});
  }
}

}  // namespace necrocode::registry
