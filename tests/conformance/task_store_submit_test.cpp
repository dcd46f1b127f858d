// Submissions: what becomes of them, and what is refused.
#include <atomic>
#include <thread>

#include "conformance/task_store_suite.hpp"

namespace necrocode::registry {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using TaskStoreSubmit = TaskStoreSuite;
INSTANTIATE_TEST_SUITE_P(Stores, TaskStoreSubmit, testing::ValuesIn(store_factories()),
                         name_of_factory);

TEST_P(TaskStoreSubmit, SubmittedTasksetIsReadyAndBlockedByItsDependencies) {
  const Submitted submitted =
      submit(submission("app", {task_spec("1.1"), task_spec("1.2", {"1.1"})}));
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

TEST_P(TaskStoreSubmit, ResubmittingTheSameKeepsTheVersionAndAChangeRaisesIt) {
  submit(submission("app", {task_spec("1.1"), task_spec("1.2")}));
  const Submitted same = submit(submission("app", {task_spec("1.2")}));
  EXPECT_FALSE(same.created);
  EXPECT_EQ(same.taskset.version, 1);
  EXPECT_EQ(same.taskset.tasks.size(), 2u);  // a task that is not named stays
  const Submitted changed =
      submit(submission("app", {task_spec("1.2", {"1.1"}, Json::object({{"priority", 5}}))}));
  EXPECT_EQ(changed.taskset.version, 2);
  EXPECT_EQ(state("app:1.2"), TaskState::kBlocked);
}

TEST_P(TaskStoreSubmit, ReplaceRemovesWhatIsNotNamedAndNotBegun) {
  submit(submission("app", {task_spec("1"), task_spec("2"), task_spec("3")}));
  claim_one();  // app:1 has begun
  Submission whole = submission("app", {task_spec("3")});
  whole.replace = true;
  const Submitted submitted = submit(whole);
  ASSERT_EQ(submitted.taskset.tasks.size(), 2u);
  EXPECT_EQ(submitted.taskset.tasks[0].id, "app:1");
  EXPECT_EQ(submitted.taskset.tasks[1].id, "app:3");
  EXPECT_EQ(submitted.taskset.counts["ready"], Json(1));
  EXPECT_THROW(task("app:2"), NotFound);
}

TEST_P(TaskStoreSubmit, ReplaceRefusesToRemoveWhatAnotherTasksetNeeds) {
  submit(submission("base", {task_spec("1")}));
  submit(submission("app", {task_spec("1", {"base:1"})}));
  Submission whole = submission("base", {task_spec("2")});
  whole.replace = true;
  EXPECT_THAT(refused([&] { submit(whole); }), HasSubstr("app:1 depends on it"));
  EXPECT_THROW(task("base:2"), NotFound);  // all or nothing
}

TEST_P(TaskStoreSubmit, UnknownAndSelfDependenciesAreAllNamedAtOnce) {
  const std::string why = refused([&] {
    submit(submission("app", {task_spec("1", {"1"}), task_spec("2", {"9.9", "other:1"})}));
  });
  EXPECT_THAT(why, HasSubstr("/tasks/0/dependencies/0 closes a cycle: app:1 → app:1"));
  EXPECT_THAT(why, HasSubstr("/tasks/1/dependencies/0 there is no task app:9.9"));
  EXPECT_THAT(why, HasSubstr("/tasks/1/dependencies/1 there is no task other:1"));
  EXPECT_THROW(taskset("app", TasksetPart::kHead), NotFound);
}

TEST_P(TaskStoreSubmit, CycleIsRefusedAndNamedAlsoOverTasksetsAndSubmissions) {
  EXPECT_THAT(refused([&] {
                submit(submission(
                    "app", {task_spec("1", {"3"}), task_spec("2", {"1"}), task_spec("3", {"2"})}));
              }),
              HasSubstr("closes a cycle: app:1 → app:3 → app:2 → app:1"));
  submit(submission("a", {task_spec("1"), task_spec("2")}));
  submit(submission("b", {task_spec("1", {"a:1"})}));
  EXPECT_THAT(refused([&] { submit(submission("a", {task_spec("1", {"b:1"})})); }),
              HasSubstr("a:1 → b:1 → a:1"));
  EXPECT_EQ(taskset("a", TasksetPart::kHead).version, 1);
  EXPECT_EQ(state("a:1"), TaskState::kReady);
}

TEST_P(TaskStoreSubmit, NewTaskSubmittedAsDoneIsDoneAndFreesWhoWaitsForIt) {
  submit(submission("app",
                    {task_spec("2", {"1"}), task_spec("1", {}, Json::object({{"done", true}}))}));
  EXPECT_EQ(state("app:1"), TaskState::kDone);
  EXPECT_EQ(state("app:2"), TaskState::kReady);
  EXPECT_THAT(event_types("app:1"), ElementsAre("TaskCreated"));
  EXPECT_EQ(events_of("app:2").front().data, Json::object({{"state", "ready"}}));
}

TEST_P(TaskStoreSubmit, DoneEndsAnExistingTaskInAnyStateButRunning) {
  submit(
      submission("app", {task_spec("1"), task_spec("2"), task_spec("3"), task_spec("4", {"3"})}));
  const ClaimedTask running = claim_one();
  complete(claim_one(), TaskState::kFailed);
  const Json done = Json::object({{"done", true}});
  const Submitted submitted = submit(submission(
      "app", {task_spec("1", {}, done), task_spec("2", {}, done), task_spec("3", {}, done)}));
  EXPECT_EQ(submitted.taskset.version, 2);
  EXPECT_EQ(state("app:1"), TaskState::kRunning);
  EXPECT_EQ(state("app:2"), TaskState::kDone);
  EXPECT_TRUE(task("app:2").failure.is_null());
  EXPECT_EQ(events_of("app:2").back().event_type, "TaskCompleted");
  EXPECT_EQ(events_of("app:2").back().data, Json::object({{"reason", "submitted as done"}}));
  EXPECT_EQ(state("app:4"), TaskState::kReady);
  EXPECT_EQ(complete(running).state, TaskState::kDone);
  const auto again = submit(submission("app", {task_spec("3", {}, done)}));
  EXPECT_EQ(again.taskset.version, 2);  // as it is
}

TEST_P(TaskStoreSubmit, LimitsStayUntilTheyAreGivenAgain) {
  Submission whole = submission("app", {task_spec("1")});
  whole.max_running = 2;
  whole.budget_usd = 1.5;
  whole.budget_tokens = 1000;
  whole.unblock_on = UnblockOn::kMerged;
  submit(whole);
  const TasksetLimits all{2, 1.5, 1000, UnblockOn::kMerged};
  EXPECT_EQ(submit(submission("app", {})).taskset.limits, all);
  Submission changed = submission("app", {});
  changed.max_running = 0;
  const Taskset taskset = submit(changed).taskset;
  EXPECT_EQ(taskset.limits, (TasksetLimits{0, 1.5, 1000, UnblockOn::kMerged}));
  EXPECT_EQ(taskset.version, 2);
}

TEST_P(TaskStoreSubmit, OneOfTwoSubmissionsThatCloseACycleTogetherIsRefused) {
  for (int round = 0; round < 10; ++round) {
    const std::string a = "a" + std::to_string(round);
    const std::string b = "b" + std::to_string(round);
    submit(submission(a, {task_spec("1")}));
    submit(submission(b, {task_spec("1")}));
    std::atomic<int> refusals{0};
    const auto depend = [&](const std::string& child, const std::string& parent) {
      try {
        submit(submission(child, {task_spec("1", {parent + ":1"})}));
      } catch (const TaskContextValidationError&) {
        ++refusals;
      }
    };
    std::thread other([&] { depend(a, b); });
    depend(b, a);
    other.join();
    EXPECT_EQ(refusals, 1);
    EXPECT_EQ(store->graph(a).edges.size() + store->graph(b).edges.size(), 1u);
  }
}

TEST_P(TaskStoreSubmit, FailedTransactionLeavesNothing) {
  submit(submission("app", {task_spec("1")}));
  const std::int64_t newest = store->newest_event();
  const auto work = [&](TaskChanges& changes) {
    changes.submit(submission("other", {task_spec("1")}));
    changes.cancel("app:1", "");
    changes.answers().keep("key", {"f", 201, "", "", "body"});
    throw NotFound("as any error");
  };
  EXPECT_THROW(transact(work), NotFound);
  EXPECT_EQ(state("app:1"), TaskState::kReady);
  EXPECT_THROW(taskset("other"), NotFound);
  EXPECT_EQ(store->newest_event(), newest);
  EXPECT_FALSE(change([](TaskChanges& c) { return c.answers().find("key").has_value(); }));
}

TEST_P(TaskStoreSubmit, PatchChangesPriorityLabelsAndMetadataOfAnyTask) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
  TaskPatch patched;
  patched.priority = 5;
  patched.labels = {"ui"};
  patched.metadata = Json::object({{"note", "first"}});
  const Task after = patch("app:2", patched);
  EXPECT_EQ(after.fields["priority"], Json(5));
  EXPECT_EQ(after.metadata, patched.metadata);
  EXPECT_EQ(patch("app:2", patched).version, after.version);  // nothing new
  EXPECT_THAT(event_types("app:2"), ElementsAre("TaskCreated", "TaskUpdated"));
  EXPECT_THAT(claim_ids(2), ElementsAre("app:2", "app:1"));
  TaskQuery query;
  query.label = "ui";
  EXPECT_EQ(store->tasks(query).items.size(), 1u);
  patched.expected = [](std::int64_t version) { return version == 1; };
  EXPECT_THROW(patch("app:2", patched), LostUpdate);
  EXPECT_THROW(patch("app:9", {}), NotFound);
}

}  // namespace
}  // namespace necrocode::registry
