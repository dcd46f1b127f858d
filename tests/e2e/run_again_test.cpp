// Runs that were killed, or ended by a signal, and started again: each task ends once, nothing of
// the user's is lost, nothing is left. NECROCODE_CRASH_KILLS and NECROCODE_CRASH_SEED say how often
// the random ones are stopped, and with which numbers.
#include <random>

#include "e2e/run_fixture.hpp"
#include "support/environment.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

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

  std::string head_of_clone() { return git({"-C", clone(), "rev-parse", "HEAD"}); }

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

TEST_F(RunAgain, FolderForItsNotesThatIsALinkThenRefused) {
  fs::create_directories(path("outside"));
  fs::create_directory_symlink(path("outside"), path("clone/.git/necrocode"));
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(start_run(slot_task())->wait(), 10);
  EXPECT_TRUE(fs::is_empty(path("outside")));
  EXPECT_TRUE(fs::is_symlink(path("clone/.git/necrocode")));
}

TEST_F(RunAgain, LoanBehindALinkIsNotBelieved) {
  fs::create_directories(path("outside"));
  write_file_atomic(path("outside/loan"), "{\"head_commit\":\"" + head_of_clone() +
                                              "\",\"head\":\"ref: refs/heads/main\"," +
                                              "\"branch\":\"x\"}");
  write_file_atomic(path("clone/draft.txt"), "mine\n");
  fs::create_directory_symlink(path("outside"), path("clone/.git/necrocode"));
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(start_run(slot_task())->wait(), 10);
  EXPECT_TRUE(fs::exists(path("outside/loan")));
  EXPECT_EQ(read_file(path("clone/draft.txt"), 100), "mine\n");
}

// As of a container whose work tree is a volume, named with a slash at its end.
TEST_F(RunAgain, LinkedWorkTreeOnAnotherFileSystemIsPutRightToo) {
  if (fs::space("/dev/shm").available == 0) GTEST_SKIP() << "there is no /dev/shm";
  const TemporaryDirectory elsewhere("necrocode-e2e-", "/dev/shm");
  const fs::path tree = elsewhere.path() / "tree";
  git({"-C", clone(), "worktree", "add", "--quiet", "-b", "side", tree.string()});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  Json linked = slot_task();
  linked.set("slot_path", tree.string() + "/");
  linked.set("test_commands", std::vector<std::string>{"touch made.txt; sleep 1000"});
  const auto program = start_run(linked, {"--no-baseline"});
  EXPECT_TRUE(eventually([&] { return fs::exists(tree / "made.txt"); }));
  program->signal(SIGKILL);
  program->wait();
  linked.set("test_commands", std::vector<std::string>{"grep -q good file.txt"});
  std::string output;
  EXPECT_EQ(start_run(linked)->wait(&output), 0) << output << stderr_text();
  EXPECT_EQ(git({"-C", tree.string(), "status", "--porcelain"}), "");
  git({"-C", clone(), "worktree", "remove", "--force", tree.string()});
}

TEST_F(RunAgain, BranchThatItsUserHasMovedSinceIsLeftAlone) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  kill_while_testing(slot_task());
  git({"-C", clone(), "stash", "--quiet", "--include-untracked"});
  git({"-C", clone(), "branch", kBranch, "stash@{0}"});
  Json other = slot_task();
  other.set("task_id", "e2e:2");
  EXPECT_EQ(start_run(other)->wait(), 0) << stderr_text();
  EXPECT_EQ(git({"-C", clone(), "rev-parse", kBranch}),
            git({"-C", clone(), "rev-parse", "stash@{0}"}));
}

// Stopped at random moments, by SIGKILL or SIGTERM, until one run gets through.
class RunStoppedAtRandom : public RunAgain, public testing::WithParamInterface<bool> {
 protected:
  bool in_clone() const { return GetParam(); }
};

TEST_P(RunStoppedAtRandom, EndsOnceAndLeavesNothing) {
  const int kills = static_cast<int>(from_environment("NECROCODE_CRASH_KILLS", 12));
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
  std::chrono::steady_clock::duration slowest{0};
  for (int i = 0; i < kills; ++i) {
    whole.set("task_id", "e2e:" + std::to_string(1 + done));
    const auto program = start_run(whole);
    std::string output = program->read_for(std::chrono::milliseconds(random() % 450));
    const bool hard = random() % 3 != 0;
    program->signal(hard ? SIGKILL : SIGTERM);
    const auto told = std::chrono::steady_clock::now();
    const int code = program->wait(&output);
    EXPECT_TRUE(code == 0 || code == 128 + SIGKILL || code == 5 || code == 128 + SIGTERM)
        << code << output << stderr_text();
    slowest = std::max(slowest, std::chrono::steady_clock::now() - told);
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
  EXPECT_LT(slowest, std::chrono::seconds{10});  // a second on a machine that does nothing else
  RecordProperty("slowest_end_ms", static_cast<int>(slowest / std::chrono::milliseconds(1)));
  RecordProperty("stops", kills);
  RecordProperty("done_before_the_stop", done);
  RecordProperty("milliseconds", static_cast<int>((std::chrono::steady_clock::now() - started) /
                                                  std::chrono::milliseconds(1)));
}

INSTANTIATE_TEST_SUITE_P(Places, RunStoppedAtRandom, testing::Values(true, false),
                         [](const auto& place) {
                           return place.param ? "InAClone" : "InAWorkspaceOfItsOwn";
                         });

}  // namespace
}  // namespace necrocode::test
