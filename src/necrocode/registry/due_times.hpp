// DueTimes: when leases and waits end, by the monotonic clock. The database says what they are,
// this says when; so no step of the wall clock moves any of it. Private to the SQLite store.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "necrocode/registry/sqlite_changes.hpp"

namespace necrocode::registry {

/// Values with a time each, by key and by time. Not thread-safe.
template <class Key, class Value>
class Timetable {
 public:
  /// In place of an earlier one of that key.
  void put(const Key& key, Value value, SteadyTime time) {
    remove(key);
    times_.emplace(time, key);
    entries_.emplace(key, Entry{std::move(value), time});
  }
  void remove(const Key& key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return;
    times_.erase({found->second.time, key});
    entries_.erase(found);
  }
  Value* find(const Key& key) {
    const auto found = entries_.find(key);
    return found == entries_.end() ? nullptr : &found->second.value;
  }
  std::optional<SteadyTime> time_of(const Key& key) const {
    const auto found = entries_.find(key);
    return found == entries_.end() ? std::nullopt : std::optional(found->second.time);
  }
  SteadyTime earliest() const { return times_.empty() ? SteadyTime::max() : times_.begin()->first; }
  /// Calls `each(key, value)` in the order of their times.
  template <class Each>
  void for_each_until(SteadyTime time, Each&& each) const {
    for (auto it = times_.begin(); it != times_.end() && it->first <= time; ++it) {
      each(it->second, entries_.at(it->second).value);
    }
  }
  void remove_until(SteadyTime time) {
    while (!times_.empty() && earliest() <= time) remove(Key(times_.begin()->second));
  }

 private:
  struct Entry {
    Value value;
    SteadyTime time{};
  };
  std::unordered_map<Key, Entry> entries_;
  std::set<std::pair<SteadyTime, Key>> times_;  // of each of them
};

/// Thread-safe.
class DueTimes {
 public:
  struct Lease {
    std::int64_t seq = 0;
    std::string task_id;
    std::chrono::milliseconds duration{0};
    bool cancel_requested = false;
  };
  struct Due {
    std::vector<LeaseRef> leases;
    std::vector<Effects::TaskWait> tasks;
    std::vector<Effects::ProviderWait> providers;
    bool empty() const { return leases.empty() && tasks.empty() && providers.empty(); }
  };

  /// True when something is due before the time that plan() told.
  bool apply(const Effects& effects, SteadyTime now);
  void add(const std::string& token, Lease lease, SteadyTime now);
  /// The lease after its renewal; nothing when it has ended. `task_id` may be bare.
  std::optional<Lease> renew(const std::string& token, const std::string& task_id, SteadyTime now);
  Due due(SteadyTime now) const;
  /// Waits that are over, once that is on disk.
  void remove_waits(SteadyTime until);
  /// When something is due next, which is what the caller acts on; nothing: never, as things are.
  std::optional<SteadyTime> plan();

 private:
  SteadyTime earliest() const;  // under the mutex

  mutable std::mutex mutex_;
  Timetable<std::string, Lease> leases_;                     // by token
  Timetable<std::int64_t, Effects::TaskWait> tasks_;         // by seq: a task waits for one time
  Timetable<std::string, Effects::ProviderWait> providers_;  // by name
  SteadyTime planned_ = SteadyTime::min();                   // nobody waits for anything yet
};

}  // namespace necrocode::registry
