#include "necrocode/db/backup.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <set>
#include <thread>

#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/db/lock.hpp"

namespace necrocode::db {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// Two tables whose sums are always the same, in transactions; and one that grows.
constexpr std::string_view kSchema =
    "CREATE TABLE a (n INTEGER NOT NULL); INSERT INTO a VALUES (0);"
    "CREATE TABLE b (n INTEGER NOT NULL); INSERT INTO b VALUES (0);"
    "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL);"
    "CREATE INDEX log_by_text ON log (text);";
const std::vector<std::string_view> kMigrations = {kSchema};

std::int64_t number(Database& database, std::string_view sql) {
  Statement query(database, sql);
  EXPECT_TRUE(query.step());
  return query.integer(0);
}

std::vector<std::string> sums_differ(Database& database) {
  const bool same = number(database, "SELECT n FROM a") == number(database, "SELECT n FROM b");
  return same ? std::vector<std::string>() : std::vector<std::string>{"a and b differ"};
}

class DatabaseBackup : public testing::Test {
 protected:
  DatabaseBackup() {
    Database database(path);
    database.migrate(kMigrations);
    grow(database, 10);
  }
  static void grow(Database& database, int times) {
    for (int i = 0; i < times; ++i) {
      Transaction transaction(database);
      database.execute("UPDATE a SET n = n + 1");
      database.execute("INSERT INTO log (text) VALUES (hex(randomblob(500)))");
      database.execute("UPDATE b SET n = n + 1");
      transaction.commit();
    }
  }
  std::int64_t rows(const fs::path& file) {
    Database database(file, Database::Mode::kReadOnly);
    return number(database, "SELECT count(*) FROM log");
  }
  std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder.path())) {
      const std::string name = entry.path().filename().string();
      if (!name.ends_with("-wal") && !name.ends_with("-shm")) found.insert(name);
    }
    return found;
  }
  /// What a refusal says.
  template <class Error, class Work>
  std::string refusal(const Work& work) {
    try {
      work();
    } catch (const Error& error) {
      return error.what();
    }
    ADD_FAILURE() << "not refused";
    return {};
  }

  TemporaryDirectory folder;
  fs::path path = folder.path() / "x.db";
  fs::path copy = folder.path() / "copy.db";
  DatabaseKind kind{.name = "its test", .schema_max = 1, .check = sums_differ};
};

TEST_F(DatabaseBackup, CopyIsOnePrivateFileWithAllThatWasCommitted) {
  Database writer(path);
  grow(writer, 5);  // in the WAL only
  const DatabaseFacts facts = backup_database(path, copy, kind);
  EXPECT_EQ(facts.schema_version, 1);
  EXPECT_EQ(facts.bytes, fs::file_size(copy));
  EXPECT_EQ(rows(copy), 15);
  EXPECT_FALSE(fs::exists(copy.string() + "-wal"));
  struct stat status = {};
  ASSERT_EQ(::stat(copy.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_THAT(names(), testing::ElementsAre("copy.db", "x.db"));
}

TEST_F(DatabaseBackup, CopyUnderWritesIsOfOneMoment) {
  std::atomic<bool> stop{false};
  std::atomic<int> written{0};
  std::thread writing([&] {
    Database writer(path);
    while (!stop) {
      grow(writer, 1);
      ++written;
    }
  });
  for (int i = 0; i < 20; ++i) {
    const int before = written;
    backup_database(path, copy, kind, true);  // its check compares the sums
    EXPECT_GE(rows(copy), 10 + before);
  }
  stop = true;
  writing.join();
}

TEST_F(DatabaseBackup, ExistingFileIsOverwrittenOnlyWhenToldSo) {
  write_file_atomic(copy, "mine");
  EXPECT_THAT(refusal<ResourceConflictError>([&] { backup_database(path, copy, kind); }),
              HasSubstr("is there already"));
  EXPECT_EQ(read_file(copy, 100), "mine");
  backup_database(path, copy, kind, true);
  EXPECT_EQ(rows(copy), 10);
}

TEST_F(DatabaseBackup, DatabaseItselfAndWhatIsNoFileAreNoTarget) {
  EXPECT_THROW(backup_database(path, path, kind, true), ResourceConflictError);
  for (const char* suffix : {"-wal", "-shm", "-journal", ".lock"}) {
    EXPECT_THROW(backup_database(path, path.string() + suffix, kind, true), ResourceConflictError)
        << suffix;
  }
  fs::create_hard_link(path, folder.path() / "same");
  EXPECT_THROW(backup_database(path, folder.path() / "same", kind, true), ResourceConflictError);
  EXPECT_THROW(backup_database(path, folder.path(), kind, true), ResourceConflictError);
  EXPECT_THROW(backup_database(path, folder.path() / "none" / "x", kind), StorageError);
  EXPECT_THROW(backup_database(folder.path() / "none.db", copy, kind), StorageError);
  EXPECT_EQ(rows(path), 10);
  EXPECT_FALSE(fs::exists(copy));
}

TEST_F(DatabaseBackup, FailedWriteLeavesNothingBehind) {
  {
    Database database(path);
    grow(database, 200);
  }
  struct rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = 64 * 1024;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(backup_database(path, copy, kind), StorageError);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(names(), testing::ElementsAre("x.db"));
}

TEST_F(DatabaseBackup, WhatIsNoGoodBackupIsSaidSo) {
  const auto why = [&] { return refusal<StorageError>([&] { verify_database(copy, kind); }); };
  write_file_atomic(copy,
                    "this is a text, and long enough to be looked at as a database header "
                    "would be, which has a hundred bytes");
  EXPECT_THAT(why(), HasSubstr("not a database"));
  write_file_atomic(copy, "");
  EXPECT_THAT(why(), HasSubstr("no database of this program"));
  fs::remove(copy);
  EXPECT_THAT(why(), HasSubstr("unable to open"));

  backup_database(path, copy, kind);
  ASSERT_EQ(::truncate(copy.c_str(), static_cast<off_t>(fs::file_size(copy) / 2)), 0);
  EXPECT_THAT(why(), HasSubstr("malformed"));

  backup_database(path, copy, kind, true);
  {
    Database database(copy);
    database.execute("UPDATE a SET n = 7");
  }
  EXPECT_THAT(why(), HasSubstr("a and b differ"));

  backup_database(path, copy, kind, true);
  {
    Database database(copy);
    database.execute("PRAGMA user_version=2");
  }
  EXPECT_THAT(why(), HasSubstr("schema version 2"));
}

TEST_F(DatabaseBackup, FlippedBytesAreFound) {
  {
    Database database(path);
    grow(database, 300);
  }
  backup_database(path, copy, kind);
  std::string bytes = read_file(copy, limits::kGiB);
  for (std::size_t page = 4096; page + 4096 < bytes.size(); page += 4096) bytes[page + 2000] ^= 1;
  write_file_atomic(copy, bytes);
  EXPECT_THAT(refusal<StorageError>([&] { verify_database(copy, kind); }),
              HasSubstr("cannot be used"));
}

class DatabaseRestore : public DatabaseBackup {
 protected:
  DatabaseRestore() {
    backup_database(path, copy, kind);
    Database database(path);
    grow(database, 7);
  }
  RestoreOptions options() { return {.kind = kind}; }
};

TEST_F(DatabaseRestore, BackupTakesThePlaceAndTheOldDatabaseIsKept) {
  const RestoredDatabase restored = restore_database(copy, path, options());
  EXPECT_EQ(rows(path), 10);
  EXPECT_EQ(rows(restored.kept), 17);
  EXPECT_THAT(restored.kept.filename().string(), testing::StartsWith("x.db.before-restore-2"));
  EXPECT_EQ(rows(copy), 10);
  struct stat status = {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(DatabaseRestore, WalOfAKilledProcessGoesWithTheOldDatabase) {
  // A child that leaves its WAL behind, as a killed process does.
  const pid_t child = ::fork();
  if (child == 0) {
    Database database(path);
    grow(database, 3);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_GT(fs::file_size(path.string() + "-wal"), 0u);
  const RestoredDatabase restored = restore_database(copy, path, options());
  EXPECT_EQ(rows(restored.kept), 20);
  EXPECT_EQ(rows(path), 10);
  verify_database(path, kind);
}

TEST_F(DatabaseRestore, DamagedDatabaseIsReplacedAndKeptWithItsWal) {
  write_file_atomic(path, std::string(10'000, 'x'));
  write_file_atomic(path.string() + "-wal", "some");
  bool had_old = true;
  RestoreOptions with = options();
  with.adjust = [&](Database&, Database* old) { had_old = old != nullptr; };
  const RestoredDatabase restored = restore_database(copy, path, with);
  EXPECT_FALSE(had_old);
  EXPECT_EQ(rows(path), 10);
  EXPECT_EQ(fs::file_size(restored.kept), 10'000u);
  EXPECT_EQ(read_file(restored.kept.string() + "-wal", 100), "some");
}

TEST_F(DatabaseRestore, StaleWalWithoutDatabaseIsNotTakenForTheNewOnes) {
  fs::remove(path);
  write_file_atomic(path.string() + "-wal", std::string(5'000, 'x'));
  EXPECT_TRUE(restore_database(copy, path, options()).kept.empty());
  EXPECT_EQ(rows(path), 10);
}

TEST_F(DatabaseRestore, AdjustmentSeesBothAndIsInTheResult) {
  RestoreOptions with = options();
  with.adjust = [&](Database& restored, Database* old) {
    ASSERT_NE(old, nullptr);
    EXPECT_EQ(number(*old, "SELECT count(*) FROM log"), 17);
    restored.execute("INSERT INTO log (text) VALUES ('adjusted')");
  };
  restore_database(copy, path, with);
  EXPECT_EQ(rows(path), 11);
}

TEST_F(DatabaseRestore, RefusalChangesNothing) {
  const std::string before = read_file(path, limits::kGiB);
  {
    const FileDescriptor serving = lock_database(path, kind.name);
    EXPECT_THAT(refusal<ResourceConflictError>([&] { restore_database(copy, path, options()); }),
                HasSubstr("it has its test open"));
  }
  EXPECT_THROW(restore_database(path, path, options()), ResourceConflictError);
  EXPECT_THROW(restore_database(folder.path() / "none", path, options()), StorageError);
  RestoreOptions with = options();
  with.adjust = [](Database&, Database*) { throw StorageError("no"); };
  EXPECT_THROW(restore_database(copy, path, with), StorageError);
  ASSERT_EQ(::truncate(copy.c_str(), 5'000), 0);
  EXPECT_THROW(restore_database(copy, path, options()), StorageError);
  EXPECT_EQ(read_file(path, limits::kGiB), before);
  EXPECT_THAT(names(), testing::ElementsAre("copy.db", "x.db", "x.db.lock"));
}

TEST_F(DatabaseRestore, ReaderHoldsItUp) {
  Database writer(path);
  grow(writer, 1);
  Database reader(path, Database::Mode::kReadOnly);
  reader.execute("BEGIN");
  EXPECT_EQ(number(reader, "SELECT count(*) FROM log"), 18);
  grow(writer, 1);
  EXPECT_THAT(refusal<ResourceConflictError>([&] { restore_database(copy, path, options()); }),
              HasSubstr("try again"));
  reader.execute("COMMIT");
  EXPECT_EQ(rows(path), 19);
}

TEST_F(DatabaseBackup, OlderSchemaIsCopiedBeforeItIsMigrated) {
  Database database(path);
  const std::vector<std::string_view> newer = {kSchema, "CREATE TABLE c (n)", "CREATE TABLE d (n)"};
  migrate_with_backup(database, path, newer);
  EXPECT_EQ(number(database, "PRAGMA user_version"), 3);
  const fs::path kept = path.string() + ".v1-backup";
  EXPECT_EQ(rows(kept), 10);
  EXPECT_EQ(verify_database(kept, kind).schema_version, 1);
  fs::remove(kept);
  migrate_with_backup(database, path, newer);
  EXPECT_FALSE(fs::exists(kept)) << "nothing to migrate";
}

TEST_F(DatabaseBackup, NewDatabaseIsMigratedWithoutACopy) {
  const fs::path fresh = folder.path() / "fresh.db";
  Database database(fresh);
  migrate_with_backup(database, fresh, kMigrations);
  EXPECT_THAT(names(), testing::ElementsAre("fresh.db", "x.db"));
}

TEST_F(DatabaseBackup, NothingIsMigratedWithoutItsCopy) {
  fs::create_directory(path.string() + ".v1-backup");
  Database database(path);
  EXPECT_THROW(migrate_with_backup(database, path, {kSchema, "CREATE TABLE c (n)"}),
               ResourceConflictError);
  EXPECT_EQ(number(database, "PRAGMA user_version"), 1);
}

}  // namespace
}  // namespace necrocode::db
