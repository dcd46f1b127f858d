// bench_calls service|llm URL CALLS IN_FLIGHT: what floor_http does, through necrocode's own
// clients: the ServiceCaller of the three service clients (GET URL/health), or LLMClient::chat (URL
// is the endpoint). Prints the same line as floor_http; exits with 1 when a call fails.
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/memory.hpp"
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

std::function<void()> model_call(const std::string& url) {
  necrocode::LLMConfig config;
  config.endpoint = url;
  config.model = "bench";
  auto client = std::make_shared<necrocode::LLMClient>(std::move(config));
  return [client] {
    necrocode::ChatRequest request;
    request.messages.push_back({"user", "Say what you always say."});
    client->chat(request);
  };
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
  necrocode::keep_freed_memory();  // as the shipped binary does
  const std::string kind = argc == 5 ? argv[1] : "";
  if (kind != "service" && kind != "llm") {
    std::fputs("usage: bench_calls service|llm URL CALLS IN_FLIGHT\n", stderr);
    return 2;
  }
  const long calls = std::atol(argv[3]);
  const auto start = std::chrono::steady_clock::now();
  const auto call = kind == "llm" ? model_call(argv[2]) : service_call(argv[2]);
  const long done = drive(call, calls, std::atol(argv[4]));
  const double wall =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("{\"calls\":%ld,\"cpu_seconds\":%.6f,\"wall_seconds\":%.6f,\"max_rss_kib\":%ld}\n",
              done, seconds(usage.ru_utime) + seconds(usage.ru_stime), wall, usage.ru_maxrss);
  return done == calls ? 0 : 1;
}
