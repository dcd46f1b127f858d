// HandlerPool: the threads that run handlers, behind a bounded queue. Knows nothing of HTTP.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace necrocode::net {

/// Thread-safe. A job must not throw.
class HandlerPool {
 public:
  using Job = std::function<void()>;
  HandlerPool(std::size_t threads, std::size_t queue_max);
  ~HandlerPool();
  HandlerPool(const HandlerPool&) = delete;
  HandlerPool& operator=(const HandlerPool&) = delete;

  /// False when the queue is full: the job is not taken.
  bool try_submit(Job job);
  /// For work that has been admitted before (a further piece, a parked answer's end); there is
  /// never more of it than connections.
  void submit(Job job);
  /// Runs what is queued, then ends the threads. Not from a job.
  void stop();

 private:
  void work();
  const std::size_t queue_max_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> queue_;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace necrocode::net
