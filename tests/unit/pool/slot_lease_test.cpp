#include "necrocode/pool/slot_lease.hpp"

#include <gmock/gmock.h>

#include "support/eventually.hpp"
#include "support/raw_server.hpp"

namespace necrocode {
namespace {

using namespace std::chrono_literals;
using test::answer;
using test::eventually;
using test::RawConnection;
using test::RawServer;

/// Answers heartbeats and releases as it is told.
class SlotLeaseTest : public testing::Test {
 protected:
  SlotLeaseTest()
      : server_([this](RawConnection& connection) {
          while (const auto request = connection.read_request()) {
            const bool release = request->target.ends_with("/release");
            ++(release ? releases_ : heartbeats_);
            if (silent_) return connection.wait_closed();
            if (!connection.send(answer(release ? 200 : status_.load(),
                                        R"({"expires_at":"2026-01-31T12:00:00.000Z"})",
                                        "Content-Type: application/json\r\n")))
              return;
          }
        }),
        pool_([this] {
          net::ServiceOptions options;
          options.base_url = server_.url("");
          options.retry.retries = 0;
          return options;
        }()) {}

  SlotLease lease() {
    SlotAllocation slot;
    slot.slot_id = SlotId{"app-1.1"};
    slot.lease_token = LeaseToken{"t"};
    return SlotLease(pool_, slot, 1s);
  }

  std::atomic<int> status_ = 200;
  std::atomic<bool> silent_ = false;
  std::atomic<int> heartbeats_ = 0;
  std::atomic<int> releases_ = 0;
  RawServer server_;
  RepoPoolClient pool_;
};

TEST_F(SlotLeaseTest, RenewsWhileItLivesAndReleasesAtItsEnd) {
  {
    const SlotLease held = lease();
    EXPECT_TRUE(eventually([&] { return heartbeats_ >= 3; }));
    EXPECT_FALSE(held.lost().stop_requested());
    EXPECT_EQ(releases_, 0);
  }
  EXPECT_EQ(releases_, 1);
}

TEST_F(SlotLeaseTest, MovesWithoutReleasing) {
  SlotLease one = lease();
  SlotLease two = std::move(one);
  EXPECT_EQ(two.slot().slot_id.value, "app-1.1");
  EXPECT_EQ(releases_, 0);
  two = lease();
  EXPECT_EQ(releases_, 1) << "what it held before";
}

TEST_F(SlotLeaseTest, TellsWhenTheServiceSaysThatTheLeaseIsLost) {
  status_ = 409;
  const SlotLease held = lease();
  EXPECT_TRUE(eventually([&] { return held.lost().stop_requested(); }));
}

TEST_F(SlotLeaseTest, IsLostWhenTheServiceIsSilentForTheWholeOfIt) {
  silent_ = true;
  const auto begin = std::chrono::steady_clock::now();
  const SlotLease held = lease();
  EXPECT_TRUE(eventually([&] { return held.lost().stop_requested(); }));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 1s);
  EXPECT_GE(heartbeats_, 2);
}

TEST_F(SlotLeaseTest, ReleasesOnce) {
  {
    SlotLease held = lease();
    held.release();
    EXPECT_EQ(releases_, 1);
  }
  EXPECT_EQ(releases_, 1);
}

}  // namespace
}  // namespace necrocode
