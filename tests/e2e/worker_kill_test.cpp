// Workers stopped at random moments, by SIGKILL or SIGTERM, and started again: each task ends once,
// done, and nothing is left: no process, slot, file or note. NECROCODE_CRASH_KILLS and
// NECROCODE_CRASH_SEED as in run_again_test.cpp.
#include <random>
#include <set>

#include "e2e/services_fixture.hpp"

namespace necrocode::test {
namespace {

int from_environment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? static_cast<int>(parse_uint(text).value()) : otherwise;
}

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
  std::unique_ptr<Program> start_worker() {
    return worker("worker", {"--max-parallel", "3", "--lease-seconds", "1", "--config",
                             path("config.yaml").string()});
  }
  static int entries_in(const fs::path& folder) {
    if (!fs::exists(folder)) return 0;
    return static_cast<int>(
        std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
  }
};

TEST_F(WorkerKills, EachTaskEndsOnceAndNothingIsLeft) {
  const int kills = from_environment("NECROCODE_CRASH_KILLS", 8);
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
    EXPECT_EQ(stopped->wait(), hard ? 128 + SIGKILL : 0) << stderr_text();
    EXPECT_TRUE(eventually([&] { return processes_with(mark) == 0; }));
  }
  const auto last = start_worker();
  EXPECT_TRUE(eventually([&] { return done(count) == count; }, std::chrono::seconds{120}));
  // What killed runs left is delivered, and goes.
  EXPECT_TRUE(eventually(
      [&] { return entries_in(path("worker/runs")) == 0 && entries_in(path("worker/owed")) == 0; },
      std::chrono::seconds{60}));
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
