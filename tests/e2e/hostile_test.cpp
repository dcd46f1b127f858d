// Repositories, models and readers that do what they should not, and clones in the middle of
// something: the run's word stays true, and nothing of the user's is lost.
#include "e2e/run_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

class HostileRun : public Run {
 protected:
  void SetUp() override { make_remote({{"README", "hello\n"}}); }
  Json task_with(const std::vector<std::string>& commands) const {
    Json one = task();
    one.set("test_commands", commands);
    return one;
  }
};

class LentClone : public RunInAClone {
 protected:
  std::string reason_of(const Json& task, int expected_code) {
    Json result;
    EXPECT_EQ(run_task(task, {}, &result), expected_code) << stderr_text();
    return result["error"]["reason"].string_or("");
  }
};

TEST_F(LentClone, SecondRunInItThenRefusedUntouched) {
  Json waiting = slot_task();
  waiting.set("test_commands", std::vector<std::string>{"sleep 1000"});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  auto first =
      start({"run", write_task(waiting), "--json", "--no-baseline", "--out", path("first").string(),
             "--data", path("data").string(), "--llm-endpoint", endpoint()});
  ASSERT_TRUE(first->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
  EXPECT_THAT(reason_of(slot_task(), 10), HasSubstr("another run"));
  EXPECT_TRUE(fs::exists(path("clone/file.txt")));  // still the first one's
  first->signal(SIGTERM);
  EXPECT_EQ(first->wait(), 5);
  EXPECT_EQ(run_task(slot_task()), 0) << stderr_text();
}

TEST_F(LentClone, RebaseUnderWayThenRefusedAndItCanGoOn) {
  for (const char* name : {"one", "two"}) {
    write_file_atomic(path("clone/" + std::string(name)), "mine\n");
    git({"-C", clone(), "add", "-A"});
    git({"-C", clone(), "commit", "--quiet", "-m", name});
  }
  git({"-C", clone(), "-c", "sequence.editor=sed -i 1s/pick/edit/", "rebase", "--quiet", "-i",
       "HEAD~2"});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_THAT(reason_of(slot_task(), 10), HasSubstr("in the middle of a rebase"));
  git({"-C", clone(), "-c", "core.editor=true", "rebase", "--continue"});
  EXPECT_EQ(git({"-C", clone(), "log", "--format=%s", "-3"}), "two\none\nstart");
}

TEST_F(LentClone, CommitOnNoBranchThenTheReflogLeadsBackToIt) {
  git({"-C", clone(), "checkout", "--quiet", "--detach"});
  write_file_atomic(path("clone/mine.txt"), "mine\n");
  git({"-C", clone(), "add", "-A"});
  git({"-C", clone(), "commit", "--quiet", "-m", "mine"});
  const std::string mine = git({"-C", clone(), "rev-parse", "HEAD"});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task()), 0) << stderr_text();
  EXPECT_EQ(git({"-C", clone(), "rev-parse", "HEAD@{1}"}), mine);
  git({"-C", clone(), "checkout", "--quiet", "-"});
  EXPECT_EQ(git({"-C", clone(), "rev-parse", "HEAD"}), mine);
}

TEST_F(LentClone, TestThatMovesARepositoryOfTheUsersAwayThenItIsStillThere) {
  git({"init", "--quiet", path("clone/nest").string()});
  write_file_atomic(path("clone/nest/draft.txt"), "mine\n");
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  Json hostile = slot_task();
  hostile.set("test_commands", std::vector<std::string>{"mv nest n2; grep -q good file.txt"});
  EXPECT_EQ(run_task(hostile), 0) << stderr_text();
  EXPECT_TRUE(fs::exists(path("clone/nest/.git/HEAD")));
  EXPECT_EQ(read_file(path("clone/nest/draft.txt"), 100), "mine\n");
}

TEST_F(LentClone, LinkedWorkTreeOrShallowThenTestsSeeTheHistory) {
  git({"-C", clone(), "worktree", "add", "--quiet", "-b", "side", path("linked").string()});
  git({"clone", "--quiet", "--depth", "1", "file://" + remote(), path("shallow").string()});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  for (const char* name : {"linked", "shallow"}) {
    Json in_it = slot_task();
    in_it.set("slot_path", path(name).string())
        .set("branch_name", std::string("branch-") + name)
        .set("test_commands", std::vector<std::string>{"git log -1 --format=%s | grep start"});
    EXPECT_EQ(run_task(in_it), 0) << name << read_file(path("out/run.log"), limits::kMiB);
  }
}

TEST_F(LentClone, DotGitFileThatNamesAnotherRepositoryThenRefused) {
  git({"init", "--quiet", path("other").string()});
  git({"-C", path("other").string(), "commit", "--quiet", "--allow-empty", "-m", "other"});
  fs::create_directories(path("fake"));
  write_file_atomic(path("fake/.git"), "gitdir: " + path("other/.git").string() + "\n");
  Json in_it = slot_task();
  in_it.set("slot_path", path("fake").string());
  serve_model({});
  EXPECT_THAT(reason_of(in_it, 10), HasSubstr("not of this work tree"));
}

TEST_F(LentClone, DeepAndClosedFoldersThatTestsLeaveThenGone) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  Json deep = slot_task();
  deep.set("test_commands",
           std::vector<std::string>{
               "python3 -c 'import os\nfor i in range(3000): os.mkdir(\"d\"); os.chdir(\"d\")'",
               "mkdir -p x/z; touch x/z/f; chmod 000 x/z x", "grep -q good file.txt"});
  EXPECT_EQ(run_task(deep), 0) << stderr_text();
  EXPECT_EQ(git({"-C", clone(), "status", "--porcelain", "--ignored"}), "");
}

TEST_F(HostileRun, FlagLeftInDotGitThenCountsForNothing) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(run_task(task_with({"if [ -e .git/flag ]; then exit 0; fi; "
                                "rm -rf .git; mkdir -p .git; touch .git/flag; exit 1"})),
            1);
}

TEST_F(HostileRun, TestsThatAskGitThenAnswered) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  EXPECT_EQ(run_task(task_with({"git rev-parse HEAD && git log -1 --format=%s | grep start"})), 0)
      << read_file(path("out/run.log"), limits::kMiB);
}

TEST_F(HostileRun, FoldersOfReadOnlyFilesCannotBeExchanged) {
  fs::create_directories(path("clone/tests"));
  write_file_atomic(path("clone/tests/check.sh"), "exit 1\n");
  fs::create_symlink("../README", path("clone/tests/link"));
  git({"-C", path("clone").string(), "add", "-A"});
  git({"-C", path("clone").string(), "commit", "--quiet", "-m", "tests"});
  git({"-C", path("clone").string(), "push", "--quiet", "origin", "HEAD:main"});
  serve_model({answer(
      change({{"run.sh", "mv tests t2; mkdir tests; echo exit 0 > tests/check.sh\n"}}), 0)});
  Json cheating = task_with({"sh run.sh; sh tests/check.sh"});
  cheating.set("readonly_files", std::vector<std::string>{"tests/**"});
  EXPECT_EQ(run_task(cheating), 1) << stderr_text();
  EXPECT_EQ(remote_branches(), "main");
}

TEST_F(HostileRun, FileReplacedByAFolderInOneAnswerThenCommitted) {
  serve_model({answer(Json::object(
      {{"code_changes",
        Json(Json::Array{
            Json::object(
                {{"file_path", "README/more.txt"}, {"operation", "create"}, {"content", "good\n"}}),
            Json::object({{"file_path", "README"}, {"operation", "delete"}})})},
       {"explanation", "as asked"}}))});
  Json result;
  ASSERT_EQ(run_task(task_with({"grep -q good README/more.txt"}), {}, &result), 0) << stderr_text();
  EXPECT_EQ(
      git({"-C", remote(), "show", result["push"]["branch"].string_or("") + ":README/more.txt"}),
      "good");
}

TEST_F(HostileRun, ChangeInsideASubmoduleThenAskedForAgain) {
  const std::string clone = path("clone").string();
  git({"-C", clone, "update-index", "--add", "--cacheinfo",
       "160000," + git({"-C", clone, "rev-parse", "HEAD"}) + ",sub"});
  git({"-C", clone, "commit", "--quiet", "-m", "a submodule"});
  git({"-C", clone, "push", "--quiet", "origin", "HEAD:main"});
  serve_model({answer(change({{"sub/x", "good\n"}})), answer(change({{"file.txt", "good\n"}}))});
  Json result;
  EXPECT_EQ(run_task(task(), {}, &result), 0) << stderr_text();
  EXPECT_EQ(result["implementation"]["reasks"], Json(1));
}

TEST_F(HostileRun, BranchAtTheRemoteThatLeavesNoRoomThenToldBeforeAModelIsPaid) {
  git({"-C", path("clone").string(), "push", "--quiet", "origin", "HEAD:refs/heads/feature"});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  Json result;
  EXPECT_EQ(run_task(task(), {}, &result), 10);
  EXPECT_THAT(result["error"]["reason"].string_or(""), HasSubstr("a branch \"feature\""));
  EXPECT_EQ(model_calls(), 0U);
}

TEST_F(HostileRun, AnswersThatCouldNotBeUsedThenTheirTokensCount) {
  serve_model({answer("I would rather not."), answer(change({{"../x", "evil\n"}})),
               answer(change({{"file.txt", "good\n"}}))});
  Json result;
  ASSERT_EQ(run_task(task(), {}, &result), 0) << stderr_text();
  EXPECT_EQ(result["implementation"]["model_calls"], Json(3));
  const auto three = result["implementation"]["usage"]["completion_tokens"].as_int();
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  ASSERT_EQ(run_task(task("2"), {}, &result), 0) << stderr_text();
  EXPECT_GT(three, result["implementation"]["usage"]["completion_tokens"].as_int());
}

TEST_F(HostileRun, EarlierWorkThatFailsThenItsTestsAreNotThisRuns) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  ASSERT_EQ(run_task(task()), 0);
  serve_model({raw_answer(401, Json::object({{"error", "no"}}), 0)});
  Json result;
  EXPECT_EQ(run_task(task_with({"grep -q better file.txt"}), {}, &result), 7);
  EXPECT_TRUE(result["tests"].is_null());
}

TEST_F(HostileRun, KilledRunThenTheNextOneCleansUpAfterIt) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  auto killed =
      start({"run", write_task(task_with({"sleep 1000"})), "--json", "--no-baseline", "--out",
             path("out").string(), "--data", path("data").string(), "--llm-endpoint", endpoint()});
  ASSERT_TRUE(killed->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
  killed->signal(SIGKILL);
  killed->wait();
  EXPECT_EQ(run_task(task()), 0) << stderr_text();
  for (const auto& entry : fs::directory_iterator(path("out"))) {
    EXPECT_FALSE(entry.is_directory()) << entry.path();
  }
}

TEST_F(HostileRun, DiskFilledByATestThenTheReportIsStillWritten) {
  const std::string small = path("small").string();
  fs::create_directory(small);
  if (Program({"mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small}, environment(),
              path("mount-stderr"))
          .wait() != 0) {
    GTEST_SKIP() << "no tmpfs can be mounted here";
  }
  serve_model({answer(change({{"file.txt", "bad\n"}}), 0)});
  Json result;
  EXPECT_NE(run_task(task_with({"cat /dev/zero > fill; exit 1"}),
                     {"--no-baseline", "--out", small + "/out"}, &result),
            0);
  EXPECT_TRUE(fs::exists(small + "/out/result.json"));
  Program({"umount", small}, environment(), path("mount-stderr")).wait();
}

TEST_F(HostileRun, ReaderThatTakesNothingThenTheRunEndsAllTheSame) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  Json noisy = task();
  for (int i = 0; i < 2000; ++i) noisy.set("unknown-key-" + std::to_string(i), i);
  auto program = start({"run", write_task(noisy), "--json", "--out", path("out").string(), "--data",
                        path("data").string(), "--llm-endpoint", endpoint()});
  EXPECT_TRUE(
      eventually([&] { return fs::exists(path("out/result.json")); }, std::chrono::seconds{40}));
}

}  // namespace
}  // namespace necrocode::test
