// HttpMetrics: what an HTTP server's access records come to, as metrics. Labels are routes, methods
// and statuses, never a path, so that no client can make series.
#pragma once

#include <memory>

#include "necrocode/net/http_server.hpp"
#include "necrocode/observe/metrics.hpp"

namespace necrocode::net {

/// For HttpServer::on_access(). Copies share their numbers; `registry` lives longer.
class HttpMetrics {
 public:
  /// necrocode_http_requests_total{method,route,status}, necrocode_http_request_seconds{route},
  /// necrocode_http_received_bytes_total, necrocode_http_sent_bytes_total. A request without a
  /// route has the route "none".
  explicit HttpMetrics(metrics::Registry& registry);
  void operator()(const AccessRecord& record);

 private:
  metrics::Registry* registry_;
  metrics::Counter* received_;
  metrics::Counter* sent_;
};

}  // namespace necrocode::net
