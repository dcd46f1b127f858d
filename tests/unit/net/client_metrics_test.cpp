#include "necrocode/net/client_metrics.hpp"

#include <gmock/gmock.h>

#include "http_client_fixture.hpp"
#include "support/fake_clock.hpp"

namespace necrocode::net {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ClientMetrics, CountsCallsAttemptsAndHowTheyEnd) {
  metrics::Registry registry;
  const ClientMetrics metrics(registry);
  CallReport report;
  report.service = "task-registry";
  report.operation = "claim";
  report.attempts = 1;
  report.duration = 20ms;
  report.bytes = 100;
  metrics(report);
  report.attempts = 4;
  report.end = CallEnd::kExhausted;
  metrics(report);
  const std::string text = registry.text();
  const std::string claim = R"(service="task-registry",operation="claim")";
  EXPECT_THAT(text, HasSubstr("necrocode_client_calls_total{" + claim + ",end=\"success\"} 1"));
  EXPECT_THAT(text, HasSubstr("necrocode_client_calls_total{" + claim + ",end=\"" +
                              std::string(to_string(CallEnd::kExhausted)) + "\"} 1"));
  EXPECT_THAT(text, HasSubstr("necrocode_client_attempts_total{" + claim + "} 5"));
  EXPECT_THAT(text, HasSubstr(R"(necrocode_client_call_seconds_count{service="task-registry"} 2)"));
  EXPECT_THAT(text,
              HasSubstr(R"(necrocode_client_received_bytes_total{service="task-registry"} 200)"));
}

TEST(HostMetrics, TellTheBreakersStateAndTheBudget) {
  test::FakeClock clock;
  metrics::Registry registry;
  const std::shared_ptr<HttpClient> client = make_curl_http_client();
  add_host_metrics(registry, client, clock);
  EXPECT_THAT(registry.text(), Not(HasSubstr("host=")));
  const auto guard = client->hosts().of("http://127.0.0.1:9/path");
  const std::string state = R"(necrocode_client_breaker_state{host="http://127.0.0.1:9",state=")";
  EXPECT_THAT(registry.text(), HasSubstr(state + "closed\"} 1"));
  for (std::size_t i = 0; i < limits::kBreakerFailures; ++i) {
    if (auto admission = guard->breaker.admit(clock.steady_now()); admission.attempt) {
      admission.attempt->failed(clock.steady_now());
    }
    clock.advance(limits::kBreakerSpan);
  }
  guard->budget.withdraw(clock.steady_now());
  const std::string text = registry.text();
  EXPECT_THAT(text, Not(HasSubstr(state + "closed\"} 1")));
  EXPECT_THAT(text,
              HasSubstr(R"(necrocode_client_breaker_opened_total{host="http://127.0.0.1:9"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(necrocode_client_retry_tokens{host="http://127.0.0.1:9"})"));
}

}  // namespace
}  // namespace necrocode::net
