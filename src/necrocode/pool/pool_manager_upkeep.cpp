// PoolManager: pools and slots are made, fetched, prepared and removed; what an earlier process
// left is put right. Who waits for them, is pool_manager_leasing.cpp's business.
#include <algorithm>
#include <chrono>
#include <set>
#include <utility>
#include <variant>

#include "necrocode/base/text.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/pool/pool_manager_state.hpp"
#include "necrocode/pool/pool_views.hpp"
#include "necrocode/pool/refusal.hpp"

namespace necrocode::pool {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr auto kStoreJobTime = 600s;  // a fetch
constexpr auto kPrepareTime = 600s;   // a checkout
constexpr auto kKeyLife = 24h;        // SPEC section 3
constexpr auto kEndedLeaseLife = 24h * 30;

/// What those who wait are told of a store that cannot be opened.
std::exception_ptr told_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const git::GitError&) {
    return invalid("/repo_url", "the repository cannot be read: " + words_of(error));
  } catch (const TimeoutError&) {
    return failure<Unavailable>("the repository did not answer in time");
  } catch (...) {
    return error;
  }
}

}  // namespace

// ---- what an earlier process left

void PoolManager::State::load() {
  const SystemTime now = clock_.system_now();
  store_->prune(now - kKeyLife, now - kEndedLeaseLife);
  for (PoolRecord& record : store_->pools()) {
    auto pool = std::make_shared<Pool>();
    pool->folder = directory_.pool(record.name);
    pool->record = std::move(record);
    pool->persisted = true;
    for (SlotRecord& slot : store_->slots(pool->record.name)) add_slot(*pool, std::move(slot));
    pools_.add(pool);
  }
  for (LeaseRecord& lease : store_->live_leases()) adopt(std::move(lease));
  std::vector<fs::path> strangers = {directory_.trash()};
  find_strangers(strangers);
  threads_.hand_to_worker(WorkKind::kDisk, [strangers] {
    for (const fs::path& stranger : strangers) DataDirectory::remove_stranger(stranger);
  });
  for (const SharedPool& pool : pools_.all()) open_on_disk(pool);
}

void PoolManager::State::adopt(LeaseRecord lease) {
  const SharedPool pool = pools_.find(lease.pool);
  std::error_code error;
  if (pool) {
    const auto slot = pool->slots.find(lease.number);
    const fs::path tree = Slot::tree_of(pool->folder, lease.slot_id);
    if (slot != pool->slots.end() && fs::is_directory(tree, error)) {
      // Renewed once: the holder may have been trying to renew while we were away.
      slot->second.state = SlotState::kLeased;
      slot->second.lease_end = clock_.steady_now() + std::chrono::seconds(lease.lease_seconds);
      slot->second.lease = std::move(lease);
      return;
    }
    if (slot != pool->slots.end()) --slot->second.record.allocations;
  }
  store_->end_lease(lease.slot_id, "lost", clock_.system_now(), true);
}

void PoolManager::State::find_strangers(std::vector<fs::path>& strangers) {
  directory_.set_strangers_aside(
      directory_.pools(), [this](const std::string& name) { return pools_.contains(name); },
      strangers);
  for (const SharedPool& pool : pools_.all()) {
    std::set<std::string> leased, numbers;
    for (const auto& [number, slot] : pool->slots) {
      numbers.insert(std::to_string(number));
      if (slot.lease) leased.insert(slot.lease->slot_id);
    }
    directory_.set_strangers_aside(
        pool->folder / "work", [&](const std::string& entry) { return leased.contains(entry); },
        strangers);
    directory_.set_strangers_aside(
        pool->folder / "slots", [&](const std::string& entry) { return numbers.contains(entry); },
        strangers);
  }
}

// ---- pools

SharedPool PoolManager::State::pool_for(const std::string& repo_url) {
  if (SharedPool pool = pools_.find_for(repo_url)) return pool;
  if (!options_.auto_create) fail<NotFound>("there is no pool for this repository");
  PoolRecord record;
  record.name = pool_name_for(repo_url);
  record.repo_url = repo_url;
  record.num_slots = options_.auto_num_slots;
  record.max_slots = options_.auto_max_slots;
  record.auto_created = true;
  if (pools_.contains(record.name)) fail<Unavailable>("the repository's pool is being removed");
  return open(std::move(record));
}

SharedPool PoolManager::State::open(PoolRecord record) {
  auto pool = std::make_shared<Pool>();
  record.created_at = clock_.system_now();
  pool->folder = directory_.pool(record.name);
  pool->record = std::move(record);
  pools_.add(pool);
  open_on_disk(pool);
  return pool;
}

void PoolManager::State::open_on_disk(const SharedPool& pool) {
  struct Opened {
    StoreView view;
    bool fetched = false;
  };
  pool->store_busy = true;
  const SteadyTime begun = clock_.steady_now();
  start<Opened>(
      pool, WorkKind::kNetwork,
      [this, store = store_of(*pool), url = pool->record.repo_url,
       branch = pool->record.base_branch](const CallContext& context) {
        Opened opened;
        opened.view = open_store(git_, store, url, branch, opened.fetched, context);
        return opened;
      },
      kStoreJobTime,
      [this, pool, begun](Answer<Opened> answer) {
        pool->store_busy = false;
        if (pool->removing) return;
        const bool given_up = pool->stop.stop_requested();
        if (given_up) pool->stop = std::stop_source();
        if (const auto* error = std::get_if<std::exception_ptr>(&answer)) {
          if (given_up && is_awaited(*pool)) return open_on_disk(pool);  // wanted again by now
          return cannot_open(pool, *error);
        }
        const Opened& opened = std::get<Opened>(answer);
        pool->record.base_branch = opened.view.base_branch;
        pool->base_commit = opened.view.base_commit;
        if (opened.fetched) pool->fetched_at = begun;
        opened_on_disk(pool);
      });
}

void PoolManager::State::opened_on_disk(const SharedPool& pool) {
  try {
    if (!std::exchange(pool->persisted, true)) {
      pool->persisted = false;
      store_->add_pool(pool->record);
      pool->persisted = true;
      log::info("pool created", {{"pool", pool->record.name}});
    }
  } catch (const RunnerError&) {
    return cannot_open(pool, std::current_exception());
  }
  for (auto& [number, slot] : pool->slots) {
    if (slot.state == SlotState::kPreparing) prepare(pool, slot, base_of(*pool), nullptr, false);
  }
  fill_up(pool);
  tell(pool->on_created, view(*pool, clock_));
  if (std::exchange(pool->fetch_when_open, false) && !pool->fetched_at) fetch(pool);
  next_store_job(pool);
  dispatch(pool);
}

void PoolManager::State::make_room() {
  const std::size_t workers = std::max<std::size_t>(1, options_.network_workers);
  std::size_t waiting = network_jobs_ - std::min(network_jobs_, workers);
  for (const SharedPool& pool : pools_.all()) {
    if (waiting == 0) return;
    if (pool->persisted || is_awaited(*pool)) continue;
    pool->stop.request_stop();
    --waiting;
  }
}

void PoolManager::State::cannot_open(const SharedPool& pool, const std::exception_ptr& error) {
  const std::exception_ptr answer = told_of(error);
  pools_.fail_waiters(*pool, answer);
  tell(pool->on_created, answer);
  tell(pool->on_idle, answer);
  if (pool->persisted) {
    log::warn("pool cannot be opened", {{"pool", pool->record.name}, {"error", words_of(error)}});
    return;  // its leases live on; the next request tries again
  }
  pools_.remove(*pool);
  discard_folder(pool->folder);
}

void PoolManager::State::discard_folder(const fs::path& folder) {
  threads_.hand_to_worker(WorkKind::kDisk, [aside = directory_.set_aside(folder)] {
    DataDirectory::remove_stranger(aside);
  });
}

void PoolManager::State::fill_up(const SharedPool& pool) {
  while (static_cast<int>(pool->slots.size()) < pool->record.num_slots && grow(pool)) {
  }
}

void PoolManager::State::settle(const SharedPool& pool) {
  if (stopping_) return;
  make_room();
  if (pool->jobs != 0) return;
  if (pool->removing) return removed(pool);
  tell(pool->on_idle, view(*pool, clock_));
}

void PoolManager::State::removed(const SharedPool& pool) {
  if (pools_.find(pool->record.name) != pool) return;
  try {
    store_->remove_pool(pool->record.name);
  } catch (const RunnerError&) {
    pool->removing = false;
    pool->stop = std::stop_source();
    return tell(pool->on_removed, std::current_exception());
  }
  pools_.remove(*pool);
  discard_folder(pool->folder);
  tell(pool->on_idle, failure<NotFound>("the pool was removed"));
  tell(pool->on_removed, Json::object({{"name", pool->record.name}}));
}

// ---- the store: one fetcher at a time

void PoolManager::State::next_store_job(const SharedPool& pool) {
  if (pool->store_busy || pool->store_jobs.empty()) return;
  const auto job = std::move(pool->store_jobs.front());
  pool->store_jobs.pop_front();
  pool->store_busy = true;
  job();
}

void PoolManager::State::store_job_done(const SharedPool& pool) {
  pool->store_busy = false;
  next_store_job(pool);
}

void PoolManager::State::fetch(const SharedPool& pool) {
  if (pool->base_commit.empty()) {
    pool->fetch_when_open = true;
    if (!pool->store_busy) open_on_disk(pool);  // the last try failed
    return;
  }
  if (std::exchange(pool->fetch_queued, true)) return;
  pool->store_jobs.push_back([this, pool] {
    const SteadyTime begun = clock_.steady_now();
    start<StoreView>(
        pool, WorkKind::kNetwork,
        [store = store_of(*pool), url = pool->record.repo_url, branch = pool->record.base_branch](
            const CallContext& context) { return fetch_store(store, url, branch, context); },
        kStoreJobTime,
        [this, pool, begun](Answer<StoreView> answer) {
          pool->fetch_queued = false;
          store_job_done(pool);
          fetched(pool, begun, std::move(answer));
        });
  });
  next_store_job(pool);
}

void PoolManager::State::fetched(const SharedPool& pool, SteadyTime begun,
                                 Answer<StoreView> answer) {
  if (pool->removing) return;
  if (const auto* error = std::get_if<std::exception_ptr>(&answer)) {
    // What is there is still good to work from.
    log::warn("pool cannot look at its remote",
              {{"pool", pool->record.name}, {"error", words_of(*error)}});
  } else {
    pool->base_commit = std::get<StoreView>(answer).base_commit;
    pool->fetched_at = begun;
  }
  for (const SharedWaiter& waiter : pool->waiters) waiter->fresh = true;
  dispatch(pool);
  move_to_base(pool);
}

void PoolManager::State::resolve(const SharedPool& pool, const SharedWaiter& waiter) {
  waiter->busy = true;
  pool->store_jobs.push_back([this, pool, waiter] {
    start<Target>(
        pool, WorkKind::kNetwork,
        [store = store_of(*pool), url = pool->record.repo_url, ref = waiter->request.ref,
         base = pool->record.base_branch](const CallContext& context) {
          return resolve_ref(store, url, ref, base, context);
        },
        kStoreJobTime,
        [this, pool, waiter](Answer<Target> answer) {
          store_job_done(pool);
          waiter->busy = false;
          if (const auto* error = std::get_if<std::exception_ptr>(&answer)) {
            pools_.drop(*pool, waiter, *error);
          } else {
            waiter->target = std::get<Target>(std::move(answer));
            waiter->fresh = true;
          }
          dispatch(pool);
        });
  });
  next_store_job(pool);
}

// ---- slots

SlotEntry& PoolManager::State::add_slot(Pool& pool, SlotRecord record) {
  SlotEntry slot;
  slot.disk = std::make_shared<Slot>(git_, pool.folder, record.number);
  if (!record.quarantine_reason.empty()) slot.state = SlotState::kQuarantined;
  const int number = record.number;
  slot.record = std::move(record);
  return pool.slots.emplace(number, std::move(slot)).first->second;
}

bool PoolManager::State::grow(const SharedPool& pool) {
  if (SlotEntry* quarantined = to_recreate(*pool, clock_.steady_now())) {
    prepare(pool, *quarantined, base_of(*pool), nullptr, true);
    return true;
  }
  if (static_cast<int>(pool->slots.size()) >= pool->record.max_slots) return false;
  SlotRecord record;
  record.pool = pool->record.name;
  record.number = pool->slots.empty() ? 1 : pool->slots.rbegin()->first + 1;
  try {
    store_->put_slot(record);
  } catch (const RunnerError& error) {
    log::error("pool cannot grow", {{"pool", pool->record.name}, {"error", error.what()}});
    return false;
  }
  prepare(pool, add_slot(*pool, std::move(record)), base_of(*pool), nullptr, true);
  return true;
}

void PoolManager::State::prepare(const SharedPool& pool, SlotEntry& slot, const Target& target,
                                 SharedWaiter waiter, bool anew) {
  slot.state = SlotState::kPreparing;
  slot.proof.reset();
  slot.reserved = waiter != nullptr;
  if (pool->base_commit.empty()) return;  // begun when the store is open
  const int number = slot.record.number;
  start<CleanProof>(
      pool, WorkKind::kDisk,
      [this, disk = slot.disk, target, url = pool->record.repo_url,
       anew](const CallContext& context) {
        if (anew) disk->discard();
        CleanProof proof = disk->prepare(target.branch, target.commit, url, context);
        proof.proven_at = clock_.system_now();
        return proof;
      },
      kPrepareTime,
      [this, pool, number, waiter, anew](Answer<CleanProof> answer) {
        prepared(pool, pool->slots.at(number), waiter, anew, std::move(answer));
      });
}

void PoolManager::State::prepared(const SharedPool& pool, SlotEntry& slot,
                                  const SharedWaiter& waiter, bool anew,
                                  Answer<CleanProof> answer) {
  if (waiter) waiter->busy = false;
  slot.reserved = false;
  if (pool->removing) return;
  if (const auto* error = std::get_if<std::exception_ptr>(&answer)) {
    quarantine(*pool, slot, words_of(*error));
    if (anew) slot.recreate_failed_at = clock_.steady_now();
    if (anew && hopeless(*pool)) {
      pools_.fail_waiters(*pool, failure<Unavailable>("no slot can be prepared", words_of(*error)));
    }
    return dispatch(pool);
  }
  slot.proof = std::get<CleanProof>(answer);
  slot.state = SlotState::kReady;
  slot.recreate_failed_at.reset();
  if (!slot.record.quarantine_reason.empty()) {
    slot.record.quarantine_reason.clear();
    keep(slot);
  }
  dispatch(pool);
  move_to_base(pool);
}

void PoolManager::State::move_to_base(const SharedPool& pool) {
  for (auto& [number, slot] : pool->slots) {
    if (slot.state == SlotState::kReady && !is_at(slot, base_of(*pool))) {
      prepare(pool, slot, base_of(*pool), nullptr, false);
    }
  }
}

void PoolManager::State::quarantine(const Pool& pool, SlotEntry& slot, const std::string& reason) {
  slot.state = SlotState::kQuarantined;
  slot.record.quarantine_reason = shorten(reason, 500);
  log::warn("slot quarantined",
            {{"pool", pool.record.name}, {"slot", slot_name(slot)}, {"reason", reason}});
  keep(slot);
}

void PoolManager::State::keep(const SlotEntry& slot) {
  try {
    store_->put_slot(slot.record);
  } catch (const RunnerError& error) {
    // Only remembered less well: the state is found again at the next start.
    log::error("slot record cannot be written",
               {{"slot", slot_name(slot)}, {"error", error.what()}});
  }
}

}  // namespace necrocode::pool
