// Leases: who may change a task, for how long, and what the same call told again does.
#include "conformance/task_store_suite.hpp"

namespace necrocode::registry {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;

using TaskStoreLeases = TaskStoreSuite;
INSTANTIATE_TEST_SUITE_P(Stores, TaskStoreLeases, testing::ValuesIn(store_factories()),
                         name_of_factory);
/// A hands its task back, B finishes it.
class TaskStoreFencing : public TaskStoreSuite {
 protected:
  ClaimedTask handed_back_and_done_by_another() {
    submit(submission("app", {task_spec("1"), task_spec("2")}));
    const ClaimedTask first = claim_one();
    complete(first, TaskState::kReady);
    complete(claim_one(), TaskState::kDone, Json::object({{"by", "second"}}));
    return first;
  }
  Completed complete_and_claim(const ClaimedTask& claimed) {
    Completion completion;
    completion.lease_token = claimed.lease_token;
    NextClaim next;
    next.wanted = true;
    return complete(claimed.task.id, completion, next);
  }
};
INSTANTIATE_TEST_SUITE_P(Stores, TaskStoreFencing, testing::ValuesIn(store_factories()),
                         name_of_factory);

TEST_P(TaskStoreLeases, HandedBackTaskCountsNoAttempt) {
  submit(submission("app", {task_spec("1")}));
  complete(claim_one(), TaskState::kReady);
  const ClaimedTask again = claim_one();
  EXPECT_EQ(again.task.attempt, 1);
  give_back({{again.task.id, again.lease_token}});
  EXPECT_EQ(state("app:1"), TaskState::kReady);
  give_back({{again.task.id, again.lease_token}});  // nothing happens twice
  EXPECT_EQ(claim_one().task.attempt, 1);
}

TEST_P(TaskStoreLeases, UnrenewedLeaseMakesTheTaskReadyThenFailsItAfterItsAttempts) {
  submit(submission("app", {task_spec("1")}));
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
  EXPECT_EQ(task("app:1").failure["class"], Json("infrastructure"));
  retry("app:1");  // three more
  EXPECT_EQ(claim_one().task.attempt, 4);
  clock.advance(seconds(60));
  store->do_due();
  EXPECT_EQ(state("app:1"), TaskState::kReady);
}

TEST_P(TaskStoreLeases, ClaimantWhoseLeaseEndedWithTheTaskFailedHasToldNothing) {
  submit(submission("app", {task_spec("1", {}, Json::object({{"max_attempts", 1}}))}));
  const ClaimedTask late = claim_one();
  clock.advance(seconds(60));
  store->do_due();
  EXPECT_EQ(state("app:1"), TaskState::kFailed);
  EXPECT_THROW(complete(late, TaskState::kFailed), Conflict);
  EXPECT_THROW(set_status("app:1", TaskState::kFailed, late.lease_token.value), Conflict);
}

TEST_P(TaskStoreLeases, NextClaimOnTheTermsOfNoLeaseIsRefused) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
  set_status("app:1", TaskState::kRunning);
  NextClaim next;
  next.wanted = true;
  EXPECT_THROW(store->change([&](TaskChanges& changes) {
    return changes.complete("app:1", Completion{}, next);
  }),
               Conflict);
  EXPECT_EQ(state("app:1"), TaskState::kRunning);
  EXPECT_EQ(state("app:2"), TaskState::kReady);
}

TEST_P(TaskStoreLeases, HeartbeatsKeepALeaseWhateverTheWallClockDoes) {
  submit(submission("app", {task_spec("1")}));
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

TEST_P(TaskStoreLeases, HeartbeatTellsUnknownTasksFromLostLeases) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
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

TEST_P(TaskStoreLeases, StaleTokenChangesNothingButItsEventsAreKeptUnderItsAttempt) {
  submit(submission("app", {task_spec("1")}));
  const ClaimedTask stale = claim_one();
  clock.advance(seconds(61));
  store->do_due();
  const ClaimedTask current = claim_one();
  const std::int64_t version = task("app:1").version;
  EXPECT_THROW(complete(stale), Conflict);
  EXPECT_THROW(set_status("app:1", TaskState::kDone, stale.lease_token.value), Conflict);
  EXPECT_THROW(set_status("app:1", TaskState::kDone), Conflict);  // leased: needs the token
  EXPECT_THROW(set_status("app:1", TaskState::kRunning, stale.lease_token.value), Conflict);
  EXPECT_EQ(task("app:1").version, version);

  NewEvent late{"TaskProgress", Json::object(), clock.system_now(), stale.lease_token};
  EXPECT_EQ(add_event("app:1", late).attempt, 1);
  late.lease_token = current.lease_token;
  EXPECT_EQ(add_event("app:1", late).attempt, 2);
  late.lease_token.value = "never one of its";
  EXPECT_THROW(add_event("app:1", late), Conflict);
  NewArtifact artifact;
  artifact.artifact = {"log", "http://x/2", {}, Json::object(), clock.system_now(), 0};
  artifact.lease_token = stale.lease_token;
  EXPECT_EQ(add_artifact("app:1", artifact).attempt, 1);

  complete(current);
  EXPECT_THROW(complete(stale), Conflict);  // also now that the states agree
}

TEST_P(TaskStoreFencing, HolderThatHandedBackCannotTouchWhatAnotherFinished) {
  const ClaimedTask first = handed_back_and_done_by_another();
  const std::int64_t version = task("app:1").version;
  StatusChange change;
  change.status = TaskState::kDone;
  change.metadata = Json::object({{"by", "first"}});
  change.lease_token = first.lease_token;
  EXPECT_THROW(set_status("app:1", change), Conflict);
  EXPECT_THROW(complete(first, TaskState::kDone, change.metadata), Conflict);
  EXPECT_THROW(complete_and_claim(first), Conflict);
  EXPECT_EQ(task("app:1").metadata, Json::object({{"by", "second"}}));
  EXPECT_EQ(task("app:1").version, version);
  EXPECT_EQ(state("app:2"), TaskState::kReady);
}

TEST_P(TaskStoreFencing, LateWordsOfAHandedBackClaimAreFiledUnderNoAttempt) {
  const ClaimedTask first = handed_back_and_done_by_another();
  const NewEvent late{"TaskProgress", Json::object(), clock.system_now(), first.lease_token};
  EXPECT_EQ(add_event("app:1", late).attempt, 0);
  NewArtifact artifact;
  artifact.artifact = {"log", "http://x/1", {}, Json::object(), clock.system_now(), 0};
  artifact.lease_token = first.lease_token;
  EXPECT_EQ(add_artifact("app:1", artifact).attempt, 0);
}

TEST_P(TaskStoreFencing, StatusToldAgainMergesNothing) {
  submit(submission("app", {task_spec("1")}));
  StatusChange change;
  change.status = TaskState::kDone;
  change.lease_token = claim_one().lease_token;
  const std::int64_t version = set_status("app:1", change).version;
  change.metadata = Json::object({{"late", true}});
  EXPECT_EQ(set_status("app:1", change).version, version);
  EXPECT_EQ(task("app:1").metadata, Json::object());
}

TEST_P(TaskStoreFencing, CompletionToldAgainAnswersItsNextLeaseWhileThatLives) {
  submit(submission("app", {task_spec("1"), task_spec("2"), task_spec("3")}));
  const ClaimedTask first = claim_one();
  const Completed told = complete_and_claim(first);
  ASSERT_TRUE(told.next.has_value());
  clock.advance(std::chrono::seconds(59));
  const Completed again = complete_and_claim(first);
  ASSERT_TRUE(again.next.has_value());
  EXPECT_EQ(again.next->task.id, "app:2");
  EXPECT_EQ(again.next->lease_token, told.next->lease_token);
  EXPECT_EQ(again.task.version, told.task.version);
  EXPECT_EQ(state("app:3"), TaskState::kReady);
  // What the answer says of its time is so.
  clock.advance(std::chrono::seconds(59));
  store->do_due();
  EXPECT_EQ(state("app:2"), TaskState::kRunning);
  complete(*again.next);
  EXPECT_FALSE(complete_and_claim(first).next.has_value());
  EXPECT_EQ(state("app:3"), TaskState::kReady);
}

TEST_P(TaskStoreFencing, NextLeaseToldAgainStillKnowsThatItIsToBeCancelled) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
  const ClaimedTask first = claim_one();
  complete_and_claim(first);
  cancel("app:2", "");
  const Completed again = complete_and_claim(first);
  ASSERT_TRUE(again.next.has_value());
  const auto told = store->heartbeat({{"app:2", again.next->lease_token}}).front();
  ASSERT_TRUE(told.answer.has_value());
  EXPECT_TRUE(told.answer->cancel_requested);
}

TEST_P(TaskStoreLeases, LivesUntilItEnds) {
  submit(submission("app", {task_spec("1")}));
  const ClaimedTask claimed = claim_one();
  const auto lives = [&](const std::string& token) {
    return change([&](TaskChanges& changes) { return changes.lives({"app:1", {token}}); });
  };
  EXPECT_TRUE(lives(claimed.lease_token.value));
  EXPECT_FALSE(lives("forged"));
  EXPECT_FALSE(lives(""));
  complete(claimed);
  EXPECT_FALSE(lives(claimed.lease_token.value));
}

/// Of stores that know after another opening what they knew.
using ReopenedLeases = TaskStoreSuite;
std::vector<StoreFactory> persistent_factories() {
  std::vector<StoreFactory> factories = store_factories();
  std::erase_if(factories, [](const StoreFactory& factory) { return !factory.persistent; });
  return factories;
}
INSTANTIATE_TEST_SUITE_P(Stores, ReopenedLeases, testing::ValuesIn(persistent_factories()),
                         name_of_factory);

TEST_P(ReopenedLeases, SurviveAndAreRenewedOnce) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
  const ClaimedTask claimed = claim_one();
  clock.advance(seconds(50));
  open();
  advance(seconds(50));
  EXPECT_EQ(state("app:1"), TaskState::kRunning);
  cancel("app:1", "");
  open();
  const auto told = store->heartbeat({{"app:1", claimed.lease_token}}).front();
  ASSERT_TRUE(told.answer.has_value());
  EXPECT_TRUE(told.answer->cancel_requested);
  EXPECT_EQ(complete(claimed).state, TaskState::kDone);
}

TEST_P(TaskStoreLeases, NextClaimOnTheSameTermsKeepsTheClaimantsProvider) {
  const Json own = Json::object({{"provider", "local"}, {"priority", 1}});
  submit(submission("app", {task_spec("1", {}, own),
                            task_spec("2", {}, Json::object({{"provider", "openai"}}))}));
  Completion completion;
  completion.lease_token = claim_for("").at(0).lease_token;  // one that serves any provider
  NextClaim next;
  next.wanted = true;
  const Completed completed = complete("app:1", completion, next);
  ASSERT_TRUE(completed.next.has_value());
  EXPECT_EQ(completed.next->task.id, "app:2");
}

}  // namespace
}  // namespace necrocode::registry
