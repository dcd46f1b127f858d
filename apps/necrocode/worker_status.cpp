#include "worker_status.hpp"

#include <utility>

#include "necrocode/net/client_metrics.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::app {

struct WorkerStatus::State {
  State(const ListenAddress& listen, std::shared_ptr<net::HttpClient> the_clients,
        std::stop_token the_stop)
      : clients(std::move(the_clients)),
        stopping(std::move(the_stop)),
        calls(metrics),
        model_calls(metrics),
        server(server_options(listen)) {}

  // A service that is out of reach is no reason to end the worker, which waits for it: it is told,
  // and the status stays 200.
  net::Response health() const {
    const bool stops = stopping.stop_requested();
    Json components = Json::object({{"worker", stops ? "draining" : "ok"}});
    const SteadyTime now = real_clock().steady_now();
    for (const auto& [origin, guard] : clients->hosts().all()) {
      const net::BreakerState breaker = guard->breaker.state(now);
      components.set(origin, breaker == net::BreakerState::kClosed
                                 ? "ok"
                                 : "circuit breaker " + std::string(to_string(breaker)));
    }
    return net::Response::json(stops ? 503 : 200,
                               Json::object({{"status", stops ? "failing" : "ok"},
                                             {"components", std::move(components)}}));
  }

  const std::shared_ptr<net::HttpClient> clients;
  const std::stop_token stopping;
  metrics::Registry metrics;
  const net::ClientMetrics calls;
  const llm::ModelMetrics model_calls;
  net::HttpServer server;
};

WorkerStatus::WorkerStatus(const ListenAddress& listen, std::shared_ptr<net::HttpClient> clients,
                           std::stop_token stopping)
    : state_(std::make_unique<State>(listen, std::move(clients), std::move(stopping))) {
  State& state = *state_;
  metrics::add_process_metrics(state.metrics);
  net::add_host_metrics(state.metrics, state.clients);
  state.server.route("GET", "/health", [&state](const net::Request&) { return state.health(); },
                     {.priority = true});
  state.server.route("GET", "/metrics", [&state](const net::Request&) {
    return net::Response::text(200, state.metrics.text(), metrics::kTextType);
  });
  state.server.start();
}

WorkerStatus::~WorkerStatus() = default;

std::string WorkerStatus::url() const {
  return state_->server.url();
}

void WorkerStatus::count(const net::CallReport& report) const {
  state_->calls(report);
}

void WorkerStatus::count(const llm::ModelCallReport& report) const {
  state_->model_calls(report);
}

}  // namespace necrocode::app
