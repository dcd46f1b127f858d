// When watching is over: nothing that is watched will change without somebody's help.
#pragma once

#include <optional>

#include "necrocode/registry/client.hpp"

namespace necrocode::app {

/// Whether all that `watched` names (one task, or a spec) is done, once nothing more happens by
/// itself: what is not done has failed, was cancelled, or is blocked behind what has. Nothing while
/// it may still go on. NotFound for what is not there.
std::optional<bool> end_of(TaskRegistryClient& client, const registry::EventFilter& watched,
                           const CallContext& context);

}  // namespace necrocode::app
