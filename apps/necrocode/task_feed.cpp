#include "task_feed.hpp"

#include <utility>

namespace necrocode::app {
namespace {

constexpr std::size_t kEventsAhead = 256;

}  // namespace

TaskFeed::TaskFeed(TaskRegistryClient& client, const registry::EventFilter& filter,
                   std::stop_token stop)
    : client_(client),
      stop_(std::move(stop)),
      receiving_([this, filter](const std::stop_token& ended) { receive(filter, ended); }) {}

void TaskFeed::receive(const registry::EventFilter& filter, const std::stop_token& ended) {
  CallContext context;
  context.stop = ended;
  std::exception_ptr failure;
  const auto on_event = [&](const registry::Event& event) { return put(event, ended); };
  try {
    client_.watch(filter, on_event, context);
  } catch (...) {
    failure = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  failure_ = std::move(failure);
  changed_.notify_all();
}

bool TaskFeed::put(const registry::Event& event, const std::stop_token& ended) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait(lock, ended, [&] { return events_.size() < kEventsAhead; })) return false;
  events_.push_back(event);
  changed_.notify_all();
  return true;
}

std::optional<registry::Event> TaskFeed::next(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, stop_, wait, [&] { return !events_.empty() || failure_; });
  if (events_.empty()) {
    if (failure_) std::rethrow_exception(failure_);
    return std::nullopt;
  }
  registry::Event event = std::move(events_.front());
  events_.pop_front();
  changed_.notify_all();
  return event;
}

}  // namespace necrocode::app
