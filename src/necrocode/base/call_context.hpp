// CallContext: what every blocking call takes: until when, stopped by whom, on whose behalf.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>
#include <stop_token>
#include <string>

#include "necrocode/base/clock.hpp"

namespace necrocode {

/// A value: copy it freely. The default has no deadline and cannot be cancelled.
struct CallContext {
  /// The call ends by then, retries and waits included. Monotonic.
  SteadyTime deadline = SteadyTime::max();
  /// Ends the call with a TimeoutError whose end is CallEnd::kCancelled.
  std::stop_token stop;
  /// Of this call alone, where the client's own settings do not suit it: the time of one attempt
  /// (of a streamed body the longest standstill), and how often it is tried again.
  std::optional<std::chrono::milliseconds> attempt_timeout;
  std::optional<int> retries;
  /// W3C `traceparent` of the span on whose behalf the call is made (trace_context.hpp), or empty.
  std::string traceparent;

  /// The same, ending no later than `timeout` from now.
  CallContext within(std::chrono::nanoseconds timeout, const Clock& clock = real_clock()) const {
    CallContext shortened = *this;
    const auto now = clock.steady_now();
    if (deadline - now > timeout) shortened.deadline = now + timeout;
    return shortened;
  }
  bool cancelled() const { return stop.stop_requested(); }
  bool expired(const Clock& clock = real_clock()) const { return clock.steady_now() >= deadline; }
  /// Never negative.
  std::chrono::nanoseconds remaining(const Clock& clock = real_clock()) const {
    if (deadline == SteadyTime::max()) return std::chrono::nanoseconds::max();
    return std::max(std::chrono::nanoseconds{0},
                    std::chrono::nanoseconds{deadline - clock.steady_now()});
  }
};

}  // namespace necrocode
