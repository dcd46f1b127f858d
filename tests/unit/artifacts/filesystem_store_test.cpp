// The filesystem store alone: what it promises about bytes, index, crashes and damage.
#include "necrocode/artifacts/filesystem_store.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/db/sqlite.hpp"

namespace necrocode::artifacts {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class FixedClock final : public Clock {
 public:
  SteadyTime steady_now() const override { return SteadyTime{}; }
  SystemTime system_now() const override { return now; }
  bool sleep_until(SteadyTime, const std::stop_token&) const override { return true; }
  SystemTime now = SystemTime(std::chrono::seconds{1'800'000'000});
};

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_directory()) files.push_back(entry.path());
  }
  return files;
}

class FilesystemArtifactStoreTest : public testing::Test {
 protected:
  fs::path root() const { return folder_.path() / "artifacts"; }
  fs::path objects() const { return root() / "objects"; }
  fs::path temporary() const { return root() / "tmp"; }

  Artifact put(const ArtifactDraft& draft, std::string_view bytes) {
    const auto upload = store_->begin_upload();
    upload->write(bytes);
    upload->finish();
    return upload->publish(draft);
  }
  std::string read(const Artifact& artifact) {
    const auto bytes = store_->open(artifact);
    std::string text(bytes->size_bytes, '\0');
    EXPECT_EQ(::pread(bytes->file.get(), text.data(), text.size(), 0),
              static_cast<ssize_t>(text.size()));
    return text;
  }
  void restart() {
    store_.reset();
    store_ = std::make_unique<FilesystemArtifactStore>(root(), clock_);
  }

  static ArtifactDraft draft(std::string type = "log", std::string task = {},
                             std::string name = {}) {
    ArtifactDraft draft;
    draft.type = std::move(type);
    draft.task = std::move(task);
    draft.name = std::move(name);
    if (!draft.task.empty()) draft.spec = "chat-app";
    return draft;
  }

  FixedClock clock_;
  TemporaryDirectory folder_;
  std::unique_ptr<FilesystemArtifactStore> store_ =
      std::make_unique<FilesystemArtifactStore>(root(), clock_);
};

TEST_F(FilesystemArtifactStoreTest, PublishedBytesComeBackWithTheirDigestAlsoAfterARestart) {
  const Artifact made = put(draft(), "hello");
  restart();
  const auto found = store_->find(made.id);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->sha256, sha256_hex("hello"));
  EXPECT_EQ(found->size_bytes, 5U);
  EXPECT_EQ(found->created_at, clock_.now);
  EXPECT_EQ(found->name, made.id.value);
  EXPECT_EQ(read(*found), "hello");
}

TEST_F(FilesystemArtifactStoreTest, EmptyArtifactIsAnArtifact) {
  EXPECT_EQ(read(put(draft(), "")), "");
}

TEST_F(FilesystemArtifactStoreTest, UploadThatIsNotPublishedLeavesNothing) {
  {
    const auto upload = store_->begin_upload();
    upload->write("half of it");
    EXPECT_THAT(files_below(temporary()), SizeIs(1));
  }
  EXPECT_THAT(files_below(temporary()), IsEmpty());
  EXPECT_THAT(files_below(objects()), IsEmpty());
  EXPECT_THAT(store_->list({}).items, IsEmpty());
}

TEST_F(FilesystemArtifactStoreTest, EqualBytesAreStoredOnceUntilTheLastArtifactGoes) {
  const Artifact one = put(draft(), "same");
  const Artifact two = put(draft("diff"), "same");
  EXPECT_NE(one.id, two.id);
  EXPECT_THAT(files_below(objects()), SizeIs(1));
  EXPECT_TRUE(store_->remove(one.id));
  EXPECT_EQ(read(two), "same");
  EXPECT_TRUE(store_->remove(two.id));
  EXPECT_THAT(files_below(objects()), IsEmpty());
  EXPECT_THAT(files_below(temporary()), IsEmpty());
  EXPECT_FALSE(store_->remove(two.id));
}

TEST_F(FilesystemArtifactStoreTest, SameTaskTypeAndGivenNameReplaces) {
  const Artifact old_one = put(draft("log", "1.1", "run.log"), "old");
  const Artifact new_one = put(draft("log", "1.1", "run.log"), "new");
  EXPECT_NE(old_one.id, new_one.id);
  EXPECT_FALSE(store_->find(old_one.id));
  EXPECT_EQ(read(new_one), "new");
  EXPECT_THAT(store_->list({}).items, SizeIs(1));
  EXPECT_THAT(files_below(objects()), SizeIs(1));
}

TEST_F(FilesystemArtifactStoreTest, ReplacingWithTheSameBytesKeepsTheObject) {
  put(draft("log", "1.1", "run.log"), "same");
  const Artifact again = put(draft("log", "1.1", "run.log"), "same");
  EXPECT_EQ(read(again), "same");
  EXPECT_THAT(store_->list({}).items, SizeIs(1));
}

TEST_F(FilesystemArtifactStoreTest, AnotherTaskTypeOrNameOrNoGivenNameKeepsBoth) {
  put(draft("log", "1.1", "a"), "1");
  put(draft("log", "1.2", "a"), "2");
  put(draft("diff", "1.1", "a"), "3");
  put(draft("log", "1.1", "b"), "4");
  put(draft("log", "1.1"), "5");
  put(draft("log", "1.1"), "6");
  put(draft("log", "", "a"), "7");
  put(draft("log", "", "a"), "8");
  EXPECT_THAT(store_->list({}).items, SizeIs(8));
}

TEST_F(FilesystemArtifactStoreTest, HostileNamesAreOnlyData) {
  ArtifactDraft hostile = draft("log", "../../etc", "../../x");
  hostile.spec = "/";
  hostile.metadata = Json::object({{"name", "../../x"}, {"n", std::string("a\0b", 3)}});
  const Artifact made = put(hostile, "data");
  const auto found = store_->find(made.id);
  EXPECT_EQ(found->name, "../../x");
  EXPECT_EQ(found->metadata, hostile.metadata);
  EXPECT_EQ(files_below(objects()).front().filename(), sha256_hex("data"));
  EXPECT_FALSE(store_->find(ArtifactId{"../../x"}));
  EXPECT_FALSE(store_->find(ArtifactId{std::string("a\0b", 3)}));
}

TEST_F(FilesystemArtifactStoreTest, RestartSweepsUploadsThatWereCut) {
  std::ofstream(temporary() / "upload.0123456789abcdef") << "half";
  restart();
  EXPECT_THAT(files_below(temporary()), IsEmpty());
}

TEST_F(FilesystemArtifactStoreTest, RestartRemovesAnObjectWhoseIndexRowNeverCame) {
  const std::string orphan = sha256_hex("orphan");
  fs::create_directory(objects() / orphan.substr(0, 2));
  std::ofstream(objects() / orphan.substr(0, 2) / orphan) << "orphan";
  std::ofstream(temporary() / (orphan + ".0011223344556677"));
  const Artifact kept = put(draft(), "kept");
  std::ofstream(temporary() / (kept.sha256 + ".0011223344556677"));
  restart();
  EXPECT_EQ(read(kept), "kept");
  EXPECT_THAT(files_below(objects()), SizeIs(1));
  EXPECT_THAT(files_below(temporary()), IsEmpty());
}

TEST_F(FilesystemArtifactStoreTest, KilledInTheMiddleOfAnUploadLeavesNoEntryAndNoRemains) {
  store_.reset();
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    FilesystemArtifactStore store(root());
    const auto upload = store.begin_upload();
    upload->write(std::string(100'000, 'x'));
    if (::write(ready[1], "r", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char byte = 0;
  EXPECT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THROW(FilesystemArtifactStore{root()}, ResourceConflictError);  // the child has it
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  EXPECT_THAT(files_below(temporary()), SizeIs(1));
  store_ = std::make_unique<FilesystemArtifactStore>(root(), clock_);
  EXPECT_THAT(files_below(temporary()), IsEmpty());
  EXPECT_THAT(files_below(objects()), IsEmpty());
  EXPECT_THAT(store_->list({}).items, IsEmpty());
}

TEST_F(FilesystemArtifactStoreTest, SecondStoreOnOneDirectoryIsRefused) {
  try {
    FilesystemArtifactStore second(root());
    FAIL();
  } catch (const ResourceConflictError& error) {
    EXPECT_THAT(error.what(), HasSubstr("another process serves the folder " + root().string()));
  }
}

TEST_F(FilesystemArtifactStoreTest, ObjectOfAnotherSizeIsLoud) {
  const Artifact made = put(draft(), "hello");
  fs::resize_file(files_below(objects()).front(), 4);
  try {
    store_->open(made);
    FAIL();
  } catch (const StorageError& error) {
    EXPECT_THAT(error.what(), HasSubstr(made.id.value));
    EXPECT_THAT(error.what(), HasSubstr("damaged"));
  }
}

TEST_F(FilesystemArtifactStoreTest, MissingObjectIsLoudButADeletedArtifactIsNothing) {
  const Artifact made = put(draft(), "hello");
  fs::remove(files_below(objects()).front());
  EXPECT_THROW(store_->open(made), StorageError);
  store_->remove(made.id);
  EXPECT_FALSE(store_->open(made));
}

TEST_F(FilesystemArtifactStoreTest, UploadingAgainRepairsATruncatedObject) {
  put(draft(), "hello");
  fs::resize_file(files_below(objects()).front(), 0);
  EXPECT_EQ(read(put(draft(), "hello")), "hello");
}

TEST_F(FilesystemArtifactStoreTest, DeletedArtifactIsReadToItsEndByWhoHasItOpen) {
  const Artifact made = put(draft(), "still here");
  const auto bytes = store_->open(made);
  store_->remove(made.id);
  char text[10];
  EXPECT_EQ(::pread(bytes->file.get(), text, sizeof text, 0), 10);
}

TEST_F(FilesystemArtifactStoreTest, PagesAreStableWhileArtifactsComeAndGo) {
  std::vector<Artifact> made;
  for (int i = 0; i < 7; ++i) made.push_back(put(draft(), std::to_string(i)));
  ArtifactFilter filter;
  filter.limit = 3;
  const ArtifactList first = store_->list(filter);
  ASSERT_THAT(first.items, SizeIs(3));
  EXPECT_EQ(first.items.front().id, made[6].id);
  put(draft(), "newer");
  store_->remove(made[4].id);  // the one the cursor stands at
  store_->remove(made[3].id);
  filter.before = first.next.value();
  const ArtifactList second = store_->list(filter);
  ASSERT_THAT(second.items, SizeIs(3));
  EXPECT_EQ(second.items.front().id, made[2].id);
  EXPECT_EQ(second.items.back().id, made[0].id);
  EXPECT_FALSE(second.next);
}

TEST_F(FilesystemArtifactStoreTest, FiltersCombine) {
  ArtifactDraft tagged = draft("log", "1.1");
  tagged.tags = {"keep", "b"};
  const Artifact one = put(tagged, "1");
  clock_.now += std::chrono::hours{1};
  const Artifact two = put(draft("diff", "1.1"), "2");
  put(draft("log"), "3");
  const auto ids = [&](const ArtifactFilter& filter) {
    std::vector<std::string> found;
    for (const Artifact& artifact : store_->list(filter).items) found.push_back(artifact.id.value);
    return found;
  };
  ArtifactFilter by_task;
  by_task.task = "1.1";
  EXPECT_THAT(ids(by_task), ElementsAre(two.id.value, one.id.value));
  ArtifactFilter by_both = by_task;
  by_both.type = "log";
  by_both.spec = "chat-app";
  EXPECT_THAT(ids(by_both), ElementsAre(one.id.value));
  ArtifactFilter by_tag;
  by_tag.tag = "keep";
  EXPECT_THAT(ids(by_tag), ElementsAre(one.id.value));
  ArtifactFilter by_time;
  by_time.until = clock_.now;
  EXPECT_THAT(ids(by_time), ElementsAre(one.id.value));
  by_time.until.reset();
  by_time.since = clock_.now;
  EXPECT_THAT(ids(by_time), SizeIs(2));
}

TEST_F(FilesystemArtifactStoreTest, ChangedTagsReplaceTheOldAndAreFound) {
  ArtifactDraft tagged = draft();
  tagged.tags = {"z", "a"};
  const Artifact made = put(tagged, "x");
  EXPECT_THAT(store_->find(made.id)->tags, ElementsAre("z", "a"));
  EXPECT_THAT(store_->set_tags(made.id, {"new"})->tags, ElementsAre("new"));
  EXPECT_THAT(store_->find(made.id)->tags, ElementsAre("new"));
  ArtifactFilter filter;
  filter.tag = "z";
  EXPECT_THAT(store_->list(filter).items, IsEmpty());
  filter.tag = "new";
  EXPECT_THAT(store_->list(filter).items, SizeIs(1));
  EXPECT_FALSE(store_->set_tags(ArtifactId{"unknown"}, {}));
}

TEST_F(FilesystemArtifactStoreTest, UsageCountsEachObjectOnce) {
  EXPECT_EQ(store_->usage().stored_bytes, 0U);
  put(draft("log", "1.1"), "12345");
  put(draft("log", "1.2"), "12345");
  put(draft("diff"), "123");
  const ArtifactUsage usage = store_->usage();
  EXPECT_EQ(usage.count, 3U);
  EXPECT_EQ(usage.size_bytes, 13U);
  EXPECT_EQ(usage.stored_bytes, 8U);
  ASSERT_THAT(usage.groups, SizeIs(2));
  EXPECT_EQ(usage.groups[1].spec, "chat-app");
  EXPECT_EQ(usage.groups[1].size_bytes, 10U);
}

TEST_F(FilesystemArtifactStoreTest, SameKeyGivesTheFirstAnswerAgainAndAnotherUploadIsRefused) {
  ArtifactDraft keyed = draft();
  keyed.idempotency_key = "k1";
  const Artifact first = put(keyed, "x");
  clock_.now += std::chrono::hours{23};
  const Artifact again = put(keyed, "x");
  EXPECT_EQ(first.id, again.id);
  EXPECT_EQ(first.created_at, again.created_at);
  EXPECT_THROW(put(keyed, "y"), IdempotencyMismatch);
  EXPECT_THAT(store_->list({}).items, SizeIs(1));
  EXPECT_THAT(files_below(temporary()), IsEmpty());
  clock_.now += std::chrono::hours{1};  // the key's day is over
  EXPECT_NE(put(keyed, "y").id, first.id);
}

TEST_F(FilesystemArtifactStoreTest, ManyThreadsPublishAndRemoveEqualBytesWithoutLosingAny) {
  std::vector<std::jthread> threads;
  std::vector<Artifact> kept(8);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    threads.emplace_back([this, i, &kept] {
      for (int round = 0; round < 5; ++round) store_->remove(put(draft(), "shared").id);
      kept[i] = put(draft(), "shared");
    });
  }
  threads.clear();
  for (const Artifact& artifact : kept) EXPECT_EQ(read(artifact), "shared");
  EXPECT_THAT(files_below(objects()), SizeIs(1));
  EXPECT_THAT(files_below(temporary()), IsEmpty());
}

TEST_F(FilesystemArtifactStoreTest, FailingIndexPublishesNothing) {
  const auto upload = store_->begin_upload();
  upload->write("x");
  upload->finish();
  ArtifactDraft keyed = draft();
  db::Database other(root() / "index.sqlite");
  other.execute(
      "CREATE TRIGGER full BEFORE INSERT ON artifacts BEGIN SELECT RAISE(ABORT, 'no'); END");
  EXPECT_THROW(upload->publish(keyed), StorageError);
  EXPECT_THAT(files_below(objects()), IsEmpty());
  EXPECT_THAT(store_->list({}).items, IsEmpty());
  other.execute("DROP TRIGGER full");
  EXPECT_EQ(read(put(draft(), "x")), "x");
}

TEST_F(FilesystemArtifactStoreTest, CheckFailsWhenTheObjectsAreGone) {
  EXPECT_NO_THROW(store_->check());
  fs::remove_all(objects());
  EXPECT_THROW(store_->check(), StorageError);
}

TEST_F(FilesystemArtifactStoreTest, FilesAreForTheOwnerOnly) {
  put(draft(), "private");
  for (const fs::path& path : files_below(root())) {
    EXPECT_EQ(fs::status(path).permissions() & (fs::perms::group_all | fs::perms::others_all),
              fs::perms::none)
        << path;
  }
}

TEST_F(FilesystemArtifactStoreTest, RottenObjectOfTheRightSizeThenTheNextUploadHealsIt) {
  const Artifact first = put(draft(), "healthy");
  std::ofstream(files_below(objects()).front()) << "r0tten!";
  ASSERT_EQ(read(first), "r0tten!");
  EXPECT_EQ(read(put(draft(), "healthy")), "healthy");
  EXPECT_EQ(read(first), "healthy");
  EXPECT_THAT(files_below(objects()), SizeIs(1));
}

}  // namespace
}  // namespace necrocode::artifacts
