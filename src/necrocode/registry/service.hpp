// RegistryService: the Task Registry's HTTP calls (SPEC section 3) over a TaskStore. Reads
// requests, answers, lets claims wait; no SQL and no rule about states here.
#pragma once

#include <memory>
#include <string>

#include "necrocode/base/clock.hpp"
#include "necrocode/net/api.hpp"
#include "necrocode/observe/metrics.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

/// Has a thread that ends leases when they are due and serves waiting claims, and one that removes
/// what is too old, once an hour; both sleep in between. Thread-safe.
class RegistryService {
 public:
  explicit RegistryService(std::unique_ptr<TaskStore> store, const Clock& clock = real_clock(),
                           const Retention& retention = {});
  /// stop(); the server whose routes this has must have stopped before.
  ~RegistryService();
  RegistryService(const RegistryService&) = delete;
  RegistryService& operator=(const RegistryService&) = delete;

  void add_routes(net::Api& api);
  /// necrocode_tasks{state}. This must outlive the registry of metrics.
  void add_metrics(metrics::Registry& registry);
  /// False, with the reason in `detail`, when the store cannot work. Never throws.
  bool healthy(std::string& detail);
  /// Waiting claims are no longer served, leases no longer ended, nothing removed. Safe to call
  /// twice.
  void stop();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace necrocode::registry
