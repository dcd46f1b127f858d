// A claimant that is really stopped, past its lease: what it says afterwards changes no state.

#include "e2e/registry_process.hpp"

namespace necrocode::test {
namespace {

/// A process that claims a task, stops itself, and tries everything when it goes on.
class Claimant {
 public:
  Claimant(std::uint16_t port, const std::string& task_id) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw_errno("pipe");
    told_ = FileDescriptor(ends[0]);
    FileDescriptor tell(ends[1]);
    pid_ = ::fork();
    if (pid_ == 0) {
      live(port, task_id, tell.get());
      ::_exit(0);
    }
  }
  Claimant(const Claimant&) = delete;
  Claimant& operator=(const Claimant&) = delete;
  ~Claimant() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  bool wait_until_stopped() const {
    int status = 0;
    return ::waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status);
  }
  /// What it was answered, by what it tried.
  Json go_on() const {
    ::kill(pid_, SIGCONT);
    std::string text;
    char bytes[4096];
    for (ssize_t got; (got = ::read(told_.get(), bytes, sizeof bytes)) > 0;)
      text.append(bytes, static_cast<std::size_t>(got));
    return Json::try_parse(text).value_or(Json());
  }

 private:
  static void live(std::uint16_t port, const std::string& task_id, int tell) {
    RawClient client(port);
    const auto call = [&](std::string_view method, const std::string& target, const Json& body) {
      const std::string text = body.dump();
      return client.call(std::string(method) + " " + target + " HTTP/1.1\r\nHost: x\r\n" +
                         "Content-Type: application/json\r\nContent-Length: " +
                         std::to_string(text.size()) + "\r\n\r\n" + text);
    };
    const RawAnswer claimed =
        call("POST", "/tasks/claim", Json::object({{"task_id", task_id}, {"lease_seconds", 1}}));
    if (claimed.status != 200) return;
    const Json token = claimed.json()["tasks"].items().at(0)["lease_token"];
    ::raise(SIGSTOP);
    const auto with_token = [&](Json body) { return body.set("lease_token", token); };
    const std::string path = "/tasks/" + task_id;
    Json told = Json::object();
    const auto attempt = [&](const char* what, std::string_view method, const std::string& target,
                             Json body) {
      told.set(what, call(method, target, with_token(std::move(body))).status);
    };
    attempt("heartbeat", "POST", path + "/heartbeat", Json::object());
    attempt("event", "POST", path + "/events", Json::object({{"event_type", "Late"}}));
    attempt("artifact", "POST", path + "/artifacts",
            Json::object({{"type", "log"}, {"uri", "file:///late"}}));
    attempt("status", "PUT", path + "/status", Json::object({{"status", "failed"}}));
    for (const char* status : {"done", "failed", "cancelled", "ready"})
      attempt(status, "POST", path + "/complete", Json::object({{"status", status}}));
    attempt("claim_next", "POST", path + "/complete",
            Json::object({{"status", "done"}, {"claim_next", true}}));
    const Json lease = with_token(Json::object({{"task_id", task_id}}));
    told.set("heartbeats",
             call("POST", "/heartbeats", Json::object({{"leases", Json::Array{lease}}})).json());
    const std::string text = told.dump();
    [[maybe_unused]] const ssize_t written = ::write(tell, text.data(), text.size());
  }

  pid_t pid_ = -1;
  FileDescriptor told_;
};

class RegistryFence : public RegistryProcess {
 protected:
  Json task(const std::string& id) const { return call("GET", "/tasks/" + id).json(); }
  Json claim(const std::string& id) const {
    const RawAnswer answer = call("POST", "/tasks/claim", Json::object({{"task_id", id}}));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json()["tasks"].items().at(0);
  }
  int end(const Json& claimed, const char* status) const {
    return call("POST", "/tasks/" + claimed["id"].string_or("") + "/complete",
                Json::object({{"status", status}, {"lease_token", claimed["lease_token"]}}))
        .status;
  }
  static void expect_refused(const Json& told) {
    for (const char* what :
         {"heartbeat", "status", "done", "failed", "cancelled", "ready", "claim_next"}) {
      EXPECT_EQ(told[what], Json(409)) << what << told.dump();
    }
    EXPECT_NE(told["heartbeats"]["items"].items().at(0).find("error"), nullptr) << told.dump();
    EXPECT_EQ(told["event"], Json(201));
    EXPECT_EQ(told["artifact"], Json(201));
  }
  /// All but what late words may add.
  static Json settled(Json task) {
    for (const char* name : {"artifacts", "version", "updated_at"}) task.erase(name);
    return task;
  }
};

TEST_F(RegistryFence, ClaimantStoppedPastItsLeaseThenItsWordsChangeNoStateAndAreKept) {
  serve_registry();
  ASSERT_EQ(call("POST", "/tasksets", Json::parse(R"({"spec_name":"f","tasks":[
      {"id":"waiting","title":"a"},{"id":"running","title":"b"},{"id":"done","title":"c"},
      {"id":"failed","title":"d","max_attempts":1}]})"))
                .status,
            201);
  std::map<std::string, std::unique_ptr<Claimant>> claimants;
  for (const char* id : {"f:waiting", "f:running", "f:done", "f:failed"}) {
    claimants[id] = std::make_unique<Claimant>(port_, id);
    ASSERT_TRUE(claimants[id]->wait_until_stopped()) << id;
  }
  for (const auto& [id, claimant] : claimants)
    ASSERT_TRUE(eventually([&, &id = id] { return task(id)["state"] != Json("running"); })) << id;
  const Json next = claim("f:running");
  EXPECT_EQ(end(claim("f:done"), "done"), 200);
  EXPECT_EQ(task("f:failed")["state"], Json("failed"));

  for (const auto& [id, claimant] : claimants) {
    SCOPED_TRACE(id);
    const Json before = task(id);
    expect_refused(claimant->go_on());
    const Json after = task(id);
    EXPECT_EQ(settled(after), settled(before));
    ASSERT_EQ(after["artifacts"].size(), 1U) << after.dump();
    EXPECT_EQ(after["artifacts"].items().at(0)["attempt"], Json(1));
    int late = 0;
    for (const Json& event : call("GET", "/tasks/" + id + "/events").json()["items"].items()) {
      if (event["event_type"] != Json("Late")) continue;
      ++late;
      EXPECT_EQ(event["attempt"], Json(1));
    }
    EXPECT_EQ(late, 1);
  }
  EXPECT_EQ(end(next, "done"), 200) << "the next claimant's lease is still its own";
}

}  // namespace
}  // namespace necrocode::test
