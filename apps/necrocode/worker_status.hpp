// WorkerStatus: what a worker tells of itself over HTTP (`worker --health-listen`): /health for
// probes, /metrics. Read only; it decides nothing.
#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "listen_address.hpp"
#include "necrocode/llm/model_metrics.hpp"
#include "necrocode/net/service_caller.hpp"

namespace necrocode::app {

class WorkerStatus {
 public:
  /// Serves from now on. Throws ConfigError when the address cannot be bound, SecurityError for one
  /// that others can reach. `clients`: what the worker's clients send through; `stopping`: the
  /// worker's stop token.
  WorkerStatus(const ListenAddress& listen, std::shared_ptr<net::HttpClient> clients,
               std::stop_token stopping);
  ~WorkerStatus();

  std::string url() const;
  /// For the clients' ServiceOptions::on_call.
  void count(const net::CallReport& report) const;
  void count(const llm::ModelCallReport& report) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::app
