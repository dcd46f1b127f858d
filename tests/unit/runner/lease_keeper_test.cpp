#include "necrocode/runner/lease_keeper.hpp"

#include <gtest/gtest.h>

#include <future>

#include "necrocode/base/errors.hpp"

namespace necrocode::runner {
namespace {

using namespace std::chrono_literals;

TEST(LeaseKeeper, HeldLeaseThenRenewedWithinItsTime) {
  std::promise<void> renewed;
  std::atomic<int> count = 0;
  LeaseKeeper keeper;
  const auto held = keeper.hold(
      30ms,
      [&](const CallContext&) {
        if (++count == 3) renewed.set_value();
        return LeaseNews::kRenewed;
      },
      [](LeaseNews) { ADD_FAILURE(); });
  EXPECT_EQ(renewed.get_future().wait_for(10s), std::future_status::ready);
}

TEST(LeaseKeeper, LostLeaseThenToldOnce) {
  std::promise<LeaseNews> told;
  LeaseKeeper keeper;
  const auto held = keeper.hold(
      30ms, [](const CallContext&) { return LeaseNews::kLost; },
      [&](LeaseNews news) { told.set_value(news); });
  auto news = told.get_future();
  ASSERT_EQ(news.wait_for(10s), std::future_status::ready);
  EXPECT_EQ(news.get(), LeaseNews::kLost);
}

TEST(LeaseKeeper, ServiceOutOfReachThenLostOnlyAfterTheWholeLease) {
  std::promise<void> told;
  std::atomic<int> tries = 0;
  const auto started = std::chrono::steady_clock::now();
  LeaseKeeper keeper;
  const auto held = keeper.hold(
      200ms,
      [&](const CallContext&) -> LeaseNews {
        ++tries;
        throw Unavailable("down");
      },
      [&](LeaseNews) { told.set_value(); });
  ASSERT_EQ(told.get_future().wait_for(10s), std::future_status::ready);
  EXPECT_GE(std::chrono::steady_clock::now() - started, 200ms);
  EXPECT_GT(tries, 1);
}

TEST(LeaseKeeper, DroppedLeaseThenNoRenewalIsUnderWayAfterwards) {
  LeaseKeeper keeper;
  for (int i = 0; i < 50; ++i) {
    auto alive = std::make_unique<std::atomic<int>>(0);
    {
      const auto held = keeper.hold(
          3ms,
          [&](const CallContext&) {
            ++*alive;
            return LeaseNews::kRenewed;
          },
          [](LeaseNews) {});
      while (*alive == 0) std::this_thread::yield();
    }
    alive.reset();  // a renewal that came now would be a use after free, which the sanitizers see
  }
}

}  // namespace
}  // namespace necrocode::runner
