#include "necrocode/llm/rate_governor.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <condition_variable>
#include <limits>
#include <set>
#include <thread>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/time_format.hpp"
#include "support/eventually.hpp"
#include "support/fake_clock.hpp"

namespace necrocode::llm {
namespace {

using namespace std::chrono_literals;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::IsEmpty;

/// One thread on a clock that its sleeps move.
class Governor : public testing::Test {
 protected:
  /// Begins one request; how long it waited for its turn, in seconds.
  double begin(std::int64_t tokens = 0, const std::string& key = "key") {
    const SteadyTime asked = clock_.steady_now();
    last_ = governor_.acquire(key, limits_, tokens, {});
    return std::chrono::duration<double>(clock_.steady_now() - asked).count();
  }
  void learn(int status, const net::Headers& headers) { governor_.learn("key", status, headers); }
  /// The end of an acquire() that is refused.
  template <class Error>
  ErrorInfo refusal(const CallContext& context, std::int64_t tokens = 0) {
    try {
      last_ = governor_.acquire("key", limits_, tokens, context);
    } catch (const Error& error) {
      return error.info();
    }
    ADD_FAILURE() << "not refused";
    return {};
  }

  test::FakeClock clock_;
  RateGovernor governor_{clock_};
  RateLimits limits_;
  RateGovernor::Permit last_;
};

TEST_F(Governor, NoLimitsThenNobodyWaits) {
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(begin(1'000'000), 0);
  EXPECT_THAT(clock_.sleeps(), IsEmpty());
}

TEST_F(Governor, RequestsPerMinuteThenAMinutesWorthAtOnceAndThenEvenly) {
  limits_.requests_per_minute = 60;
  for (int i = 0; i < 60; ++i) EXPECT_EQ(begin(), 0) << i;
  for (int i = 0; i < 5; ++i) EXPECT_THAT(begin(), DoubleNear(1, 1e-6));
  clock_.advance(10s);
  for (int i = 0; i < 10; ++i) EXPECT_THAT(begin(), DoubleNear(0, 1e-6)) << i;
  EXPECT_THAT(begin(), DoubleNear(1, 1e-6));
  clock_.advance(1h);  // an idle hour is worth no more than a minute
  for (int i = 0; i < 60; ++i) EXPECT_EQ(begin(), 0) << i;
  EXPECT_THAT(begin(), DoubleNear(1, 1e-6));
}

TEST_F(Governor, LessThanOneRequestAMinuteThenStillOneAtATime) {
  limits_.requests_per_minute = 0.5;
  EXPECT_EQ(begin(), 0);
  EXPECT_THAT(begin(), DoubleNear(120, 1e-6));
}

TEST_F(Governor, TokensPerMinuteThenTheBucketIsTheirs) {
  limits_.tokens_per_minute = 6000;  // 100 a second
  EXPECT_EQ(begin(4000), 0);
  EXPECT_EQ(begin(2000), 0);
  EXPECT_THAT(begin(500), DoubleNear(5, 1e-6));
  EXPECT_THAT(begin(100), DoubleNear(1, 1e-6));
}

TEST_F(Governor, RequestLargerThanTheBucketThenItGoesAloneAndIsPaidForByThoseBehind) {
  limits_.tokens_per_minute = 6000;
  EXPECT_EQ(begin(600), 0);
  EXPECT_THAT(begin(12'000), DoubleNear(6, 1e-6));  // until the bucket is full
  EXPECT_THAT(begin(100), DoubleNear(61, 1e-6));    // 6,000 owed, and its own 100
}

TEST_F(Governor, AbsurdlyLargeRequestThenItStopsTheKeyForTenMinutesOnly) {
  limits_.tokens_per_minute = 6000;
  EXPECT_EQ(begin(INT64_MAX), 0);
  EXPECT_THAT(begin(1), DoubleNear(600, 0.1));
  last_.settle(INT64_MAX);
  EXPECT_THAT(begin(1), DoubleNear(600, 0.1));
  EXPECT_EQ(begin(INT64_MIN), 0);
}

TEST_F(Governor, SettledThenTheDifferenceToTheEstimateCounts) {
  limits_.tokens_per_minute = 6000;
  EXPECT_EQ(begin(6000), 0);
  last_.settle(1000);
  last_.settle(0);  // counts once
  EXPECT_EQ(begin(5000), 0);
  last_.settle(5500);
  EXPECT_THAT(begin(100), DoubleNear(6, 1e-6));  // 500 owed, and its own 100
  last_.settle(-5);                              // no less than nothing
  EXPECT_EQ(begin(100), 0);
  EXPECT_NO_THROW(RateGovernor::Permit().settle(5));
}

TEST_F(Governor, MinIntervalThenBetweenTheBegins) {
  limits_.min_interval = 100ms;
  EXPECT_EQ(begin(), 0);
  EXPECT_THAT(begin(), DoubleNear(0.1, 1e-9));
  clock_.advance(40ms);
  EXPECT_THAT(begin(), DoubleNear(0.06, 1e-9));
  clock_.advance(1s);
  EXPECT_EQ(begin(), 0);
}

TEST_F(Governor, LimitsThatAreNoneThenNone) {
  for (const double rate : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                            std::numeric_limits<double>::infinity()}) {
    limits_ = {rate, rate, -5s};
    for (int i = 0; i < 3; ++i) EXPECT_EQ(begin(1000), 0) << rate;
  }
}

TEST_F(Governor, LimitsThatChangeThenTheNewestCount) {
  limits_.requests_per_minute = 60;
  EXPECT_EQ(begin(), 0);
  limits_.requests_per_minute = 2;
  EXPECT_EQ(begin(), 0);
  EXPECT_EQ(begin(), 0);
  EXPECT_THAT(begin(), DoubleNear(30, 1e-6));
  limits_.requests_per_minute = 60;  // what was used up stays so
  EXPECT_THAT(begin(), DoubleNear(1, 1e-6));
  limits_.requests_per_minute = 0;
  EXPECT_EQ(begin(), 0);
}

TEST_F(Governor, KeysThenEachHasItsOwnTurn) {
  limits_.requests_per_minute = 1;
  EXPECT_EQ(begin(0, "a"), 0);
  EXPECT_EQ(begin(0, "b"), 0);
  EXPECT_THAT(begin(0, "a"), DoubleNear(60, 1e-6));
  EXPECT_EQ(begin(0, "b"), 0);
}

TEST_F(Governor, TurnBeyondTheDeadlineThenRefusedAtOnceWithItsTime) {
  limits_.requests_per_minute = 1;
  begin();
  const ErrorInfo info = refusal<RateLimited>(CallContext{}.within(10s, clock_));
  EXPECT_EQ(info.end, CallEnd::kDeadline);
  EXPECT_EQ(info.service, "llm");
  ASSERT_TRUE(info.retry_at);
  EXPECT_EQ(to_rfc3339(*info.retry_at), "2026-01-31T12:01:00.000Z");
  EXPECT_THAT(clock_.sleeps(), IsEmpty());
  EXPECT_EQ(governor_.waiting("key"), 0U);
  last_ = governor_.acquire("key", limits_, 0, CallContext{}.within(61s, clock_));
  EXPECT_THAT(clock_.sleeps(), ElementsAre(DoubleNear(60, 1e-6)));
}

TEST_F(Governor, DeadlineThatHasPassedThenATimeout) {
  CallContext context;
  context.deadline = clock_.steady_now();
  EXPECT_EQ(refusal<TimeoutError>(context).end, CallEnd::kDeadline);
}

TEST_F(Governor, StoppedBeforeThenCancelled) {
  std::stop_source stop;
  stop.request_stop();
  CallContext context;
  context.stop = stop.get_token();
  EXPECT_EQ(refusal<TimeoutError>(context).end, CallEnd::kCancelled);
  EXPECT_EQ(governor_.waiting("key"), 0U);
}

TEST_F(Governor, RefusedWithAHintThenEveryCallerOfTheKeyWaits) {
  learn(429, {{"Retry-After", "7"}});
  EXPECT_THAT(begin(), DoubleNear(7, 1e-6));
  EXPECT_EQ(begin(), 0);
  learn(429, {{"retry-after-ms", "1500"}});
  learn(429, {{"retry-after-ms", "300"}});  // a shorter one takes nothing back
  EXPECT_EQ(begin(0, "another"), 0);
  EXPECT_THAT(begin(), DoubleNear(1.5, 1e-6));
}

TEST_F(Governor, OverloadedThenOnlyAHintDelays) {
  for (const int status : {503, 529}) {
    learn(status, {});
    EXPECT_EQ(begin(), 0) << status;
    learn(status, {{"Retry-After", "3"}});
    EXPECT_THAT(begin(), DoubleNear(3, 1e-6)) << status;
  }
  learn(500, {{"Retry-After", "3"}});
  EXPECT_EQ(begin(), 0);
}

TEST_F(Governor, RefusedWithoutAHintThenGrowingPausesUntilASuccess) {
  std::vector<double> waits;
  for (int i = 0; i < 8; ++i) {
    learn(429, {});
    learn(429, {});  // of one that was under way with it
    waits.push_back(begin());
  }
  EXPECT_THAT(waits, ElementsAreArray({1, 2, 4, 8, 16, 32, 60, 60}));
  learn(200, {});
  learn(429, {{"Retry-After", "soon"}});
  EXPECT_EQ(begin(), 1);
}

TEST_F(Governor, HostileHintsThenBoundedOrIgnored) {
  learn(429, {{"Retry-After", "1000000000"}});
  EXPECT_THAT(begin(), DoubleNear(24 * 3600, 1));
  for (const char* junk : {"-1", "nan", "1e400", "x", ""}) {
    learn(200, {{"x-ratelimit-remaining-requests", junk}, {"x-ratelimit-reset-requests", "5"}});
    learn(200, {{"x-ratelimit-remaining-tokens", "0"}, {"x-ratelimit-reset-tokens", junk}});
  }
  learn(200, {{"x-ratelimit-remaining", "0"}});
  // Overdrawn is none left; the rest was nothing.
  EXPECT_THAT(begin(1000), DoubleNear(5, 1e-6));
  EXPECT_EQ(begin(1000), 0);
}

/// What each provider writes when nothing is left for ten seconds.
TEST_F(Governor, NothingRemainsThenTheResetIsWaitedForInEveryForm) {
  const std::string in_ten = "2026-01-31T12:00:10Z";
  const std::vector<net::Headers> forms = {
      {{"x-ratelimit-remaining-requests", "0"}, {"x-ratelimit-reset-requests", "10s"}},
      {{"x-ratelimit-remaining-tokens", "0"}, {"x-ratelimit-reset-tokens", "10000ms"}},
      {{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", "10"}},
      {{"X-RateLimit-Remaining", "0"}, {"X-RateLimit-Reset", "1769860810000"}},
      {{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", "1769860810"}},
      {{"anthropic-ratelimit-requests-remaining", "0"},
       {"anthropic-ratelimit-requests-reset", in_ten}},
      {{"anthropic-ratelimit-tokens-remaining", "0"}, {"anthropic-ratelimit-tokens-reset", in_ten}},
      {{"anthropic-ratelimit-input-tokens-remaining", "0"},
       {"anthropic-ratelimit-input-tokens-reset", in_ten}},
      {{"anthropic-ratelimit-output-tokens-remaining", "0"},
       {"anthropic-ratelimit-output-tokens-reset", in_ten}},
  };
  for (std::size_t i = 0; i < forms.size(); ++i) {
    test::FakeClock clock;
    RateGovernor governor(clock);
    governor.learn("key", 200, forms[i]);
    const SteadyTime asked = clock.steady_now();
    auto permit = governor.acquire("key", {}, 100, {});
    EXPECT_EQ(clock.steady_now() - asked, 10s) << i;
    permit = governor.acquire("key", {}, 100, {});  // reset: nothing is known any more
    EXPECT_EQ(clock.steady_now() - asked, 10s) << i;
  }
}

TEST_F(Governor, FewerRemainThanBelievedThenTheServiceIsBelieved) {
  limits_.requests_per_minute = 600;
  EXPECT_EQ(begin(), 0);
  learn(200, {{"x-ratelimit-remaining-requests", "2"}, {"x-ratelimit-reset-requests", "20s"}});
  EXPECT_EQ(begin(), 0);
  // Of the answer to the request before: it does not know of the last one.
  learn(200, {{"x-ratelimit-remaining-requests", "2"}, {"x-ratelimit-reset-requests", "20s"}});
  EXPECT_EQ(begin(), 0);
  EXPECT_THAT(begin(), DoubleNear(20, 1e-6));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(begin(), 0);
}

TEST_F(Governor, AnotherProgramUsesTheKeyThenTheStricterNewsCounts) {
  learn(200, {{"x-ratelimit-remaining-requests", "100"}, {"x-ratelimit-reset-requests", "20s"}});
  learn(200, {{"x-ratelimit-remaining-requests", "1"}, {"x-ratelimit-reset-requests", "50s"}});
  EXPECT_EQ(begin(), 0);
  EXPECT_THAT(begin(), DoubleNear(50, 1e-6));
}

TEST_F(Governor, FewerTokensRemainThanARequestNeedsThenItWaitsForTheReset) {
  learn(200, {{"x-ratelimit-limit-tokens", "5000"},
              {"x-ratelimit-remaining-tokens", "1000"},
              {"x-ratelimit-reset-tokens", "48s"}});
  EXPECT_EQ(begin(800), 0);
  EXPECT_THAT(begin(800), DoubleNear(48, 1e-6));
  EXPECT_EQ(begin(4200), 0);                       // what the reset has brought,
  EXPECT_THAT(begin(9000), DoubleNear(48, 1e-6));  // and the next one; too large goes alone
}

TEST_F(Governor, RequestLargerThanTheServicesLimitThenItGoesWhenAllOfThatRemains) {
  learn(200, {{"x-ratelimit-limit-tokens", "5000"},
              {"x-ratelimit-remaining-tokens", "5000"},
              {"x-ratelimit-reset-tokens", "30s"}});
  EXPECT_EQ(begin(9000), 0);
  EXPECT_THAT(begin(1), DoubleNear(30, 1e-6));
}

TEST_F(Governor, SmallLimitOfTheServiceThenNotExceededAfterItsReset) {
  learn(200, {{"x-ratelimit-limit-requests", "3"},
              {"x-ratelimit-remaining-requests", "0"},
              {"x-ratelimit-reset-requests", "10s"}});
  std::vector<double> waits;
  for (int i = 0; i < 7; ++i) waits.push_back(begin());
  EXPECT_THAT(waits, ElementsAreArray({10, 0, 0, 10, 0, 0, 10}));
}

TEST_F(Governor, InputAndOutputTokensThenOneOfEachIsEnough) {
  learn(200, {{"anthropic-ratelimit-output-tokens-remaining", "50"},
              {"anthropic-ratelimit-output-tokens-reset", "2026-01-31T12:01:00Z"}});
  EXPECT_EQ(begin(20'000), 0);
}

TEST_F(Governor, MoreKeysThanTheLimitThenTheOneIdleForLongestIsForgotten) {
  limits_.requests_per_minute = 1;
  EXPECT_EQ(begin(0, "first"), 0);
  const auto held = governor_.acquire("held", limits_, 0, {});
  for (int i = 0; i < 999; ++i) begin(0, std::to_string(i));
  last_ = {};
  EXPECT_EQ(begin(0, "first"), 0);                      // forgotten, so it is new
  EXPECT_THAT(begin(0, "held"), DoubleNear(60, 1e-6));  // in use, so it is not
}

TEST_F(Governor, MoreKeysInUseThanTheLimitThenRefused) {
  std::vector<RateGovernor::Permit> held;
  for (int i = 0; i < 1000; ++i) {
    held.push_back(governor_.acquire(std::to_string(i), {}, 0, {}));
  }
  EXPECT_THROW(begin(0, "one more"), ResourceLimitError);
  held.pop_back();
  EXPECT_EQ(begin(0, "one more"), 0);
}

/// A clock that stands until it is moved; sleepers wait on real threads.
class StandingClock final : public Clock {
 public:
  SteadyTime steady_now() const override {
    const std::lock_guard lock(mutex_);
    return now_;
  }
  SystemTime system_now() const override { return SystemTime(1'769'860'800s); }
  bool sleep_until(SteadyTime until, const std::stop_token& stop) const override {
    std::unique_lock lock(mutex_);
    const auto sleeper = sleepers_.insert(until);
    const bool reached = moved_.wait(lock, stop, [&] { return now_ >= until; });
    sleepers_.erase(sleeper);
    return reached;
  }
  /// How many sleep, and how many of them until within `span` from now.
  std::pair<std::size_t, std::size_t> sleepers(std::chrono::nanoseconds span) const {
    const std::lock_guard lock(mutex_);
    const auto soon = std::distance(sleepers_.begin(), sleepers_.upper_bound(now_ + span));
    return {sleepers_.size(), static_cast<std::size_t>(soon)};
  }
  void advance(std::chrono::nanoseconds duration) {
    const std::lock_guard lock(mutex_);
    now_ += duration;
    moved_.notify_all();
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable_any moved_;
  mutable std::multiset<SteadyTime> sleepers_;
  SteadyTime now_ = std::chrono::steady_clock::now();
};

/// Threads that ask one after the other, on a clock that stands.
class Queue : public testing::Test {
 protected:
  ~Queue() override { stop_.request_stop(); }

  /// A caller that is in the queue when this returns; what came of it stands in ended_.
  void ask(const std::string& name, CallContext context = {}, std::int64_t tokens = 0) {
    if (!context.stop.stop_possible()) context.stop = stop_.get_token();
    const std::size_t before = governor_.waiting("key");
    threads_.emplace_back([this, name, context, tokens] {
      std::string end = name;
      try {
        auto permit = governor_.acquire("key", limits_, tokens, context);
      } catch (const RunnerError& error) {
        end += " " + std::string(to_string(error.info().end));
      }
      const std::lock_guard lock(mutex_);
      ended_.push_back(end);
    });
    ASSERT_TRUE(test::eventually([&] { return governor_.waiting("key") > before; }));
  }
  std::vector<std::string> ended(std::size_t count) {
    EXPECT_TRUE(test::eventually([&] {
      const std::lock_guard lock(mutex_);
      return ended_.size() >= count;
    }));
    const std::lock_guard lock(mutex_);
    return ended_;
  }

  StandingClock clock_;
  RateGovernor governor_{clock_};
  RateLimits limits_{0, 0, 1s};
  std::mutex mutex_;
  std::vector<std::string> ended_;
  std::stop_source stop_;
  std::vector<std::jthread> threads_;
};

TEST_F(Queue, TimeGoesOnThenOneAfterTheOther) {
  const auto first = governor_.acquire("key", limits_, 0, {});
  for (const char* name : {"a", "b", "c"}) ask(name);
  clock_.advance(1s);
  EXPECT_THAT(ended(1), ElementsAre("a"));
  EXPECT_EQ(governor_.waiting("key"), 2U);
  clock_.advance(1s);
  EXPECT_THAT(ended(2), ElementsAre("a", "b"));
  clock_.advance(1s);
  EXPECT_THAT(ended(3), ElementsAre("a", "b", "c"));
}

TEST_F(Queue, ManyWaitForOneTimeThenItWakesTheFirstAlone) {
  limits_ = {};
  governor_.learn("key", 429, {{"Retry-After", "5"}});
  for (const char* name : {"a", "b", "c"}) ask(name);
  using Sleepers = std::pair<std::size_t, std::size_t>;
  EXPECT_TRUE(test::eventually([&] { return clock_.sleepers(5s) == Sleepers(3, 1); }));
  clock_.advance(5s);
  EXPECT_EQ(ended(3).size(), 3U);
}

TEST_F(Queue, OneInTheMiddleIsCancelledThenItsPlaceIsFreeAtOnce) {
  const auto first = governor_.acquire("key", limits_, 0, {});
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  ask("a");
  ask("b", context);
  ask("c");
  stop.request_stop();
  EXPECT_THAT(ended(1), ElementsAre("b cancelled"));
  clock_.advance(1s);
  EXPECT_THAT(ended(2), ElementsAre("b cancelled", "a"));
  clock_.advance(1s);
  EXPECT_THAT(ended(3), ElementsAre("b cancelled", "a", "c"));
}

TEST_F(Queue, TheFirstIsCancelledThenTheNextHasItsTurn) {
  const auto first = governor_.acquire("key", limits_, 0, {});
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  ask("a", context);
  ask("b");
  stop.request_stop();
  EXPECT_THAT(ended(1), ElementsAre("a cancelled"));
  clock_.advance(1s);
  EXPECT_THAT(ended(2), ElementsAre("a cancelled", "b"));
}

TEST_F(Queue, TooManyBeforeItThenRefusedWithTheTimeOfItsOwnTurn) {
  const auto first = governor_.acquire("key", limits_, 0, {});
  for (const char* name : {"a", "b", "c"}) ask(name);
  try {
    const auto permit = governor_.acquire("key", limits_, 0, CallContext{}.within(3500ms, clock_));
    FAIL();
  } catch (const RateLimited& error) {
    EXPECT_EQ(error.info().end, CallEnd::kDeadline);
    EXPECT_EQ(error.info().retry_at, clock_.system_now() + 4s);
  }
  EXPECT_EQ(governor_.waiting("key"), 3U);
}

TEST_F(Queue, RefusedMeanwhileThenWhoeverIsTooLateLeavesAtOnce) {
  const auto first = governor_.acquire("key", limits_, 0, {});
  ask("a", CallContext{}.within(10s, clock_));
  ask("b");
  ask("c", CallContext{}.within(20s, clock_));
  governor_.learn("key", 429, {{"Retry-After", "15"}});
  EXPECT_THAT(ended(1), ElementsAre("a deadline"));
  clock_.advance(15s);
  EXPECT_THAT(ended(2), ElementsAre("a deadline", "b"));
  clock_.advance(1s);
  EXPECT_THAT(ended(3), ElementsAre("a deadline", "b", "c"));
}

TEST_F(Queue, TokensComeBackThenTheFirstGoesAtOnce) {
  limits_ = {0, 6000, 0ms};
  auto first = governor_.acquire("key", limits_, 6000, {});
  ask("a", {}, 3000);
  ask("b", {}, 1000);
  first.settle(2000);
  EXPECT_THAT(ended(2), ElementsAre("a", "b"));
}

TEST_F(Queue, MoreWaitThanTheLimitThenTheNextIsRefused) {
  // Threads by the thousand, with what it takes to start them, and no more.
  const auto first = governor_.acquire("key", limits_, 0, {});
  CallContext context;
  context.stop = stop_.get_token();
  for (int i = 0; i < 1000; ++i) {
    threads_.emplace_back([this, context] {
      EXPECT_THROW((void)governor_.acquire("key", limits_, 0, context), TimeoutError);
    });
  }
  ASSERT_TRUE(test::eventually([&] { return governor_.waiting("key") == 1000; }, 60s));
  try {
    const auto permit = governor_.acquire("key", limits_, 0, context);
    ADD_FAILURE();
  } catch (const RateLimited& error) {
    EXPECT_EQ(error.info().end, CallEnd::kExhausted);
    EXPECT_EQ(error.info().retry_at, clock_.system_now() + 1001s);
  }
  EXPECT_EQ(governor_.waiting("key"), 1000U);
}

TEST_F(Queue, ManyThreadsThenInTheOrderInWhichTheyAsked) {
  const auto first = governor_.acquire("key", limits_, 0, {});
  std::vector<std::string> asked;
  for (int i = 0; i < 32; ++i) {
    asked.push_back(std::to_string(i));
    ask(asked.back());
  }
  for (std::size_t i = 0; i < asked.size(); ++i) {
    EXPECT_EQ(ended(i).size(), i);
    clock_.advance(1s);
  }
  EXPECT_EQ(ended(asked.size()), asked);
}

TEST_F(Governor, RetryAfterThenItCountsBeforeTheLimitsBesideIt) {
  const net::Headers counts = {{"x-ratelimit-remaining-tokens", "0"},
                               {"x-ratelimit-reset-tokens", "6m0s"}};
  net::Headers both = counts;
  both.add("Retry-After", "1");
  learn(429, both);
  EXPECT_THAT(begin(), DoubleNear(1, 1e-6));
  learn(200, counts);
  EXPECT_THAT(begin(100), DoubleNear(360, 1e-6));
}

TEST(RateGovernorThreads, ManyAskAtOnceThenNoFasterThanTheRate) {
  constexpr int kThreads = 32;
  RateGovernor governor;
  const SteadyTime begin = std::chrono::steady_clock::now();
  governor.learn("key", 429, {{"retry-after-ms", "100"}});
  std::vector<SteadyTime> begins(kThreads);
  std::vector<std::jthread> threads;
  for (SteadyTime& began : begins) {
    threads.emplace_back([&] {
      const auto permit = governor.acquire("key", {0, 0, 5ms}, 0, {});
      began = std::chrono::steady_clock::now();
    });
  }
  threads.clear();  // waits for them
  std::sort(begins.begin(), begins.end());
  for (int i = 0; i < kThreads; ++i) {
    EXPECT_GE(begins[static_cast<std::size_t>(i)] - begin, 100ms + i * 5ms) << i;
  }
  EXPECT_EQ(governor.waiting("key"), 0U);
}

TEST(RateGovernorThreads, CancelledThenGoneWithin50Milliseconds) {
  RateGovernor governor;
  governor.learn("key", 429, {{"Retry-After", "3600"}});
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  std::vector<SteadyTime> ends(8);
  std::vector<std::jthread> threads;
  for (SteadyTime& end : ends) {
    threads.emplace_back([&] {
      EXPECT_THROW((void)governor.acquire("key", {}, 0, context), TimeoutError);
      end = std::chrono::steady_clock::now();
    });
  }
  ASSERT_TRUE(test::eventually([&] { return governor.waiting("key") == ends.size(); }));
  const SteadyTime stopped = std::chrono::steady_clock::now();
  stop.request_stop();
  threads.clear();
  // Of most: a busy machine may let a thread wait that has been woken.
  std::sort(ends.begin(), ends.end());
  EXPECT_LT(ends[ends.size() / 2] - stopped, 50ms);
}

}  // namespace
}  // namespace necrocode::llm
