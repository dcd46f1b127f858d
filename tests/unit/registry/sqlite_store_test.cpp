#include "necrocode/registry/sqlite_store.hpp"

#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <thread>

#include "store_fixture.hpp"

namespace necrocode::registry {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string fields_of(const RunnerError& error) {
  std::string text;
  for (const FieldError& field : error.info().fields)
    text += field.pointer + " " + field.message + "\n";
  return text;
}

template <class Call>
std::string refused(Call&& call) {
  try {
    call();
  } catch (const TaskContextValidationError& error) {
    return fields_of(error);
  }
  ADD_FAILURE() << "was accepted";
  return {};
}

TEST_F(StoreTest, SubmittedTasksetIsReadyAndBlockedByItsDependencies) {
  const Submitted submitted =
      store->submit(submission("app", {task_spec("1.1"), task_spec("1.2", {"1.1"})}));
  EXPECT_TRUE(submitted.created);
  EXPECT_EQ(submitted.taskset.version, 1);
  ASSERT_EQ(submitted.taskset.tasks.size(), 2u);
  EXPECT_EQ(submitted.taskset.tasks[0].state, TaskState::kReady);
  EXPECT_EQ(submitted.taskset.tasks[1].state, TaskState::kBlocked);
  EXPECT_THAT(submitted.taskset.tasks[1].dependencies, ElementsAre("app:1.1"));
  EXPECT_THAT(submitted.taskset.tasks[1].blocked_reason, HasSubstr("app:1.1 (ready)"));
  EXPECT_EQ(submitted.taskset.counts["ready"], Json(1));
  EXPECT_EQ(submitted.taskset.counts["blocked"], Json(1));
  EXPECT_THAT(event_types("app:1.1"), ElementsAre("TaskCreated"));
}

TEST_F(StoreTest, ResubmittingTheSameKeepsTheVersionAndAChangeRaisesIt) {
  store->submit(submission("app", {task_spec("1.1"), task_spec("1.2")}));
  const Submitted same = store->submit(submission("app", {task_spec("1.2")}));
  EXPECT_FALSE(same.created);
  EXPECT_EQ(same.taskset.version, 1);
  EXPECT_EQ(same.taskset.tasks.size(), 2u);  // a task that is not named stays
  const Submitted changed = store->submit(
      submission("app", {task_spec("1.2", {"1.1"}, Json::object({{"priority", 5}}))}));
  EXPECT_EQ(changed.taskset.version, 2);
  EXPECT_EQ(state("app:1.2"), TaskState::kBlocked);
}

TEST_F(StoreTest, ReplaceRemovesWhatIsNotNamedAndNotBegun) {
  store->submit(submission("app", {task_spec("1"), task_spec("2"), task_spec("3")}));
  claim_one();  // app:1 has begun
  Submission whole = submission("app", {task_spec("3")});
  whole.replace = true;
  const Submitted submitted = store->submit(whole);
  ASSERT_EQ(submitted.taskset.tasks.size(), 2u);
  EXPECT_EQ(submitted.taskset.tasks[0].id, "app:1");
  EXPECT_EQ(submitted.taskset.tasks[1].id, "app:3");
  EXPECT_EQ(submitted.taskset.counts["ready"], Json(1));
  EXPECT_THROW(store->task("app:2"), NotFound);
}

TEST_F(StoreTest, ReplaceRefusesToRemoveWhatAnotherTasksetNeeds) {
  store->submit(submission("base", {task_spec("1")}));
  store->submit(submission("app", {task_spec("1", {"base:1"})}));
  Submission whole = submission("base", {task_spec("2")});
  whole.replace = true;
  EXPECT_THAT(refused([&] { store->submit(whole); }), HasSubstr("app:1 depends on it"));
  EXPECT_THROW(store->task("base:2"), NotFound);  // all or nothing
}

TEST_F(StoreTest, UnknownAndSelfDependenciesAreAllNamedAtOnce) {
  const std::string why = refused([&] {
    store->submit(submission("app", {task_spec("1", {"1"}), task_spec("2", {"9.9", "other:1"})}));
  });
  EXPECT_THAT(why, HasSubstr("/tasks/0/dependencies/0 closes a cycle: app:1 → app:1"));
  EXPECT_THAT(why, HasSubstr("/tasks/1/dependencies/0 there is no task app:9.9"));
  EXPECT_THAT(why, HasSubstr("/tasks/1/dependencies/1 there is no task other:1"));
  EXPECT_THROW(store->taskset("app", TasksetPart::kHead), NotFound);
}

TEST_F(StoreTest, CycleIsRefusedAndNamedAlsoOverTasksetsAndSubmissions) {
  EXPECT_THAT(refused([&] {
                store->submit(submission(
                    "app", {task_spec("1", {"3"}), task_spec("2", {"1"}), task_spec("3", {"2"})}));
              }),
              HasSubstr("closes a cycle: app:1 → app:3 → app:2 → app:1"));
  store->submit(submission("a", {task_spec("1"), task_spec("2")}));
  store->submit(submission("b", {task_spec("1", {"a:1"})}));
  EXPECT_THAT(refused([&] { store->submit(submission("a", {task_spec("1", {"b:1"})})); }),
              HasSubstr("a:1 → b:1 → a:1"));
  EXPECT_EQ(store->taskset("a", TasksetPart::kHead).version, 1);
  EXPECT_EQ(state("a:1"), TaskState::kReady);
}

TEST_F(StoreTest, ClaimsGoByPriorityThenAge) {
  store->submit(submission(
      "app",
      {task_spec("1"), task_spec("2", {}, Json::object({{"priority", 1}})), task_spec("3")}));
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

TEST_F(StoreTest, SkillsFilterClaimsAndNoneMeansAny) {
  store->submit(submission(
      "app", {task_spec("1", {}, Json::object({{"required_skill", "rust"}})), task_spec("2")}));
  const auto claimed = claim(5, {"python"});
  ASSERT_EQ(claimed.size(), 1u);
  EXPECT_EQ(claimed[0].task.id, "app:2");
  EXPECT_EQ(claim_one().task.id, "app:1");
}

TEST_F(StoreTest, ClaimOfOneNamedTaskTakesOnlyThat) {
  store->submit(submission("app", {task_spec("1"), task_spec("2"), task_spec("3", {"1"})}));
  ClaimRequest request;
  request.task_id = "2";
  EXPECT_EQ(store->claim({request}).front().get().at(0).task.id, "app:2");
  EXPECT_THAT(store->claim({request}).front().get(), IsEmpty());
  request.task_id = "app:3";  // an open dependency
  EXPECT_THAT(store->claim({request}).front().get(), IsEmpty());
  request.task_id = "app:4";
  EXPECT_THROW(store->claim({request}).front().get(), NotFound);
}

TEST_F(StoreTest, OneTransactionServesSeveralClaimantsInTheirOrder) {
  store->submit(submission("app", {task_spec("1"), task_spec("2")}));
  ClaimRequest any;
  ClaimRequest rust;
  rust.skills = {"rust"};
  const auto claims = store->claim({rust, any, any, rust});
  EXPECT_EQ(claims[0].get().at(0).task.id, "app:1");
  EXPECT_EQ(claims[1].get().at(0).task.id, "app:2");
  EXPECT_THAT(claims[2].get(), IsEmpty());
  EXPECT_THAT(claims[3].get(), IsEmpty());
}

TEST_F(StoreTest, ClaimOfAWrongTaskIsRefusedAlone) {
  store->submit(submission("a", {task_spec("1")}));
  store->submit(submission("b", {task_spec("1")}));
  ClaimRequest any;
  ClaimRequest ambiguous;
  ambiguous.task_id = "1";
  ClaimRequest unknown;
  unknown.task_id = "a:2";
  const auto claims = store->claim({ambiguous, any, unknown, any});
  EXPECT_THROW(claims[0].get(), Conflict);
  EXPECT_EQ(claims[1].get().at(0).task.id, "a:1");
  EXPECT_THROW(claims[2].get(), NotFound);
  EXPECT_EQ(claims[3].get().at(0).task.id, "b:1");
}

TEST_F(StoreTest, CompletionWhoseNextTaskIsUnknownIsNoLess) {
  store->submit(submission("app", {task_spec("1")}));
  Completion completion;
  completion.lease_token = claim_one().lease_token;
  NextClaim next;
  next.wanted = true;
  next.terms.emplace().task_id = "app:9";
  const Completed completed = store->complete("app:1", completion, next);
  EXPECT_EQ(completed.task.state, TaskState::kDone);
  EXPECT_FALSE(completed.next.has_value());
}

TEST_F(StoreTest, LastParentDoneUnblocksInTheSameTransactionAndHandsOnItsCommits) {
  store->submit(submission("base", {task_spec("1")}));
  store->submit(submission("app", {task_spec("1"), task_spec("2", {"1", "base:1"})}));
  const auto parents = claim(2);
  complete(parents[0], TaskState::kDone, Json::object({{"commit", "c0ffee"}, {"branch", "b"}}));
  EXPECT_EQ(state("app:2"), TaskState::kBlocked);
  const Task done = complete(parents[1], TaskState::kDone, Json::object({{"commit", "decaf"}}));
  EXPECT_EQ(done.metadata["commit"], Json("decaf"));
  EXPECT_TRUE(done.runner_id.empty());
  const ClaimedTask child = claim_one();
  EXPECT_EQ(child.task.id, "app:2");
  EXPECT_THAT(child.task.base_commits, ElementsAre("c0ffee", "decaf"));
  EXPECT_THAT(event_types("app:2"), ElementsAre("TaskCreated", "TaskReady", "TaskAssigned"));
}

TEST_F(StoreTest, FailedParentLeavesItsDependentsBlockedAndSaysSo) {
  store->submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  const Task failed = complete(claim_one(), TaskState::kFailed);
  EXPECT_EQ(failed.state, TaskState::kFailed);
  EXPECT_EQ(failed.failure["reason"], Json("2 of 3 failed"));
  EXPECT_EQ(store->task("app:2").blocked_reason, "waits for app:1 (failed)");
  EXPECT_THAT(claim(), IsEmpty());
}

TEST_F(StoreTest, RetryMakesAFailedTaskReadyAndKeepsCountingItsAttempts) {
  store->submit(submission("app", {task_spec("1")}));
  complete(claim_one(), TaskState::kFailed);
  EXPECT_EQ(store->retry("app:1").state, TaskState::kReady);
  EXPECT_EQ(store->retry("app:1").state, TaskState::kReady);  // told again
  const ClaimedTask second = claim_one();
  EXPECT_EQ(second.task.attempt, 2);
  EXPECT_THROW(store->retry("app:1"), Conflict);  // running
  complete(second);
  EXPECT_THROW(store->retry("app:1"), Conflict);
  EXPECT_TRUE(store->task("app:1").failure.is_null());
}

TEST_F(StoreTest, CompletionRecordsItsEventsAndArtifactsAndClaimsTheNext) {
  store->submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  const ClaimedTask claimed = claim_one();
  Completion completion;
  completion.lease_token = claimed.lease_token;
  completion.events.push_back({0, "", "TestsPassed", Json::object({{"n", 3}}), {}, {}, 0});
  completion.artifacts.push_back({"diff", "http://x/1", 12, Json::object(), clock.system_now(), 0});
  NextClaim next;
  next.wanted = true;
  const Completed completed = store->complete("app:1", completion, next);
  ASSERT_EQ(completed.task.artifacts.size(), 1u);
  EXPECT_EQ(completed.task.artifacts[0].attempt, 1);
  EXPECT_THAT(event_types("app:1"),
              ElementsAre("TaskCreated", "TaskAssigned", "TestsPassed", "TaskCompleted"));
  ASSERT_TRUE(completed.next.has_value());
  EXPECT_EQ(completed.next->task.id, "app:2");
  EXPECT_EQ(completed.next->task.runner_id, "runner-1");  // on the terms of the finished lease
  EXPECT_EQ(completed.next->lease, seconds(60));
}

TEST_F(StoreTest, SameCompletionToldTwiceIsDoneOnce) {
  store->submit(submission("app", {task_spec("1")}));
  const ClaimedTask claimed = claim_one();
  const Task first = complete(claimed);
  const Task second = complete(claimed);
  EXPECT_EQ(second.version, first.version);
  EXPECT_THAT(event_types("app:1"), ElementsAre("TaskCreated", "TaskAssigned", "TaskCompleted"));
  EXPECT_THROW(complete(claimed, TaskState::kFailed), Conflict);
}

TEST_F(StoreTest, HandedBackTaskCountsNoAttempt) {
  store->submit(submission("app", {task_spec("1")}));
  complete(claim_one(), TaskState::kReady);
  const ClaimedTask again = claim_one();
  EXPECT_EQ(again.task.attempt, 1);
  store->give_back({{again.task.id, again.lease_token}});
  EXPECT_EQ(state("app:1"), TaskState::kReady);
  store->give_back({{again.task.id, again.lease_token}});  // nothing happens twice
  EXPECT_EQ(claim_one().task.attempt, 1);
}

TEST_F(StoreTest, UnrenewedLeaseMakesTheTaskReadyThenFailsItAfterItsAttempts) {
  store->submit(submission("app", {task_spec("1")}));
  for (int attempt = 1; attempt <= 3; ++attempt) {
    EXPECT_EQ(claim_one().task.attempt, attempt);
    const auto next = store->do_due();
    ASSERT_TRUE(next.has_value());
    EXPECT_EQ(*next, seconds(60));
    clock.advance(seconds(60));
    EXPECT_FALSE(store->do_due().has_value());
    EXPECT_EQ(state("app:1"), attempt < 3 ? TaskState::kReady : TaskState::kFailed);
  }
  EXPECT_THAT(event_types("app:1"),
              ElementsAre("TaskCreated", "TaskAssigned", "TaskRetried", "TaskAssigned",
                          "TaskRetried", "TaskAssigned", "TaskFailed"));
  EXPECT_EQ(store->task("app:1").failure["class"], Json("infrastructure"));
  store->retry("app:1");  // three more
  EXPECT_EQ(claim_one().task.attempt, 4);
  clock.advance(seconds(60));
  store->do_due();
  EXPECT_EQ(state("app:1"), TaskState::kReady);
}

TEST_F(StoreTest, HeartbeatsKeepALeaseWhateverTheWallClockDoes) {
  store->submit(submission("app", {task_spec("1")}));
  const ClaimedTask claimed = claim_one();
  for (const auto step : {-7200, 7200, 0}) {
    clock.step_system(seconds(step));
    clock.advance(seconds(59));
    const auto results = store->heartbeat({{"1", claimed.lease_token}});  // a bare id is enough
    ASSERT_TRUE(results.front().answer.has_value());
    store->do_due();
    EXPECT_EQ(state("app:1"), TaskState::kRunning);
  }
  clock.advance(seconds(60));
  EXPECT_FALSE(store->heartbeat({{"app:1", claimed.lease_token}}).front().answer.has_value());
  store->do_due();
  EXPECT_EQ(state("app:1"), TaskState::kReady);
}

TEST_F(StoreTest, HeartbeatTellsUnknownTasksFromLostLeases) {
  store->submit(submission("app", {task_spec("1"), task_spec("2")}));
  const ClaimedTask claimed = claim_one();
  const auto results = store->heartbeat({{"app:9", claimed.lease_token},
                                         {"app:2", claimed.lease_token},
                                         {"app:1", LeaseToken{"forged"}},
                                         {"app:1", claimed.lease_token}});
  EXPECT_THROW(std::rethrow_exception(results[0].problem), NotFound);
  EXPECT_THROW(std::rethrow_exception(results[1].problem), Conflict);
  EXPECT_THROW(std::rethrow_exception(results[2].problem), Conflict);
  EXPECT_TRUE(results[3].answer.has_value());
}

TEST_F(StoreTest, StaleTokenChangesNothingButItsEventsAreKeptUnderItsAttempt) {
  store->submit(submission("app", {task_spec("1")}));
  const ClaimedTask stale = claim_one();
  clock.advance(seconds(61));
  store->do_due();
  const ClaimedTask current = claim_one();
  const std::int64_t version = store->task("app:1").version;
  EXPECT_THROW(complete(stale), Conflict);
  EXPECT_THROW(set_status("app:1", TaskState::kDone, stale.lease_token.value), Conflict);
  EXPECT_THROW(set_status("app:1", TaskState::kDone), Conflict);  // leased: needs the token
  EXPECT_THROW(set_status("app:1", TaskState::kRunning, stale.lease_token.value), Conflict);
  EXPECT_EQ(store->task("app:1").version, version);

  NewEvent late{"TaskProgress", Json::object(), clock.system_now(), stale.lease_token};
  EXPECT_EQ(store->add_event("app:1", late).attempt, 1);
  late.lease_token = current.lease_token;
  EXPECT_EQ(store->add_event("app:1", late).attempt, 2);
  late.lease_token.value = "never one of its";
  EXPECT_THROW(store->add_event("app:1", late), Conflict);
  NewArtifact artifact;
  artifact.artifact = {"log", "http://x/2", {}, Json::object(), clock.system_now(), 0};
  artifact.lease_token = stale.lease_token;
  EXPECT_EQ(store->add_artifact("app:1", artifact).attempt, 1);

  complete(current);
  EXPECT_THROW(complete(stale), Conflict);  // also now that the states agree
}

TEST_F(StoreTest, LiveLeasesSurviveARestartAndAreRenewedOnce) {
  store->submit(submission("app", {task_spec("1"), task_spec("2")}));
  const ClaimedTask claimed = claim_one();
  clock.advance(seconds(50));
  reopen();
  clock.advance(seconds(50));
  store->do_due();
  EXPECT_EQ(state("app:1"), TaskState::kRunning);
  EXPECT_TRUE(store->heartbeat({{"app:1", claimed.lease_token}}).front().answer.has_value());
  store->cancel("app:1", "");
  reopen();
  const auto told = store->heartbeat({{"app:1", claimed.lease_token}}).front();
  ASSERT_TRUE(told.answer.has_value());
  EXPECT_TRUE(told.answer->cancel_requested);
  EXPECT_EQ(complete(claimed).state, TaskState::kDone);
  EXPECT_EQ(claim_one().task.id, "app:2");
}

TEST_F(StoreTest, CancellingAsksTheHolderAndElseActsAtOnce) {
  store->submit(submission("app", {task_spec("1"), task_spec("2"), task_spec("3", {"2"})}));
  const ClaimedTask claimed = claim_one();
  EXPECT_FALSE(store->heartbeat({{"app:1", claimed.lease_token}}).front().answer->cancel_requested);
  const Task asked = store->cancel("app:1", "not needed");
  EXPECT_EQ(asked.state, TaskState::kRunning);
  EXPECT_TRUE(asked.cancel_requested);
  EXPECT_EQ(store->cancel("app:1", "again").version, asked.version);
  EXPECT_TRUE(store->heartbeat({{"app:1", claimed.lease_token}}).front().answer->cancel_requested);
  clock.advance(seconds(60));
  store->do_due();
  EXPECT_EQ(state("app:1"), TaskState::kCancelled);
  EXPECT_EQ(store->cancel("app:2", "").state, TaskState::kCancelled);
  EXPECT_EQ(store->cancel("app:2", "").state, TaskState::kCancelled);
  EXPECT_EQ(store->task("app:3").blocked_reason, "waits for app:2 (cancelled)");
  EXPECT_THAT(event_types("app:2"), ElementsAre("TaskCreated", "TaskCancelled"));
}

TEST_F(StoreTest, HandingBackACancelledTaskCancelsIt) {
  store->submit(submission("app", {task_spec("1"), task_spec("2")}));
  const auto both = claim(2);
  store->cancel("app:1", "");
  store->cancel("app:2", "");
  EXPECT_EQ(complete(both[0], TaskState::kReady).state, TaskState::kCancelled);
  store->give_back({{both[1].task.id, both[1].lease_token}});
  EXPECT_EQ(state("app:2"), TaskState::kCancelled);
}

TEST_F(StoreTest, TransitionsAreCheckedForEachPairOfStates) {
  using S = TaskState;
  const std::vector<S> all = {S::kBlocked, S::kReady,  S::kRunning,
                              S::kDone,    S::kFailed, S::kCancelled};
  const std::set<std::pair<S, S>> legal = {{S::kBlocked, S::kReady},   {S::kBlocked, S::kCancelled},
                                           {S::kReady, S::kRunning},   {S::kReady, S::kBlocked},
                                           {S::kReady, S::kCancelled}, {S::kRunning, S::kDone},
                                           {S::kRunning, S::kFailed},  {S::kRunning, S::kCancelled},
                                           {S::kRunning, S::kReady},   {S::kFailed, S::kReady}};
  const std::vector<std::vector<S>> ways = {
      {S::kBlocked},  {}, {S::kRunning}, {S::kRunning, S::kDone}, {S::kRunning, S::kFailed},
      {S::kCancelled}};
  int number = 0;
  for (const S from : all) {
    for (const S to : all) {
      const std::string id = std::to_string(++number);
      store->submit(submission("app", {task_spec(id)}));
      for (const S step : ways[static_cast<std::size_t>(from)]) set_status(id, step);
      ASSERT_EQ(state(id), from);
      const auto before = event_types(id).size();
      if (from == to) {
        EXPECT_EQ(set_status(id, to).state, to);
        EXPECT_EQ(event_types(id).size(), before);  // 200 without an event
      } else if (legal.count({from, to}) > 0) {
        EXPECT_EQ(set_status(id, to).state, to);
        EXPECT_EQ(event_types(id).size(), before + 1);
      } else {
        EXPECT_THROW(set_status(id, to), Conflict) << to_string(from) << " to " << to_string(to);
        EXPECT_EQ(state(id), from);
      }
    }
  }
}

TEST_F(StoreTest, OpenDependencyCannotBeSetReady) {
  store->submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  EXPECT_THROW(set_status("app:2", TaskState::kReady), Conflict);
  set_status("app:1", TaskState::kRunning);
  EXPECT_EQ(store->task("app:1").attempt, 1);
  set_status("app:1", TaskState::kDone);
  EXPECT_EQ(state("app:2"), TaskState::kReady);
}

TEST_F(StoreTest, MetadataIsMergedAndALostUpdateRefused) {
  store->submit(submission(
      "app", {task_spec("1", {}, Json::object({{"metadata", Json::object({{"a", 1}})}}))}));
  StatusChange change;
  change.status = TaskState::kRunning;
  change.metadata = Json::object({{"b", 2}});
  change.expected = [](std::int64_t version) { return version == 1; };
  const Task task = store->set_status("app:1", change);
  EXPECT_EQ(task.metadata, Json::object({{"a", 1}, {"b", 2}}));
  EXPECT_THROW(store->set_status("app:1", change), LostUpdate);
  change.expected = nullptr;
  EXPECT_EQ(store->set_status("app:1", change).version, task.version);  // nothing new
  change.metadata = Json::object({{"big", std::string(limits::kMetadataBytes, 'x')}});
  EXPECT_THROW(store->set_status("app:1", change), ResourceLimitError);
}

TEST_F(StoreTest, LostLeaseIsToldBeforeALostUpdate) {
  store->submit(submission("app", {task_spec("1")}));
  claim_one();
  StatusChange change;
  change.status = TaskState::kDone;
  change.lease_token.value = "stale";
  change.expected = [](std::int64_t) { return false; };
  try {
    store->set_status("app:1", change);
    ADD_FAILURE() << "was accepted";
  } catch (const LostUpdate&) {
    ADD_FAILURE() << "the lost lease comes first";
  } catch (const Conflict&) {
    // As it must be; LostUpdate is one too, but is caught above.
  }
}

TEST_F(StoreTest, BareIdIsAcceptedWhereUnambiguousElseTheCandidatesAreNamed) {
  store->submit(submission("a", {task_spec("1.1"), task_spec("1.2")}));
  store->submit(submission("b", {task_spec("1.1")}));
  EXPECT_EQ(store->task("1.2").id, "a:1.2");
  try {
    store->task("1.1");
    ADD_FAILURE() << "was accepted";
  } catch (const Conflict& error) {
    EXPECT_THAT(error.what(), HasSubstr("a:1.1, b:1.1"));
  }
  EXPECT_THROW(store->task("7"), NotFound);
  for (const std::string& bad : {std::string("../1"), std::string(300, 'x'), std::string("a:b:c"),
                                 std::string("a\0b", 3), std::string()}) {
    EXPECT_THROW(store->task(bad), TaskContextValidationError);
  }
}

TEST_F(StoreTest, PagesAreStableWhileTasksAreAdded) {
  std::vector<TaskSpec> tasks;
  for (int i = 1; i <= 12; ++i) tasks.push_back(task_spec("1." + std::to_string(i)));
  store->submit(submission("app", tasks));
  for (const std::string sort : {"number", "priority", "age"}) {
    TaskQuery query;
    query.sort = sort;
    query.spec = "app";
    query.limit = 5;
    std::multiset<std::string> seen;
    TaskPage page = store->tasks(query);
    while (true) {
      for (const Task& task : page.items) seen.insert(task.number);
      if (!page.next_cursor) break;
      query.cursor = *page.next_cursor;
      store->submit(submission("app", {task_spec("0." + sort + std::to_string(seen.size()))}));
      page = store->tasks(query);
    }
    for (const TaskSpec& task : tasks) EXPECT_EQ(seen.count(task.number), 1u) << sort;
  }
}

TEST_F(StoreTest, NumbersSortAsPeopleCount) {
  store->submit(submission("app", {task_spec("1.10"), task_spec("1.9"), task_spec("1.2.1"),
                                   task_spec("1.2"), task_spec("10"), task_spec("2")}));
  std::vector<std::string> numbers;
  for (const Task& task : store->tasks({}).items) numbers.push_back(task.number);
  EXPECT_THAT(numbers, ElementsAre("1.2", "1.2.1", "1.9", "1.10", "2", "10"));
}

TEST_F(StoreTest, FiltersSelectByStateSkillLabelAndText) {
  store->submit(submission(
      "app", {task_spec("1", {}, Json::object({{"labels", std::vector<std::string>{"ui", "x"}}})),
              task_spec("2", {}, Json::object({{"required_skill", "rust"}})),
              task_spec("3", {"1"}, Json::object({{"description", "100% of a_b"}}))}));
  store->submit(submission("other", {task_spec("1")}));
  const auto found = [&](auto&& set) {
    TaskQuery query;
    set(query);
    std::vector<std::string> ids;
    for (const Task& task : store->tasks(query).items) ids.push_back(task.id);
    return ids;
  };
  EXPECT_THAT(found([](TaskQuery& q) { q.states = {TaskState::kBlocked}; }), ElementsAre("app:3"));
  EXPECT_THAT(found([](TaskQuery& q) { q.skill = "rust"; }), ElementsAre("app:2"));
  EXPECT_THAT(found([](TaskQuery& q) { q.label = "ui"; }), ElementsAre("app:1"));
  EXPECT_THAT(found([](TaskQuery& q) { q.text = "100% of A_"; }), ElementsAre("app:3"));
  EXPECT_THAT(found([](TaskQuery& q) { q.text = "a%b"; }), IsEmpty());
  EXPECT_THAT(found([](TaskQuery& q) { q.spec = "other"; }), ElementsAre("other:1"));
  EXPECT_THROW(found([](TaskQuery& q) { q.sort = "colour"; }), TaskContextValidationError);
  EXPECT_THROW(found([](TaskQuery& q) { q.cursor = "nonsense"; }), TaskContextValidationError);
}

TEST_F(StoreTest, EventsComeInTheServersOrderAndResumeWithoutGapOrRepeat) {
  store->submit(submission("app", {task_spec("1"), task_spec("2")}));
  for (int i = 0; i < 10; ++i) {
    NewEvent event{"TaskProgress", Json::object({{"i", i}}), {}, {}};
    event.timestamp = SystemTime(std::chrono::hours(i % 2 ? 0 : 24 * 365 * 130));  // 1970, 2100
    store->add_event(i < 5 ? "app:1" : "app:2", event);
  }
  EventQuery query;
  query.type = "TaskProgress";
  query.limit = 3;
  std::vector<std::int64_t> seen;
  while (true) {
    const EventPage page = store->events(query);
    for (const Event& event : page.items) seen.push_back(*event.data["i"].as_int());
    if (!page.next_cursor) break;
    query.after = page.items.back().id;
  }
  EXPECT_THAT(seen, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  query = {};
  query.spec = "app";
  EXPECT_EQ(store->events(query).items.size(), 12u);
  query.since = clock.system_now() + seconds(1);
  EXPECT_THAT(store->events(query).items, IsEmpty());
  query.since.reset();
  query.until = clock.system_now();
  EXPECT_THAT(store->events(query).items, IsEmpty());
}

TEST_F(StoreTest, ThousandRacingClaimsHaveOneWinnerEach) {
  constexpr int kTasks = 1000;
  constexpr int kThreads = 16;
  std::vector<TaskSpec> tasks;
  for (int i = 0; i < kTasks; ++i) tasks.push_back(task_spec(std::to_string(i)));
  store->submit(submission("app", tasks));
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
  EXPECT_EQ(winners.size(), static_cast<std::size_t>(kTasks));
  EXPECT_EQ(std::set<std::string>(winners.begin(), winners.end()).size(), winners.size());
  EXPECT_EQ(store->taskset("app", TasksetPart::kHead).counts["running"], Json(kTasks));
}

TEST_F(StoreTest, TwoParentsFinishingAtOnceFreeTheirChildOnce) {
  for (int round = 0; round < 20; ++round) {
    const std::string spec = "s" + std::to_string(round);
    store->submit(submission(spec, {task_spec("1"), task_spec("2"), task_spec("3", {"1", "2"})}));
    const auto parents = claim(2);
    std::thread other([&] { complete(parents[0]); });
    complete(parents[1]);
    other.join();
    EXPECT_THAT(event_types(spec + ":3"), ElementsAre("TaskCreated", "TaskReady"));
    complete(claim_one());
  }
}

TEST_F(StoreTest, WideGraphsUnblockWhole) {
  constexpr int kWide = 500;
  std::vector<TaskSpec> tasks{task_spec("1")};
  std::vector<std::string> all;
  for (int i = 0; i < kWide; ++i) {
    all.push_back("2." + std::to_string(i));
    tasks.push_back(task_spec(all.back(), {"1"}));
  }
  tasks.push_back(task_spec("3", all));
  store->submit(submission("app", tasks));
  EXPECT_THAT(store->task("app:3").blocked_reason, HasSubstr("and 497 more"));
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

TEST_F(StoreTest, ListenersHearOfReadyTasksAndOfWhoseEventsCame) {
  std::atomic<int> heard{0};
  std::vector<std::string> events_of;
  store->on_commit([&](const CommitNews& news) { heard += news.became_claimable ? 1 : 0; });
  store->on_commit([&](const CommitNews& news) { events_of = news.events_of; });
  store->submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  EXPECT_EQ(heard, 1);
  EXPECT_EQ(std::set<std::string>(events_of.begin(), events_of.end()),
            (std::set<std::string>{"app:1", "app:2"}));
  const ClaimedTask claimed = claim_one();
  EXPECT_EQ(heard, 1);
  EXPECT_EQ(events_of, std::vector<std::string>{"app:1"});
  complete(claimed);
  EXPECT_EQ(heard, 2);
}

TEST_F(StoreTest, SecondProcessOnTheSameDatabaseIsRefused) {
  EXPECT_THROW(SqliteTaskStore(folder.path() / "registry.db", clock), ResourceConflictError);
}

TEST_F(StoreTest, FailedWriteIsNeverAcknowledgedAndEndsTheStore) {
  store->submit(submission("app", {task_spec("1"), task_spec("2")}));
  claim_one();
  // No file of this process may grow: the next commit's write fails as a broken disk's would.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit none = before;
  none.rlim_cur = 0;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
  EXPECT_THROW(claim(), StorageError);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, previous);

  EXPECT_THROW(claim(), StorageError);  // fail-stop, although the disk works again
  EXPECT_THROW(store->check(), StorageError);
  EXPECT_EQ(state("app:2"), TaskState::kReady);  // reads still work
  reopen();
  store->check();
  EXPECT_EQ(state("app:1"), TaskState::kRunning);
  EXPECT_EQ(claim_one().task.id, "app:2");
}

}  // namespace
}  // namespace necrocode::registry
