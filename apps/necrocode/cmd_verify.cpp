// necrocode verify: makes all four clients and checks their documented defaults (SPEC section 4).
#include <functional>

#include "commands.hpp"
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

Check check(const std::string& name, const std::function<std::string()>& run) {
  try {
    const std::string problem = run();
    return {name, problem.empty(), problem.empty() ? "ok" : problem};
  } catch (const std::exception& error) {
    return {name, false, error.what()};
  }
}

template <class Value>
std::string expect(const std::string& what, const Value& is, const Value& documented) {
  return is == documented ? "" : what + " is not as documented";
}

std::string service_defaults() {
  const net::ServiceOptions options;
  std::string problems = expect("timeout", options.timeout, std::chrono::milliseconds{30'000});
  problems += expect("health timeout", options.health_timeout, std::chrono::milliseconds{5'000});
  problems += expect("retries", options.retry.retries, 3);
  problems += expect("retry base", options.retry.base, std::chrono::milliseconds{1'000});
  problems += expect("retry factor", options.retry.factor, 2.0);
  return problems + expect("retry cap", options.retry.cap, std::chrono::milliseconds{60'000});
}

std::string llm_defaults() {
  const LLMConfig config;
  std::string problems = expect("model", config.model, std::string("gpt-4"));
  problems += expect("endpoint", config.endpoint, std::string("https://api.openai.com/v1"));
  problems += expect("timeout_seconds", config.timeout_seconds, 120.0);
  problems += expect("max_tokens", config.max_tokens, 4000);
  problems += expect("temperature", config.temperature, 0.2);
  return problems + expect("provider", config.provider, std::string("openai-chat"));
}

int run() {
  const std::vector<Check> checks = {
      check("defaults of the service clients", service_defaults),
      check("defaults of LLMClient", llm_defaults),
      check("LLMClient",
            [] { return expect("model", LLMClient(LLMConfig{}).model(), std::string("gpt-4")); }),
      check("TaskRegistryClient",
            [] {
              return expect("base URL", TaskRegistryClient().base_url(),
                            std::string(TaskRegistryClient::kDefaultUrl));
            }),
      check("RepoPoolClient",
            [] {
              return expect("base URL", RepoPoolClient().base_url(),
                            std::string(RepoPoolClient::kDefaultUrl));
            }),
      check("ArtifactStoreClient",
            [] {
              return expect("base URL", ArtifactStoreClient().base_url(),
                            std::string(ArtifactStoreClient::kDefaultUrl));
            }),
      check("configuration",
            [] {
              config::load(common.config_file, common.flags());
              return std::string();
            }),
  };
  bool ok = true;
  Json list = Json::array();
  for (const Check& one : checks) {
    ok = ok && one.ok;
    list.push_back(Json::object({{"name", one.name}, {"ok", one.ok}, {"detail", one.detail}}));
    if (!common.json)
      print_line(styled(one.ok ? "good" : "bad", one.ok ? "ok  " : "FAIL") + "  " + one.name +
                 "  " + one.detail);
  }
  if (common.json) print_json(Json::object({{"ok", ok}, {"checks", std::move(list)}}));
  return ok ? 0 : 1;
}

}  // namespace

void declare_verify(Cli& cli) {
  common.service_command(cli, "verify", "Make all four clients and check their documented defaults",
                         run);
}

}  // namespace necrocode::app
