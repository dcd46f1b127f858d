#include "necrocode/runner/turns.hpp"

#include <gmock/gmock.h>

#include <atomic>
#include <thread>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "support/eventually.hpp"

namespace necrocode::runner {
namespace {

TEST(Turns, NoMoreThanTheBoundAreTakenAtOnce) {
  Turns turns(3);
  std::atomic<int> now = 0;
  std::atomic<int> most = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 16; ++i) {
      threads.emplace_back([&] {
        for (int round = 0; round < 50; ++round) {
          const Turns::Turn turn = turns.take({});
          const int current = ++now;
          int seen = most.load();
          while (current > seen && !most.compare_exchange_weak(seen, current)) {
          }
          std::this_thread::yield();
          --now;
        }
      });
    }
  }
  EXPECT_LE(most.load(), 3);
  EXPECT_EQ(turns.taken(), 0);
}

TEST(Turns, AreGivenInTheOrderOfTheAsking) {
  Turns turns(1);
  std::vector<int> order;
  {
    std::vector<std::jthread> threads;
    std::optional<Turns::Turn> first(turns.take({}));
    for (int i = 0; i < 5; ++i) {
      threads.emplace_back([&, i] {
        const Turns::Turn turn = turns.take({});
        order.push_back(i);
      });
      ASSERT_TRUE(test::eventually([&] { return turns.waiting() == i + 1; }));
    }
    first.reset();
  }
  EXPECT_THAT(order, testing::ElementsAre(0, 1, 2, 3, 4));
}

TEST(Turns, WhoeverWaitsTooLongOrIsStoppedLeavesTheLine) {
  Turns turns(1);
  std::optional<Turns::Turn> first(turns.take({}));
  EXPECT_THROW((void)turns.take(CallContext().within(std::chrono::milliseconds(5))), TimeoutError);
  std::stop_source stop;
  stop.request_stop();
  CallContext stopped;
  stopped.stop = stop.get_token();
  EXPECT_THROW((void)turns.take(stopped), TimeoutError);
  first.reset();
  const Turns::Turn next = turns.take(CallContext().within(std::chrono::seconds(5)));
  EXPECT_EQ(turns.taken(), 1);
}

TEST(Turns, WithoutABoundNobodyWaits) {
  Turns turns(0);
  const Turns::Turn one = turns.take({});
  const Turns::Turn two = turns.take({});
  EXPECT_EQ(turns.taken(), 0);
}

}  // namespace
}  // namespace necrocode::runner
