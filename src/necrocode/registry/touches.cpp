#include "necrocode/registry/touches.hpp"

#include <algorithm>

#include "necrocode/base/text.hpp"

namespace necrocode::registry {
namespace {

/// Whether two sequences of symbols, some of which stand for any number of others, can be the same:
/// row by row over the prefixes of both, as in an edit distance. `many(x)`: x stands for any number
/// of symbols; `same(x, y)`: both can be one and the same symbol.
template <class Sequence, class Many, class Same>
bool can_be_equal(const Sequence& one, const Sequence& other, const Many& many, const Same& same,
                  TouchesBudget& budget) {
  budget.left -= static_cast<std::int64_t>(one.size() * other.size());
  if (budget.left < 0) return true;
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

bool segments_overlap(std::string_view one, std::string_view other, TouchesBudget& budget) {
  const auto is_literal = [](std::string_view text) {
    return text.find_first_of("*?") == std::string_view::npos;
  };
  if (is_literal(one) && is_literal(other)) return one == other;
  const auto many = [](char c) { return c == '*'; };
  const auto same = [&](char a, char b) {
    return a == b || a == '?' || b == '?' || many(a) || many(b);
  };
  return can_be_equal(one, other, many, same, budget);
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

bool overlap(const std::vector<std::string_view>& one, const std::vector<std::string_view>& other,
             TouchesBudget& budget) {
  const auto many = [](std::string_view segment) { return segment == "**"; };
  // Most differ in the first segment that neither leaves open.
  for (std::size_t i = 0; i < std::min(one.size(), other.size()); ++i) {
    if (many(one[i]) || many(other[i])) break;
    if (!segments_overlap(one[i], other[i], budget)) return false;
  }
  const auto same = [&](std::string_view a, std::string_view b) {
    return many(a) || many(b) || segments_overlap(a, b, budget);
  };
  return can_be_equal(one, other, many, same, budget);
}

std::vector<std::vector<std::string_view>> all_segments_of(const std::vector<std::string>& globs) {
  std::vector<std::vector<std::string_view>> all;
  for (const std::string& glob : globs) all.push_back(segments_of(glob));
  return all;
}

}  // namespace

bool globs_overlap(std::string_view one, std::string_view other) {
  TouchesBudget enough{INT64_MAX};
  return overlap(segments_of(one), segments_of(other), enough);
}

bool touches_overlap(const std::vector<std::string>& one, const std::vector<std::string>& other,
                     TouchesBudget& budget) {
  const auto others = all_segments_of(other);
  for (const auto& a : all_segments_of(one)) {
    for (const auto& b : others) {
      if (--budget.left < 0 || overlap(a, b, budget)) return true;
    }
  }
  return false;
}

}  // namespace necrocode::registry
