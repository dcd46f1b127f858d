// The clock of the machine is set while a lease runs: leases end by the time that has passed.
#include <fstream>

#include "e2e/registry_process.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::test {
namespace {

constexpr std::chrono::hours kStep{2};

class RegistryClock : public RegistryProcess {
 protected:
  void SetUp() override {
    if (std::string_view(NECROCODE_SHIFTED_CLOCK).empty())
      GTEST_SKIP() << "nothing is preloaded into a program with sanitizers";
    set_clock(std::chrono::seconds{0});
    extra_env_ = {std::string("LD_PRELOAD=") + NECROCODE_SHIFTED_CLOCK,
                  "NECROCODE_CLOCK_SHIFT=" + path("shift").string()};
    serve_registry();
    ASSERT_EQ(submit("clock", 1), 201);
  }
  void set_clock(std::chrono::seconds wrong_by) {
    std::fstream file(path("shift"), std::ios::in | std::ios::out | std::ios::binary);
    if (!file) file.open(path("shift"), std::ios::out | std::ios::binary);
    const std::int64_t seconds = wrong_by.count();
    file.write(reinterpret_cast<const char*>(&seconds), sizeof seconds);
  }
  std::chrono::duration<double> clock_is_wrong_by() const {
    const Json event =
        call("POST", "/tasks/clock:1/events", Json::object({{"event_type", "Said"}})).json();
    return parse_rfc3339(event["recorded_at"].string_or("")).value() -
           std::chrono::system_clock::now();
  }
  void claim(int lease_seconds) {
    const RawAnswer answer =
        call("POST", "/tasks/claim", Json::object({{"lease_seconds", lease_seconds}}));
    ASSERT_EQ(answer.status, 200) << answer.body;
    token_ = answer.json()["tasks"].items().at(0)["lease_token"];
  }
  int heartbeat() const {
    return call("POST", "/tasks/clock:1/heartbeat", Json::object({{"lease_token", token_}})).status;
  }
  Json state() const { return call("GET", "/tasks/clock:1").json()["state"]; }

  Json token_;
};

TEST_F(RegistryClock, SetForwardThenALiveLeaseLivesOn) {
  claim(600);
  set_clock(kStep);
  EXPECT_GT(clock_is_wrong_by(), std::chrono::hours{1}) << "the clock was not set";
  // A claim that waits makes the registry look at its leases.
  EXPECT_EQ(call("POST", "/tasks/claim", Json::object({{"wait_seconds", 0.2}})).status, 204);
  EXPECT_EQ(state(), Json("running"));
  EXPECT_EQ(heartbeat(), 200);
}

TEST_F(RegistryClock, SetBackThenALeaseEndsInItsTime) {
  claim(1);
  set_clock(-kStep);
  EXPECT_LT(clock_is_wrong_by(), -std::chrono::hours{1}) << "the clock was not set";
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(eventually([&] { return state() == Json("ready"); }));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds{5});
  EXPECT_EQ(heartbeat(), 409);
}

}  // namespace
}  // namespace necrocode::test
