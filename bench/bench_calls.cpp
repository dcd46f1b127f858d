// bench_calls service|llm|stream URL CALLS IN_FLIGHT: what floor_http does, through necrocode's own
// clients: the ServiceCaller of the three service clients (GET URL/health), or LLMClient::chat or
// ::stream (URL is the endpoint). Prints the same line as floor_http; exits with 1 when a call
// fails. bench_calls cancel WAITERS: that many calls of a model that never answers, stopped at
// once; prints
// {"waiters","slowest_ms"}: until the last of them had returned.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "allocator.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/llm/client.hpp"
#include "necrocode/net/service_caller.hpp"

namespace {

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

std::function<void()> service_call(const std::string& url) {
  necrocode::net::ServiceOptions options;
  options.base_url = url;
  auto caller = std::make_shared<necrocode::net::ServiceCaller>("bench", std::move(options));
  return [caller] {
    necrocode::net::ServiceCall call;
    call.operation = "get";
    call.target = "bench";
    call.path = "/health";
    caller->call_json(call, {});
  };
}

std::shared_ptr<necrocode::LLMClient> model_client(const std::string& url) {
  necrocode::LLMConfig config;
  config.endpoint = url;
  config.model = "bench";
  return std::make_shared<necrocode::LLMClient>(std::move(config));
}

necrocode::ChatRequest question() {
  necrocode::ChatRequest request;
  request.messages.push_back({"user", "Say what you always say."});
  return request;
}

std::function<void()> model_call(const std::string& url) {
  return [client = model_client(url)] { client->chat(question()); };
}

std::function<void()> model_stream(const std::string& url) {
  return [client = model_client(url)] {
    std::size_t bytes = 0;
    const auto count = [&](const necrocode::llm::ChatDelta& delta) { bytes += delta.text.size(); };
    const std::size_t whole = client->stream(question(), count).content.size();
    if (bytes == 0 || bytes != whole) {
      throw necrocode::InvalidResponse("the pieces are not the answer");
    }
  };
}

/// A server that takes connections and requests, and says nothing.
class SilentServer {
 public:
  SilentServer() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_, any, size) != 0 || ::listen(listener_, 1024) != 0 ||
        ::getsockname(listener_, any, &size) != 0) {
      std::perror("bench_calls: listen");
      std::exit(1);
    }
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  ~SilentServer() {
    for (const int socket : connections_) ::close(socket);
    ::close(listener_);
  }
  const std::string& url() const { return url_; }
  /// Until `count` requests have begun, or no more come: then the others wait somewhere else.
  void take_requests(std::size_t count) {
    constexpr int kPatienceMs = 1000;
    pollfd ready{listener_, POLLIN, 0};
    while (connections_.size() < count && ::poll(&ready, 1, kPatienceMs) > 0) {
      connections_.push_back(::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
      pollfd request{connections_.back(), POLLIN, 0};
      ::poll(&request, 1, kPatienceMs);
    }
  }

 private:
  int listener_;
  std::string url_;
  std::vector<int> connections_;
};

/// Milliseconds from the stop until the last of the calls had returned.
double slowest_wake(std::size_t waiters) {
  using Clock = std::chrono::steady_clock;
  SilentServer server;
  const auto client = model_client(server.url());
  std::stop_source stop;
  std::vector<Clock::time_point> woken(waiters);
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < waiters; ++i) {
    threads.emplace_back([&, i] {
      necrocode::CallContext context;
      context.stop = stop.get_token();
      try {
        client->chat(question(), context);
      } catch (const necrocode::TimeoutError&) {
        woken[i] = Clock::now();
      }
    });
  }
  server.take_requests(waiters);
  const auto stopped = Clock::now();
  stop.request_stop();
  threads.clear();
  if (*std::min_element(woken.begin(), woken.end()) < stopped) {
    std::fputs("bench_calls: a call ended before it was stopped\n", stderr);
    std::exit(1);
  }
  const auto last = *std::max_element(woken.begin(), woken.end());
  return std::chrono::duration<double, std::milli>(last - stopped).count();
}

/// Calls from `threads` threads; how many went well.
long drive(const std::function<void()>& call, long calls, long threads) {
  std::atomic<long> begun{0};
  std::atomic<long> done{0};
  const auto work = [&] {
    try {
      while (begun.fetch_add(1) < calls) {
        call();
        done.fetch_add(1);
      }
    } catch (const necrocode::RunnerError& error) {
      std::fprintf(stderr, "bench_calls: %s\n", error.what());
    }
  };
  {
    std::vector<std::jthread> workers;
    for (long i = 0; i < threads; ++i) workers.emplace_back(work);
  }
  return done.load();
}

}  // namespace

int main(int argc, char** argv) {
  necrocode::app::give_back_freed_memory();  // as the shipped binary does
  if (argc == 3 && std::string(argv[1]) == "cancel") {
    const std::size_t waiters = std::strtoul(argv[2], nullptr, 10);
    std::printf("{\"waiters\":%zu,\"slowest_ms\":%.3f}\n", waiters, slowest_wake(waiters));
    return 0;
  }
  const std::string kind = argc == 5 ? argv[1] : "";
  if (kind != "service" && kind != "llm" && kind != "stream") {
    std::fputs("usage: bench_calls service|llm|stream URL CALLS IN_FLIGHT | cancel WAITERS\n",
               stderr);
    return 2;
  }
  const long calls = std::atol(argv[3]);
  const auto start = std::chrono::steady_clock::now();
  const auto make = kind == "service" ? service_call : kind == "llm" ? model_call : model_stream;
  const auto call = make(argv[2]);
  const long done = drive(call, calls, std::atol(argv[4]));
  const double wall =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("{\"calls\":%ld,\"cpu_seconds\":%.6f,\"wall_seconds\":%.6f,\"max_rss_kib\":%ld}\n",
              done, seconds(usage.ru_utime) + seconds(usage.ru_stime), wall, usage.ru_maxrss);
  return done == calls ? 0 : 1;
}
