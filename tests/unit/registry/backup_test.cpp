#include "necrocode/registry/backup.hpp"

#include <gmock/gmock.h>

#include "necrocode/db/backup.hpp"
#include "necrocode/registry/sqlite_verify.hpp"
#include "unit/registry/store_fixture.hpp"

namespace necrocode::registry {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class RegistryBackup : public testing::Test {
 protected:
  void submit(const std::string& spec) {
    OpenStore store(path, clock);
    store.submit(submission(spec, {task_spec("1"), task_spec("2", {"1"})}));
  }
  std::int64_t newest_event() { return OpenStore(path, clock).newest_event(); }
  std::vector<std::string> defects_after(const std::string& sql) {
    db::Database database(path);
    database.execute(sql);
    return verify_registry(database);
  }

  TemporaryDirectory folder;
  ManualClock clock;
  fs::path path = folder.path() / "registry.sqlite";
  fs::path copy = folder.path() / "copy";
};

TEST_F(RegistryBackup, ServedRegistryIsCopied) {
  OpenStore store(path, clock);
  store.submit(submission("s", {task_spec("1"), task_spec("2", {"1"})}));
  const BackupSummary summary = backup_registry(path, copy);
  EXPECT_EQ(summary.tasks, 2);
  EXPECT_EQ(summary.events, 2);
  EXPECT_EQ(summary.bytes, fs::file_size(copy));
  EXPECT_THROW(restore_registry(copy, path), ResourceConflictError);
}

TEST_F(RegistryBackup, IdsOfEventsGoOnAboveThoseOfTheOldRegistry) {
  submit("s");
  backup_registry(path, copy);
  submit("t");
  const std::int64_t before = newest_event();
  const RestoreSummary restored = restore_registry(copy, path, clock);
  EXPECT_EQ(restored.backup.tasks, 2);
  EXPECT_TRUE(fs::exists(restored.kept));
  submit("u");
  EXPECT_EQ(newest_event(), before + 2);
}

TEST_F(RegistryBackup, IdsOfEventsJumpWhenTheOldRegistryIsGoneOrDamaged) {
  submit("s");
  const std::int64_t before = newest_event();
  backup_registry(path, copy);
  fs::remove(path);
  EXPECT_TRUE(restore_registry(copy, path, clock).kept.empty());
  submit("t");
  EXPECT_EQ(newest_event(), before + 1'000'000'000 + 2);
  write_file_atomic(path, std::string(9'000, 'x'));
  restore_registry(copy, path, clock);
  submit("t");
  EXPECT_EQ(newest_event(), before + 1'000'000'000 + 2);
}

TEST_F(RegistryBackup, CountersThatAreWrongAreFound) {
  submit("s");
  EXPECT_THAT(defects_after("SELECT 1"), IsEmpty());
  EXPECT_THAT(defects_after("UPDATE taskset_numbers SET blocked = 5"),
              ElementsAre("the counts of tasks are wrong of s"));
  EXPECT_THAT(defects_after("UPDATE taskset_numbers SET blocked = 1;"
                            "UPDATE tasks SET open_dependencies = 0 WHERE number = '2'"),
              ElementsAre("the count of open dependencies is wrong of s:2"));
  EXPECT_THAT(defects_after("UPDATE tasks SET open_dependencies = 1 WHERE number = '2';"
                            "UPDATE lanes SET head = 2"),
              ElementsAre("a lane is headed by what nobody can claim, in s"));
  EXPECT_THAT(
      defects_after("UPDATE lanes SET head = 1; UPDATE tasks SET skill = 'x'"),
      ElementsAre("a task is in no lane of its own: s:1", "a task is in no lane of its own: s:2"));
  EXPECT_THAT(defects_after("UPDATE tasks SET skill = ''; DELETE FROM task_fields"),
              ElementsAre("there are no fields of s:1", "there are no fields of s:2"));
}

TEST_F(RegistryBackup, BackupWithWrongCountersIsRefused) {
  submit("s");
  backup_registry(path, copy);
  {
    db::Database database(copy);
    database.execute("UPDATE taskset_numbers SET ready = 7");
  }
  try {
    restore_registry(copy, path, clock);
    FAIL();
  } catch (const db::UnusableDatabase& error) {
    EXPECT_THAT(error.what(), HasSubstr("the counts of tasks are wrong"));
  }
}

}  // namespace
}  // namespace necrocode::registry
