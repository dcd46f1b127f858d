// What the pool manager knows: pools, their slots, the leases on them, those who wait; and the
// rules about them that need nothing else. No threads, no git, no disk, no database, no clock here:
// the time is an argument.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/pool/pool_manager.hpp"
#include "necrocode/pool/pool_store.hpp"
#include "necrocode/pool/slot.hpp"
#include "necrocode/pool/store_git.hpp"

namespace necrocode::pool {

enum class SlotState { kPreparing, kReady, kLeased, kQuarantined };
std::string_view to_string(SlotState state);

struct SlotEntry {
  SlotRecord record;
  std::shared_ptr<Slot> disk;  ///< used by one job, or by the manager, at a time: state says which
  SlotState state = SlotState::kPreparing;
  std::optional<CleanProof> proof;
  std::optional<LeaseRecord> lease;
  SteadyTime lease_end;
  bool reserved = false;        ///< being prepared for a waiter
  std::uint64_t last_used = 0;  ///< for "most recently used first"
  std::optional<SteadyTime> recreate_failed_at;
};

struct Waiter {
  AllocateRequest request;
  std::vector<std::pair<PoolManager::Ticket, Deliver<Allocation>>>
      delivers;                  ///< one, or one a repeated key
  std::optional<Target> target;  ///< of a `ref`, once resolved
  bool busy = false;             ///< its ref is being resolved, or a slot is being prepared for it
  bool fresh = false;            ///< the remote was looked at on its behalf
};
using SharedWaiter = std::shared_ptr<Waiter>;

struct Pool {
  PoolRecord record;
  std::filesystem::path folder;
  std::map<int, SlotEntry> slots;
  std::list<SharedWaiter> waiters;
  std::string base_commit;  ///< empty until the store was looked at
  std::optional<SteadyTime> fetched_at;
  bool persisted = false;
  bool removing = false;
  bool fetch_queued = false;
  bool fetch_when_open = false;
  bool store_busy = false;  ///< one fetcher at a time
  std::deque<std::function<void()>> store_jobs;
  int jobs = 0;
  std::stop_source stop;
  std::vector<Deliver<Json>> on_created, on_idle, on_removed;
};
using SharedPool = std::shared_ptr<Pool>;

// ---- rules about one pool

std::string slot_name(const SlotEntry& slot);
bool is_at(const SlotEntry& slot, const Target& target);
Target base_of(const Pool& pool);
/// Where the waiter's slot is to stand.
Target wanted(const Pool& pool, const Waiter& waiter);
/// It asks for a ref of its own that is not resolved yet.
bool must_resolve(const Pool& pool, const Waiter& waiter);
/// Whether the remote was looked at lately enough for the waiter.
bool is_fresh(const Pool& pool, const Waiter& waiter, SteadyTime now,
              std::chrono::milliseconds fresh_for);
/// A ready slot: one that is where it should be, the most recently used of them.
SlotEntry* choose(Pool& pool, const Target& target);
/// A quarantined slot that may be tried again; null when there is none.
SlotEntry* to_recreate(Pool& pool, SteadyTime now);
/// Slots that are being prepared for nobody yet.
int coming(const Pool& pool);
/// Every slot is quarantined.
bool hopeless(const Pool& pool);
/// Somebody waits for it to be made.
bool is_awaited(const Pool& pool);
/// The pool has all that `record` asks for.
bool agrees(const Pool& pool, const PoolRecord& record);

/// Each is told once.
template <class T>
void tell(std::vector<Deliver<Json>>& delivers, const T& answer) {
  for (const Deliver<Json>& deliver : std::exchange(delivers, {})) deliver(answer);
}

// ---- all of them

/// A slot in its pool; both null when there is none.
struct Place {
  SharedPool pool;
  SlotEntry* slot = nullptr;
};

/// Not thread-safe: the manager's thread owns it.
class Pools {
 public:
  void add(const SharedPool& pool);
  void remove(const Pool& pool);
  bool contains(const std::string& name) const { return by_name_.contains(name); }
  /// Null when there is none. The first takes pools that are being made or removed too.
  SharedPool find(const std::string& name) const;
  SharedPool find_for(const std::string& repo_url) const;  ///< not one that is being removed
  /// Throws NotFound for a pool that is not there, not there yet, or going.
  SharedPool known(const std::string& name) const;
  std::vector<SharedPool> all() const;  ///< by name

  Place leased(const std::string& slot_id) const;
  /// By the id of its lease or by its own name.
  Place slot(const std::string& slot_id_or_name) const;
  /// SteadyTime::max() when no slot is leased.
  SteadyTime next_lease_end() const;

  // Waiters, each pool's in order of arrival.

  /// Throws Unavailable when too many wait.
  SharedWaiter enqueue(Pool& pool, AllocateRequest request, PoolManager::Ticket ticket,
                       const Deliver<Allocation>& deliver);
  void abandon(PoolManager::Ticket ticket);
  /// Who waits with this key; null for nobody.
  SharedWaiter waiting_with(const std::string& idempotency_key) const;
  /// The waiter leaves the queue with this answer. False when nobody took it.
  bool drop(Pool& pool, const SharedWaiter& waiter, const Allocation& answer);
  void drop(Pool& pool, const SharedWaiter& waiter, const std::exception_ptr& error);
  void fail_waiters(Pool& pool, const std::exception_ptr& error);

 private:
  template <class T>
  bool give(Pool& pool, const SharedWaiter& waiter, const T& answer);

  std::map<std::string, SharedPool> by_name_;
  std::size_t waiting_ = 0;
};

}  // namespace necrocode::pool
