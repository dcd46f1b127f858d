// The program's commits, and what becomes of them in the user's clone.
#include "lent_fixture.hpp"

namespace necrocode::exec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using TakenCommitsTest = LentTreeTest;
INSTANTIATE_TEST_SUITE_P(, TakenCommitsTest, testing::Bool(), lent_name);

const std::string kCommit = "echo work > w.txt && git add w.txt && git commit -q -m work";

TEST_P(TakenCommitsTest, GoOntoTheBranchWithTheIndex) {
  lend();
  const std::string first = id("HEAD");
  program(kCommit + " && echo 2 >> w.txt && git commit -q -a -m again");
  const TakenCommits taken = take_some();
  EXPECT_EQ(taken.branch, "main");
  EXPECT_EQ(taken.from, first);
  EXPECT_EQ(taken.to, id("main"));
  EXPECT_EQ(taken.count, 2);
  EXPECT_EQ(taken.moved_aside, "");
  EXPECT_EQ(status(), "## main");
  EXPECT_EQ(branches(), "main ");
  EXPECT_EQ(shell(root_, "git log --format=%s"), "again\nwork\nfirst");
  EXPECT_EQ(shell(root_, "git log -g --format='%gs %H' -1 main"),
            "necrocode exec: 2 commits " + taken.to);
  EXPECT_EQ(id("main@{1}"), first);
  EXPECT_EQ(id("HEAD@{1}"), first);
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_THAT(tree_->put_back(), IsEmpty());
  EXPECT_EQ(id("main"), taken.to);
}

TEST_P(TakenCommitsTest, KeepWhatTheUserStaged) {
  shell(root_,
        "echo staged >> a.txt && git add a.txt && echo dirty >> src/b.txt && "
        "echo n > n.txt && git add -N n.txt");
  lend();
  program(
      "echo work > w.txt && git commit -q w.txt -m work 2>/dev/null || "
      "{ git add w.txt && git commit -q -m work w.txt; }");
  ASSERT_EQ(take_some().branch, "main");
  EXPECT_EQ(status(), "## main\nM  a.txt\n A n.txt\n M src/b.txt");
  EXPECT_EQ(shell(root_, "git show --format= --name-only"), "w.txt");
}

TEST_P(TakenCommitsTest, StandAsideForWhatTheUserStaged) {
  shell(root_, "echo staged > w.txt && git add w.txt");
  lend();
  const std::string first = id("main");
  program(kCommit);
  const TakenCommits taken = take_some();
  EXPECT_EQ(taken.branch, "necrocode/exec-1");
  EXPECT_THAT(taken.moved_aside, HasSubstr("staged"));
  EXPECT_EQ(id("main"), first);
  EXPECT_EQ(status(), "## main\nAM w.txt");
}

TEST_P(TakenCommitsTest, OfASecondRoundGoOn) {
  lend();
  program(kCommit);
  const TakenCommits one = take_some();
  tree_->put_back();
  program("echo more >> w.txt && git commit -q -a -m more");
  const TakenCommits two = take_some();
  EXPECT_EQ(two.from, one.to);
  EXPECT_EQ(two.count, 1);
  EXPECT_EQ(status(), "## main");
  program("git commit -q --amend -m other");
  const TakenCommits three = take_some();
  EXPECT_EQ(three.branch, "necrocode/exec-1");
  program("git commit -q --allow-empty -m four");
  EXPECT_EQ(take_some().branch, "necrocode/exec-1");
  EXPECT_EQ(shell(root_, "git log -1 --format=%s necrocode/exec-1"), "four");
}

TEST_P(TakenCommitsTest, OnANewBranchKeepItsName) {
  lend();
  const std::string first = id("main");
  program("git checkout -q -b feature/x && " + kCommit);
  const TakenCommits taken = take_some();
  EXPECT_EQ(taken.branch, "feature/x");
  EXPECT_EQ(taken.moved_aside, "");
  EXPECT_EQ(id("main"), first);
  EXPECT_EQ(branches(), "feature/x main ");
  EXPECT_EQ(status(), "## main\n?? w.txt");
}

TEST_P(TakenCommitsTest, OnABranchWithTheNameOfSomethingElseGoAside) {
  shell(root_, "git tag v1");
  const std::string head = id("HEAD");
  for (const std::string& name :
       {std::string("origin/main"), std::string("origin"), std::string("heads/main"),
        std::string("FETCH_HEAD"), std::string("stash"), std::string("v1"), head}) {
    tree_.reset();
    lend();
    program("G=$(git rev-parse --git-dir); echo " + name +
            " > w.txt; git add w.txt; git commit -q -m w" + "; mkdir -p $(dirname $G/refs/heads/" +
            name + "); git rev-parse HEAD > $G/refs/heads/" + name +
            "; git reset -q --hard HEAD~1; echo 'ref: refs/heads/" + name + "' > $G/HEAD");
    const TakenCommits taken = take_some();
    EXPECT_THAT(taken.branch, testing::StartsWith("necrocode/exec-1")) << name;
    EXPECT_THAT(taken.moved_aside, HasSubstr("\"" + name + "\"")) << name;
  }
  tree_.reset();
  lend();
  program("git checkout -q -b fine; git commit -q --allow-empty -m x; git branch origin/x");
  EXPECT_EQ(take_some().branch, "fine");
  EXPECT_THAT(tree_->put_back(),
              testing::Contains("refs/heads/origin/x (not taken: \"origin/x\" could be mistaken "
                                "for a branch of a remote)"));
  EXPECT_THAT(branches(), testing::Not(HasSubstr("origin")));
}

TEST_P(TakenCommitsTest, OfSeveralBranchesAllCome) {
  shell(root_, "git commit -q --allow-empty -m 2 && git commit -q --allow-empty -m 3");
  lend();
  program(kCommit +
          " && git checkout -q -b one && git commit -q --allow-empty -m 1 && "
          "git checkout -q --detach && git branch old main~2 && git branch same main");
  const TakenCommits taken = take_some();
  EXPECT_EQ(taken.branch, "necrocode/exec-1");
  EXPECT_EQ(taken.count, 2);
  EXPECT_EQ(branches(), "main necrocode/exec-1 one same ");
  EXPECT_EQ(status(), "## main\n?? w.txt");
}

TEST_P(TakenCommitsTest, AmendingTheUsersCommitGoAside) {
  lend();
  const std::string first = id("main");
  program("echo x > a.txt && git commit -q -a --amend -m amended");
  const TakenCommits taken = take_some();
  EXPECT_EQ(taken.branch, "necrocode/exec-1");
  EXPECT_THAT(taken.moved_aside, HasSubstr("rewrote"));
  EXPECT_EQ(id("main"), first);
  EXPECT_EQ(id("necrocode/exec-1"), taken.to);
  EXPECT_EQ(status(), "## main\n M a.txt");
}

TEST_P(TakenCommitsTest, NoneWhenItOnlyWentBack) {
  shell(root_, "echo 2 >> a.txt && git commit -q -a -m second");
  lend();
  const std::string second = id("main");
  program("git reset -q --hard HEAD~1");
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_EQ(id("main"), second);
  EXPECT_EQ(status(), "## main\n M a.txt");
}

TEST_P(TakenCommitsTest, OnAnotherBranchOfTheUsersGoAside) {
  shell(root_, "git branch other");
  lend();
  const std::string other = id("other");
  program("git checkout -q other && " + kCommit);
  EXPECT_EQ(take_some().branch, "necrocode/exec-1");
  EXPECT_EQ(id("other"), other);
  EXPECT_EQ(id("main"), other);
  EXPECT_EQ(status(), "## main\n?? w.txt");
}

TEST_P(TakenCommitsTest, OfADetachedHeadGoAside) {
  shell(root_, "git checkout -q --detach");
  lend();
  EXPECT_EQ(tree_->before().branch, "");
  program(kCommit);
  EXPECT_EQ(take_some().branch, "necrocode/exec-1");
  EXPECT_EQ(status(), "## HEAD (no branch)\n?? w.txt");
}

TEST_P(TakenCommitsTest, GoAsideWhenTheUserWentOn) {
  lend();
  program(kCommit);
  shell(root_, "git commit -q --allow-empty -m meanwhile && git branch necrocode/exec-1 HEAD~1");
  const std::string now = id("main");
  const TakenCommits taken = take_some();
  EXPECT_EQ(taken.branch, "necrocode/exec-1-2");
  EXPECT_THAT(taken.moved_aside, HasSubstr("has moved"));
  EXPECT_EQ(id("main"), now);
  tree_.reset();
  lend();
  program("echo 3 > 3.txt && git add 3.txt && git commit -q -m 3");
  shell(root_, "git checkout -q -b elsewhere");
  EXPECT_THAT(take_some().moved_aside, HasSubstr("not checked out any more"));
  tree_.reset();
  shell(root_, "git checkout -q main");
  lend();
  program("echo 4 > 4.txt && git add 4.txt && git commit -q -m 4");
  write(root_ / ".git/index.lock", "");
  EXPECT_THAT(take_some().moved_aside, HasSubstr("index.lock"));
  fs::remove(root_ / ".git/index.lock");
  EXPECT_EQ(id("main"), now);
}

TEST_P(TakenCommitsTest, GoAsideWhenTheUserIsInTheMiddleOfAMerge) {
  shell(root_,
        "git checkout -q -b side && git commit -q --allow-empty -m side && "
        "git checkout -q main");
  lend();
  const std::string first = id("main");
  program(kCommit);
  shell(root_, "git merge -q --no-commit --no-ff side");
  EXPECT_THAT(take_some().moved_aside, HasSubstr("in the middle of a merge"));
  EXPECT_EQ(id("main"), first);
  shell(root_, "git merge --abort");
}

TEST_P(TakenCommitsTest, InALinkedWorkTree) {
  shell(root_, "git worktree add -q ../linked -b linked");
  const fs::path main = root_;
  root_ = fs::canonical(remote_.root() / "linked");
  lend();
  EXPECT_EQ(tree_->before().branch, "linked");
  EXPECT_EQ(program("git status --porcelain --branch"), "## linked");
  program(kCommit);
  EXPECT_EQ(take_some().branch, "linked");
  EXPECT_EQ(status(), "## linked");
  EXPECT_EQ(shell(main, "git status --porcelain --branch"), "## main");
  EXPECT_EQ(id("linked@{1}"), id("main"));
}

TEST_P(TakenCommitsTest, InASubmodule) {
  shell(root_, "git -c protocol.file.allow=always submodule add -q '" + remote_.url() +
                   "' sub && git commit -q -m sub");
  const fs::path outer = root_;
  root_ = outer / "sub";
  lend();
  EXPECT_EQ(tree_->root(), root_);
  EXPECT_EQ(program("git status --porcelain --branch"), "## main...origin/main");
  program(kCommit);
  EXPECT_EQ(take_some().branch, "main");
  EXPECT_EQ(status(), "## main...origin/main [ahead 1]");
  root_ = outer;
  tree_.reset();
  lend();
  EXPECT_THAT(tree_->before().dirty, IsEmpty());
  program("echo x > sub/a.txt; rm sub/.git || true");
  EXPECT_THAT(tree_->look(context_).files, IsEmpty());
  tree_->put_back();
  EXPECT_EQ(read(root_ / "sub/.git"), "gitdir: ../.git/modules/sub\n");
}

TEST_P(TakenCommitsTest, InAShallowCloneWithAlternates) {
  shell(root_,
        "for i in 1 2 3; do git commit -q --allow-empty -m $i; done && "
        "git push -q origin main && cd .. && "
        "git clone -q --depth 2 'file://" +
            remote_.url() +
            "' shallow && "
            "git clone -q --shared user shared");
  for (const char* name : {"shallow", "shared"}) {
    root_ = fs::canonical(remote_.root() / name);
    tree_.reset();
    lend();
    program("git log --oneline >/dev/null && " + kCommit);
    EXPECT_EQ(take_some().branch, "main");
    EXPECT_EQ(take(), std::nullopt);
    EXPECT_EQ(status(), "## main...origin/main [ahead 1]");
  }
}

TEST_P(TakenCommitsTest, InAPackComeToo) {
  lend();
  program(kCommit + " && git gc -q");
  ASSERT_FALSE(fs::is_empty(copy() / "objects/pack"));
  EXPECT_EQ(take_some().branch, "main");
  EXPECT_EQ(status(), "## main");
}

TEST_P(TakenCommitsTest, WithForgedObjectsAreRefused) {
  lend();
  const std::string first = id("main");
  // A blob of another content under the name that the commit wants.
  program(kCommit +
          " && cd $(git rev-parse --git-dir)/objects && "
          "good=$(git rev-parse HEAD:w.txt) && bad=$(echo evil | git hash-object -w --stdin) && "
          "path() { echo $1 | sed 's,^..,&/,'; } && chmod u+w $(path $good) && "
          "cp $(path $bad) $(path $good)");
  EXPECT_THROW(take(), WorkspacePreparationError);
  EXPECT_EQ(id("main"), first);
  EXPECT_EQ(status(), "## main\n?? w.txt");
}

TEST_P(TakenCommitsTest, OfHostileCopiesDoNotSteerUs) {
  const fs::path secret = folder_.path() / "secret";
  shell(folder_.path(),
        "git init -q secret && cd secret && echo s > s && git add s && "
        "git commit -q -m secret");
  const std::string hidden = shell(secret, "git rev-parse HEAD");
  lend();
  const std::string first = id("main");
  // Objects that only a foreign alternate has.
  program("G=$(git rev-parse --git-dir); echo '" + (secret / ".git/objects").string() +
          "' >> $G/objects/info/alternates; git update-ref refs/heads/main " + hidden);
  EXPECT_THROW(take(), WorkspacePreparationError);
  EXPECT_EQ(id("main"), first);
  // No commit, a name that leads out, links, FIFOs.
  program("G=$(git rev-parse --git-dir); git rev-parse " + first +
          "^{tree} > $G/refs/heads/tree; "
          "echo $(git rev-parse " +
          first +
          ":a.txt) > $G/refs/heads/blob; "
          "rm $G/refs/heads/main; mkfifo $G/refs/heads/main; "
          "ln -s /etc/passwd $G/refs/heads/link; rm $G/HEAD; mkfifo $G/HEAD; "
          "rm -rf $G/objects/pack; ln -s / $G/objects/pack; mkdir -p $G/objects/aa; "
          "mkfifo $G/objects/aa/$(printf '%038d' 0)");
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_EQ(id("main"), first);
  EXPECT_EQ(branches(), "main ");
}

TEST_P(TakenCommitsTest, AreNotSeenThroughReplacements) {
  lend();
  program(kCommit + " && git replace HEAD HEAD~1 && git config core.commitGraph true");
  EXPECT_EQ(take_some().branch, "main");
  EXPECT_EQ(status(), "## main");
  EXPECT_EQ(shell(root_, "git for-each-ref refs/replace"), "");
  EXPECT_THAT(tree_->put_back(), testing::Contains(HasSubstr("refs/replace")));
}

TEST_P(TakenCommitsTest, BecomeAPushWithTheRestOnTop) {
  shell(root_, "echo mine >> a.txt");
  lend();
  program(kCommit +
          " && echo rest > rest.txt && echo x > x.o && git add -f x.o && "
          "git commit -q -m forced x.o && rm src/b.txt");
  take();
  const std::string made = tree_->commit(tree_->look(context_), "The change\n", context_);
  EXPECT_EQ(tree_->repository().push(tree_->remote_url(), made, "work", "", context_),
            git::PushOutcome::kPushed);
  EXPECT_EQ(shell(remote_.path(), "git diff --name-status main work"),
            "A\trest.txt\nD\tsrc/b.txt\nA\tw.txt\nA\tx.o");
  EXPECT_EQ(shell(remote_.path(), "git log --format=%s work"), "The change\nforced\nwork\nfirst");
  EXPECT_EQ(status(), "## main\n M a.txt\n D src/b.txt\n?? rest.txt");
}

TEST_P(TakenCommitsTest, PushIsTheProgramsTipWhenNothingIsLeft) {
  lend();
  program(kCommit);
  const TakenCommits taken = take_some();
  EXPECT_EQ(tree_->commit(tree_->look(context_), "x", context_), taken.to);
}

TEST_P(TakenCommitsTest, PushOfWhatWasDirtyIsRefused) {
  shell(root_, "echo mine >> a.txt && echo u > u.txt");
  lend();
  program("echo theirs >> a.txt");
  EXPECT_THAT([&] { tree_->commit(tree_->look(context_), "x", context_); },
              testing::ThrowsMessage<WorkspacePreparationError>(HasSubstr("a.txt")));
  shell(root_, "git checkout -q a.txt && echo mine >> a.txt");
  program("git add -A && git commit -q -m all");
  take();
  EXPECT_THAT([&] { tree_->commit(tree_->look(context_), "x", context_); },
              testing::ThrowsMessage<WorkspacePreparationError>(HasSubstr("u.txt")));
}

}  // namespace
}  // namespace necrocode::exec
