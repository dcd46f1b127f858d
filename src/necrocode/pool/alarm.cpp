#include "necrocode/pool/alarm.hpp"

#include <algorithm>
#include <utility>

namespace necrocode::pool {

using namespace std::chrono_literals;

Alarm::Alarm(const Clock& clock, std::function<void()> ring)
    : clock_(clock),
      ring_(std::move(ring)),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

Alarm::~Alarm() {
  thread_.request_stop();
  set(SteadyTime::min());
}

void Alarm::set(SteadyTime when) {
  const std::lock_guard lock(mutex_);
  if (when == when_) return;
  when_ = when;
  changed_.request_stop();
}

void Alarm::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    SteadyTime when;
    std::stop_token changed;
    {
      const std::lock_guard lock(mutex_);
      changed_ = std::stop_source();
      changed = changed_.get_token();
      when = when_;
    }
    if (!clock_.sleep_until(std::min(when, clock_.steady_now() + 24h), changed)) continue;
    {
      const std::lock_guard lock(mutex_);
      if (when_ != when || clock_.steady_now() < when) continue;
      when_ = SteadyTime::max();
    }
    if (!stop.stop_requested()) ring_();
  }
}

}  // namespace necrocode::pool
