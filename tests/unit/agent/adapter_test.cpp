#include "necrocode/agent/adapter.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/config/yaml.hpp"

namespace necrocode::agent {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

const AgentValues kValues = {
    "Mend \"it\" {now}", "http://127.0.0.1:14700", "dummy", "", "/h", "/w"};

Json yaml(const std::string& text) {
  return config::parse_yaml(text, "test");
}

// Every defect, as POINTER MESSAGE.
std::vector<std::string> defects(const std::string& text) {
  std::vector<std::string> lines;
  try {
    const AgentAdapters adapters(yaml(text));
  } catch (const ConfigError& error) {
    for (const FieldError& field : error.info().fields) {
      lines.push_back(field.pointer + " " + field.message);
    }
  }
  return lines;
}

TEST(AgentAdapters, CompiledInThenKnownWithTheVersionsThatWereTried) {
  const AgentAdapters adapters;
  EXPECT_EQ(adapters.names(), "claude, codex, opencode, pi");
  for (const auto& [name, adapter] : adapters.all()) {
    EXPECT_EQ(adapter.name, name);
    EXPECT_FALSE(adapter.verified.empty()) << name;
    EXPECT_FALSE(adapter.resume.empty()) << name;
    EXPECT_EQ(adapters.of_program("/opt/bin/" + adapter.argv.front()), &adapter);
  }
  EXPECT_EQ(adapters.find("cursor"), nullptr);
  EXPECT_EQ(adapters.of_program("/bin/sh"), nullptr);
}

TEST(AgentAdapters, CommandThenEachPlaceIsFilledOnceAndNothingInItAgain) {
  const AgentAdapters adapters;
  const AgentCommand first = command_of(*adapters.find("codex"), kValues, false);
  EXPECT_EQ(first.argv.front(), "codex");
  EXPECT_EQ(first.argv.back(), kValues.prompt);
  EXPECT_EQ(first.input, "");
  EXPECT_THAT(first.files.at(".codex/config.toml"),
              HasSubstr("base_url = \"http://127.0.0.1:14700/v1\"\n"));
  EXPECT_THAT(first.files.at(".codex/config.toml"), HasSubstr("model = \"gpt-"));
  const AgentCommand second = command_of(*adapters.find("codex"), kValues, true);
  EXPECT_THAT(second.argv, Contains("resume"));
  EXPECT_EQ(second.argv.back(), kValues.prompt);
}

TEST(AgentAdapters, FilesThatAreMapsThenWrittenAsJsonWithAllNamesFilled) {
  AgentValues values = kValues;
  values.model = "m\"1";
  const AgentCommand command = command_of(*AgentAdapters().find("opencode"), values, false);
  const Json file = Json::parse(command.files.at(".config/opencode/opencode.json"));
  EXPECT_EQ(file["model"], Json("necrocode/m\"1"));
  EXPECT_EQ(file["provider"]["necrocode"]["models"]["m\"1"]["name"], Json("m\"1"));
  EXPECT_EQ(file["provider"]["necrocode"]["options"]["apiKey"], Json("dummy"));
  EXPECT_EQ(file["autoupdate"], Json(false));
}

// The example of docs/agents.md is what this reads.
TEST(AgentAdapters, ExampleOfTheGuideThenAnAdapter) {
  const std::string guide = read_file(NECROCODE_SOURCE_DIR "/docs/agents.md", limits::kMiB);
  const std::size_t begin = guide.find("```yaml\nagents:");
  ASSERT_NE(begin, std::string::npos);
  const std::size_t end = guide.find("```", begin + 3);
  const std::string example = guide.substr(begin + 8, end - begin - 8);
  EXPECT_LE(std::count(example.begin(), example.end(), '\n'), 11) << "ten lines, it says";
  const AgentAdapters adapters(yaml(example)["agents"]);
  const AgentAdapter* aider = adapters.find("aider");
  ASSERT_NE(aider, nullptr);
  const AgentCommand command = command_of(*aider, kValues, false);
  EXPECT_THAT(command.argv, Contains(kValues.prompt));
  EXPECT_THAT(command.env, Contains("OPENAI_API_BASE=http://127.0.0.1:14700/v1"));
}

TEST(AgentAdapters, ConfiguredOneOfAKnownNameThenOnlyItsMembersDiffer) {
  const AgentAdapters adapters(yaml("codex: {model: gpt-5.2}\n"));
  const AgentAdapters known;
  EXPECT_EQ(adapters.find("codex")->model, "gpt-5.2");
  EXPECT_EQ(adapters.find("codex")->argv, known.find("codex")->argv);
  EXPECT_EQ(adapters.find("codex")->files, known.find("codex")->files);
}

TEST(AgentAdapters, PromptByStdinThenItsInput) {
  const AgentAdapters adapters(yaml("mine: {argv: [mine, '-'], prompt_by_stdin: true}\n"));
  const AgentCommand command = command_of(*adapters.find("mine"), kValues, true);
  EXPECT_THAT(command.argv, ElementsAre("mine", "-")) << "it knows no other way to go on";
  EXPECT_EQ(command.input, kValues.prompt);
}

TEST(AgentAdapters, UsersOwnCommandLineThenOnlyTheSurroundingsAreTheAdapters) {
  const AgentAdapters adapters;
  const std::vector<std::string> argv = {"/opt/claude", "-p", "{prompt}"};
  const AgentCommand known = command_of(adapters.of_program(argv[0]), argv, kValues);
  EXPECT_EQ(known.argv, argv) << "what the user wrote is no template";
  EXPECT_THAT(known.env, Contains(HasSubstr("ANTHROPIC_MODEL=claude-")));
  const AgentCommand other = command_of(nullptr, argv, kValues);
  EXPECT_EQ(other.argv, argv);
  EXPECT_TRUE(other.env.empty() && other.files.empty());
}

TEST(AgentAdapters, DefectsThenAllOfThemByPointer) {
  const std::vector<std::string> found = defects(R"(
a: {argv: [a, "{promt}", "{prompt}"]}
b: {argv: [b]}
c: {argv: [c, "{prompt}"], prompt_by_stdin: true}
d: {argv: ["{prompt}"]}
e: {argv: [e, "{prompt}"], enviroment: {}}
f: {argv: [f, "{prompt}"], env: {"A-B": x, C: 1, D: "{prompt}"}}
g: {argv: [g, "{prompt}"], files: {/etc/passwd: x, a/../b: x, ok: {k: "{hom}"}, n: 5}}
h: {model: m}
i: 5
"j,k": {argv: [j, "{prompt}"]}
claude: {argv: [claude]}
)");
  for (const char* expected :
       {"/a/argv \"{promt}\" names {promt}; known are {prompt}, {endpoint}", "/b/argv has no",
        "/c/argv has a {prompt}", "/d/argv must begin with the program",
        "/e/enviroment is unknown; did you mean \"env\"?", "/f/env \"A-B\" is not the name",
        "/f/env \"C\" must be a text", "/f/env \"D\" names {prompt}", "/g/files \"/etc/passwd\"",
        "/g/files \"a/../b\"", "/g/files \"ok\" names {hom}", "/g/files \"n\" must be a text",
        "/h/argv must name", "/i must be an object", "/j,k must be a name",
        "/claude/argv has no {prompt}"}) {
    EXPECT_THAT(found, Contains(HasSubstr(expected)));
  }
  EXPECT_EQ(defects("[a, b]").size(), 1U);
  EXPECT_EQ(defects("a: {argv: [a, '{prompt}'], resume: , env: , files: , verified: }").size(), 0U);
}

}  // namespace
}  // namespace necrocode::agent
