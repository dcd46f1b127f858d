#include "necrocode/net/host_guard.hpp"

#include <gmock/gmock.h>

namespace necrocode::net {
namespace {

using namespace std::chrono_literals;

const SteadyTime kBegin = SteadyTime{} + 1h;

TEST(RetryBudget, IsSpentAndComesBackWithTime) {
  RetryBudget budget;
  int retries = 0;
  while (budget.withdraw(kBegin)) ++retries;
  EXPECT_EQ(retries, static_cast<int>(limits::kRetryBudgetTokens));
  EXPECT_FALSE(budget.withdraw(kBegin + 900ms));
  EXPECT_TRUE(budget.withdraw(kBegin + 1s));
  EXPECT_FALSE(budget.withdraw(kBegin + 1s));
}

TEST(RetryBudget, GrowsWithCallsUpToItsBucket) {
  RetryBudget budget;
  while (budget.withdraw(kBegin)) {
  }
  for (int call = 0; call < 5; ++call) budget.deposit(kBegin);
  EXPECT_TRUE(budget.withdraw(kBegin));
  EXPECT_FALSE(budget.withdraw(kBegin));
  for (int call = 0; call < 1000; ++call) budget.deposit(kBegin + 1h);
  EXPECT_DOUBLE_EQ(budget.tokens(kBegin + 2h), limits::kRetryBudgetTokens);
}

TEST(RetryBudget, DoesNotGrowWhenTimeIsToldOutOfOrder) {
  RetryBudget budget;
  while (budget.withdraw(kBegin)) {
  }
  EXPECT_FALSE(budget.withdraw(kBegin - 10s));
  EXPECT_FALSE(budget.withdraw(kBegin));
}

class CircuitBreakerTest : public testing::Test {
 protected:
  void fail(SteadyTime now) {
    auto admission = breaker_.admit(now);
    ASSERT_TRUE(admission.attempt);
    admission.attempt->failed(now);
  }
  /// Fails until the breaker has just opened; the time at which it did.
  SteadyTime open() {
    for (std::size_t i = 1; i < limits::kBreakerFailures; ++i) fail(kBegin);
    fail(kBegin + limits::kBreakerSpan);
    return kBegin + limits::kBreakerSpan;
  }
  CircuitBreaker breaker_;
};

TEST_F(CircuitBreakerTest, StaysClosedThroughManyFailuresInAShortTime) {
  for (int i = 0; i < 1000; ++i) fail(kBegin + limits::kBreakerSpan - 1ms * (i % 2));
  EXPECT_EQ(breaker_.state(kBegin), BreakerState::kClosed);
}

TEST_F(CircuitBreakerTest, StaysClosedThroughFewFailuresInALongTime) {
  for (std::size_t i = 1; i < limits::kBreakerFailures; ++i) fail(kBegin + 1min * i);
  EXPECT_EQ(breaker_.state(kBegin + 1h), BreakerState::kClosed);
}

TEST_F(CircuitBreakerTest, StaysClosedWhileSomeAnswerComes) {
  for (int i = 0; i < 100; ++i) {
    const SteadyTime now = kBegin + 1s * i;
    if (i % 8 == 0) breaker_.admit(now).attempt->succeeded();
    fail(now);
  }
  EXPECT_EQ(breaker_.state(kBegin + 100s), BreakerState::kClosed);
}

TEST_F(CircuitBreakerTest, OpensOnSustainedFailureAndSaysForHowLong) {
  const SteadyTime opened = open();
  EXPECT_EQ(breaker_.state(opened), BreakerState::kOpen);
  EXPECT_EQ(breaker_.times_opened(), 1u);
  const auto refused = breaker_.admit(opened + 500ms);
  EXPECT_FALSE(refused.attempt);
  EXPECT_EQ(refused.wait, limits::kBreakerOpenMin - 500ms);
}

TEST_F(CircuitBreakerTest, LetsOneProbeThroughAndClosesOnItsSuccess) {
  const SteadyTime later = open() + limits::kBreakerOpenMin;
  EXPECT_EQ(breaker_.state(later), BreakerState::kHalfOpen);
  auto probe = breaker_.admit(later);
  ASSERT_TRUE(probe.attempt);
  const auto other = breaker_.admit(later);
  EXPECT_FALSE(other.attempt);
  EXPECT_EQ(other.wait, limits::kBreakerProbeWait);
  probe.attempt->succeeded();
  EXPECT_EQ(breaker_.state(later), BreakerState::kClosed);
  EXPECT_TRUE(breaker_.admit(later).attempt);
}

TEST_F(CircuitBreakerTest, StaysOpenLongerAfterEachFailedProbe) {
  SteadyTime now = open();
  std::chrono::nanoseconds expected = limits::kBreakerOpenMin;
  for (int probe = 0; probe < 8; ++probe) {
    EXPECT_EQ(breaker_.admit(now).wait, expected);
    now += expected;
    fail(now);
    expected = std::min<std::chrono::nanoseconds>(2 * expected, limits::kBreakerOpenMax);
  }
  now += expected;
  breaker_.admit(now).attempt->succeeded();
  const auto begin = now;
  for (std::size_t i = 1; i < limits::kBreakerFailures; ++i) fail(begin);
  fail(begin + limits::kBreakerSpan);
  EXPECT_EQ(breaker_.admit(begin + limits::kBreakerSpan).wait, limits::kBreakerOpenMin);
}

TEST_F(CircuitBreakerTest, ProbeOfAnEarlierTimeDecidesNothing) {
  auto late = breaker_.admit(kBegin);  // from before it opens
  const SteadyTime later = open() + limits::kBreakerOpenMin;
  auto probe = breaker_.admit(later);
  ASSERT_TRUE(probe.attempt);
  late.attempt->succeeded();
  EXPECT_EQ(breaker_.state(later), BreakerState::kClosed);
  probe.attempt->failed(later);
  EXPECT_EQ(breaker_.state(later), BreakerState::kClosed) << "one failure opens no closed breaker";
}

TEST_F(CircuitBreakerTest, AbandonedProbeOfAnEarlierTimeMakesNoRoomForASecond) {
  auto late = breaker_.admit(kBegin);
  const SteadyTime later = open() + limits::kBreakerOpenMin;
  std::optional<CircuitBreaker::Admission> old(breaker_.admit(later));
  ASSERT_TRUE(old->attempt);
  late.attempt->succeeded();
  for (std::size_t i = 1; i < limits::kBreakerFailures; ++i) fail(later);
  fail(later + limits::kBreakerSpan);
  const SteadyTime again = later + limits::kBreakerSpan + limits::kBreakerOpenMax;
  auto probe = breaker_.admit(again);
  ASSERT_TRUE(probe.attempt);
  old.reset();
  EXPECT_FALSE(breaker_.admit(again).attempt) << "one probe at a time";
}

TEST_F(CircuitBreakerTest, TakesAnotherProbeWhenOneEndsWithoutNews) {
  const SteadyTime later = open() + limits::kBreakerOpenMin;
  (void)breaker_.admit(later);  // cancelled
  EXPECT_EQ(breaker_.state(later), BreakerState::kHalfOpen);
  EXPECT_TRUE(breaker_.admit(later).attempt);
}

TEST_F(CircuitBreakerTest, IgnoresLateNewsOfAttemptsFromBeforeItOpened) {
  auto early = breaker_.admit(kBegin);
  auto dropped = std::make_unique<CircuitBreaker::Admission>(breaker_.admit(kBegin));
  const SteadyTime later = open() + limits::kBreakerOpenMin;
  auto probe = breaker_.admit(later);
  dropped.reset();
  early.attempt->failed(later);
  EXPECT_FALSE(breaker_.admit(later).attempt) << "the probe is still under way";
  probe.attempt->succeeded();
  EXPECT_EQ(breaker_.state(later), BreakerState::kClosed);
}

TEST(HostGuards, AreOneForEachOrigin) {
  HostGuards guards;
  const auto first = guards.of("http://127.0.0.1:8000/tasks/a:1");
  EXPECT_EQ(guards.of("http://127.0.0.1:8000/health?x=1"), first);
  EXPECT_NE(guards.of("http://127.0.0.1:8001/health"), first);
  EXPECT_NE(guards.of("https://127.0.0.1:8000/health"), first);
  EXPECT_EQ(guards.of("no url"), guards.of("nor this"));
  ASSERT_EQ(guards.all().size(), 4u);
  EXPECT_EQ(guards.all().at(1).origin, "http://127.0.0.1:8000");
}

TEST(HostGuards, ForgetTheOldestBeyondTheirLimit) {
  HostGuards guards;
  const auto first = guards.of("http://host-0/");
  for (std::size_t i = 1; i <= limits::kHostGuards; ++i)
    guards.of("http://host-" + std::to_string(i));
  EXPECT_EQ(guards.all().size(), limits::kHostGuards);
  EXPECT_NE(guards.of("http://host-0/"), first);
}

}  // namespace
}  // namespace necrocode::net
