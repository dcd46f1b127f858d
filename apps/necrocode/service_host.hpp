// ServiceHost: the three services on one address in this process (`serve`, `demo`).
#pragma once

#include <filesystem>
#include <memory>
#include <set>
#include <string>

#include "listen_address.hpp"
#include "necrocode/config/config.hpp"
#include "necrocode/git/repository.hpp"

namespace necrocode::net {
class Api;
}

namespace necrocode::app {

/// Where the registry of a data folder stands.
std::filesystem::path registry_database(const std::filesystem::path& data_dir);

struct ServiceHostOptions {
  ListenAddress listen{"127.0.0.1", 0};
  std::filesystem::path data_dir;
  std::string public_url;      ///< of artifacts' uris; empty: the address it listens on
  std::set<std::string> only;  ///< of registry, pool, artifacts; empty: all
  config::Config config;
};

class ServiceHost {
 public:
  /// Opens the stores. Throws ResourceConflictError when another process serves them, StorageError
  /// when they are newer than this program, SecurityError for an address that others can reach.
  ServiceHost(const git::Git& git, ServiceHostOptions options);
  ~ServiceHost();  ///< stop()
  void start();
  void stop();
  std::string url() const;

 private:
  struct State;
  void add_own_routes(net::Api& api);
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::app
