// Git directories in the work tree beside the clone's own: the user's next git runs nothing of the
// program's.
#include "lent_fixture.hpp"

namespace necrocode::exec {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

class NestedTest : public LentTreeTest {
 protected:
  fs::path ran() const { return folder_.path() / "ran"; }
  /// For a script: a repository at `folder` whose configuration runs a program.
  std::string armed(const std::string& folder) const {
    return "(unset GIT_DIR GIT_WORK_TREE; mkdir -p " + folder + " && cd " + folder +
           " && git init -q . && git -c user.name=x -c user.email=x commit -q --allow-empty -m x"
           " && git config core.fsmonitor 'touch " +
           ran().string() + "; false')";
  }
  /// What a user does next.
  void use_git() const {
    shell(root_, "git status; git diff; git add -A; git status; git commit -q -m all; git status");
    EXPECT_FALSE(fs::exists(ran()));
  }
};
INSTANTIATE_TEST_SUITE_P(, NestedTest, testing::Bool(), lent_name);

TEST_P(NestedTest, ArmedRepositoryRunsWhereNothingDisarmsIt) {
  shell(root_, armed("evil") + "; git add evil 2>&1; git status");
  EXPECT_TRUE(fs::exists(ran()));
}

TEST_P(NestedTest, CommittedSubmoduleOfTheProgramsGoesAside) {
  lend();
  const std::string first = id("main");
  program(armed("evil") + "; git add evil 2>/dev/null; git commit -q -m evil");
  const TakenCommits taken = take_some();
  EXPECT_EQ(taken.branch, "necrocode/exec-1");
  EXPECT_THAT(taken.moved_aside, HasSubstr("submodules"));
  EXPECT_EQ(id("main"), first);
  EXPECT_THAT(tree_->put_back(), Contains("evil/.git (a repository of the program's; it is "
                                          ".git.necrocode-moved there now)"));
  EXPECT_THAT(tree_->put_back(), testing::Not(Contains(HasSubstr("evil"))));
  use_git();
}

TEST_P(NestedTest, SubmoduleThatALaterCommitRemovesGoesAsideToo) {
  lend();
  program(armed("evil") +
          "; git add evil 2>/dev/null; git commit -q -m evil; git rm -q -r --cached evil; "
          "git commit -q -m gone");
  EXPECT_EQ(take_some().branch, "necrocode/exec-1");
}

TEST_P(NestedTest, SubmoduleOfTheUsersThatIsEmptyIsNotFilled) {
  shell(root_, "git update-index --add --cacheinfo 160000," + id("HEAD") +
                   ",sub && git commit -q -m sub && mkdir sub");
  lend();
  program(armed("sub") + "; echo w > w.txt; git add w.txt; git commit -q -m w; chmod 111 sub");
  EXPECT_EQ(take_some().branch, "main");
  tree_->look(context_);
  EXPECT_THAT(tree_->put_back(), Contains(HasSubstr("sub/.git (a repository")));
  use_git();
}

TEST_P(NestedTest, RepositoriesOfTheUsersStayAsTheyWere) {
  shell(root_,
        "git -c protocol.file.allow=always submodule add -q '" + remote_.url() +
            "' sub && git commit -q -m sub && echo clones >> .git/info/exclude && "
            "git init -q clones/one && git init -q --separate-git-dir=clones/kept clones/two && "
            "ln -s one/.git clones/.git");
  lend();
  const std::string look =
      "cat sub/.git clones/*/config clones/*/.git/config clones/two/.git; "
      "ls -lR --time-style=+ clones/one/.git/hooks; readlink clones/.git";
  const std::string before = shell(root_, look);
  program(
      "unset GIT_DIR GIT_WORK_TREE; set +e; exec 2>/dev/null; "
      "rm sub/.git; echo 'gitdir: ../evil' > sub/.git; echo x > clones/two/.git; "
      "for d in clones/one/.git clones/kept; do echo '[core] fsmonitor = x' >> $d/config; "
      "echo x > $d/hooks/post-index-change; done; rm clones/.git; ln -s kept clones/.git; true");
  const std::vector<std::string> told = tree_->put_back();
  EXPECT_EQ(shell(root_, look), before);
  EXPECT_THAT(told, Contains("clones/.git"));
  if (!GetParam()) {
    EXPECT_THAT(
        told, testing::IsSupersetOf({"sub/.git", "clones/two/.git", "clones/one/.git/config",
                                     "clones/kept/config", "clones/kept/hooks/post-index-change"}));
  }
  EXPECT_THAT(tree_->put_back(), IsEmpty());
  shell(root_, "rm clones/.git");
}

TEST_P(NestedTest, MovedRepositoryOfTheUsersIsPutBack) {
  if (GetParam()) GTEST_SKIP() << "the sandbox holds it where it is";
  shell(root_,
        "echo clones >> .git/info/exclude && git init -q clones/one && "
        "git -C clones/one commit -q --allow-empty -m mine");
  lend();
  program("mv clones away; " + armed("clones/one"));
  EXPECT_THAT(tree_->put_back(), Contains("clones/one/.git"));
  EXPECT_EQ(shell(root_, "git -C clones/one log --format=%s"), "mine");
  EXPECT_TRUE(fs::exists(root_ / "clones/one/.git.necrocode-moved"));
  use_git();
}

TEST_P(NestedTest, RemovedRepositoryOfTheUsersHidesNoOther) {
  if (GetParam()) GTEST_SKIP() << "it is read-only";
  shell(root_, "echo clones >> .git/info/exclude && git init -q clones/one");
  lend();
  program("rm -rf clones; " + armed("evil"));
  const std::vector<std::string> told = tree_->put_back();
  EXPECT_THAT(told, Contains("clones/one/.git (could not be put back)"));
  EXPECT_THAT(told, Contains(HasSubstr("evil/.git (a repository of the program's")));
  use_git();
}

}  // namespace
}  // namespace necrocode::exec
