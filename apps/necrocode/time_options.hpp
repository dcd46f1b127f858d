// Times and durations as options have them.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "necrocode/base/clock.hpp"

namespace necrocode::app {

/// "90s", "30m", "2h", "7d", "2w". Throws ConfigError naming `flag`.
std::chrono::milliseconds read_duration(const std::string& flag, const std::string& text);
/// RFC 3339. Throws ConfigError naming `flag`.
SystemTime read_time(const std::string& flag, const std::string& text);
/// RFC 3339, or how long ago it was, as read_duration() has it; nothing for an empty text. Throws
/// ConfigError naming `flag`.
std::optional<SystemTime> read_past_time(const std::string& flag, const std::string& text);

}  // namespace necrocode::app
