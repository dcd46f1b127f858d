// The work tree: what it was, what the program changed, what is put back.
#include <sys/stat.h>

#include "lent_fixture.hpp"

namespace necrocode::exec {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

INSTANTIATE_TEST_SUITE_P(, LentTreeTest, testing::Bool(), lent_name);

std::vector<std::string> paths(const TreeAfter& after) {
  std::vector<std::string> told;
  for (const git::FileChange& file : after.files) told.push_back(file.status + " " + file.path);
  return told;
}

TEST_P(LentTreeTest, CleanCloneIsItsCommit) {
  lend();
  EXPECT_EQ(tree_->root(), root_);
  EXPECT_EQ(tree_->before().branch, "main");
  EXPECT_EQ(tree_->before().head, id("HEAD"));
  EXPECT_EQ(tree_->before().tree, id("HEAD^{tree}"));
  EXPECT_THAT(tree_->before().dirty, IsEmpty());
  EXPECT_EQ(tree_->users_work(context_), "");
  const TreeAfter after = tree_->look(context_);
  EXPECT_EQ(after.tree, tree_->before().tree);
  EXPECT_THAT(after.files, IsEmpty());
  EXPECT_EQ(after.diff, "");
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_THAT(tree_->put_back(), IsEmpty());
}

TEST_P(LentTreeTest, ProgramSeesTheCloneAsItsUserDoes) {
  write(home() / ".gitconfig", "[user]\n\tname = \"Ann \\\" Other\"\n\temail = ann@localhost\n");
  write(home() / ".config/git/ignore", "*.mine\n");
  shell(root_,
        "git tag v1 && git branch other && git branch -q -u origin/main && "
        "git remote add up https://ann:pa55word@host.invalid/x.git && "
        "echo dirty >> a.txt && echo new > new.txt && echo x > x.mine && echo s > s.txt && "
        "git add s.txt && echo 'info' >> .git/info/exclude && echo i > info");
  lend();
  EXPECT_THAT(tree_->before().dirty, ElementsAre("a.txt", "new.txt", "s.txt"));
  const std::string expected =
      shell(root_, "HOME='" + home().string() +
                       "' && unset "
                       "GIT_CONFIG_GLOBAL && git status --porcelain --branch");
  EXPECT_EQ(program("git status --porcelain --branch"), expected);
  EXPECT_EQ(program("git diff --cached --name-only"), "s.txt");
  EXPECT_EQ(program("git log --format=%s"), "first");
  EXPECT_EQ(program("git tag"), "v1");
  EXPECT_EQ(program("git config user.name"), "Ann \" Other");
  EXPECT_EQ(program("git config remote.up.url"), "https://host.invalid/x.git");
  EXPECT_EQ(program("git rev-parse --abbrev-ref main@{upstream}"), "origin/main");
  EXPECT_EQ(program("git rev-parse --show-toplevel"), root_.string());
  EXPECT_EQ(status(), expected);
}

TEST_P(LentTreeTest, ChangeIsMeasuredAgainstWhatWasThere) {
  shell(root_, "echo mine >> a.txt && echo untracked > u.txt && rm src/b.txt");
  lend();
  EXPECT_THAT(tree_->before().dirty, ElementsAre("a.txt", "src/b.txt", "u.txt"));
  program("echo theirs > t.txt; echo more >> u.txt; chmod +x a.txt; touch made.o");
  const TreeAfter after = tree_->look(context_);
  EXPECT_THAT(paths(after), ElementsAre("M a.txt", "A t.txt", "M u.txt"));
  EXPECT_THAT(after.diff, AllOf(HasSubstr("+theirs"), HasSubstr("+more"), HasSubstr("new mode"),
                                Not(HasSubstr("+mine"))));
  EXPECT_EQ(status(), "## main\n M a.txt\n D src/b.txt\n?? t.txt\n?? u.txt");
  EXPECT_EQ(tree_->look(context_).tree, after.tree);
}

TEST_P(LentTreeTest, UsersWorkIsAPatchThatApplies) {
  shell(root_, "echo mine >> a.txt && printf 'x\\0y' > binary && git add binary && rm link");
  lend();
  write(folder_.path() / "patch", tree_->users_work(context_));
  shell(folder_.path(), "git clone -q '" + remote_.url() +
                            "' fresh && cd fresh && "
                            "git apply ../patch");
  EXPECT_EQ(shell(folder_.path() / "fresh", "git add -A && git write-tree"), tree_->before().tree);
}

TEST_P(LentTreeTest, RequireCleanNamesWhatIsNot) {
  EXPECT_EQ(refusal<RunnerError>({}, true), "nothing");
  tree_.reset();
  write(root_ / "u.txt", "x");
  EXPECT_THAT(refusal<WorkspacePreparationError>({}, true), HasSubstr("u.txt"));
}

TEST_P(LentTreeTest, SubfolderLendsTheWholeTree) {
  lend(root_ / "src");
  EXPECT_EQ(tree_->root(), root_);
  program("cd src && echo c > c.txt && git add c.txt && git commit -q -m c");
  EXPECT_THAT(paths(tree_->look(context_)), ElementsAre("A src/c.txt"));
  EXPECT_EQ(take_some().branch, "main");
  EXPECT_EQ(status(), "## main");
}

TEST_P(LentTreeTest, WhatIsNoCloneWithACommitIsRefused) {
  fs::create_directory(folder_.path() / "none");
  EXPECT_THAT(refusal<TaskContextValidationError>(folder_.path() / "none"),
              HasSubstr("in no git clone"));
  EXPECT_THAT(refusal<TaskContextValidationError>(root_ / "nowhere"), HasSubstr("no such folder"));
  EXPECT_THAT(refusal<TaskContextValidationError>(root_ / ".git/objects"),
              HasSubstr("in a git directory"));
  shell(folder_.path(),
        "git init -q unborn && git init -q --object-format=sha256 long && "
        "cd long && git commit -q --allow-empty -m x");
  EXPECT_THAT(refusal<TaskContextValidationError>(folder_.path() / "unborn"),
              HasSubstr("no commit"));
  EXPECT_THAT(refusal<TaskContextValidationError>(folder_.path() / "long"), HasSubstr("SHA-1"));
  shell(root_, "git sparse-checkout set src");
  EXPECT_THAT(refusal<TaskContextValidationError>(), HasSubstr("sparse"));
  shell(root_, "git sparse-checkout disable");
}

TEST_P(LentTreeTest, CloneInUseIsRefused) {
  lend();
  const TemporaryDirectory scratch;
  EXPECT_THROW(LentTree(git_, root_, scratch.path(), false, GetParam(), context_),
               WorkspacePreparationError);
  tree_.reset();
  write(root_ / ".git/index.lock", "");
  EXPECT_THAT(refusal<WorkspacePreparationError>(), HasSubstr("index.lock"));
  fs::remove(root_ / ".git/index.lock");
  shell(root_,
        "git checkout -q -b side && echo x > a.txt && git commit -q -a -m x && "
        "git checkout -q main && echo y > a.txt && git commit -q -a -m y && "
        "! git merge -q side");
  EXPECT_THAT(refusal<WorkspacePreparationError>(), HasSubstr("a merge"));
}

TEST_P(LentTreeTest, FlagsInTheIndexHideNothing) {
  shell(root_,
        "git update-index --assume-unchanged a.txt && "
        "git update-index --skip-worktree src/b.txt && echo hidden >> a.txt && "
        "echo hidden >> src/b.txt");
  lend();
  EXPECT_THAT(tree_->before().dirty, ElementsAre("a.txt", "src/b.txt"));
}

TEST_P(LentTreeTest, StrangeFilesAreNoChange) {
  lend();
  program(
      "mkfifo pipe; rm src/b.txt; mkfifo src/b.txt; ln -s /etc/passwd out; "
      "rm -r bin; ln -s /etc bin; "
      "mkdir nested && cd nested && env -u GIT_DIR -u GIT_WORK_TREE git init -q . && touch f");
  const TreeAfter after = tree_->look(context_);
  EXPECT_THAT(paths(after), UnorderedElementsAre("D src/b.txt", "A out", "A bin", "D bin/run"));
  EXPECT_THAT(after.diff, Not(HasSubstr("root:")));
}

TEST_P(LentTreeTest, RepositoryAroundTrackedFilesHidesNothing) {
  lend();
  program(
      "unset GIT_DIR GIT_WORK_TREE; cd src && git init -q . && "
      "git config core.fsmonitor 'touch /tmp/necrocode-ran' && echo x > b.txt && echo y > n");
  EXPECT_THAT(paths(tree_->look(context_)), ElementsAre("M src/b.txt", "A src/n"));
}

TEST_P(LentTreeTest, EmptiedTreeIsAChange) {
  lend();
  program("rm -r a.txt src bin link .gitignore");
  EXPECT_EQ(tree_->look(context_).files.size(), 5);
  EXPECT_EQ(tree_->look(context_).files.size(), 5);
}

TEST_P(LentTreeTest, FiltersOfTheProgramAreNotRun) {
  const std::string ran = (folder_.path() / "ran").string();
  shell(root_, "git config filter.x.clean 'touch " + ran +
                   "' && "
                   "git config core.fsmonitor 'touch " +
                   ran + "'");
  lend();
  program("echo '* filter=x diff=x' > .gitattributes; git config filter.x.clean 'touch " + ran +
          "'; git config core.fsmonitor 'touch " + ran + "'; echo x > a.txt");
  tree_->look(context_);
  tree_->put_back();
  take();
  EXPECT_FALSE(fs::exists(ran));
  shell(root_, "git config --remove-section filter.x && git config --unset core.fsmonitor");
}

TEST_P(LentTreeTest, ClosedFilesAreOpened) {
  write(root_ / "mine", "x");
  fs::permissions(root_ / "mine", fs::perms::none);
  lend();
  program("echo x > a.txt; chmod 0 a.txt; mkdir d; echo f > d/f; chmod 0 d; chmod 0 src");
  const TreeAfter after = tree_->look(context_);
  EXPECT_THAT(paths(after), ElementsAre("M a.txt", "A d/f"));
  EXPECT_THAT(after.unread, IsEmpty());
  const auto permissions = [&](const char* path) { return fs::status(root_ / path).permissions(); };
  EXPECT_EQ(permissions("a.txt"), fs::perms::owner_read);
  EXPECT_EQ(permissions("d"), fs::perms::owner_all);
  EXPECT_EQ(permissions("mine"), fs::perms::none);
  fs::permissions(root_ / "src", fs::perms(0755));
}

TEST_P(LentTreeTest, RestoreGivesProtectedFilesBack) {
  shell(root_,
        "mkdir -p tests/deep && echo t > tests/t.py && echo d > tests/deep/d.py && "
        "ln -s t.py tests/link && echo '*.pyc' >> .gitignore && "
        "printf '#!/bin/sh\\n' > tests/run && chmod +x tests/run && git add -A && "
        "git commit -q -m tests && echo dirty >> tests/t.py && echo mine > tests/mine.pyc");
  lend();
  const std::string before = tree_->before().tree;
  program(
      "echo cheat > tests/t.py; rm -r tests/deep; echo x > tests/deep; rm tests/link; "
      "ln -s /etc/passwd tests/link; chmod -x tests/run; echo p > tests/conftest.py; "
      "echo '*.inc' >> .gitignore; echo i > tests/hidden.inc; "
      "mkdir tests/sub && cd tests/sub && env -u GIT_DIR -u GIT_WORK_TREE git init -q . && "
      "echo n > n.py; cd ../..; echo work > a.txt");
  const auto restored = tree_->restore({"tests/**"}, context_);
  EXPECT_THAT(restored,
              testing::IsSupersetOf({"tests/conftest.py", "tests/deep/d.py", "tests/hidden.inc",
                                     "tests/link", "tests/run", "tests/sub/n.py", "tests/t.py"}));
  EXPECT_EQ(read(root_ / "tests/t.py"), "t\ndirty\n");
  EXPECT_EQ(read(root_ / "tests/mine.pyc"), "mine\n");
  EXPECT_EQ(fs::read_symlink(root_ / "tests/link"), "t.py");
  EXPECT_FALSE(fs::exists(root_ / "tests/hidden.inc"));
  EXPECT_FALSE(fs::exists(root_ / "tests/sub/n.py"));
  EXPECT_THAT(paths(tree_->look(context_)), ElementsAre("M .gitignore", "M a.txt"));
  EXPECT_THAT(tree_->restore({"tests/**"}, context_), IsEmpty());
  EXPECT_EQ(before, tree_->before().tree);
}

TEST_P(LentTreeTest, RestoreIsNotLedOut) {
  lend();
  const fs::path outside = folder_.path() / "outside";
  write(outside / "b.txt", "precious");
  program("rm -r src; ln -s '" + outside.string() + "' src");
  EXPECT_THAT(tree_->restore({"src/**"}, context_), ElementsAre("src/b.txt"));
  EXPECT_EQ(read(outside / "b.txt"), "precious");
  EXPECT_EQ(read(root_ / "src/b.txt"), "beta\n");
  EXPECT_EQ(status(), "## main");
}

TEST_P(LentTreeTest, PlantedFilesAreToldAndTakenOut) {
  lend();
  program(
      "G=$(git rev-parse --git-dir); mkdir -p $G/hooks $G/modules; echo x > $G/hooks/pre-commit;"
      "git config alias.x '!touch /tmp/x'; echo / > $G/objects/info/alternates; "
      "echo '* filter=x' > $G/info/attributes; echo ../x > $G/commondir; "
      "mkdir -p $G/modules/m && echo x > $G/modules/m/config; ");
  EXPECT_THAT(tree_->put_back(),
              testing::IsSupersetOf({".git/commondir", ".git/config", ".git/hooks/pre-commit",
                                     ".git/info/attributes", ".git/modules/m/config",
                                     ".git/objects/info/alternates"}));
  EXPECT_THAT(tree_->put_back(), IsEmpty());
  EXPECT_EQ(program("git log --format=%s"), "first");
  EXPECT_FALSE(fs::exists(root_ / ".git/hooks/pre-commit"));
  EXPECT_EQ(status(), "## main");
}

TEST_P(LentTreeTest, PlantedFilesBeyondCountAreTakenOutToo) {
  if (GetParam()) GTEST_SKIP() << "the copy is the same";
  lend();
  program(
      "mkdir -p $(git rev-parse --git-dir)/hooks && cd $(git rev-parse --git-dir)/hooks && "
      "seq 100500 | xargs touch");
  const std::vector<std::string> told = tree_->put_back();
  EXPECT_THAT(told, testing::Contains(".git/(99500 further files)"));
  EXPECT_EQ(told.size(), 1001);
  EXPECT_TRUE(fs::is_empty(copy() / "hooks"));
}

TEST_P(LentTreeTest, RemovedCopyIsMadeAnew) {
  lend();
  program("cd $(git rev-parse --absolute-git-dir) && rm -rf -- * .[!.]* || true");
  EXPECT_THAT(tree_->put_back(), testing::Contains(".git (removed)"));
  EXPECT_THAT(tree_->put_back(), IsEmpty());
  EXPECT_EQ(program("git status --porcelain --branch"), "## main");
  EXPECT_EQ(take(), std::nullopt);
}

TEST_P(LentTreeTest, RefsThatWereMovedAreTold) {
  shell(root_, "git tag v1 && git tag v2 && git branch other");
  lend();
  program("git tag -d v1; git commit -q --allow-empty -m x; git tag -f v2; git branch -f other");
  EXPECT_THAT(tree_->put_back(),
              ElementsAre("refs/heads/other (moved there)", "refs/tags/v1 (deleted there)",
                          "refs/tags/v2 (moved there)"));
}

// Where nothing covers it, the program reaches the clone's own git directory.
TEST_P(LentTreeTest, ClonesOwnGitDirectoryIsPutBack) {
  if (GetParam()) GTEST_SKIP() << "it is covered";
  shell(root_,
        "git branch other && git pack-refs --all && echo hook > .git/hooks/mine && "
        "chmod +x .git/hooks/mine && ln -s ../x .git/hooks/linked");
  lend();
  const std::string expected = shell(root_,
                                     "git for-each-ref && cat .git/config .git/HEAD && "
                                     "ls -lR --time-style=+ .git/hooks .git/info");
  program(
      "unset GIT_DIR GIT_WORK_TREE; git config core.fsmonitor /tmp/x; echo y > .git/hooks/mine;"
      "rm .git/hooks/linked; echo x > .git/hooks/pre-commit; git commit -q --allow-empty -m x "
      "|| git -c user.name=x -c user.email=x -c core.fsmonitor= commit -q --no-verify "
      "--allow-empty -m x; git branch -D -q other; git checkout -q -b evil; "
      "mkdir -p .git/refs/replace; echo x > .git/refs/replace/x; chmod -x .git/hooks/mine; "
      "echo /tmp > .git/objects/info/alternates");
  std::string told;
  for (const std::string& line : tree_->put_back()) told += line + "\n";
  for (const char* planted :
       {"HEAD (was at ref: refs/heads/evil)", "config", "hooks/linked", "hooks/mine",
        "hooks/pre-commit", "objects/info/alternates", "packed-refs", "refs/heads/evil (was at ",
        "refs/replace/x (was at x)"}) {
    EXPECT_THAT(told, HasSubstr(std::string("the clone's ") + planted));
  }
  EXPECT_EQ(shell(root_,
                  "git for-each-ref && cat .git/config .git/HEAD && "
                  "ls -lR --time-style=+ .git/hooks .git/info"),
            expected);
  EXPECT_EQ(status(), "## main");
  EXPECT_THAT(tree_->put_back(), IsEmpty());
}

TEST_P(LentTreeTest, ReplacedGitDirectoryIsPutBack) {
  if (GetParam()) GTEST_SKIP() << "it is covered";
  lend();
  program(
      "unset GIT_DIR GIT_WORK_TREE; mv .git elsewhere && git init -q . && "
      "git config core.fsmonitor /tmp/x");
  EXPECT_THAT(tree_->put_back(), ElementsAre("the clone's .git"));
  EXPECT_FALSE(fs::exists(root_ / "elsewhere"));
  EXPECT_EQ(status(), "## main");
  EXPECT_EQ(id("HEAD"), tree_->before().head);
  EXPECT_THAT(tree_->look(context_).files, IsEmpty());

  shell(root_, "git worktree add -q ../linked -b linked");
  root_ = fs::canonical(remote_.root() / "linked");
  tree_.reset();
  lend();
  program("unset GIT_DIR GIT_WORK_TREE; rm .git && git init -q .");
  EXPECT_THAT(tree_->put_back(), ElementsAre("the clone's .git"));
  EXPECT_EQ(status(), "## linked");
}

TEST_P(LentTreeTest, RemovedFolderOfTheCopyIsMadeAnew) {
  if (GetParam()) GTEST_SKIP() << "it is a mount";
  lend();
  program("rm -rf $GIT_DIR");
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_THAT(tree_->put_back(), testing::Contains(".git (removed)"));
  EXPECT_EQ(program("git status --porcelain --branch"), "## main");
  program("echo w > w && git add w && git commit -q -m w");
  EXPECT_EQ(take_some().branch, "main");
  EXPECT_EQ(status(), "## main");
}

TEST_P(LentTreeTest, RemoteUrlHasNoCredentials) {
  lend();
  EXPECT_EQ(tree_->remote_url(), remote_.url());
  shell(root_,
        "git remote add up https://ann:pa55@host.invalid/x.git && "
        "git config branch.main.remote up");
  tree_.reset();
  lend();
  EXPECT_EQ(tree_->remote_url(), "https://host.invalid/x.git");
  shell(root_,
        "git remote set-url up up:x.git && "
        "git config url.ssh://git:pw@host.invalid/.insteadOf up:");
  tree_.reset();
  lend();
  EXPECT_EQ(tree_->remote_url(), "ssh://git@host.invalid/x.git");
  shell(root_, "git remote remove up && git remote remove origin");
  tree_.reset();
  lend();
  EXPECT_THROW(tree_->remote_url(), TaskContextValidationError);
}

TEST_P(LentTreeTest, TenThousandFiles) {
  shell(root_,
        "mkdir many && cd many && seq 10000 | xargs touch && git add . && "
        "git commit -q -m many");
  lend();
  EXPECT_THAT(tree_->before().dirty, IsEmpty());
  program("cd many && rm ?000 && git add -A . && git commit -q -m fewer");
  EXPECT_EQ(tree_->look(context_).files.size(), 9);
  EXPECT_EQ(take_some().count, 1);
  EXPECT_EQ(status(), "## main");
}

}  // namespace
}  // namespace necrocode::exec
