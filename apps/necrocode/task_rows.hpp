// How commands write tasks, states and money for people.
#pragma once

#include <string>

#include "necrocode/base/json.hpp"
#include "necrocode/registry/model.hpp"

namespace necrocode::app {

/// Why it is not done yet, or will not be; presentable. Empty for one that is done.
std::string reason_of(const registry::Task& task);
/// "agent: the answer is no JSON" of a Failure's JSON; presentable. Empty for null.
std::string failure_text(const Json& failure);
/// "2 ready, 10 blocked" of Taskset::counts, in the order of the states, those without tasks left
/// out.
std::string counts_text(const Json& counts);
/// "1.23 USD"; empty for 0.
std::string cost_text(double usd);

}  // namespace necrocode::app
