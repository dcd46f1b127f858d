// How a change is made: a chain of executors, each tried when the one before it did not get there.
#pragma once

#include <string>
#include <vector>

#include "necrocode/base/json.hpp"

namespace necrocode::config {

/// "llm", "command" (the configured agent) or "command:NAME".
using ExecutorChain = std::vector<std::string>;

/// A list of names, or a text of names with commas between. `problem` says what is wrong, and is
/// empty when nothing is.
ExecutorChain read_executor_chain(const Json& value, std::string& problem);

}  // namespace necrocode::config
