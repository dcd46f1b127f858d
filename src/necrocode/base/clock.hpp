// Time as a dependency. Code that waits or measures takes a Clock, so that tests own the time.
// Deadlines and leases use the steady clock; the system clock is only for showing and storing
// times.
#pragma once

#include <chrono>
#include <stop_token>

namespace necrocode {

using SteadyTime = std::chrono::steady_clock::time_point;
using SystemTime = std::chrono::system_clock::time_point;

/// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual SteadyTime steady_now() const = 0;
  virtual SystemTime system_now() const = 0;
  /// Waits until `until` or until a stop is requested. True when the time was reached, false when
  /// stopped before. A wake-up by `stop` takes well under 50 ms.
  virtual bool sleep_until(SteadyTime until, const std::stop_token& stop) const = 0;

  bool sleep_for(std::chrono::nanoseconds duration, const std::stop_token& stop) const {
    return sleep_until(steady_now() + duration, stop);
  }
};

/// The machine's clocks. Lives as long as the process.
const Clock& real_clock();

}  // namespace necrocode
