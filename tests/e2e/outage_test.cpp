// Runs whose registry is out of reach for a while: what they tell it is kept, and told later.
#include <algorithm>

#include "e2e/fixture.hpp"
#include "support/fault_proxy.hpp"

namespace necrocode::test {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Outage : public EndToEnd {
 protected:
  void SetUp() override {
    make_remote({{"README", "hello\n"}});
    url_ = serve();
    proxy_ = std::make_unique<FaultProxy>(static_cast<std::uint16_t>(net::Url::parse(url_)->port),
                                          [] { return Fault::kNone; });
    registry_ = std::make_unique<TaskRegistryClient>(url_);
    serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
    write_file_atomic(path("config.yaml"), "network_retry_count: 0\n");
  }

  Json submit(const std::string& number, const std::string& test_command) {
    Json whole = task(number);
    whole.set("test_commands", std::vector<std::string>{test_command});
    Json one = whole;
    one.erase("task_id");
    one.set("id", number);
    registry_->submit(Json::object({{"spec_name", "e2e"}, {"tasks", Json::Array{one}}}));
    return whole;
  }
  /// Only the registry lies behind the proxy.
  std::unique_ptr<Program> start_run(const Json& task) {
    return start({"run", write_task(task), "--registry", proxy_->url(), "--pool", url_,
                  "--artifacts", url_, "--llm-endpoint", endpoint(), "--json", "--no-baseline",
                  "--config", path("config.yaml").string(), "--data", path("data").string(),
                  "--out", path("out-" + task["task_id"].string_or("")).string()});
  }
  /// That run within its tests, with a phase that the registry has not heard of.
  std::unique_ptr<Program> start_run_and_lose_registry(const Json& task) {
    auto run = start_run(task);
    EXPECT_TRUE(run->read_until("\"prepare\"").has_value()) << stderr_text();
    proxy_->set_down(true);
    // Told one after the other: when this phase has begun, the one before it has been kept.
    EXPECT_TRUE(run->read_until("\"test\"").has_value()) << stderr_text();
    EXPECT_THAT(kept_files(), testing::Not(IsEmpty()));
    return run;
  }
  std::string state_of(const std::string& id) {
    return std::string(registry::to_string(registry_->get_task(id).state));
  }
  /// The phases that the registry was told, in its order.
  std::vector<std::string> phases_of(const std::string& id) {
    std::vector<std::string> phases;
    for (const registry::Event& event : registry_->events({.task_id = id}).items) {
      if (event.event_type == "TaskProgress") phases.push_back(event.data["phase"].string_or(""));
    }
    return phases;
  }
  std::vector<std::string> kept_files() const {
    std::vector<std::string> names;
    std::error_code absent;
    for (const auto& entry : fs::directory_iterator(path("data/outbox"), absent))
      names.push_back(entry.path().filename().string());
    return names;
  }

  static constexpr const char* kNeverEnds = "tail -f /dev/null";
  std::string url_;
  std::unique_ptr<FaultProxy> proxy_;
  std::unique_ptr<TaskRegistryClient> registry_;
};

TEST_F(Outage, RunWhoseRegistryIsGoneThenTheNextProcessTellsItsEnd) {
  const Json first = submit("1", kNeverEnds);
  const Json second = submit("2", "grep -q good file.txt");
  const auto one = start_run_and_lose_registry(first);
  one->signal(SIGTERM);
  EXPECT_EQ(one->wait(), 5) << stderr_text();
  EXPECT_EQ(state_of("e2e:1"), "running");
  EXPECT_THAT(stderr_text(), HasSubstr("kept"));

  proxy_->set_down(false);
  EXPECT_EQ(start_run(second)->wait(), 0) << stderr_text();
  EXPECT_EQ(state_of("e2e:1"), "ready") << "handed back, as the first run's last words said";
  EXPECT_EQ(state_of("e2e:2"), "done");
  EXPECT_THAT(phases_of("e2e:1"), Contains("implement"));
  EXPECT_THAT(kept_files(), IsEmpty());
}

TEST_F(Outage, RunKilledWhileItsReportsAreKeptThenTheNextProcessTellsThem) {
  const Json first = submit("1", kNeverEnds);
  const Json second = submit("2", "grep -q good file.txt");
  const auto one = start_run_and_lose_registry(first);
  one->signal(SIGKILL);
  one->wait();
  proxy_->set_down(false);
  EXPECT_EQ(start_run(second)->wait(), 0) << stderr_text();
  EXPECT_THAT(phases_of("e2e:1"), Contains("implement"));
  EXPECT_THAT(kept_files(), IsEmpty());
}

TEST_F(Outage, OutageThatEndsBeforeTheRunThenAllIsToldInOrder) {
  const Json first = submit("1", "grep -q good file.txt");
  auto one = start_run(first);
  ASSERT_TRUE(one->read_until("\"allocate\"").has_value()) << stderr_text();
  proxy_->set_down(true);
  ASSERT_TRUE(eventually([&] { return !kept_files().empty(); })) << stderr_text();
  proxy_->set_down(false);
  EXPECT_EQ(one->wait(), 0) << stderr_text();
  EXPECT_EQ(state_of("e2e:1"), "done");
  const std::vector<std::string> phases = phases_of("e2e:1");
  EXPECT_THAT(phases, ElementsAre("allocate", "prepare", "implement", "test", "commit", "push"));
  EXPECT_THAT(kept_files(), IsEmpty());
}

}  // namespace
}  // namespace necrocode::test
