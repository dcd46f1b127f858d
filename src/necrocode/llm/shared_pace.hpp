// SharedPace: what the processes of a host tell each other about a model service: until when it
// wants to be left alone, whose turn it is, and whether it answers at all. Counts and times only;
// who waits, and what becomes of a call meanwhile, is the caller's.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "necrocode/base/clock.hpp"
#include "necrocode/llm/rate_governor.hpp"
#include "necrocode/llm/shared_state.hpp"

namespace necrocode::llm {

/// Thread-safe, and safe across processes. Throws StorageError.
class SharedPace {
 public:
  explicit SharedPace(std::shared_ptr<SharedState> state, const Clock& clock = real_clock());

  /// Whether a request may be sent now.
  struct Turn {
    std::chrono::nanoseconds wait{0};  ///< above 0: it may not, until then
    bool broken = false;               ///< because the service's breaker is open
    // What tell() must know again.
    bool probe = false;
    bool had_failures = false;
  };
  /// `key`: rate_key(); `origin`: of its service. Limits of N a minute are those of RateGovernor:
  /// N at once, then evenly. The breaker is net::CircuitBreaker's.
  Turn ask(const std::string& key, const std::string& origin, const RateLimits& limits,
           std::int64_t tokens);
  /// How the service took it.
  enum class News {
    kAnswered,
    kBroken,  ///< no answer, or one that says that the service is broken
    kNone,    ///< neither can be said: the client went first
  };
  void tell(const std::string& origin, const Turn& turn, News news);
  /// Nobody asks under `key` before that, or for ten minutes if that is less.
  void hold(const std::string& key, std::chrono::milliseconds time);
  /// A request that was taken for `estimated` tokens took `actual` ones.
  void settle(const std::string& key, const RateLimits& limits, std::int64_t estimated,
              std::int64_t actual);

 private:
  std::int64_t now() const;
  Turn ask_breaker(const std::string& origin, std::int64_t now);

  const std::shared_ptr<SharedState> state_;
  const Clock& clock_;
};

}  // namespace necrocode::llm
