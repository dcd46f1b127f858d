// What becomes of tasks when one that they depend on fails, is cancelled, or is not yet merged.
#include "conformance/task_store_suite.hpp"

namespace necrocode::registry {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

using TaskStorePolicy = TaskStoreSuite;
INSTANTIATE_TEST_SUITE_P(Stores, TaskStorePolicy, testing::ValuesIn(store_factories()),
                         name_of_factory);

Json policy(const std::string& name) {
  return Json::object({{"on_dependency_failure", name}});
}

TEST_P(TaskStorePolicy, BlockWaitsForTheRetriedParentCancelEndsAndRunGoesOn) {
  submit(submission(
      "app", {task_spec("1"), task_spec("2", {"1"}, policy("block")),
              task_spec("3", {"1"}, policy("cancel")), task_spec("4", {"1"}, policy("run"))}));
  fail(claim_one(), "agent");
  EXPECT_EQ(state("app:2"), TaskState::kBlocked);
  EXPECT_EQ(state("app:3"), TaskState::kCancelled);
  EXPECT_EQ(state("app:4"), TaskState::kReady);
  EXPECT_EQ(events_of("app:3").back().event_type, "TaskCancelled");
  EXPECT_EQ(events_of("app:3").back().data, Json::object({{"after", "app:1"}}));
  EXPECT_EQ(events_of("app:4").back().event_type, "TaskReady");
  retry("app:1");
  EXPECT_EQ(state("app:4"), TaskState::kReady);  // what was met stays met
  complete(claim_one());
  EXPECT_EQ(state("app:2"), TaskState::kReady);
  EXPECT_EQ(state("app:3"), TaskState::kCancelled);
}

TEST_P(TaskStorePolicy, EachDependencyMayHaveItsOwn) {
  const Json own =
      Json::object({{"on_dependency_failure", Json::object({{"1", "run"}, {"2", "cancel"}})}});
  submit(submission("app", {task_spec("1"), task_spec("2"), task_spec("3", {"1", "2"}, own)}));
  cancel("app:1", "");
  EXPECT_EQ(state("app:3"), TaskState::kBlocked);
  EXPECT_EQ(task("app:3").blocked_reason, "waits for app:2 (ready)");
  cancel("app:2", "");
  EXPECT_EQ(state("app:3"), TaskState::kCancelled);
}

TEST_P(TaskStorePolicy, CancellationGoesThroughAllLevelsAndRunStopsIt) {
  submit(submission("app",
                    {task_spec("1"), task_spec("2", {"1"}, policy("cancel")),
                     task_spec("3", {"2"}, policy("cancel")), task_spec("4", {"3"}, policy("run")),
                     task_spec("5", {"4"}, policy("cancel"))}));
  submit(submission("other", {task_spec("1", {"app:3"}, policy("cancel"))}));
  cancel("app:1", "");
  EXPECT_EQ(state("app:2"), TaskState::kCancelled);
  EXPECT_EQ(state("app:3"), TaskState::kCancelled);
  EXPECT_EQ(events_of("app:3").back().data, Json::object({{"after", "app:2"}}));
  EXPECT_EQ(state("other:1"), TaskState::kCancelled);
  EXPECT_EQ(state("app:4"), TaskState::kReady);
  EXPECT_EQ(state("app:5"), TaskState::kBlocked);
}

TEST_P(TaskStorePolicy, EdgeToAParentThatHasFailedActsAtOnce) {
  submit(submission("app", {task_spec("1"), task_spec("5")}));
  cancel("app:1", "");
  submit(submission(
      "app", {task_spec("2", {"1"}, policy("cancel")), task_spec("4", {"2"}, policy("cancel")),
              task_spec("3", {"1"}, policy("run")), task_spec("5", {"1"}, policy("cancel"))}));
  EXPECT_EQ(state("app:2"), TaskState::kCancelled);
  EXPECT_THAT(event_types("app:2"), ElementsAre("TaskCreated", "TaskCancelled"));
  EXPECT_EQ(state("app:4"), TaskState::kCancelled);
  EXPECT_EQ(state("app:3"), TaskState::kReady);
  EXPECT_EQ(state("app:5"), TaskState::kCancelled);  // existed, and was ready
}

// Whichever of them stands first: a child is told once all of the submission is settled.
TEST_P(TaskStorePolicy, ChildOfWhatTheSameSubmissionCancelsIsToldOnce) {
  submit(submission("app", {task_spec("f"), task_spec("p")}));
  set_status("app:f", TaskState::kRunning);
  set_status("app:f", TaskState::kFailed);
  submit(submission(
      "app", {task_spec("f"), task_spec("c", {"p"}, policy("run")),
              task_spec("d", {"p"}, policy("cancel")), task_spec("p", {"f"}, policy("cancel"))}));
  EXPECT_EQ(state("app:p"), TaskState::kCancelled);
  EXPECT_EQ(state("app:c"), TaskState::kReady);
  EXPECT_EQ(state("app:d"), TaskState::kCancelled);
  EXPECT_THAT(event_types("app:c"), ElementsAre("TaskCreated", "TaskReady"));
  EXPECT_THAT(event_types("app:d"), ElementsAre("TaskCreated", "TaskCancelled"));
}

TEST_P(TaskStorePolicy, ChangedPolicyIsLookedAtAnew) {
  submit(submission("app", {task_spec("1"), task_spec("2", {"1"})}));
  cancel("app:1", "");
  EXPECT_EQ(state("app:2"), TaskState::kBlocked);
  submit(submission("app", {task_spec("2", {"1"}, policy("run"))}));
  EXPECT_EQ(state("app:2"), TaskState::kReady);
  submit(submission("app", {task_spec("2", {"1"}, policy("block"))}));
  EXPECT_EQ(state("app:2"), TaskState::kBlocked);
  submit(submission("app", {task_spec("2", {"1"}, policy("cancel"))}));
  EXPECT_EQ(state("app:2"), TaskState::kCancelled);
}

TEST_P(TaskStorePolicy, RunningChildIsLookedAtWhenItStops) {
  submit(submission("app", {task_spec("1"), task_spec("2", {}, Json::object({{"priority", 1}})),
                            task_spec("3", {}, Json::object({{"priority", 1}}))}));
  const auto running = claim(2);
  submit(submission(
      "app", {task_spec("2", {"1"}, policy("cancel")), task_spec("3", {"1"}, policy("cancel"))}));
  cancel("app:1", "");
  EXPECT_EQ(state("app:2"), TaskState::kRunning);
  EXPECT_EQ(complete(running[0], TaskState::kReady).state, TaskState::kCancelled);
  EXPECT_EQ(complete(running[1]).state, TaskState::kDone);
}

TEST_P(TaskStorePolicy, RetriedChildOfAFailedParentWaitsForIt) {
  submit(submission("app", {task_spec("1"), task_spec("2", {"1"}, policy("cancel"))}));
  cancel("app:1", "");
  EXPECT_EQ(retry("app:2").state, TaskState::kBlocked);
  EXPECT_EQ(retry("app:1").state, TaskState::kReady);
  complete(claim_one());
  EXPECT_EQ(claim_one().task.id, "app:2");
}

TEST_P(TaskStorePolicy, MergedWaitsUntilTheParentsMetadataSaysSo) {
  Submission whole = submission(
      "app", {task_spec("1"), task_spec("2", {"1"}), task_spec("3"), task_spec("4", {"3"})});
  whole.unblock_on = UnblockOn::kMerged;
  submit(whole);
  const Json merged = Json::object({{"merged", true}, {"commit", "c0ffee"}});
  const auto parents = claim(2);
  complete(parents[0]);
  complete(parents[1], TaskState::kDone, merged);
  EXPECT_EQ(task("app:2").blocked_reason, "waits for app:1 (not merged)");
  EXPECT_EQ(state("app:4"), TaskState::kReady);
  TaskPatch patched;
  patched.metadata = Json::object({{"merged", "yes"}});
  patch("app:1", patched);
  EXPECT_EQ(state("app:2"), TaskState::kBlocked);  // true, and nothing like it
  patched.metadata = merged;
  patch("app:1", patched);
  EXPECT_EQ(events_of("app:2").back().data, Json::object({{"after", "app:1"}}));
  const ClaimedTask child = claim_one();
  EXPECT_EQ(child.task.id, "app:2");
  EXPECT_THAT(child.task.base_commits, IsEmpty());  // it starts from where they were merged
}

TEST_P(TaskStorePolicy, ChangedUnblockOnFreesWhatIsMetByIt) {
  Submission whole = submission("app", {task_spec("1"), task_spec("2", {"1"})});
  whole.unblock_on = UnblockOn::kMerged;
  submit(whole);
  complete(claim_one());
  EXPECT_EQ(state("app:2"), TaskState::kBlocked);
  whole = submission("app", {});
  whole.unblock_on = UnblockOn::kDone;
  submit(whole);
  EXPECT_EQ(state("app:2"), TaskState::kReady);
  whole.unblock_on = UnblockOn::kMerged;
  submit(whole);
  EXPECT_EQ(state("app:2"), TaskState::kReady);  // what was met stays met
}

}  // namespace
}  // namespace necrocode::registry
