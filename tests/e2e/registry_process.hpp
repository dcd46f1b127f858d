// The task registry as a process of its own, which may be killed and started again on the same
// folder and port, also under strace.
#pragma once

#include "e2e/fixture.hpp"
#include "support/raw_client.hpp"

namespace necrocode::test {

class RegistryProcess : public EndToEnd {
 protected:
  /// Starts it and waits until it is ready; how long that took. The first start takes a free port,
  /// the later ones the same again.
  std::chrono::duration<double, std::milli> serve_registry(std::vector<std::string> under = {}) {
    const auto begin = std::chrono::steady_clock::now();
    begin_serving(std::move(under));
    const std::string line = services_->read_line().value_or("");
    const auto took = std::chrono::steady_clock::now() - begin;
    const auto url = net::Url::parse(Json::try_parse(line).value_or(Json())["url"].string_or(""));
    if (!url) throw StorageError("the registry did not start: " + stderr_text());
    port_ = static_cast<std::uint16_t>(url->port);
    return took;
  }
  void begin_serving(std::vector<std::string> under = {}) {
    std::vector<std::string> argv = std::move(under);
    for (const std::string& word :
         {std::string(NECROCODE_BINARY), std::string("serve"), std::string("--only"),
          std::string("registry"), std::string("--listen"), "127.0.0.1:" + std::to_string(port_),
          std::string("--data"), path("services").string()}) {
      argv.push_back(word);
    }
    services_ = std::make_unique<Program>(argv, environment(), path("stderr"));
  }
  /// strace that watches the registry from aside: services_ is still the registry itself.
  std::vector<std::string> tracer(std::vector<std::string> options) {
    extra_env_.push_back("ASAN_OPTIONS=detect_leaks=0");  // which needs the tracing for itself
    std::vector<std::string> argv = {"strace", "-D", "-f", "--seccomp-bpf", "-qq", "-y",
                                     "-s",     "48", "-o", trace(),         "-e",  "signal=none"};
    argv.insert(argv.end(), options.begin(), options.end());
    return argv;
  }
  std::string trace() const { return path("trace").string(); }
  /// False where the kernel lets nobody trace; that strace is missing is a failure.
  static bool can_trace() {
    EXPECT_EQ(std::system("strace -V >/dev/null 2>&1"), 0) << "scripts/bootstrap installs strace";
    static const bool can =
        std::system("strace -f --seccomp-bpf -qq -o /dev/null true >/dev/null 2>&1") == 0;
    return can;
  }

  /// As at a loss of power, but for the page cache.
  void kill_registry() {
    services_->signal(SIGKILL);
    services_->wait();
  }

  static std::string request(std::string_view method, std::string_view target,
                             const std::string& body = "", std::string_view key = "") {
    std::string text = std::string(method) + " " + std::string(target) + " HTTP/1.1\r\nHost: x\r\n";
    if (!key.empty()) text += "Idempotency-Key: " + std::string(key) + "\r\n";
    if (method != "GET") {
      text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n";
    }
    return text + "\r\n" + body;
  }
  /// On a connection of its own.
  RawAnswer call(std::string_view method, std::string_view target, const Json& body = {},
                 std::string_view key = "") const {
    return RawClient(port_).call(request(method, target, body.is_null() ? "" : body.dump(), key));
  }
  /// All items of a listing, page for page.
  std::vector<Json> all_of(const std::string& listing) const {
    std::vector<Json> items;
    std::string cursor;
    do {
      const Json page =
          call("GET", listing + "?limit=1000" + (cursor.empty() ? "" : "&cursor=" + cursor)).json();
      EXPECT_TRUE(page["items"].is_array()) << page.dump();
      for (const Json& item : page["items"].items()) items.push_back(item);
      cursor = page["next_cursor"].string_or("");
    } while (!cursor.empty());
    return items;
  }
  /// One taskset of `count` ready tasks: its answer's status.
  int submit(const std::string& spec, int count) const {
    Json::Array tasks;
    for (int i = 1; i <= count; ++i) {
      tasks.push_back(Json::object({{"id", std::to_string(i)}, {"title", "one of many"}}));
    }
    return call("POST", "/tasksets",
                Json::object({{"spec_name", spec}, {"tasks", Json(std::move(tasks))}}))
        .status;
  }

  std::uint16_t port_ = 0;
};

}  // namespace necrocode::test
