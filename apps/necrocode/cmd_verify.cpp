// necrocode verify: makes all four clients and checks their documented defaults (SPEC section 4);
// with --live it also calls every operation of the configured services.
#include <array>
#include <cstdio>
#include <functional>
#include <optional>

#include "commands.hpp"
#include "live_checks.hpp"
#include "necrocode/base/text.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct Check {
  std::string name;
  bool ok = false;
  std::string detail;
};

CommonOptions common;
bool live = false;

Check check(const std::string& name, const std::function<std::string()>& run) {
  try {
    const std::string problem = run();
    return {name, problem.empty(), problem.empty() ? "ok" : problem};
  } catch (const std::exception& error) {
    return {name, false, error.what()};
  }
}

// What differs from its documented value, one sentence each.
class Differences {
 public:
  void expect(const std::string& what, const Json& is, const Json& documented) {
    if (is != documented)
      list_.push_back(what + " is " + is.dump() + ", documented is " + documented.dump());
  }
  std::string text() const { return join(list_, "; "); }

 private:
  std::vector<std::string> list_;
};

Json seconds(std::chrono::milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

std::string service_defaults() {
  const net::ServiceOptions options;
  Differences differences;
  differences.expect("timeout (s)", seconds(net::ServiceCaller::kDefaultTimeout), 30.0);
  differences.expect("artifact timeout (s)", seconds(ArtifactStoreClient::kDefaultTimeout), 60.0);
  differences.expect("health timeout (s)", seconds(options.health_timeout), 5.0);
  differences.expect("retries", options.retry.retries, 3);
  differences.expect("retry base (s)", seconds(options.retry.base), 1.0);
  differences.expect("retry factor", options.retry.factor, 2.0);
  differences.expect("retry cap (s)", seconds(options.retry.cap), 60.0);
  return differences.text();
}

std::string llm_defaults() {
  const LLMConfig config;
  Differences differences;
  differences.expect("model", config.model, "gpt-4");
  differences.expect("endpoint", config.endpoint, "https://api.openai.com/v1");
  differences.expect("timeout_seconds", config.timeout_seconds, 120.0);
  differences.expect("max_tokens", config.max_tokens, 4000);
  differences.expect("temperature", config.temperature, 0.2);
  differences.expect("provider", config.provider, "openai-chat");
  differences.expect("min_request_interval", config.min_request_interval, 0.1);
  differences.expect("requests_per_minute", config.requests_per_minute, 0.0);
  differences.expect("tokens_per_minute", config.tokens_per_minute, 0.0);
  differences.expect("retries", config.retry.retries, 3);
  return differences.text();
}

template <class Client>
std::string service_client() {
  Differences differences;
  differences.expect("base URL", Client().base_url(), "http://127.0.0.1:8000");
  return differences.text();
}

std::string llm_client() {
  const LLMClient client{LLMConfig{}};
  Differences differences;
  differences.expect("model", client.model(), "gpt-4");
  differences.expect("endpoint", client.endpoint(), "https://api.openai.com/v1");
  return differences.text();
}

// The clients as the commands will make them: whatever is wrong is an error of one of these.
std::string configured_clients(std::optional<Runtime>& made) {
  const Runtime& runtime = made.emplace(common);
  runtime.llm();
  if (!runtime.config().task_registry_url.empty()) runtime.registry();
  if (!runtime.config().repo_pool_url.empty()) runtime.pool();
  if (!runtime.config().artifact_store_url.empty()) runtime.artifacts();
  return {};
}

/// No check: a machine for services alone needs no sandbox.
std::string how_tests_run(const Runtime& runtime) {
  try {
    const auto sandbox = process::make_sandbox(supervisor(), runtime.resource_limits());
    sandbox->require_usable();
    std::string told = std::string(sandbox->name()) + "; " + sandbox->limits();
    for (const std::string& lack : sandbox->missing()) told += "; " + lack;
    return told;
  } catch (const SecurityError& error) {
    return std::string("not on this machine: ") + error.what();
  }
}

void print_check(bool ok, const std::string& what, const std::string& detail) {
  if (common.json) return;
  print_line(styled(ok ? "good" : "bad", ok ? "ok  " : "FAIL") + "  " + what + "  " +
             presentable(detail));
}

std::string milliseconds(const LiveCheck& check) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%8.1f ms", check.duration.count());
  return text.data();
}

/// The services as they are: false when an operation of one does not work.
bool run_live(const Runtime& runtime, Json& list) {
  const git::Git git(supervisor(), {});
  bool ok = true;
  for (const LiveCheck& one : check_live(runtime, git)) {
    ok = ok && one.ok;
    list.push_back(Json::object({{"service", one.service},
                                 {"operation", one.operation},
                                 {"ok", one.ok},
                                 {"detail", one.detail},
                                 {"duration_ms", one.duration.count()}}));
    print_check(one.ok, milliseconds(one) + "  " + one.service + " " + one.operation, one.detail);
  }
  if (list.size() == 0) throw ConfigError("no service is configured: --live has nothing to call");
  return ok;
}

int run() {
  std::optional<Runtime> runtime;  // one: it takes the credentials out of the environment
  const std::vector<Check> checks = {
      check("defaults of the service clients", service_defaults),
      check("defaults of LLMClient", llm_defaults),
      check("LLMClient", llm_client),
      check("TaskRegistryClient", service_client<TaskRegistryClient>),
      check("RepoPoolClient", service_client<RepoPoolClient>),
      check("ArtifactStoreClient", service_client<ArtifactStoreClient>),
      check("configuration, and the clients made from it",
            [&] { return configured_clients(runtime); }),
  };
  bool ok = true;
  Json list = Json::array();
  for (const Check& one : checks) {
    ok = ok && one.ok;
    list.push_back(Json::object({{"name", one.name}, {"ok", one.ok}, {"detail", one.detail}}));
    print_check(one.ok, one.name, one.detail);
  }
  Json whole = Json::object({{"ok", ok}, {"checks", std::move(list)}});
  if (runtime) {
    const std::string how = how_tests_run(*runtime);
    whole.set("tests_run_in", how);
    if (!common.json) print_line("tests run in: " + presentable(how));
  }
  if (live && ok) {
    Json operations = Json::array();
    ok = run_live(*runtime, operations);
    whole.set("ok", ok).set("operations", std::move(operations));
  }
  if (common.json) print_json(whole);
  return ok ? 0 : 1;
}

}  // namespace

void declare_verify(Cli& cli) {
  Cli& command = common.service_command(cli, "verify",
                                        "Make all four clients and check their documented defaults",
                                        kAllServices, run);
  common.declare_llm(command);
  command.flag(
      "--live", live,
      "also call every operation of the configured services; not where workers wait for tasks");
}

}  // namespace necrocode::app
