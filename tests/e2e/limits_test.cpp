// Tests that take more than they may: the run ends with 11, says why, and nothing is left.
#include "e2e/run_fixture.hpp"
#include "necrocode/process/cgroups.hpp"
#include "unit/process/process_table.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

class LimitedRun : public Run {
 protected:
  void SetUp() override {
    const process::Cgroups cgroups({::getpid()});
    if (cgroups.version(process::Controller::kMemory) == 0 ||
        cgroups.version(process::Controller::kProcesses) == 0) {
      GTEST_SKIP() << "NO CGROUP CAN BE MADE ON THIS MACHINE";
    }
    make_remote({{"README", "hello\n"}});
  }
  int run_limited(const std::string& config, const std::string& test, Json* result = nullptr) {
    write_file_atomic(path("config.yaml"), config);
    Json limited = task();
    limited.set("test_commands", std::vector<std::string>{test});
    return run_task(limited, {"--no-baseline", "--config", path("config.yaml").string()}, result);
  }
};

const std::string kFillMemory = "python3 -c 'x = b\"x\" * (2 << 30)'";

TEST_F(LimitedRun, TestThatFillsMemoryThenExitCode11AndTheReason) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  Json result;
  EXPECT_EQ(run_limited("max_memory_mb: 256\n", kFillMemory, &result), 11) << stderr_text();
  EXPECT_THAT(result["error"]["reason"].string_or(""),
              HasSubstr("exceeded its memory limit of 256 MiB (cgroup v"));
  EXPECT_EQ(result["error"]["class"], Json("tests"));
  const std::string log = read_file(path("out/run.log"), limits::kMiB);
  EXPECT_THAT(log, HasSubstr("tests run in: bubblewrap; memory 256 MiB (cgroup v"));
  EXPECT_EQ(remote_branches(), "main");
}

// For longer than the time between two looks at it.
TEST_F(LimitedRun, TestThatComesNearItsMemoryLimitThenWarned) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  Json result;
  EXPECT_EQ(
      run_limited("max_memory_mb: 256\n",
                  "python3 -c 'import time; x = b\"x\" * (215 << 20); time.sleep(1)'", &result),
      0)
      << stderr_text();
  EXPECT_THAT(read_file(path("out/run.log"), limits::kMiB),
              HasSubstr("% of its memory limit of 256 MiB"));
}

TEST_F(LimitedRun, ChangeThatFillsMemoryThenTheModelIsToldAndMayRepairIt) {
  serve_model({answer(change({{"check.sh", kFillMemory + "\n"}})),
               answer(change({{"check.sh", "exit 0\n"}}))});
  Json result;
  EXPECT_EQ(run_limited("max_memory_mb: 256\n", "sh check.sh", &result), 0) << stderr_text();
  EXPECT_EQ(result["implementation"]["repairs"], Json(1));
  EXPECT_THAT(read_file(path("out/transcript.jsonl"), limits::kMiB),
              HasSubstr("exceeded its memory limit of 256 MiB"));
}

TEST_F(LimitedRun, ForksWithoutEndThenHeldByTheDefaultAndNothingIsLeft) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  const std::string mark = unique_mark();
  Json result;
  EXPECT_EQ(run_limited("max_repairs: 0\n", "while :; do sleep " + mark + " & done", &result), 11)
      << stderr_text();
  EXPECT_THAT(result["error"]["reason"].string_or(""),
              HasSubstr("reached its limit of 2048 processes (cgroup v"));
  EXPECT_EQ(processes_with(mark), 0);
}

}  // namespace
}  // namespace necrocode::test
