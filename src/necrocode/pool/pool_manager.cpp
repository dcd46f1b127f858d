#include "necrocode/pool/pool_manager.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/pool/pool_manager_state.hpp"
#include "necrocode/pool/pool_views.hpp"
#include "necrocode/pool/refusal.hpp"
#include "necrocode/pool/sqlite_pool_store.hpp"

namespace necrocode::pool {

std::string pool_name_for(const std::string& repo_url) {
  std::string_view last = repo_url;
  while (last.ends_with("/")) last.remove_suffix(1);
  last = last.substr(last.find_last_of("/:") + 1);
  if (last.ends_with(".git")) last.remove_suffix(4);
  const std::string slug = slugify(last, 40);
  return (slug.empty() ? "pool" : slug) + "-" + sha256_hex(repo_url).substr(0, 6);
}

// ---- start and end

PoolManager::State::State(const git::Git& git, PoolManagerOptions options, const Clock& clock,
                          std::unique_ptr<PoolStore> store)
    : git_(git),
      options_(std::move(options)),
      clock_(clock),
      directory_(options_.data_dir),
      store_(store ? std::move(store) : make_sqlite_pool_store(directory_.database())) {
  load();
  alarm_ =
      std::make_unique<Alarm>(clock_, [this] { threads_.post([this] { end_expired_leases(); }); });
  set_alarm();
  threads_.start(options_.workers, options_.network_workers);
}

void PoolManager::State::stop() {
  if (stopped_.exchange(true)) return;
  // Before the workers: their git children end now, and what they report finds everything in
  // place.
  threads_.ask<void>([this] {
    stopping_ = true;
    alarm_.reset();
    for (const SharedPool& pool : pools_.all()) {
      pool->stop.request_stop();
      const auto gone = failure<Unavailable>("the service is stopping");
      pools_.fail_waiters(*pool, gone);
      for (auto* delivers : {&pool->on_created, &pool->on_idle, &pool->on_removed})
        tell(*delivers, gone);
    }
  });
  threads_.stop();
}

// ---- what the outside asks for

void PoolManager::State::allocate(Ticket ticket, AllocateRequest request,
                                  const Deliver<Allocation>& deliver) {
  try {
    if (stopping_) fail<Unavailable>("the service is stopping");
    if (answer_repeated(ticket, request, deliver)) return;
    const SharedPool pool = pool_for(request.repo_url);
    const SharedWaiter waiter = pools_.enqueue(*pool, std::move(request), ticket, deliver);
    dispatch(pool);
    if (!waiter->request.wait) {
      pools_.drop(*pool, waiter, failure<Unavailable>("no slot is free"));
    }
    make_room();
  } catch (...) {
    deliver(std::current_exception());
  }
}

void PoolManager::State::abandon(Ticket ticket) {
  pools_.abandon(ticket);
  make_room();
}

void PoolManager::State::release(const std::string& slot_id, const std::string& token) {
  const auto [pool, slot] = find_live(slot_id, token);
  if (slot != nullptr) end_lease(pool, *slot, "released", false);
}

SystemTime PoolManager::State::heartbeat(const std::string& slot_id, const std::string& token,
                                         std::optional<std::chrono::seconds> lease) {
  const auto [pool, slot] = find_live(slot_id, token);
  if (slot == nullptr) fail<Conflict>("the lease has ended", slot_id);
  if (lease && lease->count() != slot->lease->lease_seconds) {
    store_->set_lease_seconds(slot_id, lease->count());
    slot->lease->lease_seconds = lease->count();
  }
  slot->lease_end = clock_.steady_now() + std::chrono::seconds(slot->lease->lease_seconds);
  set_alarm();
  return wall_time(clock_, slot->lease_end);
}

Json PoolManager::State::slot_status(const std::string& slot_id) {
  if (const auto [pool, slot] = pools_.slot(slot_id); slot != nullptr)
    return view(*pool, *slot, clock_);
  const auto ended = store_->find_lease(slot_id);
  if (!ended) fail<NotFound>("there is no such slot", slot_id);
  return view(*ended);
}

void PoolManager::State::create_pool(PoolRequest request, const Deliver<Json>& deliver) {
  try {
    if (stopping_) fail<Unavailable>("the service is stopping");
    PoolRecord record;
    record.name = request.name.empty() ? pool_name_for(request.repo_url) : request.name;
    record.repo_url = request.repo_url;
    record.base_branch = request.base_branch;
    record.num_slots = request.num_slots;
    record.max_slots = std::max(request.num_slots, request.max_slots);
    const SharedPool there = pools_.find(record.name);
    if (there && !agrees(*there, record)) {
      fail<Conflict>("there is a pool of that name", record.name);
    }
    if (there && there->persisted) {
      deliver(view(*there, clock_));
    } else {
      (there ? there : open(std::move(record)))->on_created.push_back(deliver);
      make_room();
    }
  } catch (...) {
    deliver(std::current_exception());
  }
}

Json PoolManager::State::pools() {
  Json::Array items;
  for (const SharedPool& pool : pools_.all()) {
    if (pool->persisted) items.push_back(view(*pool, clock_));
  }
  return Json::object({{"items", std::move(items)}, {"next_cursor", nullptr}});
}

Json PoolManager::State::pool_status(const std::string& name) {
  return view(*pools_.known(name), clock_);
}

void PoolManager::State::remove_pool(const std::string& name, const Deliver<Json>& deliver) {
  try {
    const SharedPool pool = pools_.known(name);
    for (const auto& [number, slot] : pool->slots) {
      if (slot.state == SlotState::kLeased)
        fail<Conflict>("a slot of the pool is leased", slot.lease->slot_id);
    }
    pool->removing = true;
    pool->stop.request_stop();
    pool->on_removed.push_back(deliver);
    pools_.fail_waiters(*pool, failure<NotFound>("the pool was removed"));
    settle(pool);
  } catch (...) {
    deliver(std::current_exception());
  }
}

void PoolManager::State::warm(const std::string& name, const Deliver<Json>& deliver) {
  try {
    const SharedPool pool = pools_.known(name);
    for (auto& [number, slot] : pool->slots) {
      if (slot.state == SlotState::kQuarantined) prepare(pool, slot, base_of(*pool), nullptr, true);
    }
    fill_up(pool);
    pool->on_idle.push_back(deliver);
    fetch(pool);
  } catch (...) {
    deliver(std::current_exception());
  }
}

// ---- the way in: from any thread to the manager's

PoolManager::PoolManager(const git::Git& git, PoolManagerOptions options, const Clock& clock,
                         std::unique_ptr<PoolStore> store)
    : state_(std::make_unique<State>(git, std::move(options), clock, std::move(store))) {}
PoolManager::~PoolManager() = default;

PoolManager::Ticket PoolManager::allocate(AllocateRequest request, Deliver<Allocation> deliver) {
  static std::atomic<Ticket> next{1};
  git::check_remote_url(request.repo_url);
  const Ticket ticket = next++;
  state_->threads().ask<void>([&] { state_->allocate(ticket, std::move(request), deliver); });
  return ticket;
}

void PoolManager::abandon(Ticket ticket) {
  state_->threads().post([this, ticket] { state_->abandon(ticket); });
}

void PoolManager::release(const std::string& slot_id, const std::string& token) {
  state_->threads().ask<void>([&] { state_->release(slot_id, token); });
}

SystemTime PoolManager::heartbeat(const std::string& slot_id, const std::string& token,
                                  std::optional<std::chrono::seconds> lease) {
  return state_->threads().ask<SystemTime>(
      [&] { return state_->heartbeat(slot_id, token, lease); });
}

Json PoolManager::slot_status(const std::string& slot_id) {
  return state_->threads().ask<Json>([&] { return state_->slot_status(slot_id); });
}

void PoolManager::create_pool(PoolRequest request, Deliver<Json> deliver) {
  git::check_remote_url(request.repo_url);
  state_->threads().ask<void>([&] { state_->create_pool(std::move(request), deliver); });
}

Json PoolManager::pools() {
  return state_->threads().ask<Json>([&] { return state_->pools(); });
}

Json PoolManager::pool_status(const std::string& name) {
  return state_->threads().ask<Json>([&] { return state_->pool_status(name); });
}

void PoolManager::remove_pool(const std::string& name, Deliver<Json> deliver) {
  state_->threads().ask<void>([&] { state_->remove_pool(name, deliver); });
}

void PoolManager::warm(const std::string& name, Deliver<Json> deliver) {
  state_->threads().ask<void>([&] { state_->warm(name, deliver); });
}

bool PoolManager::healthy(std::string& detail) const {
  const auto broken = state_->broken();
  detail = broken.value_or("ok");
  return !broken;
}

void PoolManager::stop() {
  state_->stop();
}

}  // namespace necrocode::pool
