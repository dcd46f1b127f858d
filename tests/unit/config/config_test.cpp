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
    for (const char* name : {"RUNNER_TIMEOUT", "NECROCODE_CONFIG", "LLM_API_KEY",
                             "LLM_API_KEY_FILE", "OPENAI_API_KEY"})
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
  const LoadedConfig loaded = load(config_file, {{"default_timeout_seconds", "80"}});
  EXPECT_EQ(loaded.config.default_timeout_seconds, 80);
  EXPECT_EQ(loaded.config.max_repairs, 5);
  EXPECT_EQ(loaded.config.llm_model, "m");
  EXPECT_EQ(loaded.origin.at("default_timeout_seconds"), "flag");
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
  EXPECT_THROW(parse_yaml("a: \xff\n", "bytes"), ConfigError);
}

TEST_F(Settings, ScalarsThenTypedUnlessQuoted) {
  const Json yaml = parse_yaml("i: 5\nf: 1.5\nb: true\nn: ~\nq: \"5\"\ns: 1.2.3\nv: '1.10'\n", "x");
  EXPECT_EQ(yaml["i"], Json(5));
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
