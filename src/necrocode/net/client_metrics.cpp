#include "necrocode/net/client_metrics.hpp"

#include <functional>
#include <utility>

namespace necrocode::net {
namespace {

/// One value for each host that the client knows.
std::vector<metrics::Sample> by_host(HttpClient& client,
                                     const std::function<double(const HostGuard&)>& value) {
  std::vector<metrics::Sample> samples;
  for (const HostGuards::Entry& entry : client.hosts().all()) {
    samples.push_back({{{"host", entry.origin}}, value(*entry.guard)});
  }
  return samples;
}

}  // namespace

void ClientMetrics::operator()(const CallReport& report) const {
  const metrics::Labels operation = {{"service", report.service}, {"operation", report.operation}};
  metrics::Labels ended = operation;
  ended.emplace_back("end", report.end == CallEnd::kNone ? "success" : to_string(report.end));
  registry_->counter("necrocode_client_calls_total", "Calls that have ended.", ended).add();
  registry_
      ->counter("necrocode_client_attempts_total", "Attempts of those calls, retries included.",
                operation)
      .add(static_cast<std::uint64_t>(report.attempts));
  const metrics::Labels service = {{"service", report.service}};
  registry_
      ->histogram("necrocode_client_call_seconds",
                  "From a call's begin to its end, waits included.", metrics::call_seconds(),
                  service)
      .observe(std::chrono::duration<double>(report.duration).count());
  registry_
      ->counter("necrocode_client_received_bytes_total", "Bytes of answers' bodies, not streamed.",
                service)
      .add(report.bytes);
}

void add_host_metrics(metrics::Registry& registry, std::shared_ptr<HttpClient> client,
                      const Clock& clock) {
  registry.gauge(
      "necrocode_client_breaker_state", "1 of the state that the circuit breaker is in.",
      [client, &clock] {
        std::vector<metrics::Sample> samples;
        for (const HostGuards::Entry& entry : client->hosts().all()) {
          const BreakerState now = entry.guard->breaker.state(clock.steady_now());
          for (const BreakerState state :
               {BreakerState::kClosed, BreakerState::kOpen, BreakerState::kHalfOpen}) {
            samples.push_back({{{"host", entry.origin}, {"state", std::string(to_string(state))}},
                               state == now ? 1.0 : 0.0});
          }
        }
        return samples;
      });
  registry.counted("necrocode_client_breaker_opened_total", "How often it has opened.", [client] {
    return by_host(*client, [](const HostGuard& guard) {
      return static_cast<double>(guard.breaker.times_opened());
    });
  });
  registry.gauge("necrocode_client_retry_tokens", "What is left of the retry budget.",
                 [client, &clock] {
                   return by_host(*client, [&clock](const HostGuard& guard) {
                     return guard.budget.tokens(clock.steady_now());
                   });
                 });
}

}  // namespace necrocode::net
