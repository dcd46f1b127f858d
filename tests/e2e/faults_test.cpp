// The clients against the shipped services through a network that resets, loses, doubles and
// stalls: every call has its effect once.
#include <algorithm>
#include <set>
#include <thread>

#include "e2e/fixture.hpp"
#include "necrocode/artifacts/client.hpp"
#include "necrocode/pool/client.hpp"
#include "necrocode/registry/client.hpp"
#include "support/fault_proxy.hpp"

namespace necrocode::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kSeed = 20261125;

class Faults : public EndToEnd {
 protected:
  void SetUp() override {
    make_remote({{"README", "hello\n"}});
    url_ = serve_tapped();
    proxy_ = std::make_unique<FaultProxy>(static_cast<std::uint16_t>(net::Url::parse(url_)->port),
                                          one_in_ten(kSeed));
  }

  static net::ServiceOptions options(const std::string& url) {
    net::ServiceOptions options;
    options.base_url = url;
    options.timeout = 700ms;  // what a blackhole costs
    options.retry.retries = 20;
    options.retry.base = 1ms;
    options.retry.cap = 20ms;
    return options;
  }
  net::ServiceOptions options() const { return options(proxy_->url()); }

  /// Runs `call` for 0 … count-1, spread over threads; no error is allowed.
  static void spread(int count, const std::function<void(int)>& call) {
    std::atomic<int> next = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        for (int n = next++; n < count; n = next++) {
          try {
            call(n);
          } catch (const std::exception& error) {
            ADD_FAILURE() << "call " << n << ": " << error.what();
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::string url_;
  std::unique_ptr<FaultProxy> proxy_;
};

TEST_F(Faults, TwoThousandChangingCallsHaveEachTheirEffectOnce) {
  RecordProperty("seed", std::to_string(kSeed));
  constexpr int kEvents = 1000;
  constexpr int kReferences = 400;
  constexpr int kUploads = 400;
  constexpr int kSlots = 100;  // allocated and released: 200 calls
  TaskRegistryClient registry(options());
  ArtifactStoreClient artifacts(options());
  RepoPoolClient pool(options());
  registry.submit(Json::parse(R"({"spec_name":"e2e","tasks":[{"id":"1","title":"a"}]})"));

  spread(kEvents, [&](int n) { registry.add_event("e2e:1", "Counted", Json::object({{"n", n}})); });
  spread(kReferences, [&](int n) {
    registry.add_artifact("e2e:1", "log", "http://store/" + std::to_string(n), n);
  });
  spread(kUploads, [&](int n) {
    artifacts.upload("log", "content " + std::to_string(n), Json::object({{"task_id", "e2e:1"}}));
  });

  // Asked past the proxy.
  TaskRegistryClient direct(options(url_));
  std::multiset<std::int64_t> counted;
  for (std::int64_t after = 0;;) {
    const registry::EventPage page = direct.events({.task_id = "e2e:1", .after = after});
    for (const registry::Event& event : page.items) {
      if (event.event_type == "Counted") counted.insert(*event.data["n"].as_int());
      after = event.id;
    }
    if (!page.next_cursor) break;
  }
  EXPECT_EQ(counted.size(), static_cast<std::size_t>(kEvents));
  EXPECT_EQ(std::set(counted.begin(), counted.end()).size(), static_cast<std::size_t>(kEvents));
  std::set<std::string> uris;
  const registry::Task task = direct.get_task("e2e:1");
  for (const registry::ArtifactRef& reference : task.artifacts) uris.insert(reference.uri);
  EXPECT_EQ(task.artifacts.size(), static_cast<std::size_t>(kReferences));
  EXPECT_EQ(uris.size(), static_cast<std::size_t>(kReferences));
  ArtifactQuery query;
  query.task = "e2e:1";
  query.limit = 1000;
  EXPECT_EQ(ArtifactStoreClient(options(url_)).list(query).items.size(),
            static_cast<std::size_t>(kUploads));

  std::mutex mutex;
  std::set<std::string> leases;
  spread(kSlots, [&](int) {
    const SlotAllocation slot = pool.allocate_slot("file://" + remote(), "faults", 1);
    {
      const std::lock_guard lock(mutex);
      EXPECT_TRUE(leases.insert(slot.slot_id.value).second) << "leased twice";
    }
    pool.release_slot(slot.slot_id, slot.lease_token);
  });
  const Json pools = RepoPoolClient(options(url_)).list_pools();
  const Json whole =
      RepoPoolClient(options(url_)).get_pool(pools["items"].items().at(0)["name"].string_or(""));
  std::int64_t allocations = 0;
  for (const Json& slot : whole["slots"].items()) {
    allocations += slot["statistics"]["allocations"].as_int().value_or(0);
    EXPECT_NE(slot["state"], Json("leased"));
  }
  EXPECT_EQ(allocations, kSlots) << whole.dump();
  EXPECT_GT(proxy_->faults(), 100U);
}

TEST_F(Faults, CallsEndAtTheirDeadlineWhateverTheNetworkDoes) {
  for (const Fault fault : {Fault::kBlackhole, Fault::kResetBefore, Fault::kStatus429,
                            Fault::kStatus503, Fault::kTruncate, Fault::kLostReply}) {
    FaultProxy proxy(static_cast<std::uint16_t>(net::Url::parse(url_)->port),
                     [&] { return fault; });
    net::ServiceOptions own = options(proxy.url());
    own.timeout = 30s;
    own.retry.retries = 1'000'000;
    own.retry.base = 100ms;
    own.retry.cap = 100ms;
    TaskRegistryClient registry(std::move(own));
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_THROW(registry.get_task("e2e:1", CallContext{}.within(1s)), RunnerError);
    const auto took = std::chrono::steady_clock::now() - begin;
    EXPECT_LE(took, 1100ms) << static_cast<int>(fault);
  }
}

TEST_F(Faults, AnswerThatIsNotHttpIsAnErrorAtOnce) {
  FaultProxy proxy(static_cast<std::uint16_t>(net::Url::parse(url_)->port),
                   [] { return Fault::kGarbage; });
  TaskRegistryClient registry(options(proxy.url()));
  EXPECT_THROW(registry.get_task("e2e:1"), InvalidResponse);
  EXPECT_EQ(proxy.requests(), 1U);
}

TEST_F(Faults, OutageIsNotMultipliedAndEndsForAllOfThem) {
  TaskRegistryClient registry(options());
  registry.submit(Json::parse(R"({"spec_name":"e2e","tasks":[{"id":"1","title":"a"}]})"));
  proxy_->set_down(true);
  const std::size_t before = proxy_->requests();
  constexpr int kCalls = 300;
  std::atomic<int> failed = 0;
  const auto begin = std::chrono::steady_clock::now();
  spread(kCalls, [&](int) {
    try {
      registry.get_task("e2e:1");
    } catch (const Unavailable&) {
      ++failed;
    }
  });
  const std::chrono::duration<double> outage = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(failed, kCalls);
  const double allowed = kCalls * (1 + limits::kRetryBudgetPerCall) + limits::kRetryBudgetTokens +
                         outage.count() * limits::kRetryBudgetPerSecond;
  // Each stale connection is replaced once, for free.
  EXPECT_LE(static_cast<double>(proxy_->requests() - before), allowed + 8);
  proxy_->set_down(false);
  EXPECT_TRUE(eventually([&] {
    try {
      return registry.get_task("e2e:1").number == "1";
    } catch (const Unavailable&) {
      return false;
    }
  }));
}

TEST_F(Faults, TwentyClientsDoNotComeBackInStep) {
  std::mutex mutex;
  std::vector<std::chrono::steady_clock::time_point> second_attempts;
  std::atomic<int> first_attempts = 0;
  constexpr const char* kTask = R"({"id":"e2e:1","spec_name":"e2e","number":"1","state":"ready",
      "created_at":"2026-01-31T12:00:00Z","updated_at":"2026-01-31T12:00:00Z"})";
  RawServer server([&](RawConnection& connection) {
    while (connection.read_request()) {
      if (++first_attempts <= 20) {
        if (!connection.send(test::answer(503, "starting"))) return;
        continue;
      }
      const std::lock_guard lock(mutex);
      second_attempts.push_back(std::chrono::steady_clock::now());
      if (!connection.send(test::answer(200, kTask, "Content-Type: application/json\r\n"))) return;
    }
  });
  net::ServiceOptions own = options(server.url(""));
  own.timeout = 10s;
  own.retry.base = 1s;
  own.retry.cap = 1s;
  TaskRegistryClient registry(std::move(own));
  std::vector<std::thread> clients;
  for (int i = 0; i < 20; ++i) clients.emplace_back([&] { registry.get_task("e2e:1"); });
  for (std::thread& client : clients) client.join();
  ASSERT_EQ(second_attempts.size(), 20U);
  std::sort(second_attempts.begin(), second_attempts.end());
  // Uniform over a second: all twenty within half of it by chance once in 50,000 runs.
  EXPECT_GT(second_attempts.back() - second_attempts.front(), 500ms);
}

}  // namespace
}  // namespace necrocode::test
