// The task registry killed, or asked to end, again and again under workers: what it has
// acknowledged is there, once. NECROCODE_CRASH_KILLS and NECROCODE_CRASH_SEED say how often, and
// with which numbers; `scripts/bench durability` kills it 200 times.
#include <atomic>
#include <condition_variable>
#include <random>
#include <set>
#include <thread>

#include "e2e/registry_process.hpp"
#include "support/environment.hpp"

namespace necrocode::test {
namespace {

constexpr int kWorkers = 8;
constexpr int kTasksInSet = 20;

/// What the workers were told, and what should not have happened. Under its mutex.
struct Ledger {
  std::mutex mutex;
  std::map<std::string, std::int64_t> events;  ///< acknowledged, by their marks
  std::set<std::string> artifacts;             ///< by their URIs
  std::map<std::string, std::string> done;     ///< tasks, with the marks in their metadata
  std::set<std::string> specs;
  std::set<std::string> held;    ///< tasks that somebody has claimed and not begun to give back
  std::set<std::string> tokens;  ///< of all leases
  std::vector<std::string> double_claims;
  std::vector<std::string> wrong;  ///< answers that nobody should get
};

/// Lets the workers wait while nothing can answer them.
class Gate {
 public:
  void open(bool is_open) {
    const std::lock_guard lock(mutex_);
    open_ = is_open;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
};

struct Lease {
  std::string task_id;
  std::string token;
};

class RegistryCrash : public RegistryProcess {
 protected:
  class Worker;

  void end_and_restart(int signal, std::mt19937_64& random);
  Json end_under_workers(int signal, std::uint64_t times);
  Json verdict();
  void expect_no_fault() const;
  void read_history(std::map<std::string, int>& completions, std::map<std::string, int>& marks);
  void read_tasks(const std::map<std::string, int>& completions);

  Ledger ledger_;
  Gate gate_;
  std::atomic<std::uint64_t> acknowledged_ = 0;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> giving_up_ = false;
  std::vector<double> ready_ms_;
  int lost_ = 0;
  int duplicates_ = 0;
};

/// Claims, tells, completes. Each call is told with its own key until it is answered, as our client
/// does.
class RegistryCrash::Worker {
 public:
  Worker(RegistryCrash& test, int number, std::uint64_t seed)
      : test_(test), name_("w" + std::to_string(number)), random_(seed) {}

  void run() {
    while (!test_.stopping_) {
      std::optional<Lease> lease = claim();
      if (!lease) submit();
      while (lease) {
        for (auto count = chance(3); count > 0; --count) add_event(*lease);
        if (chance(4) == 0) add_artifact(*lease);
        lease = end(*lease);
      }
    }
  }

 private:
  std::uint64_t chance(std::uint64_t of) { return random_() % of; }
  std::string next_mark() { return name_ + "-" + std::to_string(++marks_); }

  RawAnswer call(const std::string& target, const Json& body, std::initializer_list<int> expected) {
    const std::string bytes = request("POST", target, body.dump(), "key-" + next_mark());
    for (int tries = 0; tries < 1000 && !test_.giving_up_; ++tries) {
      test_.gate_.pass();
      if (!client_) client_.emplace(test_.port_);
      RawAnswer answer;
      if (client_->connected() && client_->send(bytes)) answer = client_->read_answer();
      if (answer.whole && answer.status != 503) {
        ++test_.acknowledged_;
        if (std::find(expected.begin(), expected.end(), answer.status) == expected.end())
          wrong(target + ": " + std::to_string(answer.status) + " " + answer.body);
        return answer;
      }
      client_.reset();  // it has ended; who ends it closes the gate a moment later
      ::poll(nullptr, 0, 1);
    }
    wrong(target + ": no answer at all");
    return {};
  }
  void wrong(const std::string& what) {
    const std::lock_guard lock(test_.ledger_.mutex);
    test_.ledger_.wrong.push_back(what);
  }

  std::optional<Lease> claimed(const Json& task) {
    if (!task.is_object()) return std::nullopt;
    Lease lease{task["id"].string_or(""), task["lease_token"].string_or("")};
    const std::lock_guard lock(test_.ledger_.mutex);
    const bool free = test_.ledger_.held.insert(lease.task_id).second;
    const bool fresh = test_.ledger_.tokens.insert(lease.token).second;
    if (!free || !fresh) test_.ledger_.double_claims.push_back(lease.task_id);
    return lease;
  }
  std::optional<Lease> claim() {
    const Json terms = Json::object({{"runner_id", name_},
                                     {"lease_seconds", 3600},
                                     {"wait_seconds", chance(8) == 0 ? 0.05 : 0.0}});
    const RawAnswer answer = call("/tasks/claim", terms, {200, 204});
    return answer.status == 200 ? claimed(answer.json()["tasks"].items().at(0)) : std::nullopt;
  }
  void submit() {
    const std::string spec = next_mark();
    Json::Array tasks;
    for (int i = 1; i <= kTasksInSet; ++i) {
      tasks.push_back(Json::object({{"id", std::to_string(i)}, {"title", "one of many"}}));
      if (i > 10) tasks.back().set("dependencies", Json::Array{std::to_string(i - 10)});
    }
    call("/tasksets", Json::object({{"spec_name", spec}, {"tasks", std::move(tasks)}}), {201});
    const std::lock_guard lock(test_.ledger_.mutex);
    test_.ledger_.specs.insert(spec);
  }
  void add_event(const Lease& lease) {
    const std::string mark = next_mark();
    const RawAnswer answer = call("/tasks/" + lease.task_id + "/events",
                                  Json::object({{"event_type", "Said"},
                                                {"lease_token", lease.token},
                                                {"data", Json::object({{"mark", mark}})}}),
                                  {201});
    const std::lock_guard lock(test_.ledger_.mutex);
    test_.ledger_.events[mark] = answer.json()["id"].as_int().value_or(0);
  }
  void add_artifact(const Lease& lease) {
    const std::string uri = "file:///" + next_mark();
    call("/tasks/" + lease.task_id + "/artifacts",
         Json::object({{"type", "log"}, {"uri", uri}, {"lease_token", lease.token}}), {201});
    const std::lock_guard lock(test_.ledger_.mutex);
    test_.ledger_.artifacts.insert(uri);
  }
  /// The lease that comes next when it was asked for in the same call.
  std::optional<Lease> end(const Lease& lease) {
    const bool hands_back = chance(10) == 0;
    const std::string mark = next_mark();
    const Json body = Json::object({{"status", hands_back ? "ready" : "done"},
                                    {"lease_token", lease.token},
                                    {"metadata", Json::object({{"mark", mark}})},
                                    {"claim_next", chance(2) == 0}});
    if (hands_back) {  // from here on, somebody else may get it
      const std::lock_guard lock(test_.ledger_.mutex);
      test_.ledger_.held.erase(lease.task_id);
    }
    const RawAnswer answer = call("/tasks/" + lease.task_id + "/complete", body, {200});
    if (!hands_back) {
      const std::lock_guard lock(test_.ledger_.mutex);
      test_.ledger_.done[lease.task_id] = mark;
    }
    return claimed(answer.json()["next"]);
  }

  RegistryCrash& test_;
  const std::string name_;
  std::mt19937_64 random_;
  std::optional<RawClient> client_;
  int marks_ = 0;
};

void RegistryCrash::end_and_restart(int signal, std::mt19937_64& random) {
  const std::uint64_t until = acknowledged_ + random() % 150;
  ASSERT_TRUE(eventually([&] { return acknowledged_ >= until || !ledger_.wrong.empty(); }))
      << "the workers get no answers: " << stderr_text();
  const auto moment = std::chrono::steady_clock::now() + std::chrono::microseconds(random() % 5000);
  while (std::chrono::steady_clock::now() < moment) std::this_thread::yield();
  services_->signal(signal);
  gate_.open(false);
  EXPECT_EQ(services_->wait(nullptr, std::chrono::seconds{10}),
            signal == SIGTERM ? 0 : 128 + signal)
      << stderr_text();
  if (random() % 8 == 0) {  // also while it is starting
    begin_serving();
    ::poll(nullptr, 0, static_cast<int>(random() % 30));
    kill_registry();
  }
  ready_ms_.push_back(serve_registry().count());
  gate_.open(true);
}

/// Between two claims of a task there is an end; after its completion there is nothing.
void RegistryCrash::read_history(std::map<std::string, int>& completions,
                                 std::map<std::string, int>& marks) {
  static const std::set<std::string> kEnds = {"TaskCompleted", "TaskFailed", "TaskRetried",
                                              "TaskCancelled"};
  std::set<std::string> leased;
  std::map<std::string, std::int64_t> ids;
  std::int64_t before = 0;
  for (const Json& event : all_of("/events")) {
    const std::string task = event["task_id"].string_or("");
    const std::string type = event["event_type"].string_or("");
    const std::int64_t id = event["id"].as_int().value_or(0);
    EXPECT_GT(id, std::exchange(before, id));
    if (type == "TaskAssigned") {
      if (!leased.insert(task).second || completions.contains(task))
        ledger_.double_claims.push_back(task + " in the history");
    }
    if (kEnds.contains(type) || (type == "TaskReady" && event["data"].find("reason")))
      leased.erase(task);
    if (type == "TaskCompleted") ++completions[task];
    if (type == "Said") {
      const std::string mark = event["data"]["mark"].string_or("");
      ++marks[mark];
      const auto known = ledger_.events.find(mark);
      if (known != ledger_.events.end() && known->second != id) ++duplicates_;
    }
  }
}

void RegistryCrash::read_tasks(const std::map<std::string, int>& completions) {
  std::map<std::string, Json> tasks;
  std::map<std::string, int> in_spec;
  std::map<std::string, int> artifacts;
  for (Json& task : all_of("/tasks")) {
    ++in_spec[task["spec_name"].string_or("")];
    for (const Json& artifact : task["artifacts"].items())
      ++artifacts[artifact["uri"].string_or("")];
    tasks[task["id"].string_or("")] = std::move(task);
  }
  for (const std::string& spec : ledger_.specs) lost_ += in_spec[spec] == kTasksInSet ? 0 : 1;
  for (const std::string& uri : ledger_.artifacts) lost_ += artifacts[uri] == 0 ? 1 : 0;
  for (const auto& [uri, count] : artifacts) duplicates_ += count > 1 ? 1 : 0;
  for (const auto& [id, mark] : ledger_.done) {
    const Json& task = tasks[id];
    const bool kept = task["state"] == Json("done") && task["metadata"]["mark"] == Json(mark);
    lost_ += kept && completions.contains(id) ? 0 : 1;
  }
}

Json RegistryCrash::verdict() {
  std::map<std::string, int> completions;
  std::map<std::string, int> marks;
  read_history(completions, marks);
  for (const auto& [mark, id] : ledger_.events) lost_ += marks[mark] == 0 ? 1 : 0;
  for (const auto& [mark, count] : marks) duplicates_ += count > 1 ? 1 : 0;
  for (const auto& [task, count] : completions) duplicates_ += count > 1 ? 1 : 0;
  read_tasks(completions);
  std::sort(ready_ms_.begin(), ready_ms_.end());
  return Json::object({{"kills", ready_ms_.size()},
                       {"acknowledged", static_cast<std::int64_t>(acknowledged_)},
                       {"completed", ledger_.done.size()},
                       {"lost", lost_},
                       {"duplicates", duplicates_},
                       {"double_claims", ledger_.double_claims.size()},
                       {"wrong_answers", ledger_.wrong.size()},
                       {"ready_median_ms", ready_ms_[ready_ms_.size() / 2]},
                       {"ready_max_ms", ready_ms_.back()}});
}

Json RegistryCrash::end_under_workers(int signal, std::uint64_t times) {
  const std::uint64_t seed = from_environment("NECROCODE_CRASH_SEED", std::random_device{}());
  std::printf("NECROCODE_CRASH_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  serve_registry();
  {
    std::vector<std::jthread> workers;
    for (int number = 0; number < kWorkers; ++number) {
      workers.emplace_back(
          [this, number, begin = random()] { Worker(*this, number, begin).run(); });
    }
    try {
      for (std::uint64_t i = 1; i < times && !HasFailure(); ++i) end_and_restart(signal, random);
    } catch (const RunnerError& error) {
      ADD_FAILURE() << error.what();
    }
    giving_up_ = HasFailure();
    stopping_ = true;
    gate_.open(true);
  }
  kill_registry();  // what it still had in memory does not count
  ready_ms_.push_back(serve_registry().count());
  return verdict().set("seed", std::to_string(seed));
}

void RegistryCrash::expect_no_fault() const {
  EXPECT_THAT(ledger_.wrong, testing::IsEmpty());
  EXPECT_THAT(ledger_.double_claims, testing::IsEmpty());
  EXPECT_EQ(lost_, 0);
  EXPECT_EQ(duplicates_, 0);
  EXPECT_GT(ledger_.done.size(), ready_ms_.size());
}

TEST_F(RegistryCrash, KilledUnderWorkersThenWhatWasAcknowledgedIsThereOnce) {
  const Json told = end_under_workers(SIGKILL, from_environment("NECROCODE_CRASH_KILLS", 15));
  std::printf("crash: %s\n", told.dump().c_str());
  expect_no_fault();
}

TEST_F(RegistryCrash, AskedToEndUnderWorkersThenItIsGoneInTimeAndNothingIsLost) {
  end_under_workers(SIGTERM, 5);
  expect_no_fault();
}

}  // namespace
}  // namespace necrocode::test
