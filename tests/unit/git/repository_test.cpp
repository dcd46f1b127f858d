#include "necrocode/git/repository.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>

#include "necrocode/git/index_file.hpp"
#include "necrocode/git/work_tree.hpp"
#include "support/git_fixture.hpp"

namespace necrocode::git {
namespace {

namespace fs = std::filesystem;
using test::read;
using test::shell;
using test::write;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

process::Supervisor& supervisor() {
  static process::Supervisor instance;
  return instance;
}

/// A work tree on main of a real remote, its git directory beside it.
class RepositoryTest : public testing::Test {
 protected:
  RepositoryTest() {
    fs::create_directory(tree_);
    repository_.init({}, context_, remote_.url());
    repository_.fetch(remote_.url(), {"+refs/heads/*:refs/remotes/origin/*"}, context_);
    base_ = *repository_.resolve("refs/remotes/origin/main", context_);
    repository_.check_out("main", base_, true, context_);
  }
  /// A script that leaves a file behind when it runs.
  std::string canary_script() {
    write(folder_.path() / "canary.sh", "#!/bin/sh\ntouch '" + canary().string() + "'\ncat\n");
    fs::permissions(folder_.path() / "canary.sh", fs::perms::owner_all);
    return (folder_.path() / "canary.sh").string();
  }
  fs::path canary() const { return folder_.path() / "ran"; }
  bool clean() const {
    return compare_tree(tree_, read_index(repository_.git_dir() / "index")).difference_count == 0;
  }
  void use_all_verbs() {
    repository_.status(true, context_);
    repository_.stage_all(context_);
    const std::string made = repository_.commit("work", context_);
    repository_.diff(base_, made, context_);
    repository_.changes(base_, made, context_);
    repository_.push(remote_.url(), made, "work", "", context_);
    repository_.fetch(remote_.url(), {"+refs/heads/*:refs/remotes/origin/*"}, context_);
    repository_.check_out("main", base_, true, context_);
  }

  CallContext context_;
  test::GitRemote remote_;
  TemporaryDirectory folder_{"necrocode-git-test-"};
  Git git_{supervisor(), GitOptions{}};
  fs::path tree_ = folder_.path() / "tree";
  Repository repository_{git_, folder_.path() / "git", tree_};
  std::string base_;
};

TEST_F(RepositoryTest, CheckOutMakesTheTreeOfTheCommit) {
  EXPECT_EQ(base_, remote_.tip());
  EXPECT_EQ(read(tree_ / "a.txt"), "alpha\n");
  EXPECT_EQ(read(tree_ / "src/b.txt"), "beta\n");
  EXPECT_TRUE(fs::is_symlink(tree_ / "link"));
  EXPECT_THAT(repository_.status(true, context_), IsEmpty());
  EXPECT_THAT(repository_.tracked_files(context_),
              ElementsAre(".gitignore", "a.txt", "bin/run", "link", "src/b.txt"));
  EXPECT_TRUE(clean());
}

TEST_F(RepositoryTest, WorkGoesFromStageToPush) {
  write(tree_ / "new.txt", "one\ntwo\n");
  write(tree_ / "made.o", "ignored");
  write(tree_ / "a.txt", "changed\n");
  fs::remove(tree_ / "src/b.txt");
  write(tree_ / "bin.dat", std::string("\0\1\2", 3));
  EXPECT_THAT(repository_.status(true, context_),
              UnorderedElementsAre(" M a.txt", " D src/b.txt", "?? new.txt", "?? bin.dat"));
  const auto changes = repository_.stage_all(context_);
  ASSERT_EQ(changes.size(), 4u);
  EXPECT_EQ(changes[0].path, "a.txt");
  EXPECT_EQ(changes[0].status, "M");
  EXPECT_EQ(changes[1].path, "bin.dat");
  EXPECT_FALSE(changes[1].added.has_value());
  EXPECT_EQ(changes[2].path, "new.txt");
  EXPECT_EQ(changes[2].added, 2);
  EXPECT_EQ(changes[3].status, "D");
  EXPECT_EQ(changes[3].removed, 1);

  const std::string message = "subject\n\nbody\n\nNecrocode-Task: app:1\n";
  const std::string made = repository_.commit(message, context_);
  EXPECT_EQ(repository_.commit_message(made, context_), message);
  EXPECT_THAT(repository_.diff(base_, made, context_), HasSubstr("GIT binary patch"));
  EXPECT_EQ(repository_.changes(base_, made, context_).size(), 4u);
  EXPECT_EQ(repository_.push(remote_.url(), made, "feature/x", "", context_), PushOutcome::kPushed);
  EXPECT_EQ(remote_.tip("feature/x"), made);
  EXPECT_EQ(shell(remote_.path(), "git log -1 --format='%an <%ae>' feature/x"),
            "necrocode <necrocode@localhost>");
}

TEST_F(RepositoryTest, CommitOfNothingIsAnError) {
  EXPECT_THAT(repository_.stage_all(context_), IsEmpty());
  EXPECT_THROW(repository_.commit("nothing", context_), GitError);
}

TEST_F(RepositoryTest, CheckOutOnlyTakesFullIdsAndSafeBranches) {
  EXPECT_THROW(repository_.check_out("main", "main", true, context_), GitError);
  EXPECT_THROW(repository_.check_out("-f", base_, true, context_), GitError);
  EXPECT_THROW(repository_.check_out("main", std::string(40, '1'), true, context_), GitError);
}

TEST_F(RepositoryTest, CheckOutWithoutCleanKeepsUntrackedFiles) {
  write(tree_ / "keep.txt", "kept");
  write(tree_ / "a.txt", "lost");
  repository_.check_out("topic", base_, false, context_);
  EXPECT_EQ(read(tree_ / "keep.txt"), "kept");
  EXPECT_EQ(read(tree_ / "a.txt"), "alpha\n");
  EXPECT_EQ(read(repository_.git_dir() / "HEAD"), "ref: refs/heads/topic\n");
}

TEST_F(RepositoryTest, CheckOutRemovesWhateverWasLeft) {
  const fs::path outside = folder_.path() / "outside";
  write(outside / "file", "outside");
  write(tree_ / "made.o", "ignored");
  write(tree_ / "deep/er/x", "untracked");
  shell(tree_, "git init -q nested && cd nested && echo x > y && git add y && git commit -q -m n");
  fs::remove_all(tree_ / "src");
  fs::create_symlink(outside, tree_ / "src");
  write(tree_ / "locked/file", "x");
  fs::permissions(tree_ / "locked", fs::perms::none);
  fs::permissions(tree_ / "bin", fs::perms::owner_read);
  fs::remove(tree_ / "a.txt");
  fs::create_directories(tree_ / "a.txt/b");
  shell(tree_, "mkfifo pipe");
  repository_.check_out("main", base_, true, context_);
  EXPECT_TRUE(clean());
  EXPECT_EQ(read(tree_ / "a.txt"), "alpha\n");
  EXPECT_EQ(read(tree_ / "src/b.txt"), "beta\n");
  EXPECT_EQ(read(outside / "file"), "outside");
  EXPECT_EQ(shell(tree_, "find . -mindepth 1 | sort | tr '\\n' ' '"),
            "./.gitignore ./a.txt ./bin ./bin/run ./link ./src ./src/b.txt ");
}

TEST_F(RepositoryTest, AForgedTimeOfASameSizeEditIsSeen) {
  struct stat before = {};
  ASSERT_EQ(::stat((tree_ / "a.txt").c_str(), &before), 0);
  write(tree_ / "a.txt", "ALPHA\n");
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(::utimensat(AT_FDCWD, (tree_ / "a.txt").c_str(), times, 0), 0);
  repository_.check_out("main", base_, true, context_);
  EXPECT_EQ(read(tree_ / "a.txt"), "alpha\n");
}

TEST_F(RepositoryTest, FlagsThatHideChangesAreNoHelp) {
  shell(tree_, "G='git --git-dir=" + repository_.git_dir().string() +
                   " --work-tree=.'; $G update-index --skip-worktree a.txt && $G update-index "
                   "--assume-unchanged src/b.txt && echo evil > a.txt && echo evil > src/b.txt");
  EXPECT_THROW(read_index(repository_.git_dir() / "index"), GitError);
  repository_.check_out("main", base_, true, context_);
  EXPECT_EQ(read(tree_ / "a.txt"), "alpha\n");
  EXPECT_EQ(read(tree_ / "src/b.txt"), "beta\n");
  EXPECT_TRUE(clean());
}

TEST_F(RepositoryTest, NothingOfAWorkTreeRuns) {
  const std::string program = canary_script();
  write(tree_ / ".gitattributes", "*.txt filter=evil diff=evil merge=evil\n");
  write(tree_ / ".gitconfig", "[core]\n\tfsmonitor = " + program + "\n");
  write(tree_ / ".git", "gitdir: nested/.git\n");
  shell(tree_, "git init -q nested && cd nested && git config core.fsmonitor " + program +
                   " && git config filter.evil.clean " + program +
                   " && echo x > y.txt && git add y.txt && " +
                   "git commit -q -m n && mkdir -p .git/hooks && cp " + program +
                   " .git/hooks/post-checkout; rm -f " + canary().string());
  use_all_verbs();
  EXPECT_FALSE(fs::exists(canary()));
  EXPECT_FALSE(fs::exists(tree_ / "nested"));
}

TEST_F(RepositoryTest, HooksInTheGitDirectoryDoNotRun) {
  for (const char* hook :
       {"pre-commit", "post-commit", "commit-msg", "prepare-commit-msg", "post-checkout",
        "pre-push", "post-index-change", "reference-transaction", "post-rewrite"}) {
    fs::create_directories(repository_.git_dir() / "hooks");
    fs::copy_file(canary_script(), repository_.git_dir() / "hooks" / hook);
  }
  write(tree_ / "x.txt", "x");
  use_all_verbs();
  EXPECT_FALSE(fs::exists(canary()));
}

TEST_F(RepositoryTest, AChangedConfigurationEndsTheCommandUnrun) {
  const std::string program = canary_script();
  const fs::path config = repository_.git_dir() / "config";
  const std::string ours = read(config);
  for (const std::string& planted :
       {"[core]\n\tfsmonitor = " + program + "\n", "[filter \"evil\"]\n\tclean = " + program + "\n",
        "[core]\n\tsshCommand = " + program + "\n", std::string("[include]\n\tpath = /tmp/x\n"),
        "[diff \"evil\"]\n\ttextconv = " + program + "\n", std::string("[core]\n\tworktree = /\n"),
        "[url \"ext::" + program + "\"]\n\tinsteadOf = /\n",
        std::string("[extensions]\n\tworktreeConfig = true\n"),
        std::string("\turl = \"x\\\n\tfsmonitor = y\"\n")}) {
    write(config, ours + planted);
    EXPECT_THROW(repository_.status(true, context_), SecurityError) << planted;
  }
  fs::remove(config);
  write(folder_.path() / "elsewhere", ours);
  fs::create_symlink(folder_.path() / "elsewhere", config);
  EXPECT_THROW(repository_.status(true, context_), SecurityError);
  fs::remove(config);
  EXPECT_THROW(repository_.status(true, context_), GitError);
  write(config, ours);
  write(repository_.git_dir() / "commondir", "/tmp\n");
  EXPECT_THROW(repository_.status(true, context_), SecurityError);
  EXPECT_FALSE(fs::exists(canary()));
}

TEST_F(RepositoryTest, ARepositoryPlantedAtASubmodulesPathDoesNotRun) {
  const std::string id = remote_.change("mkdir sub && git update-index --add --cacheinfo 160000," +
                                        base_ + ",sub && echo 1 > one");
  repository_.fetch(remote_.url(), {"+refs/heads/*:refs/remotes/origin/*"}, context_);
  repository_.check_out("main", id, true, context_);
  EXPECT_TRUE(fs::is_directory(tree_ / "sub"));
  const std::string program = canary_script();
  shell(tree_ / "sub",
        "git init -q . && git config core.fsmonitor " + program +
            " && git config filter.evil.clean " + program +
            " && echo '* filter=evil' > .gitattributes && echo x > y && git add -A && " +
            "git commit -q -m n && echo z > y; rm -f " + canary().string());
  write(tree_ / "x.txt", "x");
  repository_.status(true, context_);
  EXPECT_EQ(repository_.stage_all(context_).size(), 1u);
  repository_.commit("x", context_);
  repository_.check_out("main", id, true, context_);
  EXPECT_FALSE(fs::exists(canary()));
  EXPECT_TRUE(fs::is_empty(tree_ / "sub"));
  EXPECT_TRUE(clean());
}

TEST_F(RepositoryTest, ANestedRepositoryWithoutCommitsDoesNotStopStaging) {
  shell(tree_, "git init -q nested && echo x > nested/y && echo new > new.txt");
  const auto changes = repository_.stage_all(context_);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].path, "new.txt");
}

TEST_F(RepositoryTest, ATagNamedLikeARemoteBranchMisleadsNobody) {
  const std::string evil = remote_.change("echo evil > a.txt", "evil");
  shell(remote_.user(),
        "git tag origin/main evil && git tag main evil && git push -q origin --tags");
  repository_.fetch(remote_.url(), {"+refs/heads/*:refs/remotes/origin/*"}, context_);
  shell(repository_.git_dir(),
        "git --git-dir=. tag origin/main " + evil + " && git --git-dir=. tag main " + evil);
  EXPECT_EQ(repository_.resolve("refs/remotes/origin/main", context_), base_);
}

TEST_F(RepositoryTest, ReplacementObjectsAreIgnored) {
  const std::string evil = remote_.change("echo evil > a.txt", "evil");
  repository_.fetch(remote_.url(), {"+refs/heads/*:refs/remotes/origin/*"}, context_);
  shell(repository_.git_dir(), "git --git-dir=. replace " + base_ + " " + evil);
  fs::remove(repository_.git_dir() / "index");
  repository_.check_out("main", base_, true, context_);
  EXPECT_EQ(read(tree_ / "a.txt"), "alpha\n");
}

TEST_F(RepositoryTest, ALockThatWasLeftIsAnErrorThatSaysSo) {
  write(repository_.git_dir() / "index.lock", "");
  try {
    repository_.check_out("main", base_, true, context_);
    FAIL();
  } catch (const GitError& error) {
    EXPECT_THAT(error.info().detail, HasSubstr("index.lock"));
    EXPECT_EQ(error.info().operation, "reset");
  }
}

TEST_F(RepositoryTest, FetchWritesOnlyBelowOurOwnNames) {
  EXPECT_THROW(repository_.fetch(remote_.url(), {"+refs/heads/*:refs/heads/*"}, context_),
               SecurityError);
  EXPECT_THROW(repository_.fetch(remote_.url(), {"--upload-pack=x"}, context_), SecurityError);
  EXPECT_THROW(repository_.fetch(remote_.url(), {"main"}, context_), SecurityError);
  EXPECT_NO_THROW(repository_.fetch(remote_.url(), {base_ + ":refs/necrocode/base"}, context_));
  EXPECT_EQ(repository_.resolve("refs/necrocode/base", context_), base_);
  EXPECT_NO_THROW(repository_.fetch(remote_.url(), {base_}, context_));
}

TEST_F(RepositoryTest, FetchWithPruneForgetsRemovedBranches) {
  remote_.change("echo x > x", "gone");
  const std::vector<std::string> all = {"+refs/heads/*:refs/remotes/origin/*"};
  repository_.fetch(remote_.url(), all, context_, true);
  EXPECT_TRUE(repository_.resolve("refs/remotes/origin/gone", context_));
  shell(remote_.path(), "git branch -D gone");
  repository_.fetch(remote_.url(), all, context_, true);
  EXPECT_FALSE(repository_.resolve("refs/remotes/origin/gone", context_));
}

TEST_F(RepositoryTest, ResolveOfTheUnknownIsNothing) {
  EXPECT_FALSE(repository_.resolve("refs/heads/none", context_));
  EXPECT_FALSE(repository_.resolve(std::string(40, '1'), context_));
  EXPECT_FALSE(repository_.resolve("--all", context_));
  EXPECT_FALSE(repository_.resolve("", context_));
}

TEST_F(RepositoryTest, PushToldToExpectAnotherTipIsStale) {
  const std::string other = remote_.change("echo other > a.txt", "topic");
  write(tree_ / "a.txt", "mine\n");
  repository_.stage_all(context_);
  const std::string mine = repository_.commit("mine", context_);
  EXPECT_EQ(repository_.push(remote_.url(), mine, "topic", "", context_), PushOutcome::kStale);
  EXPECT_EQ(repository_.push(remote_.url(), mine, "topic", base_, context_), PushOutcome::kStale);
  EXPECT_EQ(remote_.tip("topic"), other);
  EXPECT_EQ(repository_.push(remote_.url(), mine, "topic", other, context_), PushOutcome::kPushed);
  EXPECT_EQ(remote_.tip("topic"), mine);
  EXPECT_EQ(repository_.push(remote_.url(), mine, "topic", other, context_),
            PushOutcome::kUpToDate);
}

TEST_F(RepositoryTest, PushRefusedByAHookOfTheRemoteIsRejected) {
  write(remote_.path() / "hooks/update", "#!/bin/sh\nexit 1\n");
  fs::permissions(remote_.path() / "hooks/update", fs::perms::owner_all);
  write(tree_ / "a.txt", "mine\n");
  repository_.stage_all(context_);
  const std::string mine = repository_.commit("mine", context_);
  EXPECT_EQ(repository_.push(remote_.url(), mine, "topic", "", context_), PushOutcome::kRejected);
}

TEST_F(RepositoryTest, PushToNowhereIsAnError) {
  EXPECT_THROW(repository_.push(remote_.url() + "-none", base_, "topic", "", context_), GitError);
  EXPECT_THROW(repository_.push("ext::sh", base_, "topic", "", context_), SecurityError);
  EXPECT_THROW(repository_.push(remote_.url(), base_, "a..b", "", context_), GitError);
}

TEST_F(RepositoryTest, MergeJoinsSeveralCommits) {
  const std::string one = remote_.change("echo 1 > one", "one");
  shell(remote_.user(), "git checkout -q main");
  const std::string two = remote_.change("git reset -q --hard " + base_ + "; echo 2 > two", "two");
  const std::string three =
      remote_.change("git reset -q --hard " + base_ + "; echo 3 > three", "three");
  repository_.fetch(remote_.url(), {"+refs/heads/*:refs/remotes/origin/*"}, context_);
  std::vector<std::string> conflicts;
  const auto merged = repository_.merge({one, two, three, base_}, "merge", conflicts, context_);
  ASSERT_TRUE(merged.has_value());
  EXPECT_THAT(conflicts, IsEmpty());
  repository_.check_out("merged", *merged, true, context_);
  EXPECT_EQ(read(tree_ / "one") + read(tree_ / "two") + read(tree_ / "three"), "1\n2\n3\n");
  EXPECT_EQ(shell(repository_.git_dir(), "git --git-dir=. log -1 --format=%P " + *merged),
            one + " " + two + " " + three);
  EXPECT_EQ(repository_.merge({base_, one, base_}, "m", conflicts, context_), one);
  EXPECT_EQ(repository_.merge({two}, "m", conflicts, context_), two);
}

TEST_F(RepositoryTest, MergeOfConflictingCommitsNamesThePaths) {
  const std::string one = remote_.change("echo 1 > a.txt", "one");
  const std::string two =
      remote_.change("git reset -q --hard " + base_ + "; echo 2 > a.txt; echo 2 > two", "two");
  repository_.fetch(remote_.url(), {"+refs/heads/*:refs/remotes/origin/*"}, context_);
  std::vector<std::string> conflicts;
  EXPECT_FALSE(repository_.merge({one, two}, "merge", conflicts, context_));
  EXPECT_THAT(conflicts, ElementsAre("a.txt"));
}

TEST_F(RepositoryTest, RemoteListingTellsBranchesAndHead) {
  const std::string topic = remote_.change("echo 1 > one", "topic");
  EXPECT_THAT(git_.remote_refs(remote_.url(), context_),
              UnorderedElementsAre(std::pair("HEAD", base_), std::pair("refs/heads/main", base_),
                                   std::pair("refs/heads/topic", topic)));
  EXPECT_EQ(git_.remote_head_branch("file://" + remote_.url(), context_), "main");
  EXPECT_THROW(git_.remote_refs(remote_.url() + "-none", context_), GitError);
}

TEST_F(RepositoryTest, AnObjectFolderElsewhereIsUsed) {
  fs::create_directories(folder_.path() / "second");
  const Repository second(git_, folder_.path() / "second-git", folder_.path() / "second",
                          repository_.git_dir() / "objects");
  second.init({}, context_);
  second.check_out("main", base_, true, context_);
  EXPECT_EQ(read(folder_.path() / "second/a.txt"), "alpha\n");
  const Repository third(git_, folder_.path() / "third-git", folder_.path() / "second");
  third.init({repository_.git_dir() / "objects"}, context_);
  EXPECT_EQ(third.resolve(base_, context_), base_);
}

TEST_F(RepositoryTest, ACancelledCommandIsATimeoutError) {
  std::stop_source stop;
  stop.request_stop();
  CallContext cancelled;
  cancelled.stop = stop.get_token();
  try {
    repository_.run({"status"}, cancelled);
    FAIL();
  } catch (const TimeoutError& error) {
    EXPECT_EQ(error.info().end, CallEnd::kCancelled);
  }
}

TEST(Index, MalformedFilesAreRefused) {
  const TemporaryDirectory folder;
  const fs::path file = folder.path() / "index";
  using namespace std::string_literals;
  for (const std::string& bytes : {""s, "DIRC"s, "DIRC\0\0\0\2\0\0\0\1"s, "DIRC\0\0\0\4\0\0\0\0"s,
                                   "DIRC\0\0\0\2\xff\xff\xff\xff"s, "XXXX\0\0\0\2\0\0\0\0"s,
                                   "DIRC\0\0\0\2\0\0\0\0link\0\0\0\0"s + std::string(20, 'x')}) {
    write(file, bytes);
    EXPECT_THROW(read_index(file), GitError) << bytes;
  }
  write(file, "DIRC\0\0\0\2\0\0\0\0"s + std::string(20, 'x'));
  EXPECT_THAT(read_index(file), IsEmpty());
  EXPECT_THROW(read_index(folder.path() / "none"), StorageError);
}

}  // namespace
}  // namespace necrocode::git
