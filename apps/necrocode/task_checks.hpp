// What a runner would refuse of a taskset, said before it is submitted.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "necrocode/base/json.hpp"
#include "necrocode/config/config.hpp"

namespace necrocode::app {

/// Reads each task as a runner will, those that are done aside, and throws
/// TaskContextValidationError with all defects (at most 100 are told); warnings go to stderr.
/// `where` names a task for people; "/tasks/0" when it is empty. What tasks are to each other is
/// the registry's to check.
void check_tasks(const Json& taskset, const config::Config& config,
                 const std::function<std::string(std::size_t index)>& where = {});

}  // namespace necrocode::app
