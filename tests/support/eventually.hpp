// A wait for what shows itself only by being looked at.
#pragma once

#include <poll.h>

#include <chrono>

namespace necrocode::test {

/// Asks again every 20 ms until it holds, for at most `limit`.
template <class Condition>
bool eventually(Condition condition, std::chrono::milliseconds limit = std::chrono::seconds{10}) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= until) return false;
    ::poll(nullptr, 0, 20);
  }
  return true;
}

}  // namespace necrocode::test
