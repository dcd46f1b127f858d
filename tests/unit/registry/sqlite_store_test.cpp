// What is the SQLite store's alone; what every store does is in tests/conformance.
#include "necrocode/registry/sqlite_store.hpp"

#include <sys/resource.h>

#include <csignal>
#include <latch>

#include "necrocode/db/sqlite.hpp"
#include "store_fixture.hpp"

namespace necrocode::registry {
namespace {

using std::chrono::seconds;

TEST_F(StoreTest, LiveLeasesSurviveARestartAndAreRenewedOnce) {
  store->submit(submission("app", {task_spec("1"), task_spec("2")}));
  const ClaimedTask claimed = claim_one();
  clock.advance(seconds(50));
  reopen();
  clock.advance(seconds(50));
  store->do_due();
  EXPECT_EQ(state("app:1"), TaskState::kRunning);
  EXPECT_TRUE(store->heartbeat({{"app:1", claimed.lease_token}}).front().answer.has_value());
  store->cancel("app:1", "");
  reopen();
  const auto told = store->heartbeat({{"app:1", claimed.lease_token}}).front();
  ASSERT_TRUE(told.answer.has_value());
  EXPECT_TRUE(told.answer->cancel_requested);
  EXPECT_EQ(complete(claimed).state, TaskState::kDone);
  EXPECT_EQ(claim_one().task.id, "app:2");
}

TEST_F(StoreTest, OfAChangeThatFailsAfterItHasWrittenNothingStaysAndItsNeighboursAreMadeOnce) {
  store->submit(submission("app", {task_spec("1"), task_spec("2"), task_spec("3")}));
  std::latch all_asked(1);
  std::latch all_answered(4);
  std::vector<std::string> failures(4);
  const auto ask = [&](std::size_t index, std::function<void(TaskChanges&)> work) {
    store->transact_later(std::move(work), [&, index](const std::exception_ptr& error) {
      try {
        if (error) std::rethrow_exception(error);
      } catch (const std::exception& thrown) {
        failures[index] = thrown.what();
      }
      all_answered.count_down();
    });
  };
  const auto start = [](TaskChanges& changes, const std::string& id) {
    StatusChange change;
    change.status = TaskState::kRunning;
    changes.set_status(id, change);
  };
  // While the first one waits the others gather: they are one commit.
  ask(0, [&](TaskChanges&) { all_asked.wait(); });
  ask(1, [&](TaskChanges& changes) { start(changes, "app:1"); });
  ask(2, [&](TaskChanges& changes) {
    start(changes, "app:2");
    throw std::runtime_error("after all");
  });
  ask(3, [&](TaskChanges& changes) { start(changes, "app:3"); });
  all_asked.count_down();
  all_answered.wait();
  EXPECT_THAT(failures, testing::ElementsAre("", "", "after all", ""));
  EXPECT_EQ(state("app:1"), TaskState::kRunning);
  EXPECT_EQ(state("app:2"), TaskState::kReady);
  EXPECT_EQ(state("app:3"), TaskState::kRunning);
  EXPECT_THAT(event_types("app:3"), testing::ElementsAre("TaskCreated", "TaskStarted"));
  EXPECT_EQ(store->counts()[TaskState::kRunning], 2);
  EXPECT_EQ(claim_one().task.id, "app:2");
}

TEST_F(StoreTest, PurgeOfATaskOfManyEventsIsManyTransactions) {
  store->submit(submission("app", {task_spec("1")}));
  store->transact([&](TaskChanges& changes) {
    NewEvent event;
    event.event_type = "Note";
    event.timestamp = clock.system_now();
    for (int i = 0; i < 3500; ++i) changes.add_event("app:1", event);
  });
  store->cancel("app:1", "");
  clock.advance(std::chrono::hours(24));
  Retention retention;
  retention.tasksets = std::chrono::hours(1);
  int transactions = 1;
  while (store->purge(retention)) ++transactions;
  EXPECT_GE(transactions, 4);
  EXPECT_EQ(store->newest_event(), 0);
  EXPECT_THROW(state("app:1"), NotFound);
}

TEST_F(StoreTest, ALockHeldByAnotherFailsTheChangesMeanwhileAndNoOthers) {
  store->submit(submission("app", {task_spec("1")}));
  {
    db::Database other(folder.path() / "registry.db");
    const db::Transaction held(other);
    EXPECT_THROW(claim(), StorageError);  // after SQLite's time to wait, 5 s
  }
  EXPECT_EQ(claim_one().task.id, "app:1");
}

TEST_F(StoreTest, SecondProcessOnTheSameDatabaseIsRefused) {
  EXPECT_THROW(SqliteTaskStore(folder.path() / "registry.db", clock), ResourceConflictError);
}

TEST_F(StoreTest, FailedWriteIsNeverAcknowledgedAndEndsTheStore) {
  store->submit(submission("app", {task_spec("1"), task_spec("2")}));
  claim_one();
  // No file of this process may grow: the next commit's write fails as a broken disk's would.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit none = before;
  none.rlim_cur = 0;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
  EXPECT_THROW(claim(), StorageError);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, previous);

  EXPECT_THROW(claim(), StorageError);  // fail-stop, although the disk works again
  EXPECT_THROW(store->check(), StorageError);
  EXPECT_EQ(state("app:2"), TaskState::kReady);  // reads still work
  reopen();
  store->check();
  EXPECT_EQ(state("app:1"), TaskState::kRunning);
  EXPECT_EQ(claim_one().task.id, "app:2");
}

}  // namespace
}  // namespace necrocode::registry
