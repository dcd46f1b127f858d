// docs/clients.md says what each method of the service clients sends, and how it fares under
// faults: here each is called, and the table is held against what came over the wire.
#include <gmock/gmock.h>

#include <map>
#include <regex>
#include <set>

#include "necrocode/artifacts/client.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/outbox/outbox.hpp"
#include "necrocode/pool/client.hpp"
#include "necrocode/registry/client.hpp"
#include "support/raw_server.hpp"

namespace necrocode::test {
namespace {

using namespace std::chrono_literals;

struct Row {
  std::string client, method, request, idempotent, kept;
};

std::vector<Row> read_table() {
  const std::string text =
      read_file(std::string(NECROCODE_SOURCE_DIR) + "/docs/clients.md", limits::kMiB);
  std::vector<Row> rows;
  for (const std::string_view line : split(text, '\n')) {
    const auto cells = split(line, '|');
    if (cells.size() != 7 || trim(cells[2]).size() < 3 || trim(cells[2]).front() != '`') continue;
    const auto plain = [](std::string_view cell) {
      cell = trim(cell);
      return std::string(cell.front() == '`' ? cell.substr(1, cell.size() - 2) : cell);
    };
    rows.push_back(
        {plain(cells[1]), plain(cells[2]), plain(cells[3]), plain(cells[4]), plain(cells[5])});
  }
  return rows;
}

struct Clients {
  TaskRegistryClient registry;
  RepoPoolClient pool;
  ArtifactStoreClient artifacts;
};
using Call = std::function<void(Clients&)>;

const std::map<std::string, Call>& calls() {
  static const LeaseToken token{"t"};
  static const std::vector<registry::LeaseRef> leases = {{"a:1", token}};
  static const Json taskset = Json::object({{"spec_name", "a"}});
  static const std::map<std::string, Call> all = {
      {"registry update_task_status",
       [](Clients& c) { c.registry.update_task_status("a:1", "done"); }},
      {"registry add_event", [](Clients& c) { c.registry.add_event("a:1", "E"); }},
      {"registry add_artifact", [](Clients& c) { c.registry.add_artifact("a:1", "log", "u"); }},
      {"registry complete", [](Clients& c) { c.registry.complete("a:1", {}); }},
      {"registry complete_or_keep", [](Clients& c) { c.registry.complete_or_keep("a:1", {}); }},
      {"registry submit", [](Clients& c) { c.registry.submit(taskset); }},
      {"registry claim", [](Clients& c) { c.registry.claim({}); }},
      {"registry heartbeat", [](Clients& c) { c.registry.heartbeat("a:1", token); }},
      {"registry heartbeats", [](Clients& c) { c.registry.heartbeats(leases); }},
      {"registry cancel", [](Clients& c) { c.registry.cancel("a:1"); }},
      {"registry retry", [](Clients& c) { c.registry.retry("a:1"); }},
      {"registry patch", [](Clients& c) { c.registry.patch("a:1", Json::object()); }},
      {"registry park", [](Clients& c) { c.registry.park("p", from_unix_ms(0)); }},
      {"registry unpark", [](Clients& c) { c.registry.unpark("p"); }},
      {"registry explain", [](Clients& c) { c.registry.explain("a:1"); }},
      {"registry attempts", [](Clients& c) { c.registry.attempts("a:1"); }},
      {"registry parked_providers", [](Clients& c) { c.registry.parked_providers(); }},
      {"registry get_task", [](Clients& c) { c.registry.get_task("a:1"); }},
      {"registry list", [](Clients& c) { c.registry.list(); }},
      {"registry events", [](Clients& c) { c.registry.events({.task_id = "a:1"}); }},
      {"registry watch",
       [](Clients& c) {
         c.registry.watch({.task_id = "a:1"}, [](const registry::Event&) { return false; });
       }},
      {"registry get_taskset", [](Clients& c) { c.registry.get_taskset("a"); }},
      {"registry list_tasksets", [](Clients& c) { c.registry.list_tasksets(); }},
      {"registry graph", [](Clients& c) { c.registry.graph("a"); }},
      {"pool allocate_slot", [](Clients& c) { c.pool.allocate_slot("file:///r", "me", 0); }},
      {"pool release_slot", [](Clients& c) { c.pool.release_slot(SlotId{"a-1.1"}); }},
      {"pool heartbeat", [](Clients& c) { c.pool.heartbeat(SlotId{"a-1.1"}, token); }},
      {"pool get_slot_status", [](Clients& c) { c.pool.get_slot_status(SlotId{"a-1.1"}); }},
      {"pool add_pool", [](Clients& c) { c.pool.add_pool({}); }},
      {"pool list_pools", [](Clients& c) { c.pool.list_pools(); }},
      {"pool get_pool", [](Clients& c) { c.pool.get_pool("a"); }},
      {"pool warm", [](Clients& c) { c.pool.warm("a"); }},
      {"pool remove_pool", [](Clients& c) { c.pool.remove_pool("a"); }},
      {"artifacts upload", [](Clients& c) { c.artifacts.upload("log", "x"); }},
      {"artifacts download", [](Clients& c) { c.artifacts.download("/artifacts/a"); }},
      {"artifacts download_part",
       [](Clients& c) { c.artifacts.download_part("/artifacts/a", 0, 1); }},
      {"artifacts get_metadata", [](Clients& c) { c.artifacts.get_metadata("/artifacts/a"); }},
      {"artifacts list", [](Clients& c) { c.artifacts.list(); }},
      {"artifacts remove", [](Clients& c) { c.artifacts.remove("a"); }},
      {"artifacts open_log", [](Clients& c) { c.artifacts.open_log("log"); }},
      {"artifacts append_log", [](Clients& c) { c.artifacts.append_log("/artifacts/a", 0, "x"); }},
      {"artifacts seal_log", [](Clients& c) { c.artifacts.seal_log("/artifacts/a", 1); }},
      {"artifacts follow",
       [](Clients& c) {
         c.artifacts.follow("/artifacts/a", [](std::string_view) { return true; });
       }},
  };
  return all;
}

std::regex path_pattern(const std::string& request) {
  return std::regex(std::regex_replace(request, std::regex(R"(\{[a-z]+\})"), "[^/?]+") +
                    R"((\?.*)?)");
}

class ClientTable : public testing::Test {
 protected:
  ClientTable() : server_(plays({answer(503, "not now")})) {}

  Clients clients(int retries, std::shared_ptr<net::CallSpool> spool = {}) const {
    const auto options = [&] {
      net::ServiceOptions one;
      one.base_url = server_.url("");
      one.retry.retries = retries;
      one.retry.base = 0ms;
      one.http = net::make_curl_http_client();  // whose budget is its own
      one.spool = spool;
      return one;
    };
    return {TaskRegistryClient(options()), RepoPoolClient(options()),
            ArtifactStoreClient(options())};
  }

  RawServer server_;
};

TEST_F(ClientTable, HasEachMethodOnce) {
  std::set<std::string> names;
  for (const Row& row : read_table()) {
    if (row.client == "all") continue;
    EXPECT_TRUE(names.insert(row.client + " " + row.method).second) << row.method;
  }
  std::set<std::string> called;
  for (const auto& [name, call] : calls()) called.insert(name);
  EXPECT_EQ(names, called);
}

TEST_F(ClientTable, EachMethodSendsWhatTheTableSaysAndIsTriedAgain) {
  for (const Row& row : read_table()) {
    if (row.client == "all") continue;
    const std::size_t before = server_.requests().size();
    Clients own = clients(1);
    EXPECT_THROW(calls().at(row.client + " " + row.method)(own), Unavailable) << row.method;
    const auto requests = server_.requests();
    ASSERT_EQ(requests.size(), before + 2) << row.method;
    const RecordedRequest& first = requests[before];
    const std::string sent = first.method + " " + first.target;
    EXPECT_TRUE(std::regex_match(sent, path_pattern(row.request))) << row.method << ": " << sent;
    const bool reads = first.method == "GET";
    EXPECT_EQ(row.idempotent == "reads", reads) << row.method;
    EXPECT_EQ(first.headers.count("Idempotency-Key"), reads ? 0U : 1U) << row.method;
    EXPECT_EQ(first.headers.get("Idempotency-Key"),
              requests[before + 1].headers.get("Idempotency-Key"))
        << row.method;
  }
}

TEST_F(ClientTable, ExactlyTheMethodsThatTheTableNamesAreKept) {
  for (const Row& row : read_table()) {
    if (row.client == "all") continue;
    TemporaryDirectory folder;
    const auto box = std::make_shared<outbox::Outbox>(folder.path());
    Clients own = clients(0, box);
    const Call& call = calls().at(row.client + " " + row.method);
    if (row.kept == "yes") {
      EXPECT_NO_THROW(call(own)) << row.method;
    } else {
      EXPECT_EQ(row.kept, "no") << row.method;
      EXPECT_THROW(call(own), Unavailable) << row.method;
    }
    EXPECT_EQ(box->status().kept, row.kept == "yes" ? 1U : 0U) << row.method;
  }
}

}  // namespace
}  // namespace necrocode::test
