#include "necrocode/base/file.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "necrocode/base/errors.hpp"

namespace necrocode {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) != -1;
}
int open_null() {
  return ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}

std::size_t entries_in(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(FileDescriptor, ClosesWhatItOwnsOnce) {
  const int fd = open_null();
  {
    FileDescriptor one(fd);
    FileDescriptor two(std::move(one));
    EXPECT_FALSE(one);  // NOLINT: what is promised of a moved-from descriptor
    EXPECT_EQ(two.get(), fd);
    two = std::move(two);  // NOLINT: to itself
    EXPECT_TRUE(is_open(fd));
  }
  EXPECT_FALSE(is_open(fd));
}

TEST(FileDescriptor, ReleaseGivesAwayAndResetReplaces) {
  const int first = open_null();
  const int second = open_null();
  FileDescriptor file(first);
  file.reset(second);
  EXPECT_FALSE(is_open(first));
  EXPECT_EQ(file.release(), second);
  file.reset();
  EXPECT_TRUE(is_open(second));
  ::close(second);
}

TEST(FileDescriptor, AssignmentClosesTheOldOne) {
  const int first = open_null();
  FileDescriptor file(first);
  file = FileDescriptor(open_null());
  EXPECT_FALSE(is_open(first));
}

TEST(ReadFile, GivesAllBytesUpToTheLimitAndRefusesMore) {
  const TemporaryDirectory folder;
  const fs::path path = folder.path() / "f";
  const std::string content = std::string(200'000, 'x') + '\0' + "end";
  write_file_atomic(path, content);
  EXPECT_EQ(read_file(path, content.size()), content);
  EXPECT_THROW(read_file(path, content.size() - 1), StorageError);
  write_file_atomic(path, "");
  EXPECT_EQ(read_file(path, 0), "");
}

TEST(ReadFile, SaysWhatAndWhichWhenItCannot) {
  const TemporaryDirectory folder;
  try {
    read_file(folder.path() / "absent", 1);
    FAIL();
  } catch (const StorageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("absent"));
    EXPECT_THAT(error.what(), HasSubstr("No such file"));
  }
  EXPECT_THROW(read_file(folder.path(), 1000), StorageError);
}

TEST(WriteAll, GoesOnAfterShortWrites) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const FileDescriptor in(ends[0]);
  FileDescriptor out(ends[1]);
  const std::string sent(1'000'000, 'y');  // more than a pipe holds
  std::string received;
  std::jthread reader([&] {
    char buffer[4096];
    for (ssize_t got; (got = ::read(in.get(), buffer, sizeof buffer)) > 0;) {
      received.append(buffer, static_cast<std::size_t>(got));
    }
  });
  write_all(out.get(), sent);
  out.reset();
  reader.join();
  EXPECT_EQ(received, sent);
}

TEST(WriteAll, FullDeviceThrowsAndIsKnownAsFull) {
  const FileDescriptor full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  try {
    write_all(full.get(), "x");
    FAIL();
  } catch (const StorageError& error) {
    EXPECT_TRUE(is_disk_full(error));
  }
  EXPECT_THROW(write_all(-1, "x"), StorageError);
}

TEST(WriteFile, ReplacesWithTheAskedModeAndLeavesNoTemporaryFile) {
  const TemporaryDirectory folder;
  const fs::path path = folder.path() / "f";
  const mode_t previous = ::umask(0);
  write_file_durable(path, "one", 0600);
  write_file_durable(path, "two", 0640);
  ::umask(previous);
  EXPECT_EQ(read_file(path, 10), "two");
  EXPECT_EQ(fs::status(path).permissions(), fs::perms(0640));
  EXPECT_EQ(entries_in(folder.path()), 1U);
}

TEST(WriteFile, NameAsLongAsANameCanBe) {
  const TemporaryDirectory folder;
  const fs::path path = folder.path() / std::string(255, 'n');
  write_file_durable(path, "x");
  EXPECT_EQ(read_file(path, 1), "x");
}

TEST(WriteFile, FailureLeavesTheOldContentAndNoTemporaryFile) {
  const TemporaryDirectory folder;
  EXPECT_THROW(write_file_durable(folder.path() / "absent" / "f", "x"), StorageError);
  fs::create_directory(folder.path() / "taken");
  EXPECT_THROW(write_file_atomic(folder.path() / "taken", "x"), StorageError);
  EXPECT_EQ(entries_in(folder.path()), 1U);
}

TEST(WriteFile, ReplacesALinkNotWhatItPointsTo) {
  const TemporaryDirectory folder;
  write_file_atomic(folder.path() / "target", "old");
  fs::create_symlink("target", folder.path() / "link");
  write_file_atomic(folder.path() / "link", "new");
  EXPECT_EQ(read_file(folder.path() / "target", 10), "old");
  EXPECT_EQ(read_file(folder.path() / "link", 10), "new");
}

TEST(WriteFile, ReadersSeeTheOldOrTheNewAndNothingBetween) {
  const TemporaryDirectory folder;
  const fs::path path = folder.path() / "f";
  const std::string versions[2] = {std::string(100'000, 'a'), std::string(50'000, 'b')};
  write_file_durable(path, versions[0]);
  std::atomic<bool> done{false};
  std::jthread writer([&] {
    for (std::size_t i = 1; i <= 30; ++i) write_file_durable(path, versions[i % 2]);
    done = true;
  });
  while (!done) {
    const std::string seen = read_file(path, 200'000);
    ASSERT_TRUE(seen == versions[0] || seen == versions[1]) << seen.size();
  }
}

TEST(FsyncDirectory, OfAFileOrNothingThrows) {
  const TemporaryDirectory folder;
  EXPECT_NO_THROW(fsync_directory(folder.path()));
  write_file_atomic(folder.path() / "f", "");
  EXPECT_THROW(fsync_directory(folder.path() / "f"), StorageError);
  EXPECT_THROW(fsync_directory(folder.path() / "absent"), StorageError);
}

TEST(TemporaryDirectory, IsPrivateAndGoesWithItsContent) {
  fs::path path;
  {
    const TemporaryDirectory folder("necrocode-test-");
    path = folder.path();
    EXPECT_EQ(fs::status(path).permissions(), fs::perms(0700));
    fs::create_directories(path / "a" / "b");
    write_file_atomic(path / "a" / "b" / "c", "x");
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(TemporaryDirectory, MovedOrKeptIsNotRemovedTwiceOrAtAll) {
  const TemporaryDirectory parent;
  {
    TemporaryDirectory one("x-", parent.path());
    TemporaryDirectory two(std::move(one));
    EXPECT_TRUE(fs::exists(two.path()));
    EXPECT_EQ(entries_in(parent.path()), 1U);
  }
  EXPECT_EQ(entries_in(parent.path()), 0U);
  {
    TemporaryDirectory("kept-", parent.path()).keep();
  }
  EXPECT_EQ(entries_in(parent.path()), 1U);
  EXPECT_THROW(TemporaryDirectory("x-", parent.path() / "absent"), StorageError);
}

// Modes bind only a user who is not root: become nobody for the time of a test.
class AsNobody {
 public:
  AsNobody() : was_root_(::geteuid() == 0) {
    if (was_root_ && ::seteuid(65534) != 0) ADD_FAILURE() << "cannot become nobody";
  }
  ~AsNobody() {
    if (was_root_ && ::seteuid(0) != 0) ADD_FAILURE() << "cannot become root again";
  }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;

 private:
  bool was_root_;
};

TEST(RemoveTree, RemovesWhatChmodMadeUnreadable) {
  const AsNobody nobody;
  const TemporaryDirectory parent;
  const fs::path tree = parent.path() / "tree";
  fs::create_directories(tree / "a" / "b" / "c");
  fs::create_directories(tree / "d");
  write_file_atomic(tree / "a" / "b" / "c" / "f", "x");
  write_file_atomic(tree / "d" / "f", "x", 0);
  for (const char* folder : {"a/b/c", "a/b", "a", "d", ""}) ::chmod((tree / folder).c_str(), 0);
  EXPECT_TRUE(remove_tree(tree));
  EXPECT_FALSE(fs::exists(fs::symlink_status(tree)));
}

TEST(RemoveTree, DoesNotFollowLinks) {
  const AsNobody nobody;
  const TemporaryDirectory parent;
  const fs::path outside = parent.path() / "outside";
  const fs::path tree = parent.path() / "tree";
  fs::create_directory(outside);
  write_file_atomic(outside / "f", "x");
  fs::create_directories(tree / "locked");
  write_file_atomic(tree / "locked" / "f", "x");
  fs::create_directory_symlink(outside, tree / "link");
  fs::create_directory_symlink(outside, parent.path() / "top-link");
  ::chmod((tree / "locked").c_str(), 0);  // takes the way that changes modes
  ::chmod(outside.c_str(), 0500);
  EXPECT_TRUE(remove_tree(tree));
  EXPECT_TRUE(remove_tree(parent.path() / "top-link"));
  EXPECT_EQ(fs::status(outside).permissions(), fs::perms(0500));
  EXPECT_EQ(read_file(outside / "f", 10), "x");
}

TEST(RemoveTree, AFileALinkAndNothingAreFine) {
  const TemporaryDirectory parent;
  write_file_atomic(parent.path() / "f", "x");
  fs::create_symlink("nowhere", parent.path() / "dangling");
  EXPECT_TRUE(remove_tree(parent.path() / "f"));
  EXPECT_TRUE(remove_tree(parent.path() / "dangling"));
  EXPECT_TRUE(remove_tree(parent.path() / "absent"));
  EXPECT_EQ(entries_in(parent.path()), 0U);
}

TEST(RemoveTree, SaysWhenSomethingStays) {
  const TemporaryDirectory parent;  // belongs to root where the tests run as root
  if (::geteuid() != 0) GTEST_SKIP() << "needs a folder of somebody else";
  ::chmod(parent.path().c_str(), 0755);
  fs::create_directory(parent.path() / "tree");
  const AsNobody nobody;
  EXPECT_FALSE(remove_tree(parent.path() / "tree"));
}

}  // namespace
}  // namespace necrocode
