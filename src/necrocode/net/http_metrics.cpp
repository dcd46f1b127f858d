#include "necrocode/net/http_metrics.hpp"

#include <algorithm>
#include <array>

namespace necrocode::net {
namespace {

/// A client may send any word as its method.
std::string known_method(const std::string& method) {
  static constexpr std::array kMethods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"};
  return std::find(kMethods.begin(), kMethods.end(), method) != kMethods.end() ? method : "other";
}

}  // namespace

HttpMetrics::HttpMetrics(metrics::Registry& registry)
    : registry_(&registry),
      received_(&registry.counter("necrocode_http_received_bytes_total",
                                  "Bytes of requests, heads included.")),
      sent_(&registry.counter("necrocode_http_sent_bytes_total",
                              "Bytes of answers, heads included.")) {}

void HttpMetrics::operator()(const AccessRecord& record) {
  const std::string route = record.route.empty() ? "none" : record.route;
  registry_
      ->counter("necrocode_http_requests_total",
                "Requests that were answered; status 499: the client was gone.",
                {{"method", known_method(record.method)},
                 {"route", route},
                 {"status", std::to_string(record.status)}})
      .add();
  registry_
      ->histogram("necrocode_http_request_seconds",
                  "From the head's first byte to the answer's last.", metrics::call_seconds(),
                  {{"route", route}})
      .observe(std::chrono::duration<double>(record.duration).count());
  received_->add(record.bytes_in);
  sent_->add(record.bytes_out);
}

}  // namespace necrocode::net
