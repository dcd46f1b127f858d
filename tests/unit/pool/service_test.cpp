// The service as its clients see it: over a real socket.
#include "necrocode/pool/service.hpp"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <set>

#include "necrocode/pool/client.hpp"
#include "pool_fixture.hpp"

namespace necrocode::pool::test {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::HasSubstr;

class PoolServiceTest : public testing::Test {
 protected:
  PoolServiceTest() {
    PoolManagerOptions options;
    options.data_dir = folder_.path() / "data";
    service_ = std::make_unique<PoolService>(std::make_unique<PoolManager>(real_git(), options));
    net::Api api(server_);
    service_->add_routes(api);
    server_.start();
    net::ServiceOptions client;
    client.base_url = server_.url();
    client.retry.retries = 0;
    client_ = std::make_unique<RepoPoolClient>(std::move(client));
  }
  ~PoolServiceTest() override {
    service_->stop();
    server_.stop();
  }
  net::HttpResponse send(const std::string& method, const std::string& path,
                         const std::string& body = {}, net::Headers headers = {}) {
    net::HttpRequest request;
    request.method = method;
    request.url = server_.url() + path;
    request.body = body;
    request.headers = std::move(headers);
    if (!body.empty()) request.headers.set("Content-Type", "application/json");
    return net::shared_http_client()->send(request, {});
  }
  /// As existing programs ask.
  std::string allocate_body(double timeout = 20) const {
    return Json::object({{"repo_url", remote_.url()},
                         {"required_by", "runner-1"},
                         {"timeout_seconds", timeout}})
        .dump();
  }
  void make_pool(int slots) {
    client_->add_pool({"app", remote_.url(), slots, slots, ""});
    client_->warm("app");
  }

  GitRemote remote_;
  TemporaryDirectory folder_{"necrocode-pool-service-"};
  std::unique_ptr<PoolService> service_;
  net::HttpServer server_;
  std::unique_ptr<RepoPoolClient> client_;
};

TEST_F(PoolServiceTest, ExistingProgramsAllocateAskAndRelease) {
  const net::HttpResponse made = send("POST", "/slots/allocate", allocate_body());
  ASSERT_EQ(made.status, 200) << made.body;
  const Json slot = Json::parse(made.body);
  for (const char* field : {"slot_id", "slot_path", "git_dir", "lease_token", "expires_at",
                            "commit", "branch", "repo_url"}) {
    EXPECT_TRUE(slot[field].is_string()) << field;
  }
  EXPECT_EQ(read(fs::path(slot["slot_path"].string_or("")) / "a.txt"), "alpha\n");
  const std::string path = "/slots/" + slot["slot_id"].string_or("");
  EXPECT_EQ(Json::parse(send("GET", path).body)["state"].string_or(""), "leased");
  EXPECT_EQ(send("POST", path + "/release").status, 200);
  EXPECT_EQ(send("POST", path + "/release").status, 200);
  EXPECT_EQ(Json::parse(send("GET", path).body)["state"].string_or(""), "released");
  EXPECT_EQ(send("POST", "/slots/none-1.1/release").status, 404);
  EXPECT_EQ(send("GET", "/slots/none-1.1").status, 404);
}

TEST_F(PoolServiceTest, ClientGoesThroughALease) {
  make_pool(1);
  const SlotAllocation slot =
      client_->allocate_slot(remote_.url(), "test", 20, {.ref = "", .lease = 60s, .max_age = 1h});
  EXPECT_EQ(slot.slot_id.value, "app-1.1");
  EXPECT_GT(client_->heartbeat(slot.slot_id, slot.lease_token), slot.expires_at - 1s);
  EXPECT_EQ(client_->get_slot_status(slot.slot_id)["state"].string_or(""), "leased");
  EXPECT_THROW(client_->release_slot(slot.slot_id, LeaseToken{"wrong"}), Conflict);
  EXPECT_THROW(client_->remove_pool("app"), Conflict);
  client_->release_slot(slot.slot_id, slot.lease_token);
  client_->release_slot(slot.slot_id, slot.lease_token);
  EXPECT_THROW(client_->heartbeat(slot.slot_id, slot.lease_token), Conflict);
  EXPECT_EQ(client_->list_pools()["items"].size(), 1u);
  EXPECT_EQ(client_->get_pool("app")["base_branch"].string_or(""), "main");
  client_->remove_pool("app");
  EXPECT_THROW(client_->get_pool("app"), NotFound);
}

TEST_F(PoolServiceTest, AnEmptyPoolAnswers503InTime) {
  make_pool(1);
  client_->allocate_slot(remote_.url(), "holder");
  const auto begun = std::chrono::steady_clock::now();
  const net::HttpResponse late = send("POST", "/slots/allocate", allocate_body(1));
  const auto took = std::chrono::steady_clock::now() - begun;
  EXPECT_EQ(late.status, 503);
  EXPECT_TRUE(late.headers.get("Retry-After"));
  EXPECT_THAT(late.headers.get_or("Content-Type", ""), HasSubstr("application/problem+json"));
  EXPECT_GE(took, 1000ms);
  EXPECT_LE(took, 1200ms);
  const net::HttpResponse at_once = send("POST", "/slots/allocate", allocate_body(0));
  EXPECT_EQ(at_once.status, 503);
  EXPECT_TRUE(at_once.headers.get("Retry-After"));
  EXPECT_EQ(client_->get_pool("app")["waiting"].as_int(), 0);
}

TEST_F(PoolServiceTest, ZeroTimeoutTakesAReadySlot) {
  make_pool(1);
  EXPECT_EQ(send("POST", "/slots/allocate", allocate_body(0)).status, 200);
}

TEST_F(PoolServiceTest, AWaiterThatDisconnectsIsDropped) {
  make_pool(1);
  const SlotAllocation holder = client_->allocate_slot(remote_.url(), "holder");
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(server_.port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::string body = allocate_body(60);
  const std::string request =
      "POST /slots/allocate HTTP/1.1\r\nHost: x\r\nContent-Type: "
      "application/json\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  ASSERT_EQ(::write(socket, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  while (client_->get_pool("app")["waiting"].as_int() != 1) std::this_thread::yield();
  ::close(socket);
  while (client_->get_pool("app")["waiting"].as_int() != 0) std::this_thread::yield();
  client_->release_slot(holder.slot_id);
  EXPECT_EQ(client_->allocate_slot(remote_.url(), "next").slot_id.value, "app-1.2");
}

TEST_F(PoolServiceTest, SixtyFourClientsShareEightSlots) {
  make_pool(8);
  std::mutex mutex;
  std::set<std::string> held, all;
  bool twice = false;
  std::vector<std::future<void>> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(std::async(std::launch::async, [&] {
      const SlotAllocation slot = client_->allocate_slot(remote_.url(), "client", 60);
      const std::string name = slot.slot_id.value.substr(0, slot.slot_id.value.find('.'));
      {
        const std::lock_guard lock(mutex);
        twice = twice || !held.insert(name).second || !all.insert(slot.slot_id.value).second;
      }
      {
        const std::lock_guard lock(mutex);
        held.erase(name);
      }
      client_->release_slot(slot.slot_id, slot.lease_token);
    }));
  }
  for (auto& client : clients) EXPECT_NO_THROW(client.get());
  EXPECT_FALSE(twice);
  EXPECT_EQ(all.size(), 64u);
}

TEST_F(PoolServiceTest, TheSameKeyGetsTheSameAnswer) {
  make_pool(2);
  const net::Headers key = {{"Idempotency-Key", "one"}};
  const net::HttpResponse first = send("POST", "/slots/allocate", allocate_body(), key);
  const net::HttpResponse again = send("POST", "/slots/allocate", allocate_body(), key);
  EXPECT_EQ(Json::parse(first.body)["slot_id"], Json::parse(again.body)["slot_id"]);
  EXPECT_EQ(send("POST", "/slots/allocate", allocate_body(7), key).status, 422);
}

TEST_F(PoolServiceTest, RefusedUrlsAre422AndNotRepeated) {
  for (const char* url :
       {"ext::sh -c id", "-u", "-oProxyCommand=id", "https://me:hunter2hunter2@example.com/x",
        "/a\\nb", "http://example.com/x"}) {
    const std::string body =
        std::string(R"({"repo_url":")") + url + R"(","required_by":"x","timeout_seconds":1})";
    for (const char* path : {"/slots/allocate", "/pools"}) {
      const net::HttpResponse refused = send("POST", path, body);
      EXPECT_EQ(refused.status, 422) << url << refused.body;
      EXPECT_EQ(refused.body.find("hunter2"), std::string::npos);
      EXPECT_EQ(Json::parse(refused.body)["errors"].items().at(0)["pointer"].string_or(""),
                "/repo_url");
    }
  }
}

TEST_F(PoolServiceTest, UnreachableRepositoryIs422) {
  const std::string body =
      Json::object({{"repo_url", remote_.url() + "-none"}, {"required_by", "x"}}).dump();
  EXPECT_EQ(send("POST", "/slots/allocate", body).status, 422);
  EXPECT_EQ(send("POST", "/pools", body).status, 422);
}

TEST_F(PoolServiceTest, BadRequestsAreToldAllTheirDefects) {
  const net::HttpResponse bad =
      send("POST", "/slots/allocate", R"({"timeout_seconds":-1,"lease_seconds":0,"ref":"--all"})");
  EXPECT_EQ(bad.status, 422);
  EXPECT_EQ(Json::parse(bad.body)["errors"].size(), 4u) << bad.body;
  EXPECT_EQ(send("POST", "/slots/allocate", "{").status, 400);
  EXPECT_EQ(send("POST", "/pools", R"({"repo_url":"/x","name":"a/b","num_slots":5,"max_slots":2})")
                .status,
            422);
  EXPECT_EQ(send("GET", "/pools/none").status, 404);
  EXPECT_EQ(send("DELETE", "/pools/none").status, 404);
  EXPECT_EQ(send("POST", "/pools/none/warm").status, 404);
  EXPECT_EQ(send("POST", "/pools/none/check").status, 404);
  EXPECT_EQ(send("PUT", "/pools").status, 405);
}

TEST_F(PoolServiceTest, HealthIsWell) {
  std::string detail;
  EXPECT_TRUE(service_->healthy(detail)) << detail;
}

TEST(RepoPoolClient, HasItsDocumentedDefault) {
  EXPECT_EQ(RepoPoolClient().base_url(), "http://127.0.0.1:8000");
}

TEST(RepoPoolClient, ATimeThatIsNoNumberIsRefused) {
  for (const double time : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    EXPECT_THROW(RepoPoolClient().allocate_slot("https://example.com/a", "x", time),
                 TaskContextValidationError);
  }
}

TEST(RepoPoolClient, AnAnswerWithoutASlotIsInvalid) {
  EXPECT_THROW(SlotAllocation::from_json(Json::object({{"slot_id", "x"}})), InvalidResponse);
  EXPECT_EQ(
      SlotAllocation::from_json(Json::object({{"slot_id", "x"}, {"slot_path", "/x"}})).slot_path,
      "/x");
}

}  // namespace
}  // namespace necrocode::pool::test
