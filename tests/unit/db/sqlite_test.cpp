#include "necrocode/db/sqlite.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "necrocode/base/file.hpp"

namespace necrocode::db {
namespace {

using testing::HasSubstr;

class SqliteTest : public testing::Test {
 protected:
  std::int64_t count() {
    Statement& query = database.prepare("SELECT count(*) FROM t");
    EXPECT_TRUE(query.step());
    const std::int64_t rows = query.integer(0);
    query.reset();
    return rows;
  }

  TemporaryDirectory folder;
  std::filesystem::path path = folder.path() / "x.db";
  Database database{path};
};

class SqliteTableTest : public SqliteTest {
 protected:
  SqliteTableTest() {
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
  }
};

TEST_F(SqliteTest, NewFileIsPrivateAndDurable) {
  struct stat info = {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  Statement& mode = database.prepare("PRAGMA journal_mode");
  ASSERT_TRUE(mode.step());
  EXPECT_EQ(mode.text(0), "wal");
  mode.reset();
  Statement& synchronous = database.prepare("PRAGMA synchronous");
  ASSERT_TRUE(synchronous.step());
  EXPECT_EQ(synchronous.integer(0), 2);  // FULL
  synchronous.reset();
}

TEST_F(SqliteTest, MissingFolderIsAStorageError) {
  EXPECT_THROW(Database(folder.path() / "none" / "x.db"), StorageError);
}

TEST_F(SqliteTest, ReadOnlyNeitherCreatesNorWrites) {
  EXPECT_THROW(Database(folder.path() / "none.db", Database::Mode::kReadOnly), StorageError);
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "none.db"));
  database.execute("CREATE TABLE t (id INTEGER)");
  Database reader(path, Database::Mode::kReadOnly);
  EXPECT_THROW(reader.execute("INSERT INTO t VALUES (1)"), DatabaseError);
}

TEST_F(SqliteTest, FileThatIsNoDatabaseIsAnError) {
  write_file_atomic(folder.path() / "text.db", std::string(4096, 'x'));
  EXPECT_THROW(Database(folder.path() / "text.db"), DatabaseError);
}

TEST_F(SqliteTableTest, ValuesComeBackAsTheyWere) {
  database.execute("CREATE TABLE v (a, b, c, d, e)");
  const std::string text("a\0b\xc3\xa4", 5);
  database.prepare("INSERT INTO v VALUES (?, ?, ?, ?, ?)")
      .bind(text)
      .bind(INT64_MIN)
      .bind(0.5)
      .bind(std::optional<std::string>())
      .bind_blob("")
      .run();
  Statement& query = database.prepare("SELECT a, b, c, d, e FROM v");
  ASSERT_TRUE(query.step());
  EXPECT_EQ(query.text(0), text);
  EXPECT_EQ(query.integer(1), INT64_MIN);
  EXPECT_EQ(query.real(2), 0.5);
  EXPECT_TRUE(query.is_null(3));
  EXPECT_EQ(query.optional_text(3), std::nullopt);
  EXPECT_EQ(query.optional_integer(3), std::nullopt);
  EXPECT_FALSE(query.is_null(4));
  EXPECT_EQ(query.text(4), "");
  EXPECT_FALSE(query.step());
}

TEST_F(SqliteTableTest, TransactionWithoutCommitLeavesNothing) {
  {
    Transaction transaction(database);
    database.prepare("INSERT INTO t (name) VALUES (?)").bind("a").run();
    EXPECT_EQ(count(), 1);
  }
  EXPECT_EQ(count(), 0);
  {
    Transaction transaction(database);
    database.prepare("INSERT INTO t (name) VALUES (?)").bind("a").run();
    transaction.commit();
  }
  EXPECT_EQ(count(), 1);
  Database other(path);
  Statement& query = other.prepare("SELECT name FROM t");
  ASSERT_TRUE(query.step());
  EXPECT_EQ(query.text(0), "a");
}

TEST_F(SqliteTableTest, ExceptionInATransactionRollsBack) {
  EXPECT_THROW(
      {
        Transaction transaction(database);
        database.prepare("INSERT INTO t (name) VALUES (?)").bind("a").run();
        throw StorageError("something else");
      },
      StorageError);
  EXPECT_EQ(count(), 0);
  Transaction next(database);  // the first one is really over
  next.commit();
}

TEST_F(SqliteTableTest, ConstraintErrorIsToldApartAndLeavesTheStatementUsable) {
  Statement& insert = database.prepare("INSERT INTO t (name) VALUES (?)");
  insert.bind("a").run();
  try {
    insert.bind("a").run();
    ADD_FAILURE() << "the second one was accepted";
  } catch (const DatabaseError& error) {
    EXPECT_TRUE(error.is_constraint());
    EXPECT_FALSE(error.is_full());
    EXPECT_FALSE(is_disk_full(error));
    EXPECT_THAT(error.what(), HasSubstr("UNIQUE"));
  }
  insert.bind("b").run();
  EXPECT_EQ(count(), 2);
}

TEST_F(SqliteTableTest, FullDatabaseIsToldApart) {
  database.execute("PRAGMA max_page_count = 3");
  try {
    for (int i = 0; i < 100; ++i) {
      database.prepare("INSERT INTO t (name) VALUES (?)")
          .bind(std::to_string(i) + std::string(2000, 'x'))
          .run();
    }
    ADD_FAILURE() << "it never filled up";
  } catch (const DatabaseError& error) {
    EXPECT_TRUE(error.is_full());
    EXPECT_TRUE(is_disk_full(error));
    EXPECT_FALSE(error.is_constraint());
  }
}

TEST_F(SqliteTableTest, BadSqlAndMissingParametersAreErrors) {
  EXPECT_THROW(database.prepare("SELEKT 1"), DatabaseError);
  EXPECT_THROW(database.execute("INSERT INTO nowhere VALUES (1)"), DatabaseError);
  Statement& insert = database.prepare("INSERT INTO t (name) VALUES (?)");
  EXPECT_THROW(insert.bind("a").bind("too many"), DatabaseError);
}

TEST_F(SqliteTableTest, ErrorWhileSteppingIsThrownAndTheNextRunWorks) {
  Statement query(database, "SELECT json_extract(?, '$.a')");
  query.bind("{");
  EXPECT_THROW(query.step(), DatabaseError);
  query.bind(R"({"a":7})");
  ASSERT_TRUE(query.step());
  EXPECT_EQ(query.integer(0), 7);
}

TEST_F(SqliteTableTest, SecondWriterWaitsOutOfTheWayOfReaders) {
  Transaction transaction(database);
  database.prepare("INSERT INTO t (name) VALUES (?)").bind("a").run();
  Database reader(path, Database::Mode::kReadOnly);
  Statement& query = reader.prepare("SELECT count(*) FROM t");
  ASSERT_TRUE(query.step());
  EXPECT_EQ(query.integer(0), 0);  // the last committed state, without waiting
  query.reset();
  transaction.commit();
  ASSERT_TRUE(query.step());
  EXPECT_EQ(query.integer(0), 1);
}

TEST_F(SqliteTest, MigrationsRunOnceEachAndInOrder) {
  database.migrate({"CREATE TABLE t (id INTEGER)"});
  database.migrate({"CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1)"});
  database.migrate({"CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1)"});
  EXPECT_EQ(count(), 1);
}

TEST_F(SqliteTest, FailingMigrationLeavesTheVersionBeforeIt) {
  EXPECT_THROW(
      database.migrate({"CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1); SELEKT 1"}),
      DatabaseError);
  EXPECT_EQ(count(), 0);  // the first stands, the second is undone whole
  database.migrate({"CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (2)"});
  EXPECT_EQ(count(), 1);
}

TEST_F(SqliteTest, NewerSchemaIsRefusedUnchanged) {
  database.migrate({"CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1)"});
  try {
    database.migrate({"CREATE TABLE t (id INTEGER)"});
    ADD_FAILURE() << "the older program went on";
  } catch (const DatabaseError& error) {
    EXPECT_THAT(error.what(), HasSubstr("schema version 2"));
    EXPECT_THAT(error.what(), HasSubstr("knows up to 1"));
  }
  EXPECT_EQ(count(), 1);
}

}  // namespace
}  // namespace necrocode::db
