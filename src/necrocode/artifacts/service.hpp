// ArtifactService: the Artifact Store's HTTP calls (SPEC section 3) over any ArtifactStore.
// It knows no files; bytes go from request to store and from store to answer in pieces.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "necrocode/artifacts/artifact_store.hpp"
#include "necrocode/artifacts/log_feeds.hpp"
#include "necrocode/net/api.hpp"
#include "necrocode/observe/metrics.hpp"

namespace necrocode::artifacts {

/// Thread-safe. Must outlive the server's stop().
class ArtifactService {
 public:
  /// `public_url`: what the uris of artifacts begin with, without a slash at the end. While it is
  /// empty, uris are paths.
  ArtifactService(std::unique_ptr<ArtifactStore> store, std::string public_url);

  /// Before the server's start().
  void add_routes(net::Api& api);
  /// necrocode_artifacts{type}, necrocode_artifact_bytes{type}, necrocode_artifact_stored_bytes,
  /// necrocode_artifact_open_logs.
  /// This must outlive the registry of metrics.
  void add_metrics(metrics::Registry& registry);
  /// For a server that learns its port when it binds; call it before announcing readiness.
  void set_public_url(std::string public_url);
  /// False, with the reason in `detail`, when the store cannot serve. Never throws.
  bool healthy(std::string& detail);

 private:
  net::Response create_from_form(const net::Request& request);
  net::Response create_from_body(const net::Request& request);
  net::Response list(const net::Request& request);
  net::Response usage(const net::Request& request);
  net::Response metadata(const net::Request& request);
  net::Response content(const net::Request& request);
  net::Response remove(const net::Request& request);
  net::Response change_tags(const net::Request& request);
  net::Response open_log(const net::Request& request);
  net::Response append(const net::Request& request);
  net::Response seal(const net::Request& request);
  net::Response follow(const Artifact& artifact, std::uint64_t offset,
                       std::optional<std::chrono::seconds> silence);

  std::uint64_t append_body(const net::Request& request);  ///< the log's size then
  void tend_logs(const std::stop_token& stop);

  net::Response created(const Artifact& artifact) const;
  Artifact must_find(const std::string& id) const;
  std::string public_url() const;
  std::string uri(const Artifact& artifact) const;
  Json to_json(const Artifact& artifact) const;

  const std::unique_ptr<ArtifactStore> store_;
  mutable std::mutex url_mutex_;
  std::string public_url_;
  LogFeeds feeds_;
  std::jthread tending_;  ///< last: it uses the others
};

}  // namespace necrocode::artifacts
