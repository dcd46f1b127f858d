// Settings of executors, agent programs, and the services that those reach.
#include <gmock/gmock.h>

#include <cstdlib>

#include "necrocode/base/file.hpp"
#include "necrocode/config/config.hpp"
#include "necrocode/config/credentials.hpp"

namespace necrocode::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class AgentSettings : public testing::Test {
 protected:
  AgentSettings() { ::setenv("HOME", folder_.path().c_str(), 1); }
  ~AgentSettings() override {
    for (const char* name : {"OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY",
                             "ANTHROPIC_API_KEY", "GROQ_KEY"}) {
      ::unsetenv(name);
    }
  }
  LoadedConfig read(const std::string& text) {
    write_file_atomic(folder_.path() / "c.yaml", text);
    return load(folder_.path() / "c.yaml", {});
  }
  std::string refusal(const std::string& text) {
    try {
      read(text);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return {};
  }
  static std::string url_of(const Config& config, const std::string& name) {
    return config.providers[name]["base_url"].string_or("");
  }
  TemporaryDirectory folder_;
};

TEST_F(AgentSettings, ExecutorsThenAsTextOrListAndByWhatTheyAreFor) {
  EXPECT_THAT(Config().executor, ElementsAre("llm"));
  const Config config = read(
                            "executor: command:codex, llm\nagent: claude\n"
                            "executors: {by_spec: {shop: [command, llm]}, by_skill: {ui: llm}}\n")
                            .config;
  EXPECT_THAT(config.executor, ElementsAre("command:codex", "llm"));
  EXPECT_THAT(config.executors_by_spec.at("shop"), ElementsAre("command", "llm"));
  EXPECT_THAT(config.executors_by_skill.at("ui"), ElementsAre("llm"));
  EXPECT_EQ(config.agent, "claude");
  for (const SettingInfo& setting : describe(config)) {
    if (setting.key != "executor") continue;
    EXPECT_EQ(setting.value, Json("command:codex, llm"));
  }
}

TEST_F(AgentSettings, ExecutorsThatAreNoneThenEachWithItsLine) {
  const std::string text = refusal(
      "executor: magic\nexecutors:\n  by_spec:\n    a: llm\n"
      "    b: [llm, 5]\n  by_skil: {a: llm}\n");
  EXPECT_THAT(text, HasSubstr("c.yaml:1: executor must be \"llm\", \"command\" or"));
  EXPECT_THAT(text, HasSubstr("c.yaml:5: executors.by_spec/b must be"));
  EXPECT_THAT(text, HasSubstr("executors.by_skill"));
}

TEST_F(AgentSettings, ProvidersThenOnTopOfTheKnownOnes) {
  const LoadedConfig loaded = read(
      "providers:\n  openai: {base_url: 'https://gateway.example/v1'}\n"
      "  groq: {base_url: 'https://api.groq.com/openai/v1', api_key_env: GROQ_KEY}\n");
  EXPECT_EQ(url_of(loaded.config, "openai"), "https://gateway.example/v1");
  EXPECT_EQ(loaded.config.providers["openai"]["api_key_env"], Json("OPENAI_API_KEY"));
  EXPECT_EQ(url_of(loaded.config, "anthropic"), "https://api.anthropic.com/v1");
  EXPECT_EQ(url_of(loaded.config, "groq"), "https://api.groq.com/openai/v1");
  EXPECT_THAT(loaded.origin.at("providers.openai.base_url"), HasSubstr("c.yaml:2"));
  EXPECT_EQ(loaded.origin.at("providers.anthropic.base_url"), "default");
}

TEST_F(AgentSettings, AddressesOfTheEnvironmentThenBeforeTheFile) {
  ::setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1/", 1);
  ::setenv("ANTHROPIC_BASE_URL", "https://gateway.example/anthropic", 1);
  const LoadedConfig loaded = read("providers: {openai: {base_url: 'https://x.example/v1'}}\n");
  EXPECT_EQ(url_of(loaded.config, "openai"), "http://127.0.0.1:8000/v1");
  EXPECT_EQ(url_of(loaded.config, "anthropic"), "https://gateway.example/anthropic/v1")
      << "by custom it is without the version";
  EXPECT_EQ(loaded.origin.at("providers.openai.base_url"), "environment OPENAI_BASE_URL");
  ::setenv("ANTHROPIC_BASE_URL", "https://gateway.example/v1", 1);
  EXPECT_EQ(url_of(load({}, {}).config, "anthropic"), "https://gateway.example/v1");
  ::setenv("OPENAI_BASE_URL", "gateway", 1);
  EXPECT_THROW(load({}, {}), ConfigError);
}

TEST_F(AgentSettings, ProvidersThatAreNoneThenEachIsNamed) {
  const std::string text = refusal(
      "providers:\n  Big: {base_url: 'http://a'}\n  new: {api_key_env: K}\n"
      "  openai: {base_url: ftp://a, key: k}\n  list: []\n");
  EXPECT_THAT(text, HasSubstr("providers/Big must be a name"));
  EXPECT_THAT(text, HasSubstr("providers/new must have base_url"));
  EXPECT_THAT(text, HasSubstr("c.yaml:4: providers/openai/base_url must be http"));
  EXPECT_THAT(text, HasSubstr("providers/openai/key is unknown"));
  EXPECT_THAT(text, HasSubstr("providers/list must be a map"));
}

TEST_F(AgentSettings, LimitsBudgetsAndAgentsThenRead) {
  const Config config = read(
                            "limits: {memory_mb: 512, processes: 64}\nbudgets: {daily_usd: 20}\n"
                            "agents: {mine: {argv: [mine, '{prompt}']}}\n")
                            .config;
  EXPECT_EQ(config.limits_memory_mb, 512);
  EXPECT_EQ(config.limits_processes, 64);
  EXPECT_EQ(config.budgets_daily_usd, 20);
  EXPECT_EQ(config.agents["mine"]["argv"].size(), 2U);
  EXPECT_THAT(refusal("agents: {mine: codex}\n"), HasSubstr("agents/mine must be a map"));
  EXPECT_THAT(refusal("limits: {memory_mb: 1}\n"), HasSubstr("limits.memory_mb must be"));
}

TEST_F(AgentSettings, KeysOfProvidersThenTakenMaskedAndDropped) {
  const Config config =
      read("providers: {groq: {base_url: 'https://a', api_key_env: GROQ_KEY}}\n").config;
  const auto set = [] {
    ::setenv("GROQ_KEY", "groq-0123456", 1);
    ::setenv("ANTHROPIC_API_KEY", "anthropic-0123", 1);
  };
  set();
  const Credentials credentials = take_credentials(config);
  EXPECT_TRUE(credentials.provider_keys.at("groq").equals("groq-0123456"));
  EXPECT_TRUE(credentials.provider_keys.at("anthropic").equals("anthropic-0123"));
  EXPECT_TRUE(credentials.provider_keys.at("openai").empty());
  EXPECT_EQ(credentials.masker()->mask("a groq-0123456 b anthropic-0123"), "a *** b ***");
  EXPECT_EQ(::getenv("GROQ_KEY"), nullptr);
  EXPECT_EQ(::getenv("ANTHROPIC_API_KEY"), nullptr);
  set();
  drop_credentials(config);
  EXPECT_EQ(::getenv("GROQ_KEY"), nullptr);
}

}  // namespace
}  // namespace necrocode::config
