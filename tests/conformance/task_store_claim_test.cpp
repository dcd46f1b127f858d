// Which task a claim gives.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "conformance/task_store_suite.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::registry {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

using TaskStoreClaim = TaskStoreSuite;
INSTANTIATE_TEST_SUITE_P(Stores, TaskStoreClaim, testing::ValuesIn(store_factories()),
                         name_of_factory);

TEST_P(TaskStoreClaim, ClaimsGoByPriorityThenAge) {
  submit(submission("app", {task_spec("1"), task_spec("2", {}, Json::object({{"priority", 1}})),
                            task_spec("3")}));
  EXPECT_EQ(claim_one().task.id, "app:2");
  const auto both = claim(5);
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[0].task.id, "app:1");
  EXPECT_EQ(both[1].task.id, "app:3");
  EXPECT_EQ(both[0].task.attempt, 1);
  EXPECT_EQ(both[0].lease_token.value.size(), 32u);
  EXPECT_NE(both[0].lease_token, both[1].lease_token);
  EXPECT_THAT(claim(), IsEmpty());
  EXPECT_THAT(event_types("app:1"), ElementsAre("TaskCreated", "TaskAssigned"));
}

TEST_P(TaskStoreClaim, SkillsFilterClaimsAndNoneMeansAny) {
  submit(submission(
      "app", {task_spec("1", {}, Json::object({{"required_skill", "rust"}})), task_spec("2")}));
  const auto claimed = claim(5, {"python"});
  ASSERT_EQ(claimed.size(), 1u);
  EXPECT_EQ(claimed[0].task.id, "app:2");
  EXPECT_EQ(claim_one().task.id, "app:1");
}

TEST_P(TaskStoreClaim, ClaimOfOneNamedTaskTakesOnlyThat) {
  submit(submission("app", {task_spec("1"), task_spec("2"), task_spec("3", {"1"})}));
  ClaimRequest request;
  request.task_id = "2";
  EXPECT_EQ(claim_each({request}).front().get().at(0).task.id, "app:2");
  EXPECT_THAT(claim_each({request}).front().get(), IsEmpty());
  request.task_id = "app:3";  // an open dependency
  EXPECT_THAT(claim_each({request}).front().get(), IsEmpty());
  request.task_id = "app:4";
  EXPECT_THROW(claim_each({request}).front().get(), NotFound);
}

TEST_P(TaskStoreClaim, OneTransactionServesSeveralClaimantsInTheirOrder) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
  ClaimRequest any;
  ClaimRequest rust;
  rust.skills = {"rust"};
  const auto claims = claim_each({rust, any, any, rust});
  EXPECT_EQ(claims[0].get().at(0).task.id, "app:1");
  EXPECT_EQ(claims[1].get().at(0).task.id, "app:2");
  EXPECT_THAT(claims[2].get(), IsEmpty());
  EXPECT_THAT(claims[3].get(), IsEmpty());
}

TEST_P(TaskStoreClaim, ClaimOfAWrongTaskIsRefusedAlone) {
  submit(submission("a", {task_spec("1")}));
  submit(submission("b", {task_spec("1")}));
  ClaimRequest any;
  ClaimRequest ambiguous;
  ambiguous.task_id = "1";
  ClaimRequest unknown;
  unknown.task_id = "a:2";
  const auto claims = claim_each({ambiguous, any, unknown, any});
  EXPECT_THROW(claims[0].get(), Conflict);
  EXPECT_EQ(claims[1].get().at(0).task.id, "a:1");
  EXPECT_THROW(claims[2].get(), NotFound);
  EXPECT_EQ(claims[3].get().at(0).task.id, "b:1");
}

TEST_P(TaskStoreClaim, CompletionWhoseNextTaskIsUnknownIsNoLess) {
  submit(submission("app", {task_spec("1")}));
  Completion completion;
  completion.lease_token = claim_one().lease_token;
  NextClaim next;
  next.wanted = true;
  next.terms.emplace().task_id = "app:9";
  const Completed completed = complete("app:1", completion, next);
  EXPECT_EQ(completed.task.state, TaskState::kDone);
  EXPECT_FALSE(completed.next.has_value());
}

TEST_P(TaskStoreClaim, RacingClaimsHaveOneWinnerEach) {
  const int count = std::min(1000, GetParam().wide);
  constexpr int kThreads = 16;
  std::vector<TaskSpec> tasks;
  for (int i = 0; i < count; ++i) tasks.push_back(task_spec(std::to_string(i)));
  submit(submission("app", tasks));
  std::mutex mutex;
  std::multiset<std::string> winners;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      while (true) {
        const auto claimed = claim();
        if (claimed.empty()) return;
        const std::lock_guard lock(mutex);
        winners.insert(claimed.front().task.id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(winners.size(), static_cast<std::size_t>(count));
  EXPECT_EQ(std::set<std::string>(winners.begin(), winners.end()).size(), winners.size());
  EXPECT_EQ(taskset("app", TasksetPart::kHead).counts["running"], Json(count));
}

TEST_P(TaskStoreClaim, SpecsTakeTurnsByTheirRunningTasks) {
  submit(submission("a", {task_spec("1"), task_spec("2"), task_spec("3"), task_spec("4")}));
  submit(submission("b", {task_spec("1"), task_spec("2")}));
  submit(submission("c", {task_spec("1", {}, Json::object({{"priority", 1}}))}));
  EXPECT_THAT(claim_ids(7), ElementsAre("c:1", "a:1", "b:1", "a:2", "b:2", "a:3", "a:4"));
}

TEST_P(TaskStoreClaim, SpecRunsNoMoreThanItsLimitAndGoesOnWhenOneEnds) {
  Submission whole = submission("app", {task_spec("1"), task_spec("2"), task_spec("3")});
  whole.max_running = 1;
  submit(whole);
  submit(submission("other", {task_spec("1")}));
  const auto claimed = claim(5);
  EXPECT_THAT(ids_of(claimed), ElementsAre("app:1", "other:1"));
  EXPECT_THAT(waits_for("app:2"), ElementsAre("spec_limit"));
  EXPECT_THAT(claim_named("app:2"), IsEmpty());
  complete(claimed.front());
  EXPECT_THAT(claim_ids(5), ElementsAre("app:2"));
  Submission more = submission("app", {});
  more.max_running = 2;
  submit(more);
  EXPECT_THAT(claim_ids(5), ElementsAre("app:3"));
}

TEST_P(TaskStoreClaim, RunWithoutALeaseCountsForTheLimitToo) {
  Submission whole = submission("app", {task_spec("1"), task_spec("2")});
  whole.max_running = 1;
  submit(whole);
  set_status("app:1", TaskState::kRunning);
  EXPECT_THAT(claim(), IsEmpty());
  set_status("app:1", TaskState::kDone);
  EXPECT_EQ(claim_one().task.id, "app:2");
}

TEST_P(TaskStoreClaim, SkillRunsNoMoreThanItsLimitOverAllSpecs) {
  open({{{"gpu", 1}}});
  const Json gpu = Json::object({{"required_skill", "gpu"}});
  submit(submission("a", {task_spec("1", {}, gpu)}));
  submit(submission("b", {task_spec("1", {}, gpu), task_spec("2")}));
  const auto claimed = claim(5);
  EXPECT_THAT(ids_of(claimed), ElementsAre("a:1", "b:2"));
  EXPECT_THAT(waits_for("b:1"), ElementsAre("skill_limit"));
  advance(60s);
  EXPECT_THAT(claim_ids(1), ElementsAre("a:1"));
}

TEST_P(TaskStoreClaim, TasksThatTouchTheSameFilesOfARepositoryDoNotRunTogether) {
  const auto touching = [](const std::string& glob, const std::string& repository) {
    return Json::object({{"touches", std::vector<std::string>{glob}}, {"repo_url", repository}});
  };
  const std::string here = "https://example.org/a.git";
  submit(submission("app", {task_spec("1", {}, touching("src/net", here)),
                            task_spec("2", {}, touching("src/**/*.cpp", here)),
                            task_spec("3", {}, touching("src/net", "https://example.org/b.git")),
                            task_spec("4", {}, touching("docs/*.md", here)),
                            task_spec("5", {}, Json::object({{"repo_url", here}}))}));
  const auto claimed = claim(5);
  EXPECT_THAT(ids_of(claimed), ElementsAre("app:1", "app:3", "app:4", "app:5"));
  const Explanation why = store->explain("app:2");
  ASSERT_EQ(why.reasons.size(), 1u);
  EXPECT_EQ(why.reasons.front().kind, "touches");
  EXPECT_EQ(why.reasons.front().task_id, "app:1");
  EXPECT_FALSE(why.claimable);
  complete(claimed.front());
  EXPECT_TRUE(store->explain("app:2").claimable);
  EXPECT_EQ(claim_one().task.id, "app:2");
}

TEST_P(TaskStoreClaim, RunningTaskThatNoLongerTouchesTheFilesHoldsNobody) {
  const Json touching = Json::object({{"touches", std::vector<std::string>{"src"}}});
  submit(submission("app", {task_spec("1", {}, touching), task_spec("2", {}, touching)}));
  claim_one();
  EXPECT_THAT(claim(), IsEmpty());
  std::atomic<bool> told{false};
  store->on_commit([&](const CommitNews& news) { told = told || news.became_claimable; });
  submit(submission("app", {task_spec("1")}));
  EXPECT_TRUE(told);
  EXPECT_EQ(claim_one().task.id, "app:2");
}

TEST_P(TaskStoreClaim, SpentBudgetEndsClaimsUntilItIsRaised) {
  Submission whole = submission("app", {task_spec("1"), task_spec("2"), task_spec("3")});
  whole.budget_usd = 1;
  submit(whole);
  const auto usage = [](double usd, int tokens) {
    return Json::object({{"usage", Json::object({{"cost_usd", usd}, {"total_tokens", tokens}})}});
  };
  fail(claim_one(), "agent", {}, usage(0.75, 300));  // failed attempts cost too
  complete(claim_one(), TaskState::kDone, usage(0.25, 200));
  EXPECT_THAT(claim(), IsEmpty());
  EXPECT_THAT(claim_named("app:3"), IsEmpty());
  EXPECT_THAT(waits_for("app:3"), ElementsAre("budget"));
  EXPECT_EQ(taskset("app").spent_usd, 1.0);
  EXPECT_EQ(taskset("app").spent_tokens, 500);
  Submission more = submission("app", {});
  more.budget_usd = 2;
  more.budget_tokens = 500;
  submit(more);
  EXPECT_THAT(waits_for("app:3"), ElementsAre("budget"));  // of tokens now
  more.budget_tokens = 501;
  submit(more);
  EXPECT_EQ(claim_one().task.id, "app:3");
}

TEST_P(TaskStoreClaim, UsageThatIsNoNumberCostsNothing) {
  submit(submission("app", {task_spec("1")}));
  complete(claim_one(), TaskState::kDone,
           Json::object({{"usage", Json::object({{"cost_usd", -3}, {"total_tokens", "a lot"}})}}));
  EXPECT_EQ(taskset("app").spent_usd, 0.0);
  EXPECT_EQ(taskset("app").spent_tokens, 0);
}

TEST_P(TaskStoreClaim, ProviderFiltersTasksThatNameAnother) {
  submit(submission("app",
                    {task_spec("1", {}, Json::object({{"provider", "openai"}})),
                     task_spec("2", {}, Json::object({{"provider", "local"}})), task_spec("3")}));
  EXPECT_THAT(ids_of(claim_for("local", 5)), ElementsAre("app:2", "app:3"));
  EXPECT_THAT(ids_of(claim_for("", 5)), ElementsAre("app:1"));
}

TEST_P(TaskStoreClaim, TaskWaitsForItsTimeByTheMonotonicClock) {
  const SystemTime then = clock.system_now() + 30s;
  submit(submission(
      "app", {task_spec("1", {}, Json::object({{"not_before", to_rfc3339(then)}})),
              task_spec("2", {}, Json::object({{"not_before", to_rfc3339(clock.system_now())}}))}));
  EXPECT_EQ(task("app:1").not_before, then);
  EXPECT_FALSE(task("app:2").not_before.has_value());
  EXPECT_THAT(claim_ids(5), ElementsAre("app:2"));
  EXPECT_THAT(claim_named("app:1"), IsEmpty());
  const Explanation why = store->explain("app:1");
  ASSERT_EQ(why.reasons.size(), 1u);
  EXPECT_EQ(why.reasons.front().kind, "not_before");
  EXPECT_EQ(why.reasons.front().until, then);
  clock.step_system(2h);
  EXPECT_EQ(store->do_due(), std::chrono::nanoseconds(30s));
  EXPECT_THAT(claim(), IsEmpty());
  clock.step_system(-4h);
  const std::int64_t version = task("app:1").version;
  advance(30s);
  EXPECT_FALSE(task("app:1").not_before.has_value());
  EXPECT_EQ(task("app:1").version, version + 1);
  EXPECT_EQ(claim_one().task.id, "app:1");
}

}  // namespace
}  // namespace necrocode::registry
