#include "necrocode/observe/metrics.hpp"

#include <gmock/gmock.h>

#include <stdexcept>
#include <thread>

#include "necrocode/base/limits.hpp"

namespace necrocode::metrics {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Metrics, TextHasHelpTypeAndSeriesByName) {
  Registry registry;
  registry.counter("b_total", "Bs.", {{"kind", "x"}}).add(2);
  registry.counter("b_total", "Bs.", {{"kind", "y"}}).add();
  registry.counter("b_total", "Bs.", {{"kind", "x"}}).add();
  registry.gauge("a", "As.", [] { return std::vector<Sample>{{{}, 1.5}}; });
  EXPECT_EQ(registry.text(),
            "# HELP a As.\n# TYPE a gauge\na 1.5\n"
            "# HELP b_total Bs.\n# TYPE b_total counter\n"
            "b_total{kind=\"x\"} 3\nb_total{kind=\"y\"} 1\n");
}

TEST(Metrics, HistogramCountsUpToEachBound) {
  Registry registry;
  Histogram& histogram = registry.histogram("h", "H.", {0.1, 1}, {{"r", "/x"}});
  for (const double value : {0.05, 0.1, 0.5, 7.0}) histogram.observe(value);
  EXPECT_EQ(registry.text(),
            "# HELP h H.\n# TYPE h histogram\n"
            "h_bucket{r=\"/x\",le=\"0.1\"} 2\nh_bucket{r=\"/x\",le=\"1\"} 3\n"
            "h_bucket{r=\"/x\",le=\"+Inf\"} 4\nh_sum{r=\"/x\"} 7.65\nh_count{r=\"/x\"} 4\n");
}

TEST(Metrics, LabelsAreEscaped) {
  Registry registry;
  registry.counter("c_total", "A \\ and\na line.", {{"v", "say \"hi\"\n\\"}}).add();
  EXPECT_EQ(registry.text(),
            "# HELP c_total A \\\\ and\\na line.\n# TYPE c_total counter\n"
            "c_total{v=\"say \\\"hi\\\"\\n\\\\\"} 1\n");
}

TEST(Metrics, SeriesBeyondTheLimitAreOne) {
  Registry registry;
  for (std::size_t i = 0; i < limits::kMetricSeries + 500; ++i) {
    registry.counter("c_total", "C.", {{"v", std::to_string(i)}}).add();
  }
  EXPECT_EQ(registry.counter("c_total", "C.", {{"v", "one more"}}).value(), 500U);
  EXPECT_THAT(registry.text(), HasSubstr("c_total{v=\"other\"} 500\n"));
}

TEST(Metrics, GaugeThatFailsLeavesTheOthers) {
  Registry registry;
  registry.gauge("bad", "Bad.", []() -> std::vector<Sample> { throw std::runtime_error("gone"); });
  registry.gauge("good", "Good.", [] { return std::vector<Sample>{{{}, 1}}; });
  EXPECT_THAT(registry.text(), Not(HasSubstr("bad")));
  EXPECT_THAT(registry.text(), HasSubstr("good 1\n"));
}

TEST(Metrics, CountsOfManyThreadsAreAllThere) {
  Registry registry;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10'000; ++n) {
        registry.counter("c_total", "C.").add();
        registry.histogram("h", "H.", {1}).observe(0.5);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(registry.counter("c_total", "C.").value(), 40'000U);
  EXPECT_DOUBLE_EQ(registry.histogram("h", "H.", {1}).sum(), 20'000);
}

TEST(Metrics, ProcessMetricsHaveTheirStandardNames) {
  Registry registry;
  add_process_metrics(registry);
  const std::string text = registry.text();
  for (const char* name :
       {"process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds ",
        "process_max_fds ", "process_threads ", "process_start_time_seconds "}) {
    EXPECT_THAT(text, HasSubstr(std::string("\n") + name)) << text;
  }
}

}  // namespace
}  // namespace necrocode::metrics
