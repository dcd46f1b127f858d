// What several runs share: spending under caps, and the pace at which services are asked. Each
// SharedState is a connection of its own, as another process would have it.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "necrocode/base/errors.hpp"
#include "necrocode/llm/shared_pace.hpp"
#include "necrocode/llm/sqlite_spend_ledger.hpp"
#include "support/fake_clock.hpp"

namespace necrocode::llm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

class Shared : public testing::Test {
 protected:
  std::shared_ptr<SharedState> open() {
    return std::make_shared<SharedState>(folder_.path() / "shared.db");
  }
  TemporaryDirectory folder_;
  test::FakeClock clock_;
};

SpendCaps run_cap(double usd) {
  SpendCaps caps;
  caps.run_usd = usd;
  return caps;
}
SpendCaps daily_cap(double usd) {
  SpendCaps caps;
  caps.daily_usd = usd;
  return caps;
}

TEST_F(Shared, LedgerReservesTheWorstAndSettlesWithWhatItWas) {
  SqliteSpendLedger ledger(std::make_shared<SharedState>(""), clock_);
  const SpendAccount account{"r", "o"};
  const auto first = ledger.reserve(account, run_cap(1), 0.7);
  EXPECT_THROW(ledger.reserve(account, run_cap(1), 0.4), SpendCapReached);
  ledger.settle(first, 0.1);
  ledger.settle(first, 0.1);  // once
  const auto second = ledger.reserve(account, run_cap(1), 0.9);
  EXPECT_NEAR(ledger.totals(account).run_usd, 1.0, 1e-9);
  ledger.settle(second, 0);
  EXPECT_NEAR(ledger.totals(account).run_usd, 0.1, 1e-9);
  EXPECT_NEAR(ledger.totals(account).owner_usd, 0.1, 1e-9);
  EXPECT_NEAR(ledger.totals({"other", "o"}).daily_usd, 0.1, 1e-9);
  EXPECT_EQ(ledger.totals({"other", "p"}).owner_usd, 0);
}

TEST_F(Shared, LedgerSaysWhichCapAndWhatIsUnderIt) {
  SqliteSpendLedger ledger(std::make_shared<SharedState>(""), clock_);
  ledger.reserve({"a", "team"}, {}, 3);
  SpendCaps caps;
  caps.run_usd = 5;
  caps.owner_usd = 4;
  caps.daily_usd = 4;
  try {
    ledger.reserve({"b", "team"}, caps, 1.5);
    FAIL();
  } catch (const SpendCapReached& reached) {
    EXPECT_THAT(reached.what(), HasSubstr("\"team\" for today"));
    EXPECT_THAT(reached.what(), HasSubstr("$3.0000 of $4.0000"));
    EXPECT_THAT(reached.what(), HasSubstr("$1.5000"));
  }
  // All or none: the run's cap had room.
  EXPECT_EQ(ledger.totals({"b", "team"}).run_usd, 0);
}

TEST_F(Shared, LedgersDayIsOfUtcAndARunsCapIsNot) {
  SqliteSpendLedger ledger(open(), clock_);
  const SpendAccount account{"r", "o"};
  const auto reserved = ledger.reserve(account, daily_cap(1), 0.9);
  EXPECT_THROW(ledger.reserve(account, daily_cap(1), 0.2), SpendCapReached);
  clock_.advance(24h);
  EXPECT_EQ(ledger.totals(account).daily_usd, 0);
  EXPECT_THROW(ledger.reserve(account, run_cap(1), 0.2), SpendCapReached);
  ledger.reserve(account, daily_cap(1), 0.2);
  ledger.settle(reserved, 0.5);  // of yesterday
  EXPECT_NEAR(ledger.totals(account).daily_usd, 0.2, 1e-9);
  EXPECT_NEAR(ledger.totals(account).run_usd, 0.7, 1e-9);
}

TEST_F(Shared, LedgerOfAKilledProcessThenItsReservationStays) {
  std::make_unique<SqliteSpendLedger>(open(), clock_)->reserve({"r", ""}, {}, 0.75);
  EXPECT_NEAR(SqliteSpendLedger(open(), clock_).totals({"r", ""}).run_usd, 0.75, 1e-9);
  clock_.advance(24h * 91);
  EXPECT_EQ(SqliteSpendLedger(open(), clock_).totals({"r", ""}).run_usd, 0);
}

TEST_F(Shared, LedgerRoundsUpAndTakesNoNonsense) {
  SqliteSpendLedger ledger(open(), clock_);
  const SpendAccount account{"r", ""};
  for (int i = 0; i < 3; ++i) ledger.settle(ledger.reserve(account, {}, 1), 0.00000051);
  EXPECT_NEAR(ledger.totals(account).run_usd, 0.000003, 1e-12);
  ledger.reserve(account, {}, -5);
  EXPECT_NEAR(ledger.totals(account).run_usd, 0.000003, 1e-12);
  EXPECT_THROW(ledger.reserve(account, run_cap(1000), std::nan("")), SpendCapReached);
  EXPECT_THROW(ledger.reserve(account, run_cap(1000), INFINITY), SpendCapReached);
  // A cap can be used up to its last cent.
  SqliteSpendLedger fresh(std::make_shared<SharedState>(""), clock_);
  for (int i = 0; i < 10; ++i) fresh.reserve(account, run_cap(1), 0.1);
  EXPECT_THROW(fresh.reserve(account, run_cap(1), 0.000001), SpendCapReached);
}

TEST_F(Shared, LedgerOfTenAtOnceThenTheyNeverPassTheCapTogether) {
  constexpr double kCap = 1;
  std::atomic<int> reserved = 0;
  std::atomic<bool> passed = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 10; ++i) {
    threads.emplace_back([&, i] {
      SqliteSpendLedger ledger(open(), clock_);
      const SpendAccount account{"run-" + std::to_string(i), ""};
      try {
        for (;;) {
          const auto call = ledger.reserve(account, daily_cap(kCap), 0.05);
          ++reserved;
          if (ledger.totals(account).daily_usd > kCap + 1e-9) passed = true;
          ledger.settle(call, 0.01);
        }
      } catch (const SpendCapReached&) {
        // Nothing is left, for any of them.
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  SqliteSpendLedger ledger(open(), clock_);
  EXPECT_FALSE(passed);
  EXPECT_NEAR(ledger.totals({"", ""}).daily_usd, reserved * 0.01, 1e-9);
  EXPECT_LE(ledger.totals({"", ""}).daily_usd, kCap);
  EXPECT_GT(reserved, 80);
}

TEST_F(Shared, StateThatCannotBeOpenedThenAStorageError) {
  EXPECT_THROW(SharedState("/proc/no/such/shared.db"), StorageError);
}

// ---- pace ----

TEST_F(Shared, PaceOfAHintThenTheOtherProcessWaitsToo) {
  SharedPace one(open(), clock_);
  SharedPace other(open(), clock_);
  EXPECT_EQ(other.ask("key", "origin", {}, 1).wait, 0ns);
  one.hold("key", 2000ms);
  one.hold("key", 500ms);  // the later one counts
  EXPECT_EQ(other.ask("key", "origin", {}, 1).wait, 2s);
  EXPECT_EQ(other.ask("another", "origin", {}, 1).wait, 0ns);
  clock_.advance(2s);
  EXPECT_EQ(other.ask("key", "origin", {}, 1).wait, 0ns);
}

TEST_F(Shared, PaceOfRequestsThenABucketOfAMinuteForAllTogether) {
  SharedPace one(open(), clock_);
  SharedPace other(open(), clock_);
  RateLimits limits;
  limits.requests_per_minute = 6;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(one.ask("key", "o", limits, 0).wait, 0ns);
    EXPECT_EQ(other.ask("key", "o", limits, 0).wait, 0ns);
  }
  EXPECT_EQ(one.ask("key", "o", limits, 0).wait, 10s);
  clock_.advance(10s);
  EXPECT_EQ(other.ask("key", "o", limits, 0).wait, 0ns);
  EXPECT_EQ(one.ask("key", "o", limits, 0).wait, 10s);
}

TEST_F(Shared, PaceOfTokensThenWhatWasNotUsedComesBack) {
  SharedPace pace(open(), clock_);
  RateLimits limits;
  limits.tokens_per_minute = 600;
  EXPECT_EQ(pace.ask("key", "o", limits, 5'000).wait, 0ns);  // larger than all: when it is full
  EXPECT_EQ(pace.ask("key", "o", limits, 60).wait, 446s);
  pace.settle("key", limits, 5'000, 600);
  EXPECT_EQ(pace.ask("key", "o", limits, 60).wait, 6s);
  pace.settle("key", limits, 0, 60);
  EXPECT_EQ(pace.ask("key", "o", limits, 60).wait, 12s);
}

class SharedBreaker : public Shared {
 protected:
  void fail(SharedPace& pace, int times) {
    for (int i = 0; i < times; ++i) {
      pace.tell("o", pace.ask("k", "o", {}, 0), SharedPace::News::kBroken);
      clock_.advance(1s);
    }
  }
};

TEST_F(SharedBreaker, OpensForAllThenOneProbes) {
  SharedPace one(open(), clock_);
  SharedPace other(open(), clock_);
  fail(one, 5);
  fail(other, 5);
  auto turn = other.ask("k", "o", {}, 0);
  EXPECT_TRUE(turn.broken);
  EXPECT_EQ(turn.wait, 1s);
  EXPECT_FALSE(other.ask("k", "another", {}, 0).broken);
  clock_.advance(1s);
  const auto probe = one.ask("k", "o", {}, 0);
  EXPECT_FALSE(probe.broken);
  EXPECT_TRUE(other.ask("k", "o", {}, 0).broken);  // while it is on its way
  one.tell("o", probe, SharedPace::News::kBroken);
  EXPECT_EQ(other.ask("k", "o", {}, 0).wait, 4s);  // twice as long
  clock_.advance(4s);
  other.tell("o", other.ask("k", "o", {}, 0), SharedPace::News::kAnswered);
  EXPECT_FALSE(one.ask("k", "o", {}, 0).broken);
  fail(one, 9);  // counted anew
  EXPECT_FALSE(one.ask("k", "o", {}, 0).broken);
}

TEST_F(SharedBreaker, ProbeIsGivenUpOrKilledThenTheNextOneProbes) {
  SharedPace pace(open(), clock_);
  fail(pace, 10);
  clock_.advance(2s);
  const auto given_up = pace.ask("k", "o", {}, 0);
  EXPECT_TRUE(pace.ask("k", "o", {}, 0).broken);
  pace.tell("o", given_up, SharedPace::News::kNone);
  EXPECT_FALSE(pace.ask("k", "o", {}, 0).broken);  // and is killed
  EXPECT_TRUE(pace.ask("k", "o", {}, 0).broken);
  clock_.advance(31s);
  EXPECT_FALSE(pace.ask("k", "o", {}, 0).broken);
}

TEST_F(SharedBreaker, ManyFailuresAtOnceThenItStaysClosed) {
  SharedPace pace(open(), clock_);
  for (int i = 0; i < 30; ++i) {
    pace.tell("o", pace.ask("k", "o", {}, 0), SharedPace::News::kBroken);
  }
  EXPECT_FALSE(pace.ask("k", "o", {}, 0).broken);
  pace.tell("o", pace.ask("k", "o", {}, 0), SharedPace::News::kAnswered);
  clock_.advance(10s);
  fail(pace, 9);
  EXPECT_FALSE(pace.ask("k", "o", {}, 0).broken);
}

}  // namespace
}  // namespace necrocode::llm
