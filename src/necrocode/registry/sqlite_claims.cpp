// Claims: which task is next, by lanes (see kSchema4 in sqlite_rows.cpp), and its lease.
#include <algorithm>
#include <tuple>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/registry/sqlite_changes.hpp"
#include "necrocode/registry/sqlite_queries.hpp"
#include "necrocode/registry/sqlite_touches.hpp"

namespace necrocode::registry {
namespace {

bool same_filter(const ClaimRequest& a, const ClaimRequest& b) {
  return a.skills == b.skills && a.task_id == b.task_id && a.provider == b.provider;
}

}  // namespace

bool SqliteChange::Numbers::is_full() const {
  const auto reached = [](std::int64_t limit, std::int64_t value) {
    return limit > 0 && value >= limit;
  };
  return reached(max_running, running) || reached(budget_usd_micros, spent_usd_micros) ||
         reached(budget_tokens, spent_tokens);
}

void SqliteChange::end_commit() {
  settle_lanes();
  for (auto& [spec_id, spec] : specs_) write_numbers(spec_id, spec);
}

void SqliteChange::settle_lanes() {
  for (auto& [spec_id, spec] : specs_) {
    if (spec.lanes_stale) write_lanes(spec_id, spec);
  }
}

void SqliteChange::write_lanes(std::int64_t spec_id, SpecInCommit& spec) {
  spec.lanes_stale = false;
  const Numbers* numbers = spec.numbers ? &*spec.numbers : write_numbers(spec_id, spec);
  if (!numbers) return;
  const bool full = numbers->is_full();
  database_
      .prepare(
          "UPDATE lanes SET share = ?1, (priority, head) = (SELECT priority, seq FROM tasks "
          "INDEXED BY tasks_ready WHERE lane = lanes.lane AND state = 1 AND hold = 0 AND NOT ?2 "
          "ORDER BY priority DESC, seq LIMIT 1) WHERE spec_id = ?3")
      .bind(numbers->running)
      .bind(full)
      .bind(spec_id)
      .run();
  if (numbers->max_running > 0 && !full) effects_.news.became_claimable = true;
}

const SqliteChange::Numbers* SqliteChange::write_numbers(std::int64_t spec_id, SpecInCommit& spec) {
  const bool written =
      spec.numbers && spec.spent_usd_micros == 0 && spec.spent_tokens == 0 &&
      std::all_of(spec.counts.begin(), spec.counts.end(), [](int change) { return change == 0; });
  if (written) return &*spec.numbers;
  db::Statement& update = database_.prepare(
      "UPDATE taskset_numbers SET blocked = blocked + ?, ready = ready + ?, "
      "running = running + ?, done = done + ?, failed = failed + ?, cancelled = cancelled + ?, "
      "spent_usd_micros = spent_usd_micros + ?, spent_tokens = spent_tokens + ? "
      "WHERE spec_id = ? RETURNING running, max_running, spent_usd_micros, budget_usd_micros, "
      "spent_tokens, budget_tokens");
  for (const int change : spec.counts) update.bind(change);
  update.bind(spec.spent_usd_micros).bind(spec.spent_tokens).bind(spec_id);
  if (!update.step()) return nullptr;
  spec.counts = {};
  spec.spent_usd_micros = 0;
  spec.spent_tokens = 0;
  spec.numbers = {update.integer(0), update.integer(1), update.integer(2),
                  update.integer(3), update.integer(4), update.integer(5)};
  update.reset();
  return &*spec.numbers;
}

std::int64_t SqliteChange::lane_of(std::int64_t spec_id, const std::string& skill,
                                   const std::string& provider) {
  db::Statement& query =
      database_.prepare("SELECT lane FROM lanes WHERE spec_id = ? AND skill = ? AND provider = ?");
  if (query.bind(spec_id).bind(skill).bind(provider).step()) {
    const std::int64_t lane = query.integer(0);
    query.reset();
    return lane;
  }
  database_.prepare("INSERT INTO lanes (spec_id, skill, provider) VALUES (?, ?, ?)")
      .bind(spec_id)
      .bind(skill)
      .bind(provider)
      .run();
  return database_.last_insert_id();
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
  const int max = request.task_id ? 1 : request.max;
  std::size_t bytes = 0;
  while (static_cast<int>(claimed.size()) < max && bytes < limits::kPageBytes) {
    std::optional<TaskRow> row =
        request.task_id ? named_claimable(request) : next_claimable(request);
    if (!row) break;
    if (max > 1) bytes += stored_bytes(database_, *row);
    claimed.push_back(start_lease(std::move(*row), request));
  }
  return claimed;
}

/// Each turn gives a task or takes one out of its lane, so this ends.
std::optional<TaskRow> SqliteChange::next_claimable(const ClaimRequest& request) {
  while (true) {
    settle_lanes();
    const std::optional<LaneHead> best = best_lane(request);
    if (!best) return std::nullopt;
    TaskRow row = load_row(database_, best->seq);
    if (!hold_for_touches(row)) return row;
  }
}

std::optional<TaskRow> SqliteChange::named_claimable(const ClaimRequest& request) {
  TaskRow row = load_row(database_, *request.task_id);
  if (row.state != TaskState::kReady || row.hold != 0) return std::nullopt;
  if (spec_is_full(row.spec_id) || skill_is_full(row.skill)) return std::nullopt;
  if (!provider_allows(row.provider.empty() ? request.provider : row.provider)) return std::nullopt;
  if (hold_for_touches(row)) return std::nullopt;
  return row;
}

/// The best of each skill and provider stands first in lanes_order; the best of those that the
/// claimant may have wins.
std::optional<SqliteChange::LaneHead> SqliteChange::best_lane(const ClaimRequest& request) {
  std::optional<LaneHead> best;
  const auto order = [](const LaneHead& head) {
    return std::tuple(-head.priority, head.share, head.seq);
  };
  const auto offer = [&](LaneHead head) {
    if (!may_run(head, request)) return;
    if (!best || order(head) < order(*best)) best = std::move(head);
  };
  if (request.skills.empty()) {
    db::Statement& next = database_.prepare(
        "SELECT skill, provider, priority, share, head FROM lanes INDEXED BY lanes_order "
        "WHERE head IS NOT NULL AND (skill, provider) > (?, ?) "
        "ORDER BY skill, provider, priority DESC, share, head LIMIT 1");
    std::optional<LaneHead> head = first_lane("", "");
    if (head) offer(*head);
    LaneHead last;
    while (next.bind(last.skill).bind(last.provider).step()) {
      last = read_head(next);
      next.reset();
      offer(last);
    }
    return best;
  }
  std::vector<std::string> skills = request.skills;
  skills.emplace_back();
  std::sort(skills.begin(), skills.end());
  skills.erase(std::unique(skills.begin(), skills.end()), skills.end());
  for (const std::string& skill : skills) {
    if (const auto head = first_lane(skill, "")) offer(*head);
    db::Statement& next = database_.prepare(
        "SELECT skill, provider, priority, share, head FROM lanes INDEXED BY lanes_order "
        "WHERE head IS NOT NULL AND skill = ? AND provider > ? "
        "ORDER BY provider, priority DESC, share, head LIMIT 1");
    LaneHead last;
    while (next.bind(skill).bind(last.provider).step()) {
      last = read_head(next);
      next.reset();
      offer(last);
    }
  }
  return best;
}

SqliteChange::LaneHead SqliteChange::read_head(const db::Statement& lane) {
  return {lane.text(0), lane.text(1), lane.integer(2), lane.integer(3), lane.integer(4)};
}

std::optional<SqliteChange::LaneHead> SqliteChange::first_lane(const std::string& skill,
                                                               const std::string& provider) {
  db::Statement& query = database_.prepare(
      "SELECT skill, provider, priority, share, head FROM lanes INDEXED BY lanes_order "
      "WHERE head IS NOT NULL AND skill = ? AND provider = ? "
      "ORDER BY priority DESC, share, head LIMIT 1");
  if (!query.bind(skill).bind(provider).step()) return std::nullopt;
  LaneHead head = read_head(query);
  query.reset();
  return head;
}

bool SqliteChange::may_run(const LaneHead& head, const ClaimRequest& request) {
  if (skill_is_full(head.skill)) return false;
  if (head.provider.empty()) return provider_allows(request.provider);
  if (!request.provider.empty() && request.provider != head.provider) return false;
  return provider_allows(head.provider);
}

/// A parked one is probed by one task, once its time has come.
bool SqliteChange::provider_allows(const std::string& provider) {
  const Provider* parked = provider.empty() ? nullptr : find_provider(provider);
  return !parked || (parked->due && parked->probe == 0);
}

bool SqliteChange::skill_is_full(const std::string& skill) {
  const auto limit = options_.max_running_by_skill.find(skill);
  return limit != options_.max_running_by_skill.end() &&
         running_with_skill(database_, skill, limit->second) >= limit->second;
}

bool SqliteChange::spec_is_full(std::int64_t spec_id) {
  SpecInCommit& spec = specs_[spec_id];
  const Numbers* numbers = spec.numbers ? &*spec.numbers : write_numbers(spec_id, spec);
  return !numbers || numbers->is_full();
}

bool SqliteChange::hold_for_touches(const TaskRow& row) {
  const std::optional<std::int64_t> holder = running_that_touches(database_, row);
  if (!holder) return false;
  database_.prepare("UPDATE tasks SET hold = ? WHERE seq = ?").bind(*holder).bind(row.seq).run();
  specs_[row.spec_id].lanes_stale = true;
  return true;
}

std::vector<SqliteChange::Provider>& SqliteChange::providers() {
  if (!providers_) {
    providers_.emplace();
    db::Statement& query = database_.prepare("SELECT name, due, probe FROM providers");
    while (query.step()) {
      providers_->push_back({query.text(0), query.integer(1) != 0, query.integer(2)});
    }
  }
  return *providers_;
}

SqliteChange::Provider* SqliteChange::find_provider(const std::string& name) {
  for (Provider& provider : providers()) {
    if (provider.name == name) return &provider;
  }
  return nullptr;
}

ParkedProvider SqliteChange::park(const std::string& provider, SystemTime until,
                                  const std::string& reason) {
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(
      std::min<SystemTime::duration>(until - now_, limits::kParkTimeMax));
  const std::int64_t until_ms = now_ms_ + wait.count();
  const bool due = wait.count() <= 0;
  database_
      .prepare(
          "INSERT INTO providers (name, until_ms, reason, due, probe) VALUES (?, ?, ?, ?, 0) "
          "ON CONFLICT (name) DO UPDATE SET until_ms = excluded.until_ms, "
          "reason = excluded.reason, due = excluded.due, probe = 0")
      .bind(provider)
      .bind(until_ms)
      .bind(reason)
      .bind(due)
      .run();
  providers_.reset();
  if (due) {
    effects_.news.became_claimable = true;
  } else {
    effects_.provider_waits.push_back({provider, until_ms, wait});
  }
  return {provider, from_unix_ms(until_ms), reason, {}};
}

void SqliteChange::unpark(const std::string& provider) {
  if (!find_provider(provider)) {
    ErrorInfo info;
    info.target = shorten(printable(provider), limits::kNameBytes);
    throw NotFound("this provider is not parked", std::move(info));
  }
  database_.prepare("DELETE FROM providers WHERE name = ?").bind(provider).run();
  providers_.reset();
  effects_.news.became_claimable = true;
}

ClaimedTask SqliteChange::start_lease(TaskRow row, const ClaimRequest& request) {
  ++row.epoch;
  ++row.attempt;
  row.state = TaskState::kRunning;
  row.lease_token = random_hex(16);
  row.lease_ms = request.lease.count();
  row.runner_id = request.runner_id.value;
  row.cancel_requested = false;
  save(row, TaskState::kReady);
  const std::string& provider = row.provider.empty() ? request.provider : row.provider;
  if (Provider* parked = provider.empty() ? nullptr : find_provider(provider)) {
    parked->probe = row.seq;
    database_.prepare("UPDATE providers SET probe = ? WHERE name = ?")
        .bind(row.seq)
        .bind(provider)
        .run();
  }
  database_
      .prepare(
          "INSERT INTO attempts (task_seq, epoch, attempt, token, runner_id, skills, lease_ms, "
          "started_ms, provider, claimant_provider) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .bind(row.seq)
      .bind(row.epoch)
      .bind(row.attempt)
      .bind(row.lease_token)
      .bind(row.runner_id)
      .bind(Json(request.skills).dump())
      .bind(row.lease_ms)
      .bind(now_ms_)
      .bind(provider)
      .bind(request.provider)
      .run();
  record(row, "TaskAssigned",
         Json::object({{"runner_id", row.runner_id},
                       {"lease_seconds", static_cast<double>(row.lease_ms) / 1000}}));
  return hold_lease(row);
}

ClaimedTask SqliteChange::hold_lease(const TaskRow& row) {
  ClaimedTask claimed;
  claimed.task = to_task(database_, row);
  if (!claimed.task.dependencies.empty()) {
    claimed.task.base_commits = base_commits(database_, row.seq);
  }
  if (row.epoch > 1) {
    claimed.previous_attempts = load_attempts(database_, row.seq, AttemptsWanted::kToldToTheNext);
  }
  claimed.lease_token.value = row.lease_token;
  claimed.lease = std::chrono::milliseconds(row.lease_ms);
  claimed.expires_at = now_ + claimed.lease;
  effects_.leases_started.push_back({row.seq, row.lease_token, row.id, claimed.lease});
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
      "SELECT runner_id, skills, lease_ms, claimant_provider FROM attempts "
      "WHERE task_seq = ? AND token = ?");
  ClaimRequest terms;
  if (token.value.empty() || !query.bind(row.seq).bind(token.value).step()) {
    refuse_change(row, "claim_next: true needs a lease; give the claim's body instead");
  }
  terms.runner_id.value = query.text(0);
  for (const Json& skill : Json::parse(query.text(1)).items()) {
    terms.skills.push_back(skill.string_or(""));
  }
  terms.lease = std::chrono::milliseconds(query.integer(2));
  terms.provider = query.text(3);
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

}  // namespace necrocode::registry
