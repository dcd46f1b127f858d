#include "necrocode/registry/attempt_policy.hpp"

#include <gtest/gtest.h>

#include "necrocode/base/limits.hpp"

namespace necrocode::registry {
namespace {

using namespace std::chrono_literals;
using Wait = std::optional<std::chrono::milliseconds>;

constexpr SystemTime kNow{std::chrono::hours(24 * 365 * 50)};

Wait wait(FailureClass failure_class, int used, const Json& max_attempts = Json(),
          std::optional<SystemTime> retry_at = {}) {
  Json fields = Json::object();
  if (!max_attempts.is_null()) fields.set("max_attempts", max_attempts);
  return wait_before_retry(fields, failure_class, used, retry_at, kNow);
}

TEST(AttemptPolicy, EachClassIsReadByItsName) {
  for (const FailureClass one :
       {FailureClass::kAgent, FailureClass::kTests, FailureClass::kInfrastructure,
        FailureClass::kQuota, FailureClass::kConflict}) {
    EXPECT_EQ(parse_failure_class(to_string(one)), one);
  }
  EXPECT_FALSE(parse_failure_class("Agent").has_value());
  EXPECT_FALSE(parse_failure_class("").has_value());
}

TEST(AttemptPolicy, WithoutANumberAgentAndTestsAreTriedOnceTheOthersThreeTimes) {
  EXPECT_EQ(wait(FailureClass::kAgent, 1), Wait{});
  EXPECT_EQ(wait(FailureClass::kTests, 1), Wait{});
  EXPECT_EQ(wait(FailureClass::kInfrastructure, 2), Wait{10s});
  EXPECT_EQ(wait(FailureClass::kInfrastructure, 3), Wait{});
  EXPECT_EQ(wait(FailureClass::kConflict, 2), Wait{60s});
  EXPECT_EQ(wait(FailureClass::kConflict, 3), Wait{});
}

TEST(AttemptPolicy, NumberIsForEveryClassAndAnObjectForThoseItNames) {
  EXPECT_EQ(max_attempts(Json::object({{"max_attempts", 7}}), FailureClass::kAgent), 7);
  const Json some = Json::object({{"max_attempts", Json::object({{"tests", 4}})}});
  EXPECT_EQ(max_attempts(some, FailureClass::kTests), 4);
  EXPECT_EQ(max_attempts(some, FailureClass::kInfrastructure), 3);
  EXPECT_EQ(wait(FailureClass::kTests, 1, Json(2)), Wait{5s});
  EXPECT_EQ(wait(FailureClass::kTests, 2, Json(2)), Wait{});
}

TEST(AttemptPolicy, WaitDoublesUpToFiveMinutes) {
  const std::vector<std::chrono::seconds> waits = {5s, 10s, 20s, 40s, 80s, 160s, 300s, 300s};
  for (std::size_t i = 0; i < waits.size(); ++i) {
    EXPECT_EQ(wait(FailureClass::kAgent, static_cast<int>(i) + 1, Json(100)), Wait{waits[i]});
  }
  EXPECT_EQ(wait(FailureClass::kConflict, 1), Wait{30s});
  EXPECT_EQ(wait(FailureClass::kAgent, 99, Json(100)), Wait{300s});
}

TEST(AttemptPolicy, RetryAtIsALowerBoundWithinTheLongestWait) {
  EXPECT_EQ(wait(FailureClass::kAgent, 1, Json(2), kNow + 90s), Wait{90s});
  EXPECT_EQ(wait(FailureClass::kAgent, 1, Json(2), kNow + 1s), Wait{5s});
  EXPECT_EQ(wait(FailureClass::kAgent, 1, Json(2), kNow - 1h), Wait{5s});
  EXPECT_EQ(wait(FailureClass::kAgent, 1, Json(2), kNow + 24h * 365), Wait{limits::kParkTimeMax});
  EXPECT_EQ(wait(FailureClass::kAgent, 1, Json(2), kNow + 90s + 1us), Wait{90'001ms});
  EXPECT_EQ(wait(FailureClass::kAgent, 1, Json(1), kNow + 90s), Wait{});
}

TEST(AttemptPolicy, QuotaIsNeverUsedUpAndFinalWithoutATime) {
  EXPECT_EQ(wait(FailureClass::kQuota, 1000, Json(1), kNow + 90s), Wait{90s});
  EXPECT_EQ(wait(FailureClass::kQuota, 1, Json(), kNow - 1s), Wait{1s});
  EXPECT_EQ(wait(FailureClass::kQuota, 1), Wait{});
}

}  // namespace
}  // namespace necrocode::registry
