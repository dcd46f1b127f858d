// Graphs of many tasks, and many changes at once.
#include <algorithm>
#include <atomic>
#include <random>
#include <semaphore>
#include <set>
#include <thread>

#include "conformance/task_store_suite.hpp"

namespace necrocode::registry {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

using TaskStoreGraphs = TaskStoreSuite;
INSTANTIATE_TEST_SUITE_P(Stores, TaskStoreGraphs, testing::ValuesIn(store_factories()),
                         name_of_factory);

TEST_P(TaskStoreGraphs, TwoParentsFinishingAtOnceFreeTheirChildOnce) {
  for (int round = 0; round < 20; ++round) {
    const std::string spec = "s" + std::to_string(round);
    submit(submission(spec, {task_spec("1"), task_spec("2"), task_spec("3", {"1", "2"})}));
    const auto parents = claim(2);
    std::thread other([&] { complete(parents[0]); });
    complete(parents[1]);
    other.join();
    EXPECT_THAT(event_types(spec + ":3"), ElementsAre("TaskCreated", "TaskReady"));
    complete(claim_one());
  }
}

TEST_P(TaskStoreGraphs, WideGraphsUnblockWhole) {
  constexpr int kWide = 500;
  std::vector<TaskSpec> tasks{task_spec("1")};
  std::vector<std::string> all;
  for (int i = 0; i < kWide; ++i) {
    all.push_back("2." + std::to_string(i));
    tasks.push_back(task_spec(all.back(), {"1"}));
  }
  tasks.push_back(task_spec("3", all));
  submit(submission("app", tasks));
  EXPECT_THAT(task("app:3").blocked_reason, HasSubstr("and 497 more"));
  complete(claim_one());
  int finished = 0;
  while (true) {
    const auto claimed = claim(100);
    if (claimed.empty()) break;
    for (const ClaimedTask& task : claimed) complete(task);
    finished += static_cast<int>(claimed.size());
  }
  EXPECT_EQ(finished, kWide + 1);
}

TEST_P(TaskStoreGraphs, RandomGraphsRunInTheOrderOfTheirEdges) {
  for (unsigned seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const std::string spec = "s" + std::to_string(seed);
    constexpr int kTasks = 60;
    std::vector<TaskSpec> tasks;
    for (int i = 0; i < kTasks; ++i) {
      std::vector<std::string> parents;
      for (int j = 0; j < i; ++j) {
        if (random() % 10 == 0) parents.push_back(std::to_string(j));
      }
      tasks.push_back(task_spec(std::to_string(i), parents));
    }
    std::shuffle(tasks.begin(), tasks.end(), random);  // parents may come later in the list
    submit(submission(spec, tasks));
    std::set<std::string> done;
    while (true) {
      std::vector<ClaimedTask> claimed = claim(1 + static_cast<int>(random() % 4));
      if (claimed.empty()) break;
      for (const ClaimedTask& one : claimed) {
        for (const std::string& parent : one.task.dependencies) EXPECT_EQ(done.count(parent), 1u);
      }
      std::shuffle(claimed.begin(), claimed.end(), random);
      for (const ClaimedTask& one : claimed) {
        complete(one);
        done.insert(one.task.id);
      }
    }
    EXPECT_THAT(done, SizeIs(kTasks));
  }
}

TEST_P(TaskStoreGraphs, OneParentFreesThousandsAndThousandsFreeOneChild) {
  const int wide = GetParam().wide;
  std::vector<TaskSpec> tasks{task_spec("root")};
  std::vector<std::string> all;
  for (int i = 0; i < wide - 2; ++i) {
    all.push_back(std::to_string(i));
    tasks.push_back(task_spec(all.back(), {"root"}));
  }
  tasks.push_back(task_spec("leaf", all));
  submit(submission("app", tasks));
  complete(claim_one());
  EXPECT_EQ(store->counts()[TaskState::kReady], wide - 2);
  transact([&](TaskChanges& changes) {
    for (int given = 0; given < wide - 2;) {
      ClaimRequest request;
      request.max = static_cast<int>(limits::kClaimMax);
      const std::vector<ClaimOutcome> outcomes = changes.claim({request});
      for (const ClaimedTask& claimed : outcomes.front().get()) {
        Completion completion;
        completion.lease_token = claimed.lease_token;
        changes.complete(claimed.task.id, completion, {});
        ++given;
      }
    }
  });
  EXPECT_EQ(claim_one().task.id, "app:leaf");
  EXPECT_EQ(store->counts()[TaskState::kDone], wide - 1);
}

TEST_P(TaskStoreGraphs, LaterTransactionsAreDoneOnceEachOrTellWhatTheyThrew) {
  constexpr int kTasks = 100;
  std::vector<TaskSpec> tasks;
  for (int i = 0; i < kTasks; ++i) tasks.push_back(task_spec(std::to_string(i)));
  submit(submission("app", tasks));
  std::atomic<int> cancelled{0};
  std::atomic<int> refused{0};
  std::binary_semaphore all_done{0};
  std::atomic<int> left{kTasks + 1};
  for (int i = 0; i <= kTasks; ++i) {
    const std::string id = "app:" + std::to_string(i);  // the last is unknown
    store->transact_later([id](TaskChanges& changes) { changes.cancel(id, ""); },
                          [&](const std::exception_ptr& problem) {
                            problem ? ++refused : ++cancelled;
                            if (--left == 0) all_done.release();
                          });
  }
  all_done.acquire();
  EXPECT_EQ(cancelled, kTasks);
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(store->counts()[TaskState::kCancelled], kTasks);
}

}  // namespace
}  // namespace necrocode::registry
