#include "necrocode/registry/sqlite_rows.hpp"

#include <algorithm>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::registry {
namespace {

// The states are numbered as TaskState: 0 blocked, 1 ready, 2 running, 3 done, 4 failed, 5
// cancelled. tasks_ready is the claim's order, over ready tasks only, so that a claim costs the
// same however many tasks there are; `skill` lets it be filtered without reading the row.
constexpr std::string_view kSchema1 = R"sql(
CREATE TABLE tasksets (
  spec_id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  metadata TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL);
CREATE TABLE task_counts (
  spec_id INTEGER NOT NULL REFERENCES tasksets,
  state INTEGER NOT NULL,
  tasks INTEGER NOT NULL CHECK (tasks >= 0),
  PRIMARY KEY (spec_id, state)) WITHOUT ROWID;
CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  spec_id INTEGER NOT NULL REFERENCES tasksets,
  id TEXT NOT NULL UNIQUE,
  number TEXT NOT NULL,
  number_key TEXT NOT NULL,
  skill TEXT NOT NULL,
  priority INTEGER NOT NULL,
  state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5),
  metadata TEXT NOT NULL,
  failure TEXT,
  open_dependencies INTEGER NOT NULL CHECK (open_dependencies >= 0),
  attempt INTEGER NOT NULL,
  attempts_used INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  lease_token TEXT,
  lease_ms INTEGER NOT NULL,
  runner_id TEXT NOT NULL,
  cancel_requested INTEGER NOT NULL,
  version INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  CHECK (lease_token IS NULL OR state = 2));
CREATE INDEX tasks_by_number ON tasks (number);
CREATE INDEX tasks_by_spec ON tasks (spec_id, number_key, seq);
CREATE INDEX tasks_ready ON tasks (priority DESC, seq, skill) WHERE state = 1;
CREATE INDEX tasks_running ON tasks (seq) WHERE state = 2;
CREATE TABLE task_fields (
  seq INTEGER PRIMARY KEY REFERENCES tasks ON DELETE CASCADE,
  fields TEXT NOT NULL);
CREATE TABLE dependencies (
  child INTEGER NOT NULL REFERENCES tasks ON DELETE CASCADE,
  parent INTEGER NOT NULL REFERENCES tasks,
  PRIMARY KEY (child, parent)) WITHOUT ROWID;
CREATE INDEX dependencies_by_parent ON dependencies (parent);
CREATE TABLE attempts (
  task_seq INTEGER NOT NULL REFERENCES tasks ON DELETE CASCADE,
  epoch INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  token TEXT NOT NULL,
  runner_id TEXT NOT NULL,
  skills TEXT NOT NULL,
  lease_ms INTEGER NOT NULL,
  started_ms INTEGER NOT NULL,
  ended_ms INTEGER,
  outcome TEXT,
  PRIMARY KEY (task_seq, epoch)) WITHOUT ROWID;
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  task_seq INTEGER NOT NULL,
  spec_id INTEGER NOT NULL,
  task_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  data TEXT NOT NULL,
  timestamp_ms INTEGER NOT NULL,
  recorded_ms INTEGER NOT NULL,
  attempt INTEGER NOT NULL);
CREATE INDEX events_by_task ON events (task_seq);
CREATE INDEX events_by_spec ON events (spec_id);
CREATE TABLE artifacts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  task_seq INTEGER NOT NULL REFERENCES tasks ON DELETE CASCADE,
  type TEXT NOT NULL,
  uri TEXT NOT NULL,
  size_bytes INTEGER,
  metadata TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  attempt INTEGER NOT NULL);
CREATE INDEX artifacts_by_task ON artifacts (task_seq);
)sql";

// The lease that a completion's claim_next got, for the same completion told again.
constexpr std::string_view kSchema2 = "ALTER TABLE attempts ADD COLUMN next_token TEXT";

// First answers, by Idempotency-Key (net/idempotency.hpp).
constexpr std::string_view kSchema3 = R"sql(
CREATE TABLE kept_answers (
  name TEXT NOT NULL PRIMARY KEY,
  fingerprint TEXT NOT NULL,
  status INTEGER NOT NULL,
  content_type TEXT NOT NULL,
  etag TEXT NOT NULL,
  body TEXT NOT NULL,
  kept_ms INTEGER NOT NULL);
CREATE INDEX kept_answers_by_time ON kept_answers (kept_ms);
)sql";

// Claims by lanes, policies of dependencies, what attempts came to, limits and parked providers.
//
// A lane is the tasks of one spec with the same skill and provider. `head` is its next claimable
// task, NULL when there is none or the spec may run no more; `priority` is that task's, `share` the
// spec's running tasks. So lanes_order has the best task of each skill and provider first, and a
// claim costs the same however many tasks wait. All of it follows from tasks and taskset_numbers.
//
// tasks.hold takes a ready task out of its lane: -1 until not_before_ms, or the seq of the running
// task that touches its files. tasks.retry_epoch: attempts up to this epoch no longer count.
constexpr std::string_view kSchema4 = R"sql(
CREATE TABLE taskset_numbers (
  spec_id INTEGER PRIMARY KEY REFERENCES tasksets ON DELETE CASCADE,
  blocked INTEGER NOT NULL CHECK (blocked >= 0),
  ready INTEGER NOT NULL CHECK (ready >= 0),
  running INTEGER NOT NULL CHECK (running >= 0),
  done INTEGER NOT NULL CHECK (done >= 0),
  failed INTEGER NOT NULL CHECK (failed >= 0),
  cancelled INTEGER NOT NULL CHECK (cancelled >= 0),
  max_running INTEGER NOT NULL DEFAULT 0,
  budget_usd_micros INTEGER NOT NULL DEFAULT 0,
  budget_tokens INTEGER NOT NULL DEFAULT 0,
  unblock_on INTEGER NOT NULL DEFAULT 0,
  spent_usd_micros INTEGER NOT NULL DEFAULT 0,
  spent_tokens INTEGER NOT NULL DEFAULT 0);
INSERT INTO taskset_numbers (spec_id, blocked, ready, running, done, failed, cancelled)
  SELECT s.spec_id,
    coalesce((SELECT tasks FROM task_counts c WHERE c.spec_id = s.spec_id AND c.state = 0), 0),
    coalesce((SELECT tasks FROM task_counts c WHERE c.spec_id = s.spec_id AND c.state = 1), 0),
    coalesce((SELECT tasks FROM task_counts c WHERE c.spec_id = s.spec_id AND c.state = 2), 0),
    coalesce((SELECT tasks FROM task_counts c WHERE c.spec_id = s.spec_id AND c.state = 3), 0),
    coalesce((SELECT tasks FROM task_counts c WHERE c.spec_id = s.spec_id AND c.state = 4), 0),
    coalesce((SELECT tasks FROM task_counts c WHERE c.spec_id = s.spec_id AND c.state = 5), 0)
  FROM tasksets s;
DROP TABLE task_counts;
CREATE TABLE lanes (
  lane INTEGER PRIMARY KEY,
  spec_id INTEGER NOT NULL REFERENCES tasksets ON DELETE CASCADE,
  skill TEXT NOT NULL,
  provider TEXT NOT NULL,
  priority INTEGER,
  head INTEGER,
  share INTEGER NOT NULL DEFAULT 0,
  UNIQUE (spec_id, skill, provider));
INSERT INTO lanes (spec_id, skill, provider) SELECT DISTINCT spec_id, skill, '' FROM tasks;
DROP INDEX tasks_ready;
DROP INDEX tasks_running;
ALTER TABLE tasks ADD COLUMN lane INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN provider TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN touches TEXT;
ALTER TABLE tasks ADD COLUMN hold INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN not_before_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN retry_epoch INTEGER NOT NULL DEFAULT 0;
UPDATE tasks SET retry_epoch = epoch - attempts_used,
  lane = (SELECT l.lane FROM lanes l WHERE l.spec_id = tasks.spec_id AND l.skill = tasks.skill);
ALTER TABLE tasks DROP COLUMN attempts_used;
CREATE INDEX tasks_ready ON tasks (lane, priority DESC, seq) WHERE state = 1 AND hold = 0;
CREATE INDEX tasks_running ON tasks (skill, lease_token) WHERE state = 2;
CREATE INDEX tasks_touching ON tasks (seq) WHERE state = 2 AND touches IS NOT NULL;
CREATE INDEX tasks_held ON tasks (hold) WHERE hold > 0;
CREATE INDEX tasks_waiting ON tasks (not_before_ms) WHERE hold = -1;
CREATE INDEX tasks_by_priority ON tasks (priority DESC, seq);
CREATE INDEX tasks_ended_badly ON tasks (state, seq) WHERE state >= 4;
UPDATE lanes SET (priority, head) = (SELECT priority, seq FROM tasks WHERE lane = lanes.lane
    AND state = 1 AND hold = 0 ORDER BY priority DESC, seq LIMIT 1),
  share = (SELECT running FROM taskset_numbers n WHERE n.spec_id = lanes.spec_id);
CREATE INDEX lanes_order ON lanes (skill, provider, priority DESC, share, head)
  WHERE head IS NOT NULL;
ALTER TABLE dependencies ADD COLUMN policy INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dependencies ADD COLUMN met INTEGER NOT NULL DEFAULT 0;
UPDATE dependencies SET met = 1 WHERE parent IN (SELECT seq FROM tasks WHERE state = 3);
ALTER TABLE attempts ADD COLUMN provider TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN claimant_provider TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN slot_id TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN branch TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN commit_id TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN class TEXT;
ALTER TABLE attempts ADD COLUMN failure TEXT;
ALTER TABLE attempts ADD COLUMN cost_usd_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0;
UPDATE attempts SET class = 'infrastructure' WHERE outcome = 'ready' AND attempt > 0;
UPDATE attempts SET class = 'agent' WHERE outcome = 'failed';
CREATE TABLE providers (
  name TEXT NOT NULL PRIMARY KEY,
  until_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  due INTEGER NOT NULL,
  probe INTEGER NOT NULL);
)sql";

/// Of a task's attempts the last ones are listed, of each the first artifacts.
constexpr std::int64_t kAttemptsListed = 1000;
constexpr std::size_t kArtifactsOfAttempt = 100;
/// So many unfinished parents are named in a blocked task's reason.
constexpr std::size_t kNamedParents = 3;
/// So many candidates are named for an ambiguous bare id.
constexpr std::size_t kNamedCandidates = 10;

ErrorInfo info_for(std::string_view target) {
  ErrorInfo info;
  info.target = shorten(printable(target), 2 * limits::kNameBytes);
  return info;
}

std::vector<ArtifactRef> load_artifacts(db::Database& database, std::int64_t seq) {
  db::Statement& query = database.prepare(
      "SELECT type, uri, size_bytes, metadata, created_ms, attempt FROM artifacts WHERE task_seq = "
      "? "
      "ORDER BY id");
  query.bind(seq);
  std::vector<ArtifactRef> artifacts;
  while (query.step()) {
    ArtifactRef& artifact = artifacts.emplace_back();
    artifact.type = query.text(0);
    artifact.uri = query.text(1);
    artifact.size_bytes = query.optional_integer(2);
    artifact.metadata = Json::parse(query.text(3));
    artifact.created_at = from_unix_ms(query.integer(4));
    artifact.attempt = static_cast<int>(query.integer(5));
  }
  return artifacts;
}

/// Failed and cancelled parents first: those are what a person has to act on.
std::string blocked_reason(db::Database& database, const TaskRow& row) {
  if (row.open_dependencies == 0) return "set to blocked by a client";
  db::Statement& query = database.prepare(
      "SELECT p.id, p.state FROM dependencies d JOIN tasks p ON p.seq = d.parent "
      "WHERE d.child = ? AND d.met = 0 ORDER BY p.state >= 4 DESC, p.seq LIMIT ?");
  query.bind(row.seq).bind(static_cast<std::int64_t>(kNamedParents));
  std::vector<std::string> parents;
  while (query.step()) {
    const auto state = static_cast<TaskState>(query.integer(1));
    // Done and still waited for: the taskset waits until it is merged.
    const bool unmerged = state == TaskState::kDone;
    parents.push_back(query.text(0) + " (" +
                      (unmerged ? "not merged" : std::string(to_string(state))) + ")");
  }
  std::string reason = "waits for " + join(parents, ", ");
  const auto named = static_cast<int>(parents.size());
  if (row.open_dependencies > named) {
    reason += " and " + std::to_string(row.open_dependencies - named) + " more";
  }
  return reason;
}

}  // namespace

const char* const kTaskColumns =
    "t.seq, t.spec_id, t.id, t.state, t.metadata, t.failure, t.open_dependencies, t.attempt, "
    "t.retry_epoch, t.epoch, t.lease_token, t.lease_ms, t.runner_id, t.cancel_requested, "
    "t.version, t.created_ms, t.updated_ms, f.fields, t.provider, t.touches, t.hold, "
    "t.not_before_ms, t.priority, t.skill";

const std::vector<std::string_view>& sqlite_migrations() {
  static const std::vector<std::string_view> kMigrations = {kSchema1, kSchema2, kSchema3, kSchema4};
  return kMigrations;
}

void throw_no_task(std::string_view id) {
  throw NotFound("there is no such task", info_for(id));
}
void throw_no_taskset(std::string_view spec) {
  throw NotFound("there is no such taskset", info_for(spec));
}

TaskRow read_row(const db::Statement& statement) {
  TaskRow row;
  row.seq = statement.integer(0);
  row.spec_id = statement.integer(1);
  row.id = statement.text(2);
  row.state = static_cast<TaskState>(statement.integer(3));
  row.metadata = statement.text(4);
  row.failure = statement.text(5);
  row.open_dependencies = static_cast<int>(statement.integer(6));
  row.attempt = static_cast<int>(statement.integer(7));
  row.retry_epoch = statement.integer(8);
  row.epoch = statement.integer(9);
  row.lease_token = statement.text(10);
  row.lease_ms = statement.integer(11);
  row.runner_id = statement.text(12);
  row.cancel_requested = statement.integer(13) != 0;
  row.version = statement.integer(14);
  row.created_ms = statement.integer(15);
  row.updated_ms = statement.integer(16);
  row.fields = statement.text(17);
  row.provider = statement.text(18);
  row.touches = statement.text(19);
  row.hold = statement.integer(20);
  row.not_before_ms = statement.integer(21);
  row.priority = statement.integer(22);
  row.skill = statement.text(23);
  return row;
}

std::string resolve_task_id(db::Database& database, std::string_view text) {
  if (TaskId::parse(text)) return std::string(text);
  if (!is_plain_name(text)) {
    ErrorInfo info = info_for(text);
    info.fields.push_back({"/id", "must be SPEC:NUMBER or NUMBER"});
    throw TaskContextValidationError("not a task id", std::move(info));
  }
  db::Statement& query =
      database.prepare("SELECT id FROM tasks WHERE number = ? ORDER BY id LIMIT ?");
  query.bind(text).bind(static_cast<std::int64_t>(kNamedCandidates + 1));
  std::vector<std::string> candidates;
  while (query.step()) candidates.push_back(query.text(0));
  if (candidates.empty()) throw_no_task(text);
  if (candidates.size() == 1) return candidates.front();
  if (candidates.size() > kNamedCandidates) candidates.back() = "…";
  throw Conflict("the task id is ambiguous, it may be " + join(candidates, ", "), info_for(text));
}

TaskRow load_row(db::Database& database, std::string_view text) {
  static const std::string kQuery = std::string("SELECT ") + kTaskColumns +
                                    " FROM tasks t JOIN task_fields f USING (seq) WHERE t.id = ?";
  const std::string id = resolve_task_id(database, text);
  db::Statement& query = database.prepare(kQuery);
  if (!query.bind(id).step()) throw_no_task(text);
  TaskRow row = read_row(query);
  query.reset();
  return row;
}

TaskRow load_row(db::Database& database, std::int64_t seq) {
  static const std::string kQuery = std::string("SELECT ") + kTaskColumns +
                                    " FROM tasks t JOIN task_fields f USING (seq) WHERE t.seq = ?";
  db::Statement& query = database.prepare(kQuery);
  if (!query.bind(seq).step()) throw_no_task(std::to_string(seq));
  TaskRow row = read_row(query);
  query.reset();
  return row;
}

Task to_task(db::Database& database, const TaskRow& row) {
  Task task;
  task.id = row.id;
  task.spec_name = row.spec_name();
  task.number = row.number();
  task.state = row.state;
  task.fields = Json::parse(row.fields);
  task.metadata = Json::parse(row.metadata);
  if (!row.failure.empty()) task.failure = Json::parse(row.failure);
  for (const Json& dependency : task.fields["dependencies"].items()) {
    const std::string text = dependency.string_or("");
    const bool full = text.find(':') != std::string::npos;
    task.dependencies.push_back(full ? text : task.spec_name + ":" + text);
  }
  task.artifacts = load_artifacts(database, row.seq);
  task.attempt = row.attempt;
  task.version = row.version;
  task.runner_id = row.runner_id;
  task.cancel_requested = row.cancel_requested;
  if (row.state == TaskState::kBlocked) task.blocked_reason = blocked_reason(database, row);
  if (row.hold == kWaiting) task.not_before = from_unix_ms(row.not_before_ms);
  task.created_at = from_unix_ms(row.created_ms);
  task.updated_at = from_unix_ms(row.updated_ms);
  return task;
}

ArtifactTotals artifact_totals(db::Database& database, std::int64_t seq) {
  // As blobs, so that bytes are counted and not characters.
  db::Statement& query = database.prepare(
      "SELECT count(*), total(length(CAST(type AS BLOB)) + length(CAST(uri AS BLOB)) + "
      "length(CAST(metadata AS BLOB))) FROM artifacts WHERE task_seq = ?");
  query.bind(seq).step();
  const ArtifactTotals totals{static_cast<std::size_t>(query.integer(0)),
                              static_cast<std::size_t>(query.integer(1))};
  query.reset();
  return totals;
}

std::size_t stored_bytes(db::Database& database, const TaskRow& row) {
  return row.fields.size() + row.metadata.size() + row.failure.size() +
         artifact_totals(database, row.seq).bytes;
}

std::vector<std::string> base_commits(db::Database& database, std::int64_t seq) {
  db::Statement& query = database.prepare(
      "SELECT p.metadata FROM dependencies d JOIN tasks p ON p.seq = d.parent "
      "WHERE d.child = ?1 AND p.state = 3 AND (SELECT n.unblock_on FROM tasks c "
      "JOIN taskset_numbers n USING (spec_id) WHERE c.seq = ?1) = 0 ORDER BY p.seq");
  query.bind(seq);
  std::vector<std::string> commits;
  while (query.step()) {
    const std::string commit = Json::parse(query.text(0))["commit"].string_or("");
    if (!commit.empty()) commits.push_back(commit);
  }
  return commits;
}

std::vector<AttemptRecord> load_attempts(db::Database& database, std::int64_t seq,
                                         AttemptsWanted wanted) {
  db::Statement& query = database.prepare(
      "SELECT attempt, runner_id, provider, slot_id, branch, commit_id, started_ms, ended_ms, "
      "outcome, failure, cost_usd_micros, tokens FROM attempts "
      "WHERE task_seq = ?1 AND (?2 = 0 OR ended_ms IS NOT NULL) ORDER BY epoch DESC LIMIT ?3");
  const bool ended = wanted == AttemptsWanted::kToldToTheNext;
  query.bind(seq).bind(ended).bind(ended ? static_cast<std::int64_t>(limits::kAttemptsTold)
                                         : kAttemptsListed);
  std::vector<AttemptRecord> records;
  while (query.step()) {
    AttemptRecord& record = records.emplace_back();
    record.attempt = static_cast<int>(query.integer(0));
    record.runner_id = query.text(1);
    record.provider = query.text(2);
    record.slot_id = query.text(3);
    record.branch = query.text(4);
    record.commit = query.text(5);
    record.started_at = from_unix_ms(query.integer(6));
    if (!query.is_null(7)) record.ended_at = from_unix_ms(query.integer(7));
    record.outcome = query.text(8);
    if (!query.is_null(9)) record.failure = Json::parse(query.text(9));
    record.cost_usd = static_cast<double>(query.integer(10)) / kMicros;
    record.tokens = query.integer(11);
  }
  std::reverse(records.begin(), records.end());
  for (ArtifactRef& artifact : load_artifacts(database, seq)) {
    const auto found =
        std::find_if(records.begin(), records.end(), [&](const AttemptRecord& record) {
          return record.attempt == artifact.attempt && record.attempt > 0;
        });
    if (found != records.end() && found->artifacts.size() < kArtifactsOfAttempt) {
      found->artifacts.push_back(std::move(artifact));
    }
  }
  return records;
}

std::string natural_key(std::string_view text) {
  std::string key;
  for (std::size_t i = 0; i < text.size();) {
    if (!is_ascii_digit(text[i])) {
      key += text[i++];
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && is_ascii_digit(text[end])) ++end;
    std::size_t start = i;
    while (start + 1 < end && text[start] == '0') ++start;
    // The count of digits first, so that a longer number sorts after a shorter one.
    const std::string digits = std::to_string(end - start);
    key +=
        std::string(3 - digits.size(), '0') + digits + std::string(text.substr(start, end - start));
    i = end;
  }
  return key;
}

}  // namespace necrocode::registry
