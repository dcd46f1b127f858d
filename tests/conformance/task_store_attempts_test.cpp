// Failures by class, what is kept of attempts, and parked providers.
#include "conformance/task_store_suite.hpp"

namespace necrocode::registry {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

using TaskStoreAttempts = TaskStoreSuite;
INSTANTIATE_TEST_SUITE_P(Stores, TaskStoreAttempts, testing::ValuesIn(store_factories()),
                         name_of_factory);

Json attempts_of(int most) {
  return Json::object({{"max_attempts", most}});
}

TEST_P(TaskStoreAttempts, ClassDecidesHowOftenAndWhen) {
  struct Case {
    std::string failure_class;
    int attempts;
    std::chrono::seconds first_wait;
  };
  int specs = 0;
  for (const Case& one :
       {Case{"agent", 1, 0s}, Case{"tests", 1, 0s}, Case{"unheard of", 1, 0s}, Case{"", 1, 0s},
        Case{"infrastructure", 3, 5s}, Case{"conflict", 3, 30s}}) {
    const std::string spec = "s" + std::to_string(++specs);
    const std::string id = submit(submission(spec, {task_spec("1")})).taskset.tasks[0].id;
    auto wait = one.first_wait;
    for (int attempt = 1; attempt < one.attempts; ++attempt, wait *= 2) {
      const Task retried = fail(claim_one(), one.failure_class);
      EXPECT_EQ(retried.state, TaskState::kReady) << one.failure_class;
      EXPECT_EQ(retried.not_before, clock.system_now() + wait) << one.failure_class;
      EXPECT_EQ(events_of(id).back().event_type, "TaskRetried");
      EXPECT_EQ(events_of(id).back().data, retried.failure);
      advance(wait - 1ms);
      EXPECT_THAT(claim(), IsEmpty());
      advance(1ms);
    }
    EXPECT_EQ(fail(claim_one(), one.failure_class).state, TaskState::kFailed) << one.failure_class;
    EXPECT_EQ(events_of(id).back().event_type, "TaskFailed");
  }
}

TEST_P(TaskStoreAttempts, MaxAttemptsMayBeOneNumberOrOneForAClass) {
  submit(submission(
      "app", {task_spec("1", {}, attempts_of(2)),
              task_spec("2", {}, Json::object({{"max_attempts", Json::object({{"tests", 2}})}}))}));
  auto both = claim(2);
  EXPECT_EQ(fail(both[0], "agent").state, TaskState::kReady);
  EXPECT_EQ(fail(both[1], "agent").state, TaskState::kFailed);
  retry("app:2");
  EXPECT_EQ(fail(claim_one(), "tests").state, TaskState::kReady);
  advance(5s);
  both = claim(2);
  EXPECT_EQ(fail(both[0], "tests").state, TaskState::kReady);  // the first of this class
  EXPECT_EQ(fail(both[1], "tests").state, TaskState::kFailed);
}

TEST_P(TaskStoreAttempts, RetryAtIsALowerBound) {
  submit(submission("app", {task_spec("1", {}, attempts_of(5))}));
  const SystemTime late = clock.system_now() + 100s;
  EXPECT_EQ(fail(claim_one(), "tests", late).not_before, late);
  advance(100s);
  const SystemTime soon = clock.system_now() + 1s;
  EXPECT_EQ(fail(claim_one(), "tests", soon).not_before, clock.system_now() + 10s);
}

TEST_P(TaskStoreAttempts, QuotaUsesUpNoAttemptAndIsFinalWithoutATime) {
  submit(submission("app", {task_spec("1")}));
  for (int i = 0; i < 5; ++i) {
    const SystemTime then = clock.system_now() + 60s;
    const Task waiting = fail(claim_one(), "quota", then);
    EXPECT_EQ(waiting.state, TaskState::kReady);
    EXPECT_EQ(waiting.not_before, then);
    advance(60s);
  }
  EXPECT_EQ(fail(claim_one(), "quota").state, TaskState::kFailed);
}

TEST_P(TaskStoreAttempts, QuotaWhoseTimeIsPastWaitsLongerEachTime) {
  submit(submission("app", {task_spec("1")}));
  for (const auto wait : {1s, 2s, 4s}) {
    const Task waiting = fail(claim_one(), "quota", clock.system_now() - 1h);
    EXPECT_EQ(waiting.not_before, clock.system_now() + wait);
    advance(wait);
  }
}

TEST_P(TaskStoreAttempts, AWaitThatBeganLaterIsNotEndedByAnEarlierOneForTheSameTime) {
  submit(submission("app", {task_spec("1")}));
  const SystemTime then = clock.system_now() + 60s;
  fail(claim_one(), "quota", then);
  cancel("app:1", "");
  retry("app:1");
  clock.step_system(-60s);
  EXPECT_EQ(fail(claim_one(), "quota", then).not_before, then);
  advance(60s);
  EXPECT_TRUE(task("app:1").not_before.has_value());
  advance(60s);
  EXPECT_FALSE(task("app:1").not_before.has_value());
}

TEST_P(TaskStoreAttempts, RetryGivesNewAttempts) {
  submit(submission("app", {task_spec("1", {}, attempts_of(2))}));
  fail(claim_one(), "tests");
  advance(5s);
  EXPECT_EQ(fail(claim_one(), "tests").state, TaskState::kFailed);
  const Task again = retry("app:1");
  EXPECT_EQ(again.state, TaskState::kReady);
  EXPECT_FALSE(again.not_before.has_value());
  EXPECT_EQ(again.failure["reason"], Json("because of tests"));  // until it is done
  EXPECT_EQ(fail(claim_one(), "tests").state, TaskState::kReady);
  advance(5s);
  EXPECT_TRUE(complete(claim_one()).failure.is_null());
}

TEST_P(TaskStoreAttempts, FailedStatusWithoutAFailureIsFinal) {
  submit(submission("app", {task_spec("1", {}, attempts_of(5)), task_spec("2")}));
  const ClaimedTask claimed = claim_one();
  EXPECT_EQ(set_status("app:1", TaskState::kFailed, claimed.lease_token.value).state,
            TaskState::kFailed);
  set_status("app:2", TaskState::kRunning);
  EXPECT_EQ(set_status("app:2", TaskState::kFailed).state, TaskState::kFailed);
}

TEST_P(TaskStoreAttempts, RunsWithoutALeaseUseUpAttemptsAndBudgetToo) {
  submit(submission("app", {task_spec("1")}));
  Completion completion;
  completion.status = TaskState::kFailed;
  completion.failure = Failure{"infrastructure", "no disk", {}};
  completion.metadata = Json::object({{"usage", Json::object({{"total_tokens", 10}})}});
  for (int attempt = 1; attempt <= 3; ++attempt) {
    set_status("app:1", TaskState::kRunning);
    const Task after = complete("app:1", completion, {}).task;
    EXPECT_EQ(after.state, attempt < 3 ? TaskState::kReady : TaskState::kFailed);
    advance(20s);
  }
  EXPECT_EQ(taskset("app").spent_tokens, 30);
  EXPECT_THAT(store->attempts("app:1"), SizeIs(3));
}

TEST_P(TaskStoreAttempts, CancelledTaskIsNotTriedAgain) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
  const auto both = claim(2);
  cancel("app:1", "");
  cancel("app:2", "");
  EXPECT_EQ(fail(both[0], "infrastructure").state, TaskState::kCancelled);
  EXPECT_EQ(fail(both[1], "agent").state, TaskState::kFailed);  // it was the last anyway
}

TEST_P(TaskStoreAttempts, NextClaimantIsToldWhatCameOfTheEarlierOnes) {
  submit(submission("app", {task_spec("1", {}, attempts_of(3))}));
  const ClaimedTask first = claim_for("openai").at(0);
  add_event("app:1", {"SlotAllocated", Json::object({{"slot_id", "s.1"}, {"branch", "b1"}}),
                      clock.system_now(), first.lease_token});
  NewArtifact diff;
  diff.artifact = {"diff", "file:///d", 3, Json::object(), clock.system_now(), 0};
  diff.lease_token = first.lease_token;
  add_artifact("app:1", diff);
  const SystemTime started = clock.system_now();
  clock.advance(2s);
  fail(first, "tests", {},
       Json::object({{"commit", "c0ffee"},
                     {"usage", Json::object({{"cost_usd", 0.25}, {"total_tokens", 70}})}}));
  advance(5s);
  complete(claim_one(), TaskState::kReady);  // handed back: no attempt, but told
  const ClaimedTask third = claim_one();
  ASSERT_THAT(third.previous_attempts, SizeIs(2));
  const AttemptRecord& told = third.previous_attempts.front();
  EXPECT_EQ(told.attempt, 1);
  EXPECT_EQ(told.runner_id, "runner-1");
  EXPECT_EQ(told.provider, "openai");
  EXPECT_EQ(told.slot_id, "s.1");
  EXPECT_EQ(told.branch, "b1");
  EXPECT_EQ(told.commit, "c0ffee");
  EXPECT_EQ(told.started_at, started);
  EXPECT_EQ(told.ended_at, started + 2s);
  EXPECT_EQ(told.outcome, "ready");
  EXPECT_EQ(told.failure["class"], Json("tests"));
  EXPECT_EQ(told.cost_usd, 0.25);
  EXPECT_EQ(told.tokens, 70);
  ASSERT_THAT(told.artifacts, SizeIs(1));
  EXPECT_EQ(told.artifacts.front().uri, "file:///d");
  EXPECT_EQ(third.previous_attempts.back().attempt, 0);
  EXPECT_EQ(third.previous_attempts.back().outcome, "ready");
  EXPECT_TRUE(third.previous_attempts.back().failure.is_null());
  const auto all = store->attempts("app:1");
  ASSERT_THAT(all, SizeIs(3));
  EXPECT_EQ(all.back().attempt, 2);
  EXPECT_FALSE(all.back().ended_at.has_value());
  EXPECT_EQ(all.back().outcome, "");
}

TEST_P(TaskStoreAttempts, OnlyTheLastAttemptsAreTold) {
  submit(submission("app", {task_spec("1", {}, attempts_of(100))}));
  constexpr int kAttempts = static_cast<int>(limits::kAttemptsTold) + 3;
  for (int i = 0; i < kAttempts; ++i) {
    fail(claim_one(), "tests");
    advance(5min);
  }
  const ClaimedTask last = claim_one();
  ASSERT_THAT(last.previous_attempts, SizeIs(limits::kAttemptsTold));
  EXPECT_EQ(last.previous_attempts.front().attempt, 4);
  EXPECT_EQ(last.previous_attempts.back().attempt, kAttempts);
  EXPECT_THAT(store->attempts("app:1"), SizeIs(kAttempts + 1));
}

class ParkedProviders : public TaskStoreSuite {
 protected:
  /// openai parked for a minute, which has passed; a task of its own and two that name none.
  ClaimedTask probe() {
    submit(submission("app", {task_spec("1", {}, Json::object({{"provider", "openai"}})),
                              task_spec("2"), task_spec("3")}));
    park("openai", clock.system_now() + 60s, "quota");
    advance(60s);
    return claim_for("openai").at(0);
  }
  std::vector<ParkedProvider> parked() { return store->parked_providers(); }
};
INSTANTIATE_TEST_SUITE_P(Stores, ParkedProviders, testing::ValuesIn(store_factories()),
                         name_of_factory);

TEST_P(ParkedProviders, KeepTheirTasksAndThoseOfTheirClaimants) {
  submit(submission("app",
                    {task_spec("1", {}, Json::object({{"provider", "openai"}})), task_spec("2")}));
  const SystemTime until = clock.system_now() + 60s;
  EXPECT_EQ(park("openai", until, "quota").until, until);
  EXPECT_THAT(claim_for("openai", 2), IsEmpty());
  EXPECT_THAT(claim_named("app:1"), IsEmpty());
  EXPECT_THAT(waits_for("app:1"), ElementsAre("provider"));
  EXPECT_EQ(store->explain("app:1").reasons.at(0).until, until);
  EXPECT_TRUE(store->explain("app:2").claimable);
  EXPECT_THAT(ids_of(claim_for("", 2)), ElementsAre("app:2"));
  unpark("openai");
  EXPECT_THROW(unpark("openai"), NotFound);
  EXPECT_THAT(ids_of(claim_for("openai", 2)), ElementsAre("app:1"));
}

TEST_P(ParkedProviders, AreProbedByOneTaskOnceTheirTimeHasCome) {
  const ClaimedTask one = probe();
  EXPECT_EQ(one.task.id, "app:1");
  ASSERT_THAT(parked(), SizeIs(1));
  EXPECT_EQ(parked()[0].probe, "app:1");
  EXPECT_THAT(claim_for("openai", 5), IsEmpty());
  EXPECT_THAT(ids_of(claim_for("local", 1)), ElementsAre("app:2"));
  complete(one);
  EXPECT_THAT(parked(), IsEmpty());
  EXPECT_THAT(ids_of(claim_for("openai", 5)), ElementsAre("app:3"));
}

TEST_P(ParkedProviders, GoOnAfterAFailureThatIsNotTheirs) {
  fail(probe(), "tests");
  EXPECT_THAT(parked(), IsEmpty());
}

TEST_P(ParkedProviders, StayParkedUntilTheProbesRetryAtWhenTheQuotaIsStillUsedUp) {
  const SystemTime until = clock.system_now() + 60s + 100s;
  fail(probe(), "quota", until);
  ASSERT_THAT(parked(), SizeIs(1));
  EXPECT_EQ(parked()[0].until, until);
  EXPECT_EQ(parked()[0].reason, "because of quota");
  EXPECT_EQ(parked()[0].probe, "");
  EXPECT_THAT(claim_for("openai", 5), IsEmpty());
  advance(100s);
  const ClaimedTask again = claim_for("openai").at(0);
  fail(again, "quota");
  EXPECT_EQ(parked()[0].until, clock.system_now() + 60s);
}

TEST_P(ParkedProviders, StayAsLongAsTheQuotaSaysWhenTheProbeIsCancelledToo) {
  const SystemTime until = clock.system_now() + 60s + 100s;
  const ClaimedTask one = probe();
  cancel("app:1", "");
  EXPECT_EQ(fail(one, "quota", until).state, TaskState::kCancelled);
  EXPECT_EQ(parked().at(0).until, until);
}

TEST_P(ParkedProviders, AreProbedAgainAfterAProbeThatProvedNothing) {
  const ClaimedTask handed_back = probe();
  complete(handed_back, TaskState::kReady);
  EXPECT_EQ(parked().at(0).probe, "");
  const ClaimedTask given_back = claim_for("openai").at(0);
  EXPECT_THAT(claim_for("openai"), IsEmpty());
  give_back({{given_back.task.id, given_back.lease_token}});
  claim_for("openai").at(0);
  advance(61s);  // its lease ends
  const ClaimedTask broken = claim_for("openai").at(0);
  fail(broken, "infrastructure");
  const ClaimedTask cancelled = claim_for("openai").at(0);
  complete(cancelled, TaskState::kCancelled);
  ASSERT_THAT(parked(), SizeIs(1));
  EXPECT_THAT(claim_for("openai", 5), SizeIs(1));
}

TEST_P(ParkedProviders, ParkedAnewForgetTheirProbe) {
  const ClaimedTask one = probe();
  park("openai", clock.system_now() + 10s, "again");
  complete(one);
  ASSERT_THAT(parked(), SizeIs(1));
  EXPECT_EQ(parked()[0].reason, "again");
  EXPECT_THAT(claim_for("openai"), IsEmpty());
  advance(10s);
  EXPECT_THAT(claim_for("openai", 5), SizeIs(1));
}

TEST_P(ParkedProviders, StayNoLongerThanTheLimit) {
  const ParkedProvider until = park("openai", clock.system_now() + 24h * 365, "for ever");
  EXPECT_EQ(until.until, clock.system_now() + limits::kParkTimeMax);
}

}  // namespace
}  // namespace necrocode::registry
