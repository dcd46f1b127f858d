// Test cases, from the tool's own report to the model, the artifacts and the baseline.
#include "e2e/run_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

class RunWithReports : public Run {
 protected:
  Json report() { return Json::parse(read_file(path("out/tests.json"), limits::kMiB)); }
  /// What the model was asked the `n`th time, from 0.
  std::string prompt(std::size_t n) {
    std::vector<std::string> prompts;
    const std::string text = read_file(path("out/transcript.jsonl"), limits::kMiB);
    for (const std::string_view line : split(text, '\n')) {
      const auto entry = Json::try_parse(line);
      if (entry && (*entry)["prompt"].is_string())
        prompts.push_back((*entry)["prompt"].string_or(""));
    }
    return prompts.size() > n ? prompts[n] : "";
  }
  Json without_commands() {
    Json given = task();
    given.erase("test_commands");
    return given;
  }
};

TEST_F(RunWithReports, OfCTestThenTheFailingCaseIsInTheRepairAndTheArtifacts) {
  make_remote({{"CMakeLists.txt",
                "cmake_minimum_required(VERSION 3.21)\nproject(calc CXX)\nenable_testing()\n"
                "add_executable(check check.cpp)\nadd_test(NAME adds COMMAND check 1 2 3)\n"
                "add_test(NAME doubles COMMAND check 2 2 4)\n"},
               {"add.hpp", "inline int add(int a, int) { return a; }\n"},
               {"check.cpp",
                "#include \"add.hpp\"\n#include <cstdio>\n#include <cstdlib>\n"
                "int main(int, char** v) {\n  const int sum = add(std::atoi(v[1]), "
                "std::atoi(v[2]));\n  std::printf(\"the sum is %d\\n\", sum);\n"
                "  return sum == std::atoi(v[3]) ? 0 : 1;\n}\n"}});
  const Json wrong = change({{"add.hpp", "inline int add(int a, int b) { return a * b; }\n"}});
  serve_model({answer(wrong, 0)});
  Json result;
  ASSERT_EQ(run_task(without_commands(), {}, &result), 1) << stderr_text();
  EXPECT_THAT(prompt(1),
              HasSubstr("on top of what is there.\n1 of 2 test cases failed:\n- (empty) > adds"));
  const Json ctest = report()["commands"].items().at(2);
  EXPECT_EQ(ctest["cases"], Json::parse(R"({"passed":1,"failed":1,"skipped":0})"));
  EXPECT_EQ(ctest["failed_cases"].items().at(0)["name"], Json("(empty) > adds"));
  const std::string xml = read_file(path("out/junit.xml"), limits::kMiB);
  EXPECT_THAT(xml, HasSubstr("tests=\"2\" failures=\"1\""));
  EXPECT_THAT(xml, HasSubstr("<testcase name=\"adds\""));
  EXPECT_THAT(xml, HasSubstr(">the sum is 2</failure>"));
  EXPECT_THAT(result["artifacts"].dump(), HasSubstr("\"junit\""));
}

TEST_F(RunWithReports, ThatWereCommittedThenNotOfThisRun) {
  make_remote(
      {{"junit.xml", "<testsuite><testcase name='stale'><failure/></testcase></testsuite>"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  ASSERT_EQ(run_task(task()), 0) << stderr_text();
  EXPECT_TRUE(report()["commands"].items().at(0)["cases"].is_null());
}

// A playbook's step that was red at the base may stay so, but in no other case.
TEST_F(RunWithReports, OfAStepThatWasRedThenItMayFailInTheSameCasesOnly) {
  make_remote({{"lint.sh",
                "echo '<testsuite><testcase name=\"old\"><failure/></testcase>"
                "<testcase name=\"new\">' > lint.xml\n"
                "test ! -e bad.txt || echo '<failure message=\"bad\"/>' >> lint.xml\n"
                "echo '</testcase></testsuite>' >> lint.xml\nexit 1\n"}});
  write_file_atomic(path("book.yaml"),
                    "steps: [{name: Lint, command: sh lint.sh, junit: lint.xml}]\n");
  const std::vector<std::string> with = {"--playbook", path("book.yaml").string()};
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  ASSERT_EQ(run_task(task(), with), 0) << stderr_text();
  EXPECT_EQ(report()["known_failures"], Json(Json::Array{"Lint"}));

  serve_model({answer(change({{"file.txt", "good\n"}, {"bad.txt", "x"}}), 0)});
  Json result;
  EXPECT_EQ(run_task(task("2"), with, &result), 1);
  EXPECT_THAT(result["error"]["reason"].string_or(""),
              HasSubstr("1 test case fails that did not before: new"));
  EXPECT_THAT(prompt(1), HasSubstr("2 of 2 test cases failed:\n- new: bad\n- old"));
}

TEST_F(RunWithReports, CommandThatPassesWhenTriedAgainThenTheRunPassesAndSaysFlaky) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  Json given = task();
  given.set("test_commands", Json::Array{"grep -q good file.txt && "
                                         "{ test -e seen || { touch seen; exit 1; }; }"});
  EXPECT_EQ(run_task(given, {"--no-baseline"}), 1);
  ASSERT_EQ(run_task(given, {"--no-baseline", "--retry-tests", "1"}), 0) << stderr_text();
  EXPECT_EQ(report()["flaky"].size(), 1U);
  // At the base, too: what passes when tried again was not red.
  given.set("test_commands", Json::Array{"test -e seen || { touch seen; exit 1; }"});
  Json result;
  ASSERT_EQ(run_task(given, {"--retry-tests", "1"}, &result), 0) << stderr_text();
  EXPECT_EQ(result["red_at_base"], Json(Json::Array{}));
  EXPECT_EQ(run_task(given, {"--retry-tests", "6"}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("--retry-tests"));
}

TEST_F(RunWithReports, TimeOfAllTestsIsOverThenTheyFailAndTheBaselineKnowsNothingOfIt) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  write_file_atomic(path("config.yaml"), "tests_total_timeout_seconds: 1\nmax_repairs: 0\n");
  Json given = task();
  given.set("test_commands", Json::Array{"true", "sleep 1000", "true"});
  given.set("fail_fast", false);
  Json result;
  EXPECT_EQ(run_task(given, {"--config", path("config.yaml").string()}, &result), 1);
  EXPECT_THAT(result["error"]["reason"].string_or(""), HasSubstr("time of the whole round"));
  EXPECT_EQ(result["red_at_base"], Json(Json::Array{}));
  EXPECT_THAT(report()["commands"].items().at(2)["verdict"].string_or(""), HasSubstr("not run"));
}

}  // namespace
}  // namespace necrocode::test
