#include "necrocode/pool/manager_threads.hpp"

#include <algorithm>
#include <utility>

#include "necrocode/observe/log.hpp"

namespace necrocode::pool {

bool WorkQueue::push(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return false;
    queue_.push_back(std::move(work));
  }
  wake_.notify_one();
  return true;
}

void WorkQueue::close() {
  std::deque<std::function<void()>> dropped;
  const std::lock_guard lock(mutex_);
  closed_ = true;
  queue_.swap(dropped);
}

std::optional<std::function<void()>> WorkQueue::pop(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, stop, [this] { return !queue_.empty(); });
  if (queue_.empty()) return {};
  std::function<void()> work = std::move(queue_.front());
  queue_.pop_front();
  return work;
}

void ManagerThreads::add_workers(std::size_t count, WorkQueue& queue) {
  for (std::size_t i = 0; i < std::max<std::size_t>(1, count); ++i) {
    workers_.emplace_back([this, &queue](const std::stop_token& stop) { serve(queue, stop); });
  }
}

void ManagerThreads::start(std::size_t disk_workers, std::size_t network_workers) {
  add_workers(disk_workers, disk_work_);
  add_workers(network_workers, network_work_);
  owner_ = std::jthread([this](const std::stop_token& stop) { serve(inbox_, stop); });
}

void ManagerThreads::stop() {
  disk_work_.close();
  network_work_.close();
  for (std::jthread& worker : workers_) worker.request_stop();
  workers_.clear();
  owner_.request_stop();
  owner_.join();
  inbox_.close();
}

std::optional<std::string> ManagerThreads::broken() const {
  const std::lock_guard lock(broken_mutex_);
  return broken_;
}

void ManagerThreads::serve(WorkQueue& queue, const std::stop_token& stop) {
  while (const auto work = queue.pop(stop)) {
    try {
      (*work)();
    } catch (const std::exception& error) {
      // Work reports its errors itself; what arrives here leaves us without knowing where we
      // stand.
      log::error("pool manager: unexpected error", {{"error", error.what()}});
      const std::lock_guard lock(broken_mutex_);
      broken_ = error.what();
    }
  }
}

}  // namespace necrocode::pool
