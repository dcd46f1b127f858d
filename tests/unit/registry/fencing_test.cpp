// Who may change a task, and what the same call told again does.
#include "store_fixture.hpp"

namespace necrocode::registry {
namespace {

using testing::ElementsAre;

class FencingTest : public StoreTest {
 protected:
  /// A hands its task back, B finishes it.
  ClaimedTask handed_back_and_done_by_another() {
    store->submit(submission("app", {task_spec("1"), task_spec("2")}));
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
    return store->complete(claimed.task.id, completion, next);
  }
};

TEST_F(FencingTest, HolderThatHandedBackCannotTouchWhatAnotherFinished) {
  const ClaimedTask first = handed_back_and_done_by_another();
  const std::int64_t version = store->task("app:1").version;
  StatusChange change;
  change.status = TaskState::kDone;
  change.metadata = Json::object({{"by", "first"}});
  change.lease_token = first.lease_token;
  EXPECT_THROW(store->set_status("app:1", change), Conflict);
  EXPECT_THROW(complete(first, TaskState::kDone, change.metadata), Conflict);
  EXPECT_THROW(complete_and_claim(first), Conflict);
  EXPECT_EQ(store->task("app:1").metadata, Json::object({{"by", "second"}}));
  EXPECT_EQ(store->task("app:1").version, version);
  EXPECT_EQ(state("app:2"), TaskState::kReady);
}

TEST_F(FencingTest, LateWordsOfAHandedBackClaimAreFiledUnderNoAttempt) {
  const ClaimedTask first = handed_back_and_done_by_another();
  const NewEvent late{"TaskProgress", Json::object(), clock.system_now(), first.lease_token};
  EXPECT_EQ(store->add_event("app:1", late).attempt, 0);
  NewArtifact artifact;
  artifact.artifact = {"log", "http://x/1", {}, Json::object(), clock.system_now(), 0};
  artifact.lease_token = first.lease_token;
  EXPECT_EQ(store->add_artifact("app:1", artifact).attempt, 0);
}

TEST_F(FencingTest, StatusToldAgainMergesNothing) {
  store->submit(submission("app", {task_spec("1")}));
  StatusChange change;
  change.status = TaskState::kDone;
  change.lease_token = claim_one().lease_token;
  const std::int64_t version = store->set_status("app:1", change).version;
  change.metadata = Json::object({{"late", true}});
  EXPECT_EQ(store->set_status("app:1", change).version, version);
  EXPECT_EQ(store->task("app:1").metadata, Json::object());
}

TEST_F(FencingTest, CompletionToldAgainAnswersItsNextLeaseWhileThatLives) {
  store->submit(submission("app", {task_spec("1"), task_spec("2"), task_spec("3")}));
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

TEST_F(FencingTest, NextLeaseToldAgainStillKnowsThatItIsToBeCancelled) {
  store->submit(submission("app", {task_spec("1"), task_spec("2")}));
  const ClaimedTask first = claim_one();
  complete_and_claim(first);
  store->cancel("app:2", "");
  const Completed again = complete_and_claim(first);
  ASSERT_TRUE(again.next.has_value());
  const auto told = store->heartbeat({{"app:2", again.next->lease_token}}).front();
  ASSERT_TRUE(told.answer.has_value());
  EXPECT_TRUE(told.answer->cancel_requested);
}

TEST_F(FencingTest, RetryAloneBringsACancelledTaskBack) {
  store->submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  complete(claim_one(), TaskState::kCancelled);
  store->cancel("app:2", "");
  EXPECT_THROW(set_status("app:1", TaskState::kReady), Conflict);
  EXPECT_EQ(store->retry("app:1").state, TaskState::kReady);
  EXPECT_EQ(store->retry("app:2").state, TaskState::kBlocked);  // its dependency is open
  EXPECT_THAT(event_types("app:2"), ElementsAre("TaskCreated", "TaskCancelled", "TaskRetried"));
  const ClaimedTask again = claim_one();
  EXPECT_EQ(again.task.attempt, 2);
  EXPECT_FALSE(again.task.cancel_requested);
  complete(again);
  EXPECT_EQ(claim_one().task.id, "app:2");
}

}  // namespace
}  // namespace necrocode::registry
