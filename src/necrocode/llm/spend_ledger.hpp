// SpendLedger: what is spent under caps that several runs share, in one process or in many. A call
// is reserved for the worst it can cost before it is made, and settled with what it did cost; what
// is never settled (its process was killed) stays reserved, since it may have been billed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "necrocode/llm/spending.hpp"

namespace necrocode::llm {

/// Caps in US dollars; nothing: no cap. A day is one of UTC.
struct SpendCaps {
  std::optional<double> run_usd;    ///< of one run, whenever
  std::optional<double> owner_usd;  ///< of all runs of one owner, a day
  std::optional<double> daily_usd;  ///< of all runs of this host, a day
};

/// Who spends.
struct SpendAccount {
  std::string run;    ///< its id, for the run's own cap
  std::string owner;  ///< a user, a team, a spec; may be empty
};

/// Thread-safe, and safe across processes where the implementation says so.
class SpendLedger {
 public:
  virtual ~SpendLedger() = default;
  /// Sets `usd` aside under all caps together, or under none of them. Throws SpendCapReached, which
  /// says which cap, what is spent and set aside under it, and what was asked for; StorageError
  /// when the ledger cannot be read or written: then nothing may be spent.
  virtual std::int64_t reserve(const SpendAccount& account, const SpendCaps& caps, double usd) = 0;
  /// What the call did cost, once; also 0. The day is that of the reservation. What cannot be
  /// written stays reserved, and is logged.
  virtual void settle(std::int64_t reservation, double usd) noexcept = 0;
  /// Spent and set aside today by all, and by this account's owner; of this account's run, ever.
  struct Totals {
    double run_usd = 0, owner_usd = 0, daily_usd = 0;
  };
  virtual Totals totals(const SpendAccount& account) = 0;
};

}  // namespace necrocode::llm
