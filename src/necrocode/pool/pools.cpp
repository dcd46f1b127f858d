#include "necrocode/pool/pools.hpp"

#include <chrono>

#include "necrocode/base/limits.hpp"
#include "necrocode/pool/refusal.hpp"

namespace necrocode::pool {
namespace {

using namespace std::chrono_literals;

constexpr auto kRecreateAgainAfter = 60s;  // a quarantined slot that could not be made anew

}  // namespace

std::string_view to_string(SlotState state) {
  switch (state) {
    case SlotState::kPreparing:
      return "preparing";
    case SlotState::kReady:
      return "ready";
    case SlotState::kLeased:
      return "leased";
    case SlotState::kQuarantined:
      return "quarantined";
  }
  return "preparing";
}

// ---- rules about one pool

std::string slot_name(const SlotEntry& slot) {
  return slot.record.pool + "-" + std::to_string(slot.record.number);
}

bool is_at(const SlotEntry& slot, const Target& target) {
  return slot.proof && slot.proof->commit == target.commit && slot.proof->branch == target.branch;
}

Target base_of(const Pool& pool) {
  return {pool.record.base_branch, pool.base_commit};
}

Target wanted(const Pool& pool, const Waiter& waiter) {
  return waiter.target.value_or(base_of(pool));
}

bool must_resolve(const Pool& pool, const Waiter& waiter) {
  return !waiter.request.ref.empty() && waiter.request.ref != pool.record.base_branch &&
         !waiter.target;
}

bool is_fresh(const Pool& pool, const Waiter& waiter, SteadyTime now,
              std::chrono::milliseconds fresh_for) {
  if (waiter.fresh) return true;
  const auto age = waiter.request.max_age.value_or(fresh_for);
  return pool.fetched_at && now - *pool.fetched_at <= age;
}

SlotEntry* choose(Pool& pool, const Target& target) {
  SlotEntry* best = nullptr;
  const auto rank = [&](const SlotEntry& slot) {
    return std::pair(is_at(slot, target), slot.last_used);
  };
  for (auto& [number, slot] : pool.slots) {
    if (slot.state != SlotState::kReady) continue;
    if (best == nullptr || rank(slot) > rank(*best)) best = &slot;
  }
  return best;
}

SlotEntry* to_recreate(Pool& pool, SteadyTime now) {
  for (auto& [number, slot] : pool.slots) {
    const bool tried =
        slot.recreate_failed_at && now - *slot.recreate_failed_at < kRecreateAgainAfter;
    if (slot.state == SlotState::kQuarantined && !tried) return &slot;
  }
  return nullptr;
}

int coming(const Pool& pool) {
  return static_cast<int>(std::count_if(pool.slots.begin(), pool.slots.end(), [](const auto& slot) {
    return slot.second.state == SlotState::kPreparing && !slot.second.reserved;
  }));
}

bool hopeless(const Pool& pool) {
  return std::all_of(pool.slots.begin(), pool.slots.end(),
                     [](const auto& slot) { return slot.second.state == SlotState::kQuarantined; });
}

bool is_awaited(const Pool& pool) {
  return !pool.waiters.empty() || !pool.on_created.empty();
}

bool agrees(const Pool& pool, const PoolRecord& record) {
  return pool.record.repo_url == record.repo_url && pool.record.num_slots == record.num_slots &&
         pool.record.max_slots == record.max_slots && !pool.removing &&
         (record.base_branch.empty() || pool.record.base_branch == record.base_branch);
}

// ---- all of them

void Pools::add(const SharedPool& pool) {
  by_name_.emplace(pool->record.name, pool);
}

void Pools::remove(const Pool& pool) {
  by_name_.erase(pool.record.name);
}

SharedPool Pools::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

SharedPool Pools::find_for(const std::string& repo_url) const {
  for (const auto& [name, pool] : by_name_) {
    if (pool->record.repo_url == repo_url && !pool->removing) return pool;
  }
  return nullptr;
}

SharedPool Pools::known(const std::string& name) const {
  SharedPool pool = find(name);
  if (!pool || !pool->persisted || pool->removing) fail<NotFound>("there is no such pool", name);
  return pool;
}

std::vector<SharedPool> Pools::all() const {
  std::vector<SharedPool> all;
  for (const auto& [name, pool] : by_name_) all.push_back(pool);
  return all;
}

Place Pools::leased(const std::string& slot_id) const {
  for (const auto& [name, pool] : by_name_) {
    for (auto& [number, slot] : pool->slots) {
      if (slot.lease && slot.lease->slot_id == slot_id) return {pool, &slot};
    }
  }
  return {};
}

Place Pools::slot(const std::string& slot_id_or_name) const {
  for (const auto& [name, pool] : by_name_) {
    for (auto& [number, slot] : pool->slots) {
      if ((slot.lease && slot.lease->slot_id == slot_id_or_name) ||
          slot_name(slot) == slot_id_or_name)
        return {pool, &slot};
    }
  }
  return {};
}

SteadyTime Pools::next_lease_end() const {
  SteadyTime next = SteadyTime::max();
  for (const auto& [name, pool] : by_name_) {
    for (const auto& [number, slot] : pool->slots) {
      if (slot.lease) next = std::min(next, slot.lease_end);
    }
  }
  return next;
}

// ---- waiters

SharedWaiter Pools::enqueue(Pool& pool, AllocateRequest request, PoolManager::Ticket ticket,
                            const Deliver<Allocation>& deliver) {
  if (waiting_ >= limits::kSlotWaiters)
    fail<Unavailable>("too many requests are waiting for a slot");
  auto waiter = std::make_shared<Waiter>();
  waiter->request = std::move(request);
  waiter->fresh = !waiter->request.wait;
  waiter->delivers.emplace_back(ticket, deliver);
  pool.waiters.push_back(waiter);
  ++waiting_;
  return waiter;
}

void Pools::abandon(PoolManager::Ticket ticket) {
  for (auto& [name, pool] : by_name_) {
    for (auto it = pool->waiters.begin(); it != pool->waiters.end(); ++it) {
      auto& delivers = (*it)->delivers;
      const auto gone =
          std::find_if(delivers.begin(), delivers.end(),
                       [ticket](const auto& deliver) { return deliver.first == ticket; });
      if (gone == delivers.end()) continue;
      delivers.erase(gone);
      if (delivers.empty()) {
        pool->waiters.erase(it);
        --waiting_;
      }
      return;
    }
  }
}

SharedWaiter Pools::waiting_with(const std::string& idempotency_key) const {
  for (const auto& [name, pool] : by_name_) {
    for (const SharedWaiter& waiter : pool->waiters) {
      if (waiter->request.idempotency_key == idempotency_key) return waiter;
    }
  }
  return nullptr;
}

template <class T>
bool Pools::give(Pool& pool, const SharedWaiter& waiter, const T& answer) {
  const auto place = std::find(pool.waiters.begin(), pool.waiters.end(), waiter);
  if (place == pool.waiters.end()) return false;
  pool.waiters.erase(place);
  --waiting_;
  bool taken = false;
  for (auto& [ticket, deliver] : std::exchange(waiter->delivers, {}))
    taken = deliver(answer) || taken;
  return taken;
}

bool Pools::drop(Pool& pool, const SharedWaiter& waiter, const Allocation& answer) {
  return give(pool, waiter, answer);
}

void Pools::drop(Pool& pool, const SharedWaiter& waiter, const std::exception_ptr& error) {
  give(pool, waiter, error);
}

void Pools::fail_waiters(Pool& pool, const std::exception_ptr& error) {
  const std::vector<SharedWaiter> all(pool.waiters.begin(), pool.waiters.end());
  for (const SharedWaiter& waiter : all) drop(pool, waiter, error);
}

}  // namespace necrocode::pool
