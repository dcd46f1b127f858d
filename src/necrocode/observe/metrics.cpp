#include "necrocode/observe/metrics.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "necrocode/base/check.hpp"
#include "necrocode/base/clock.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::metrics {
namespace {

constexpr const char* kOther = "other";

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  // The shortest that reads back as the same.
  for (int digits = 6; digits < 17; ++digits) {
    char shorter[40];
    std::snprintf(shorter, sizeof shorter, "%.*g", digits, value);
    if (std::strtod(shorter, nullptr) == value) return shorter;
  }
  return text;
}

std::string escaped(std::string_view text, bool quotes) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quotes) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
  return out;
}

void write_sample(std::string& out, std::string_view name, const Labels& labels, double value,
                  const std::pair<std::string, std::string>* more = nullptr) {
  out += name;
  std::string list;
  const auto add = [&](const auto& label) {
    list += (list.empty() ? "" : ",") + label.first + "=\"" + escaped(label.second, true) + '"';
  };
  for (const auto& label : labels) add(label);
  if (more) add(*more);
  if (!list.empty()) out += '{' + list + '}';
  out += ' ' + number(value) + '\n';
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

/// Of /proc/self/statm, whose second number is resident pages.
double resident_bytes() {
  const std::string text = read_file("/proc/self/statm", limits::kKiB);
  const auto fields = split(text, ' ');
  const auto pages = fields.size() > 1 ? parse_uint(fields[1]) : std::nullopt;
  return static_cast<double>(pages.value_or(0)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

double entries_of(const char* folder) {
  const std::filesystem::directory_iterator entries(folder);
  return static_cast<double>(std::distance(begin(entries), end(entries)));
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {
  NECROCODE_CHECK(std::is_sorted(bounds_.begin(), bounds_.end()));
}

void Histogram::observe(double value) {
  const auto place = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  counts_[static_cast<std::size_t>(place - bounds_.begin())].fetch_add(1);
  sum_.fetch_add(value);
}

const std::vector<double>& call_seconds() {
  static const std::vector<double> kBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                              0.5,   1,      2.5,   5,    10,    30,   60};
  return kBounds;
}

struct Registry::Family {
  std::string help;
  std::string type;
  std::map<Labels, std::unique_ptr<Counter>> counters;
  std::map<Labels, std::unique_ptr<Histogram>> histograms;
  std::function<std::vector<Sample>()> read;
};

Registry::Registry() = default;
Registry::~Registry() = default;

Registry::Family& Registry::family(std::string_view name, std::string_view help,
                                   std::string_view type) {
  auto& family = families_[std::string(name)];
  if (!family) {
    family = std::make_unique<Family>();
    family->help = help;
    family->type = type;
  }
  NECROCODE_CHECK(family->type == type);
  return *family;
}

template <class Value>
Value& Registry::series(std::map<Labels, std::unique_ptr<Value>>& all, const Labels& labels,
                        const std::function<std::unique_ptr<Value>()>& make) {
  if (const auto found = all.find(labels); found != all.end()) return *found->second;
  Labels kept = labels;
  if (all.size() >= limits::kMetricSeries) {
    for (auto& [name, value] : kept) value = kOther;
  }
  auto& one = all[kept];
  if (!one) one = make();
  return *one;
}

Counter& Registry::counter(std::string_view name, std::string_view help, const Labels& labels) {
  const std::lock_guard lock(mutex_);
  Family& one = family(name, help, "counter");
  return series<Counter>(one.counters, labels, [] { return std::make_unique<Counter>(); });
}

Histogram& Registry::histogram(std::string_view name, std::string_view help,
                               const std::vector<double>& bounds, const Labels& labels) {
  const std::lock_guard lock(mutex_);
  Family& one = family(name, help, "histogram");
  return series<Histogram>(one.histograms, labels,
                           [&] { return std::make_unique<Histogram>(bounds); });
}

void Registry::gauge(std::string_view name, std::string_view help,
                     std::function<std::vector<Sample>()> read) {
  const std::lock_guard lock(mutex_);
  family(name, help, "gauge").read = std::move(read);
}

void Registry::counted(std::string_view name, std::string_view help,
                       std::function<std::vector<Sample>()> read) {
  const std::lock_guard lock(mutex_);
  family(name, help, "counter").read = std::move(read);
}

std::string Registry::text() const {
  // Functions are asked without the lock: they may count themselves.
  std::vector<std::pair<std::string, Family*>> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, family] : families_) all.emplace_back(name, family.get());
  }
  std::string out;
  for (const auto& [name, family] : all) {
    std::string lines;
    try {
      if (family->read) {
        for (const Sample& sample : family->read())
          write_sample(lines, name, sample.labels, sample.value);
      }
    } catch (const std::exception& error) {
      log::warn("a metric cannot be read", {{"metric", name}, {"error", error.what()}});
    }
    const std::lock_guard lock(mutex_);
    write(lines, name, *family);
    if (lines.empty()) continue;
    out += "# HELP " + name + ' ' + escaped(family->help, false) + '\n';
    out += "# TYPE " + name + ' ' + family->type + '\n' + lines;
  }
  return out;
}

void Registry::write(std::string& out, const std::string& name, const Family& family) {
  for (const auto& [labels, counter] : family.counters) {
    write_sample(out, name, labels, static_cast<double>(counter->value()));
  }
  for (const auto& [labels, histogram] : family.histograms) {
    std::uint64_t count = 0;
    for (std::size_t i = 0; i <= histogram->bounds().size(); ++i) {
      count += histogram->count(i);
      const bool last = i == histogram->bounds().size();
      const std::pair<std::string, std::string> bound = {
          "le", last ? "+Inf" : number(histogram->bounds()[i])};
      write_sample(out, name + "_bucket", labels, static_cast<double>(count), &bound);
    }
    write_sample(out, name + "_sum", labels, histogram->sum());
    write_sample(out, name + "_count", labels, static_cast<double>(count));
  }
}

void add_process_metrics(Registry& registry) {
  const auto one = [](double (*read)()) {
    return [read] { return std::vector<Sample>{{{}, read()}}; };
  };
  registry.counted("process_cpu_seconds_total", "User and system time.", one([] {
                     rusage usage{};
                     ::getrusage(RUSAGE_SELF, &usage);
                     return seconds(usage.ru_utime) + seconds(usage.ru_stime);
                   }));
  registry.gauge("process_resident_memory_bytes", "Resident memory.", one(&resident_bytes));
  registry.gauge("process_open_fds", "Open descriptors.",
                 one([] { return entries_of("/proc/self/fd"); }));
  registry.gauge("process_max_fds", "Soft limit of descriptors.", one([] {
                   rlimit limit{};
                   ::getrlimit(RLIMIT_NOFILE, &limit);
                   return static_cast<double>(limit.rlim_cur);
                 }));
  registry.gauge("process_threads", "Threads.", one([] { return entries_of("/proc/self/task"); }));
  const double now =
      std::chrono::duration<double>(real_clock().system_now().time_since_epoch()).count();
  registry.gauge("process_start_time_seconds", "When it began to serve, Unix time.",
                 [now] { return std::vector<Sample>{{{}, now}}; });
}

}  // namespace necrocode::metrics
