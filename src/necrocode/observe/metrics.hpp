// Metrics: the numbers of one process, as Prometheus text (exposition format 0.0.4). Who counts
// keeps a reference and counts in it; who is asked gives a function. What a number means is theirs.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace necrocode::metrics {

/// Names and values, in the order in which they are shown. Names are [a-z_]+, values any text.
using Labels = std::vector<std::pair<std::string, std::string>>;

/// Only grows. Thread-safe.
class Counter {
 public:
  void add(std::uint64_t count = 1) { value_.fetch_add(count, std::memory_order_relaxed); }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_ = 0;
};

/// How many values were at most each of the bounds, and their sum. Thread-safe.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);  ///< ascending; infinity is added
  void observe(double value);

  const std::vector<double>& bounds() const { return bounds_; }
  std::uint64_t count(std::size_t bucket) const { return counts_[bucket].load(); }
  double sum() const { return sum_.load(); }

 private:
  const std::vector<double> bounds_;
  std::vector<std::atomic<std::uint64_t>> counts_;  // one more than bounds
  std::atomic<double> sum_ = 0;
};

/// Seconds of a call: 1 ms to a minute, which a long poll lasts.
const std::vector<double>& call_seconds();

/// The media type of Registry::text().
inline constexpr const char* kTextType = "text/plain; version=0.0.4; charset=utf-8";

/// One value of a gauge.
struct Sample {
  Labels labels;
  double value = 0;
};

/// The families of metrics of one process. Thread-safe; what it hands out lives as long as it. A
/// name keeps the type, help and label names of its first use. A family has at most
/// limits::kMetricSeries series; further ones are one, whose labels say "other".
class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  /// The counter of that name (…_total) and labels, made at first use.
  Counter& counter(std::string_view name, std::string_view help, const Labels& labels = {});
  Histogram& histogram(std::string_view name, std::string_view help,
                       const std::vector<double>& bounds, const Labels& labels = {});
  /// `read` is asked by each text(), from its thread. What it throws leaves the family out.
  void gauge(std::string_view name, std::string_view help,
             std::function<std::vector<Sample>()> read);
  /// The same for a value that only grows and is counted elsewhere.
  void counted(std::string_view name, std::string_view help,
               std::function<std::vector<Sample>()> read);

  /// By name; ends with a newline.
  std::string text() const;

 private:
  struct Family;
  template <class Value>
  static Value& series(std::map<Labels, std::unique_ptr<Value>>& all, const Labels& labels,
                       const std::function<std::unique_ptr<Value>()>& make);
  Family& family(std::string_view name, std::string_view help, std::string_view type);
  static void write(std::string& out, const std::string& name, const Family& family);

  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Family>, std::less<>> families_;
};

/// process_cpu_seconds_total, process_resident_memory_bytes, process_open_fds, process_max_fds,
/// process_threads, process_start_time_seconds.
void add_process_metrics(Registry& registry);

}  // namespace necrocode::metrics
