// The inside of PoolManager, for its own sources only: what is done when, with pools and slots.
// The one thread of `threads_` owns all of it; whatever takes long is handed to a worker and comes
// back as work for that thread. What is done on a disk or in git, and rules about a pool that need
// neither, are not here but in slot, store_git, data_directory and pools.
//
//   pool_manager.cpp           what the outside asks for, start and end
//   pool_manager_leasing.cpp   who gets which slot, and how a lease ends
//   pool_manager_upkeep.cpp    pools and slots made, fetched, prepared, removed
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "necrocode/base/call_context.hpp"
#include "necrocode/pool/alarm.hpp"
#include "necrocode/pool/data_directory.hpp"
#include "necrocode/pool/manager_threads.hpp"
#include "necrocode/pool/pool_manager.hpp"
#include "necrocode/pool/pools.hpp"

namespace necrocode::pool {

/// Everything below runs on the manager's thread, unless it says otherwise.
class PoolManager::State {
 public:
  State(const git::Git& git, PoolManagerOptions options, const Clock& clock,
        std::unique_ptr<PoolStore> store);
  ~State() { stop(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// Any thread.
  void stop();
  /// Any thread: the way to all the others.
  ManagerThreads& threads() { return threads_; }
  /// Any thread.
  std::optional<std::string> broken() const { return threads_.broken(); }

  // What the outside asks for.
  void allocate(Ticket ticket, AllocateRequest request, const Deliver<Allocation>& deliver);
  void abandon(Ticket ticket);
  void release(const std::string& slot_id, const std::string& token);
  SystemTime heartbeat(const std::string& slot_id, const std::string& token,
                       std::optional<std::chrono::seconds> lease);
  Json slot_status(const std::string& slot_id);
  void create_pool(PoolRequest request, const Deliver<Json>& deliver);
  Json pools();
  Json pool_status(const std::string& name);
  void remove_pool(const std::string& name, const Deliver<Json>& deliver);
  void warm(const std::string& name, const Deliver<Json>& deliver);

 private:
  /// Runs `job` on a worker of that kind, then `done` with its result on the manager's thread.
  template <class T>
  void start(const SharedPool& pool, WorkKind kind, std::function<T(const CallContext&)> job,
             std::chrono::seconds time, std::function<void(Answer<T>)> done) {
    ++pool->jobs;
    if (kind == WorkKind::kNetwork) ++network_jobs_;
    CallContext context;
    context.stop = pool->stop.get_token();
    threads_.hand_to_worker(
        kind, [this, pool, kind, job = std::move(job), done = std::move(done), context, time] {
          auto answer = std::make_shared<Answer<T>>();
          try {
            *answer = job(context.within(time));
          } catch (...) {
            *answer = std::current_exception();
          }
          threads_.post([this, pool, kind, answer, done] {
            --pool->jobs;
            if (kind == WorkKind::kNetwork) --network_jobs_;
            if (!stopping_) done(std::move(*answer));
            settle(pool);
          });
        });
  }

  // ---- leasing

  bool answer_repeated(Ticket ticket, const AllocateRequest& request,
                       const Deliver<Allocation>& deliver);
  /// Gives ready slots to those who wait, in order of arrival; sees to it that more slots come.
  void dispatch(const SharedPool& pool);
  void serve_waiter(const SharedPool& pool, SlotEntry& slot, const SharedWaiter& waiter);
  /// Nobody knows of the lease.
  void give_back(const SharedPool& pool, SlotEntry& slot);
  /// The slot of a live lease; null for an ended one. Throws NotFound, or Conflict for another's
  /// token.
  Place find_live(const std::string& slot_id, const std::string& token);
  void end_lease(const SharedPool& pool, SlotEntry& slot, const std::string& reason,
                 bool forget_key);
  void end_expired_leases();
  void set_alarm();

  // ---- upkeep: what an earlier process left

  void load();
  void adopt(LeaseRecord lease);
  /// Folders that no record names: made just before, or left just after, the end of a process.
  void find_strangers(std::vector<std::filesystem::path>& strangers);

  // ---- upkeep: pools

  SharedPool pool_for(const std::string& repo_url);
  SharedPool open(PoolRecord record);
  git::Repository store_of(const Pool& pool) const { return {git_, pool.folder / "store.git"}; }
  void open_on_disk(const SharedPool& pool);
  void opened_on_disk(const SharedPool& pool);
  /// While network jobs wait for a worker, openings that nobody awaits are stopped. (While none
  /// does, they go on: who asks again finds a large repository further.)
  void make_room();
  void cannot_open(const SharedPool& pool, const std::exception_ptr& error);
  void discard_folder(const std::filesystem::path& folder);
  /// Up to num_slots, for those who will come.
  void fill_up(const SharedPool& pool);
  /// After each job: who waited for the pool to come to rest is told.
  void settle(const SharedPool& pool);
  void removed(const SharedPool& pool);

  // ---- upkeep: the store, one fetcher at a time

  void next_store_job(const SharedPool& pool);
  void store_job_done(const SharedPool& pool);
  void fetch(const SharedPool& pool);
  void fetched(const SharedPool& pool, SteadyTime begun, Answer<StoreView> answer);
  void resolve(const SharedPool& pool, const SharedWaiter& waiter);

  // ---- upkeep: slots

  SlotEntry& add_slot(Pool& pool, SlotRecord record);
  /// One slot more, made anew from a quarantined one or added. False when there can be none.
  bool grow(const SharedPool& pool);
  /// Cleans, moves to `target` and proves, on a worker; then the slot is ready, for `waiter` if
  /// there is one.
  void prepare(const SharedPool& pool, SlotEntry& slot, const Target& target, SharedWaiter waiter,
               bool anew);
  void prepared(const SharedPool& pool, SlotEntry& slot, const SharedWaiter& waiter, bool anew,
                Answer<CleanProof> answer);
  /// Ready slots that nobody wants as they are get the newest base commit.
  void move_to_base(const SharedPool& pool);
  void quarantine(const Pool& pool, SlotEntry& slot, const std::string& reason);
  void keep(const SlotEntry& slot);

  const git::Git& git_;
  const PoolManagerOptions options_;
  const Clock& clock_;
  const DataDirectory directory_;
  const std::unique_ptr<PoolStore> store_;
  Pools pools_;
  std::uint64_t uses_ = 0;
  std::size_t network_jobs_ = 0;  ///< begun or waiting for a worker
  bool stopping_ = false;
  std::unique_ptr<Alarm> alarm_;
  std::atomic<bool> stopped_{false};
  ManagerThreads threads_;
};

}  // namespace necrocode::pool
