// What several callers did with the leases of tasks at the same time, and whether one after the
// other could have had the same answers: linearizability, by the search of Wing and Gong (1993),
// task by task, since tasks are independent objects (Herlihy and Wing 1990, locality).
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace necrocode::registry {

struct LeaseOperation {
  enum class Kind { kClaim, kComplete, kHandBack, kHeartbeat };
  enum class Outcome {
    kYes,      ///< claimed, done, handed back, alive
    kNo,       ///< nothing to claim, or refused: the lease is lost
    kUnknown,  ///< no answer: it may have happened, then or later, or not
  };
  using Time = std::chrono::steady_clock::time_point;

  Kind kind = Kind::kClaim;
  std::string task;
  std::string token;  ///< of the lease; of a claim the one that it got
  int attempt = 0;    ///< as a claim was told it
  Outcome outcome = Outcome::kYes;
  Time invoked;
  Time responded;  ///< not of kUnknown
};

/// Empty when each task's operations can be put in an order in which every answer is right for a
/// lease: at most one holder between a claim and its end, each claim one attempt more (a handed
/// back one does not count), no claim of a done task, nothing for a stale token but the last
/// holder's completion told again; and in which what ended before another began comes first. Else
/// what is known of the task that has none.
std::string lease_violation(const std::vector<LeaseOperation>& history);

}  // namespace necrocode::registry
