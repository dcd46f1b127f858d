// `necrocode run` as a user starts it, without services: one process, one exit code, nothing left.
#include "e2e/run_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

TEST_F(Run, GoodAnswerIsPushedAndKept) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json result;
  ASSERT_EQ(run_task(task(), {}, &result), 0) << stderr_text();
  EXPECT_EQ(result["type"], Json("result"));
  EXPECT_EQ(result["success"], Json(true));
  const std::string branch = result["push"]["branch"].string_or("");
  EXPECT_EQ(branch, "feature/task-e2e-1-write-the-file");
  EXPECT_EQ(git({"-C", remote(), "rev-parse", branch}), result["push"]["commit"].string_or("-"));
  EXPECT_EQ(git({"-C", remote(), "show", branch + ":file.txt"}), "good");
  EXPECT_THAT(git({"-C", remote(), "log", "-1", "--format=%B", branch}),
              HasSubstr("Necrocode-Task: e2e:1"));
  for (const char* file :
       {"run.log", "diff.patch", "tests.json", "transcript.jsonl", "result.json"})
    EXPECT_TRUE(fs::exists(path("out") / file)) << file;
  EXPECT_FALSE(fs::exists(path("out/workspace")));
}

TEST_F(Run, SlotGivenByHandEndsOnTheBranch) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json slot_task = task();
  slot_task.erase("repo_url");
  slot_task.set("slot_path", path("clone").string());
  Json result;
  ASSERT_EQ(run_task(slot_task, {}, &result), 0) << stderr_text();
  EXPECT_EQ(git({"-C", path("clone").string(), "rev-parse", "--abbrev-ref", "HEAD"}),
            result["push"]["branch"].string_or("-"));
  EXPECT_EQ(git({"-C", path("clone").string(), "status", "--porcelain"}), "");
  EXPECT_EQ(git({"-C", remote(), "rev-parse", result["push"]["branch"].string_or("-")}),
            git({"-C", path("clone").string(), "rev-parse", "HEAD"}));
}

TEST_F(Run, SlotWithUncommittedChangesIsRefusedAndUntouched) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  write_file_atomic(path("clone/README"), "mine\n");
  Json slot_task = task();
  slot_task.erase("repo_url");
  slot_task.set("slot_path", path("clone").string());
  Json result;
  EXPECT_EQ(run_task(slot_task, {}, &result), 10);
  EXPECT_THAT(result["error"]["reason"].string_or(""), HasSubstr("uncommitted"));
  EXPECT_EQ(read_file(path("clone/README"), 100), "mine\n");
}

TEST_F(Run, HooksAndConfigOfASlotDoNotRun) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  const std::string canary = path("canary").string();
  for (const char* hook :
       {"pre-commit", "post-checkout", "pre-push", "reference-transaction", "post-commit"}) {
    write_file_atomic(path("clone/.git/hooks") / hook, "#!/bin/sh\necho ran >>" + canary + "\n",
                      0755);
  }
  git({"-C", path("clone").string(), "config", "core.fsmonitor", "echo ran >>" + canary});
  git({"-C", path("clone").string(), "config", "filter.evil.clean",
       "sh -c 'echo ran >>" + canary + "; cat'"});
  write_file_atomic(path("clone/.git/info/attributes"), "* filter=evil\n");
  Json slot_task = task();
  slot_task.erase("repo_url");
  slot_task.set("slot_path", path("clone").string());
  EXPECT_EQ(run_task(slot_task), 0) << stderr_text();
  EXPECT_FALSE(fs::exists(canary));
}

TEST_F(Run, WrongAnswerIsRepairedFromTheTestOutput) {
  make_remote({{"check.sh", "grep -q good file.txt || { echo NEEDLE-IN-OUTPUT; exit 1; }\n"}});
  Json repaired = answer(change({{"file.txt", "good\n"}}));
  repaired.set("match", Json::object({{"contains", std::vector<std::string>{"NEEDLE-IN-OUTPUT"}}}));
  serve_model({answer(change({{"file.txt", "bad\n"}})), repaired});
  Json with_script = task();
  with_script.set("test_commands", std::vector<std::string>{"sh check.sh"});
  Json result;
  ASSERT_EQ(run_task(with_script, {}, &result), 0) << stderr_text();
  EXPECT_EQ(result["implementation"]["repairs"], Json(1));
}

TEST_F(Run, FailingTestsExitWithOneAndPushNothing) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "bad\n"}}), 0)});
  Json result;
  EXPECT_EQ(run_task(task(), {}, &result), 1);
  EXPECT_EQ(result["success"], Json(false));
  EXPECT_EQ(result["error"]["class"], Json("tests"));
  EXPECT_EQ(remote_branches(), "main");
  EXPECT_TRUE(fs::exists(path("out/diff.patch")));
  // The same answer again says that no further one would help.
  EXPECT_EQ(model_calls(), 2U);
}

TEST_F(Run, BadTaskFileNamesAllProblemsAtOnce) {
  Json bad = Json::object({{"task_id", "no spec"},
                           {"timeout_seconds", 0},
                           {"branch_name", "-f"},
                           {"test_commands", "make"},
                           {"related_files", std::vector<std::string>{"../x"}}});
  EXPECT_EQ(run_task(bad), 2);
  for (const char* field : {"/task_id", "/title", "/timeout_seconds", "/branch_name",
                            "/test_commands", "/related_files", "/repo_url"}) {
    EXPECT_THAT(stderr_text(), HasSubstr(field));
  }
}

TEST_F(Run, MissingOrMalformedTaskFileIsAUsageError) {
  EXPECT_EQ(run({"run", path("absent.json").string()}), 2);
  write_file_atomic(path("broken.json"), "{\"task_id\": ");
  EXPECT_EQ(run({"run", path("broken.json").string()}), 2);
}

TEST_F(Run, ModelOutOfReachExitsWithNine) {
  make_remote({{"README", "hello\n"}});
  write_file_atomic(path("config.yaml"), "llm_retry_count: 0\n");
  // Port 1 on loopback: nothing listens there.
  Json result;
  EXPECT_EQ(run_task(task(),
                     {"--llm-endpoint", "http://127.0.0.1:1/v1", "--config",
                      path("config.yaml").string()},
                     &result),
            9);
  EXPECT_EQ(remote_branches(), "main");
}

struct ModelFault {
  const char* name;
  int status;
  const char* body;
  int exit_code;
};
class RunWithFaultyModel : public Run, public testing::WithParamInterface<ModelFault> {};

TEST_P(RunWithFaultyModel, EndsWithTheTrueExitCode) {
  make_remote({{"README", "hello\n"}});
  write_file_atomic(path("config.yaml"), "llm_retry_count: 0\n");
  serve_model({raw_answer(GetParam().status, Json(GetParam().body), 0)});
  EXPECT_EQ(run_task(task(), {"--config", path("config.yaml").string()}), GetParam().exit_code)
      << stderr_text();
  EXPECT_EQ(remote_branches(), "main");
}

INSTANTIATE_TEST_SUITE_P(
    Faults, RunWithFaultyModel,
    testing::Values(ModelFault{"Unauthorized", 401, R"({"error":{"message":"no such key"}})", 7},
                    ModelFault{"BadRequest", 400, R"({"error":{"message":"bad"}})", 8},
                    ModelFault{"NotFound", 404, R"({"error":{"message":"no such model"}})", 8},
                    ModelFault{"QuotaExhausted", 429,
                               R"({"error":{"message":"pay","code":"insufficient_quota"}})", 7},
                    ModelFault{"RateLimited", 429, R"({"error":{"message":"slow down"}})", 9},
                    ModelFault{"ServerError", 500, R"({"error":{"message":"oops"}})", 9},
                    ModelFault{"WebPage", 200, "<html>welcome</html>", 8}),
    [](const auto& faulty) { return faulty.param.name; });

TEST_F(Run, AnswersThatCannotBeUsedAreAskedForAgainTwice) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer("I would rather not."), answer("{\"code_changes\": []}"),
               answer(change({{"file.txt", "good\n"}}))});
  Json result;
  EXPECT_EQ(run_task(task(), {}, &result), 0) << stderr_text();
  EXPECT_EQ(result["implementation"]["reasks"], Json(2));
}

TEST_F(Run, UnusableAnswersForEverExitWithEight) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer("I would rather not.", 0)});
  EXPECT_EQ(run_task(task()), 8);
  EXPECT_EQ(model_calls(), 3U);
}

class RunWithTraversal : public Run, public testing::WithParamInterface<const char*> {};

TEST_P(RunWithTraversal, IsRefusedAskedForAgainAndEndsWithSix) {
  make_remote({{"README", "hello\n"}});
  fs::create_symlink(path(""), path("clone/link"));
  git({"-C", path("clone").string(), "add", "-A"});
  git({"-C", path("clone").string(), "commit", "--quiet", "-m", "a link"});
  git({"-C", path("clone").string(), "push", "--quiet", "origin", "HEAD:main"});
  serve_model({answer(change({{"innocent.txt", "good\n"}, {GetParam(), "evil\n"}}), 0)});
  Json slot_task = task();
  slot_task.erase("repo_url");
  slot_task.set("slot_path", path("clone").string());
  const std::string before = git({"-C", path("clone").string(), "rev-parse", "HEAD"});
  Json result;
  EXPECT_EQ(run_task(slot_task, {}, &result), 6) << stderr_text();
  EXPECT_EQ(model_calls(), 3U);
  EXPECT_EQ(git({"-C", path("clone").string(), "status", "--porcelain", "--ignored"}), "");
  EXPECT_EQ(git({"-C", path("clone").string(), "rev-parse", "HEAD"}), before);
  EXPECT_FALSE(fs::exists(path("clone/innocent.txt")));
  EXPECT_FALSE(fs::exists(path("x")));
  EXPECT_FALSE(fs::exists("/necrocode-traversal-x"));
  EXPECT_FALSE(fs::exists(path("clone/.git/hooks/x")));
}

INSTANTIATE_TEST_SUITE_P(Paths, RunWithTraversal,
                         testing::Values("../x", "/necrocode-traversal-x", ".git/hooks/x", "link/x",
                                         "a/../../x", ".GIT/config"),
                         [](const auto& traversal) {
                           return "Path" + std::to_string(traversal.index);
                         });

TEST_F(Run, NoTestCommandIsUnverifiedNeverDone) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json without = task();
  without.erase("test_commands");
  Json result;
  EXPECT_EQ(run_task(without, {}, &result), 12);
  EXPECT_EQ(result["success"], Json(false));
  EXPECT_EQ(result["outcome"], Json("unverified"));
}

TEST_F(Run, TaskTimeEndsAHangingTestWithFour) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json hanging = task();
  hanging.set("test_commands", std::vector<std::string>{"exec sleep 1000"})
      .set("timeout_seconds", 3);
  Json result;
  EXPECT_EQ(run_task(hanging, {"--no-baseline"}, &result), 4);
  EXPECT_EQ(remote_branches(), "main");
}

TEST_F(Run, SigtermInTheMiddleEndsWithFiveAndLeavesNothing) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json hanging = task();
  const std::string mark = "3141.592" + std::to_string(::getpid());
  hanging.set("test_commands", std::vector<std::string>{"echo started; (setsid sleep " + mark +
                                                        " &); sleep " + mark});
  auto program =
      start({"run", write_task(hanging), "--json", "--no-baseline", "--out", path("out").string(),
             "--data", path("data").string(), "--llm-endpoint", endpoint()});
  ASSERT_TRUE(program->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
  program->signal(SIGTERM);
  std::string output;
  EXPECT_EQ(program->wait(&output, std::chrono::seconds{20}), 5) << stderr_text();
  EXPECT_THAT(output, HasSubstr("\"outcome\":\"cancelled\""));
  EXPECT_TRUE(fs::exists(path("out/diff.patch")));
  EXPECT_EQ(processes_with(mark), 0);
}

TEST_F(Run, KillLeavesNoProcess) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json hanging = task();
  const std::string mark = "2718.281" + std::to_string(::getpid());
  hanging.set("test_commands",
              std::vector<std::string>{"(setsid sleep " + mark + " &); sleep " + mark});
  auto program =
      start({"run", write_task(hanging), "--json", "--no-baseline", "--out", path("out").string(),
             "--data", path("data").string(), "--llm-endpoint", endpoint()});
  ASSERT_TRUE(program->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
  EXPECT_TRUE(eventually([&] { return processes_with(mark) >= 2; }));
  program->signal(SIGKILL);
  program->wait();
  EXPECT_TRUE(eventually([&] { return processes_with(mark) == 0; }));
}

TEST_F(Run, DryRunDoesEverythingButThePush) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "bad\n"}})), answer(change({{"file.txt", "good\n"}}))});
  Json result;
  EXPECT_EQ(run_task(task(), {"--dry-run"}, &result), 0) << stderr_text();
  EXPECT_EQ(result["dry_run"], Json(true));
  EXPECT_EQ(result["success"], Json(false));
  EXPECT_EQ(result["outcome"], Json("done, not pushed"));
  EXPECT_EQ(result["implementation"]["repairs"], Json(1));
  EXPECT_THAT(read_file(path("out/diff.patch"), 10'000), HasSubstr("+good"));
  EXPECT_EQ(remote_branches(), "main");
  serve_model({answer(change({{"file.txt", "bad\n"}}), 0)});
  EXPECT_EQ(run_task(task(), {"--dry-run"}), 1);
}

TEST_F(Run, DryRunInAClonePutsItBackAsItWas) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json in_slot = task();
  in_slot.erase("repo_url");
  in_slot.set("slot_path", path("clone").string());
  const std::string before = git({"-C", path("clone").string(), "rev-parse", "HEAD"});
  EXPECT_EQ(run_task(in_slot, {"--dry-run"}), 0) << stderr_text();
  EXPECT_EQ(git({"-C", path("clone").string(), "rev-parse", "HEAD"}), before);
  EXPECT_EQ(git({"-C", path("clone").string(), "status", "--porcelain"}), "");
  EXPECT_EQ(remote_branches(), "main");
}

TEST_F(Run, PlanCallsNoModelAndPushesNothing) {
  make_remote({{"README", "hello\n"}});
  serve_model({});
  Json result;
  EXPECT_EQ(run_task(task(), {"--plan"}, &result), 0) << stderr_text();
  EXPECT_EQ(result["plan"], Json(true));
  EXPECT_EQ(result["success"], Json(false));
  EXPECT_EQ(result["outcome"], Json("planned"));
  EXPECT_EQ(result["phase"], Json("prepare"));
  EXPECT_EQ(model_calls(), 0U);
  EXPECT_EQ(remote_branches(), "main");
}

TEST_F(Run, PlanWithoutJsonThenForPeople) {
  make_remote({{"README", "hello\n"}});
  std::string output;
  // Neither a model nor its key is needed for a plan.
  EXPECT_EQ(run({"run", write_task(task()), "--plan", "--data", path("data").string(), "--out",
                 path("out").string()},
                &output),
            0)
      << stderr_text();
  EXPECT_THAT(output, HasSubstr("branch    feature/task-e2e-1-write-the-file\n"));
  EXPECT_THAT(output, HasSubstr("test      grep -q good file.txt\n"));
  EXPECT_THAT(output, HasSubstr("\nplanned  e2e:1"));
  EXPECT_THAT(output, testing::Not(HasSubstr("\\n")));
  EXPECT_THAT(stderr_text(), testing::Not(HasSubstr("upload")));
}

TEST_F(Run, EarlyFailureThenStillAResultAndNothingOfAnEarlierRun) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  ASSERT_EQ(run_task(task()), 0) << stderr_text();
  ASSERT_TRUE(fs::exists(path("out/diff.patch")));
  Json bad = task();
  bad.erase("title");
  Json result;
  EXPECT_EQ(run_task(bad, {}, &result), 2);
  EXPECT_EQ(result["type"], Json("result"));
  EXPECT_EQ(result["exit_code"], Json(2));
  EXPECT_EQ(result["task_id"], Json("e2e:1"));
  EXPECT_EQ(result["error"]["phase"], Json("validate"));
  EXPECT_THAT(result["error"]["reason"].string_or(""), HasSubstr("/title"));
  EXPECT_THAT(stderr_text(), HasSubstr("/title"));
  EXPECT_EQ(Json::parse(read_file(path("out/result.json"), limits::kMiB)), result);
  for (const char* file : {"diff.patch", "tests.json"})
    EXPECT_FALSE(fs::exists(path("out") / file));

  EXPECT_EQ(
      run_task(task(), {"--registry", "http://127.0.0.1:1", "--config", fast_config()}, &result),
      3);
  EXPECT_EQ(result["exit_code"], Json(3)) << result.dump();
  EXPECT_EQ(run_task(task(), {"--llm-timeout", "soon"}, &result), 2);
  EXPECT_THAT(result["error"]["reason"].string_or(""), HasSubstr("--llm-timeout: must be"));
}

TEST_F(Run, NoKeyForAnEndpointThatNeedsOneThenSaidAtOnce) {
  Json result;
  EXPECT_EQ(run_task(task(), {}, &result), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("no key is set for https://api.openai.com/v1"));
}

TEST_F(Run, ForeignBranchOfTheSameNameIsNeverOverwritten) {
  make_remote({{"README", "hello\n"}});
  git({"-C", path("clone").string(), "push", "--quiet", "origin",
       "HEAD:refs/heads/feature/task-e2e-1-write-the-file"});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  EXPECT_EQ(run_task(task()), 10);
  EXPECT_EQ(model_calls(), 0U);
}

TEST_F(Run, WorkPushedByAKilledRunnerIsAdopted) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  ASSERT_EQ(run_task(task()), 0);
  Json result;
  EXPECT_EQ(run_task(task(), {}, &result), 0);
  EXPECT_EQ(result["implementation"]["adopted"], Json(true));
  EXPECT_EQ(model_calls(), 1U);
}

TEST_F(Run, BaselineIsKeptForTheNextRunOnTheSameBase) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  for (const char* number : {"1", "2"}) {
    Json result;
    ASSERT_EQ(run_task(task(number), {}, &result), 0) << stderr_text();
    EXPECT_EQ(result["red_at_base"].size(), 1U);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(path("data/baselines")), {}), 1);
}

TEST_F(Run, OutFolderWithOtherThingsKeepsThem) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  fs::create_directories(path("out/workspace"));
  fs::create_directories(path("out/git"));
  write_file_atomic(path("out/workspace/mine"), "mine\n");
  write_file_atomic(path("out/git/mine"), "mine\n");
  EXPECT_EQ(run_task(task()), 0) << stderr_text();
  EXPECT_EQ(read_file(path("out/workspace/mine"), 100), "mine\n");
  EXPECT_EQ(read_file(path("out/git/mine"), 100), "mine\n");
}

class RunOnAnOlderClone : public RunInAClone {
 protected:
  // Adds a file to the remote's main, which the clone does not have yet.
  void push_from_elsewhere(const std::string& name) {
    git({"clone", "--quiet", remote(), path("elsewhere").string()});
    fs::create_directories(path("elsewhere/" + name).parent_path());
    write_file_atomic(path("elsewhere/" + name), "theirs\n");
    git({"-C", path("elsewhere").string(), "add", "-A"});
    git({"-C", path("elsewhere").string(), "commit", "--quiet", "-m", "more"});
    git({"-C", path("elsewhere").string(), "push", "--quiet", "origin", "HEAD:main"});
  }
};

TEST_F(RunOnAnOlderClone, UntrackedFileThatTheBaseHasThenRefusedAndKept) {
  push_from_elsewhere("notes.txt");
  write_file_atomic(path("clone/notes.txt"), "mine\n");
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task()), 10);
  EXPECT_EQ(read_file(path("clone/notes.txt"), 100), "mine\n");
}

TEST_F(RunOnAnOlderClone, UntrackedFolderWhereTheBaseHasAFileThenRefusedAndKept) {
  push_from_elsewhere("notes");
  fs::create_directories(path("clone/notes"));
  write_file_atomic(path("clone/notes/a.txt"), "mine\n");
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task()), 10);
  EXPECT_EQ(read_file(path("clone/notes/a.txt"), 100), "mine\n");
}

TEST_F(RunInAClone, UsersUntrackedAndIgnoredFilesAreNotTheModels) {
  write_file_atomic(path("clone/.env"), "mine\n");
  write_file_atomic(path("clone/draft.txt"), "mine\n");
  serve_model({answer(change({{".env", "stolen\n"}})), answer(change({{"draft.txt", "stolen\n"}})),
               answer(change({{"file.txt", "bad\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task()), 1) << stderr_text();
  EXPECT_EQ(read_file(path("clone/.env"), 100), "mine\n");
  EXPECT_EQ(read_file(path("clone/draft.txt"), 100), "mine\n");
  EXPECT_FALSE(fs::exists(path("clone/file.txt")));
}

TEST_F(RunInAClone, RepositoryOfTheUsersInsideThenUntouchedWhateverHappens) {
  git({"init", "--quiet", path("clone/nest").string()});
  write_file_atomic(path("clone/nest/draft.txt"), "mine\n");
  fs::create_directories(path("clone/fixtures"));
  write_file_atomic(path("clone/fixtures/data.txt"), "mine\n");
  serve_model(
      {answer(change({{"nest/new.txt", "x\n"}})), answer(change({{"file.txt", "good\n"}}), 0)});
  Json hostile = slot_task();
  hostile.set(
      "test_commands",
      std::vector<std::string>{"git init -q fixtures; rm -rf nest/.git; grep -q good file.txt"});
  EXPECT_EQ(run_task(hostile), 0) << stderr_text();
  EXPECT_EQ(read_file(path("clone/nest/draft.txt"), 100), "mine\n");
  EXPECT_EQ(read_file(path("clone/fixtures/data.txt"), 100), "mine\n");
  EXPECT_FALSE(fs::exists(path("clone/fixtures/.git")));
  EXPECT_TRUE(fs::exists(path("clone/nest/.git/HEAD")));
}

TEST_F(RunInAClone, EmptyFoldersThatTestsLeaveCountForNothing) {
  serve_model({answer(change({{"file.txt", "bad\n"}})), answer(change({{"file.txt", "bad2\n"}})),
               answer(change({{"file.txt", "bad3\n"}}))});
  Json flagged = slot_task();
  flagged.set("test_commands", std::vector<std::string>{
                                   "if [ -d seen ]; then exit 0; fi; mkdir -p seen/.git; exit 1"});
  EXPECT_EQ(run_task(flagged), 1);
  EXPECT_FALSE(fs::exists(path("clone/seen")));
}

TEST_F(RunInAClone, OutFolderInsideItThenRefused) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task(), {"--out", path("clone/out").string()}), 10);
}

TEST_F(RunInAClone, UsersCommitOnTheBranchThatIsCheckedOutThenRefusedAndKept) {
  git({"-C", clone(), "checkout", "--quiet", "-b", "feature/task-e2e-1-write-the-file"});
  write_file_atomic(path("clone/mine.txt"), "mine\n");
  git({"-C", clone(), "add", "-A"});
  git({"-C", clone(), "commit", "--quiet", "-m", "mine"});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task()), 10);
  EXPECT_EQ(read_file(path("clone/mine.txt"), 100), "mine\n");
}

TEST_F(RunInAClone, BranchCheckedOutInAnotherWorkTreeThenRefused) {
  git({"-C", clone(), "worktree", "add", "--quiet", "-b", "feature/task-e2e-1-write-the-file",
       path("second").string()});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task()), 10);
}

TEST_F(RunInAClone, FailingRunThenUntouchedFilesKeepTheirTimes) {
  const auto before = fs::last_write_time(path("clone/README"));
  serve_model({answer(change({{"file.txt", "bad\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task()), 1);
  EXPECT_EQ(fs::last_write_time(path("clone/README")), before);
}

TEST_F(RunInAClone, StagedChangeThatTheFilesDoNotShowThenRefusedAndKept) {
  write_file_atomic(path("clone/README"), "staged\n");
  git({"-C", clone(), "add", "README"});
  write_file_atomic(path("clone/README"), "hello\n");
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task()), 10);
  EXPECT_EQ(git({"-C", clone(), "show", ":README"}), "staged");
}

TEST_F(RunInAClone, LocalBranchWithOtherWorkThenRefusedAndKept) {
  const std::string branch = "feature/task-e2e-1-write-the-file";
  git({"-C", clone(), "checkout", "--quiet", "-b", branch});
  write_file_atomic(path("clone/mine.txt"), "mine\n");
  git({"-C", clone(), "add", "-A"});
  git({"-C", clone(), "commit", "--quiet", "-m", "mine"});
  const std::string mine = git({"-C", clone(), "rev-parse", "HEAD"});
  git({"-C", clone(), "checkout", "--quiet", "-"});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task()), 10);
  EXPECT_EQ(git({"-C", clone(), "rev-parse", branch}), mine);
}

TEST_F(RunInAClone, BranchThatLeavesNoRoomThenRefusedBeforeAnything) {
  git({"-C", clone(), "branch", "feature"});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  EXPECT_EQ(run_task(slot_task()), 10);
  git({"-C", clone(), "pack-refs", "--all"});
  EXPECT_EQ(run_task(slot_task()), 10);
  EXPECT_EQ(model_calls(), 0U);
}

TEST_F(RunInAClone, IndexThatIsALinkThenNothingIsWrittenThroughIt) {
  write_file_atomic(path("victim"), "victim\n");
  fs::remove(path("clone/.git/index"));
  fs::create_symlink(path("victim"), path("clone/.git/index"));
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  run_task(slot_task());
  EXPECT_EQ(read_file(path("victim"), 100), "victim\n");
}

TEST_F(RunInAClone, CredentialsInItsConfigurationAreNotSeenByTests) {
  git({"-C", clone(), "config", "http.https://example.org/.extraheader",
       "AUTHORIZATION: basic c2VjcmV0LXNlY3JldA=="});
  Json nosy = slot_task();
  nosy.set("test_commands",
           std::vector<std::string>{
               "cat .git/config; git log -1 --format=%s; ! grep -q c2Vjcm .git/config"});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  EXPECT_EQ(run_task(nosy), 0) << read_file(path("out/run.log"), limits::kMiB);
  const std::string log = read_file(path("out/run.log"), limits::kMiB);
  EXPECT_EQ(log.find("c2VjcmV0"), std::string::npos);
  EXPECT_THAT(log, HasSubstr("\nstart\n"));  // git works there, on a directory of ours
}

TEST_F(Run, WhatTestsLeaveBehindCountsForNothing) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}})), answer(change({{"other.txt", "x\n"}})),
               answer(change({{"third.txt", "x\n"}}))});
  Json flagged = task();
  flagged.set("test_commands",
              std::vector<std::string>{"if [ -e flag ]; then exit 0; else touch flag; exit 1; fi"});
  EXPECT_EQ(run_task(flagged), 1);
  EXPECT_EQ(remote_branches(), "main");
}

TEST_F(Run, ReadOnlyFilesCannotBeChangedByTestsEither) {
  make_remote({{"check.sh", "exit 1\n"}});
  serve_model({answer(change({{"run.sh", "echo exit 0 > check.sh\n"}}), 0)});
  Json cheating = task();
  cheating.set("test_commands", std::vector<std::string>{"sh run.sh; sh check.sh"})
      .set("readonly_files", std::vector<std::string>{"check.sh"});
  EXPECT_EQ(run_task(cheating), 1);
  EXPECT_EQ(remote_branches(), "main");
}

TEST_F(Run, TrailerInAnotherTasksTextIsNoProofOfEarlierWork) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  Json forging = task("1");
  forging.set("description", "x\n\nNecrocode-Task: e2e:2").set("branch_name", "shared");
  ASSERT_EQ(run_task(forging), 0) << stderr_text();
  Json other = task("2");
  other.set("branch_name", "shared");
  EXPECT_EQ(run_task(other), 10);
}

class RunWithKey : public Run {
 protected:
  RunWithKey() { extra_env_ = {"GIT_TOKEN=" + key_}; }
  const std::string key_ = "sekretGITtok-0123456789";
};

TEST_F(RunWithKey, InTheDescriptionThenMaskedInTheCommit) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json leaking = task();
  leaking.set("description", "use " + key_);
  ASSERT_EQ(run_task(leaking), 0) << stderr_text();
  const std::string message =
      git({"-C", remote(), "log", "-1", "--format=%B", "feature/task-e2e-1-write-the-file"});
  EXPECT_EQ(message.find(key_), std::string::npos);
  EXPECT_THAT(message, HasSubstr("use ***"));
}

TEST_F(RunWithKey, InTheTitleThenRefused) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json leaking = task();
  leaking.set("title", "use " + key_);
  EXPECT_EQ(run_task(leaking), 6);
  EXPECT_EQ(remote_branches(), "main");
}

TEST_F(RunWithKey, InAFileThatGitCallsBinaryThenNotPushed) {
  make_remote({{".gitattributes", "*.bin -diff\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}, {"k.bin", "token " + key_ + "\n"}}), 0)});
  EXPECT_EQ(run_task(task()), 6);
  EXPECT_EQ(remote_branches(), "main");
}

TEST_F(RunWithKey, InARelatedFileThenNotInThePrompt) {
  make_remote({{"notes.txt", "token " + key_ + "\n"}});
  Json seen = answer(change({{"file.txt", "bad\n"}}), 0);
  seen.set("match", Json::object({{"contains", std::vector<std::string>{key_}}}));
  serve_model({seen, answer(change({{"file.txt", "good\n"}}))});
  Json related = task();
  related.set("related_files", std::vector<std::string>{"notes.txt"});
  EXPECT_EQ(run_task(related), 0) << stderr_text();
}

TEST_F(Run, KeysReachNeitherTestsNorOutputs) {
  make_remote({{"README", "hello\n"}});
  const std::string key = "sekret-key-0123456789";
  extra_env_ = {"LLM_API_KEY=" + key};
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json nosy = task();
  nosy.set("test_commands",
           std::vector<std::string>{"env; cat /proc/*/environ | tr '\\0' '\\n'; echo "
                                    "sekret-key-012345''6789; grep -q good file.txt"});
  std::string output;
  EXPECT_EQ(run({"run", write_task(nosy), "--json", "--out", path("out").string(), "--data",
                 path("data").string(), "--llm-endpoint", endpoint()},
                &output),
            0)
      << stderr_text();
  EXPECT_EQ(output.find(key), std::string::npos);
  for (const char* file : {"run.log", "tests.json", "result.json", "diff.patch"}) {
    EXPECT_EQ(read_file(path("out") / file, limits::kMiB).find(key), std::string::npos) << file;
  }
}

}  // namespace
}  // namespace necrocode::test
