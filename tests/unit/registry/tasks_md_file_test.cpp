#include "necrocode/registry/tasks_md_file.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"

namespace necrocode::registry {
namespace {

namespace fs = std::filesystem;

class TasksMdFile : public testing::Test {
 protected:
  TasksMdFile() { write("- [ ] 1. One\n"); }
  void write(std::string_view text) { write_file_atomic(path, text); }
  std::string text() const { return read_file(path, limits::kMiB); }
  std::size_t entries() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()));
  }

  TemporaryDirectory folder;
  fs::path path = folder.path() / "tasks.md";
  const std::map<std::string, WantedBox> done = {{"1", {"One", TaskState::kDone}}};
};

TEST_F(TasksMdFile, TickKeepsTheModeAndLeavesNothingBehind) {
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  EXPECT_EQ(tick_tasks_md_file(path, done).changes.size(), 1u);
  EXPECT_EQ(text(), "- [x] 1. One\n");
  struct stat status = {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
  EXPECT_EQ(entries(), 1u);
}

TEST_F(TasksMdFile, DryRunAndNothingToDoWriteNothing) {
  struct stat before = {};
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  EXPECT_EQ(tick_tasks_md_file(path, done, {.dry_run = true}).changes.size(), 1u);
  tick_tasks_md_file(path, {});
  struct stat after = {};
  ASSERT_EQ(::stat(path.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(text(), "- [ ] 1. One\n");
}

TEST_F(TasksMdFile, ChangeByHandInBetweenIsKept) {
  int times = 0;
  TickOptions options;
  options.before_replace = [&] {
    if (++times == 1) write("- [ ] 0. By hand\n- [ ] 1. One\n");
  };
  tick_tasks_md_file(path, done, options);
  EXPECT_EQ(text(), "- [ ] 0. By hand\n- [x] 1. One\n");
  EXPECT_EQ(times, 2);
}

TEST_F(TasksMdFile, ChangeInPlaceOfTheSameSizeIsSeen) {
  int times = 0;
  TickOptions options;
  options.before_replace = [&] {
    if (++times > 1) return;
    // The same inode and size; also the same time, as after `touch -r`.
    struct stat status = {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    write_all(file.get(), "+ [ ] 1. One\n");
    const struct timespec kept[2] = {status.st_atim, status.st_mtim};
    ASSERT_EQ(::futimens(file.get(), kept), 0);
  };
  tick_tasks_md_file(path, done, options);
  EXPECT_EQ(text(), "+ [x] 1. One\n");
}

TEST_F(TasksMdFile, FileThatChangesAllTheTimeIsAConflict) {
  int times = 0;
  TickOptions options;
  options.before_replace = [&] { write("- [ ] 1. One\n# " + std::to_string(++times) + "\n"); };
  EXPECT_THROW(tick_tasks_md_file(path, done, options), ResourceConflictError);
  EXPECT_EQ(text(), "- [ ] 1. One\n# 3\n");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(TasksMdFile, LinkStaysALink) {
  const fs::path link = folder.path() / "link.md";
  fs::create_symlink("tasks.md", link);
  tick_tasks_md_file(link, done);
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(text(), "- [x] 1. One\n");
}

TEST_F(TasksMdFile, WhatIsNoFileOrTooLargeIsRefused) {
  EXPECT_THROW(tick_tasks_md_file(folder.path(), done), StorageError);
  EXPECT_THROW(tick_tasks_md_file(folder.path() / "none.md", done), StorageError);
  const fs::path pipe = folder.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THROW(read_tasks_md(pipe), StorageError);
  ASSERT_EQ(::truncate(path.c_str(), 16 * 1024 * 1024 + 1), 0);
  EXPECT_THROW(read_tasks_md(path), ResourceLimitError);
}

}  // namespace
}  // namespace necrocode::registry
