// What the registry's tests share: a clock they own, a store in a folder of its own, short task
// lists.
#pragma once

#include <gmock/gmock.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>

#include "necrocode/base/file.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/registry/sqlite_store.hpp"

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

/// A store whose changes are each a transaction of its own.
class OpenStore final : public SqliteTaskStore {
 public:
  using SqliteTaskStore::SqliteTaskStore;
  Submitted submit(const Submission& whole) {
    const bool created = change([&](TaskChanges& changes) { return changes.submit(whole); });
    return {taskset(whole.spec_name, TasksetPart::kWhole), created};
  }
  Task set_status(const std::string& id, const StatusChange& status) {
    return change([&](TaskChanges& changes) { return changes.set_status(id, status); });
  }
  Event add_event(const std::string& id, const NewEvent& event) {
    return change([&](TaskChanges& changes) { return changes.add_event(id, event); });
  }
  ArtifactRef add_artifact(const std::string& id, const NewArtifact& artifact) {
    return change([&](TaskChanges& changes) { return changes.add_artifact(id, artifact); });
  }
  std::vector<ClaimOutcome> claim(const std::vector<ClaimRequest>& requests) {
    return change([&](TaskChanges& changes) { return changes.claim(requests); });
  }
  void give_back(const std::vector<LeaseRef>& leases) {
    transact([&](TaskChanges& changes) { changes.give_back(leases); });
  }
  Completed complete(const std::string& id, const Completion& completion, const NextClaim& next,
                     const VersionCondition& expected = {}) {
    return change(
        [&](TaskChanges& changes) { return changes.complete(id, completion, next, expected); });
  }
  Task cancel(const std::string& id, const std::string& reason,
              const VersionCondition& expected = {}) {
    return change([&](TaskChanges& changes) { return changes.cancel(id, reason, expected); });
  }
  Task retry(const std::string& id, const VersionCondition& expected = {}) {
    return change([&](TaskChanges& changes) { return changes.retry(id, expected); });
  }
};

class StoreTest : public testing::Test {
 protected:
  StoreTest() { reopen(); }

  void reopen() {
    store.reset();
    store = std::make_unique<OpenStore>(folder.path() / "registry.db", clock);
  }

  std::vector<ClaimedTask> claim(int max = 1, std::vector<std::string> skills = {}) {
    ClaimRequest request;
    request.runner_id.value = "runner-1";
    request.max = max;
    request.skills = std::move(skills);
    return store->claim({request}).front().get();
  }
  ClaimedTask claim_one() {
    auto claimed = claim();
    EXPECT_EQ(claimed.size(), 1u);
    return claimed.empty() ? ClaimedTask{} : claimed.front();
  }
  Task complete(const ClaimedTask& claimed, TaskState status = TaskState::kDone,
                Json metadata = Json::object()) {
    Completion completion;
    completion.lease_token = claimed.lease_token;
    completion.status = status;
    completion.metadata = std::move(metadata);
    if (status == TaskState::kFailed) completion.failure = Failure{"tests", "2 of 3 failed", {}};
    return store->complete(claimed.task.id, completion, {}).task;
  }
  Task set_status(const std::string& id, TaskState status, const std::string& token = {}) {
    StatusChange change;
    change.status = status;
    change.lease_token.value = token;
    return store->set_status(id, change);
  }
  TaskState state(const std::string& id) { return store->task(id).state; }
  std::vector<std::string> event_types(const std::string& id) {
    EventQuery query;
    query.task_id = id;
    std::vector<std::string> types;
    for (const Event& event : store->events(query).items) types.push_back(event.event_type);
    return types;
  }

  TemporaryDirectory folder;
  ManualClock clock;
  std::unique_ptr<OpenStore> store;
};

}  // namespace necrocode::registry
