#include "necrocode/runner/lease_keeper.hpp"

#include <gtest/gtest.h>

#include <future>

#include "necrocode/base/errors.hpp"

namespace necrocode::runner {
namespace {

using namespace std::chrono_literals;

LeaseKeeper::News all(const std::vector<LeaseName>& leases, LeaseNews news) {
  return LeaseKeeper::News(leases.size(), news);
}

TEST(LeaseKeeper, HeldLeaseThenRenewedWithinItsTime) {
  std::promise<void> renewed;
  std::atomic<int> count = 0;
  LeaseKeeper keeper([&](const std::vector<LeaseName>& leases, const CallContext&) {
    EXPECT_EQ(leases.at(0).id, "a:1");
    EXPECT_EQ(leases.at(0).token.value, "t");
    if (++count == 3) renewed.set_value();
    return all(leases, LeaseNews::kRenewed);
  });
  const auto held = keeper.hold(30ms, {"a:1", LeaseToken{"t"}}, [](LeaseNews) { ADD_FAILURE(); });
  EXPECT_EQ(renewed.get_future().wait_for(10s), std::future_status::ready);
}

TEST(LeaseKeeper, ManyLeasesThenRenewedInOneCall) {
  std::promise<void> together;
  std::atomic<bool> told = false;
  LeaseKeeper keeper([&](const std::vector<LeaseName>& leases, const CallContext&) {
    if (leases.size() == 100 && !told.exchange(true)) together.set_value();
    return all(leases, LeaseNews::kRenewed);
  });
  std::vector<LeaseKeeper::Held> held;
  for (int i = 0; i < 100; ++i) {
    held.push_back(keeper.hold(3s, {"a:" + std::to_string(i), {}}, [](LeaseNews) {}));
  }
  EXPECT_EQ(together.get_future().wait_for(10s), std::future_status::ready);
}

TEST(LeaseKeeper, LostLeaseThenToldOnceAndTheOthersGoOn) {
  std::promise<LeaseNews> told;
  std::promise<void> gone_on;
  std::atomic<int> after = 0;
  LeaseKeeper keeper([&](const std::vector<LeaseName>& leases, const CallContext&) {
    LeaseKeeper::News news;
    for (const LeaseName& lease : leases)
      news.push_back(lease.id == "a:1" ? LeaseNews::kLost : LeaseNews::kRenewed);
    if (leases.size() == 1 && leases[0].id == "a:2" && ++after == 2) gone_on.set_value();
    return news;
  });
  const auto one = keeper.hold(30ms, {"a:1", {}}, [&](LeaseNews news) { told.set_value(news); });
  const auto two = keeper.hold(30ms, {"a:2", {}}, [](LeaseNews) { ADD_FAILURE(); });
  auto news = told.get_future();
  ASSERT_EQ(news.wait_for(10s), std::future_status::ready);
  EXPECT_EQ(news.get(), LeaseNews::kLost);
  EXPECT_EQ(gone_on.get_future().wait_for(10s), std::future_status::ready);
}

TEST(LeaseKeeper, LeaseThatIsNotAnsweredThenOnlyThatOneIsLost) {
  std::promise<void> told;
  LeaseKeeper keeper([&](const std::vector<LeaseName>& leases, const CallContext&) {
    LeaseKeeper::News news;
    for (const LeaseName& lease : leases)
      news.push_back(lease.id == "a:1" ? std::nullopt : std::optional(LeaseNews::kRenewed));
    return news;
  });
  const auto one = keeper.hold(100ms, {"a:1", {}}, [&](LeaseNews) { told.set_value(); });
  const auto two = keeper.hold(100ms, {"a:2", {}}, [](LeaseNews) { ADD_FAILURE(); });
  EXPECT_EQ(told.get_future().wait_for(10s), std::future_status::ready);
}

TEST(LeaseKeeper, ServiceOutOfReachThenLostOnlyAfterTheWholeLease) {
  std::promise<void> told;
  std::atomic<int> tries = 0;
  const auto started = std::chrono::steady_clock::now();
  LeaseKeeper keeper([&](const auto&, const CallContext&) -> LeaseKeeper::News {
    ++tries;
    throw Unavailable("down");
  });
  const auto held = keeper.hold(200ms, {"a:1", {}}, [&](LeaseNews) { told.set_value(); });
  ASSERT_EQ(told.get_future().wait_for(10s), std::future_status::ready);
  EXPECT_GE(std::chrono::steady_clock::now() - started, 200ms);
  EXPECT_GT(tries, 1);
}

TEST(LeaseKeeper, DroppedLeaseThenNoRenewalIsUnderWayAfterwards) {
  std::atomic<std::atomic<int>*> counter = nullptr;
  LeaseKeeper keeper([&](const std::vector<LeaseName>& leases, const CallContext&) {
    ++*counter.load();
    return all(leases, LeaseNews::kRenewed);
  });
  for (int i = 0; i < 50; ++i) {
    auto alive = std::make_unique<std::atomic<int>>(0);
    counter = alive.get();
    {
      const auto held = keeper.hold(3ms, {"a:1", {}}, [](LeaseNews) {});
      while (*alive == 0) std::this_thread::yield();
    }
    alive.reset();  // a renewal that came now would be a use after free, which the sanitizers see
  }
}

}  // namespace
}  // namespace necrocode::runner
