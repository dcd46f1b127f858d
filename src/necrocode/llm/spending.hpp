// Spending: what one run has spent on model calls, and whether it may go on.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>

#include "necrocode/base/errors.hpp"
#include "necrocode/llm/model.hpp"

namespace necrocode::llm {

/// Of one run.
struct SpendingLimits {
  std::optional<double> usd;  ///< US dollars; nothing: no cap; 0: no call at all
  std::int64_t tokens = 0;    ///< prompt and completion together; 0: no cap
};

/// The run's own cap is reached: no call was made, and none will be. Its end is kPermanent.
class SpendCapReached : public RateLimited {
 public:
  using RateLimited::RateLimited;
};

/// Thread-safe; one for all calls of a run. It stops before the next call, so the last one may pass
/// the cap by what it took itself.
class Spending {
 public:
  /// Throws ConfigError for a limit below 0 or not finite.
  explicit Spending(SpendingLimits limits = {});
  /// Before each call. Throws SpendCapReached when the cap is reached; with a cap in dollars also
  /// when what was spent has no known price, since nobody knows then what is left.
  void require_left() const;
  /// After each answer, also one that cannot be used. Counts below 0 are 0, above 10^12 that; a
  /// cost that is negative or not finite is unknown.
  void add(const Usage& usage);
  Usage usage() const;  ///< the sum
  /// Of the cap in US dollars; nothing: there is none. Never negative.
  std::optional<double> usd_left() const;
  /// Calls of the model, whatever became of them.
  void count_calls(int calls);
  int calls() const;

 private:
  const SpendingLimits limits_;
  mutable std::mutex mutex_;
  Usage usage_;
  int calls_ = 0;
};

}  // namespace necrocode::llm
