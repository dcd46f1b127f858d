#include "strata/interval_map.hpp"

#include <array>
#include <string>

#include "check.hpp"

using Map = strata::IntervalMap<int, char>;

// "[0,5)a [7,9)b"
static std::string shown(const Map& map) {
  std::string text;
  for (const Map::Interval& interval : map.intervals()) {
    if (!text.empty()) text += ' ';
    text += '[' + std::to_string(interval.begin) + ',' + std::to_string(interval.end) + ')';
    text += interval.value;
  }
  return text;
}

// The value of a key that must have one.
template <typename AnyMap, typename Key>
const auto& at(const AnyMap& map, const Key& key) {
  const auto* found = map.find(key);
  CHECK(found != nullptr);
  return *found;
}

TEST(an_empty_map_finds_nothing) {
  const Map map;
  CHECK(map.empty());
  CHECK(map.find(0) == nullptr);
  CHECK_EQ(shown(map), "");
}

TEST(an_interval_holds_its_begin_and_not_its_end) {
  Map map;
  map.assign(2, 5, 'a');
  CHECK(map.find(1) == nullptr);
  CHECK_EQ(at(map, 2), 'a');
  CHECK_EQ(at(map, 4), 'a');
  CHECK(map.find(5) == nullptr);
}

TEST(empty_and_reversed_ranges_change_nothing) {
  Map map;
  map.assign(0, 10, 'a');
  map.assign(4, 4, 'b');
  map.assign(6, 3, 'b');
  map.erase(5, 5);
  map.erase(9, 1);
  CHECK_EQ(shown(map), "[0,10)a");
}

TEST(a_later_value_replaces_what_it_covers) {
  Map map;
  map.assign(0, 4, 'a');
  map.assign(6, 9, 'b');
  map.assign(3, 7, 'c');
  CHECK_EQ(shown(map), "[0,3)a [3,7)c [7,9)b");
  map.assign(-1, 20, 'd');
  CHECK_EQ(shown(map), "[-1,20)d");
}

TEST(assigning_inside_an_interval_keeps_both_of_its_sides) {
  Map map;
  map.assign(0, 10, 'a');
  map.assign(3, 6, 'b');
  CHECK_EQ(shown(map), "[0,3)a [3,6)b [6,10)a");
  map.erase(1, 2);
  CHECK_EQ(shown(map), "[0,1)a [2,3)a [3,6)b [6,10)a");
}

TEST(touching_intervals_of_one_value_become_one) {
  Map map;
  map.assign(0, 3, 'a');
  map.assign(6, 9, 'a');
  CHECK_EQ(map.size(), 2u);
  map.assign(3, 6, 'a');
  CHECK_EQ(shown(map), "[0,9)a");
  map.assign(2, 4, 'a');
  CHECK_EQ(shown(map), "[0,9)a");
}

TEST(a_value_may_come_from_the_map_itself) {
  strata::IntervalMap<int, std::string> map;
  const std::string text(100, 'x');
  map.assign(5, 10, text);
  map.assign(0, 20, at(map, 7));
  CHECK_EQ(map.size(), 1u);
  CHECK_EQ(at(map, 19), text);
}

struct Version {  // has an order and nothing else
  int number;
  bool operator<(const Version& other) const { return number < other.number; }
};

TEST(keys_need_only_an_order) {
  strata::IntervalMap<Version, int> map;
  map.assign(Version{1}, Version{4}, 7);
  map.assign(Version{2}, Version{3}, 8);
  map.erase(Version{0}, Version{2});
  CHECK(map.find(Version{1}) == nullptr);
  CHECK_EQ(at(map, Version{3}), 7);
}

TEST(it_agrees_with_a_plain_array_over_many_random_changes) {
  std::array<char, 64> plain{};  // 0: nothing
  Map map;
  unsigned seed = 12345;
  const auto random = [&seed](unsigned below) {
    seed = seed * 1664525u + 1013904223u;
    return static_cast<int>((seed >> 16) % below);
  };
  for (int change = 0; change < 3000; ++change) {
    const int begin = random(64);
    const int end = begin + random(16);
    const char value = static_cast<char>(random(4) == 0 ? 0 : 'a' + random(3));
    for (int key = begin; key < end && key < 64; ++key)
      plain[static_cast<std::size_t>(key)] = value;
    if (value == 0) {
      map.erase(begin, end);
    } else {
      map.assign(begin, end < 64 ? end : 64, value);
    }
    std::size_t runs = 0;
    for (int key = 0; key < 64; ++key) {
      const char expected = plain[static_cast<std::size_t>(key)];
      const char* found = map.find(key);
      CHECK_EQ(found == nullptr ? 0 : *found, expected);
      const bool starts = key == 0 || plain[static_cast<std::size_t>(key - 1)] != expected;
      if (expected != 0 && starts) ++runs;
    }
    CHECK_EQ(map.size(), runs);
  }
}
