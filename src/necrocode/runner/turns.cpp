#include "necrocode/runner/turns.hpp"

#include "necrocode/base/errors.hpp"

namespace necrocode::runner {

Turns::Turn Turns::take(const CallContext& context) {
  if (most_ == 0) return Turn(nullptr);
  std::unique_lock lock(mutex_);
  const std::uint64_t mine = next_++;
  line_.insert(mine);
  const auto is_next = [&] { return taken_ < most_ && *line_.begin() == mine; };
  const bool got = context.deadline == SteadyTime::max()
                       ? changed_.wait(lock, context.stop, is_next)
                       : changed_.wait_until(lock, context.stop, context.deadline, is_next);
  line_.erase(mine);
  changed_.notify_all();  // the next in line looks again
  if (!got) {
    ErrorInfo info;
    info.operation = "wait for a turn";
    if (context.cancelled()) info.end = CallEnd::kCancelled;
    throw TimeoutError("as many are at work as may be, and the time is over", std::move(info));
  }
  ++taken_;
  return Turn(this);
}

int Turns::taken() const {
  const std::lock_guard lock(mutex_);
  return taken_;
}

int Turns::waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(line_.size());
}

void Turns::give_back() {
  const std::lock_guard lock(mutex_);
  --taken_;
  changed_.notify_all();
}

}  // namespace necrocode::runner
