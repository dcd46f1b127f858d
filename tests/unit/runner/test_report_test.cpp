#include "necrocode/runner/test_report.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/file.hpp"
#include "necrocode/runner/baseline.hpp"

namespace necrocode::runner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

TestCase a_case(const std::string& name, const std::string& message = "") {
  TestCase one;
  one.name = name;
  one.outcome = message.empty() ? TestCase::Outcome::kPassed : TestCase::Outcome::kFailed;
  one.message = message;
  return one;
}

TestCommandResult a_result(const std::string& step, int exit_code, std::vector<TestCase> cases,
                           const std::string& output = "") {
  TestCommandResult one;
  one.step = step;
  one.command = "run " + step;
  one.result.exit_code = exit_code;
  one.result.out.head = output;
  one.cases = std::move(cases);
  return one;
}

TestReport a_report(std::vector<TestCommandResult> commands) {
  TestReport report;
  for (const TestCommandResult& command : commands) {
    StepReport& step = report.steps.emplace_back();
    step.name = command.step;
    step.passed = command.passed();
    step.attempts = 1;
  }
  report.commands = std::move(commands);
  return report;
}

TEST(DescribeFailure, WithCasesThenTheyComeFirst) {
  const TestReport report = a_report({a_result(
      "unit", 8, {a_case("fine"), a_case("sums", "3 is not 4\nat line 5"), a_case("x", "y")},
      "the output\n")});
  EXPECT_EQ(describe_failure(report, {}, 8192),
            "2 of 3 test cases failed:\n- sums: 3 is not 4\n  at line 5\n- x: y\n$ run unit\n"
            "failed with exit code 8\nthe output\n\n");
}

TEST(DescribeFailure, WithoutCasesThenCommandVerdictAndOutput) {
  EXPECT_EQ(describe_failure(a_report({a_result("unit", 8, {}, "the output\n")}), {}, 8192),
            "$ run unit\nfailed with exit code 8\nthe output\n\n");
  EXPECT_EQ(describe_failure(a_report({a_result("unit", 0, {})}), {}, 8192), "");
}

TEST(DescribeFailure, WithCasesThatFailedBeforeThenTheNewOnesComeFirst) {
  const TestReport report =
      a_report({a_result("unit", 8, {a_case("old", "known"), a_case("new", "fresh")})});
  EXPECT_THAT(describe_failure(report, {{"unit", {{{"old"}}, 2}}}, 8192),
              StartsWith("2 of 2 test cases failed:\n- new: fresh\n- old: known\n"));
}

TEST(DescribeFailure, OfTextThatOnlyTheReportHasThenItIsTold) {
  TestCase one = a_case("sums", "3 is not 4");
  one.text = "at Sums.java:5";
  EXPECT_THAT(describe_failure(a_report({a_result("unit", 1, {one}, "BUILD FAILED")}), {}, 8192),
              StartsWith("1 of 1 test cases failed:\n- sums: 3 is not 4\n  at Sums.java:5\n"));
  EXPECT_THAT(describe_failure(a_report({a_result("unit", 1, {one}, "at Sums.java:5")}), {}, 8192),
              StartsWith("1 of 1 test cases failed:\n- sums: 3 is not 4\n$ "));
}

TEST(DescribeFailure, OfMuchThenBoundedWithRoomForTheOutput) {
  std::vector<TestCase> cases;
  for (int i = 0; i < 1000; ++i) cases.push_back(a_case("case", std::string(5000, 'x')));
  const std::string text = describe_failure(
      a_report({a_result("unit", 1, cases, "head" + std::string(100'000, '.') + "tail")}), {},
      8192);
  EXPECT_LT(text.size(), 8192U + 200U);
  EXPECT_THAT(text, HasSubstr("… and 997 more\n$ run unit"));
  EXPECT_THAT(text, HasSubstr("\nhead"));
  EXPECT_THAT(text, HasSubstr("tail\n"));
}

TEST(JunitXml, OfAReportThenReadAgainTheSame) {
  TestReport report = a_report(
      {a_result("unit <&\"", 8, {a_case("fine"), a_case("s\"um", "3 < 4 & \x01")}),
       a_result("lint", 2, {}, "bad ]]> style"), a_result("odd", 3, {a_case("all pass")})});
  StepReport& skipped = report.steps.emplace_back();
  skipped.name = "docs";
  skipped.skipped = true;
  const std::string xml = to_junit_xml(report);
  EXPECT_THAT(xml, HasSubstr("<testsuite name=\"unit &lt;&amp;&quot;\" tests=\"2\" failures=\"1\" "
                             "errors=\"0\" skipped=\"0\" time=\"0.000\">"));
  const JunitReport read = parse_junit(xml, Masker());
  ASSERT_EQ(read.cases.size(), 6U);
  EXPECT_EQ(read.cases[1].name, "s\"um");
  EXPECT_EQ(read.cases[1].message, "3 < 4 & \uFFFD");
  EXPECT_EQ(read.cases[2].name, "lint");
  EXPECT_EQ(read.cases[2].message, "failed with exit code 2");
  EXPECT_EQ(read.cases[2].text, "bad ]]> style");
  EXPECT_FALSE(read.cases[3].failed());
  EXPECT_EQ(read.cases[4].name, "odd");  // the step failed, though no case did
  EXPECT_TRUE(read.cases[4].failed());
  EXPECT_EQ(read.cases[5].outcome, TestCase::Outcome::kSkipped);
}

TEST(JunitXml, OfSeveralAttemptsThenTheLastCountsAndTheStepIsFlaky) {
  TestReport report = a_report({a_result("unit", 1, {}), a_result("unit", 0, {a_case("fine")})});
  report.commands[0].last = false;
  report.steps.erase(report.steps.begin());
  report.steps[0].attempts = 2;
  const std::string xml = to_junit_xml(report);
  EXPECT_EQ(parse_junit(xml, Masker()).cases.size(), 1U);
  EXPECT_THAT(xml, HasSubstr("<property name=\"flaky\" value=\"true\"/>"));
}

TEST(Baseline, OfARunThenTheStepsAndCasesThatFailed) {
  TestReport report = a_report({a_result("green", 0, {a_case("a")}), a_result("bare", 1, {}),
                                a_result("unit", 1, {a_case("a"), a_case("b", "x")}),
                                a_result("cut", 1, {}), a_result("again", 1, {})});
  report.commands[3].round_over = true;
  report.commands[4].last = false;
  const RedSteps red = red_steps(report);
  EXPECT_EQ(red, (RedSteps{{"bare", {}}, {"unit", {{{"b"}}, 2}}}));

  TemporaryDirectory folder;
  const auto file = folder.path() / "new" / "kept.json";
  EXPECT_EQ(read_baseline(file), std::nullopt);
  keep_baseline(file, red);
  EXPECT_EQ(read_baseline(file), red);
}

TEST(Baseline, OfAnotherVersionThenNotUsed) {
  TemporaryDirectory folder;
  write_file_atomic(folder.path() / "old", R"({"red":["unit"]})");
  write_file_atomic(folder.path() / "broken", "{\"red_steps\":");
  EXPECT_EQ(read_baseline(folder.path() / "old"), std::nullopt);
  EXPECT_EQ(read_baseline(folder.path() / "broken"), std::nullopt);
}

TEST(Baseline, WhatFailsMoreThanBeforeThenSaid) {
  const auto now = a_result("unit", 1, {a_case("a", "x"), a_case("a", "x"), a_case("b", "x")});
  const auto red = [](std::vector<std::string> failed, std::size_t all = 3) {
    return RedStep{std::move(failed), all};
  };
  EXPECT_EQ(worse_than({}, now), "");
  EXPECT_EQ(worse_than(red({"a", "a", "b", "gone"}), now), "");
  EXPECT_EQ(worse_than(red({"a", "a"}), now), "1 test case fails that did not before: b");
  EXPECT_EQ(worse_than(red({"a", "b"}), now), "1 test case fails that did not before: a");
  EXPECT_EQ(worse_than(red({}), now), "3 test cases fail that did not before: a; a; b");
  EXPECT_EQ(worse_than(red({"a"}), a_result("unit", 1, {})),
            "before the change it reported its test cases, now it does not");
}

TEST(Baseline, StepThatNoLongerComesToItsEndThenWorse) {
  auto now = a_result("unit", 1, {a_case("a", "x")});
  const RedStep before{{{"a"}}, 3};
  EXPECT_EQ(worse_than(before, now), "before the change it ran 3 test cases, now 1");
  now.result.end = process::CommandEnd::kSignalled;
  EXPECT_EQ(worse_than(before, now), "before the change it came to its end");
  EXPECT_EQ(worse_than({}, now), "before the change it came to its end");
  now.result.end = process::CommandEnd::kTimedOut;
  EXPECT_EQ(worse_than({}, now), "before the change it came to its end");
  EXPECT_EQ(worse_than({std::nullopt, 0, true}, now), "");
  // As a shell tells of a program that a signal ended.
  EXPECT_EQ(worse_than({}, a_result("unit", 134, {})), "before the change it came to its end");
}

}  // namespace
}  // namespace necrocode::runner
