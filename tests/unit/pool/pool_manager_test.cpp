#include "necrocode/pool/pool_manager.hpp"

#include <gmock/gmock.h>

#include <set>

#include "necrocode/pool/sqlite_pool_store.hpp"
#include "pool_fixture.hpp"

namespace necrocode::pool::test {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::StartsWith;

class PoolManagerTest : public testing::Test {
 protected:
  PoolManagerTest() { options_.data_dir = folder_.path() / "data"; }

  PoolManager& manager() {
    if (!manager_) manager_ = std::make_unique<PoolManager>(real_git(), options_, clock_);
    return *manager_;
  }
  void restart() {
    manager_.reset();
    manager();
  }
  /// A pool "app" of the remote with that many slots, all ready.
  Json make_pool(int slots, int max_slots = 0) {
    PoolRequest request;
    request.name = "app";
    request.repo_url = remote_.url();
    request.num_slots = slots;
    request.max_slots = std::max(slots, max_slots);
    Pending<Json> created;
    manager().create_pool(request, created.deliver());
    created.get();
    return warm();
  }
  Json warm() {
    Pending<Json> warmed;
    manager().warm("app", warmed.deliver());
    return warmed.get();
  }
  AllocateRequest request(const std::string& by = "test") const {
    AllocateRequest wanted;
    wanted.repo_url = remote_.url();
    wanted.required_by = by;
    return wanted;
  }
  Allocation take(const AllocateRequest& wanted) {
    Pending<Allocation> pending;
    manager().allocate(wanted, pending.deliver());
    return pending.get();
  }
  Allocation take() { return take(request()); }
  /// Throws, unless a slot is ready.
  Allocation take_now() {
    AllocateRequest wanted = request();
    wanted.wait = false;
    return take(wanted);
  }
  std::string state(const std::string& slot) {
    return manager().slot_status(slot)["state"].string_or("");
  }

  GitRemote remote_;
  TemporaryDirectory folder_{"necrocode-pool-test-"};
  FakeClock clock_;
  PoolManagerOptions options_;
  std::unique_ptr<PoolManager> manager_;
};

TEST_F(PoolManagerTest, UnknownRepositoryGetsItsPool) {
  const Allocation slot = take();
  EXPECT_THAT(slot.slot_id, StartsWith(pool_name_for(remote_.url()) + "-"));
  EXPECT_EQ(slot.commit, remote_.tip());
  EXPECT_EQ(slot.branch, "main");
  EXPECT_EQ(slot.lease_token.size(), 32u);
  EXPECT_EQ(slot.expires_at, clock_.system_now() + 2h);
  EXPECT_EQ(read(slot.slot_path / "a.txt"), "alpha\n");
  EXPECT_TRUE(fs::is_directory(slot.git_dir / "objects"));
  const Json status = manager().slot_status(slot.slot_id);
  EXPECT_EQ(status["state"].string_or(""), "leased");
  EXPECT_EQ(status["lease"]["required_by"].string_or(""), "test");
  EXPECT_EQ(status["statistics"]["allocations"].as_int(), 1);
  EXPECT_GT(status["disk_bytes"].as_int().value_or(0), 0);
  EXPECT_EQ(status.dump().find(slot.lease_token), std::string::npos);
}

TEST_F(PoolManagerTest, WithoutAutoCreationAnUnknownRepositoryIsNotFound) {
  options_.auto_create = false;
  EXPECT_THROW(take(), NotFound);
}

TEST_F(PoolManagerTest, RefusedUrlIsRefusedAtOnce) {
  AllocateRequest wanted = request();
  wanted.repo_url = "ext::sh -c id";
  Pending<Allocation> pending;
  EXPECT_THROW(manager().allocate(wanted, pending.deliver()), SecurityError);
}

TEST_F(PoolManagerTest, UnreachableRepositoryLeavesNothing) {
  AllocateRequest wanted = request();
  wanted.repo_url += "-none";
  try {
    take(wanted);
    FAIL();
  } catch (const TaskContextValidationError& error) {
    ASSERT_EQ(error.info().fields.size(), 1u);
    EXPECT_EQ(error.info().fields[0].pointer, "/repo_url");
  }
  EXPECT_EQ(manager().pools()["items"].size(), 0u);
  EXPECT_FALSE(fs::exists(options_.data_dir / "pools" / pool_name_for(wanted.repo_url)));
}

TEST_F(PoolManagerTest, ReleasedSlotIsHandedOutAgainUnderAnotherNameAndPath) {
  make_pool(1);
  const Allocation first = take();
  EXPECT_EQ(first.slot_id, "app-1.1");
  write(first.slot_path / "left.txt", "x");
  manager().release(first.slot_id, first.lease_token);
  EXPECT_FALSE(fs::exists(first.slot_path));
  const Allocation second = take();
  EXPECT_EQ(second.slot_id, "app-1.2");
  EXPECT_NE(second.slot_path, first.slot_path);
  EXPECT_FALSE(fs::exists(second.slot_path / "left.txt"));
}

TEST_F(PoolManagerTest, AnEndedLeaseReleasesNobody) {
  make_pool(1);
  const Allocation first = take();
  manager().release(first.slot_id, "");
  const Allocation second = take();
  manager().release(first.slot_id, first.lease_token);
  manager().release(first.slot_id, "");
  EXPECT_EQ(state(second.slot_id), "leased");
  EXPECT_EQ(state(first.slot_id), "released");
  EXPECT_THROW(manager().release(second.slot_id, first.lease_token), Conflict);
  EXPECT_THROW(manager().release(first.slot_id, second.lease_token), Conflict);
  EXPECT_THROW(manager().release("app-1.9", ""), NotFound);
  EXPECT_THROW(manager().release("app-1", ""), NotFound);
  EXPECT_THROW(manager().heartbeat(first.slot_id, first.lease_token, {}), Conflict);
  EXPECT_THROW(manager().slot_status("other-1"), NotFound);
  EXPECT_EQ(state(second.slot_id), "leased");
}

TEST_F(PoolManagerTest, AHundredRequestsOnFewSlotsHaveOneHolderEachInOrder) {
  make_pool(3);
  std::vector<Pending<Allocation>> pending(100);
  for (std::size_t i = 0; i < pending.size(); ++i)
    manager().allocate(request(), pending[i].deliver());
  EXPECT_EQ(manager().pool_status("app")["waiting"].as_int(), 97);
  std::set<std::string> ids, held;
  for (Pending<Allocation>& next : pending) {
    const Allocation slot = next.get();
    EXPECT_TRUE(ids.insert(slot.slot_id).second) << slot.slot_id;
    const std::string name = slot.slot_id.substr(0, slot.slot_id.find('.'));
    held.insert(name);
    EXPECT_EQ(state(slot.slot_id), "leased");
    manager().release(slot.slot_id, slot.lease_token);
  }
  EXPECT_EQ(held.size(), 3u);
}

TEST_F(PoolManagerTest, WaitersAreServedInOrderOfArrival) {
  make_pool(1);
  Allocation holder = take();
  std::vector<Pending<Allocation>> pending(5);
  for (auto& next : pending) manager().allocate(request(), next.deliver());
  for (std::size_t i = 0; i < pending.size(); ++i) {
    manager().release(holder.slot_id, "");
    holder = pending[i].get();
    for (std::size_t later = i + 1; later < pending.size(); ++later)
      EXPECT_FALSE(pending[later].ready());
  }
}

TEST_F(PoolManagerTest, AnAbandonedWaiterIsPassedOver) {
  make_pool(1);
  const Allocation holder = take();
  Pending<Allocation> gone, next;
  const auto ticket = manager().allocate(request(), gone.deliver());
  manager().allocate(request(), next.deliver());
  manager().abandon(ticket);
  manager().release(holder.slot_id, "");
  EXPECT_EQ(next.get().slot_id, "app-1.2");
  EXPECT_FALSE(gone.ready());
  EXPECT_EQ(manager().pool_status("app")["waiting"].as_int(), 0);
}

TEST_F(PoolManagerTest, AnUndeliveredLeaseIsTakenBack) {
  make_pool(1);
  Pending<Allocation> gone(false);
  manager().allocate(request(), gone.deliver());
  EXPECT_EQ(gone.get().slot_id, "app-1.1");
  EXPECT_EQ(take().slot_id, "app-1.2");
  EXPECT_EQ(state("app-1.1"), "undelivered");
  const Json status = manager().slot_status("app-1.2");
  EXPECT_EQ(status["statistics"]["allocations"].as_int(), 1) << "it was no allocation";
}

TEST_F(PoolManagerTest, PoolGrowsOnDemandUpToItsLimit) {
  make_pool(1, 3);
  take();
  take();
  take();
  EXPECT_THROW(take_now(), Unavailable);
  EXPECT_EQ(manager().pool_status("app")["slots"].size(), 3u);
}

TEST_F(PoolManagerTest, LeaseExpiresByTheClockUnlessRenewed) {
  make_pool(1);
  AllocateRequest wanted = request();
  wanted.lease = 60s;
  const Allocation first = take(wanted);
  clock_.advance(50s);
  EXPECT_EQ(manager().heartbeat(first.slot_id, first.lease_token, {}), clock_.system_now() + 60s);
  EXPECT_THROW(manager().heartbeat(first.slot_id, "other", {}), Conflict);
  clock_.advance(50s);
  EXPECT_EQ(state(first.slot_id), "leased");
  Pending<Allocation> next;
  manager().allocate(request(), next.deliver());
  EXPECT_FALSE(next.ready());
  clock_.advance(10s);
  EXPECT_EQ(next.get().slot_id, "app-1.2");
  EXPECT_EQ(state(first.slot_id), "expired");
  EXPECT_THROW(manager().heartbeat(first.slot_id, first.lease_token, {}), Conflict);
}

TEST_F(PoolManagerTest, MostRecentlyUsedSlotIsTakenFirst) {
  make_pool(3);
  const Allocation a = take(), b = take(), c = take();
  for (const Allocation* slot : {&c, &a, &b}) manager().release(slot->slot_id, "");
  warm();
  const std::string last_taken = c.slot_id.substr(0, c.slot_id.find('.'));
  EXPECT_THAT(take().slot_id, StartsWith(last_taken + "."));
}

TEST_F(PoolManagerTest, RefsOfEveryKindAreCheckedOut) {
  make_pool(1);
  const std::string topic = remote_.change("echo topic > a.txt", "topic");
  shell(remote_.user(), "git tag -a -m v v1 topic~0 && git push -q origin v1");
  AllocateRequest wanted = request();
  for (const std::string& ref : {std::string("topic"), std::string("v1"), topic}) {
    wanted.ref = ref;
    const Allocation slot = take(wanted);
    EXPECT_EQ(slot.commit, topic);
    EXPECT_EQ(slot.branch, ref == "topic" ? "topic" : "main");
    EXPECT_EQ(read(slot.slot_path / "a.txt"), "topic\n");
    manager().release(slot.slot_id, "");
  }
  wanted.ref = "none";
  EXPECT_THROW(take(wanted), TaskContextValidationError);
  wanted.ref = std::string(40, '1');
  EXPECT_THROW(take(wanted), TaskContextValidationError);
  EXPECT_EQ(read(take().slot_path / "a.txt"), "alpha\n");
}

TEST_F(PoolManagerTest, AnOldLookAtTheRemoteIsRenewedBeforeASlotIsGiven) {
  make_pool(1);
  const std::string old = remote_.tip();
  const std::string next = remote_.change("echo next > a.txt");
  AllocateRequest wanted = request();
  clock_.advance(60s);
  wanted.max_age = 1h;
  const Allocation stale = take(wanted);
  EXPECT_EQ(stale.commit, old);
  manager().release(stale.slot_id, "");
  clock_.advance(60s);
  const Allocation fresh = take();
  EXPECT_EQ(fresh.commit, next);
  EXPECT_EQ(read(fresh.slot_path / "a.txt"), "next\n");
}

TEST_F(PoolManagerTest, AnUnreachableRemoteStillGivesWhatIsThere) {
  make_pool(1);
  fs::rename(remote_.path(), remote_.root() / "away");
  clock_.advance(60s);
  EXPECT_EQ(read(take().slot_path / "a.txt"), "alpha\n");
}

TEST_F(PoolManagerTest, TheSameKeyGetsTheSameSlot) {
  make_pool(2);
  AllocateRequest wanted = request();
  wanted.idempotency_key = "key";
  wanted.request_digest = "digest";
  const Allocation first = take(wanted), again = take(wanted);
  EXPECT_EQ(first.slot_id, again.slot_id);
  EXPECT_EQ(first.lease_token, again.lease_token);
  wanted.request_digest = "another";
  EXPECT_THROW(take(wanted), TaskContextValidationError);

  AllocateRequest second = request();
  second.idempotency_key = "second";
  take(request());
  Pending<Allocation> one, two;
  manager().allocate(second, one.deliver());
  manager().allocate(second, two.deliver());
  manager().release(first.slot_id, "");
  EXPECT_EQ(one.get().slot_id, two.get().slot_id);
}

TEST_F(PoolManagerTest, AnUndeliveredAnswerIsNotRepeated) {
  make_pool(1);
  AllocateRequest wanted = request();
  wanted.idempotency_key = "key";
  Pending<Allocation> gone(false);
  manager().allocate(wanted, gone.deliver());
  gone.get();
  EXPECT_EQ(take(wanted).slot_id, "app-1.2");
}

TEST_F(PoolManagerTest, ASlotThatCannotBeCleanedIsQuarantinedAndMadeAnew) {
  make_pool(1, 2);
  const Allocation slot = take();
  // The pool's store loses what the next checkout needs.
  const fs::path store = options_.data_dir / "pools/app/store.git";
  fs::rename(store / "objects", store / "objects-away");
  fs::remove(slot.slot_path / "a.txt");
  manager().release(slot.slot_id, "");
  try {
    take();
    FAIL();
  } catch (const Unavailable& error) {
    EXPECT_THAT(error.what(), HasSubstr("no slot can be prepared"));
  }
  EXPECT_EQ(state("app-1"), "quarantined");
  EXPECT_NE(manager().slot_status("app-1")["quarantine_reason"].string_or(""), "");
  restart();
  EXPECT_EQ(state("app-1"), "quarantined");
  fs::remove_all(store / "objects");
  fs::rename(store / "objects-away", store / "objects");
  EXPECT_EQ(read(take().slot_path / "a.txt"), "alpha\n");
}

TEST_F(PoolManagerTest, RestartKeepsLeasesAndPutsTheRestRight) {
  make_pool(3);
  AllocateRequest wanted = request();
  wanted.lease = 60s;
  const Allocation kept = take(wanted), lost = take();
  write(kept.slot_path / "work.txt", "mine");
  clock_.advance(50s);
  manager_.reset();
  // What a process that ended in the middle of things leaves.
  const fs::path pool = options_.data_dir / "pools/app";
  fs::remove_all(lost.slot_path.parent_path());
  write(pool / "work/app-9.1/tree/x", "x");
  write(pool / "slots/9/dirty/tree/x", "x");
  write(options_.data_dir / "pools/half/store.git/x", "x");
  write(options_.data_dir / "trash/abc/x", "x");
  fs::rename(pool / "slots/3/ready", pool / "slots/3/dirty");
  write(pool / "slots/3/dirty/tree/left", "x");
  for (const char* lock : {"packed-refs.lock", "config.lock", "refs/remotes/origin/main.lock"}) {
    write(pool / "store.git" / lock, "");
  }
  const std::string next = remote_.change("echo next > b");
  manager();
  EXPECT_EQ(state(kept.slot_id), "leased");
  EXPECT_EQ(read(kept.slot_path / "work.txt"), "mine");
  EXPECT_EQ(manager().heartbeat(kept.slot_id, kept.lease_token, {}), clock_.system_now() + 60s);
  EXPECT_EQ(state(lost.slot_id), "lost");
  const Json status = warm();
  EXPECT_EQ(status["counts"]["ready"].as_int(), 2);
  EXPECT_EQ(status["base_commit"].string_or(""), next);
  EXPECT_FALSE(fs::exists(pool / "work/app-9.1"));
  EXPECT_FALSE(fs::exists(pool / "slots/9"));
  EXPECT_FALSE(fs::exists(options_.data_dir / "pools/half"));
  const Allocation fresh = take();
  EXPECT_FALSE(fs::exists(fresh.slot_path / "left"));
  clock_.advance(61s);
  while (state(kept.slot_id) == "leased") std::this_thread::yield();
  EXPECT_EQ(state(kept.slot_id), "expired");
}

TEST_F(PoolManagerTest, RestartRenewsALeaseOnce) {
  make_pool(1);
  AllocateRequest wanted = request();
  wanted.lease = 60s;
  const Allocation slot = take(wanted);
  clock_.advance(59s);
  restart();
  clock_.advance(59s);
  EXPECT_EQ(state(slot.slot_id), "leased");
  Pending<Allocation> next;
  manager().allocate(request(), next.deliver());
  clock_.advance(1s);
  EXPECT_EQ(next.get().slot_id, "app-1.2");
}

TEST_F(PoolManagerTest, RestartNeedsNoRemote) {
  make_pool(1);
  manager_.reset();
  fs::rename(remote_.path(), remote_.root() / "away");
  EXPECT_EQ(read(take().slot_path / "a.txt"), "alpha\n");
}

TEST_F(PoolManagerTest, AStoreThatIsBrokenAtStartIsMadeAnew) {
  make_pool(1);
  manager_.reset();
  fs::remove_all(options_.data_dir / "pools/app/store.git/objects");
  EXPECT_EQ(read(take().slot_path / "a.txt"), "alpha\n");
}

TEST_F(PoolManagerTest, ASecondManagerOnTheSameDataIsRefused) {
  manager();
  try {
    PoolManager second(real_git(), options_, clock_);
    FAIL();
  } catch (const ResourceConflictError& error) {
    EXPECT_THAT(error.what(), HasSubstr("(" + std::to_string(::getpid())));
  }
}

TEST_F(PoolManagerTest, PoolsAreListedAndRemoved) {
  make_pool(2);
  EXPECT_EQ(manager().pools()["items"].size(), 1u);
  const Allocation slot = take();
  Pending<Json> refused, removed;
  manager().remove_pool("app", refused.deliver());
  EXPECT_THROW(refused.get(), Conflict);
  manager().release(slot.slot_id, "");
  manager().remove_pool("app", removed.deliver());
  removed.get();
  EXPECT_EQ(manager().pools()["items"].size(), 0u);
  EXPECT_FALSE(fs::exists(options_.data_dir / "pools/app"));
  EXPECT_THROW(manager().pool_status("app"), NotFound);
  make_pool(1);
  EXPECT_EQ(take().slot_id, "app-1.2") << "a slot id is never given out twice";
}

TEST_F(PoolManagerTest, PoolCreatedTwiceIsOneOrAConflict) {
  make_pool(1);
  PoolRequest request;
  request.name = "app";
  request.repo_url = remote_.url();
  request.num_slots = request.max_slots = 1;
  Pending<Json> same, other, wrong;
  manager().create_pool(request, same.deliver());
  EXPECT_EQ(same.get()["name"].string_or(""), "app");
  request.num_slots = request.max_slots = 4;
  manager().create_pool(request, other.deliver());
  EXPECT_THROW(other.get(), Conflict);
  request.name = "second";
  request.base_branch = "none";
  manager().create_pool(request, wrong.deliver());
  EXPECT_THROW(wrong.get(), TaskContextValidationError);
}

TEST_F(PoolManagerTest, StopAnswersThoseWhoWait) {
  make_pool(1);
  take();
  Pending<Allocation> waiting;
  manager().allocate(request(), waiting.deliver());
  manager().stop();
  EXPECT_THROW(waiting.get(), Unavailable);
  EXPECT_THROW(manager().pools(), Unavailable);
  manager().stop();
}

TEST(PoolName, IsReadableAndItsOwn) {
  EXPECT_THAT(pool_name_for("https://example.com/a/My_App.git"), StartsWith("my-app-"));
  EXPECT_NE(pool_name_for("https://example.com/a/app"), pool_name_for("https://example.com/b/app"));
  EXPECT_THAT(pool_name_for("git@example.com:app.git"), StartsWith("app-"));
  EXPECT_THAT(pool_name_for("/"), StartsWith("pool-"));
}

TEST_F(PoolManagerTest, HeartbeatsOwnLengthOutlastsTheManager) {
  const Allocation slot = take();
  manager().heartbeat(slot.slot_id, slot.lease_token, 10h);
  restart();
  EXPECT_EQ(manager().heartbeat(slot.slot_id, slot.lease_token, {}), clock_.system_now() + 10h);
}

}  // namespace
}  // namespace necrocode::pool::test
