// SqliteAnswers: the kept_answers table. Private to the SQLite store; the rules of Idempotency-Key
// are net/idempotency.hpp's.
#pragma once

#include "necrocode/base/clock.hpp"
#include "necrocode/db/sqlite.hpp"
#include "necrocode/net/idempotency.hpp"

namespace necrocode::registry {

/// Within the transaction that `database` is in. What is kept removes what is too old.
class SqliteAnswers final : public net::IdempotencyStore {
 public:
  SqliteAnswers(db::Database& database, SystemTime now) : database_(database), now_(now) {}
  std::optional<net::KeptAnswer> find(const std::string& name) override;
  void keep(const std::string& name, const net::KeptAnswer& answer) override;
  void forget(const std::string& name) override;

 private:
  db::Database& database_;
  SystemTime now_;
};

}  // namespace necrocode::registry
