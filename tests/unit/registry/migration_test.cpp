// A registry of an earlier schema goes on where it was.
#include <gmock/gmock.h>

#include "necrocode/db/backup.hpp"
#include "necrocode/registry/sqlite_rows.hpp"
#include "necrocode/registry/sqlite_verify.hpp"
#include "store_fixture.hpp"

namespace necrocode::registry {
namespace {

/// What the program of schema 3 wrote: 1 is done, 2 runs under a lease after one that ended, 3
/// waits for both, 4 and 5 are ready.
constexpr const char* kRegistry3 = R"sql(
INSERT INTO tasksets VALUES (1, 'app', 1, '{}', 1000, 1000);
INSERT INTO task_counts VALUES (1, 0, 1), (1, 1, 2), (1, 2, 1), (1, 3, 1);
INSERT INTO tasks (seq, spec_id, id, number, number_key, skill, priority, state, metadata,
  open_dependencies, attempt, attempts_used, epoch, lease_token, lease_ms, runner_id,
  cancel_requested, version, created_ms, updated_ms) VALUES
 (1, 1, 'app:1', '1', '0011', '', 0, 3, '{"commit":"c1"}', 0, 1, 1, 1, NULL, 0, '', 0, 3, 1, 1),
 (2, 1, 'app:2', '2', '0012', '', 0, 2, '{}', 0, 2, 2, 2, 'token-2', 60000, 'r', 0, 3, 1, 1),
 (3, 1, 'app:3', '3', '0013', '', 0, 0, '{}', 1, 0, 0, 0, NULL, 0, '', 0, 1, 1, 1),
 (4, 1, 'app:4', '4', '0014', '', 0, 1, '{}', 0, 0, 0, 0, NULL, 0, '', 0, 1, 1, 1),
 (5, 1, 'app:5', '5', '0015', 'gpu', 9, 1, '{}', 0, 0, 0, 0, NULL, 0, '', 0, 1, 1, 1);
INSERT INTO task_fields VALUES (1, '{}'), (2, '{}'), (3, '{"dependencies":["1","2"]}'), (4, '{}'),
  (5, '{"required_skill":"gpu","priority":9}');
INSERT INTO dependencies VALUES (3, 1), (3, 2);
INSERT INTO attempts (task_seq, epoch, attempt, token, runner_id, skills, lease_ms, started_ms,
  ended_ms, outcome) VALUES
 (1, 1, 1, 'token-1', 'r', '[]', 60000, 1, 2, 'done'),
 (2, 1, 1, 'token-0', 'r', '[]', 60000, 1, 2, 'ready'),
 (2, 2, 2, 'token-2', 'r', '[]', 60000, 3, NULL, NULL);
)sql";

class MigrationTest : public testing::Test {
 protected:
  MigrationTest() {
    const auto& all = sqlite_migrations();
    db::Database old(path_);
    old.migrate({all.begin(), all.begin() + 3});
    old.execute(kRegistry3);
  }
  TemporaryDirectory folder_;
  const std::filesystem::path path_ = folder_.path() / "registry.db";
  ManualClock clock_;
};

TEST_F(MigrationTest, RegistryOfSchema3GoesOnWithItsLeasesOrderAndDependencies) {
  OpenStore store(path_, clock_);
  EXPECT_EQ(store.counts().at(TaskState::kReady), 2);
  EXPECT_EQ(store.claim({{}}).front().get().front().task.id, "app:5");
  EXPECT_EQ(store.claim({{}}).front().get().front().task.id, "app:4");
  EXPECT_TRUE(store.claim({{}}).front().get().empty());
  Completion completion;
  completion.lease_token.value = "token-2";
  completion.metadata = Json::object({{"commit", "c2"}});
  store.complete("app:2", completion, {});
  const std::vector<ClaimedTask> child = store.claim({{}}).front().get();
  ASSERT_EQ(child.size(), 1u);
  EXPECT_EQ(child.front().task.id, "app:3");
  EXPECT_THAT(child.front().task.base_commits, testing::ElementsAre("c1", "c2"));
}

TEST_F(MigrationTest, AttemptsMadeBeforeStillCount) {
  OpenStore store(path_, clock_);
  clock_.advance(std::chrono::seconds(60));  // the second of three
  store.do_due();
  EXPECT_EQ(store.task("app:2").state, TaskState::kReady);
  ClaimRequest again;
  again.task_id = "app:2";
  EXPECT_EQ(store.claim({again}).front().get().front().previous_attempts.size(), 2u);
  clock_.advance(std::chrono::seconds(60));
  store.do_due();
  EXPECT_EQ(store.task("app:2").state, TaskState::kFailed);
}

TEST_F(MigrationTest, OldRegistryIsKeptBesideAndTheNewOneIsSound) {
  std::make_unique<OpenStore>(path_, clock_).reset();
  const std::filesystem::path kept = path_.string() + ".v3-backup";
  EXPECT_EQ(db::verify_database(kept, {.schema_max = 3}).schema_version, 3);
  db::Database database(path_);
  EXPECT_THAT(verify_registry(database), testing::IsEmpty());
}

}  // namespace
}  // namespace necrocode::registry
