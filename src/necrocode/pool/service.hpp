// The Repo Pool Manager's HTTP routes (SPEC section 3): requests read and checked, answers written.
// What they mean is PoolManager's.
#pragma once

#include <memory>
#include <string>

#include "necrocode/net/api.hpp"
#include "necrocode/observe/metrics.hpp"
#include "necrocode/pool/pool_manager.hpp"

namespace necrocode::pool {

/// Thread-safe. Outlives the server it adds routes to; stop() the service first, so that waiting
/// requests are answered, then the server.
class PoolService {
 public:
  explicit PoolService(std::unique_ptr<PoolManager> manager);
  ~PoolService();

  /// /slots/… and /pools/…; before the server's start().
  void add_routes(net::Api& api);
  /// necrocode_slots{pool,state}. This must outlive the registry of metrics.
  void add_metrics(metrics::Registry& registry);
  /// For the `pool` part of /health.
  bool healthy(std::string& detail) const;
  /// Waiting requests get 503; leases stay.
  void stop();

  PoolManager& manager() { return *manager_; }

 private:
  net::Response allocate(const net::Request& request);
  net::Response release(const net::Request& request);
  net::Response heartbeat(const net::Request& request);
  net::Response slot(const net::Request& request);
  net::Response pools(const net::Request& request);
  net::Response pool(const net::Request& request);
  net::Response create_pool(const net::Request& request);
  net::Response remove_pool(const net::Request& request);
  net::Response warm(const net::Request& request);
  std::unique_ptr<PoolManager> manager_;
};

}  // namespace necrocode::pool
