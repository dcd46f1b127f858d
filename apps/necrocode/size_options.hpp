// Sizes as options have them.
#pragma once

#include <cstdint>
#include <string>

namespace necrocode::app {

/// "512m", "2g", "800k": bytes, by powers of 1,024. Throws ConfigError naming `flag`.
std::uint64_t read_size(const std::string& flag, const std::string& text);

}  // namespace necrocode::app
