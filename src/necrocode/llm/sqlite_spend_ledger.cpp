#include "necrocode/llm/sqlite_spend_ledger.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>

#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::llm {
namespace {

constexpr double kMicros = 1e6;      // of a dollar
constexpr double kDollarsMax = 1e9;  // of one figure: sums of them stay exact
constexpr std::int64_t kDaysKept = 90;
constexpr std::int64_t kDayMs = 24 * 60 * 60 * 1000;

double sane(double usd) {
  if (std::isnan(usd)) return kDollarsMax;
  return std::clamp(usd, 0.0, kDollarsMax);
}
// Up, but not for what only a double's last digits hold.
std::int64_t cost_micros(double usd) {
  return static_cast<std::int64_t>(std::ceil(sane(usd) * kMicros - 1e-6));
}
std::int64_t cap_micros(double usd) {
  return static_cast<std::int64_t>(std::floor(sane(usd) * kMicros + 1e-6));
}
double to_usd(std::int64_t micros) {
  return static_cast<double>(micros) / kMicros;
}
std::string dollars(std::int64_t micros) {
  char text[64];
  std::snprintf(text, sizeof text, "$%.4f", to_usd(micros));
  return text;
}

std::string run_scope(const SpendAccount& account) {
  return "run/" + account.run;
}
std::string day_scope(std::int64_t day) {
  return "day/" + std::to_string(day);
}
std::string owner_scope(const SpendAccount& account, std::int64_t day) {
  return "owner/" + std::to_string(day) + "/" + account.owner;
}

[[noreturn]] void refuse(const std::string& whose, std::int64_t spent, std::int64_t cap,
                         std::int64_t asked) {
  ErrorInfo info;
  info.service = "llm";
  info.end = CallEnd::kPermanent;
  info.detail = dollars(spent) + " of " + dollars(cap) +
                " are spent or set aside, and this call may cost " + dollars(asked);
  throw SpendCapReached("the spend cap of " + whose + " leaves no room for the call",
                        std::move(info));
}

}  // namespace

SqliteSpendLedger::SqliteSpendLedger(std::shared_ptr<SharedState> state, const Clock& clock)
    : state_(std::move(state)), clock_(clock) {
  const std::lock_guard lock(state_->mutex);
  db::Transaction transaction(state_->database);
  for (const char* sql :
       {"DELETE FROM spent WHERE day < ?", "DELETE FROM reservations WHERE day < ?"}) {
    state_->database.prepare(sql).bind(today() - kDaysKept).run();
  }
  transaction.commit();
}

std::int64_t SqliteSpendLedger::today() const {
  return to_unix_ms(clock_.system_now()) / kDayMs;
}

std::int64_t SqliteSpendLedger::spent(const std::string& scope) {
  db::Statement& query = state_->database.prepare("SELECT micros FROM spent WHERE scope = ?");
  query.bind(scope);
  const std::int64_t micros = query.step() ? query.integer(0) : 0;
  query.reset();
  return micros;
}

void SqliteSpendLedger::add(const SpendAccount& account, std::int64_t day, std::int64_t micros) {
  for (const std::string& scope : {run_scope(account), owner_scope(account, day), day_scope(day)}) {
    state_->database
        .prepare(
            "INSERT INTO spent(scope, day, micros) VALUES(?, ?, ?) ON CONFLICT(scope) DO "
            "UPDATE SET micros = micros + excluded.micros, day = max(day, excluded.day)")
        .bind(scope)
        .bind(day)
        .bind(micros)
        .run();
  }
}

std::int64_t SqliteSpendLedger::reserve(const SpendAccount& account, const SpendCaps& caps,
                                        double usd) {
  const std::int64_t asked = cost_micros(usd);
  const std::lock_guard lock(state_->mutex);
  db::Transaction transaction(state_->database);
  const std::int64_t day = today();
  struct Cap {
    std::optional<double> usd;
    std::string scope;
    std::string whose;
  };
  const std::array<Cap, 3> all = {
      Cap{caps.run_usd, run_scope(account), "this run"},
      Cap{caps.owner_usd, owner_scope(account, day), "\"" + account.owner + "\" for today"},
      Cap{caps.daily_usd, day_scope(day), "this host for today"}};
  for (const Cap& cap : all) {
    if (!cap.usd) continue;
    const std::int64_t before = spent(cap.scope);
    const std::int64_t most = cap_micros(*cap.usd);
    if (before + asked > most) refuse(cap.whose, before, most, asked);
  }
  add(account, day, asked);
  state_->database.prepare("INSERT INTO reservations(run, owner, day, micros) VALUES(?, ?, ?, ?)")
      .bind(account.run)
      .bind(account.owner)
      .bind(day)
      .bind(asked)
      .run();
  const std::int64_t reservation = state_->database.last_insert_id();
  transaction.commit();
  return reservation;
}

void SqliteSpendLedger::settle(std::int64_t reservation, double usd) noexcept {
  try {
    const std::lock_guard lock(state_->mutex);
    db::Transaction transaction(state_->database);
    db::Statement& query =
        state_->database.prepare("SELECT run, owner, day, micros FROM reservations WHERE id = ?");
    if (!query.bind(reservation).step()) return query.reset();  // settled before
    const SpendAccount account{query.text(0), query.text(1)};
    const std::int64_t day = query.integer(2);
    const std::int64_t reserved = query.integer(3);
    query.reset();
    add(account, day, cost_micros(usd) - reserved);
    state_->database.prepare("DELETE FROM reservations WHERE id = ?").bind(reservation).run();
    transaction.commit();
  } catch (const std::exception& error) {
    log::error("a call's cost could not be written; the most it can be stays set aside",
               {{"error", error.what()}});
  }
}

SpendLedger::Totals SqliteSpendLedger::totals(const SpendAccount& account) {
  const std::lock_guard lock(state_->mutex);
  const std::int64_t day = today();
  return {to_usd(spent(run_scope(account))), to_usd(spent(owner_scope(account, day))),
          to_usd(spent(day_scope(day)))};
}

}  // namespace necrocode::llm
