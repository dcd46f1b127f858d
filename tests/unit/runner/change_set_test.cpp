#include "necrocode/runner/change_set.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <set>
#include <thread>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

llm::CodeChange create(const std::string& path, const std::string& content) {
  return {path, llm::Operation::kCreate, content, {}};
}
llm::CodeChange edit(const std::string& path, const std::string& search,
                     const std::string& replace) {
  return {path, llm::Operation::kModify, std::nullopt, {{search, replace}}};
}

llm::CodeChange remove(const std::string& path) {
  return {path, llm::Operation::kDelete, std::nullopt, {}};
}

llm::CodeChange patch(const std::string& path, const std::string& diff) {
  return {path, llm::Operation::kModify, std::nullopt, {}, diff};
}

// While it lives, this process can make no file larger than `bytes`, root or not: a disk that is
// full in the middle.
class SmallFilesOnly {
 public:
  explicit SmallFilesOnly(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit small{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  ~SmallFilesOnly() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  SmallFilesOnly(const SmallFilesOnly&) = delete;
  SmallFilesOnly& operator=(const SmallFilesOnly&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

constexpr std::size_t kSmall = 256 * 1024;

class ChangeSet : public testing::Test {
 protected:
  ChangeSet() {
    fs::create_directory(root());
    write_file_atomic(root() / "a.txt", "one two one\n");
    write_file_atomic(root() / "run.sh", "#!/bin/sh\n", 0755);
    write_file_atomic(outside(), "outside\n");
  }
  fs::path root() const { return folder_.path() / "work"; }
  fs::path outside() const { return folder_.path() / "outside.txt"; }
  std::string read(const std::string& name) const { return read_file(root() / name, 1000); }
  // Every path below the root with its content: what "unchanged" means.
  std::set<std::string> snapshot() const {
    std::set<std::string> all;  // sorted: a file that is made again may be listed elsewhere
    for (const auto& entry : fs::recursive_directory_iterator(root())) {
      struct stat info = {};
      ::lstat(entry.path().c_str(), &info);
      all.insert(entry.path().string() + "|" + std::to_string(info.st_mode) + "|" +
                 (S_ISREG(info.st_mode) ? read_file(entry.path(), 2 * kSmall) : ""));
    }
    return all;
  }

  TemporaryDirectory folder_;
};

TEST_F(ChangeSet, CreateModifyDeleteThenAllAreDone) {
  const auto paths =
      apply_changes(root(),
                    {create("deep/er/new.txt", "new\n"),
                     edit("a.txt", "two", "2"),
                     {"run.sh", llm::Operation::kModify, "#!/bin/sh\necho hi\n", {}}},
                    {});
  EXPECT_EQ(paths.size(), 3U);
  EXPECT_EQ(read("deep/er/new.txt"), "new\n");
  EXPECT_EQ(read("a.txt"), "one 2 one\n");
  struct stat info = {};
  ASSERT_EQ(::stat((root() / "run.sh").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0755U);
  apply_changes(root(),
                {{"a.txt", llm::Operation::kDelete, std::nullopt, {}},
                 {"none", llm::Operation::kDelete, std::nullopt, {}}},
                {});
  EXPECT_FALSE(fs::exists(root() / "a.txt"));
}

TEST_F(ChangeSet, EditThatIsAmbiguousOrMissingThenNothingIsApplied) {
  const auto before = snapshot();
  EXPECT_THROW(apply_changes(root(), {create("b.txt", "b"), edit("a.txt", "one", "1")}, {}),
               ImplementationError);
  EXPECT_THROW(apply_changes(root(), {create("b.txt", "b"), edit("a.txt", "three", "3")}, {}),
               ImplementationError);
  EXPECT_THROW(apply_changes(root(), {create("b.txt", "b"), edit("absent", "x", "y")}, {}),
               ImplementationError);
  EXPECT_EQ(snapshot(), before);
}

TEST_F(ChangeSet, DiffThenItsHunksAreApplied) {
  write_file_atomic(root() / "crlf.txt", "a\r\nb\r\n");
  apply_changes(root(),
                {patch("a.txt", "@@ -7 +7,2 @@\n-one two one\n+1 2\n+3\n"),
                 patch("crlf.txt", "@@ -1,2 +1,2 @@\n a\n-b\n+c\n")},
                {});
  EXPECT_EQ(read("a.txt"), "1 2\n3\n");
  EXPECT_EQ(read("crlf.txt"), "a\r\nc\r\n");
}

TEST_F(ChangeSet, OneHunkOrEditThatDoesNotFitThenNothingIsAppliedAndItsFileIsNamed) {
  const auto before = snapshot();
  for (const llm::CodeChange& bad :
       {patch("run.sh", "@@ -1 +1 @@\n-#!/bin/bash\n+#!/bin/dash\n"),
        patch("run.sh", "@@ -1,2 +1 @@\n-#!/bin/sh\n+#!/bin/dash\n"),
        patch("absent", "@@ -1 +1 @@\n-a\n+b\n"), edit("run.sh", "bash", "dash")}) {
    try {
      apply_changes(root(), {create("b.txt", "b"), edit("a.txt", "two", "2"), bad}, {});
      ADD_FAILURE() << bad.diff;
    } catch (const ImplementationError& error) {
      EXPECT_THAT(error.what(),
                  testing::AnyOf(testing::HasSubstr(bad.file_path), testing::HasSubstr("line 1")));
    }
  }
  EXPECT_EQ(snapshot(), before);
}

TEST_F(ChangeSet, FileThatIsNoTextThenNotEditedButMayBeReplaced) {
  write_file_atomic(root() / "latin.txt", "caf\xE9\n");
  write_file_atomic(root() / "nul.txt", std::string("a\0b\n", 4));
  const auto before = snapshot();
  for (const char* name : {"latin.txt", "nul.txt"}) {
    EXPECT_THROW(apply_changes(root(), {edit(name, "a", "b")}, {}), ImplementationError);
    EXPECT_THROW(apply_changes(root(), {patch(name, "@@\n-a\n+b\n")}, {}), ImplementationError);
  }
  EXPECT_EQ(snapshot(), before);
  apply_changes(root(), {{"latin.txt", llm::Operation::kModify, "coffee\n", {}}}, {});
  EXPECT_EQ(read("latin.txt"), "coffee\n");
}

TEST_F(ChangeSet, EditsOfManyLargeFilesThenTheWorkOfAllIsBoundedTogether) {
  // Each file's edits alone would be within the bound.
  const std::string large = "b" + std::string(limits::kCodeChangeFileBytes - 1, 'a');
  std::vector<llm::CodeChange> changes;
  for (int i = 0; i < 3; ++i) {
    const std::string name = "large" + std::to_string(i);
    write_file_atomic(root() / name, large);
    changes.push_back(edit(name, "b", "c"));
    for (int j = 0; j < 30; ++j) {
      changes.back().edits.push_back({"c", "b"});
      changes.back().edits.push_back({"b", "c"});
    }
  }
  EXPECT_NO_THROW(apply_changes(root(), {changes[0]}, {}));
  changes[0].edits[0].search = "c";
  changes[0].edits[0].replace = "c";
  try {
    apply_changes(root(), changes, {});
    ADD_FAILURE();
  } catch (const ImplementationError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("too much work"));
  }
}

TEST_F(ChangeSet, ReadOnlyFileThenNothingIsApplied) {
  const auto before = snapshot();
  EXPECT_THROW(apply_changes(root(), {create("b.txt", "b"), edit("a.txt", "two", "2")}, {"a.txt"}),
               ImplementationError);
  EXPECT_THROW(apply_changes(root(), {create("tests/x/y.cpp", "b")}, {"tests/**"}),
               ImplementationError);
  EXPECT_EQ(snapshot(), before);
}

TEST_F(ChangeSet, LinksSpecialFilesAndHardLinksThenRefusedUntouched) {
  fs::create_symlink(folder_.path(), root() / "link");
  fs::create_symlink(outside(), root() / "file-link");
  fs::create_symlink(folder_.path() / "absent", root() / "dangling");
  fs::create_hard_link(outside(), root() / "hard");
  ASSERT_EQ(::mkfifo((root() / "fifo").c_str(), 0600), 0);
  fs::create_directory(root() / "folder");
  const auto before = snapshot();
  for (const char* path : {"link/outside.txt", "link/new.txt", "file-link", "dangling", "hard",
                           "fifo", "folder", "a.txt/x"}) {
    EXPECT_THROW(apply_changes(root(), {create("innocent.txt", "x"), create(path, "evil")}, {}),
                 SecurityError)
        << path;
  }
  EXPECT_EQ(snapshot(), before);
  EXPECT_EQ(read_file(outside(), 100), "outside\n");
}

TEST_F(ChangeSet, PathsThatLeadOutThenRefusedByTheKernelToo) {
  // The shape is checked when the answer is parsed; here the same paths meet openat2.
  for (const char* path : {"../outside.txt", "a/../../outside.txt"}) {
    EXPECT_THROW(apply_changes(root(), {create(path, "evil")}, {}), RunnerError) << path;
  }
  EXPECT_THROW(apply_changes(root(), {create(outside().string(), "evil")}, {}), RunnerError);
  EXPECT_EQ(read_file(outside(), 100), "outside\n");
}

TEST_F(ChangeSet, FolderSwappedForALinkMeanwhileThenNothingIsWrittenOutside) {
  fs::create_directory(root() / "swap");
  fs::create_directory(folder_.path() / "target");
  std::atomic<bool> stop = false;
  std::thread swapper([&] {
    std::error_code error;
    while (!stop) {
      fs::rename(root() / "swap", folder_.path() / "aside", error);
      fs::create_directory_symlink(folder_.path() / "target", root() / "swap", error);
      fs::remove(root() / "swap", error);
      fs::rename(folder_.path() / "aside", root() / "swap", error);
    }
  });
  for (int i = 0; i < 300; ++i) {
    try {
      apply_changes(root(), {create("swap/file.txt", "evil")}, {});
    } catch (const RunnerError&) {
      continue;  // refused, as it should be while the link is there
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  }
  stop = true;
  swapper.join();
  EXPECT_TRUE(fs::is_empty(folder_.path() / "target"));
}

TEST_F(ChangeSet, FilesThatMakeGitActThenRefused) {
  EXPECT_THROW(apply_changes(root(), {create(".gitmodules", "[submodule \"x\"]\n")}, {}),
               SecurityError);
  EXPECT_THROW(apply_changes(root(), {create("sub/.gitattributes", "* filter=evil\n")}, {}),
               SecurityError);
  EXPECT_NO_THROW(apply_changes(root(), {create(".gitattributes", "* text=auto\n")}, {}));
}

TEST_F(ChangeSet, WriteThatFailsHalfWayThenFilesModesAndFoldersAreAsBefore) {
  fs::create_directory(root() / "kept");
  const auto before = snapshot();
  std::string reason;
  {
    const SmallFilesOnly limit(kSmall);
    try {
      apply_changes(root(),
                    {edit("a.txt", "two", "2"), remove("run.sh"), create("new/deep/x", "1"),
                     create("kept/more/y", "2"), create("last/big", std::string(kSmall + 1, 'b'))},
                    {});
      ADD_FAILURE();
    } catch (const StorageError& error) {
      reason = error.what();
    }
  }
  EXPECT_THAT(reason, testing::HasSubstr("File too large"));
  EXPECT_EQ(snapshot(), before);
}

TEST_F(ChangeSet, StepThatCannotBeUndoneThenTheOthersAreAndTheFirstErrorIsTold) {
  write_file_atomic(root() / "large", std::string(kSmall + 2, 'l'));
  std::string reason;
  {
    const SmallFilesOnly limit(kSmall);  // so the old content of "large" cannot be written again
    testing::internal::CaptureStderr();
    try {
      apply_changes(root(),
                    {edit("a.txt", "two", "2"), create("large", "small now"), create("n/x", "1"),
                     create("big/y", std::string(kSmall + 1, 'b'))},
                    {});
      ADD_FAILURE();
    } catch (const StorageError& error) {
      reason = error.what();
    }
  }
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_THAT(reason, testing::HasSubstr("File too large"));
  EXPECT_THAT(told, testing::HasSubstr("cannot undo"));
  EXPECT_THAT(told, testing::HasSubstr("large"));
  EXPECT_EQ(read("a.txt"), "one two one\n");
  EXPECT_FALSE(fs::exists(root() / "n"));
  EXPECT_FALSE(fs::exists(root() / "big"));
}

TEST_F(ChangeSet, PathsThatContradictEachOtherThenFoundBeforeAnythingIsWritten) {
  fs::create_directory(root() / "d");
  write_file_atomic(root() / "d/a", "a\n");
  const auto before = snapshot();
  const std::vector<std::vector<llm::CodeChange>> answers = {
      {create("q/r", "1"), create("q", "2")},
      {create("q", "1"), create("q/r/s", "2")},
      {edit("a.txt", "two", "2"), create("a.txt/x", "2")},
      {remove("d/a"), create("d", "a file now")},
      {create("d", "a file now"), remove("d/a")},
      {remove("a.txt"), create("a.txt/x", "1"), create("a.txt/x/y", "2")},
      {remove("a.txt"), edit("a.txt/x", "one", "1")}};
  for (std::size_t i = 0; i < answers.size(); ++i) {
    EXPECT_THROW(apply_changes(root(), answers[i], {}), ImplementationError) << i;
    EXPECT_EQ(snapshot(), before) << i;
  }
}

TEST_F(ChangeSet, DeletedFileThenMakesRoomForAFolderInAnyOrder) {
  EXPECT_EQ(apply_changes(root(), {remove("a.txt"), create("a.txt/x", "1")}, {}),
            (std::vector<std::string>{"a.txt", "a.txt/x"}));
  EXPECT_EQ(read("a.txt/x"), "1");
  EXPECT_EQ(apply_changes(root(), {create("run.sh/deep/y", "2"), remove("run.sh")}, {}),
            (std::vector<std::string>{"run.sh", "run.sh/deep/y"}));
  EXPECT_EQ(read("run.sh/deep/y"), "2");
  EXPECT_THROW(apply_changes(root(), {remove("run.sh"), create("run.sh/z", "3")}, {}),
               SecurityError);  // a folder is not deleted, so it makes no room
  EXPECT_EQ(read("run.sh/deep/y"), "2");
}

TEST_F(ChangeSet, FolderInPlaceOfAFileThenUndoneToo) {
  const auto before = snapshot();
  {
    const SmallFilesOnly limit(kSmall);
    EXPECT_THROW(apply_changes(root(),
                               {remove("run.sh"), create("run.sh/x", "1"),
                                create("big", std::string(kSmall + 1, 'b'))},
                               {}),
                 StorageError);
  }
  EXPECT_EQ(snapshot(), before);
}

TEST_F(ChangeSet, ReadingForThePromptFollowsNoLink) {
  fs::create_symlink(outside(), root() / "file-link");
  EXPECT_EQ(read_workspace_file(root(), "a.txt", 1000), "one two one\n");
  EXPECT_EQ(read_workspace_file(root(), "file-link", 1000), std::nullopt);
  EXPECT_EQ(read_workspace_file(root(), "../outside.txt", 1000), std::nullopt);
  EXPECT_EQ(read_workspace_file(root(), "a.txt", 3), std::nullopt);
}

}  // namespace
}  // namespace necrocode::runner
