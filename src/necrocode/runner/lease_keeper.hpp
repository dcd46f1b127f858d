// LeaseKeeper: renews all leases that this process has at one service, in one call and on one
// thread of its own, so that a busy run never loses its lease to its own work nor to another run's,
// and tells a run when its lease is gone or it is cancelled.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "necrocode/base/call_context.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/pool/client.hpp"
#include "necrocode/registry/client.hpp"

namespace necrocode::runner {

enum class LeaseNews { kRenewed, kLost, kCancelRequested };

/// What a lease is known by at its service: the task's or the slot's id, and the token.
struct LeaseName {
  std::string id;
  LeaseToken token;
};

class LeaseKeeper {
 public:
  /// Asks the service once for all of them; one news each, in order, nothing for a lease that was
  /// not answered: it is tried again sooner, as all are when this throws.
  using News = std::vector<std::optional<LeaseNews>>;
  using Renew = std::function<News(const std::vector<LeaseName>&, const CallContext&)>;
  /// Called once, on the keeper's thread, with kLost or kCancelRequested.
  using Tell = std::function<void(LeaseNews)>;

  /// A lease under renewal; ends with this object.
  class Held {
   public:
    Held(LeaseKeeper& keeper, std::uint64_t id) : keeper_(&keeper), id_(id) {}
    Held(Held&& other) noexcept : keeper_(std::exchange(other.keeper_, nullptr)), id_(other.id_) {}
    Held& operator=(Held&&) = delete;
    ~Held() {
      if (keeper_) keeper_->drop(id_);
    }

   private:
    LeaseKeeper* keeper_;
    std::uint64_t id_;
  };

  explicit LeaseKeeper(Renew renew);
  ~LeaseKeeper();
  /// Renews every third of `lease`; when no renewal succeeds for the whole of it, it is lost.
  [[nodiscard]] Held hold(std::chrono::milliseconds lease, LeaseName name, Tell tell);

 private:
  struct Entry;
  using Batch = std::vector<std::shared_ptr<Entry>>;
  void drop(std::uint64_t id);
  void work(const std::stop_token& stop);
  Batch due_now(SteadyTime now) const;
  void renew(const Batch& batch, const std::stop_token& stop);
  void settle(Entry& entry, const std::optional<LeaseNews>& answer, SteadyTime now);

  const Renew renew_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::list<std::shared_ptr<Entry>> entries_;  // guarded by mutex_
  std::uint64_t next_id_ = 1;                  // guarded by mutex_
  std::jthread thread_;
};

/// By POST /heartbeats, one call for all. `registry` lives longer.
LeaseKeeper::Renew renew_tasks(TaskRegistryClient& registry);
/// By one heartbeat a slot. `pool` lives longer.
LeaseKeeper::Renew renew_slots(RepoPoolClient& pool);

}  // namespace necrocode::runner
