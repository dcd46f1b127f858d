// Workers stopped at random moments, by SIGKILL or SIGTERM, and started again: each task ends once,
// done, and nothing is left: no process, slot, file or note. NECROCODE_CRASH_KILLS and
// NECROCODE_CRASH_SEED as in run_again_test.cpp.
#include <random>
#include <set>

#include "e2e/services_fixture.hpp"
#include "support/environment.hpp"

namespace necrocode::test {
namespace {

class WorkerKills : public Services {
 protected:
  void submit_all(int count, const std::string& test_command) {
    Json tasks = Json::array();
    for (int i = 1; i <= count; ++i) {
      Json one = task(std::to_string(i));
      one.erase("task_id");
      one.set("id", std::to_string(i));
      one.set("test_commands", std::vector<std::string>{test_command});
      one.set("max_attempts", 100);
      tasks.push_back(std::move(one));
    }
    registry_->submit(Json::object({{"spec_name", "e2e"}, {"tasks", std::move(tasks)}}));
  }
  int done(int count) {
    int done = 0;
    for (int i = 1; i <= count; ++i) done += state_of("e2e:" + std::to_string(i)) == "done" ? 1 : 0;
    return done;
  }
  std::unique_ptr<Program> start_worker(const std::vector<std::string>& more = {}) {
    std::vector<std::string> options = {
        "--max-parallel", "3", "--lease-seconds", "1", "--config", path("config.yaml").string()};
    options.insert(options.end(), more.begin(), more.end());
    return worker("worker", options);
  }
  /// Waits until it holds, and takes what the worker prints meanwhile: nobody's full pipe holds it
  /// up.
  template <class Condition>
  static bool reading(Program& worker, Condition condition) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    while (!condition()) {
      if (std::chrono::steady_clock::now() >= until) return false;
      worker.read_for(std::chrono::milliseconds{20});
    }
    return true;
  }
  /// What lies in the worker's folders of runs and of what they owe.
  std::string left_over() {
    std::string paths;
    for (const char* folder : {"worker/runs", "worker/owed"}) {
      if (!fs::exists(path(folder))) continue;
      for (const auto& entry : fs::recursive_directory_iterator(path(folder))) {
        paths += entry.path().string() + "\n";
      }
    }
    return paths;
  }
};

TEST_F(WorkerKills, EachTaskEndsOnceAndNothingIsLeft) {
  const int kills = static_cast<int>(from_environment("NECROCODE_CRASH_KILLS", 8));
  const int count = 3 + kills;
  std::mt19937 random(static_cast<unsigned>(from_environment("NECROCODE_CRASH_SEED", 1)));
  const std::string mark = "77400." + std::to_string(::getpid());
  write_file_atomic(path("config.yaml"), "drain_seconds: 0\n");
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  submit_all(count, "(sleep " + mark + " &); sleep 0.1; grep -q good file.txt");

  for (int i = 0; i < kills; ++i) {
    const auto stopped = start_worker();
    stopped->read_for(std::chrono::milliseconds(100 + random() % 900));
    const bool hard = random() % 3 != 0;
    stopped->signal(hard ? SIGKILL : SIGTERM);
    const int code = stopped->wait();
    // The last: before it had begun to listen to signals.
    EXPECT_TRUE(code == (hard ? 128 + SIGKILL : 0) || (!hard && code == 128 + SIGTERM))
        << code << stderr_text();
    EXPECT_TRUE(eventually([&] { return processes_with(mark) == 0; }));
  }
  const auto last = start_worker({"--health-listen", "127.0.0.1:0"});
  ASSERT_TRUE(last->read_until("listening").has_value()) << stderr_text();
  EXPECT_TRUE(reading(*last, [&] { return done(count) == count; })) << stderr_text();
  // What killed runs left is delivered, and goes.
  EXPECT_TRUE(reading(*last, [&] { return left_over().empty(); })) << left_over() << stderr_text();
  last->signal(SIGTERM);
  EXPECT_EQ(last->wait(), 0) << stderr_text();

  int attempts = 0;
  for (int i = 1; i <= count; ++i) {
    const std::string id = "e2e:" + std::to_string(i);
    const std::string branch = "feature/task-e2e-" + std::to_string(i) + "-write-the-file";
    EXPECT_EQ(git({"-C", remote(), "rev-list", "--count", "main.." + branch}), "1") << id;
    const registry::Task task = registry_->get_task(id);
    EXPECT_EQ(task.metadata["commit"], Json(git({"-C", remote(), "rev-parse", branch}))) << id;
    std::set<std::string> types;
    for (const registry::ArtifactRef& artifact : task.artifacts) types.insert(artifact.type);
    EXPECT_TRUE(types.contains("log") && types.contains("diff")) << id;
    attempts += task.attempt;
  }
  EXPECT_TRUE(eventually([&] { return leased_slots() == 0; }));
  EXPECT_EQ(processes_with(mark), 0);
  RecordProperty("stops", kills);
  RecordProperty("tasks", count);
  RecordProperty("attempts", attempts);
}

}  // namespace
}  // namespace necrocode::test
