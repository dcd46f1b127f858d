// What the pool's tests have in common: git, a clock that the test moves, answers to wait for.
#pragma once

#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>

#include "necrocode/git/repository.hpp"
#include "necrocode/pool/pool_manager.hpp"
#include "support/git_fixture.hpp"

namespace necrocode::pool::test {

using necrocode::test::GitRemote;
using necrocode::test::read;
using necrocode::test::shell;
using necrocode::test::write;

inline git::Git& real_git() {
  static process::Supervisor supervisor;
  static git::Git git{supervisor, git::GitOptions{}};
  return git;
}

/// Stands still until advance().
class FakeClock final : public Clock {
 public:
  SteadyTime steady_now() const override {
    const std::lock_guard lock(mutex_);
    return now_;
  }
  SystemTime system_now() const override {
    const std::lock_guard lock(mutex_);
    return SystemTime{} + std::chrono::hours(24 * 365 * 50) +
           std::chrono::duration_cast<SystemTime::duration>(now_ - SteadyTime{});
  }
  bool sleep_until(SteadyTime until, const std::stop_token& stop) const override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, [&] { return now_ >= until; });
    return !stop.stop_requested();
  }
  void advance(std::chrono::nanoseconds time) {
    {
      const std::lock_guard lock(mutex_);
      now_ += time;
    }
    changed_.notify_all();
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  SteadyTime now_{std::chrono::hours(1)};
};

/// One answer of the manager, whenever it comes.
template <class T>
class Pending {
 public:
  explicit Pending(bool taken = true) : taken_(taken) {}
  Deliver<T> deliver() {
    return [promise = promise_, taken = taken_](Answer<T> answer) {
      if (auto* error = std::get_if<std::exception_ptr>(&answer)) {
        promise->set_exception(*error);
      } else {
        promise->set_value(std::get<T>(std::move(answer)));
      }
      return taken;
    };
  }
  /// Throws what the manager answered.
  T get() {
    if (future_.wait_for(std::chrono::seconds(60)) != std::future_status::ready) {
      throw std::runtime_error("no answer within a minute");
    }
    return future_.get();
  }
  bool ready() const {
    return future_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }

 private:
  bool taken_;
  std::shared_ptr<std::promise<T>> promise_ = std::make_shared<std::promise<T>>();
  std::future<T> future_ = promise_->get_future();
};

}  // namespace necrocode::pool::test
