#include "necrocode/llm/shared_pace.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "necrocode/base/limits.hpp"

namespace necrocode::llm {
namespace {

using std::chrono::microseconds;

constexpr std::int64_t kMinute = 60'000'000;
// A process that is killed while it probes leaves that to the next.
constexpr std::int64_t kProbeTime = 30'000'000;

std::int64_t micros(std::chrono::nanoseconds time) {
  return std::chrono::duration_cast<microseconds>(time).count();
}

// One of N a minute, so many times.
std::int64_t time_of(double per_minute, double amount) {
  if (!(per_minute > 0) || !std::isfinite(per_minute)) return 0;
  return static_cast<std::int64_t>(std::min(10.0, amount / per_minute) * kMinute);
}

// A bucket of a minute's worth as one time, when it will be full again (GCRA). More than the whole
// bucket is let through when that is full.
std::int64_t wait_for(std::int64_t full_at, std::int64_t now, std::int64_t cost) {
  if (cost == 0) return 0;
  return std::max<std::int64_t>(0,
                                std::max(full_at, now) + std::min(cost, kMinute) - now - kMinute);
}

}  // namespace

// What has passed is as good as forgotten.
SharedPace::SharedPace(std::shared_ptr<SharedState> state, const Clock& clock)
    : state_(std::move(state)), clock_(clock) {
  const std::lock_guard lock(state_->mutex);
  state_->database.prepare("DELETE FROM pace WHERE max(not_before, requests_at, tokens_at) < ?")
      .bind(now())
      .run();
}

std::int64_t SharedPace::now() const {
  return micros(clock_.system_now().time_since_epoch());
}

SharedPace::Turn SharedPace::ask_breaker(const std::string& origin, std::int64_t now) {
  Turn turn;
  db::Statement& query =
      state_->database.prepare("SELECT open_until, probe_until FROM breakers WHERE origin = ?");
  if (!query.bind(origin).step()) return turn;
  turn.had_failures = true;
  const std::int64_t open_until = query.integer(0);
  const std::int64_t probe_until = query.integer(1);
  query.reset();
  turn.probe = open_until != 0;
  turn.broken = open_until > now || (turn.probe && probe_until > now);
  if (!turn.broken) return turn;
  turn.probe = false;
  turn.wait = open_until > now ? std::chrono::nanoseconds(microseconds(open_until - now))
                               : limits::kBreakerProbeWait;
  return turn;
}

SharedPace::Turn SharedPace::ask(const std::string& key, const std::string& origin,
                                 const RateLimits& limits, std::int64_t tokens) {
  const std::int64_t request_cost = time_of(limits.requests_per_minute, 1);
  const std::int64_t token_cost =
      time_of(limits.tokens_per_minute, static_cast<double>(std::max<std::int64_t>(tokens, 0)));
  const std::lock_guard lock(state_->mutex);
  db::Database& database = state_->database;
  const auto look = [&](std::int64_t time, std::int64_t& requests_at, std::int64_t& tokens_at) {
    Turn turn = ask_breaker(origin, time);
    if (turn.broken) return turn;
    db::Statement& query =
        database.prepare("SELECT not_before, requests_at, tokens_at FROM pace WHERE key = ?");
    if (!query.bind(key).step()) return turn;
    requests_at = query.integer(1);
    tokens_at = query.integer(2);
    turn.wait = microseconds(std::max({std::int64_t{0}, query.integer(0) - time,
                                       wait_for(requests_at, time, request_cost),
                                       wait_for(tokens_at, time, token_cost)}));
    query.reset();
    return turn;
  };
  std::int64_t requests_at = 0;
  std::int64_t tokens_at = 0;
  {
    // Nearly every request: nothing is to be written.
    const Turn turn = look(now(), requests_at, tokens_at);
    if (turn.wait.count() > 0 || (!turn.probe && request_cost + token_cost == 0)) return turn;
  }
  db::Transaction transaction(database);
  const std::int64_t time = now();
  const Turn turn = look(time, requests_at, tokens_at);
  if (turn.wait.count() > 0) return turn;
  if (turn.probe) {
    database.prepare("UPDATE breakers SET probe_until = ? WHERE origin = ?")
        .bind(time + kProbeTime)
        .bind(origin)
        .run();
  }
  if (request_cost + token_cost > 0) {
    database
        .prepare(
            "INSERT INTO pace(key, requests_at, tokens_at) VALUES(?, ?, ?) ON CONFLICT(key) "
            "DO UPDATE SET requests_at = excluded.requests_at, tokens_at = "
            "excluded.tokens_at")
        .bind(key)
        .bind(std::max(requests_at, time) + request_cost)
        .bind(std::max(tokens_at, time) + token_cost)
        .run();
  }
  transaction.commit();
  return turn;
}

void SharedPace::tell(const std::string& origin, const Turn& turn, News news) {
  if (news == News::kAnswered && !turn.had_failures) return;
  if (news == News::kNone && !turn.probe) return;
  const std::lock_guard lock(state_->mutex);
  db::Database& database = state_->database;
  if (news == News::kAnswered) {
    database.prepare("DELETE FROM breakers WHERE origin = ?").bind(origin).run();
    return;
  }
  if (news == News::kNone) {
    database.prepare("UPDATE breakers SET probe_until = 0 WHERE origin = ?").bind(origin).run();
    return;
  }
  db::Transaction transaction(database);
  const std::int64_t time = now();
  database
      .prepare(
          "INSERT INTO breakers(origin, failures, first_failure) VALUES(?, 1, ?) ON "
          "CONFLICT(origin) DO UPDATE SET failures = failures + 1")
      .bind(origin)
      .bind(time)
      .run();
  // One that began before it opened says nothing new; a probe decides.
  database
      .prepare(
          "UPDATE breakers SET open_until = ?1 + max(open_for, ?2), open_for = min(?3, 2 * "
          "max(open_for, ?2)), probe_until = 0 WHERE origin = ?4 AND (?5 OR (open_until = 0 "
          "AND failures >= ?6 AND ?1 - first_failure >= ?7))")
      .bind(time)
      .bind(micros(limits::kBreakerOpenMin))
      .bind(micros(limits::kBreakerOpenMax))
      .bind(origin)
      .bind(turn.probe)
      .bind(static_cast<std::int64_t>(limits::kBreakerFailures))
      .bind(micros(limits::kBreakerSpan))
      .run();
  transaction.commit();
}

// A later run asks anew after it: one strange hint does not close a service for a day.
constexpr std::chrono::milliseconds kHoldMax = std::chrono::minutes{10};

void SharedPace::hold(const std::string& key, std::chrono::milliseconds time) {
  const std::lock_guard lock(state_->mutex);
  state_->database
      .prepare(
          "INSERT INTO pace(key, not_before) VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET "
          "not_before = max(not_before, excluded.not_before)")
      .bind(key)
      .bind(now() + micros(std::min(time, kHoldMax)))
      .run();
}

void SharedPace::settle(const std::string& key, const RateLimits& limits, std::int64_t estimated,
                        std::int64_t actual) {
  const auto cost = [&](std::int64_t tokens) {
    return time_of(limits.tokens_per_minute,
                   static_cast<double>(std::max<std::int64_t>(tokens, 0)));
  };
  const std::int64_t difference = cost(actual) - cost(estimated);
  if (difference == 0) return;
  const std::lock_guard lock(state_->mutex);
  state_->database.prepare("UPDATE pace SET tokens_at = tokens_at + ? WHERE key = ?")
      .bind(difference)
      .bind(key)
      .run();
}

}  // namespace necrocode::llm
