#include "necrocode/registry/attempt_policy.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/limits.hpp"

namespace necrocode::registry {
namespace {

using std::chrono::milliseconds;
using namespace std::chrono_literals;

struct Policy {
  std::string_view name;
  int attempts;             ///< without a `max_attempts`; 0: not counted
  milliseconds first_wait;  ///< doubled by each further one
};
/// As FailureClass is numbered.
constexpr std::array<Policy, 5> kPolicies = {{{"agent", 1, 5s},
                                              {"tests", 1, 5s},
                                              {"infrastructure", 3, 5s},
                                              {"quota", 0, 1s},
                                              {"conflict", 3, 30s}}};
constexpr milliseconds kLongestWait = 5min;

const Policy& policy_of(FailureClass failure_class) {
  return kPolicies[static_cast<std::size_t>(failure_class)];
}

milliseconds backoff(const Policy& policy, int used) {
  milliseconds wait = policy.first_wait;
  for (int i = 1; i < used && wait < kLongestWait; ++i) wait *= 2;
  return std::min(wait, kLongestWait);
}

}  // namespace

std::string_view to_string(FailureClass failure_class) {
  return policy_of(failure_class).name;
}

std::optional<FailureClass> parse_failure_class(std::string_view name) {
  for (std::size_t i = 0; i < kPolicies.size(); ++i) {
    if (kPolicies[i].name == name) return static_cast<FailureClass>(i);
  }
  return std::nullopt;
}

int max_attempts(const Json& fields, FailureClass failure_class) {
  const Json& given = fields["max_attempts"];
  const Json& number = given.is_object() ? given[to_string(failure_class)] : given;
  return static_cast<int>(number.as_int().value_or(policy_of(failure_class).attempts));
}

std::optional<milliseconds> wait_before_retry(const Json& fields, FailureClass failure_class,
                                              int used, std::optional<SystemTime> retry_at,
                                              SystemTime now) {
  const bool counted = failure_class != FailureClass::kQuota;
  if (counted ? used >= max_attempts(fields, failure_class) : !retry_at) return std::nullopt;
  milliseconds wait = backoff(policy_of(failure_class), used);
  if (retry_at) {
    const auto hint = std::chrono::ceil<milliseconds>(
        std::min<SystemTime::duration>(*retry_at - now, limits::kParkTimeMax));
    // A quota's own word is all there is to wait for, unless it is past.
    wait = counted || hint.count() <= 0 ? std::max(wait, hint) : hint;
  }
  return wait;
}

}  // namespace necrocode::registry
