// A map from half-open intervals of ordered keys to values.
#pragma once

#include <cstddef>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

namespace strata {

/// Holds disjoint intervals [begin, end), each with a value. Neighbours that touch and have equal
/// values are always one interval. Keys need operator<, values operator==. Looking a key up takes
/// logarithmic time; so does a change, plus the intervals that it removes.
template <typename Key, typename Value>
class IntervalMap {
 public:
  struct Interval {
    Key begin;
    Key end;
    Value value;
  };

  /// Gives all keys of [begin, end) this value. An empty or reversed range changes nothing.
  /// The value is taken by copy, since it may be one that this call removes.
  void assign(const Key& begin, const Key& end, Value value) {
    if (!(begin < end)) return;
    Key first = begin;
    Key last = end;
    erase(first, last);
    auto next = segments_.lower_bound(first);
    if (next != segments_.end() && !(last < next->first) && next->second.value == value) {
      last = next->second.end;
      next = segments_.erase(next);
    }
    if (next != segments_.begin()) {
      Segment& left = std::prev(next)->second;
      if (!(left.end < first) && left.value == value) {
        left.end = std::move(last);
        return;
      }
    }
    segments_.emplace_hint(next, std::move(first), Segment{std::move(last), std::move(value)});
  }

  /// Takes the values from all keys of [begin, end).
  void erase(const Key& begin, const Key& end) {
    if (!(begin < end)) return;
    auto next = segments_.lower_bound(begin);
    if (next != segments_.begin()) {
      Segment& left = std::prev(next)->second;
      if (begin < left.end) left.end = begin;
    }
    while (next != segments_.end() && next->first < end) {
      if (end < next->second.end) segments_.emplace(end, next->second);
      next = segments_.erase(next);
    }
  }

  /// The value of the key, or nullptr; valid until the next change.
  const Value* find(const Key& key) const {
    auto next = segments_.upper_bound(key);
    if (next == segments_.begin()) return nullptr;
    const Segment& segment = std::prev(next)->second;
    return key < segment.end ? &segment.value : nullptr;
  }

  /// All intervals in the order of their keys.
  std::vector<Interval> intervals() const {
    std::vector<Interval> result;
    result.reserve(segments_.size());
    for (const auto& [begin, segment] : segments_) {
      result.push_back({begin, segment.end, segment.value});
    }
    return result;
  }

  std::size_t size() const { return segments_.size(); }
  bool empty() const { return segments_.empty(); }

 private:
  struct Segment {
    Key end;
    Value value;
  };

  std::map<Key, Segment> segments_;  // by begin; disjoint
};

}  // namespace strata
