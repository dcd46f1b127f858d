// What a call told again does at the registry: its effect once, its first answer, also after a
// restart.
#include <thread>

#include "necrocode/registry/service.hpp"
#include "store_fixture.hpp"
#include "support/raw_client.hpp"

namespace necrocode::registry {
namespace {

using namespace std::chrono_literals;
using test::RawAnswer;
using test::RawClient;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class IdempotentRegistry : public testing::Test {
 protected:
  IdempotentRegistry() {
    start();
    EXPECT_EQ(call("POST", "/tasksets",
                   R"({"spec_name":"app","tasks":[{"id":"1","title":"a"},{"id":"2","title":"b"}]})")
                  .status,
              201);
  }
  ~IdempotentRegistry() override { stop(); }

  void start() {
    server_ = std::make_unique<net::HttpServer>();
    service_ = std::make_unique<RegistryService>(
        std::make_unique<SqliteTaskStore>(folder_.path() / "registry.db", clock_), clock_);
    net::Api api(*server_);
    service_->add_routes(api);
    server_->start();
  }
  void stop() {
    server_->stop();
    service_.reset();
  }
  void restart() {
    stop();
    start();
  }

  static std::string request(const std::string& method, const std::string& path,
                             const std::string& body, const std::string& key) {
    return method + " " + path + " HTTP/1.1\r\nHost: x\r\n" +
           (key.empty() ? "" : "Idempotency-Key: " + key + "\r\n") +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  RawAnswer call(const std::string& method, const std::string& path, const std::string& body,
                 const std::string& key = {}) {
    RawClient client(server_->port());
    return client.call(request(method, path, body, key));
  }
  Json get(const std::string& path) { return Json::parse(call("GET", path, "").body); }
  std::size_t events(const std::string& type) {
    return get("/events?type=" + type)["items"].size();
  }

  TemporaryDirectory folder_;
  ManualClock clock_;
  std::unique_ptr<net::HttpServer> server_;
  std::unique_ptr<RegistryService> service_;
};

TEST_F(IdempotentRegistry, EventToldThreeTimesAtOnceIsOneRow) {
  std::vector<std::string> bodies(3);
  std::vector<std::thread> callers;
  for (std::string& body : bodies) {
    callers.emplace_back([&] {
      const RawAnswer answer =
          call("POST", "/tasks/app:1/events", R"({"event_type":"Seen"})", "k1");
      EXPECT_EQ(answer.status, 201);
      body = answer.body;
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_THAT(bodies, Each(bodies.front()));
  EXPECT_EQ(events("Seen"), 1u);
}

TEST_F(IdempotentRegistry, KeyWithAnotherBodyIs422) {
  EXPECT_EQ(call("POST", "/tasks/app:1/events", R"({"event_type":"Seen"})", "k1").status, 201);
  const RawAnswer other = call("POST", "/tasks/app:1/events", R"({"event_type":"Heard"})", "k1");
  EXPECT_EQ(other.status, 422);
  EXPECT_THAT(other.body, HasSubstr("used for another request"));
  EXPECT_EQ(call("POST", "/tasks/app:2/events", R"({"event_type":"Seen"})", "k1").status, 422);
  EXPECT_EQ(events("Heard"), 0u);
}

TEST_F(IdempotentRegistry, FirstAnswerOutlivesTheService) {
  const RawAnswer first = call("POST", "/tasks/app:1/events", R"({"event_type":"Seen"})", "k1");
  restart();
  const RawAnswer again = call("POST", "/tasks/app:1/events", R"({"event_type":"Seen"})", "k1");
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(again.headers.get_or("Idempotent-Replayed", ""), "true");
  EXPECT_EQ(events("Seen"), 1u);
}

TEST_F(IdempotentRegistry, SubmitToldAgainIsFirstAnsweredAndOnceDone) {
  const std::string body = R"({"spec_name":"b","tasks":[{"id":"1","title":"t"}]})";
  const RawAnswer first = call("POST", "/tasksets", body, "k1");
  EXPECT_EQ(first.status, 201);
  const RawAnswer again = call("POST", "/tasksets", body, "k1");
  EXPECT_EQ(again.status, 201);
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(again.headers.get_or("Idempotent-Replayed", ""), "true");
  EXPECT_EQ(call("POST", "/tasksets", body).status, 200);
  const std::string other = R"({"spec_name":"c","tasks":[{"id":"1","title":"t"}]})";
  EXPECT_EQ(call("POST", "/tasksets", other, "k1").status, 422);
  EXPECT_EQ(call("GET", "/tasksets/c", "").status, 404);
}

TEST_F(IdempotentRegistry, KeyIsForgottenAfterADay) {
  call("POST", "/tasks/app:1/events", R"({"event_type":"Seen"})", "k1");
  clock_.advance(24h + 1s);
  call("POST", "/tasks/app:1/events", R"({"event_type":"Seen"})", "k1");
  EXPECT_EQ(events("Seen"), 2u);
}

TEST_F(IdempotentRegistry, ClaimToldAgainGetsTheSameLease) {
  const std::string body = R"({"runner_id":"r"})";
  const RawAnswer first = call("POST", "/tasks/claim", body, "k1");
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(call("POST", "/tasks/claim", body, "k1").body, first.body);
  EXPECT_EQ(get("/tasks?state=running")["items"].size(), 1u);
  EXPECT_EQ(call("POST", "/tasks/claim", R"({"runner_id":"s"})", "k1").status, 422);
}

TEST_F(IdempotentRegistry, ClaimToldAgainAfterItsLeaseEndedGetsNoDeadLease) {
  const std::string body = R"({"runner_id":"r","max":2})";
  const RawAnswer first = call("POST", "/tasks/claim", body, "k1");
  ASSERT_EQ(first.json()["tasks"].size(), 2u);
  const auto complete = [&](std::size_t i) {
    const Json task = first.json()["tasks"].items()[i];
    call("POST", "/tasks/" + task["id"].string_or("") + "/complete",
         Json::object({{"status", "done"}, {"lease_token", task["lease_token"]}}).dump());
  };
  complete(0);
  EXPECT_EQ(call("POST", "/tasks/claim", body, "k1").body, first.body) << "one lease lives";
  complete(1);
  call("POST", "/tasksets", R"({"spec_name":"app","tasks":[{"id":"3","title":"c"}]})");
  EXPECT_EQ(call("POST", "/tasks/claim", body, "k1").status, 204);
  EXPECT_EQ(get("/tasks?state=ready")["items"].size(), 1u) << "and takes no other task";
}

TEST_F(IdempotentRegistry, ClaimThatFoundNothingIsAskedAnew) {
  const std::string body = R"({"runner_id":"r"})";
  call("POST", "/tasks/claim", R"({"max":2})");
  EXPECT_EQ(call("POST", "/tasks/claim", body, "k1").status, 204);
  call("POST", "/tasksets", R"({"spec_name":"app","tasks":[{"id":"3","title":"c"}]})");
  EXPECT_EQ(call("POST", "/tasks/claim", body, "k1").status, 200);
}

TEST_F(IdempotentRegistry, WaitingClaimToldAgainIsOneClaim) {
  call("POST", "/tasks/claim", R"({"max":2})");
  const std::string body = R"({"runner_id":"r","wait_seconds":30})";
  RawClient first(server_->port());
  RawClient again(server_->port());
  RawClient other(server_->port());
  first.send(request("POST", "/tasks/claim", body, "k1"));
  again.send(request("POST", "/tasks/claim", body, "k1"));
  // Refused as soon as one of the two waits; a claim of its own before that.
  other.send(request("POST", "/tasks/claim", R"({"runner_id":"s","wait_seconds":30})", "k2"));
  call("POST", "/tasksets",
       R"({"spec_name":"app","tasks":[{"id":"3","title":"c"},{"id":"4","title":"d"}]})");
  const RawAnswer one = first.read_answer();
  const RawAnswer two = again.read_answer();
  EXPECT_EQ(one.status, 200);
  EXPECT_EQ(two.body, one.body);
  EXPECT_NE(other.read_answer().body, one.body);
  EXPECT_EQ(get("/tasks?state=running")["items"].size(), 4u);
}

TEST_F(IdempotentRegistry, ClaimWhoseClientIsGoneIsGivenBackWithItsKey) {
  call("POST", "/tasks/claim", R"({"max":2})");
  const std::string body = R"({"runner_id":"r","wait_seconds":30})";
  {
    RawClient gone(server_->port());
    gone.send(request("POST", "/tasks/claim", body, "k1"));
  }
  call("POST", "/tasksets", R"({"spec_name":"app","tasks":[{"id":"3","title":"c"}]})");
  const RawAnswer again = call("POST", "/tasks/claim", body, "k1");
  ASSERT_EQ(again.status, 200);
  const Json task = Json::parse(again.body)["tasks"].items().at(0);
  EXPECT_EQ(task["id"], Json("app:3"));
  // The lease lives, whether this call found the task ready or came upon the first's.
  EXPECT_EQ(call("POST", "/tasks/app:3/heartbeat",
                 Json::object({{"lease_token", task["lease_token"]}}).dump())
                .status,
            200);
}

TEST_F(IdempotentRegistry, CompletionToldAgainClaimsNoSecondTask) {
  const Json claimed = Json::parse(call("POST", "/tasks/claim", R"({"runner_id":"r"})").body);
  const Json task = claimed["tasks"].items().at(0);
  const std::string body =
      Json::object({{"lease_token", task["lease_token"]}, {"status", "done"}, {"claim_next", true}})
          .dump();
  const RawAnswer first = call("POST", "/tasks/app:1/complete", body, "k1");
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(call("POST", "/tasks/app:1/complete", body, "k1").body, first.body);
  EXPECT_EQ(events("TaskCompleted"), 1u);
}

TEST_F(IdempotentRegistry, RefusalToldAgainIsTheSameThoughTheTaskHasChanged) {
  EXPECT_EQ(call("PUT", "/tasks/app:1/status", R"({"status":"failed"})", "k1").status, 409);
  EXPECT_EQ(call("PUT", "/tasks/app:1/status", R"({"status":"running"})", "k2").status, 200);
  EXPECT_EQ(call("PUT", "/tasks/app:1/status", R"({"status":"failed"})", "k1").status, 409);
  EXPECT_EQ(call("PUT", "/tasks/app:1/status", R"({"status":"failed"})", "k3").status, 200);
}

}  // namespace
}  // namespace necrocode::registry
