// HttpServerTest: a server with two small routes, and what its tests share.
#pragma once

#include <gmock/gmock.h>

#include <condition_variable>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>

#include "necrocode/net/http_server.hpp"
#include "support/memory_counts.hpp"
#include "support/raw_client.hpp"

namespace necrocode::net {

using namespace std::chrono_literals;
using test::RawAnswer;
using test::RawClient;

inline constexpr auto kPatience = 10s;

using test::kMemoryCounts;

// Lets one side wait for the other, with an end.
class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

inline std::string get(std::string_view target, std::string_view fields = "") {
  return "GET " + std::string(target) + " HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}
inline std::string post(std::string_view target, std::string_view body,
                        std::string_view fields = "") {
  return "POST " + std::string(target) +
         " HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
         std::string(fields) + "\r\n" + std::string(body);
}

inline std::size_t resident_bytes() {
  std::ifstream status("/proc/self/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  status >> total >> resident;
  return resident * 4096;
}

inline Response echo(const Request& request) {
  return Response::text(200, request.body);
}

class HttpServerTest : public testing::Test {
 protected:
  HttpServer& make(HttpServerOptions options = {}) {
    server_ = std::make_unique<HttpServer>(options);
    server_->route("POST", "/echo", echo);
    server_->route("GET", "/hello", [](const Request&) { return Response::text(200, "hello"); });
    return *server_;
  }
  HttpServer& start(HttpServerOptions options = {}) {
    make(options).start();
    return *server_;
  }
  RawClient connect() { return RawClient(server_->port()); }
  void TearDown() override {
    if (server_) server_->stop();
  }

  std::unique_ptr<HttpServer> server_;
};

inline const std::string kPost = "POST /echo HTTP/1.1\r\nHost: a\r\n";

}  // namespace necrocode::net
