// What a failed attempt leads to: another one, and when, or the task's end. The one table of
// failure classes; pure, no store.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/json.hpp"

namespace necrocode::registry {

/// Why attempts fail, and so whose budget they use up.
enum class FailureClass {
  kAgent,           ///< the model's answer could not be used, or was refused
  kTests,           ///< the tests failed
  kInfrastructure,  ///< a service, the runner or its machine; an unrenewed lease
  kQuota,           ///< the provider's quota is used up: no attempt is used up
  kConflict         ///< the work of parents, or of others, does not merge
};
std::string_view to_string(FailureClass failure_class);
/// Nothing for an unknown name.
std::optional<FailureClass> parse_failure_class(std::string_view name);

/// How often a task may be tried, by its field `max_attempts`: a number for every class, or
/// {"tests": 2, …} for some; without it, 1 for agent and tests (the runner has repaired and asked
/// again by itself), 3 for infrastructure and conflict. Of quota there is no number.
int max_attempts(const Json& fields, FailureClass failure_class);

/// Nothing: the task has failed. Else how long it waits before it is ready again.
///
/// `used`: attempts that ended by this class since the last retry, this one included; `retry_at`:
/// what the failure says, a lower bound, at most limits::kParkTimeMax from `now`. The wait doubles
/// with each attempt, from 5 s (infrastructure, tests, agent) or 30 s (conflict) up to 5 min. A
/// quota failure waits for its retry_at, or when that is past for 1 s, doubled likewise; without
/// one it is final, since nobody knows what for.
std::optional<std::chrono::milliseconds> wait_before_retry(const Json& fields,
                                                           FailureClass failure_class, int used,
                                                           std::optional<SystemTime> retry_at,
                                                           SystemTime now);

}  // namespace necrocode::registry
