// Whether two tasks may change the same file, by the globs that they say they touch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace necrocode::registry {

/// True when some path is meant by both globs. `*` is any characters within a segment, `?` one,
/// `**` as a whole segment any number of segments, also none; anything else means itself. A
/// folder means everything below it: a glob that ends in "/", or whose last segment has neither a
/// wildcard nor an extension ("src/net" is "src/net" and "src/net/**", "src/net.hpp" is a file). A
/// leading "./" or "/" does not count.
bool globs_overlap(std::string_view one, std::string_view other);

/// How much work may go into answers, in comparisons of two segments or characters. The writer of
/// the store asks, and others wait for it: 2 million are some 20 ms.
struct TouchesBudget {
  std::int64_t left = 2'000'000;
};

/// Any of the one with any of the other. When the budget is spent they count as overlapping: two
/// tasks that say so much run one after the other.
bool touches_overlap(const std::vector<std::string>& one, const std::vector<std::string>& other,
                     TouchesBudget& budget);

}  // namespace necrocode::registry
