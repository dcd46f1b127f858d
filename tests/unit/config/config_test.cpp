#include "necrocode/config/config.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>

#include "necrocode/base/file.hpp"
#include "necrocode/config/credentials.hpp"
#include "necrocode/config/yaml.hpp"

namespace necrocode::config {
namespace {

using testing::HasSubstr;

class Settings : public testing::Test {
 protected:
  Settings() { ::setenv("HOME", folder_.path().c_str(), 1); }
  ~Settings() override {
    for (const char* name : {"RUNNER_TIMEOUT", "NECROCODE_CONFIG", "LLM_PROVIDER", "LLM_API_KEY",
                             "LLM_API_KEY_FILE", "OPENAI_API_KEY", "FIRST_KEY", "SECOND_KEY_FILE"})
      ::unsetenv(name);
  }
  std::filesystem::path file(const std::string& text) {
    write_file_atomic(folder_.path() / "c.yaml", text);
    return folder_.path() / "c.yaml";
  }
  std::string refusal(const std::string& text) {
    try {
      load(file(text), {});
    } catch (const ConfigError& error) {
      return error.what();
    }
    return {};
  }
  TemporaryDirectory folder_;
};

TEST_F(Settings, SourcesThenFileBelowEnvironmentBelowFlags) {
  ::setenv("RUNNER_TIMEOUT", "70", 1);
  const auto config_file = file("default_timeout_seconds: 60\nmax_repairs: 5\nllm:\n  model: m\n");
  EXPECT_EQ(load(config_file, {}).config.default_timeout_seconds, 70);
  const LoadedConfig loaded = load(config_file, {{"--timeout", "default_timeout_seconds", "80"}});
  EXPECT_EQ(loaded.config.default_timeout_seconds, 80);
  EXPECT_EQ(loaded.config.max_repairs, 5);
  EXPECT_EQ(loaded.config.llm_model, "m");
  EXPECT_EQ(loaded.origin.at("default_timeout_seconds"), "--timeout");
  EXPECT_THAT(loaded.origin.at("max_repairs"), HasSubstr("c.yaml:2"));
  EXPECT_EQ(loaded.origin.at("drain_seconds"), "default");
}

TEST_F(Settings, UnknownKeyThenTheNearestIsNamed) {
  EXPECT_THAT(refusal("llm:\n  endpiont: x\n"), HasSubstr("llm.endpoint"));
  EXPECT_THAT(refusal("loglevel: debug\n"), HasSubstr("log_level"));
}

TEST_F(Settings, BadValuesThenAllAreNamedWithTheirLines) {
  const std::string text = refusal(
      "default_timeout_seconds: 0\ngit_retry_count: -1\nlog_level: loud\nmask_secrets: "
      "false\nmax_repairs: '2'\n");
  for (const char* part : {"c.yaml:1", "c.yaml:2", "c.yaml:3", "c.yaml:4", "c.yaml:5"})
    EXPECT_THAT(text, HasSubstr(part));
}

TEST_F(Settings, ValuesOfTheWrongShapeThenRefusedInWordsForTheirShape) {
  EXPECT_THAT(refusal("pools: 5\n"), HasSubstr("pools must be a map, as of pools.auto_create"));
  EXPECT_THAT(refusal("llm:\n  model: {a: b}\n"), HasSubstr("llm.model must be one value, not"));
  EXPECT_THAT(refusal("log_level: [info]\n"), HasSubstr("log_level must be one value, not"));
}

TEST_F(Settings, KeyWithoutAValueThenLeftOutIfItIsKnown) {
  EXPECT_EQ(load(file("llm:\npools:\n  num_slots:\nlog_level: ~\n"), {}).config.pools_num_slots, 2);
  EXPECT_THAT(refusal("loglevel:\n"), HasSubstr("unknown key"));
}

TEST_F(Settings, UrlsThenOnlyOfHttp) {
  for (const char* key : {"task_registry_url", "repo_pool_url", "artifact_store_url"}) {
    for (const char* value : {"not-a-url", "ftp://host", "http://", "http:///path", "'http://a b'"})
      EXPECT_THAT(refusal(std::string(key) + ": " + value), HasSubstr("must be http://")) << value;
    for (const char* value :
         {"http://127.0.0.1:8000", "https://host/prefix", "HTTP://[::1]:1", "''"})
      EXPECT_EQ(refusal(std::string(key) + ": " + value), "") << value;
  }
  for (const char* value : {"foo", "''"})
    EXPECT_THAT(refusal("llm:\n  endpoint: " + std::string(value) + "\n"),
                HasSubstr("llm.endpoint must be http://"));
}

TEST_F(Settings, AuthoritiesThenAFileThatIsThere) {
  EXPECT_EQ(load(file("ca_file: ''\n"), {}).config.ca_file, "");
  write_file_atomic(folder_.path() / "ca.pem", "x");
  const std::string there = (folder_.path() / "ca.pem").string();
  EXPECT_EQ(load(file("ca_file: " + there + "\n"), {}).config.ca_file, there);
  for (const std::string& value : {there + ".gone", folder_.path().string()}) {
    EXPECT_THAT(refusal("ca_file: " + value), HasSubstr("ca_file must be a file"));
  }
}

TEST_F(Settings, MoreReadySlotsThanAPoolMayHaveThenRefusedWithBothOrigins) {
  const std::string text = refusal("pools:\n  num_slots: 9\n");
  EXPECT_THAT(text, HasSubstr("c.yaml:2: pools.num_slots (9)"));
  EXPECT_THAT(text, HasSubstr("pools.max_slots (8, from: default)"));
  EXPECT_EQ(refusal("pools:\n  num_slots: 9\n  max_slots: 9\n"), "");
}

TEST_F(Settings, WordsThenTheSameForEveryFlagAndInAnyCase) {
  for (const char* on : {"true", "Yes", "ON", "1"}) {
    const std::string value = on;
    const LoadedConfig loaded =
        load(file("pools:\n  auto_create: " + value + "\nmask_secrets: " + value +
                  "\nstructured_logging: " + value +
                  "\nlog_level: Info\nexecution_mode: Local-Process\n"),
             {});
    EXPECT_TRUE(loaded.config.pools_auto_create);
    EXPECT_EQ(loaded.config.log_format, "json");
    EXPECT_EQ(loaded.config.log_level, "info");
  }
  EXPECT_EQ(load(file("structured_logging: off\n"), {}).config.log_format, "text");
}

TEST_F(Settings, BadFlagThenNamedAsItWasGiven) {
  try {
    load({}, {{"--llm-timeout", "llm.timeout_seconds", "soon"},
              {"--url", "task_registry_url", "foo"},
              {"--url", "repo_pool_url", "foo"}});
    ADD_FAILURE();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--llm-timeout: must be a number"));
    EXPECT_EQ(error.info().fields.size(), 2U);
  }
}

TEST_F(Settings, LimitsOfTestCommandsThenWithinSaneBounds) {
  const Config config =
      load(file("max_memory_mb: 2048\nmax_cpu_percent: 150\nmax_processes: 64\n"), {}).config;
  EXPECT_EQ(config.max_memory_mb, 2048);
  EXPECT_EQ(config.max_cpu_percent, 150);
  EXPECT_EQ(config.max_processes, 64);
  EXPECT_THAT(refusal("max_memory_mb: 0\n"), HasSubstr("c.yaml:1"));
  EXPECT_THAT(refusal("max_memory_mb: 8\n"), HasSubstr("from 16 to"));
  EXPECT_THAT(refusal("max_processes: 3\n"), HasSubstr("from 16 to"));
  EXPECT_THAT(refusal("max_cpu_percent: many\n"), HasSubstr("must be a number"));
}

TEST_F(Settings, PlaybooksThenWhereTheyMayComeFrom) {
  const LoadedConfig loaded =
      load(file("default_playbook_path: /p.yaml\nplaybooks:\n  directory: /books\n"
                "  trusted_repositories: ['https://git.example/team/*']\n"),
           {});
  EXPECT_EQ(loaded.config.default_playbook_path, "/p.yaml");
  EXPECT_EQ(loaded.config.playbooks_directory, "/books");
  EXPECT_EQ(loaded.config.playbooks_trusted_repositories,
            Json(Json::Array{"https://git.example/team/*"}));
  EXPECT_THAT(refusal("playbooks: {trusted_repositories: all}\n"), HasSubstr("must be a list"));
  EXPECT_THAT(refusal("playbooks: {trusted_repositories: [1]}\n"), HasSubstr("must be the URL"));
}

TEST_F(Settings, FlagsAloneThenNeitherFileNorEnvironmentCounts) {
  ::setenv("RUNNER_TIMEOUT", "70", 1);
  ::setenv("NECROCODE_CONFIG", "/nonexistent", 1);
  EXPECT_EQ(load_flags({}).config.default_timeout_seconds, Config{}.default_timeout_seconds);
  EXPECT_EQ(load_flags({{"", "max_repairs", "7"}}).config.max_repairs, 7);
}

TEST_F(Settings, ModelSettingsThenReadWithTheirDefaults) {
  const Config usual = load({}, {}).config;
  EXPECT_EQ(usual.llm_provider, "openai-chat");
  EXPECT_EQ(usual.llm_min_request_interval, 0.1);
  EXPECT_EQ(usual.llm_connect_timeout_seconds, 10);
  const Config config =
      load(file("llm:\n  provider: Anthropic\n  requests_per_minute: 0.5\n"
                "  tokens_per_minute: 30000\n  min_request_interval: 0\n"
                "  connect_timeout_seconds: 3\n  idle_timeout_seconds: 4\n"
                "  progress_timeout_seconds: 5\nbudgets: {run_usd: 1.5, run_tokens: 200000}\n"),
           {})
          .config;
  EXPECT_EQ(config.llm_provider, "anthropic");
  EXPECT_EQ(config.llm_requests_per_minute, 0.5);
  EXPECT_EQ(config.llm_tokens_per_minute, 30'000);
  EXPECT_EQ(config.llm_min_request_interval, 0);
  EXPECT_EQ(config.llm_connect_timeout_seconds, 3);
  EXPECT_EQ(config.llm_idle_timeout_seconds, 4);
  EXPECT_EQ(config.llm_progress_timeout_seconds, 5);
  EXPECT_EQ(config.budgets_run_usd, 1.5);
  EXPECT_EQ(config.budgets_run_tokens, 200'000);
  ::setenv("LLM_PROVIDER", "openai-responses", 1);
  EXPECT_EQ(load({}, {}).config.llm_provider, "openai-responses");
  ::setenv("LLM_PROVIDER", "gemini", 1);
  EXPECT_THROW(load({}, {}), ConfigError);
  EXPECT_THAT(refusal("budgets: {run_usd: -1}\n"), HasSubstr("budgets.run_usd must be a number"));
}

Json setting_of(const Config& config, const std::string& key) {
  for (const SettingInfo& setting : describe(config)) {
    if (setting.key == key) return setting.value;
  }
  return {};
}

TEST_F(Settings, PricesThenKeptAsTheyStandAndShown) {
  const LoadedConfig loaded =
      load(file("log_level: info\nprices:\n  gpt-4.1: {input: 2, output: 8, cached_input: 0.5}\n"
                "  openai/o3:\n    input: 2\n    output: 8\n    cache_write: 0\n"
                "    max_output_tokens: 100\n"),
           {});
  EXPECT_EQ(loaded.config.prices["gpt-4.1"]["cached_input"], Json(0.5));
  EXPECT_EQ(loaded.config.prices["openai/o3"]["output"], Json(8));
  EXPECT_EQ(setting_of(loaded.config, "prices"), loaded.config.prices);
  EXPECT_THAT(loaded.origin.at("prices"), HasSubstr("c.yaml:"));
  EXPECT_EQ(setting_of(Config{}, "prices"), Json::object());
  EXPECT_EQ(load({}, {}).origin.at("prices"), "default");
}

TEST_F(Settings, PricesThatAreNoneThenEachWithItsLine) {
  const std::string text = refusal(
      "prices:\n  a/b:\n    inptu: 1\n    output: -1\n  c: 5\n  d:\n    input: .nan\n"
      "    output: '8'\n  e: {input: 1e7, output: [1], max_output_tokens: 0}\n");
  for (const char* part :
       {"c.yaml:3: prices/a/b/inptu is unknown; did you mean \"input\"?",
        "c.yaml:3: prices/a/b must have input",
        "c.yaml:4: prices/a/b/output must be a number from 0 to 1000000, not -1",
        "c.yaml:5: prices/c must be a map, not", "c.yaml:7: prices/d/input must be a number",
        "c.yaml:8: prices/d/output must be a number", "c.yaml:9: prices/e/input must be a number",
        "c.yaml:9: prices/e/output must be a number",
        "c.yaml:9: prices/e/max_output_tokens must be a whole number from 1 to 1000000000, not 0"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(refusal("prices: [1]\n"), HasSubstr("c.yaml:1: prices must be a map, not"));
  EXPECT_EQ(refusal("prices:\n"), "");
}

TEST_F(Settings, FallbacksThenKeptInOrderAndShown) {
  const LoadedConfig loaded =
      load(file("llm:\n  model: m\n  fallbacks:\n  - model: first\n  - model: second\n"
                "    endpoint: https://other.example.com/v1\n    provider: anthropic\n"
                "    api_key_env_var: FIRST_KEY\n    timeout_seconds: 30\n    max_tokens: 100\n"
                "    temperature: 0\n"),
           {});
  ASSERT_EQ(loaded.config.llm_fallbacks.size(), 2U);
  EXPECT_EQ(loaded.config.llm_fallbacks.items()[0]["model"], Json("first"));
  EXPECT_EQ(loaded.config.llm_fallbacks.items()[1]["timeout_seconds"], Json(30));
  EXPECT_EQ(setting_of(loaded.config, "llm.fallbacks"), loaded.config.llm_fallbacks);
  EXPECT_EQ(setting_of(Config{}, "llm.fallbacks"), Json::array());
}

TEST_F(Settings, FallbacksThatAreNoneThenCheckedAsTheSettingsTheyStandFor) {
  const std::string text = refusal(
      "llm:\n  fallbacks:\n  - modle: x\n  - model: m\n    endpoint: ftp://x\n"
      "    provider: gemini\n    timeout_seconds: 0\n    max_tokens: '5'\n    temperature: 3\n"
      "    api_key: x\n    api_key_env_var: ''\n  - just-a-name\n");
  for (const char* part : {"c.yaml:3: llm.fallbacks/0/modle is unknown; did you mean \"model\"?",
                           "c.yaml:3: llm.fallbacks/0 must have model",
                           "c.yaml:5: llm.fallbacks/1/endpoint must be http://",
                           "c.yaml:6: llm.fallbacks/1/provider must be one of",
                           "c.yaml:7: llm.fallbacks/1/timeout_seconds must be a number from",
                           "c.yaml:8: llm.fallbacks/1/max_tokens must be a number, not",
                           "c.yaml:9: llm.fallbacks/1/temperature must be a number from",
                           "c.yaml:10: llm.fallbacks/1/api_key is unknown; did you mean",
                           "c.yaml:11: llm.fallbacks/1/api_key_env_var must not be empty",
                           "c.yaml:12: llm.fallbacks/2 must be a map, not"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(refusal("llm: {fallbacks: {model: x}}\n"), HasSubstr("llm.fallbacks must be a list"));
  std::string many = "llm:\n  fallbacks:\n";
  for (int i = 0; i < 17; ++i) many += "  - model: m\n";
  EXPECT_THAT(refusal(many), HasSubstr("llm.fallbacks must have at most 16 elements"));
}

TEST_F(Settings, MapAsAFlagThenOnlyInTheFile) {
  try {
    load_flags({{"--prices", "prices", "{}"}});
    ADD_FAILURE();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--prices: must stand in the file"));
  }
}

TEST_F(Settings, AliasBombOrDeepNestingThenRefusedQuickly) {
  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string p = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + p + "," + p + "," + p +
            "," + p + "," + p + "," + p + "," + p + "," + p + "]\n";
  }
  EXPECT_THROW(parse_yaml(bomb, "bomb"), ConfigError);
  EXPECT_THROW(parse_yaml(std::string(100'000, '['), "deep"), ConfigError);
  EXPECT_THROW(parse_yaml("a: b\na: c\n", "twice"), ConfigError);
  EXPECT_THROW(parse_yaml("a: [\n", "open"), ConfigError);
  EXPECT_THROW(parse_yaml("a: 1\n---\nb: 2\n", "two documents"), ConfigError);
  std::string copies = "a: &a " + std::string(500'000, 'x') + "\nb: [";
  for (int i = 0; i < 10; ++i) copies += "*a, ";
  EXPECT_THROW(parse_yaml(copies + "*a]\n", "many copies of one scalar"), ConfigError);
  EXPECT_THROW(parse_yaml("a: \xff\n", "bytes"), ConfigError);
}

TEST_F(Settings, ScalarsThenTypedUnlessQuoted) {
  const Json yaml = parse_yaml("i: 5\nf: 1.5\nb: true\nn: ~\nq: \"5\"\ns: 1.2.3\nv: '1.10'\n", "x");
  EXPECT_EQ(yaml["i"], Json(5));
  EXPECT_EQ(parse_yaml("s: !!str 5\n", "x")["s"], Json("5"));
  EXPECT_EQ(parse_yaml("s: +-5\n", "x")["s"], Json("+-5"));
  EXPECT_EQ(parse_yaml("s: +5\n", "x")["s"], Json(5));
  EXPECT_TRUE(parse_yaml("", "x").is_null());
  EXPECT_EQ(yaml["f"], Json(1.5));
  EXPECT_EQ(yaml["b"], Json(true));
  EXPECT_TRUE(yaml["n"].is_null());
  EXPECT_EQ(yaml["q"], Json("5"));
  EXPECT_EQ(yaml["s"], Json("1.2.3"));
  EXPECT_EQ(yaml["v"], Json("1.10"));
}

TEST_F(Settings, CredentialsThenTakenOutOfTheEnvironment) {
  ::setenv("LLM_API_KEY", "0123456789", 1);
  const Credentials credentials = take_credentials({});
  EXPECT_TRUE(credentials.llm_api_key.equals("0123456789"));
  EXPECT_EQ(::getenv("LLM_API_KEY"), nullptr);
  EXPECT_EQ(credentials.masker()->mask("key 0123456789."), "key ***.");
}

Config with_fallbacks(const std::vector<std::string>& variables) {
  Config config;
  for (const std::string& variable : variables) {
    Json fallback = Json::object({{"model", "m"}});
    if (!variable.empty()) fallback.set("api_key_env_var", variable);
    config.llm_fallbacks.push_back(std::move(fallback));
  }
  return config;
}

TEST_F(Settings, KeysOfFallbacksThenInTheirOrderAndTakenOutOfTheEnvironment) {
  ::setenv("LLM_API_KEY", "primary-0123", 1);
  ::setenv("FIRST_KEY", "first-0123456", 1);
  write_file_atomic(folder_.path() / "key", "second-0123456\n", 0600);
  ::setenv("SECOND_KEY_FILE", (folder_.path() / "key").c_str(), 1);
  const Credentials credentials = take_credentials(
      with_fallbacks({"SECOND_KEY", "", "FIRST_KEY", "LLM_API_KEY", "FIRST_KEY", "NO_SUCH_KEY"}));
  ASSERT_EQ(credentials.llm_fallback_keys.size(), 6U);
  const char* const expected[] = {"second-0123456", "", "first-0123456", "primary-0123",
                                  "first-0123456",  ""};
  for (std::size_t i = 0; i < 6; ++i)
    EXPECT_TRUE(credentials.llm_fallback_keys[i].equals(expected[i])) << i;
  EXPECT_TRUE(credentials.llm_api_key.equals("primary-0123"));
  EXPECT_EQ(::getenv("FIRST_KEY"), nullptr);
  EXPECT_EQ(credentials.masker()->mask("a first-0123456 b second-0123456"), "a *** b ***");
}

TEST_F(Settings, KeyOfAFallbackThatCannotBeMaskedThenRefused) {
  ::setenv("FIRST_KEY", "short", 1);
  EXPECT_THROW(take_credentials(with_fallbacks({"FIRST_KEY"})), SecurityError);
}

TEST_F(Settings, KeysOfFallbacksThatAreNotWantedThenStillTakenOutOfTheEnvironment) {
  ::setenv("FIRST_KEY", "first-0123456", 1);
  drop_credentials(with_fallbacks({"", "FIRST_KEY"}));
  EXPECT_EQ(::getenv("FIRST_KEY"), nullptr);
}

TEST_F(Settings, CredentialsThatAreNotWantedThenStillTakenOutOfTheEnvironment) {
  for (const char* value : {"0123456789", ""}) {
    ::setenv("LLM_API_KEY", value, 1);
    ::setenv("OPENAI_API_KEY", value, 1);
    drop_credentials();
    EXPECT_EQ(::getenv("LLM_API_KEY"), nullptr);
    EXPECT_EQ(::getenv("OPENAI_API_KEY"), nullptr);
  }
}

TEST_F(Settings, CredentialVariableSetToNothingThenRefusedByName) {
  for (const std::string name :
       {"LLM_API_KEY", "OPENAI_API_KEY", "GIT_TOKEN", "TASK_REGISTRY_API_KEY", "REPO_POOL_API_KEY",
        "ARTIFACT_STORE_API_KEY"}) {
    for (const std::string& variable : {name, name + "_FILE"}) {
      ::setenv(variable.c_str(), "", 1);
      try {
        take_credentials({});
        ADD_FAILURE() << variable;
      } catch (const SecurityError& error) {
        EXPECT_THAT(error.what(), HasSubstr("$" + variable + " "));
      }
      ::unsetenv(variable.c_str());
    }
  }
  EXPECT_NO_THROW(take_credentials({}));
}

TEST_F(Settings, CredentialFileThenOnlyWithASafeMode) {
  write_file_atomic(folder_.path() / "key", "abcdefghij\n", 0600);
  ::setenv("LLM_API_KEY_FILE", (folder_.path() / "key").c_str(), 1);
  EXPECT_TRUE(take_credentials({}).llm_api_key.equals("abcdefghij"));
  ::chmod((folder_.path() / "key").c_str(), 0644);
  EXPECT_THROW(take_credentials({}), SecurityError);
}

TEST_F(Settings, CredentialFileThatCannotBeReadThenAMistakeOfTheConfiguration) {
  for (const std::filesystem::path& named : {folder_.path() / "none", folder_.path()}) {
    ::setenv("LLM_API_KEY_FILE", named.c_str(), 1);
    try {
      take_credentials({});
      ADD_FAILURE() << named;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr("$LLM_API_KEY_FILE cannot be read"));
    }
  }
}

TEST_F(Settings, ShortOrMultiLineCredentialThenRefusedWithoutItsValue) {
  for (const char* value : {"x1y2z", "line-one\nline-two"}) {
    ::setenv("OPENAI_API_KEY", value, 1);
    try {
      take_credentials({});
      ADD_FAILURE();
    } catch (const SecurityError& error) {
      EXPECT_EQ(std::string(error.what()).find(value), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace necrocode::config
