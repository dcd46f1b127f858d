// --limit and --all of the commands that list: how much of a service's list is shown.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "cli.hpp"
#include "necrocode/base/limits.hpp"

namespace necrocode::app {

struct ListLimit {
  int limit = 100;
  bool all = false;

  void declare(Cli& cli) {
    cli.option("--limit", limit, 1, 1'000'000, "at most so many")
        .flag("--all", all, "without a limit");
  }
};

inline constexpr const char* kMoreLine = "… more; --all shows them";

/// What `list(query)` selects, over as many pages as that takes. There is more than the limit
/// allows when the result's `next_cursor` is set.
template <class List, class Query>
auto list_pages(const List& list, Query query, const ListLimit& limit) {
  const std::size_t total = limit.all ? SIZE_MAX : static_cast<std::size_t>(limit.limit);
  const auto next_page = [&](std::size_t have) {
    query.limit = static_cast<int>(std::min<std::size_t>(total - have, limits::kPageSizeMax));
    return list(query);
  };
  auto result = next_page(0);
  while (result.next_cursor && result.items.size() < total) {
    query.cursor = *result.next_cursor;
    auto page = next_page(result.items.size());
    if (page.items.empty()) break;  // a service that would make us ask for ever
    std::move(page.items.begin(), page.items.end(), std::back_inserter(result.items));
    result.next_cursor = page.next_cursor;
  }
  return result;
}

}  // namespace necrocode::app
