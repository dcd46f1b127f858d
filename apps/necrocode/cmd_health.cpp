// necrocode health: asks every configured service once.
#include "commands.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

CommonOptions common;
bool with_model = false;

int run() {
  Runtime runtime(common);
  const config::Config& config = runtime.config();
  std::vector<std::pair<std::string, net::HealthStatus>> answers;
  if (!config.task_registry_url.empty())
    answers.emplace_back("task-registry", runtime.registry().health_check());
  if (!config.repo_pool_url.empty())
    answers.emplace_back("repo-pool", runtime.pool().health_check());
  if (!config.artifact_store_url.empty())
    answers.emplace_back("artifact-store", runtime.artifacts().health_check());
  if (with_model) answers.emplace_back("llm", runtime.llm().health_check());
  if (answers.empty())
    throw ConfigError("no service is configured; give --url, --registry, --pool or --artifacts");
  bool ok = true;
  Json services = Json::object();
  for (const auto& [name, status] : answers) {
    ok = ok && status.healthy;
    services.set(name, Json::object({{"healthy", status.healthy},
                                     {"detail", status.detail},
                                     {"latency_ms", status.latency.count()}}));
    if (!common.json) {
      print_line(styled(status.healthy ? "good" : "bad", status.healthy ? "ok  " : "FAIL") + "  " +
                 name + "  " + status.detail + "  " + std::to_string(status.latency.count()) +
                 " ms");
    }
  }
  if (common.json) print_json(Json::object({{"ok", ok}, {"services", std::move(services)}}));
  return ok ? 0 : 1;
}

}  // namespace

void declare_health(Cli& cli) {
  common
      .service_command(cli, "health", "Ask every configured service whether it works", kAllServices,
                       run)
      .flag("--llm", with_model, "ask the model endpoint too");
}

}  // namespace necrocode::app
