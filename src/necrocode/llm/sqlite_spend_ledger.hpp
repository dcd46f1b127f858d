// SqliteSpendLedger: the spend ledger of a host, in the state that its proxies share.
#pragma once

#include <memory>

#include "necrocode/base/clock.hpp"
#include "necrocode/llm/shared_state.hpp"
#include "necrocode/llm/spend_ledger.hpp"

namespace necrocode::llm {

/// Counts in millionths of a dollar, rounded up. Safe across processes: each reservation is one
/// transaction. What is older than 90 days is forgotten.
class SqliteSpendLedger final : public SpendLedger {
 public:
  explicit SqliteSpendLedger(std::shared_ptr<SharedState> state, const Clock& clock = real_clock());
  std::int64_t reserve(const SpendAccount& account, const SpendCaps& caps, double usd) override;
  void settle(std::int64_t reservation, double usd) noexcept override;
  Totals totals(const SpendAccount& account) override;

 private:
  std::int64_t today() const;
  std::int64_t spent(const std::string& scope);
  void add(const SpendAccount& account, std::int64_t day, std::int64_t micros);

  const std::shared_ptr<SharedState> state_;
  const Clock& clock_;
};

}  // namespace necrocode::llm
