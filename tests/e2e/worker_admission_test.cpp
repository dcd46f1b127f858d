// What a worker takes on: nothing while the machine is short of memory, and not more test commands
// at once than it may run.
#include "e2e/services_fixture.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::test {
namespace {

class WorkerAdmission : public Services {
 protected:
  std::unique_ptr<Program> configured_worker(const std::string& config,
                                             std::vector<std::string> more) {
    write_file_atomic(path("config.yaml"), config);
    more.insert(more.end(), {"--config", path("config.yaml").string(), "--no-baseline"});
    return worker("worker", std::move(more));
  }
};

TEST_F(WorkerAdmission, ShortOfMemoryThenNothingIsClaimedAndItSaysSo) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  submit(task());
  const auto one = configured_worker("min_free_memory_mb: 2000000000\n", {});
  EXPECT_TRUE(eventually([&] {
    return stderr_text().find("short of memory") != std::string::npos;
  })) << stderr_text();
  EXPECT_EQ(state_of("e2e:1"), "ready");
  EXPECT_EQ(registry_->get_task("e2e:1").attempt, 0);
  one->signal(SIGTERM);
  EXPECT_EQ(one->wait(), 0) << stderr_text();
}

TEST_F(WorkerAdmission, TestCommandsOfSeveralRunsTakeTurns) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  for (const char* number : {"1", "2"}) {
    Json slow = task(number);
    slow.set("test_commands", std::vector<std::string>{"sleep 1; grep -q good file.txt"});
    submit(slow);
  }
  const auto one = configured_worker("max_test_commands: 1\n", {"--max-parallel", "2"});
  std::vector<SystemTime> ends;
  while (ends.size() < 2) {
    const auto line = one->read_until("\"type\":\"command\"");
    ASSERT_TRUE(line.has_value()) << stderr_text();
    ends.push_back(parse_rfc3339(Json::parse(*line)["time"].string_or("")).value());
  }
  EXPECT_GE(ends[1] - ends[0], std::chrono::milliseconds{990});
}

}  // namespace
}  // namespace necrocode::test
