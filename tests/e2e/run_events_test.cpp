// docs/run-events.schema.json says what `run --json` prints: here every line of runs that end in
// different ways is held against it, with nothing beside what it names.
#include <map>

#include "e2e/run_fixture.hpp"
#include "support/api_document.hpp"

namespace necrocode::test {
namespace {

class RunEvents : public Run {
 protected:
  void SetUp() override { make_remote({{"README", "hello\n"}}); }

  /// Runs it, checks each line; how often each type came.
  std::map<std::string, int> types_of(const Json& task, std::vector<std::string> more = {}) {
    const Json schema = Json::parse(read_file(
        std::string(NECROCODE_SOURCE_DIR) + "/docs/run-events.schema.json", limits::kMiB));
    std::vector<std::string> arguments = {"run",     write_task(task),      "--json",
                                          "--data",  path("data").string(), "--llm-endpoint",
                                          endpoint()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::string output;
    run(arguments, &output);
    std::map<std::string, int> types;
    const ApiDocument checker{Json()};
    for (const std::string_view line : split(output, '\n')) {
      if (line.empty()) continue;
      const Json event = Json::parse(line);
      const std::string type = event["type"].string_or("");
      const Json* of_type = schema["$defs"].find(type);
      EXPECT_NE(of_type, nullptr) << line;
      if (!of_type) continue;
      std::vector<std::string> wrong;
      checker.validate(event, *of_type, type, true, wrong);
      EXPECT_TRUE(wrong.empty()) << join(wrong, "\n") << "\n" << line;
      ++types[type];
    }
    EXPECT_TRUE(output.find("\"type\":\"result\"") > output.rfind("\"type\":\"phase\""));
    EXPECT_EQ(types["result"], 1);
    return types;
  }
};

TEST_F(RunEvents, OfARunWithARepairAreAsDeclared) {
  serve_model({answer(change({{"file.txt", "bad\n"}})), answer(change({{"file.txt", "good\n"}}))});
  Json noted = task();
  noted.set("colour", "blue");
  auto types = types_of(noted);
  for (const char* type : {"phase", "model_call", "edit", "command", "test", "commit", "push",
                           "artifact", "warning"}) {
    EXPECT_GT(types[type], 0) << type;
  }
  EXPECT_EQ(types["model_call"], 2);
  EXPECT_EQ(types["command"], 4);  // the baseline's two, and one a round
}

TEST_F(RunEvents, OfARunThatFailsAreAsDeclared) {
  serve_model({raw_answer(500, Json::object({{"error", "down"}}), 1),
               answer(change({{"../x", "bad\n"}})), answer(Json("no JSON at all"), 0)});
  auto types = types_of(task());
  EXPECT_EQ(types["model_call"], 3);
  EXPECT_EQ(types["edit"], 0);
  EXPECT_EQ(types["push"], 0);
  EXPECT_EQ(types["retry"], 1);
}

TEST_F(RunEvents, OfPlanAndDryRunAreAsDeclared) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  EXPECT_EQ(types_of(task(), {"--plan"})["plan"], 1);
  auto types = types_of(task(), {"--dry-run"});
  EXPECT_EQ(types["commit"], 1);
  EXPECT_EQ(types["push"], 0);
}

}  // namespace
}  // namespace necrocode::test
