// What the registry's tests share: a SQLite store in a folder of its own.
#pragma once

#include <gmock/gmock.h>

#include <memory>
#include <set>

#include "necrocode/base/file.hpp"
#include "necrocode/registry/sqlite_store.hpp"
#include "support/registry_fixture.hpp"

namespace necrocode::registry {

class OpenStore final : public SqliteTaskStore, public SingleChanges<OpenStore> {
 public:
  using SqliteTaskStore::SqliteTaskStore;
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
