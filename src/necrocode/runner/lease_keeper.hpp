// LeaseKeeper: renews the leases of all runs of this process on one thread of its own, so that a
// busy run never loses its lease to its own work, and tells a run when its lease is gone or it is
// cancelled.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

#include "necrocode/base/call_context.hpp"

namespace necrocode::runner {

enum class LeaseNews { kRenewed, kLost, kCancelRequested };

class LeaseKeeper {
 public:
  /// Asks the service once; throws when it cannot be reached (then it is tried again sooner).
  using Renew = std::function<LeaseNews(const CallContext&)>;
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

  LeaseKeeper();
  ~LeaseKeeper();
  /// Renews every third of `lease`; when no renewal succeeds for the whole of it, it is lost.
  [[nodiscard]] Held hold(std::chrono::milliseconds lease, Renew renew, Tell tell);

 private:
  struct Entry;
  void drop(std::uint64_t id);
  void work(const std::stop_token& stop);
  void renew(const std::shared_ptr<Entry>& entry, const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::list<std::shared_ptr<Entry>> entries_;  // guarded by mutex_
  std::uint64_t next_id_ = 1;                  // guarded by mutex_
  std::jthread thread_;
};

}  // namespace necrocode::runner
