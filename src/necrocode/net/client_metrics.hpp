// What a process's clients tell about their calls and about the hosts they talk to.
#pragma once

#include <memory>

#include "necrocode/base/clock.hpp"
#include "necrocode/net/http_client.hpp"
#include "necrocode/net/service_caller.hpp"
#include "necrocode/observe/metrics.hpp"

namespace necrocode::net {

/// For ServiceOptions::on_call. Copies share their numbers; `registry` lives longer.
class ClientMetrics {
 public:
  /// necrocode_client_calls_total{service,operation,end} (end: success, or CallEnd's word),
  /// necrocode_client_attempts_total{service,operation}, necrocode_client_call_seconds{service},
  /// necrocode_client_received_bytes_total{service}.
  explicit ClientMetrics(metrics::Registry& registry) : registry_(&registry) {}
  void operator()(const CallReport& report) const;

 private:
  metrics::Registry* registry_;
};

/// necrocode_client_breaker_state{host,state} (1 of the state that it is in),
/// necrocode_client_breaker_opened_total{host}, necrocode_client_retry_tokens{host}.
void add_host_metrics(metrics::Registry& registry, std::shared_ptr<HttpClient> client,
                      const Clock& clock = real_clock());

}  // namespace necrocode::net
