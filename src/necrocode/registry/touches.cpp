#include "necrocode/registry/touches.hpp"

#include <algorithm>

#include "necrocode/base/text.hpp"

namespace necrocode::registry {
namespace {

/// Whether two sequences of symbols, some of which stand for any number of others, can be the same:
/// row by row over the prefixes of both, as in an edit distance. `many(x)`: x stands for any number
/// of symbols; `same(x, y)`: both can be one and the same symbol.
template <class Sequence, class Many, class Same>
bool can_be_equal(const Sequence& one, const Sequence& other, const Many& many, const Same& same) {
  std::vector<char> row(other.size() + 1, 0);
  row[0] = 1;
  for (std::size_t j = 0; j < other.size(); ++j) row[j + 1] = row[j] && many(other[j]);
  for (std::size_t i = 0; i < one.size(); ++i) {
    char diagonal = row[0];
    row[0] = row[0] && many(one[i]);
    for (std::size_t j = 0; j < other.size(); ++j) {
      const char above = row[j + 1];
      char possible = diagonal && same(one[i], other[j]);
      if (many(one[i])) possible = possible || above || row[j];
      if (many(other[j])) possible = possible || row[j] || above;
      // A wildcard that stands for nothing: the prefix without it.
      row[j + 1] = possible;
      diagonal = above;
    }
  }
  return row[other.size()] != 0;
}

bool segments_overlap(std::string_view one, std::string_view other) {
  const auto many = [](char c) { return c == '*'; };
  const auto same = [&](char a, char b) {
    return a == b || a == '?' || b == '?' || many(a) || many(b);
  };
  return can_be_equal(one, other, many, same);
}

/// True for a last segment that is more likely a folder's name than a file's.
bool means_folder(std::string_view segment) {
  return segment.find_first_of("*?") == std::string_view::npos &&
         segment.find('.', 1) == std::string_view::npos;
}

/// Its segments, and "**" where it means all that is below.
std::vector<std::string_view> segments_of(std::string_view glob) {
  std::vector<std::string_view> segments;
  for (const std::string_view segment : split(glob, '/')) {
    if (!segment.empty() && segment != ".") segments.push_back(segment);
  }
  if (segments.empty() || glob.ends_with('/') || means_folder(segments.back())) {
    segments.push_back("**");
  }
  return segments;
}

}  // namespace

bool globs_overlap(std::string_view one, std::string_view other) {
  const auto many = [](std::string_view segment) { return segment == "**"; };
  const auto same = [&](std::string_view a, std::string_view b) {
    return many(a) || many(b) || segments_overlap(a, b);
  };
  return can_be_equal(segments_of(one), segments_of(other), many, same);
}

bool touches_overlap(const std::vector<std::string>& one, const std::vector<std::string>& other) {
  return std::any_of(one.begin(), one.end(), [&](const std::string& a) {
    return std::any_of(other.begin(), other.end(),
                       [&](const std::string& b) { return globs_overlap(a, b); });
  });
}

}  // namespace necrocode::registry
