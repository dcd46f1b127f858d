// The base, or the branch, moves while a run's tests run: each is followed, or what is proved
// stays.
#include "e2e/run_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

constexpr const char* kBranch = "feature/task-e2e-1-write-the-file";

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
    return run_moving(task(), ref, then, output);
  }
  int run_moving(Json moving, const std::string& ref, const std::string& then,
                 std::string* output) {
    const std::string once = path("moved").string();
    moving.set("test_commands", std::vector<std::string>{
                                    "test -e " + once + " || { touch " + once +
                                    "; git -c safe.directory='*' -C " + path("elsewhere").string() +
                                    " push --quiet --force origin HEAD:" + ref + "; } && " + then});
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

TEST_F(RunOnAMovingRemote, BaseThatIsForcedBackIsNotBroughtBack) {
  commit_elsewhere("leaked.txt", "taken back\n");
  git({"-C", path("elsewhere").string(), "push", "--quiet", "origin", "HEAD:main"});
  git({"-C", path("elsewhere").string(), "reset", "--quiet", "--hard", "HEAD^"});
  commit_elsewhere("other.txt", "instead\n");
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  std::string output;
  EXPECT_EQ(run_while_it_moves("main", "grep -q good file.txt", &output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("the base was rewritten"));
  EXPECT_EQ(git({"-C", remote(), "diff", "--name-only", std::string(kBranch) + "^", kBranch}),
            "file.txt");
}

TEST_F(RunOnAMovingRemote, BranchThatIsMergedAtOnceGetsNoEmptyCommits) {
  write_file_atomic(path("remote.git/hooks/post-receive"),
                    "#!/bin/sh\nwhile read old new ref; do case $ref in refs/heads/feature/*) "
                    "git update-ref refs/heads/main $new;; esac; done\n",
                    0755);
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json result;
  EXPECT_EQ(run_task(task(), {}, &result), 0) << stderr_text();
  EXPECT_EQ(at_remote("main"), at_remote(kBranch));
  EXPECT_EQ(git({"-C", remote(), "rev-list", "--count", "main"}), "2");
  EXPECT_EQ(result["implementation"]["files"].size(), 1U);
  EXPECT_TRUE(fs::exists(path("out/diff.patch")));
}

TEST_F(RunOnAMovingRemote, BranchThatIsMergedAndRemovedAtOnceIsDone) {
  write_file_atomic(path("remote.git/hooks/post-receive"),
                    "#!/bin/sh\nwhile read old new ref; do case $ref in refs/heads/feature/*) "
                    "git update-ref refs/heads/main $new; git update-ref -d $ref;; esac; done\n",
                    0755);
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json result;
  EXPECT_EQ(run_task(task(), {}, &result), 0) << stderr_text();
  EXPECT_EQ(result["push"]["commit"], Json(at_remote("main")));
  EXPECT_EQ(git({"-C", remote(), "rev-list", "--count", "main"}), "2");
}

// A reviewer, or a bot, goes on from what is pushed while the run proves it on the new base.
TEST_F(RunOnAMovingRemote, SomebodyGoesOnFromTheBranchMeanwhileThenTheirsStays) {
  commit_elsewhere("other.txt", "theirs\n");
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  const std::string review = path("review").string();
  const std::string go_on =
      "git -c safe.directory='*' clone --quiet --branch " + std::string(kBranch) + " " + remote() +
      " " + review + " && git -C " + review +
      " -c user.name=R -c user.email=r@r commit --quiet --allow-empty -m review && git -c "
      "safe.directory='*' -C " +
      review + " push --quiet origin HEAD";
  std::string output;
  EXPECT_EQ(run_while_it_moves(
                "main", "{ test ! -e other.txt || test -e " + review + " || { " + go_on + "; }; }",
                &output),
            0)
      << output << stderr_text();
  EXPECT_EQ(git({"-C", remote(), "log", "-1", "--format=%s", kBranch}), "review");
  const Json result = Json::parse(read_file(path("out/result.json"), limits::kMiB));
  EXPECT_EQ(result["push"]["commit"], Json(at_remote(std::string(kBranch) + "^")));
}

TEST_F(RunOnAMovingRemote, BranchThatIsRemovedMeanwhileIsPushedAgain) {
  const std::string earlier = "feat: x\n\nNecrocode-Task: e2e:1";
  commit_elsewhere("file.txt", "bad\n", earlier);
  git({"-C", path("elsewhere").string(), "push", "--quiet", "origin",
       std::string("HEAD:refs/heads/") + kBranch});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json removing = task();
  removing.set("test_commands",
               std::vector<std::string>{"grep -q good file.txt && git -c safe.directory='*' -C " +
                                        remote() + " update-ref -d refs/heads/" + kBranch});
  EXPECT_EQ(run_task(removing, {"--no-baseline", "--unsandboxed"}), 0) << stderr_text();
  EXPECT_EQ(git({"-C", remote(), "show", std::string(kBranch) + ":file.txt"}), "good");
}

TEST_F(RunOnAMovingRemote, ReadOnlyFileThatTheNewBaseBringsIsGuarded) {
  const std::string before = at_remote("main");
  fs::create_directories(path("elsewhere/fixed"));
  commit_elsewhere("fixed/data", "theirs\n");
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json guarded = task();
  guarded.set("readonly_files", std::vector<std::string>{"fixed/**"});
  std::string output;
  EXPECT_EQ(
      run_moving(guarded, "main", "{ test ! -e fixed/data || echo x > fixed/data; }", &output), 0)
      << stderr_text();
  EXPECT_THAT(output, HasSubstr("the tests do not pass there"));
  EXPECT_EQ(at_remote(std::string(kBranch) + "^"), before);
}

// In a clone of the user's, whose untracked files nothing may touch.
TEST_F(RunOnAMovingRemote, NewBaseThatWouldOverwriteAUsersFileIsNotFollowed) {
  const std::string before = at_remote("main");
  write_file_atomic(path("clone/notes.txt"), "mine\n");
  commit_elsewhere("notes.txt", "theirs\n");
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json in_slot = task();
  in_slot.erase("repo_url");
  in_slot.set("slot_path", path("clone").string());
  std::string output;
  EXPECT_EQ(run_moving(in_slot, "main", "grep -q good file.txt", &output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("an untracked \\\"notes.txt\\\" that it would overwrite"));
  EXPECT_EQ(read_file(path("clone/notes.txt"), 100), "mine\n");
  EXPECT_EQ(at_remote(std::string(kBranch) + "^"), before);
  EXPECT_EQ(git({"-C", path("clone").string(), "rev-parse", "HEAD"}), at_remote(kBranch));
}

TEST_F(RunOnAMovingRemote, StepThatOnlyTheOldBaseFailedIsNotExcusedOnTheNew) {
  const std::string before = at_remote("main");
  commit_elsewhere("lint.ok", "mended\n");
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  const std::string once = path("moved").string();
  write_file_atomic(path("playbook.yaml"),
                    "steps:\n"
                    "  - name: Lint\n"
                    "    command: \"test -e lint.ok && test ! -e file.txt\"\n"
                    "    fail_fast: false\n"
                    "  - name: Unit\n"
                    "    command: \"test ! -e file.txt || test -e " +
                        once + " || { touch " + once + "; git -c safe.directory='*' -C " +
                        path("elsewhere").string() + " push --quiet origin HEAD:main; }\"\n");
  Json two = task();
  std::string output;
  EXPECT_EQ(run({"run", write_task(two), "--json", "--unsandboxed", "--playbook",
                 path("playbook.yaml").string(), "--data", path("data").string(), "--out",
                 path("out").string(), "--llm-endpoint", endpoint()},
                &output),
            0)
      << output << stderr_text();
  EXPECT_THAT(output, HasSubstr("the tests do not pass there"));
  EXPECT_EQ(at_remote(std::string(kBranch) + "^"), before);
}

}  // namespace
}  // namespace necrocode::test
