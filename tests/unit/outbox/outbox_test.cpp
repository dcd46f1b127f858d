#include "necrocode/outbox/outbox.hpp"

#include <gmock/gmock.h>

#include "support/eventually.hpp"
#include "support/raw_server.hpp"

namespace necrocode::outbox {
namespace {

using namespace std::chrono_literals;
using test::answer;
using test::RawConnection;
using test::RawServer;
using test::RecordedRequest;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

namespace fs = std::filesystem;

/// A service that is down until it is told otherwise, and refuses or fails what a test says.
class OutboxTest : public testing::Test {
 protected:
  OutboxTest()
      : server_([this](RawConnection& connection) {
          while (const auto request = connection.read_request()) {
            if (down_) return connection.reset();
            if (!connection.send(answer(status_of(*request), "{}"))) return;
          }
        }) {}

  int status_of(const RecordedRequest& request) {
    const std::lock_guard lock(mutex_);
    const auto found = statuses_.find(request.body);
    if (found != statuses_.end()) return found->second;
    done_.push_back(request.body);
    keys_.push_back(request.headers.get_or("Idempotency-Key", ""));
    return 200;
  }
  void set_status(const std::string& body, int status) {
    const std::lock_guard lock(mutex_);
    if (status == 200) {
      statuses_.erase(body);
    } else {
      statuses_[body] = status;
    }
  }
  std::vector<std::string> done() {
    const std::lock_guard lock(mutex_);
    return done_;
  }
  std::vector<std::string> keys() {
    const std::lock_guard lock(mutex_);
    return keys_;
  }

  net::ServiceOptions service_options() const {
    net::ServiceOptions options;
    options.base_url = server_.url("");
    options.retry.retries = 0;
    options.http = http_;
    return options;
  }
  std::shared_ptr<net::ServiceCaller> caller() const {
    return std::make_shared<net::ServiceCaller>("task-registry", service_options());
  }
  net::ServiceCaller reporter(std::shared_ptr<Outbox> box) const {
    net::ServiceOptions options = service_options();
    options.spool = std::move(box);
    return net::ServiceCaller("task-registry", std::move(options));
  }
  std::shared_ptr<Outbox> open(OutboxOptions options = quick()) {
    return std::make_shared<Outbox>(folder_.path() / "outbox", options);
  }
  static OutboxOptions quick() {
    OutboxOptions options;
    options.pause_min = 1ms;
    options.pause_max = 20ms;
    return options;
  }
  static net::ServiceCall call(int number, const std::string& target = "a:1") {
    net::ServiceCall call;
    call.operation = "add_event";
    call.target = target;
    call.method = "POST";
    call.path = "/tasks/" + target + "/events";
    call.body = Json(number);
    return call;
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    std::error_code absent;
    for (const auto& entry : fs::directory_iterator(folder_.path() / "outbox", absent)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  TemporaryDirectory folder_;
  std::shared_ptr<net::HttpClient> http_ = net::make_curl_http_client();
  std::mutex mutex_;
  std::map<std::string, int> statuses_;  // by body
  std::vector<std::string> done_, keys_;
  std::atomic<bool> down_ = true;
  RawServer server_;  // last: its threads use the rest
};

TEST_F(OutboxTest, WhileTheServiceAnswersNothingIsKept) {
  down_ = false;
  const auto box = open();
  EXPECT_EQ(reporter(box).report(call(1), {}), Json::object());
  EXPECT_EQ(box->status().kept, 0U);
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(OutboxTest, CallsAreKeptAndDeliveredInOrderWhenTheServiceIsBack) {
  const auto box = open();
  const net::ServiceCaller reports = reporter(box);
  for (int i = 1; i <= 5; ++i) EXPECT_EQ(reports.report(call(i), {}), std::nullopt);
  EXPECT_EQ(box->status().kept, 5U);
  EXPECT_TRUE(box->holds(server_.url(""), "a:1"));
  down_ = false;
  box->deliver_through(caller());
  EXPECT_TRUE(box->settle(server_.url(""), "a:1", CallContext{}.within(10s)));
  EXPECT_THAT(done(), ElementsAre("1", "2", "3", "4", "5"));
  EXPECT_EQ(box->status().kept, 0U);
}

TEST_F(OutboxTest, AfterAKeptCallTheNextOfItsTargetQueuesBehind) {
  const auto box = open();
  const net::ServiceCaller reports = reporter(box);
  EXPECT_EQ(reports.report(call(1), {}), std::nullopt);
  down_ = false;
  EXPECT_EQ(reports.report(call(2), {}), std::nullopt);
  EXPECT_NE(reports.report(call(3, "b:1"), {}), std::nullopt) << "another target goes through";
  box->deliver_through(caller());
  EXPECT_TRUE(box->settle(server_.url(""), "a:1", CallContext{}.within(10s)));
  EXPECT_THAT(done(), ElementsAre("3", "1", "2"));
}

TEST_F(OutboxTest, KeptCallHasTheKeyOfItsFirstAttempt) {
  const auto box = open();
  EXPECT_EQ(reporter(box).report(call(1), {}), std::nullopt);
  const std::string first = server_.requests().at(0).headers.get_or("Idempotency-Key", "");
  EXPECT_THAT(first, SizeIs(36));
  down_ = false;
  box->deliver_through(caller());
  EXPECT_TRUE(box->settle(server_.url(""), "a:1", CallContext{}.within(10s)));
  EXPECT_THAT(keys(), ElementsAre(first));
}

TEST_F(OutboxTest, NextProcessDeliversWhatTheLastOneKept) {
  {
    const auto box = open();
    const net::ServiceCaller reports = reporter(box);
    for (int i = 1; i <= 3; ++i) reports.report(call(i), {});
  }
  EXPECT_THAT(files(), SizeIs(testing::Ge(1U)));
  down_ = false;
  const auto box = open();
  EXPECT_EQ(box->status().kept, 3U);
  box->deliver_through(caller());
  EXPECT_TRUE(box->settle(server_.url(""), "a:1", CallContext{}.within(10s)));
  EXPECT_THAT(done(), ElementsAre("1", "2", "3"));
}

TEST_F(OutboxTest, FileOfALivingProcessIsItsOwn) {
  const auto first = open();
  reporter(first).report(call(1), {});
  const auto second = open();
  EXPECT_EQ(second->status().kept, 0U);
  EXPECT_EQ(first->status().kept, 1U);
}

TEST_F(OutboxTest, EmptiedOutboxLeavesNoFile) {
  {
    const auto box = open();
    reporter(box).report(call(1), {});
    down_ = false;
    box->deliver_through(caller());
    EXPECT_TRUE(box->settle(server_.url(""), "a:1", CallContext{}.within(10s)));
  }
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(OutboxTest, RefusedCallIsSetAsideAndTheQueueMovesOn) {
  const auto box = open();
  const net::ServiceCaller reports = reporter(box);
  for (int i = 1; i <= 3; ++i) reports.report(call(i), {});
  set_status("2", 422);
  down_ = false;
  box->deliver_through(caller());
  EXPECT_TRUE(box->settle(server_.url(""), "a:1", CallContext{}.within(10s)));
  EXPECT_THAT(done(), ElementsAre("1", "3"));
  EXPECT_EQ(box->status().set_aside, 1U);
  const std::string text = read_file(folder_.path() / "outbox/set-aside.jsonl", limits::kMiB);
  const Json line = Json::parse(text);
  EXPECT_EQ(line["body"], Json(2));
  EXPECT_EQ(line["target"], Json("a:1"));
  EXPECT_THAT(line["error"].string_or(""), HasSubstr("422"));
}

TEST_F(OutboxTest, RefusedCallThatCannotBeSetAsideIsKeptAndTheOthersGoOut) {
  const auto box = open();
  const net::ServiceCaller reports = reporter(box);
  const std::filesystem::path place = folder_.path() / "outbox/set-aside.jsonl";
  std::filesystem::create_directories(place);
  for (int i = 1; i <= 2; ++i) reports.report(call(i), {});
  reports.report(call(3, "b:1"), {});
  set_status("1", 422);
  down_ = false;
  box->deliver_through(caller());
  EXPECT_TRUE(box->settle(server_.url(""), "b:1", CallContext{}.within(10s)));
  EXPECT_FALSE(box->settle(server_.url(""), "a:1", CallContext{}.within(50ms)));
  EXPECT_EQ(box->status().kept, 2U);
  std::filesystem::remove(place);
  EXPECT_TRUE(box->settle(server_.url(""), "a:1", CallContext{}.within(10s)));
  EXPECT_EQ(box->status().set_aside, 1U);
  EXPECT_THAT(done(), ElementsAre("3", "2"));
}

TEST_F(OutboxTest, CallThatTheServiceFailsOnHoldsBackOnlyItsTarget) {
  const auto box = open();
  const net::ServiceCaller reports = reporter(box);
  reports.report(call(1), {});
  reports.report(call(2), {});
  reports.report(call(3, "b:1"), {});
  set_status("1", 500);
  down_ = false;
  box->deliver_through(caller());
  EXPECT_TRUE(box->settle(server_.url(""), "b:1", CallContext{}.within(10s)));
  EXPECT_THAT(done(), ElementsAre("3"));
  EXPECT_FALSE(box->settle(server_.url(""), "a:1", CallContext{}.within(50ms)));
  set_status("1", 200);
  EXPECT_TRUE(box->settle(server_.url(""), "a:1", CallContext{}.within(10s)));
  EXPECT_THAT(done(), ElementsAre("3", "1", "2"));
}

TEST_F(OutboxTest, CallForAnotherAddressWaitsForWhoKnowsIt) {
  const auto box = open();
  net::ServiceCall other = call(1);
  other.idempotency_key = "k";
  box->keep("task-registry", "http://127.0.0.1:1", other);
  down_ = false;
  box->deliver_through(caller());
  EXPECT_FALSE(box->settle("http://127.0.0.1:1", "a:1", CallContext{}.within(20ms)));
  EXPECT_THAT(server_.requests(), IsEmpty());
}

TEST_F(OutboxTest, FullOutboxRefusesLoudly) {
  OutboxOptions options = quick();
  options.calls_max = 2;
  const auto box = open(options);
  const net::ServiceCaller reports = reporter(box);
  reports.report(call(1), {});
  reports.report(call(2), {});
  EXPECT_THROW(reports.report(call(3), {}), ResourceLimitError);
  options.calls_max = 100;
  options.bytes_max = 10;
  EXPECT_THROW(reporter(open(options)).report(call(4), {}), ResourceLimitError);
}

TEST_F(OutboxTest, RefusalAndCancellationAreNotKept) {
  down_ = false;
  const auto box = open();
  set_status("1", 409);
  EXPECT_THROW(reporter(box).report(call(1), {}), Conflict);
  down_ = true;
  std::stop_source stop;
  stop.request_stop();
  CallContext cancelled;
  cancelled.stop = stop.get_token();
  EXPECT_THROW(reporter(box).report(call(2), cancelled), TimeoutError);
  EXPECT_EQ(box->status().kept, 0U);
}

TEST_F(OutboxTest, UnreadableFileIsLeftWhereItIs) {
  fs::create_directories(folder_.path() / "outbox");
  write_file_atomic(folder_.path() / "outbox/0.outbox", std::string(8192, 'x'));
  write_file_atomic(folder_.path() / "outbox/0.outbox.lock", "");
  const auto box = open();
  EXPECT_EQ(box->status().kept, 0U);
  EXPECT_TRUE(fs::exists(folder_.path() / "outbox/0.outbox"));
  reporter(box).report(call(1), {});
  EXPECT_EQ(box->status().kept, 1U);
}

TEST_F(OutboxTest, FolderThatCannotBeMadeIsAStorageError) {
  write_file_atomic(folder_.path() / "outbox", "a file");
  const auto box = open();
  EXPECT_THROW(reporter(box).report(call(1), {}), StorageError);
  EXPECT_EQ(box->status().kept, 0U);
}

TEST_F(OutboxTest, UrgentCallIsTriedWhileOthersOfItsTargetAreKept) {
  const auto box = open();
  const net::ServiceCaller reports = reporter(box);
  EXPECT_EQ(reports.report(call(1), {}), std::nullopt);
  down_ = false;
  EXPECT_NE(reports.report(call(2), {}, true), std::nullopt);
  EXPECT_THAT(done(), ElementsAre("2"));
  set_status("3", 409);
  EXPECT_THROW(reports.report(call(3), {}, true), Conflict);
}

}  // namespace
}  // namespace necrocode::outbox
