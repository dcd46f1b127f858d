// What moves a task from state to state, and what is told of it.
#include <set>

#include "conformance/task_store_suite.hpp"

namespace necrocode::registry {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using TaskStoreStates = TaskStoreSuite;
INSTANTIATE_TEST_SUITE_P(Stores, TaskStoreStates, testing::ValuesIn(store_factories()),
                         name_of_factory);

TEST_P(TaskStoreStates, LastParentDoneUnblocksInTheSameTransactionAndHandsOnItsCommits) {
  submit(submission("base", {task_spec("1")}));
  submit(submission("app", {task_spec("1"), task_spec("2", {"1", "base:1"})}));
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

TEST_P(TaskStoreStates, FailedParentLeavesItsDependentsBlockedAndSaysSo) {
  submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  const Task failed = complete(claim_one(), TaskState::kFailed);
  EXPECT_EQ(failed.state, TaskState::kFailed);
  EXPECT_EQ(failed.failure["reason"], Json("2 of 3 failed"));
  EXPECT_EQ(task("app:2").blocked_reason, "waits for app:1 (failed)");
  EXPECT_THAT(claim(), IsEmpty());
}

TEST_P(TaskStoreStates, RetryMakesAFailedTaskReadyAndKeepsCountingItsAttempts) {
  submit(submission("app", {task_spec("1")}));
  complete(claim_one(), TaskState::kFailed);
  EXPECT_EQ(retry("app:1").state, TaskState::kReady);
  EXPECT_EQ(retry("app:1").state, TaskState::kReady);  // told again
  const ClaimedTask second = claim_one();
  EXPECT_EQ(second.task.attempt, 2);
  EXPECT_THROW(retry("app:1"), Conflict);  // running
  complete(second);
  EXPECT_THROW(retry("app:1"), Conflict);
  EXPECT_TRUE(task("app:1").failure.is_null());
}

TEST_P(TaskStoreStates, CompletionRecordsItsEventsAndArtifactsAndClaimsTheNext) {
  submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  const ClaimedTask claimed = claim_one();
  Completion completion;
  completion.lease_token = claimed.lease_token;
  completion.events.push_back({0, "", "TestsPassed", Json::object({{"n", 3}}), {}, {}, 0});
  completion.artifacts.push_back({"diff", "http://x/1", 12, Json::object(), clock.system_now(), 0});
  NextClaim next;
  next.wanted = true;
  const Completed completed = complete("app:1", completion, next);
  ASSERT_EQ(completed.task.artifacts.size(), 1u);
  EXPECT_EQ(completed.task.artifacts[0].attempt, 1);
  EXPECT_THAT(event_types("app:1"),
              ElementsAre("TaskCreated", "TaskAssigned", "TestsPassed", "TaskCompleted"));
  ASSERT_TRUE(completed.next.has_value());
  EXPECT_EQ(completed.next->task.id, "app:2");
  EXPECT_EQ(completed.next->task.runner_id, "runner-1");  // on the terms of the finished lease
  EXPECT_EQ(completed.next->lease, seconds(60));
}

TEST_P(TaskStoreStates, SameCompletionToldTwiceIsDoneOnce) {
  submit(submission("app", {task_spec("1")}));
  const ClaimedTask claimed = claim_one();
  const Task first = complete(claimed);
  const Task second = complete(claimed);
  EXPECT_EQ(second.version, first.version);
  EXPECT_THAT(event_types("app:1"), ElementsAre("TaskCreated", "TaskAssigned", "TaskCompleted"));
  EXPECT_THROW(complete(claimed, TaskState::kFailed), Conflict);
}

TEST_P(TaskStoreStates, CancellingAsksTheHolderAndElseActsAtOnce) {
  submit(submission("app", {task_spec("1"), task_spec("2"), task_spec("3", {"2"})}));
  const ClaimedTask claimed = claim_one();
  EXPECT_FALSE(store->heartbeat({{"app:1", claimed.lease_token}}).front().answer->cancel_requested);
  const Task asked = cancel("app:1", "not needed");
  EXPECT_EQ(asked.state, TaskState::kRunning);
  EXPECT_TRUE(asked.cancel_requested);
  EXPECT_EQ(cancel("app:1", "again").version, asked.version);
  EXPECT_TRUE(store->heartbeat({{"app:1", claimed.lease_token}}).front().answer->cancel_requested);
  clock.advance(seconds(60));
  store->do_due();
  EXPECT_EQ(state("app:1"), TaskState::kCancelled);
  EXPECT_EQ(cancel("app:2", "").state, TaskState::kCancelled);
  EXPECT_EQ(cancel("app:2", "").state, TaskState::kCancelled);
  EXPECT_EQ(task("app:3").blocked_reason, "waits for app:2 (cancelled)");
  EXPECT_THAT(event_types("app:2"), ElementsAre("TaskCreated", "TaskCancelled"));
}

TEST_P(TaskStoreStates, HandingBackACancelledTaskCancelsIt) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
  const auto both = claim(2);
  cancel("app:1", "");
  cancel("app:2", "");
  EXPECT_EQ(complete(both[0], TaskState::kReady).state, TaskState::kCancelled);
  give_back({{both[1].task.id, both[1].lease_token}});
  EXPECT_EQ(state("app:2"), TaskState::kCancelled);
}

TEST_P(TaskStoreStates, TransitionsAreCheckedForEachPairOfStates) {
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
      submit(submission("app", {task_spec(id)}));
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

TEST_P(TaskStoreStates, OpenDependencyCannotBeSetReady) {
  submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  EXPECT_THROW(set_status("app:2", TaskState::kReady), Conflict);
  set_status("app:1", TaskState::kRunning);
  EXPECT_EQ(task("app:1").attempt, 1);
  set_status("app:1", TaskState::kDone);
  EXPECT_EQ(state("app:2"), TaskState::kReady);
}

TEST_P(TaskStoreStates, MetadataIsMergedAndALostUpdateRefused) {
  submit(submission("app",
                    {task_spec("1", {}, Json::object({{"metadata", Json::object({{"a", 1}})}}))}));
  StatusChange change;
  change.status = TaskState::kRunning;
  change.metadata = Json::object({{"b", 2}});
  change.expected = [](std::int64_t version) { return version == 1; };
  const Task task = set_status("app:1", change);
  EXPECT_EQ(task.metadata, Json::object({{"a", 1}, {"b", 2}}));
  EXPECT_THROW(set_status("app:1", change), LostUpdate);
  change.expected = nullptr;
  EXPECT_EQ(set_status("app:1", change).version, task.version);  // nothing new
  change.metadata = Json::object({{"big", std::string(limits::kMetadataBytes, 'x')}});
  EXPECT_THROW(set_status("app:1", change), ResourceLimitError);
}

TEST_P(TaskStoreStates, LostLeaseIsToldBeforeALostUpdate) {
  submit(submission("app", {task_spec("1")}));
  claim_one();
  StatusChange change;
  change.status = TaskState::kDone;
  change.lease_token.value = "stale";
  change.expected = [](std::int64_t) { return false; };
  try {
    set_status("app:1", change);
    ADD_FAILURE() << "was accepted";
  } catch (const LostUpdate&) {
    ADD_FAILURE() << "the lost lease comes first";
  } catch (const Conflict&) {
    // As it must be; LostUpdate is one too, but is caught above.
  }
}

TEST_P(TaskStoreStates, BareIdIsAcceptedWhereUnambiguousElseTheCandidatesAreNamed) {
  submit(submission("a", {task_spec("1.1"), task_spec("1.2")}));
  submit(submission("b", {task_spec("1.1")}));
  EXPECT_EQ(task("1.2").id, "a:1.2");
  try {
    task("1.1");
    ADD_FAILURE() << "was accepted";
  } catch (const Conflict& error) {
    EXPECT_THAT(error.what(), HasSubstr("a:1.1, b:1.1"));
  }
  EXPECT_THROW(task("7"), NotFound);
  for (const std::string& bad : {std::string("../1"), std::string(300, 'x'), std::string("a:b:c"),
                                 std::string("a\0b", 3), std::string()}) {
    EXPECT_THROW(task(bad), TaskContextValidationError);
  }
}

TEST_P(TaskStoreStates, RetryAloneBringsACancelledTaskBack) {
  submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  complete(claim_one(), TaskState::kCancelled);
  cancel("app:2", "");
  EXPECT_THROW(set_status("app:1", TaskState::kReady), Conflict);
  EXPECT_EQ(retry("app:1").state, TaskState::kReady);
  EXPECT_EQ(retry("app:2").state, TaskState::kBlocked);  // its dependency is open
  EXPECT_THAT(event_types("app:2"), ElementsAre("TaskCreated", "TaskCancelled", "TaskRetried"));
  const ClaimedTask again = claim_one();
  EXPECT_EQ(again.task.attempt, 2);
  EXPECT_FALSE(again.task.cancel_requested);
  complete(again);
  EXPECT_EQ(claim_one().task.id, "app:2");
}

TEST_P(TaskStoreStates, ListenersHearOfReadyTasksAndOfWhoseEventsCame) {
  std::atomic<int> heard{0};
  std::vector<std::string> events_of;
  store->on_commit([&](const CommitNews& news) { heard += news.became_claimable ? 1 : 0; });
  store->on_commit([&](const CommitNews& news) { events_of = news.events_of; });
  submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  EXPECT_EQ(heard, 1);
  EXPECT_EQ(std::set<std::string>(events_of.begin(), events_of.end()),
            (std::set<std::string>{"app:1", "app:2"}));
  const ClaimedTask claimed = claim_one();
  EXPECT_EQ(heard, 1);
  EXPECT_EQ(events_of, std::vector<std::string>{"app:1"});
  complete(claimed);
  EXPECT_EQ(heard, 2);
}

}  // namespace
}  // namespace necrocode::registry
