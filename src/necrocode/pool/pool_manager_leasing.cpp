// PoolManager: who gets which slot, and how a lease ends. What a slot or a pool needs to be ready,
// is asked for here and done in pool_manager_upkeep.cpp.
#include <algorithm>
#include <chrono>
#include <utility>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/secret.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/pool/pool_manager_state.hpp"
#include "necrocode/pool/pool_views.hpp"
#include "necrocode/pool/refusal.hpp"

namespace necrocode::pool {

using namespace std::chrono_literals;

bool PoolManager::State::answer_repeated(Ticket ticket, const AllocateRequest& request,
                                         const Deliver<Allocation>& deliver) {
  if (request.idempotency_key.empty()) return false;
  const auto check = [&](const std::string& digest) {
    if (digest == request.request_digest) return;
    std::rethrow_exception(invalid("", "the idempotency key was used with another request"));
  };
  if (const SharedWaiter waiter = pools_.waiting_with(request.idempotency_key)) {
    check(waiter->request.request_digest);
    waiter->delivers.emplace_back(ticket, deliver);
    return true;
  }
  const auto lease = store_->find_lease_by_key(request.idempotency_key);
  if (!lease) return false;
  check(lease->request_digest);
  const SlotEntry* live = pools_.leased(lease->slot_id).slot;
  const SteadyTime end = live != nullptr ? live->lease_end : clock_.steady_now();
  deliver(to_allocation(directory_.pool(lease->pool), request.repo_url, *lease,
                        wall_time(clock_, end)));
  return true;
}

void PoolManager::State::dispatch(const SharedPool& pool) {
  if (pool->removing || stopping_) return;
  if (pool->base_commit.empty()) {
    if (!pool->waiters.empty()) fetch(pool);
    return;
  }
  int unserved = 0;
  const std::vector<SharedWaiter> in_order(pool->waiters.begin(), pool->waiters.end());
  for (const SharedWaiter& waiter : in_order) {
    if (waiter->busy || waiter->delivers.empty()) continue;
    if (must_resolve(*pool, *waiter)) {
      resolve(pool, waiter);
    } else if (!is_fresh(*pool, *waiter, clock_.steady_now(), options_.fresh_for)) {
      fetch(pool);
    } else if (SlotEntry* slot = choose(*pool, wanted(*pool, *waiter))) {
      serve_waiter(pool, *slot, waiter);
    } else {
      ++unserved;
    }
  }
  unserved -= coming(*pool);
  while (unserved > 0 && grow(pool)) --unserved;
}

void PoolManager::State::serve_waiter(const SharedPool& pool, SlotEntry& slot,
                                      const SharedWaiter& waiter) {
  const Target target = wanted(*pool, *waiter);
  if (!is_at(slot, target)) {
    waiter->busy = true;
    return prepare(pool, slot, target, waiter, false);
  }
  LeaseRecord lease;
  lease.pool = pool->record.name;
  lease.number = slot.record.number;
  lease.token = random_hex(16);
  lease.required_by = waiter->request.required_by;
  lease.commit = slot.proof->commit;
  lease.branch = slot.proof->branch;
  lease.idempotency_key = waiter->request.idempotency_key;
  lease.request_digest = waiter->request.request_digest;
  lease.lease_seconds = waiter->request.lease.count();
  lease.acquired_at = clock_.system_now();
  try {
    store_->begin_lease(lease);
  } catch (const RunnerError&) {
    return pools_.drop(*pool, waiter, std::current_exception());
  }
  slot.state = SlotState::kLeased;
  slot.last_used = ++uses_;
  ++slot.record.allocations;
  slot.lease_end = clock_.steady_now() + waiter->request.lease;
  slot.lease = lease;
  try {
    slot.disk->hand_out(lease.slot_id);
  } catch (const RunnerError&) {
    pools_.drop(*pool, waiter, std::current_exception());
    return give_back(pool, slot);
  }
  set_alarm();
  if (!pools_.drop(*pool, waiter,
                   to_allocation(pool->folder, pool->record.repo_url, lease,
                                 wall_time(clock_, slot.lease_end)))) {
    give_back(pool, slot);
  }
}

void PoolManager::State::give_back(const SharedPool& pool, SlotEntry& slot) {
  try {
    end_lease(pool, slot, "undelivered", true);
  } catch (const RunnerError& error) {
    log::error("lease cannot be given back",
               {{"slot", slot.lease->slot_id}, {"error", error.what()}});
    slot.lease_end = clock_.steady_now() + 1s;  // the database may be back by then
    set_alarm();
  }
}

Place PoolManager::State::find_live(const std::string& slot_id, const std::string& token) {
  const auto check = [&](const std::string& held) {
    if (!token.empty() && !Secret(held).equals(token))
      fail<Conflict>("the lease token is another one", slot_id);
  };
  if (Place place = pools_.leased(slot_id); place.slot != nullptr) {
    check(place.slot->lease->token);
    return place;
  }
  const auto ended = store_->find_lease(slot_id);
  if (!ended) fail<NotFound>("there is no such slot", slot_id);
  check(ended->token);
  return {};
}

void PoolManager::State::end_lease(const SharedPool& pool, SlotEntry& slot,
                                   const std::string& reason, bool forget_key) {
  const SystemTime now = clock_.system_now();
  store_->end_lease(slot.lease->slot_id, reason, now, forget_key);
  const auto used =
      std::chrono::duration_cast<std::chrono::milliseconds>(now - slot.lease->acquired_at);
  if (forget_key) --slot.record.allocations;
  slot.record.use_ms += std::max<std::int64_t>(0, used.count());
  const std::string slot_id = slot.lease->slot_id;
  slot.lease.reset();
  set_alarm();
  try {
    slot.disk->take_back(slot_id);
  } catch (const RunnerError& error) {
    quarantine(*pool, slot, error.what());
    return dispatch(pool);
  }
  prepare(pool, slot, base_of(*pool), nullptr, false);
  // While it is being cleaned, look whether the base has moved.
  if (!pool->fetched_at || clock_.steady_now() - *pool->fetched_at > options_.fresh_for)
    fetch(pool);
}

void PoolManager::State::end_expired_leases() {
  const SteadyTime now = clock_.steady_now();
  for (const SharedPool& pool : pools_.all()) {
    for (auto& [number, slot] : pool->slots) {
      if (!slot.lease || slot.lease_end > now) continue;
      log::warn("lease expired",
                {{"slot", slot.lease->slot_id}, {"required_by", slot.lease->required_by}});
      try {
        end_lease(pool, slot, "expired", false);
      } catch (const RunnerError& error) {
        log::error("expired lease cannot be ended", {{"error", error.what()}});
        slot.lease_end = now + 1s;  // the database may be back by then
      }
    }
  }
  set_alarm();
}

void PoolManager::State::set_alarm() {
  if (alarm_) alarm_->set(pools_.next_lease_end());
}

}  // namespace necrocode::pool
