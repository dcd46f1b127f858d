// What the tests of the registry's stores share: a clock they own, short task lists, and changes
// that are each a transaction of their own.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

/// Stands still until it is told to go on; who sleeps until then is woken.
class ManualClock final : public Clock {
 public:
  SteadyTime steady_now() const override {
    const std::lock_guard lock(mutex_);
    return steady_;
  }
  SystemTime system_now() const override {
    const std::lock_guard lock(mutex_);
    return system_;
  }
  bool sleep_until(SteadyTime until, const std::stop_token& stop) const override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, [&] { return steady_ >= until; });
    return !stop.stop_requested();
  }
  void advance(std::chrono::nanoseconds duration) {
    const std::lock_guard lock(mutex_);
    steady_ += duration;
    system_ += std::chrono::duration_cast<SystemTime::duration>(duration);
    changed_.notify_all();
  }
  void step_system(std::chrono::nanoseconds duration) {
    const std::lock_guard lock(mutex_);
    system_ += std::chrono::duration_cast<SystemTime::duration>(duration);
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  SteadyTime steady_{std::chrono::hours(1)};
  SystemTime system_{std::chrono::hours(24 * 365 * 50)};
};

inline TaskSpec task_spec(const std::string& number,
                          const std::vector<std::string>& dependencies = {},
                          Json more = Json::object()) {
  more.set("id", number);
  more.set("title", "Task " + number);
  more.set("dependencies", dependencies);
  JsonFields reader(more);
  TaskSpec task = TaskSpec::from_json(reader);
  EXPECT_TRUE(reader.errors().empty());
  return task;
}

inline Submission submission(const std::string& spec, std::vector<TaskSpec> tasks) {
  Submission whole;
  whole.spec_name = spec;
  whole.tasks = std::move(tasks);
  return whole;
}

struct Submitted {
  Taskset taskset;
  bool created = false;
};

/// The changes of a store, each a transaction of its own. `Store` derives from this and has
/// change(), transact() and taskset() as TaskStore.
template <class Store>
class SingleChanges {
 public:
  Submitted submit(const Submission& whole) {
    const bool created = self().change([&](TaskChanges& changes) { return changes.submit(whole); });
    return {self().taskset(whole.spec_name, TasksetPart::kWhole), created};
  }
  Task set_status(const std::string& id, const StatusChange& status) {
    return self().change([&](TaskChanges& changes) { return changes.set_status(id, status); });
  }
  Event add_event(const std::string& id, const NewEvent& event) {
    return self().change([&](TaskChanges& changes) { return changes.add_event(id, event); });
  }
  ArtifactRef add_artifact(const std::string& id, const NewArtifact& artifact) {
    return self().change([&](TaskChanges& changes) { return changes.add_artifact(id, artifact); });
  }
  std::vector<ClaimOutcome> claim(const std::vector<ClaimRequest>& requests) {
    return self().change([&](TaskChanges& changes) { return changes.claim(requests); });
  }
  void give_back(const std::vector<LeaseRef>& leases) {
    self().transact([&](TaskChanges& changes) { changes.give_back(leases); });
  }
  Completed complete(const std::string& id, const Completion& completion, const NextClaim& next,
                     const VersionCondition& expected = {}) {
    return self().change(
        [&](TaskChanges& changes) { return changes.complete(id, completion, next, expected); });
  }
  Task cancel(const std::string& id, const std::string& reason,
              const VersionCondition& expected = {}) {
    return self().change(
        [&](TaskChanges& changes) { return changes.cancel(id, reason, expected); });
  }
  Task retry(const std::string& id, const VersionCondition& expected = {}) {
    return self().change([&](TaskChanges& changes) { return changes.retry(id, expected); });
  }
  Task patch(const std::string& id, const TaskPatch& patch) {
    return self().change([&](TaskChanges& changes) { return changes.patch(id, patch); });
  }
  ParkedProvider park(const std::string& provider, SystemTime until, const std::string& reason) {
    return self().change(
        [&](TaskChanges& changes) { return changes.park(provider, until, reason); });
  }
  void unpark(const std::string& provider) {
    self().transact([&](TaskChanges& changes) { changes.unpark(provider); });
  }

 private:
  Store& self() { return static_cast<Store&>(*this); }
};

}  // namespace necrocode::registry
