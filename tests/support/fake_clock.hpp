// FakeClock: time that only moves when somebody sleeps on it, and remembers how long.
#pragma once

#include <mutex>
#include <vector>

#include "necrocode/base/clock.hpp"

namespace necrocode::test {

/// Thread-safe. Begins at the real steady time, so that its deadlines lie ahead for real code too.
class FakeClock final : public Clock {
 public:
  SteadyTime steady_now() const override {
    const std::lock_guard lock(mutex_);
    return now_;
  }
  SystemTime system_now() const override {
    const std::lock_guard lock(mutex_);
    return system_begin_ + std::chrono::duration_cast<SystemTime::duration>(now_ - begin_);
  }
  bool sleep_until(SteadyTime until, const std::stop_token& stop) const override {
    if (stop.stop_requested()) return false;
    const std::lock_guard lock(mutex_);
    sleeps_.push_back(std::max(until - now_, std::chrono::steady_clock::duration{0}));
    now_ = std::max(now_, until);
    return true;
  }
  void advance(std::chrono::nanoseconds duration) {
    const std::lock_guard lock(mutex_);
    now_ += duration;
  }
  /// How long each sleep was, in seconds.
  std::vector<double> sleeps() const {
    const std::lock_guard lock(mutex_);
    std::vector<double> seconds;
    for (const auto sleep : sleeps_)
      seconds.push_back(std::chrono::duration<double>(sleep).count());
    return seconds;
  }

 private:
  mutable std::mutex mutex_;
  const SteadyTime begin_ = std::chrono::steady_clock::now();
  // 2026-01-31T12:00:00Z
  const SystemTime system_begin_ = SystemTime(std::chrono::seconds(1'769'860'800));
  mutable SteadyTime now_ = begin_;
  mutable std::vector<std::chrono::steady_clock::duration> sleeps_;
};

}  // namespace necrocode::test
