#include "service_host.hpp"

#include <vector>

#include "necrocode/artifacts/filesystem_store.hpp"
#include "necrocode/artifacts/service.hpp"
#include "necrocode/base/disk.hpp"
#include "necrocode/base/json_schema.hpp"
#include "necrocode/net/api.hpp"
#include "necrocode/net/http_metrics.hpp"
#include "necrocode/net/http_server.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/pool/pool_manager.hpp"
#include "necrocode/pool/service.hpp"
#include "necrocode/registry/service.hpp"
#include "necrocode/registry/sqlite_store.hpp"

namespace necrocode::app {
namespace {

constexpr const char* kPoolFolder = "pools";
constexpr const char* kArtifactFolder = "artifacts";

pool::PoolManagerOptions pool_options(const ServiceHostOptions& options) {
  pool::PoolManagerOptions pools;
  pools.data_dir = options.data_dir / kPoolFolder;
  pools.auto_create = options.config.pools_auto_create;
  pools.auto_num_slots = options.config.pools_num_slots;
  pools.auto_max_slots = options.config.pools_max_slots;
  return pools;
}

}  // namespace

std::filesystem::path registry_database(const std::filesystem::path& data_dir) {
  return data_dir / "registry.sqlite";
}

namespace {

registry::StoreOptions store_options(const config::Config& config) {
  registry::StoreOptions options;
  for (const auto& [skill, limit] : config.registry_max_running_by_skill.members()) {
    options.max_running_by_skill[skill] = static_cast<int>(limit.as_int().value_or(0));
  }
  return options;
}

registry::Retention retention(const config::Config& config) {
  const auto days = [](int count) {
    return count > 0 ? std::optional<std::chrono::milliseconds>(std::chrono::days(count))
                     : std::nullopt;
  };
  return {days(config.registry_keep_tasksets_days), days(config.registry_keep_events_days)};
}

}  // namespace

struct ServiceHost::State {
  // Destroyed in reverse: the server before the services whose routes it has.
  std::unique_ptr<registry::RegistryService> registry;
  std::unique_ptr<pool::PoolService> pools;
  std::unique_ptr<artifacts::ArtifactService> artifacts;
  metrics::Registry metrics;
  net::HttpServer server;

  const std::filesystem::path data_dir;
  const std::string public_url;  // empty: the address it listens on

  explicit State(const ServiceHostOptions& options)
      : server(server_options(options.listen)),
        data_dir(options.data_dir),
        public_url(options.public_url) {}

  net::Response health() {
    Json components = Json::object();
    bool ok = true;
    const auto add = [&](const char* name, auto& service, const std::filesystem::path& folder) {
      if (!service) return;
      std::string detail = disk_defect(folder).value_or("");
      const bool healthy = detail.empty() && service->healthy(detail);
      ok = ok && healthy;
      components.set(name, healthy ? Json("ok") : Json(detail));
    };
    add("registry", registry, data_dir);
    add("pool", pools, data_dir / kPoolFolder);
    add("artifacts", artifacts, data_dir / kArtifactFolder);
    return net::Response::json(
        ok ? 200 : 503,
        Json::object({{"status", ok ? "ok" : "failing"}, {"components", std::move(components)}}));
  }
};

ServiceHost::ServiceHost(const git::Git& git, ServiceHostOptions options)
    : state_(std::make_unique<State>(options)) {
  const auto serves = [&options](const char* name) {
    return options.only.empty() || options.only.contains(name);
  };
  std::filesystem::create_directories(options.data_dir);
  net::Api api(state_->server);
  if (serves("registry")) {
    state_->registry = std::make_unique<registry::RegistryService>(
        std::make_unique<registry::SqliteTaskStore>(registry_database(options.data_dir),
                                                    real_clock(), store_options(options.config)),
        real_clock(), retention(options.config));
    state_->registry->add_routes(api);
  }
  if (serves("pool")) {
    state_->pools = std::make_unique<pool::PoolService>(
        std::make_unique<pool::PoolManager>(git, pool_options(options)));
    state_->pools->add_routes(api);
  }
  if (serves("artifacts")) {
    state_->artifacts = std::make_unique<artifacts::ArtifactService>(
        std::make_unique<artifacts::FilesystemArtifactStore>(options.data_dir / kArtifactFolder),
        "");
    state_->artifacts->add_routes(api);
  }
  add_own_routes(api);
  state_->server.on_access(
      [count = net::HttpMetrics(state_->metrics)](const net::AccessRecord& record) mutable {
        count(record);
        log::debug(
            "request",
            {{"method", record.method},
             {"route", record.route},
             {"status", record.status},
             {"request_id", record.request_id},
             {"traceparent", record.traceparent},
             {"bytes_in", record.bytes_in},
             {"bytes_out", record.bytes_out},
             {"duration_ms", std::chrono::duration<double, std::milli>(record.duration).count()}});
      });
}

void ServiceHost::add_own_routes(net::Api& api) {
  State& state = *state_;
  const Json health = schema::object(
      {{"status", schema::choice({"ok", "failing"})}, {"components", schema::map(schema::text())}});
  api.begin_part("Server", "What the process tells of itself.");
  api.route({.method = "GET",
             .path = "/health",
             .id = "getHealth",
             .summary = "Whether each served part can work",
             .answers = {{200, health}, {503, health}}},
            [&state](const net::Request&) { return state.health(); }, {.priority = true});

  metrics::add_process_metrics(state.metrics);
  if (state.registry) state.registry->add_metrics(state.metrics);
  if (state.pools) state.pools->add_metrics(state.metrics);
  if (state.artifacts) state.artifacts->add_metrics(state.metrics);
  api.route({.method = "GET",
             .path = "/metrics",
             .id = "getMetrics",
             .summary = "Metrics in Prometheus' text format",
             .answers = {{200, schema::text(), {}, metrics::kTextType}}},
            [&state](const net::Request&) {
              return net::Response::text(200, state.metrics.text(), metrics::kTextType);
            });

  const auto document = std::make_shared<std::string>();
  api.route({.method = "GET",
             .path = "/openapi.json",
             .id = "getOpenapi",
             .summary = "This description",
             .answers = {{200, schema::free_object()}}},
            [document](const net::Request&) {
              return net::Response::text(200, *document, "application/json");
            });
  *document = api.document("necrocode", NECROCODE_VERSION).dump();
}

ServiceHost::~ServiceHost() {
  stop();
}

void ServiceHost::start() {
  state_->server.start();
  if (!state_->artifacts) return;
  state_->artifacts->set_public_url(state_->public_url.empty() ? state_->server.url()
                                                               : state_->public_url);
}

void ServiceHost::stop() {
  if (state_->registry) state_->registry->stop();
  if (state_->pools) state_->pools->stop();
  state_->server.stop();
}

std::string ServiceHost::url() const {
  return state_->server.url();
}

}  // namespace necrocode::app
