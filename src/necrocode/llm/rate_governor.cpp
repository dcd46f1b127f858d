#include "necrocode/llm/rate_governor.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <list>
#include <utility>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/retry.hpp"

namespace necrocode::llm {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;
using Minutes = std::chrono::duration<double, std::ratio<60>>;

constexpr std::size_t kLanes = 1000;    // keys; a process uses a handful
constexpr std::size_t kWaiters = 1000;  // of one key: more threads than a worker has
constexpr auto kWaitMax = 24h;          // as net/retry.hpp bounds a hint
constexpr auto kLookAgain = 1h;         // whoever is not first is woken when it becomes so
constexpr auto kPause = 1s;             // after a 429 without a hint; doubled each time, up to
constexpr auto kPauseMax = 60s;         // the minute that limits are counted by
constexpr int kPauseDoublings = 6;
// A request ten times as large as the bucket, or a service that claims one, stops a key for ten
// minutes, not for ever.
constexpr double kDebtBuckets = 10;
constexpr double kRounding = 1e-6;  // of a request or token

/// N a minute, at most N at once.
class Bucket {
 public:
  void allow(double per_minute, SteadyTime now) {
    if (!(per_minute > 0) || !std::isfinite(per_minute)) per_minute = 0;
    if (per_minute == per_minute_) return;
    const bool is_new = per_minute_ == 0;
    level_ = level(now);
    at_ = now;
    per_minute_ = per_minute;
    capacity_ = std::max(1.0, per_minute);
    level_ = is_new ? capacity_ : std::min(level_, capacity_);
  }
  SteadyTime ready(SteadyTime from, double amount) const {
    if (per_minute_ == 0) return from;
    const double missing = std::min(amount, capacity_) - level(from);
    if (missing <= kRounding) return from;
    const Minutes wait(missing / per_minute_);
    return from + (wait < kWaitMax ? std::chrono::ceil<nanoseconds>(wait) : kWaitMax);
  }
  void take(SteadyTime when, double amount) {
    level_ = level(when);
    at_ = std::max(at_, when);
    give_back(-amount);
  }
  void give_back(double amount) {
    level_ = std::clamp(level_ + amount, -kDebtBuckets * capacity_, capacity_);
  }

 private:
  double level(SteadyTime now) const {
    const double minutes = now > at_ ? Minutes(now - at_).count() : 0;
    return std::min(capacity_, level_ + minutes * per_minute_);
  }

  double per_minute_ = 0;  // 0: no limit
  double capacity_ = 0;
  double level_ = 0;  // at at_; negative: owed
  SteadyTime at_{};
};

/// What the service said remains, less what has begun since.
class Allowance {
 public:
  SteadyTime ready(SteadyTime from, double amount) const {
    if (from >= until_) return from;
    const double wanted = limit_ > 0 ? std::min(amount, limit_) : amount;
    return left_ + kRounding >= wanted ? from : until_;
  }
  void take(SteadyTime when, double amount) {
    if (when >= until_) {
      if (limit_ == 0) return;
      // Reset, to be used up again: the service's next answer will tell by when.
      left_ = limit_;
      until_ = when + span_;
    }
    left_ -= amount;
  }
  /// An answer does not count what was sent after its own request: more than we believe is no news.
  void told(double remaining, double limit, nanoseconds reset, SteadyTime now) {
    if (limit > 0) limit_ = limit;
    if (now < until_ && remaining > left_) return;
    left_ = std::max(0.0, remaining);
    span_ = reset;
    until_ = now + reset;
  }

 private:
  double left_ = 0;
  double limit_ = 0;  // 0: not told
  nanoseconds span_{0};
  SteadyTime until_ = SteadyTime::min();
};

/// Where answers say what remains. One request takes one of it, or as many tokens as it has.
struct Statement {
  const char* limit;
  const char* remaining;
  const char* reset;
  bool of_tokens = false;
};
constexpr Statement kStatements[] = {
    {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"},
    {"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"},
    {"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", true},
    {"anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining",
     "anthropic-ratelimit-requests-reset"},
    {"anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining",
     "anthropic-ratelimit-tokens-reset", true},
    // How a request's tokens divide is not known before: it needs one of each.
    {"anthropic-ratelimit-input-tokens-limit", "anthropic-ratelimit-input-tokens-remaining",
     "anthropic-ratelimit-input-tokens-reset"},
    {"anthropic-ratelimit-output-tokens-limit", "anthropic-ratelimit-output-tokens-remaining",
     "anthropic-ratelimit-output-tokens-reset"},
};

/// When the next request of a key may begin. A value: a copy tells what would be.
struct Pace {
  Bucket requests;
  Bucket tokens;
  std::array<Allowance, std::size(kStatements)> told;
  nanoseconds min_interval{0};
  SteadyTime next_begin = SteadyTime::min();
  SteadyTime paused_until = SteadyTime::min();
  int refusals = 0;  // 429s without a hint, one after the other

  void allow(const RateLimits& limits, SteadyTime now) {
    requests.allow(limits.requests_per_minute, now);
    tokens.allow(limits.tokens_per_minute, now);
    min_interval = std::clamp<nanoseconds>(limits.min_interval, 0ns, kWaitMax);
  }
  SteadyTime ready(SteadyTime from, double amount) const {
    from = std::max({from, next_begin, paused_until});
    from = requests.ready(from, 1);
    from = tokens.ready(from, amount);
    for (std::size_t i = 0; i < told.size(); ++i) {
      from = told[i].ready(from, kStatements[i].of_tokens ? amount : 1);
    }
    return from;
  }
  void take(SteadyTime when, double amount) {
    next_begin = when + min_interval;
    requests.take(when, 1);
    tokens.take(when, amount);
    for (std::size_t i = 0; i < told.size(); ++i) {
      told[i].take(when, kStatements[i].of_tokens ? amount : 1);
    }
  }
};

std::optional<double> read_count(const net::Headers& headers, const char* name) {
  const auto text = headers.get(name);
  return text ? parse_double(trim(*text)) : std::nullopt;
}

ErrorInfo ended(CallEnd end) {
  ErrorInfo info;
  info.service = "llm";
  info.end = end;
  return info;
}

}  // namespace

std::string rate_key(const std::string& origin, std::string_view api_key, std::string_view model) {
  constexpr std::size_t kDigits = 16;  // tell keys apart
  return origin + " " + sha256_hex(api_key).substr(0, kDigits) + " " + std::string(model);
}

/// The queue of one key. Whoever is first sleeps until its turn; the others until they are first.
struct RateGovernor::Lane {
  struct Ticket {
    double tokens = 0;
    SteadyTime deadline;
    std::stop_source wake;  // of the sleep under way
  };
  using Tickets = std::list<Ticket>;
  /// A place at the end of the queue, left at the end of its scope. Both with the lock held.
  struct InQueue {
    InQueue(Lane& in, double tokens, SteadyTime deadline)
        : lane(in), ticket(in.waiting.insert(in.waiting.end(), Ticket{tokens, deadline, {}})) {}
    ~InQueue() {
      lane.waiting.erase(ticket);
      lane.wake_first();
    }
    InQueue(const InQueue&) = delete;
    InQueue& operator=(const InQueue&) = delete;

    Lane& lane;
    const Tickets::iterator ticket;
  };

  std::mutex mutex;
  Pace pace;
  Tickets waiting;
  std::uint64_t used = 0;  // guarded by the governor's mutex

  SteadyTime turn_of(Tickets::const_iterator ticket, SteadyTime now) const;
  void wake_first() {
    if (!waiting.empty()) waiting.front().wake.request_stop();
  }
  void wake_late(SteadyTime now);
  void sleep(std::unique_lock<std::mutex>& lock, const Clock& clock, Ticket& ticket,
             SteadyTime until, const std::stop_token& stop);
  void listen(const net::Headers& headers, SteadyTime now, SystemTime time);
  void refused(int status, const net::Headers& headers, SteadyTime now, SystemTime time);
};

/// When all before it have begun as early as they may.
SteadyTime RateGovernor::Lane::turn_of(Tickets::const_iterator ticket, SteadyTime now) const {
  Pace then = pace;
  for (auto before = waiting.begin(); before != ticket; ++before) {
    now = then.ready(now, before->tokens);
    then.take(now, before->tokens);
  }
  return then.ready(now, ticket->tokens);
}

/// Whose turn now comes after its deadline is told so at once.
void RateGovernor::Lane::wake_late(SteadyTime now) {
  Pace then = pace;
  for (Ticket& ticket : waiting) {
    now = then.ready(now, ticket.tokens);
    if (now >= ticket.deadline) {
      ticket.wake.request_stop();
    } else {
      then.take(now, ticket.tokens);
    }
  }
}

void RateGovernor::Lane::sleep(std::unique_lock<std::mutex>& lock, const Clock& clock,
                               Ticket& ticket, SteadyTime until, const std::stop_token& stop) {
  std::stop_source wake;
  ticket.wake = wake;
  lock.unlock();
  {
    const std::stop_callback cancelled(stop, [&wake] { wake.request_stop(); });
    clock.sleep_until(until, wake.get_token());
  }
  lock.lock();
}

void RateGovernor::Lane::listen(const net::Headers& headers, SteadyTime now, SystemTime time) {
  for (std::size_t i = 0; i < pace.told.size(); ++i) {
    const auto remaining = read_count(headers, kStatements[i].remaining);
    const auto reset = headers.get(kStatements[i].reset);
    const auto delay = remaining && reset ? net::read_reset(*reset, time) : std::nullopt;
    if (!delay) continue;
    const double limit = read_count(headers, kStatements[i].limit).value_or(0);
    pace.told[i].told(*remaining, limit, *delay, now);
  }
}

void RateGovernor::Lane::refused(int status, const net::Headers& headers, SteadyTime now,
                                 SystemTime time) {
  if (status < 400) pace.refusals = 0;
  if (status != 429 && status != 503 && status != 529) return;
  if (const auto hint = net::read_retry_hint(headers, time).delay) {
    pace.paused_until = std::max(pace.paused_until, now + *hint);
  } else if (status == 429 && now >= pace.paused_until) {
    // Those that were under way together are refused together: one refusal, not many.
    pace.paused_until = now + std::min<nanoseconds>(kPause * (1 << pace.refusals), kPauseMax);
    pace.refusals = std::min(pace.refusals + 1, kPauseDoublings);
  }
}

void RateGovernor::Permit::settle(std::int64_t actual_tokens) {
  if (!lane_) return;
  const auto lane = std::exchange(lane_, nullptr);
  const std::lock_guard lock(lane->mutex);
  lane->pace.tokens.give_back(static_cast<double>(tokens_) -
                              static_cast<double>(std::max<std::int64_t>(actual_tokens, 0)));
  lane->wake_first();
}

RateGovernor::RateGovernor(const Clock& clock) : clock_(clock) {}
RateGovernor::~RateGovernor() = default;

/// Made at first use. Beyond kLanes the one is forgotten that nobody has used for longest.
std::shared_ptr<RateGovernor::Lane> RateGovernor::lane_of(const std::string& key) {
  const std::lock_guard lock(mutex_);
  auto found = lanes_.find(key);
  if (found == lanes_.end()) {
    if (lanes_.size() >= kLanes) {
      auto oldest = lanes_.end();
      for (auto lane = lanes_.begin(); lane != lanes_.end(); ++lane) {
        const bool idle = lane->second.use_count() == 1;  // no waiter, no permit
        if (idle && (oldest == lanes_.end() || lane->second->used < oldest->second->used))
          oldest = lane;
      }
      if (oldest == lanes_.end()) {
        throw ResourceLimitError("too many API keys and models are in use at once", ended({}));
      }
      lanes_.erase(oldest);
    }
    found = lanes_.emplace(key, std::make_shared<Lane>()).first;
  }
  found->second->used = ++uses_;
  return found->second;
}

RateGovernor::Permit RateGovernor::acquire(const std::string& key, const RateLimits& limits,
                                           std::int64_t tokens, const CallContext& context) {
  tokens = std::max<std::int64_t>(tokens, 0);
  const std::shared_ptr<Lane> lane = lane_of(key);
  std::unique_lock lock(lane->mutex);
  if (context.expired(clock_)) {
    throw TimeoutError("the deadline has passed", ended(CallEnd::kDeadline));
  }
  lane->pace.allow(limits, clock_.steady_now());
  const Lane::InQueue place(*lane, static_cast<double>(tokens), context.deadline);
  for (;;) {
    if (context.cancelled()) throw TimeoutError("cancelled", ended(CallEnd::kCancelled));
    const SteadyTime now = clock_.steady_now();
    const SteadyTime turn = lane->turn_of(place.ticket, now);
    const bool first = place.ticket == lane->waiting.begin();
    if (first && turn <= now) {
      lane->pace.take(now, place.ticket->tokens);
      return Permit(lane, tokens);
    }
    const bool late = turn >= context.deadline;
    if (late || lane->waiting.size() > kWaiters) {
      ErrorInfo info = ended(late ? CallEnd::kDeadline : CallEnd::kExhausted);
      info.retry_at =
          clock_.system_now() + std::chrono::duration_cast<SystemTime::duration>(turn - now);
      throw RateLimited(late ? "the rate limit allows no further request before the deadline"
                             : "too many requests wait for the rate limit",
                        std::move(info));
    }
    lane->sleep(lock, clock_, *place.ticket,
                first ? turn : std::min(context.deadline, now + kLookAgain), context.stop);
  }
}

void RateGovernor::learn(const std::string& key, int status, const net::Headers& headers) {
  const std::shared_ptr<Lane> lane = lane_of(key);
  const SystemTime time = clock_.system_now();
  const std::lock_guard lock(lane->mutex);
  const SteadyTime now = clock_.steady_now();
  // What a refusal asks for itself goes before what it counts.
  const bool asks = status >= 400 && (headers.get("retry-after") || headers.get("retry-after-ms"));
  if (!asks) lane->listen(headers, now, time);
  lane->refused(status, headers, now, time);
  lane->wake_late(now);
}

std::size_t RateGovernor::waiting(const std::string& key) const {
  std::shared_ptr<Lane> lane;
  {
    const std::lock_guard lock(mutex_);
    const auto found = lanes_.find(key);
    if (found == lanes_.end()) return 0;
    lane = found->second;
  }
  const std::lock_guard lock(lane->mutex);
  return lane->waiting.size();
}

}  // namespace necrocode::llm
