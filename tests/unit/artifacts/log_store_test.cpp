// Logs of the filesystem store: they grow, survive whatever ends a process, and are sealed once.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "necrocode/artifacts/filesystem_store.hpp"
#include "necrocode/base/digest.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/db/sqlite.hpp"
#include "support/fake_clock.hpp"

namespace necrocode::artifacts {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class LogStore : public testing::Test {
 protected:
  fs::path root() const { return folder_.path() / "artifacts"; }
  std::vector<fs::path> files(const char* below) const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(root() / below)) {
      if (!entry.is_directory()) found.push_back(entry.path());
    }
    return found;
  }
  void stop() { store_.reset(); }
  void start() { store_ = std::make_unique<FilesystemArtifactStore>(root(), clock_); }
  void restart() {
    stop();
    start();
  }

  static ArtifactDraft draft(std::string name = "run.log") {
    ArtifactDraft draft;
    draft.type = "log";
    draft.spec = "chat-app";
    draft.task = "1.1";
    draft.name = std::move(name);
    return draft;
  }
  ArtifactId open(std::chrono::seconds lease = 120s) { return store_->open_log(draft(), lease).id; }
  Artifact put(std::string_view bytes, const std::string& name = "run.log") {
    const auto upload = store_->begin_upload();
    upload->write(bytes);
    upload->finish();
    return upload->publish(draft(name));
  }
  std::string read(const ArtifactId& id) {
    const auto bytes = store_->open(*store_->find(id));
    std::string text(bytes->size_bytes, '\0');
    EXPECT_EQ(::pread(bytes->file.get(), text.data(), text.size(), 0),
              static_cast<ssize_t>(text.size()));
    return text;
  }
  std::string refusal(const ArtifactId& id, std::uint64_t offset, std::string_view bytes) {
    try {
      store_->append(id, offset, bytes);
    } catch (const ResourceConflictError& error) {
      return error.summary();
    }
    return "";
  }

  test::FakeClock clock_;
  TemporaryDirectory folder_;
  std::unique_ptr<FilesystemArtifactStore> store_ =
      std::make_unique<FilesystemArtifactStore>(root(), clock_);
};

TEST_F(LogStore, GrowsAndIsSealedAsAnArtifactWithTheSameId) {
  const ArtifactId id = open();
  EXPECT_EQ(store_->append(id, 0, "hello "), 6U);
  EXPECT_EQ(store_->append(id, 6, "world"), 11U);
  const auto growing = store_->find(id);
  EXPECT_FALSE(growing->sealed);
  EXPECT_EQ(growing->size_bytes, 11U);
  EXPECT_EQ(growing->sha256, "");
  EXPECT_EQ(store_->list({}).items.front().size_bytes, 11U);
  EXPECT_EQ(read(id), "hello world");

  const auto sealed = store_->seal(id);
  EXPECT_TRUE(sealed->sealed);
  EXPECT_EQ(sealed->id, id);
  EXPECT_EQ(sealed->size_bytes, 11U);
  EXPECT_EQ(sealed->sha256, sha256_hex("hello world"));
  EXPECT_EQ(sealed->created_at, growing->created_at);
  EXPECT_EQ(read(id), "hello world");
  EXPECT_THAT(files("logs"), IsEmpty());
  EXPECT_THAT(files("objects"), SizeIs(1));
  EXPECT_EQ(store_->seal(id)->sha256, sealed->sha256);
}

TEST_F(LogStore, AppendToldAgainThenOneEffect) {
  const ArtifactId id = open();
  store_->append(id, 0, "hello");
  EXPECT_EQ(store_->append(id, 0, "hello"), 5U);
  EXPECT_EQ(store_->append(id, 3, "lo world"), 11U);
  EXPECT_EQ(store_->append(id, 0, "he"), 11U);
  EXPECT_EQ(store_->append(id, 11, ""), 11U);
  EXPECT_EQ(read(id), "hello world");
}

TEST_F(LogStore, GapOrOtherBytesThenRefusedWithTheSize) {
  const ArtifactId id = open();
  store_->append(id, 0, "hello");
  EXPECT_THAT(refusal(id, 6, "x"), HasSubstr("has 5 bytes"));
  EXPECT_THAT(refusal(id, 6, ""), HasSubstr("has 5 bytes"));
  EXPECT_THAT(refusal(id, UINT64_MAX, "xy"), HasSubstr("has 5 bytes"));
  EXPECT_THAT(refusal(id, 0, "hellO and more"), HasSubstr("of 5 bytes, has other bytes"));
  EXPECT_EQ(read(id), "hello");
}

TEST_F(LogStore, SealedThenOnlyWhatItHasIsTaken) {
  const ArtifactId id = open();
  store_->append(id, 0, "hello");
  store_->seal(id);
  EXPECT_EQ(store_->append(id, 0, "hello"), 5U);
  EXPECT_EQ(store_->append(id, 5, ""), 5U);
  EXPECT_THAT(refusal(id, 5, "!"), HasSubstr("sealed, with 5 bytes"));
  EXPECT_THAT(refusal(id, 4, "o!"), HasSubstr("sealed, with 5 bytes"));
  EXPECT_THAT(refusal(put("never a log", "other").id, 11, "!"), HasSubstr("sealed"));
  EXPECT_EQ(read(id), "hello");
}

TEST_F(LogStore, UnknownIdThenNothing) {
  for (const char* id : {"", "x", "../index.sqlite", "0198"}) {
    EXPECT_FALSE(store_->append(ArtifactId{id}, 0, "x")) << id;
    EXPECT_FALSE(store_->seal(ArtifactId{id})) << id;
  }
}

TEST_F(LogStore, RestartThenItGoesOnWhereItStopped) {
  const ArtifactId id = open();
  store_->append(id, 0, "before ");
  restart();
  EXPECT_EQ(store_->find(id)->size_bytes, 7U);
  EXPECT_EQ(store_->append(id, 0, "before and after"), 16U);
  EXPECT_EQ(store_->seal(id)->sha256, sha256_hex("before and after"));
  restart();
  EXPECT_EQ(read(id), "before and after");
}

TEST_F(LogStore, NothingAppendedForItsLeaseThenSealed) {
  const ArtifactId id = open(10s);
  store_->append(id, 0, "x");
  clock_.advance(9s);
  store_->append(id, 1, "");  // renews
  clock_.advance(9s);
  store_->tend_logs();
  EXPECT_FALSE(store_->find(id)->sealed);
  clock_.advance(1s);
  store_->tend_logs();
  EXPECT_EQ(store_->find(id)->sha256, sha256_hex("x"));
}

TEST_F(LogStore, RestartThenTheLeaseBeginsAnew) {
  const ArtifactId id = open(10s);
  store_->append(id, 0, "x");
  clock_.advance(9s);
  restart();
  clock_.advance(9s);
  store_->tend_logs();
  EXPECT_FALSE(store_->find(id)->sealed);
  clock_.advance(1s);
  store_->tend_logs();
  EXPECT_TRUE(store_->find(id)->sealed);
}

TEST_F(LogStore, SameNameThenTheLaterReplacesTheEarlierAtItsBeginning) {
  const Artifact old_one = put("old");
  const ArtifactId first = open();
  EXPECT_FALSE(store_->find(old_one.id));
  store_->append(first, 0, "first");
  const ArtifactId second = open();
  EXPECT_FALSE(store_->find(first));
  EXPECT_FALSE(store_->append(first, 5, "x"));
  EXPECT_FALSE(store_->seal(first));
  const Artifact uploaded = put("whole");
  EXPECT_FALSE(store_->append(second, 0, "x"));
  EXPECT_THAT(store_->list({}).items, SizeIs(1));
  EXPECT_EQ(read(uploaded.id), "whole");
  EXPECT_THAT(files("logs"), IsEmpty());
  EXPECT_THAT(files("objects"), SizeIs(1));
  EXPECT_THAT(files("tmp"), IsEmpty());
}

TEST_F(LogStore, RemovedThenItIsGoneAndWhoHasItOpenReadsOn) {
  const ArtifactId id = open();
  store_->append(id, 0, "hello");
  const auto bytes = store_->open(*store_->find(id));
  EXPECT_TRUE(store_->remove(id));
  EXPECT_FALSE(store_->remove(id));
  EXPECT_FALSE(store_->append(id, 5, "x"));
  EXPECT_THAT(files("logs"), IsEmpty());
  char byte = 0;
  EXPECT_EQ(::pread(bytes->file.get(), &byte, 1, 4), 1);
  EXPECT_EQ(byte, 'o');
}

TEST_F(LogStore, LookedUpWhileOpenThenReadAfterTheSeal) {
  const ArtifactId id = open();
  store_->append(id, 0, "hello");
  const auto before = store_->find(id);
  store_->seal(id);
  EXPECT_EQ(store_->open(*before)->size_bytes, 5U);
  store_->remove(id);
  EXPECT_FALSE(store_->open(*before));
}

TEST_F(LogStore, BytesThatAnotherArtifactHasThenStoredOnce) {
  const Artifact other = put("same", "other");
  const ArtifactId id = open();
  store_->append(id, 0, "same");
  store_->seal(id);
  EXPECT_THAT(files("objects"), SizeIs(1));
  store_->remove(other.id);
  EXPECT_EQ(read(id), "same");
  store_->remove(id);
  EXPECT_THAT(files("objects"), IsEmpty());
}

TEST_F(LogStore, LargerThanAnArtifactMayBeThenRefused) {
  const ArtifactId id = open();
  stop();
  fs::resize_file(files("logs").front(), limits::kArtifactBytes - 1);  // a hole
  start();
  EXPECT_THROW(store_->append(id, limits::kArtifactBytes - 1, "ab"), ResourceLimitError);
  EXPECT_EQ(store_->append(id, limits::kArtifactBytes - 1, "a"), limits::kArtifactBytes);
  EXPECT_THROW(store_->append(id, limits::kArtifactBytes, "b"), ResourceLimitError);
  store_->remove(id);
}

TEST_F(LogStore, AppendThatFailsHalfwayThenNothingOfItStays) {
  const ArtifactId id = open();
  store_->append(id, 0, "hello");
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_THROW(store_->append(id, 5, std::string(2000, 'x')), StorageError);
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  EXPECT_EQ(fs::file_size(files("logs").front()), 5U);
  EXPECT_EQ(store_->append(id, 5, " world"), 11U);
  EXPECT_EQ(store_->seal(id)->sha256, sha256_hex("hello world"));
}

TEST_F(LogStore, TooManyAreOpenThenNoMoreUntilOneEnds) {
  stop();
  {
    db::Database index(root() / "index.sqlite");
    db::Transaction transaction(index);
    for (std::size_t n = 0; n < kOpenLogs; ++n) {
      write_file_atomic(root() / "logs" / ("log-" + std::to_string(n)), "");
      index
          .prepare(
              "INSERT INTO artifacts(id, type, name, spec, task, size_bytes, sha256,"
              " created_ms, metadata, tags, lease_ms) VALUES(?, 'log', '', '', '', 0, '', 0,"
              " '{}', '[]', 1000)")
          .bind("log-" + std::to_string(n))
          .run();
    }
    transaction.commit();
  }
  start();
  EXPECT_THROW(open(), Unavailable);
  store_->seal(ArtifactId{"log-7"});
  EXPECT_NO_THROW(open());
}

TEST_F(LogStore, SameKeyThenTheSameLogAsItIsNow) {
  ArtifactDraft one = draft();
  one.idempotency_key = "key";
  const ArtifactId id = store_->open_log(one, 60s).id;
  store_->append(id, 0, "hello");
  const Artifact again = store_->open_log(one, 60s);
  EXPECT_EQ(again.id, id);
  EXPECT_EQ(again.size_bytes, 5U);
  EXPECT_THROW(store_->open_log(one, 61s), IdempotencyMismatch);
  store_->remove(id);
  EXPECT_EQ(store_->open_log(one, 60s).id, id);
  EXPECT_THAT(store_->list({}).items, IsEmpty());
}

TEST_F(LogStore, EndedBetweenRowAndRenameThenTheNextStartPlacesTheObject) {
  const ArtifactId id = open();
  store_->append(id, 0, "hello");
  store_->seal(id);
  stop();
  fs::rename(files("objects").front(), root() / "logs" / id.value);
  start();
  EXPECT_EQ(read(id), "hello");
  EXPECT_THAT(files("logs"), IsEmpty());
}

TEST_F(LogStore, ObjectCannotBePlacedThenItsFileIsReadUntilTheNextTry) {
  const ArtifactId id = open();
  store_->append(id, 0, "hello");
  const fs::path folder = root() / "objects" / sha256_hex("hello").substr(0, 2);
  write_file_atomic(folder, "in the way");
  EXPECT_THROW(store_->seal(id), StorageError);
  EXPECT_TRUE(store_->find(id)->sealed);
  EXPECT_EQ(read(id), "hello");
  EXPECT_THAT(refusal(id, 5, "x"), HasSubstr("sealed"));
  fs::remove(folder);
  store_->tend_logs();
  EXPECT_THAT(files("logs"), IsEmpty());
  EXPECT_EQ(read(id), "hello");
}

TEST_F(LogStore, FileWithoutARowThenTheNextStartRemovesIt) {
  stop();
  write_file_atomic(root() / "logs" / "stray", "x");
  start();
  EXPECT_THAT(files("logs"), IsEmpty());
}

TEST_F(LogStore, FileIsGoneThenTheLogGoesOnAsAnEmptyOne) {
  const ArtifactId id = open();
  store_->append(id, 0, "hello");
  fs::remove(files("logs").front());
  EXPECT_THROW(store_->append(id, 5, "x"), StorageError);
  restart();
  EXPECT_EQ(store_->append(id, 0, "anew"), 4U);
}

TEST_F(LogStore, FolderOfAnEarlierVersionThenItsArtifactsAreSealed) {
  const Artifact made = put("old");
  stop();
  {
    db::Database index(root() / "index.sqlite");
    index.execute(
        "DROP INDEX artifacts_open; ALTER TABLE artifacts DROP COLUMN lease_ms;"
        "PRAGMA user_version=1");
    fs::remove(root() / "logs");
  }
  start();
  EXPECT_TRUE(store_->find(made.id)->sealed);
  EXPECT_NO_THROW(open());
}

TEST_F(LogStore, UsageCountsWhatIsOpen) {
  put("12345", "other");
  const ArtifactId id = open();
  store_->append(id, 0, "123");
  const ArtifactUsage usage = store_->usage();
  EXPECT_EQ(usage.count, 2U);
  EXPECT_EQ(usage.open_logs, 1U);
  EXPECT_EQ(usage.size_bytes, 8U);
  EXPECT_EQ(usage.stored_bytes, 8U);
  ASSERT_THAT(usage.groups, SizeIs(1));
  EXPECT_EQ(usage.groups.front().size_bytes, 8U);
}

TEST_F(LogStore, ChangesAreTold) {
  std::vector<std::string> told;
  store_->on_log_change([&](const ArtifactId& id) { told.push_back(id.value); });
  const ArtifactId sealed = open();
  store_->append(sealed, 0, "x");
  store_->append(sealed, 0, "x");  // nothing new
  store_->seal(sealed);
  EXPECT_THAT(told, ElementsAre(sealed.value, sealed.value));
  const ArtifactId removed = open();  // replaces a sealed one, which nobody follows
  store_->remove(removed);
  EXPECT_THAT(told, ElementsAre(sealed.value, sealed.value, removed.value));
}

TEST_F(LogStore, TwoWritersOfTheSameBytesThenEachByteOnce) {
  std::string whole;
  while (whole.size() < 200'000) whole += std::to_string(whole.size()) + "\n";
  const ArtifactId id = open();
  const auto write = [&](std::size_t step) {
    for (std::size_t at = 0; at < whole.size();) {
      at += step;
      const std::size_t begin = at - step;
      store_->append(id, begin, std::string_view(whole).substr(begin, step));
    }
  };
  {
    const std::jthread one(write, 700);
    const std::jthread two(write, 1'100);
  }
  EXPECT_EQ(store_->seal(id)->sha256, sha256_hex(whole));
}

TEST_F(LogStore, SealedInTheMiddleOfAppendsThenItHasAllThatWereTaken) {
  for (int round = 0; round < 50; ++round) {
    const ArtifactId id = open();
    std::atomic<std::uint64_t> taken = 0;
    std::jthread writing([&] {
      try {
        for (;;) taken = store_->append(id, taken, "some bytes\n").value();
      } catch (const ResourceConflictError&) {  // it is sealed
      }
    });
    while (taken < 500) std::this_thread::yield();
    const auto sealed = store_->seal(id);
    writing.join();
    EXPECT_EQ(sealed->size_bytes, taken);
    EXPECT_EQ(sha256_hex(read(id)), sealed->sha256);
  }
}

// What is acknowledged is there, and nothing but a beginning of the append that was under way.
TEST_F(LogStore, KilledInTheMiddleOfAppendsThenAllThatWereTakenAreThere) {
  const ArtifactId id = open();
  stop();
  int acknowledged[2];
  ASSERT_EQ(::pipe2(acknowledged, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    FilesystemArtifactStore store(root());
    for (std::uint64_t size = 0;;) {
      size =
          store.append(id, size, std::string(10'000, static_cast<char>('a' + size % 23))).value();
      if (::write(acknowledged[1], &size, sizeof size) != sizeof size) ::_exit(1);
    }
  }
  std::uint64_t size = 0;
  while (size < 1'000'000) {
    ASSERT_EQ(::read(acknowledged[0], &size, sizeof size), static_cast<ssize_t>(sizeof size));
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(acknowledged[1]);
  while (::read(acknowledged[0], &size, sizeof size) > 0) {
  }
  ::close(acknowledged[0]);
  start();
  const std::string bytes = read(id);
  EXPECT_GE(bytes.size(), size);
  EXPECT_LE(bytes.size(), size + 10'000);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    ASSERT_EQ(bytes[at], static_cast<char>('a' + at / 10'000 * 10'000 % 23)) << at;
  }
  EXPECT_EQ(store_->append(id, bytes.size(), "on"), bytes.size() + 2);
}

}  // namespace
}  // namespace necrocode::artifacts
