// YAML as Json, bounded: size, depth, and the number of nodes (an alias bomb expands to many).
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "necrocode/base/json.hpp"

namespace necrocode::config {

/// Scalars become what YAML's core schema says (null, booleans, integers, floats); quoted ones stay
/// strings. `lines`, when given, gets the line of each member by JSON pointer.
/// Throws ConfigError with the line; `what` names the text in the message.
Json parse_yaml(std::string_view text, std::string_view what,
                std::map<std::string, int>* lines = nullptr);

}  // namespace necrocode::config
