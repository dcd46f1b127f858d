// TaskFeed: a registry's events, taken when there is time for them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "necrocode/registry/client.hpp"

namespace necrocode::app {

/// For one thread. What is not taken yet is bounded: the feed waits.
class TaskFeed {
 public:
  /// Of `filter`, from its `after` on. `client` must outlive it.
  TaskFeed(TaskRegistryClient& client, const registry::EventFilter& filter, std::stop_token stop);

  /// Nothing when none came within `wait`, or when a stop was requested. Throws what ended the
  /// feed.
  std::optional<registry::Event> next(std::chrono::milliseconds wait);

 private:
  void receive(const registry::EventFilter& filter, const std::stop_token& ended);
  bool put(const registry::Event& event, const std::stop_token& ended);

  TaskRegistryClient& client_;
  const std::stop_token stop_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<registry::Event> events_;
  std::exception_ptr failure_;
  std::jthread receiving_;  ///< last: it uses the others
};

}  // namespace necrocode::app
