// The suite of TaskStore: one set of tests for every store. Another store adds its factory to
// stores.cpp, and nothing else.
#pragma once

#include <gmock/gmock.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>

#include "necrocode/base/file.hpp"
#include "support/registry_fixture.hpp"

namespace necrocode::registry {

struct StoreFactory {
  std::string name;
  /// A store whose data is in that folder.
  std::function<std::unique_ptr<TaskStore>(const std::filesystem::path&, const Clock&,
                                           const StoreOptions&)>
      make;
  bool persistent = true;  ///< made again in the same folder it knows what it knew
  int wide = 10'000;       ///< children or parents of one task, in the tests of wide graphs
};
const std::vector<StoreFactory>& store_factories();

inline void PrintTo(const StoreFactory& factory, std::ostream* out) {
  *out << factory.name;
}
inline std::string name_of_factory(const testing::TestParamInfo<StoreFactory>& info) {
  return info.param.name;
}

/// What a single claim gives to a runner; the suite's tests are written with these.
class TaskStoreSuite : public testing::TestWithParam<StoreFactory>,
                       public SingleChanges<TaskStoreSuite> {
 public:
  template <class Operation>
  auto change(Operation&& operation) {
    return store->change(std::forward<Operation>(operation));
  }
  void transact(const std::function<void(TaskChanges&)>& work) { store->transact(work); }
  Taskset taskset(const std::string& spec, TasksetPart part = TasksetPart::kWhole) {
    return store->taskset(spec, part);
  }

 protected:
  using SingleChanges::complete;
  using SingleChanges::set_status;

  TaskStoreSuite() { open(); }

  void open(const StoreOptions& options = {}) {
    store.reset();
    store = GetParam().make(folder.path(), clock, options);
  }

  std::vector<ClaimOutcome> claim_each(const std::vector<ClaimRequest>& requests) {
    return SingleChanges::claim(requests);
  }
  std::vector<ClaimedTask> claim(ClaimRequest request) {
    if (request.runner_id.value.empty()) request.runner_id.value = "runner-1";
    return claim_each({std::move(request)}).front().get();
  }
  std::vector<ClaimedTask> claim(int max = 1, std::vector<std::string> skills = {}) {
    ClaimRequest request;
    request.max = max;
    request.skills = std::move(skills);
    return claim(request);
  }
  /// The ids of what a claim of up to `max` gives.
  std::vector<std::string> claim_ids(int max = 1) { return ids_of(claim(max)); }
  static std::vector<std::string> ids_of(const std::vector<ClaimedTask>& claimed) {
    std::vector<std::string> ids;
    for (const ClaimedTask& task : claimed) ids.push_back(task.task.id);
    return ids;
  }
  ClaimedTask claim_one() {
    auto claimed = claim();
    EXPECT_EQ(claimed.size(), 1u);
    return claimed.empty() ? ClaimedTask{} : claimed.front();
  }
  std::vector<ClaimedTask> claim_for(const std::string& provider, int max = 1) {
    ClaimRequest request;
    request.provider = provider;
    request.max = max;
    return claim(request);
  }
  std::vector<ClaimedTask> claim_named(const std::string& id) {
    ClaimRequest request;
    request.task_id = id;
    return claim(request);
  }

  Task complete(const ClaimedTask& claimed, TaskState status = TaskState::kDone,
                Json metadata = Json::object()) {
    Completion completion;
    completion.lease_token = claimed.lease_token;
    completion.status = status;
    completion.metadata = std::move(metadata);
    if (status == TaskState::kFailed) completion.failure = Failure{"tests", "2 of 3 failed", {}};
    return complete(claimed.task.id, completion, {}).task;
  }
  Task fail(const ClaimedTask& claimed, const std::string& failure_class,
            std::optional<SystemTime> retry_at = {}, Json metadata = Json::object()) {
    Completion completion;
    completion.lease_token = claimed.lease_token;
    completion.status = TaskState::kFailed;
    completion.metadata = std::move(metadata);
    completion.failure = Failure{failure_class, "because of " + failure_class, retry_at};
    return complete(claimed.task.id, completion, {}).task;
  }
  Task set_status(const std::string& id, TaskState status, const std::string& token = {}) {
    StatusChange change;
    change.status = status;
    change.lease_token.value = token;
    return set_status(id, change);
  }
  Task task(const std::string& id) { return store->task(id); }
  TaskState state(const std::string& id) { return task(id).state; }
  void advance(std::chrono::nanoseconds duration) {
    clock.advance(duration);
    store->do_due();
  }
  std::vector<Event> events_of(const std::string& id) {
    EventQuery query;
    query.task_id = id;
    return store->events(query).items;
  }
  std::vector<std::string> event_types(const std::string& id) {
    std::vector<std::string> types;
    for (const Event& event : events_of(id)) types.push_back(event.event_type);
    return types;
  }
  /// The kinds of the reasons why it does not run.
  std::vector<std::string> waits_for(const std::string& id) {
    std::vector<std::string> kinds;
    for (const WaitReason& reason : store->explain(id).reasons) kinds.push_back(reason.kind);
    return kinds;
  }
  template <class Call>
  static std::string refused(Call&& call) {
    try {
      call();
    } catch (const TaskContextValidationError& error) {
      std::string text;
      for (const FieldError& field : error.info().fields) {
        text += field.pointer + " " + field.message + "\n";
      }
      return text;
    }
    ADD_FAILURE() << "was accepted";
    return {};
  }

  TemporaryDirectory folder;
  ManualClock clock;
  std::unique_ptr<TaskStore> store;
};

}  // namespace necrocode::registry
