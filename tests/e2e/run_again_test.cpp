// Runs that were killed, or ended by a signal, and started again: each task ends once, nothing of
// the user's is lost, nothing is left. NECROCODE_CRASH_KILLS and NECROCODE_CRASH_SEED say how often
// the random ones are stopped, and with which numbers.
#include <random>

#include "e2e/run_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

int from_environment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? static_cast<int>(parse_uint(text).value()) : otherwise;
}

class RunAgain : public RunInAClone {
 protected:
  /// Starts the run and kills it once its tests are under way.
  void kill_while_testing(Json task) {
    task.set("test_commands", std::vector<std::string>{"echo half >> README; echo made > made.txt; "
                                                       "sleep 1000"});
    const auto program = start_run(task, {"--no-baseline"});
    ASSERT_TRUE(program->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
    EXPECT_TRUE(eventually([&] { return fs::exists(path("clone/made.txt")); }));
    program->signal(SIGKILL);
    program->wait();
  }

  std::unique_ptr<Program> start_run(const Json& task, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {
        "run",   write_task(task),     "--json",         "--data",  path("data").string(),
        "--out", path("out").string(), "--llm-endpoint", endpoint()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return start(arguments);
  }

  /// The files of killed runs, wherever they were moved to.
  std::vector<fs::path> set_aside(const std::string& name) {
    std::vector<fs::path> found;
    const fs::path folder = path("clone/.git/necrocode");
    if (!fs::exists(folder)) return found;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.path().filename() == name) found.push_back(entry.path());
    }
    return found;
  }

  void expect_one_commit(const std::string& branch) {
    EXPECT_EQ(git({"-C", remote(), "rev-list", "--count", "main.." + branch}), "1");
    EXPECT_EQ(git({"-C", remote(), "show", branch + ":file.txt"}), "good");
  }

  void expect_clone_on(const std::string& branch) {
    EXPECT_EQ(git({"-C", clone(), "rev-parse", "--abbrev-ref", "HEAD"}), branch);
    EXPECT_EQ(git({"-C", clone(), "status", "--porcelain"}), "");
    EXPECT_EQ(git({"-C", clone(), "rev-parse", "HEAD"}),
              git({"-C", remote(), "rev-parse", branch}));
    EXPECT_FALSE(fs::exists(path("clone/.git/necrocode/loan")));
  }
};

constexpr const char* kBranch = "feature/task-e2e-1-write-the-file";

TEST_F(RunAgain, KilledInACloneThenTheNextRunPutsItRightAndLosesNothing) {
  write_file_atomic(path("clone/.env"), "mine\n");
  serve_model({answer(change({{"file.txt", "good\n"}, {"src/new.txt", "new\n"}}), 0)});
  kill_while_testing(slot_task());
  EXPECT_TRUE(fs::exists(path("clone/file.txt")));
  write_file_atomic(path("clone/since.txt"), "written after the kill\n");

  std::string output;
  EXPECT_EQ(start_run(slot_task())->wait(&output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("an earlier run was killed in slot_path"));
  expect_one_commit(kBranch);
  expect_clone_on(kBranch);
  EXPECT_EQ(read_file(path("clone/.env"), 100), "mine\n");
  EXPECT_EQ(read_file(path("clone/README"), 100), "hello\n");
  // Whoever wrote them: moved, not removed.
  ASSERT_EQ(set_aside("README").size(), 1U);
  EXPECT_EQ(read_file(set_aside("README").front(), 100), "hello\nhalf\n");
  EXPECT_EQ(set_aside("made.txt").size(), 1U);
  EXPECT_EQ(set_aside("since.txt").size(), 1U);
}

TEST_F(RunAgain, CloneThatItsUserTookUpAgainIsLeftAlone) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  kill_while_testing(slot_task());
  git({"-C", clone(), "add", "-A"});
  git({"-C", clone(), "commit", "--quiet", "-m", "kept by its user"});
  const std::string theirs = git({"-C", clone(), "rev-parse", "HEAD"});
  EXPECT_EQ(start_run(slot_task())->wait(), 0) << stderr_text();
  EXPECT_TRUE(set_aside("made.txt").empty());
  EXPECT_EQ(git({"-C", clone(), "rev-parse", "main"}), theirs);
}

TEST_F(RunAgain, LinkThatAKilledTestPlantedLeadsNowhere) {
  fs::create_directories(path("outside"));
  write_file_atomic(path("outside/README"), "not ours\n");
  fs::create_directories(path("clone/docs"));
  write_file_atomic(path("clone/docs/README"), "docs\n");
  git({"-C", clone(), "add", "-A"});
  git({"-C", clone(), "commit", "--quiet", "-m", "docs"});
  git({"-C", clone(), "push", "--quiet", "origin", "HEAD:main"});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  kill_while_testing(slot_task());
  fs::remove_all(path("clone/docs"));
  fs::create_directory_symlink(path("outside"), path("clone/docs"));
  EXPECT_EQ(start_run(slot_task())->wait(), 0) << stderr_text();
  EXPECT_EQ(read_file(path("outside/README"), 100), "not ours\n");
  EXPECT_EQ(read_file(path("clone/docs/README"), 100), "docs\n");
}

// Stopped at random moments, by SIGKILL or SIGTERM, until one run gets through.
class RunStoppedAtRandom : public RunAgain, public testing::WithParamInterface<bool> {
 protected:
  bool in_clone() const { return GetParam(); }
};

TEST_P(RunStoppedAtRandom, EndsOnceAndLeavesNothing) {
  const int kills = from_environment("NECROCODE_CRASH_KILLS", 12);
  std::mt19937 random(static_cast<unsigned>(from_environment("NECROCODE_CRASH_SEED", 1)));
  const std::string mark = "86400." + std::to_string(::getpid());
  write_file_atomic(path("clone/.env"), "mine\n");
  serve_model({answer(change({{"file.txt", "good\n"}, {"src/new.txt", "new\n"}}), 0)});
  const auto started = std::chrono::steady_clock::now();
  Json whole = in_clone() ? slot_task() : task();
  whole.set("test_commands", std::vector<std::string>{"echo junk > junk.txt; echo >> README; "
                                                      "(sleep " +
                                                      mark +
                                                      " &); sleep 0.05; "
                                                      "grep -q good file.txt"});
  int done = 0;
  for (int i = 0; i < kills; ++i) {
    whole.set("task_id", "e2e:" + std::to_string(1 + done));
    const auto program = start_run(whole);
    std::string output = program->read_for(std::chrono::milliseconds(random() % 450));
    const bool hard = random() % 3 != 0;
    program->signal(hard ? SIGKILL : SIGTERM);
    const int code = program->wait(&output);
    EXPECT_TRUE(code == 0 || code == 128 + SIGKILL || code == 5 || code == 128 + SIGTERM)
        << code << output << stderr_text();
    if (code == 0) ++done;
    EXPECT_TRUE(eventually([&] { return processes_with(mark) == 0; }));
    EXPECT_EQ(read_file(path("clone/.env"), 100), "mine\n");
  }
  whole.set("task_id", "e2e:" + std::to_string(1 + done));
  std::string last;
  EXPECT_EQ(start_run(whole)->wait(&last), 0) << last << stderr_text();
  for (int number = 1; number <= 1 + done; ++number) {
    const std::string branch = "feature/task-e2e-" + std::to_string(number) + "-write-the-file";
    expect_one_commit(branch);
    if (in_clone() && number == 1 + done) expect_clone_on(branch);
  }
  EXPECT_EQ(git({"-C", remote(), "branch", "--list", "feature/*"}).empty(), false);
  for (const auto& entry : fs::directory_iterator(path("out"))) {
    EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path();
  }
  EXPECT_EQ(processes_with(folder_.path().string()), 0);
  RecordProperty("stops", kills);
  RecordProperty("done_before_the_stop", done);
  RecordProperty("milliseconds", static_cast<int>((std::chrono::steady_clock::now() - started) /
                                                  std::chrono::milliseconds(1)));
}

INSTANTIATE_TEST_SUITE_P(Places, RunStoppedAtRandom, testing::Values(true, false),
                         [](const auto& place) {
                           return place.param ? "InAClone" : "InAWorkspaceOfItsOwn";
                         });

// The base, or the branch, moves while the tests run: they push what is in `elsewhere`, once.
class RunOnAMovingRemote : public Run {
 protected:
  void SetUp() override {
    make_remote({{"README", "hello\n"}});
    git({"clone", "--quiet", remote(), path("elsewhere").string()});
  }
  void commit_elsewhere(const std::string& file, const std::string& content,
                        const std::string& message = "meanwhile") {
    write_file_atomic(path("elsewhere/" + file), content);
    git({"-C", path("elsewhere").string(), "add", "-A"});
    git({"-C", path("elsewhere").string(), "commit", "--quiet", "-m", message});
  }
  /// The tests of a run without a sandbox push elsewhere's HEAD there, then do `then`.
  int run_while_it_moves(const std::string& ref, const std::string& then, std::string* output) {
    Json moving = task();
    const std::string once = path("moved").string();
    moving.set("test_commands", std::vector<std::string>{
                                    "test -e " + once + " || { touch " + once +
                                    "; git -c safe.directory='*' -C " + path("elsewhere").string() +
                                    " push --quiet origin HEAD:" + ref + "; } && " + then});
    return run({"run", write_task(moving), "--json", "--no-baseline", "--unsandboxed", "--data",
                path("data").string(), "--out", path("out").string(), "--llm-endpoint", endpoint()},
               output);
  }
  std::string at_remote(const std::string& revision) {
    return git({"-C", remote(), "rev-parse", revision});
  }
};

TEST_F(RunOnAMovingRemote, BaseMovesThenTheChangeFollowsAndIsProvedThere) {
  commit_elsewhere("other.txt", "theirs\n");
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  std::string output;
  EXPECT_EQ(run_while_it_moves("main", "grep -q good file.txt", &output), 0) << stderr_text();
  EXPECT_EQ(at_remote(std::string(kBranch) + "^"), at_remote("main"));
  EXPECT_EQ(git({"-C", remote(), "show", std::string(kBranch) + ":other.txt"}), "theirs");
  EXPECT_THAT(git({"-C", remote(), "log", "-1", "--format=%B", kBranch}),
              HasSubstr("Necrocode-Task: e2e:1"));
  const Json result = Json::parse(read_file(path("out/result.json"), limits::kMiB));
  EXPECT_EQ(result["push"]["commit"], Json(at_remote(kBranch)));
  EXPECT_EQ(result["implementation"]["files"].size(), 1U);
}

TEST_F(RunOnAMovingRemote, BaseMovesInTheWayThenTheProvedWorkStays) {
  const std::string before = at_remote("main");
  commit_elsewhere("file.txt", "other\n");
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  std::string output;
  EXPECT_EQ(run_while_it_moves("main", "grep -q good file.txt", &output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("it conflicts in file.txt"));
  EXPECT_EQ(at_remote(std::string(kBranch) + "^"), before);
}

TEST_F(RunOnAMovingRemote, TestsFailOnTheNewBaseThenTheProvedWorkStays) {
  const std::string before = at_remote("main");
  commit_elsewhere("broken", "yes\n");
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  std::string output;
  EXPECT_EQ(run_while_it_moves("main", "test ! -e broken", &output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("the tests do not pass there"));
  EXPECT_EQ(at_remote(std::string(kBranch) + "^"), before);
  const Json result = Json::parse(read_file(path("out/result.json"), limits::kMiB));
  EXPECT_EQ(result["push"]["commit"], Json(at_remote(kBranch)));
  EXPECT_EQ(result["tests"]["passed"], Json(true));
}

TEST_F(RunOnAMovingRemote, BranchOfAnotherRunOfTheTaskIsReplaced) {
  commit_elsewhere("file.txt", "another attempt\n", "feat: x\n\nNecrocode-Task: e2e:1");
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  std::string output;
  EXPECT_EQ(
      run_while_it_moves(std::string("refs/heads/") + kBranch, "grep -q good file.txt", &output), 0)
      << stderr_text();
  EXPECT_EQ(git({"-C", remote(), "show", std::string(kBranch) + ":file.txt"}), "good");
}

TEST_F(RunOnAMovingRemote, ForeignBranchThatComesMeanwhileIsKept) {
  commit_elsewhere("file.txt", "somebody's\n");
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  std::string output;
  EXPECT_EQ(
      run_while_it_moves(std::string("refs/heads/") + kBranch, "grep -q good file.txt", &output),
      10)
      << stderr_text();
  EXPECT_EQ(git({"-C", remote(), "show", std::string(kBranch) + ":file.txt"}), "somebody's");
}

}  // namespace
}  // namespace necrocode::test
