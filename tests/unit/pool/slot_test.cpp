#include "necrocode/pool/slot.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "necrocode/pool/slot_processes.hpp"
#include "pool_fixture.hpp"

namespace necrocode::pool::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A holder has had the slot, and gives it back.
class SlotTest : public testing::Test {
 protected:
  SlotTest() {
    const git::Repository store(real_git(), folder_.path() / "store.git");
    store.init({}, context_);
    store.fetch(remote_.url(), {"+refs/heads/*:refs/remotes/origin/*"}, context_);
    base_ = remote_.tip();
    slot_.prepare("main", base_, remote_.url(), context_);
    slot_.hand_out("app-1.1");
    reference_ = listing(tree());
  }
  fs::path tree() const { return Slot::tree_of(folder_.path(), "app-1.1"); }
  fs::path git_dir() const { return Slot::git_dir_of(folder_.path(), "app-1.1"); }
  fs::path next_tree() const { return Slot::tree_of(folder_.path(), "app-1.2"); }
  fs::path next_git_dir() const { return Slot::git_dir_of(folder_.path(), "app-1.2"); }
  static std::string listing(const fs::path& tree) {
    return shell(tree,
                 "find . | sort && find . -type f | sort | xargs sha256sum && stat -c '%n %A' * ");
  }
  std::string canary_script() {
    write(folder_.path() / "canary.sh", "#!/bin/sh\ntouch '" + canary().string() + "'\ncat\n");
    fs::permissions(folder_.path() / "canary.sh", fs::perms::owner_all);
    return (folder_.path() / "canary.sh").string();
  }
  fs::path canary() const { return folder_.path() / "ran"; }

  /// Clean for the next holder, or refused; never something between, and nothing has run.
  void give_back_and_check() {
    fs::remove(canary());
    ASSERT_TRUE(slot_.take_back("app-1.1"));
    EXPECT_FALSE(fs::exists(tree()));
    const CleanProof proof = slot_.prepare("main", base_, remote_.url(), context_);
    EXPECT_EQ(proof.commit, base_);
    EXPECT_EQ(proof.files, 5u);
    slot_.hand_out("app-1.2");
    EXPECT_EQ(listing(next_tree()), reference_);
    EXPECT_EQ(
        shell(next_tree(),
              "git status --porcelain --ignored; git for-each-ref --format='%(refname)'; "
              "git stash list; git worktree list | wc -l; ls ../git/hooks 2>/dev/null || true"),
        "refs/heads/main\n1");
    EXPECT_FALSE(fs::exists(canary()));
  }

  CallContext context_;
  GitRemote remote_;
  TemporaryDirectory folder_{"necrocode-slot-test-"};
  Slot slot_{real_git(), folder_.path(), 1};
  std::string base_, reference_;
};

TEST_F(SlotTest, ProgramsThatUseGitInTheSlotFindItsRepository) {
  EXPECT_EQ(shell(tree(), "git status --porcelain --branch"), "## main");
  EXPECT_EQ(shell(tree(), "git remote get-url origin"), remote_.url());
  EXPECT_EQ(shell(tree(), "git rev-parse HEAD"), base_);
}

TEST_F(SlotTest, UntouchedSlotIsCleanAgain) {
  give_back_and_check();
}

TEST_F(SlotTest, EditsBranchesStashesAndFilesAreGone) {
  shell(tree(), R"(
    echo x > new && echo y > made.o && mkdir -p deep/er && echo z > deep/er/z
    echo changed > a.txt && git stash -q && git checkout -q -b topic && echo more > b && git add b
    git commit -q -m more && git tag evil && git worktree add -q ../../wt && git config user.name evil
    rm src/b.txt && chmod 600 a.txt && chmod +x .gitignore && mkdir empty)");
  give_back_and_check();
}

TEST_F(SlotTest, LocksAndHalfDoneOperationsAreGone) {
  for (const char* file : {"index.lock", "HEAD.lock", "config.lock", "MERGE_HEAD", "shallow"}) {
    write(git_dir() / file, base_ + "\n");
  }
  fs::create_directories(git_dir() / "rebase-merge");
  give_back_and_check();
}

TEST_F(SlotTest, PlantedProgramsDoNotRun) {
  const std::string program = canary_script();
  for (const char* hook :
       {"post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc"}) {
    fs::create_directories(git_dir() / "hooks");
    fs::copy_file(program, git_dir() / "hooks" / hook);
  }
  write(git_dir() / "config",
        "[core]\n\tfsmonitor = " + program + "\n\tsshCommand = " + program + "\n\thooksPath = " +
            (git_dir() / "hooks").string() + "\n[filter \"evil\"]\n\tclean = " + program +
            "\n\tsmudge = " + program + "\n[diff \"evil\"]\n\ttextconv = " + program +
            "\n[include]\n\tpath = " + (tree() / ".gitconfig").string() + "\n");
  write(tree() / ".gitconfig", "[core]\n\tfsmonitor = " + program + "\n");
  write(tree() / ".gitattributes", "* filter=evil diff=evil\n");
  write(git_dir() / "info/attributes", "* filter=evil diff=evil\n");
  write(git_dir() / "commondir", tree().string() + "\n");
  give_back_and_check();
}

TEST_F(SlotTest, AnotherWorkTreeSetInTheConfigIsNotTouched) {
  const fs::path outside = folder_.path() / "outside";
  write(outside / "keep", "kept");
  shell(tree(), "git config core.worktree '" + outside.string() + "'");
  give_back_and_check();
  EXPECT_EQ(read(outside / "keep"), "kept");
}

TEST_F(SlotTest, LinksOutOfTheSlotAreNotFollowed) {
  const fs::path outside = folder_.path() / "outside";
  write(outside / "keep", "kept");
  write(outside / "b.txt", "kept");
  fs::remove_all(tree() / "src");
  fs::create_symlink(outside, tree() / "src");
  fs::create_symlink(outside, tree() / "more");
  fs::create_hard_link(outside / "keep", tree() / "hard");
  fs::remove(tree() / ".git");
  fs::create_symlink(outside, tree() / ".git");
  give_back_and_check();
  EXPECT_EQ(read(outside / "keep") + read(outside / "b.txt"), "keptkept");
}

TEST_F(SlotTest, AWorkTreeReplacedByALinkIsMadeAnew) {
  const fs::path outside = folder_.path() / "outside";
  write(outside / "keep", "kept");
  fs::remove_all(tree());
  fs::create_symlink(outside, tree());
  slot_.take_back("app-1.1");
  slot_.prepare("main", base_, remote_.url(), context_);
  slot_.hand_out("app-1.2");
  EXPECT_EQ(listing(next_tree()), reference_);
  EXPECT_EQ(shell(outside, "ls -A"), "keep");
}

TEST_F(SlotTest, NestedRepositoriesAndUnreadableFoldersAreGone) {
  shell(tree(),
        "git init -q nested && echo x > nested/x && mkdir -p shut/in && echo y > shut/in/y && "
        "chmod 000 shut/in shut bin && mkdir src/.git");
  give_back_and_check();
}

TEST_F(SlotTest, AForgedTimeIsSeen) {
  struct stat before = {};
  ASSERT_EQ(::stat((tree() / "a.txt").c_str(), &before), 0);
  write(tree() / "a.txt", "ALPHA\n");
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(::utimensat(AT_FDCWD, (tree() / "a.txt").c_str(), times, 0), 0);
  shell(tree(), "git update-index --skip-worktree a.txt && git update-index --refresh");
  give_back_and_check();
}

TEST_F(SlotTest, ObjectsAndReplacementsOfTheHolderCountForNothing) {
  const std::string blob = shell(tree(), "git rev-parse HEAD:a.txt");
  // An object of the holder's under the name of one that the next checkout needs.
  const std::string other = shell(tree(), "echo evil | git hash-object -w --stdin");
  const fs::path objects = git_dir() / "objects";
  fs::create_directories(objects / blob.substr(0, 2));
  fs::copy_file(objects / other.substr(0, 2) / other.substr(2),
                objects / blob.substr(0, 2) / blob.substr(2));
  shell(tree(), "git replace -f " + blob + " " + other + " && rm a.txt");
  give_back_and_check();
}

TEST_F(SlotTest, WhatCannotBeRemovedIsAnError) {
  const fs::path file = tree() / "stuck";
  write(file, "x");
  FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  int flags = 0;
  if (::ioctl(fd.get(), FS_IOC_GETFLAGS, &flags) != 0) GTEST_SKIP() << "no file flags here";
  flags |= FS_IMMUTABLE_FL;
  if (::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags) != 0)
    GTEST_SKIP() << "files cannot be made immutable here";
  slot_.take_back("app-1.1");
  EXPECT_THROW(slot_.prepare("main", base_, remote_.url(), context_), git::GitError);
  EXPECT_THROW(slot_.discard(), StorageError);
  flags &= ~FS_IMMUTABLE_FL;
  ASSERT_EQ(::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags), 0);
  EXPECT_NO_THROW(slot_.prepare("main", base_, remote_.url(), context_));
}

TEST_F(SlotTest, AnUnknownCommitIsAnErrorAndLeavesNoReadySlot) {
  slot_.take_back("app-1.1");
  EXPECT_THROW(slot_.prepare("main", std::string(40, '1'), remote_.url(), context_), git::GitError);
  EXPECT_THROW(slot_.hand_out("app-1.2"), StorageError);
}

/// A process of its own, in `folder`, that waits for ever.
class Inhabitant {
 public:
  explicit Inhabitant(const fs::path& folder) {
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::setsid();
      if (::chdir(folder.c_str()) != 0 || ::write(ready[1], "x", 1) != 1) ::_exit(1);
      while (true) ::pause();
    }
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~Inhabitant() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  /// The signal that ended it, or 0 while it runs.
  int ended_by() {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return 0;
    pid_ = 0;
    return WTERMSIG(status);
  }
  fs::path folder() const { return fs::read_symlink("/proc/" + std::to_string(pid_) + "/cwd"); }

 private:
  pid_t pid_;
};

TEST_F(SlotTest, AProcessThatOutlivedItsLeaseIsEnded) {
  const std::uint64_t lease_begin = ticks_since_boot();
  while (ticks_since_boot() <= lease_begin + 1) {
  }
  Inhabitant left_behind(tree());
  give_back_and_check();
  EXPECT_EQ(left_behind.ended_by(), SIGKILL);
}

TEST_F(SlotTest, AHolderWhoIsStillInsideLivesAndSeesNothingOfTheNext) {
  Inhabitant holder(folder_.path());
  // The holder was there before its lease began.
  slot_.take_back("app-1.1");
  slot_.prepare("main", base_, remote_.url(), context_);
  const fs::path ready = folder_.path() / "slots/1/ready";
  Inhabitant early(ready / "tree");
  const std::uint64_t begun = ticks_since_boot();
  while (ticks_since_boot() <= begun + 1) {
  }
  slot_.hand_out("app-1.1");
  give_back_and_check();
  EXPECT_EQ(early.ended_by(), 0);
  EXPECT_EQ(holder.ended_by(), 0);
  EXPECT_NE(early.folder(), next_tree());
  EXPECT_THAT(early.folder().string(), HasSubstr("(deleted)"));
}

TEST_F(SlotTest, MovesToAnotherCommitAndBranch) {
  const std::string next = remote_.change("echo next > a.txt && rm src/b.txt && echo c > c.txt");
  const git::Repository store(real_git(), folder_.path() / "store.git");
  store.fetch(remote_.url(), {"+refs/heads/*:refs/remotes/origin/*"}, context_);
  slot_.take_back("app-1.1");
  slot_.prepare("topic", next, remote_.url(), context_);
  slot_.hand_out("app-1.2");
  EXPECT_EQ(shell(next_tree(),
                  "git status --porcelain --branch && git rev-parse HEAD && cat a.txt c.txt"),
            "## topic\n" + next + "\nnext\nc");
  EXPECT_FALSE(fs::exists(next_tree() / "src"));
}

}  // namespace
}  // namespace necrocode::pool::test
