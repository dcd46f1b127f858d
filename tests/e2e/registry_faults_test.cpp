// The task registry on a disk that fails: nothing is acknowledged that is not there afterwards, and
// after an error that leaves doubt it takes no more changes. NECROCODE_FAULTS says at how many
// places each kind of error is met; `scripts/bench durability` takes 20.
#include <set>
#include <thread>

#include "e2e/registry_process.hpp"

namespace necrocode::test {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::Each;
using testing::Ge;
using testing::IsEmpty;
using testing::Not;

class RegistryFaults : public RegistryProcess {
 protected:
  struct Acknowledged {
    std::set<std::string> events;  ///< by their marks
    std::set<std::string> done;
    std::vector<int> refused;  ///< the 5xx of changes
  };

  static constexpr int kTasks = 120;

  static int places() {
    const char* text = std::getenv("NECROCODE_FAULTS");
    return text ? static_cast<int>(parse_uint(text).value()) : 3;
  }
  void SetUp() override {
    if (!can_trace()) GTEST_SKIP() << "nothing may be traced here";
  }
  /// A folder with a registry of ready tasks, in which nothing has failed yet.
  void begin_anew() {
    services_.reset();
    fs::remove_all(path("services"));
    port_ = 0;
    serve_registry();
    ASSERT_EQ(submit("io", kTasks), 201);
    services_->signal(SIGTERM);
    EXPECT_EQ(services_->wait(), 0) << stderr_text();
  }
  /// False when it does not even start, and says so.
  bool serve_with(const std::string& injected, const std::string& file) {
    try {
      serve_registry(tracer({"-e", "trace=fdatasync,fsync,pwrite64", "-e", "inject=" + injected,
                             "-P", path("services/" + file).string()}));
      return true;
    } catch (const StorageError&) {
      EXPECT_THAT(services_->wait(), Ge(1)) << "it ended without an error";
      return false;
    }
  }
  static constexpr auto kUntilRefused = [](const Acknowledged& so_far) {
    return !so_far.refused.empty();
  };
  /// Claims, tells and completes until `until` says so of what was acknowledged, or all is done.
  Acknowledged work(const std::function<bool(const Acknowledged&)>& until) {
    Acknowledged told;
    const auto change = [&](const std::string& target, const Json& body) {
      const RawAnswer answer = call("POST", target, body);
      EXPECT_THAT(answer.status, AnyOf(200, 201, 204, 500, 503, 507)) << answer.body;
      if (answer.status >= 500) told.refused.push_back(answer.status);
      return answer;
    };
    for (int number = 0; number < kTasks && !until(told); ++number) {
      const RawAnswer claimed = change("/tasks/claim", Json::object());
      if (claimed.status != 200) continue;
      const Json task = claimed.json()["tasks"].items().at(0);
      const std::string id = task["id"].string_or("");
      const Json said =
          Json::object({{"event_type", "Said"}, {"data", Json::object({{"mark", id}})}});
      if (change("/tasks/" + id + "/events", said).status == 201) told.events.insert(id);
      const Json end = Json::object({{"status", "done"}, {"lease_token", task["lease_token"]}});
      if (change("/tasks/" + id + "/complete", end).status == 200) told.done.insert(id);
    }
    return told;
  }
  /// Several at once, whose changes share commits, each until it is refused.
  Acknowledged work_together() {
    constexpr int kWorkers = 8;
    std::vector<Acknowledged> told(kWorkers);
    {
      std::vector<std::jthread> workers;
      for (Acknowledged& one : told) workers.emplace_back([&] { one = work(kUntilRefused); });
    }
    Acknowledged all;
    for (Acknowledged& one : told) {
      all.events.merge(one.events);
      all.done.merge(one.done);
      all.refused.insert(all.refused.end(), one.refused.begin(), one.refused.end());
    }
    return all;
  }
  void expect_all_there(const Acknowledged& told) {
    std::map<std::string, int> said;
    for (const Json& event : all_of("/events")) {
      if (event["event_type"] == Json("Said")) ++said[event["data"]["mark"].string_or("")];
    }
    for (const std::string& mark : told.events) EXPECT_EQ(said[mark], 1) << mark;
    for (const std::string& id : told.done)
      EXPECT_EQ(call("GET", "/tasks/" + id).json()["state"], Json("done")) << id;
  }
  /// As after a crash of the machine's services: what was only in memory is gone.
  void expect_all_there_after_restart(const Acknowledged& told) {
    kill_registry();
    serve_registry();
    expect_all_there(told);
    EXPECT_EQ(call("GET", "/health").status, 200);
    EXPECT_EQ(submit("after", 1), 201);
  }
  void expect_stopped() {
    for (const char* target : {"/tasks/claim", "/tasks/io:120/cancel", "/tasks/io:120/events"}) {
      const RawAnswer answer =
          call("POST", target, Json::object({{"event_type", "Said"}, {"max", 1}}));
      EXPECT_THAT(answer.status, AnyOf(500, 503)) << target << " " << answer.body;
    }
    EXPECT_EQ(call("GET", "/health").status, 503);
    EXPECT_EQ(call("GET", "/tasks/io:120").status, 200);
    EXPECT_EQ(call("GET", "/tasks?limit=1000").status, 200);
    EXPECT_EQ(call("GET", "/events?limit=1000").status, 200);
  }
  /// Each place of the log at which `error` may come.
  void expect_fail_stop(const std::string& error) {
    int stopped = 0;
    for (int place = 1; place <= places(); ++place) {
      SCOPED_TRACE(error + " at place " + std::to_string(place));
      begin_anew();
      if (!serve_with(error + ":when=" + std::to_string(place), "registry.sqlite-wal")) {
        serve_registry();
        expect_all_there({});
        continue;
      }
      const Acknowledged told = work_together();
      EXPECT_THAT(told.refused, Not(IsEmpty())) << "the error was never met";
      expect_stopped();
      expect_all_there(told);
      expect_all_there_after_restart(told);
      ++stopped;
    }
    std::printf("faults: {\"error\":\"%s\",\"places\":%d,\"stopped\":%d}\n", error.c_str(),
                places(), stopped);
    EXPECT_GT(stopped, 0);
  }
};

TEST_F(RegistryFaults, SyncOfTheLogFailsThenNothingFalseIsSaidAndItStops) {
  expect_fail_stop("fdatasync:error=EIO");
}

TEST_F(RegistryFaults, WriteOfTheLogFailsThenNothingFalseIsSaidAndItStops) {
  expect_fail_stop("pwrite64:error=EIO");
}

TEST_F(RegistryFaults, LogHasNoRoomThenTheChangeIsRefusedAndTheNextOneTaken) {
  for (int place = 1; place <= places(); ++place) {
    SCOPED_TRACE("place " + std::to_string(place));
    begin_anew();
    if (!serve_with("pwrite64:error=ENOSPC:when=" + std::to_string(place), "registry.sqlite-wal"))
      continue;
    const Acknowledged told = work(kUntilRefused);
    EXPECT_THAT(told.refused, AllOf(Not(IsEmpty()), Each(AnyOf(503, 507))));
    EXPECT_EQ(submit("more", 3), 201) << "there is room again";
    EXPECT_EQ(call("GET", "/health").status, 200);
    expect_all_there_after_restart(told);
  }
}

/// What has been copied to the database itself is still in the log, which cannot shrink any more.
TEST_F(RegistryFaults, SyncOfTheDatabaseFailsThenNothingFalseIsSaidAndItStops) {
  begin_anew();
  ASSERT_TRUE(serve_with("fdatasync:error=EIO:when=1+", "registry.sqlite"));
  const Acknowledged told = work(kUntilRefused);
  EXPECT_GT(told.events.size(), 0U);
  EXPECT_THAT(read_file(trace(), 64 * limits::kMiB), testing::HasSubstr("INJECTED"));
  EXPECT_THAT(told.refused, Not(IsEmpty()));
  expect_stopped();
  expect_all_there(told);
  expect_all_there_after_restart(told);
}

class RegistryDiskFull : public RegistryFaults {
 protected:
  void SetUp() override {
    if (std::system((in_namespace() + " true' >/dev/null 2>&1").c_str()) != 0)
      GTEST_SKIP() << "no file system may be mounted here";
  }
  static std::string in_namespace() {
    return "unshare --user --map-root-user --mount sh -c 'mount -t tmpfs none /mnt &&";
  }
};

TEST_F(RegistryDiskFull, ChangesAreRefusedReadsAnsweredAndAllGoesOnWhenThereIsRoom) {
  fs::create_directories(path("services"));
  // Of its own, seen by this one process; larger than what a service wants to have free.
  serve_registry({"unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
                  "mount -t tmpfs -o size=32m none \"$0\" && exec \"$@\"",
                  path("services").string()});
  ASSERT_EQ(submit("io", kTasks), 201);
  const Acknowledged before = work([](const Acknowledged& told) { return told.done.size() == 5; });
  const fs::path filler =
      "/proc/" + std::to_string(services_->pid()) + "/root" + path("services/filler").string();
  {
    std::string block(64 * limits::kKiB, 'x');
    FileDescriptor file(::open(filler.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(file) << filler;
    while (::write(file.get(), block.data(), block.size()) > 0) {
    }
  }
  // The room that the log has is used first.
  const Acknowledged until_full =
      work([](const Acknowledged& told) { return told.refused.size() > 3; });
  EXPECT_THAT(until_full.refused, AllOf(Not(IsEmpty()), Each(AnyOf(503, 507))));
  EXPECT_EQ(call("GET", "/health").status, 503);
  expect_all_there(before);
  expect_all_there(until_full);

  fs::remove(filler);
  const Acknowledged after = work([](const Acknowledged& told) { return told.done.size() == 5; });
  EXPECT_THAT(after.refused, IsEmpty());
  EXPECT_EQ(after.done.size(), 5U);
  EXPECT_EQ(call("GET", "/health").status, 200);
  expect_all_there(before);
  expect_all_there(until_full);
  expect_all_there(after);
}

}  // namespace
}  // namespace necrocode::test
