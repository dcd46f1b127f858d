// Attempts: their records, and all that happens when a task stops running.
#include <cmath>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/registry/sqlite_changes.hpp"

namespace necrocode::registry {
namespace {

/// How long a provider stays parked whose probe met the quota again and does not say until when.
constexpr auto kParkAgain = std::chrono::seconds(60);
/// Above this a cost is no cost; of one attempt.
constexpr double kUsdMax = 1e9;
constexpr std::int64_t kTokensMax = 1'000'000'000'000;

std::int64_t micros_of(const Json& usd) {
  const auto value = usd.as_double();
  if (!value || !(*value >= 0) || *value > kUsdMax) return 0;
  return std::llround(*value * kMicros);
}

/// Final and ready tasks need none of their lease's columns; the attempts keep who did what.
void drop_lease(TaskRow& row) {
  row.lease_token.clear();
  row.lease_ms = 0;
  row.runner_id.clear();
  row.cancel_requested = false;
}

}  // namespace

void SqliteChange::finish(TaskRow& row, Outcome outcome) {
  record(row, outcome.event_type, outcome.event_data);
  end_attempt(row, outcome);
  if (!outcome.counts) --row.attempt;
  row.state = outcome.state;
  row.not_before_ms = outcome.wait.count() > 0 ? now_ms_ + outcome.wait.count() : 0;
  std::optional<std::string> doomed_by;
  // Dependencies may have been added while it ran.
  if (row.state == TaskState::kReady) {
    row.state = resting_state(row);
    if (row.state == TaskState::kReady) enter_ready(row);
    if (row.state == TaskState::kCancelled) doomed_by = dooming_parent(row);
  }
  if (row.state == TaskState::kDone) row.failure.clear();
  save(row, TaskState::kRunning);
  if (doomed_by) {
    record(row, event_for(TaskState::kCancelled), Json::object({{"after", *doomed_by}}));
  }
  end_probe(row, outcome);
  release_held(row);
  if (options_.max_running_by_skill.contains(row.skill)) effects_.news.became_claimable = true;
  if (is_final(row.state)) tell_dependents(row);
}

void SqliteChange::end_attempt(TaskRow& row, const Outcome& outcome) {
  const bool failed = outcome.failure_class.has_value();
  const bool told = failed && outcome.event_data.size() > 0;
  database_
      .prepare(
          "UPDATE attempts SET ended_ms = ?, outcome = ?, attempt = iif(?, attempt, 0), class = ?, "
          "failure = ?, expired = ? WHERE task_seq = ? AND epoch = ?")
      .bind(now_ms_)
      .bind(to_string(outcome.state))
      .bind(outcome.counts)
      .bind(failed ? std::optional(std::string(to_string(*outcome.failure_class))) : std::nullopt)
      .bind(told ? std::optional(outcome.event_data.dump()) : std::nullopt)
      .bind(outcome.expired)
      .bind(row.seq)
      .bind(row.epoch)
      .run();
  if (!row.lease_token.empty()) effects_.leases_ended.push_back(row.lease_token);
  drop_lease(row);
}

int SqliteChange::attempts_used(const TaskRow& row, FailureClass failure_class) {
  db::Statement& query = database_.prepare(
      "SELECT count(*) FROM attempts WHERE task_seq = ? AND epoch > ? AND class = ?");
  query.bind(row.seq).bind(row.retry_epoch).bind(to_string(failure_class)).step();
  const auto used = static_cast<int>(query.integer(0));
  query.reset();
  return used;
}

/// Into the record of the attempt under way, and the taskset's account.
void SqliteChange::keep_usage(const TaskRow& row, const Json& metadata) {
  if (row.state != TaskState::kRunning) return;
  const std::int64_t usd_micros = micros_of(metadata["usage"]["cost_usd"]);
  const std::int64_t tokens = std::clamp<std::int64_t>(
      metadata["usage"]["total_tokens"].as_int().value_or(0), 0, kTokensMax);
  const std::string branch = metadata["branch"].string_or("");
  const std::string commit = metadata["commit"].string_or("");
  if (usd_micros == 0 && tokens == 0 && branch.empty() && commit.empty()) return;
  database_
      .prepare(
          "UPDATE attempts SET cost_usd_micros = ?, tokens = ?, branch = iif(?3 = '', branch, ?3), "
          "commit_id = ? WHERE task_seq = ? AND epoch = ?")
      .bind(usd_micros)
      .bind(tokens)
      .bind(branch)
      .bind(commit)
      .bind(row.seq)
      .bind(row.epoch)
      .run();
  SpecInCommit& spec = specs_[row.spec_id];
  spec.spent_usd_micros += usd_micros;
  spec.spent_tokens += tokens;
  spec.lanes_stale = true;
  if (!spec.numbers) return;
  spec.numbers->spent_usd_micros += usd_micros;
  spec.numbers->spent_tokens += tokens;
}

/// Where the attempt works, which its runner knows only after the claim.
void SqliteChange::keep_place(const TaskRow& row, const NewEvent& event, const LeaseToken& token) {
  if (event.event_type != "SlotAllocated" || token.value.empty()) return;
  database_
      .prepare(
          "UPDATE attempts SET slot_id = iif(?1 = '', slot_id, ?1), "
          "branch = iif(?2 = '', branch, ?2) WHERE task_seq = ?3 AND token = ?4")
      .bind(shorten(event.data["slot_id"].string_or(""), limits::kPathBytes))
      .bind(shorten(event.data["branch"].string_or(""), limits::kPathBytes))
      .bind(row.seq)
      .bind(token.value)
      .run();
}

/// Of a provider that this task was to try: whether it answers again.
void SqliteChange::end_probe(const TaskRow& row, const Outcome& outcome) {
  for (const Provider& provider : std::vector<Provider>(providers())) {
    if (provider.probe != row.seq) continue;
    const auto failure_class = outcome.failure_class;
    if (failure_class == FailureClass::kQuota) {
      const SystemTime until = outcome.retry_at.value_or(now_);
      park(provider.name, until > now_ ? until : now_ + kParkAgain,
           outcome.event_data["reason"].string_or(""));
    } else if (outcome.state == TaskState::kDone ||
               (failure_class && failure_class != FailureClass::kInfrastructure)) {
      unpark(provider.name);
    } else {
      database_.prepare("UPDATE providers SET probe = 0 WHERE name = ?").bind(provider.name).run();
      providers_.reset();
      effects_.news.became_claimable = true;
    }
  }
}

/// Those that were held because this task touches their files.
void SqliteChange::release_held(const TaskRow& row) {
  // Asked first, as a change of nothing costs more.
  db::Statement& query = database_.prepare(
      "SELECT 1 FROM tasks INDEXED BY tasks_held WHERE hold = ? AND hold > 0 LIMIT 1");
  if (!query.bind(row.seq).step()) return;
  query.reset();
  db::Statement& release =
      database_.prepare("UPDATE tasks SET hold = 0 WHERE hold = ? AND hold > 0 RETURNING spec_id");
  release.bind(row.seq);
  while (release.step()) {
    specs_[release.integer(0)].lanes_stale = true;
    effects_.news.became_claimable = true;
  }
}

void SqliteChange::expire(const std::string& task_id, const std::string& token) {
  TaskRow row = load_row(database_, task_id);
  if (row.lease_token != token) return;  // finished while the expiry was on its way
  constexpr FailureClass kClass = FailureClass::kInfrastructure;
  Outcome outcome{TaskState::kReady, "TaskRetried",
                  Json::object({{"class", to_string(kClass)},
                                {"reason", "the lease was not renewed"},
                                {"runner_id", row.runner_id}})};
  outcome.failure_class = kClass;
  outcome.expired = true;
  row.failure = outcome.event_data.dump();
  if (row.cancel_requested) {
    outcome.state = TaskState::kCancelled;
    outcome.event_type = event_for(TaskState::kCancelled);
  } else if (attempts_used(row, kClass) + 1 >= max_attempts(Json::parse(row.fields), kClass)) {
    outcome.state = TaskState::kFailed;
    outcome.event_type = event_for(TaskState::kFailed);
  }
  finish(row, std::move(outcome));
}

void SqliteChange::end_wait(const Effects::TaskWait& wait) {
  TaskRow row;
  try {
    row = load_row(database_, wait.seq);
  } catch (const NotFound&) {  // removed meanwhile
    return;
  }
  if (row.hold != kWaiting || row.not_before_ms != wait.not_before_ms) return;
  row.hold = 0;
  save(row, row.state);
  specs_[row.spec_id].lanes_stale = true;
  effects_.news.became_claimable = true;
}

void SqliteChange::end_wait(const Effects::ProviderWait& wait) {
  database_.prepare("UPDATE providers SET due = 1 WHERE name = ? AND until_ms = ?")
      .bind(wait.name)
      .bind(wait.until_ms)
      .run();
  providers_.reset();
  effects_.news.became_claimable = true;
}

}  // namespace necrocode::registry
