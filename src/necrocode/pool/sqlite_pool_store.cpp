#include "necrocode/pool/sqlite_pool_store.hpp"

#include "necrocode/base/time_format.hpp"
#include "necrocode/db/sqlite.hpp"

namespace necrocode::pool {
namespace {

constexpr std::string_view kSchema = R"(
CREATE TABLE pools (
  name TEXT PRIMARY KEY,
  repo_url TEXT NOT NULL,
  base_branch TEXT NOT NULL,
  num_slots INTEGER NOT NULL,
  max_slots INTEGER NOT NULL,
  auto_created INTEGER NOT NULL,
  created_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE slots (
  pool TEXT NOT NULL REFERENCES pools(name) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  quarantine_reason TEXT NOT NULL,
  allocations INTEGER NOT NULL,
  use_ms INTEGER NOT NULL,
  PRIMARY KEY (pool, number)
) STRICT, WITHOUT ROWID;
-- Outlives its pool: a slot id is never given out twice.
CREATE TABLE generations (
  pool TEXT NOT NULL,
  number INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  PRIMARY KEY (pool, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE leases (
  slot_id TEXT PRIMARY KEY,
  pool TEXT NOT NULL,
  number INTEGER NOT NULL,
  token TEXT NOT NULL,
  required_by TEXT NOT NULL,
  commit_id TEXT NOT NULL,
  branch TEXT NOT NULL,
  idempotency_key TEXT,
  request_digest TEXT NOT NULL,
  lease_seconds INTEGER NOT NULL,
  acquired_ms INTEGER NOT NULL,
  ended_ms INTEGER,
  end_reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_live_lease ON leases(pool, number) WHERE ended_ms IS NULL;
CREATE UNIQUE INDEX lease_by_key ON leases(idempotency_key) WHERE idempotency_key IS NOT NULL;
)";

constexpr std::string_view kLeaseColumns =
    "slot_id, pool, number, token, required_by, commit_id, branch, idempotency_key, request_digest,"
    " lease_seconds, acquired_ms, ended_ms, end_reason";

LeaseRecord read_lease(const db::Statement& row) {
  LeaseRecord lease;
  lease.slot_id = row.text(0);
  lease.pool = row.text(1);
  lease.number = static_cast<int>(row.integer(2));
  lease.token = row.text(3);
  lease.required_by = row.text(4);
  lease.commit = row.text(5);
  lease.branch = row.text(6);
  lease.idempotency_key = row.text(7);
  lease.request_digest = row.text(8);
  lease.lease_seconds = row.integer(9);
  lease.acquired_at = from_unix_ms(row.integer(10));
  if (const auto ended = row.optional_integer(11)) lease.ended_at = from_unix_ms(*ended);
  lease.end_reason = row.text(12);
  return lease;
}

class SqlitePoolStore final : public PoolStore {
 public:
  explicit SqlitePoolStore(const std::filesystem::path& file) : database_(file) {
    database_.migrate({kSchema});
  }

  std::vector<PoolRecord> pools() override {
    std::vector<PoolRecord> found;
    auto& query = database_.prepare(
        "SELECT name, repo_url, base_branch, num_slots, max_slots, auto_created, created_ms FROM "
        "pools ORDER BY name");
    while (query.step()) {
      PoolRecord pool;
      pool.name = query.text(0);
      pool.repo_url = query.text(1);
      pool.base_branch = query.text(2);
      pool.num_slots = static_cast<int>(query.integer(3));
      pool.max_slots = static_cast<int>(query.integer(4));
      pool.auto_created = query.integer(5) != 0;
      pool.created_at = from_unix_ms(query.integer(6));
      found.push_back(std::move(pool));
    }
    return found;
  }

  void add_pool(const PoolRecord& pool) override {
    db::Transaction transaction(database_);
    database_
        .prepare(
            "INSERT INTO pools (name, repo_url, base_branch, num_slots, max_slots, auto_created, "
            "created_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(pool.name)
        .bind(pool.repo_url)
        .bind(pool.base_branch)
        .bind(pool.num_slots)
        .bind(pool.max_slots)
        .bind(pool.auto_created)
        .bind(to_unix_ms(pool.created_at))
        .run();
    transaction.commit();
  }

  void remove_pool(const std::string& name) override {
    db::Transaction transaction(database_);
    database_.prepare("DELETE FROM pools WHERE name = ?").bind(name).run();
    transaction.commit();
  }

  std::vector<SlotRecord> slots(const std::string& pool) override {
    std::vector<SlotRecord> found;
    auto& query = database_.prepare(
        "SELECT number, quarantine_reason, allocations, use_ms FROM slots WHERE pool = ? ORDER BY "
        "number");
    query.bind(pool);
    while (query.step()) {
      SlotRecord slot;
      slot.pool = pool;
      slot.number = static_cast<int>(query.integer(0));
      slot.quarantine_reason = query.text(1);
      slot.allocations = query.integer(2);
      slot.use_ms = query.integer(3);
      found.push_back(std::move(slot));
    }
    return found;
  }

  void put_slot(const SlotRecord& slot) override {
    db::Transaction transaction(database_);
    database_
        .prepare(
            "INSERT INTO slots (pool, number, quarantine_reason, allocations, use_ms) VALUES (?, "
            "?, ?, ?, ?)"
            " ON CONFLICT (pool, number) DO UPDATE SET quarantine_reason = "
            "excluded.quarantine_reason,"
            " allocations = excluded.allocations, use_ms = excluded.use_ms")
        .bind(slot.pool)
        .bind(slot.number)
        .bind(slot.quarantine_reason)
        .bind(slot.allocations)
        .bind(slot.use_ms)
        .run();
    transaction.commit();
  }

  void begin_lease(LeaseRecord& lease) override {
    db::Transaction transaction(database_);
    auto& next = database_.prepare(
        "INSERT INTO generations (pool, number, generation) VALUES (?, ?, 1)"
        " ON CONFLICT (pool, number) DO UPDATE SET generation = generation + 1 RETURNING "
        "generation");
    next.bind(lease.pool).bind(lease.number);
    next.step();
    const std::int64_t generation = next.integer(0);
    next.reset();
    lease.slot_id =
        lease.pool + "-" + std::to_string(lease.number) + "." + std::to_string(generation);
    std::optional<std::string> key;
    if (!lease.idempotency_key.empty()) key = lease.idempotency_key;
    database_
        .prepare(
            "INSERT INTO leases (slot_id, pool, number, token, required_by, commit_id, branch, "
            "idempotency_key,"
            " request_digest, lease_seconds, acquired_ms, ended_ms, end_reason)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, '')")
        .bind(lease.slot_id)
        .bind(lease.pool)
        .bind(lease.number)
        .bind(lease.token)
        .bind(lease.required_by)
        .bind(lease.commit)
        .bind(lease.branch)
        .bind(key)
        .bind(lease.request_digest)
        .bind(lease.lease_seconds)
        .bind(to_unix_ms(lease.acquired_at))
        .run();
    database_
        .prepare("UPDATE slots SET allocations = allocations + 1 WHERE pool = ? AND number = ?")
        .bind(lease.pool)
        .bind(lease.number)
        .run();
    transaction.commit();
  }

  void end_lease(const std::string& slot_id, const std::string& reason, SystemTime when,
                 bool forget_key) override {
    db::Transaction transaction(database_);
    database_
        .prepare(
            "UPDATE slots SET use_ms = use_ms + max(0, ?1 - (SELECT acquired_ms FROM leases WHERE "
            "slot_id = ?2))"
            " WHERE (pool, number) = (SELECT pool, number FROM leases WHERE slot_id = ?2 AND "
            "ended_ms IS NULL)")
        .bind(to_unix_ms(when))
        .bind(slot_id)
        .run();
    database_
        .prepare(
            "UPDATE leases SET ended_ms = ?, end_reason = ? WHERE slot_id = ? AND ended_ms IS NULL")
        .bind(to_unix_ms(when))
        .bind(reason)
        .bind(slot_id)
        .run();
    if (forget_key) {
      database_
          .prepare(
              "UPDATE slots SET allocations = allocations - 1 WHERE (pool, number) = "
              "(SELECT pool, number FROM leases WHERE slot_id = ?)")
          .bind(slot_id)
          .run();
      database_.prepare("UPDATE leases SET idempotency_key = NULL WHERE slot_id = ?")
          .bind(slot_id)
          .run();
    }
    transaction.commit();
  }

  void set_lease_seconds(const std::string& slot_id, std::int64_t seconds) override {
    database_.prepare("UPDATE leases SET lease_seconds = ? WHERE slot_id = ?")
        .bind(seconds)
        .bind(slot_id)
        .run();
  }

  std::vector<LeaseRecord> live_leases() override {
    std::vector<LeaseRecord> found;
    auto& query = database_.prepare("SELECT " + std::string(kLeaseColumns) +
                                    " FROM leases WHERE ended_ms IS NULL");
    while (query.step()) found.push_back(read_lease(query));
    return found;
  }

  std::optional<LeaseRecord> find_lease(const std::string& slot_id) override {
    return find("slot_id", slot_id);
  }
  std::optional<LeaseRecord> find_lease_by_key(const std::string& idempotency_key) override {
    return find("idempotency_key", idempotency_key);
  }

  void prune(SystemTime keys_before, SystemTime leases_before) override {
    db::Transaction transaction(database_);
    database_.prepare("UPDATE leases SET idempotency_key = NULL WHERE acquired_ms < ?")
        .bind(to_unix_ms(keys_before))
        .run();
    database_.prepare("DELETE FROM leases WHERE ended_ms < ?")
        .bind(to_unix_ms(leases_before))
        .run();
    transaction.commit();
  }

 private:
  std::optional<LeaseRecord> find(const std::string& column, const std::string& value) {
    auto& query = database_.prepare("SELECT " + std::string(kLeaseColumns) + " FROM leases WHERE " +
                                    column + " = ?");
    query.bind(value);
    std::optional<LeaseRecord> lease;
    if (query.step()) lease = read_lease(query);
    query.reset();
    return lease;
  }

  db::Database database_;
};

}  // namespace

std::unique_ptr<PoolStore> make_sqlite_pool_store(const std::filesystem::path& file) {
  return std::make_unique<SqlitePoolStore>(file);
}

}  // namespace necrocode::pool
