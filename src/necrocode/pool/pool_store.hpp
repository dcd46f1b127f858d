// What the Repo Pool Manager must remember over a restart: pools, slots' generations and
// statistics, leases. No folders, no git, no waiting here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/clock.hpp"

namespace necrocode::pool {

struct PoolRecord {
  std::string name;
  std::string repo_url;
  std::string base_branch;
  int num_slots = 2;
  int max_slots = 8;
  bool auto_created = false;
  SystemTime created_at;
};

struct SlotRecord {
  std::string pool;
  int number = 0;
  std::string quarantine_reason;  ///< empty: not quarantined
  std::int64_t allocations = 0;
  std::int64_t use_ms = 0;  ///< of ended leases, together
};

struct LeaseRecord {
  std::string slot_id;  ///< {pool}-{number}.{generation}
  std::string pool;
  int number = 0;
  std::string token;
  std::string required_by;
  std::string commit;
  std::string branch;
  std::string idempotency_key;
  std::string request_digest;  ///< of the request that the key came with
  std::int64_t lease_seconds = 0;
  SystemTime acquired_at;
  std::optional<SystemTime> ended_at;
  std::string end_reason;  ///< released, expired, undelivered, lost
};

/// Each call is one durable transaction: it returns after the sync, or throws and nothing is
/// changed. One owner at a time.
class PoolStore {
 public:
  virtual ~PoolStore() = default;
  virtual std::vector<PoolRecord> pools() = 0;
  virtual void add_pool(const PoolRecord& pool) = 0;
  /// Its slots too. Generations stay, so that a pool of the same name never repeats a slot id.
  virtual void remove_pool(const std::string& name) = 0;

  virtual std::vector<SlotRecord> slots(const std::string& pool) = 0;
  /// Adds or replaces.
  virtual void put_slot(const SlotRecord& slot) = 0;

  /// Takes the slot's next generation, fills in `lease.slot_id` and counts the allocation.
  virtual void begin_lease(LeaseRecord& lease) = 0;
  /// Also adds the time of use to the slot. `forget_key`: the holder never learned of it,
  /// so that it was no allocation.
  virtual void end_lease(const std::string& slot_id, const std::string& reason, SystemTime when,
                         bool forget_key) = 0;
  virtual void set_lease_seconds(const std::string& slot_id, std::int64_t seconds) = 0;
  virtual std::vector<LeaseRecord> live_leases() = 0;
  virtual std::optional<LeaseRecord> find_lease(const std::string& slot_id) = 0;
  virtual std::optional<LeaseRecord> find_lease_by_key(const std::string& idempotency_key) = 0;
  /// Forgets keys older than `keys_before` and ended leases older than `leases_before`.
  virtual void prune(SystemTime keys_before, SystemTime leases_before) = 0;
};

}  // namespace necrocode::pool
