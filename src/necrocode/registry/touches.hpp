// Whether two tasks may change the same file, by the globs that they say they touch.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace necrocode::registry {

/// True when some path is meant by both globs. `*` is any characters within a segment, `?` one,
/// `**` as a whole segment any number of segments, also none; anything else means itself. A
/// folder means everything below it: a glob that ends in "/", or whose last segment has neither a
/// wildcard nor an extension ("src/net" is "src/net" and "src/net/**", "src/net.hpp" is a file). A
/// leading "./" or "/" does not count. O(length × length).
bool globs_overlap(std::string_view one, std::string_view other);

/// Any of the one with any of the other.
bool touches_overlap(const std::vector<std::string>& one, const std::vector<std::string>& other);

}  // namespace necrocode::registry
