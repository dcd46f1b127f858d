// HostGuard: what one process knows of a host's health, shared by all calls to it: how many retries
// it may still be asked for (RetryBudget) and whether it is asked at all (CircuitBreaker). Only
// counts and times; who waits, and for how long, is the retry loop's.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/limits.hpp"

namespace necrocode::net {

/// A token bucket: a call puts limits::kRetryBudgetPerCall in and time
/// limits::kRetryBudgetPerSecond, up to limits::kRetryBudgetTokens; a retry takes one out. While a
/// host is down its calls are multiplied by at most 1 + kRetryBudgetPerCall, beyond what the bucket
/// held and time brings. Thread-safe.
class RetryBudget {
 public:
  void deposit(SteadyTime now);   ///< a call begins
  bool withdraw(SteadyTime now);  ///< false: no retry may be made
  double tokens(SteadyTime now) const;

 private:
  void refill(SteadyTime now) const;
  mutable std::mutex mutex_;
  mutable double tokens_ = limits::kRetryBudgetTokens;
  mutable SteadyTime filled_at_{};
};

enum class BreakerState { kClosed, kOpen, kHalfOpen };
std::string_view to_string(BreakerState state);

/// Opens when limits::kBreakerFailures attempts in a row failed over at least limits::kBreakerSpan;
/// is then open for limits::kBreakerOpenMin, twice as long each further time, up to
/// limits::kBreakerOpenMax; then half-open, where one attempt is let through as a probe, which
/// closes or opens it. Thread-safe.
class CircuitBreaker {
 public:
  /// Leave to ask the host once, and the duty to tell how it went. Ended without a word (cancelled,
  /// aborted) it is no news of the host. Must not outlive the breaker.
  class Attempt {
   public:
    Attempt(Attempt&& other) noexcept
        : breaker_(std::exchange(other.breaker_, nullptr)), probe_(other.probe_) {}
    Attempt& operator=(Attempt&&) = delete;
    ~Attempt();
    void succeeded();             ///< the host answered
    void failed(SteadyTime now);  ///< no answer, or one that says the host is broken

   private:
    friend class CircuitBreaker;
    Attempt(CircuitBreaker* breaker, std::uint64_t probe) : breaker_(breaker), probe_(probe) {}
    CircuitBreaker* breaker_;
    std::uint64_t probe_;  // its number; 0: it is none
  };
  struct Admission {
    std::optional<Attempt> attempt;
    std::chrono::nanoseconds wait{0};  ///< without an attempt: until it is worth asking again
  };
  Admission admit(SteadyTime now);

  BreakerState state(SteadyTime now) const;
  std::uint64_t times_opened() const;

 private:
  void succeeded();
  void failed(SteadyTime now, std::uint64_t probe);
  void abandon(std::uint64_t probe);

  mutable std::mutex mutex_;
  std::size_t failures_ = 0;  // in a row
  SteadyTime first_failure_{};
  bool open_ = false;  // or half-open, from open_until_ on
  SteadyTime open_until_{};
  std::chrono::nanoseconds open_for_ = limits::kBreakerOpenMin;  // the next time
  std::uint64_t probes_ = 0;                                     // so far
  std::uint64_t probing_ = 0;  // the one that decides; 0: none is under way
  std::uint64_t times_opened_ = 0;
};

struct HostGuard {
  RetryBudget budget;
  CircuitBreaker breaker;
};

/// The guards of the hosts that a client talks to, by origin (scheme://host:port). Thread-safe.
class HostGuards {
 public:
  /// The guard of the URL's origin, made at first use. What cannot be parsed has one of its own.
  /// Beyond limits::kHostGuards origins the oldest made is forgotten.
  std::shared_ptr<HostGuard> of(std::string_view url);

  struct Entry {
    std::string origin;
    std::shared_ptr<HostGuard> guard;
  };
  std::vector<Entry> all() const;  ///< by origin

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<HostGuard>, std::less<>> guards_;
  std::vector<std::string> by_age_;
};

}  // namespace necrocode::net
