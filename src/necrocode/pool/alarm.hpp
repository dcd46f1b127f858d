// One alarm on the clock seam: rings once at the time it was last set to. Thread-safe; it rings on
// a thread of its own. Who is woken, and for what, is not known here.
#pragma once

#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>

#include "necrocode/base/clock.hpp"

namespace necrocode::pool {

class Alarm {
 public:
  /// Not set. `ring` must not block; `clock` outlives this.
  Alarm(const Clock& clock, std::function<void()> ring);
  ~Alarm();  ///< waits for a `ring` under way
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  /// SteadyTime::max(): never.
  void set(SteadyTime when);

 private:
  void run(const std::stop_token& stop);

  const Clock& clock_;
  std::function<void()> ring_;
  std::mutex mutex_;
  SteadyTime when_ = SteadyTime::max();
  std::stop_source changed_;
  std::jthread thread_;
};

}  // namespace necrocode::pool
