// What the task registry asks of the kernel between a request and its answer.
#include <fstream>

#include "e2e/registry_process.hpp"

namespace necrocode::test {
namespace {

/// A system call of the trace; one that was interrupted by another thread's is put together again.
struct SystemCall {
  std::string name;
  std::string text;  ///< from its first argument on
  bool begins = false;
  bool ends = false;
  bool succeeded() const {
    const std::size_t result = text.rfind("= ");
    return ends && result != std::string::npos && text[result + 2] != '-';
  }
  bool is_of(std::string_view file) const { return text.find(file) < text.find('>'); }
  bool says(std::string_view words) const { return text.find(words) != std::string::npos; }
  std::string descriptor() const { return text.substr(0, text.find('<')); }
};

/// In order; an interrupted call twice: where it begins, and whole where it ends.
std::vector<SystemCall> read_trace(const std::string& file) {
  constexpr std::string_view kUnfinished = " <unfinished ...>";
  constexpr std::string_view kResumed = " resumed>";
  std::vector<SystemCall> calls;
  std::map<std::string, SystemCall> interrupted;  // by thread
  std::ifstream trace(file);
  for (std::string line; std::getline(trace, line);) {
    const std::size_t space = line.find(' ');
    const std::string thread = line.substr(0, space);
    const std::string said(trim(line.substr(space)));
    if (const std::size_t resumed = said.find(kResumed); said.starts_with("<... ")) {
      SystemCall whole = std::exchange(interrupted[thread], {});
      whole.text += said.substr(resumed + kResumed.size());
      whole.ends = true;
      whole.begins = false;
      calls.push_back(std::move(whole));
      continue;
    }
    const std::size_t open = said.find('(');
    if (open == std::string::npos) continue;
    SystemCall call{said.substr(0, open), said.substr(open + 1), true, true};
    if (const std::size_t cut = call.text.find(kUnfinished); cut != std::string::npos) {
      call.text.resize(cut);
      call.ends = false;
      interrupted[thread] = call;
    }
    calls.push_back(std::move(call));
  }
  return calls;
}

class RegistryTrace : public RegistryProcess {
 protected:
  void change(std::string_view method, const std::string& target, const Json& body, int expected) {
    const RawAnswer answer = call(method, target, body);
    EXPECT_EQ(answer.status, expected) << method << " " << target << " " << answer.body;
    last_ = answer.json();
    ++changes_;
  }
  Json claim() {
    change("POST", "/tasks/claim", Json::object({{"runner_id", "one"}}), 200);
    return last_["tasks"].items().at(0);
  }
  static Json with(const Json& task, Json body) {
    return body.set("lease_token", task["lease_token"]);
  }
  void change_everything() {
    const auto tasks = Json::parse(R"({"spec_name":"t","tasks":[{"id":"1","title":"a"},
        {"id":"2","title":"b"},{"id":"3","title":"c"},{"id":"4","title":"d"}]})");
    change("POST", "/tasksets", tasks, 201);
    const Json one = claim();
    change("POST", "/tasks/t:1/events", with(one, Json::object({{"event_type", "Said"}})), 201);
    change("POST", "/tasks/t:1/artifacts",
           with(one, Json::object({{"type", "log"}, {"uri", "file:///log"}})), 201);
    change("POST", "/tasks/t:1/complete",
           with(one, Json::object({{"status", "done"}, {"claim_next", true}})), 200);
    const Json two = last_["next"];
    change("PUT", "/tasks/t:2/status", with(two, Json::object({{"status", "failed"}})), 200);
    change("POST", "/tasks/t:2/retry", Json::object(), 200);
    change("POST", "/tasks/t:3/cancel", Json::object(), 200);
    change("POST", "/tasks/t:2/complete", with(claim(), Json::object({{"status", "done"}})), 200);
  }

  Json last_;
  int changes_ = 0;
};

TEST_F(RegistryTrace, AcknowledgementThenWhatItSaysWasSyncedBefore) {
  if (!can_trace()) GTEST_SKIP() << "nothing may be traced here";
  serve_registry(tracer({"-e",
                         "trace=fsync,fdatasync,pwrite64,pwritev,write,sendmsg,sendto,writev,"
                         "recvmsg,recvfrom,read,readv"}));
  change_everything();
  services_->signal(SIGTERM);
  services_->wait();

  const std::string log = "registry.sqlite-wal>";
  std::map<std::string, bool> asked;  // connections with a change under way: whether it was written
  int answers = 0;
  int unsynced_writes = 0;
  for (const SystemCall& call : read_trace(trace())) {
    const bool to_log = call.name.starts_with("pwrite") && call.is_of(log);
    if (to_log && call.begins) {
      ++unsynced_writes;
      for (auto& [connection, written] : asked) written = true;
    }
    if (call.name.ends_with("sync") && call.is_of(log) && call.succeeded()) unsynced_writes = 0;
    if (call.name.starts_with("recv") && call.ends &&
        (call.says("\"POST /") || call.says("\"PUT /")))
      asked[call.descriptor()] = false;
    const auto connection = asked.find(call.descriptor());
    if (!call.name.starts_with("send") || !call.begins || connection == asked.end()) continue;
    EXPECT_TRUE(call.says("HTTP/1.1 20")) << call.text;
    EXPECT_TRUE(connection->second) << "answered before it was written: " << call.text;
    EXPECT_EQ(unsynced_writes, 0) << "answered before it was synced: " << call.text;
    asked.erase(connection);
    ++answers;
  }
  EXPECT_EQ(answers, changes_) << "not all answers were found in the trace";
  std::printf("trace: {\"answers\":%d}\n", answers);
}

}  // namespace
}  // namespace necrocode::test
