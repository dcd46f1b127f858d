// The pool manager's threads: one that owns its state, and a few workers for what takes long. What
// waits for a network has workers apart, so that a remote that says nothing holds up no disk. Each
// kind is fed by a queue. What the work is, is not known here; nothing runs before start().
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/pool/refusal.hpp"

namespace necrocode::pool {

/// A queue of work for one or more threads. Thread-safe.
class WorkQueue {
 public:
  /// False when closed: the work is not done.
  bool push(std::function<void()> work);
  /// Drops what is queued, and all that comes.
  void close();
  /// Nothing when stopped and empty.
  std::optional<std::function<void()>> pop(const std::stop_token& stop);

 private:
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<std::function<void()>> queue_;
  bool closed_ = false;
};

/// What a worker's work waits for.
enum class WorkKind { kDisk, kNetwork };

/// Thread-safe, but for start() and stop(): once each, in this order, and stop() by none of these
/// threads.
class ManagerThreads {
 public:
  /// Begins with what was queued until now.
  void start(std::size_t disk_workers, std::size_t network_workers);
  /// Drops what the workers have not begun, waits for what they have, then for all that the owner
  /// was given. From then on all work is dropped.
  void stop();

  /// On the owner's thread, some time.
  void post(std::function<void()> work) { inbox_.push(std::move(work)); }
  /// From any thread but the owner's: runs `work` there and waits for what it returns or throws.
  /// Unavailable after stop().
  template <class T>
  T ask(std::function<T()> work) {
    auto task = std::make_shared<std::packaged_task<T()>>(std::move(work));
    std::future<T> result = task->get_future();
    inbox_.push([task] { (*task)(); });
    task.reset();
    try {
      return result.get();
    } catch (const std::future_error&) {
      // Dropped unrun.
      fail<Unavailable>("the service is stopping");
    }
  }
  /// On a worker of that kind, some time.
  void hand_to_worker(WorkKind kind, std::function<void()> work) {
    (kind == WorkKind::kDisk ? disk_work_ : network_work_).push(std::move(work));
  }

  /// What work let escape, the last time; nothing while all is well.
  std::optional<std::string> broken() const;

 private:
  void add_workers(std::size_t count, WorkQueue& queue);
  void serve(WorkQueue& queue, const std::stop_token& stop);

  mutable std::mutex broken_mutex_;
  std::optional<std::string> broken_;

  WorkQueue inbox_;
  WorkQueue disk_work_;
  WorkQueue network_work_;
  std::vector<std::jthread> workers_;
  std::jthread owner_;
};

}  // namespace necrocode::pool
