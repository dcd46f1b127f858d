#include "necrocode/runner/test_runner.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;
using testing::IsEmpty;

class RunningTests : public testing::Test {
 protected:
  TestReport run(const std::vector<std::string>& commands, bool fail_fast = true,
                 std::chrono::seconds timeout = std::chrono::seconds{60},
                 const CallContext& context = {}) {
    TestReport report;
    TestRunner(*sandbox_, log_, masker_)
        .run({root(), {}, {}, {}, read_only_files_}, playbook_of(commands, fail_fast), {}, {},
             {timeout}, context, report);
    return report;
  }
  TestReport run_book(const std::string& text) {
    TestReport report;
    TestRunner(*sandbox_, log_, masker_)
        .run({root(), {}, {}, {}, {}}, read_playbook(text, "book.yaml"), {}, {},
             {std::chrono::seconds{60}}, {}, report);
    return report;
  }
  const fs::path& root() const { return folder_.path(); }
  std::vector<std::string> read_only_files_;
  std::string verdict_;

  TemporaryDirectory folder_;
  TemporaryDirectory log_folder_;
  process::Supervisor supervisor_;
  std::unique_ptr<process::Sandbox> sandbox_ = process::make_unsandboxed(supervisor_);
  Masker masker_;
  RunLog log_{log_folder_.path() / "log", masker_};
};

TEST_F(RunningTests, AllPassThenTheReportPasses) {
  const TestReport report = run({"true", "echo fine"});
  EXPECT_TRUE(report.passed());
  EXPECT_EQ(report.commands.size(), 2U);
  EXPECT_EQ(report.commands[1].result.out.text(), "fine\n");
}

TEST_F(RunningTests, FirstFailureThenTheRestIsLeftOutWhenFailFast) {
  EXPECT_EQ(run({"exit 3", "true"}).commands.size(), 1U);
  const TestReport all = run({"exit 3", "true"}, false);
  EXPECT_EQ(all.commands.size(), 2U);
  EXPECT_FALSE(all.passed());
  EXPECT_EQ(all.first_failure()->verdict(), "failed with exit code 3");
}

TEST_F(RunningTests, NoCommandThenNotPassed) {
  EXPECT_FALSE(run({}).passed());
}

TEST_F(RunningTests, CommandThatTouchesAReadOnlyFileThenItHasFailed) {
  fs::create_directories(root() / "tests");
  for (int i = 0; i < 300; ++i) {
    read_only_files_.push_back("tests/check" + std::to_string(i));
    write_file_atomic(root() / read_only_files_.back(), "exit 1\n");
  }
  EXPECT_TRUE(run({"cat tests/check7; echo new > tests/other"}).passed());
  for (const char* script :
       {"echo exit 0 > tests/check299", "touch -d @0 tests/check299",
        "mv tests/check299 x; echo exit 0 > tests/check299; mv x tests/check299",
        "chmod +x tests/check299", "rm tests/check299"}) {
    const TestReport report = run({script});
    EXPECT_FALSE(report.passed()) << script;
    EXPECT_EQ(report.commands[0].verdict(), "changed the read-only file tests/check299") << script;
  }
}

TEST_F(RunningTests, StepWhoseFolderIsNotThereThenItHasFailedAndTheOthersRun) {
  fs::create_directories(root() / "real");
  fs::create_symlink("/etc", root() / "link");
  const TestReport report = run_book(R"(
steps:
  - {name: Gone, command: "true", working_directory: gone, fail_fast: false}
  - {name: Link, command: "true", working_directory: link, fail_fast: false}
  - {name: Made, command: "true", working_directory: real}
)");
  EXPECT_FALSE(report.passed());
  ASSERT_EQ(report.commands.size(), 3U);
  EXPECT_EQ(report.commands[0].verdict(),
            "its working_directory \"gone\" is no folder of the repository");
  EXPECT_FALSE(report.commands[1].passed());
  EXPECT_TRUE(report.commands[2].passed());
}

TEST_F(RunningTests, StepThatPassesAtItsSecondAttemptThenFlakyAndTheFirstDoesNotCount) {
  const TestReport report =
      run_book("steps: [{name: F, command: 'test -e x || { touch x; exit 1; }', retry_count: 2}]");
  EXPECT_TRUE(report.passed());
  EXPECT_EQ(report.first_failure(), nullptr);
  ASSERT_EQ(report.commands.size(), 2U);
  EXPECT_FALSE(report.commands[0].last);
  EXPECT_EQ(report.to_json(100)["flaky"], Json(Json::Array{"F"}));
}

TEST_F(RunningTests, ParallelStepsThenTheirOutputIsWholeInTheLog) {
  const TestReport report = run_book(R"(
steps:
  - name: G
    parallel:
      - {name: A, command: "for i in 1 2 3 4 5 6 7 8 9; do echo aaaa; done"}
      - {name: B, command: "for i in 1 2 3 4 5 6 7 8 9; do echo bbbb; done"}
)");
  EXPECT_TRUE(report.passed());
  const std::string log = read_file(log_.path(), 10000);
  EXPECT_THAT(log, testing::HasSubstr("aaaa\naaaa\naaaa\naaaa\naaaa\naaaa\naaaa\naaaa\naaaa\n"));
  EXPECT_THAT(log, testing::HasSubstr("bbbb\nbbbb\nbbbb\nbbbb\nbbbb\nbbbb\nbbbb\nbbbb\nbbbb\n"));
}

TEST_F(RunningTests, SecretWithColoursInItThenInNoReport) {
  const Secret secret("s3cret-token-value");
  masker_ = Masker({&secret});
  const TestReport report = run({"printf 's3cret\\033[31m-token-val\\033[0mue and more'"});
  EXPECT_EQ(report.commands.at(0).result.out.text(), "*** and more");
  EXPECT_EQ(report.to_json(1000)["commands"].items().at(0)["stdout"]["text"], Json("*** and more"));
}

TEST_F(RunningTests, CommandTimeThenTimedOutIsAResult) {
  const TestReport report = run({"sleep 1000"}, true, std::chrono::seconds{1});
  EXPECT_FALSE(report.passed());
  EXPECT_THAT(report.commands[0].verdict(), testing::StartsWith("timed out"));
}

TEST_F(RunningTests, CancelledThenAnError) {
  std::stop_source stop;
  stop.request_stop();
  CallContext context;
  context.stop = stop.get_token();
  EXPECT_THROW(run({"sleep 1000"}, true, std::chrono::seconds{60}, context), TimeoutError);
}

TEST_F(RunningTests, OutputThenInTheLog) {
  run({"echo to-the-log; echo also >&2"});
  EXPECT_THAT(read_file(log_.path(), 10000),
              testing::AllOf(testing::HasSubstr("to-the-log"), testing::HasSubstr("also")));
}

constexpr const char* kWrite = R"(cat > junit.xml <<X
<testsuite><testcase name='sums'><failure message='3 is not 4'/></testcase>
<testcase name='fine'/><testcase name='later'><skipped/></testcase></testsuite>
X
)";

TEST_F(RunningTests, ReportThatTheCommandWritesThenItsCasesAreTold) {
  const TestReport report = run({kWrite + std::string("exit 1")});
  const Json command = report.to_json(1000)["commands"].items().at(0);
  EXPECT_EQ(command["cases"], Json::parse(R"({"passed":1,"failed":1,"skipped":1})"));
  EXPECT_EQ(command["failed_cases"], Json::parse(R"([{"name":"sums","message":"3 is not 4"}])"));
  // Of the next command it is not.
  EXPECT_THAT(run({"exit 1"}).commands.at(0).cases, IsEmpty());
}

TEST_F(RunningTests, ReportsAtPlacesThatTheStepNamesThenOnlyThose) {
  const TestReport report = run_book(std::string(R"(
steps:
  - name: A
    junit: [out/**/*.xml]
    working_directory: sub
    command: |
      mkdir -p ../out/deep
      echo "<testsuite><testcase name='usual'/></testsuite>" > junit.xml
      echo "<testsuite><testcase name='own'/></testsuite>" > ../out/deep/a.xml
)"));
  EXPECT_THAT(report.commands.at(0).cases, IsEmpty());  // no such folder yet
  fs::create_directories(root() / "sub");
  const TestReport again = run_book(std::string(R"(
steps:
  - name: A
    junit: [out/**/*.xml]
    working_directory: sub
    command: |
      mkdir -p ../out/deep
      echo "<testsuite><testcase name='usual'/></testsuite>" > junit.xml
      echo "<testsuite><testcase name='own'/></testsuite>" > ../out/deep/a.xml
)"));
  ASSERT_EQ(again.commands.at(0).cases.size(), 1U);
  EXPECT_EQ(again.commands[0].cases[0].name, "own");
}

TEST_F(RunningTests, ParallelStepsThenAReportIsOnlyOfWhoNamesIt) {
  const TestReport report = run_book(R"(
steps:
  - name: G
    parallel:
      - {name: A, junit: a.xml, command: "echo '<testsuite><testcase name=\"a\"/></testsuite>' > a.xml"}
      - {name: B, command: "echo '<testsuite><testcase name=\"b\"/></testsuite>' > junit.xml"}
)");
  ASSERT_EQ(report.commands.size(), 2U);
  for (const TestCommandResult& one : report.commands)
    EXPECT_EQ(one.cases.size(), one.step == "A" ? 1U : 0U) << one.step;
}

TEST_F(RunningTests, StepThatFailsInACaseThatPassedBeforeThenNotTolerated) {
  Playbook book = playbook_of({kWrite + std::string("exit 1"), "true"}, true);
  book.steps[0].target = false;
  const std::string step = book.steps[0].name;
  const auto passes = [&](const RedSteps& red) {
    TestReport report;
    TestRunner(*sandbox_, log_, masker_)
        .run({root(), {}, {}, {}, {}}, book, {}, red, {std::chrono::seconds{60}}, {}, report);
    fs::remove(root() / "junit.xml");
    verdict_ = report.commands.at(0).verdict();
    return report.passed();
  };
  EXPECT_TRUE(passes({{step, {{{"sums", "another"}}, 1}}}));
  EXPECT_TRUE(passes({{step, {}}}));
  EXPECT_FALSE(passes({}));
  EXPECT_FALSE(passes({{step, {{{"another"}}, 1}}}));
  EXPECT_EQ(verdict_, "failed with exit code 1; 1 test case fails that did not before: sums");
}

TEST_F(RunningTests, TimeOfTheRoundIsOverThenTheRestIsNotRun) {
  TestReport report;
  TestRunner(*sandbox_, log_, masker_)
      .run({root(), {}, {}, {}, {}}, playbook_of({"true", "sleep 1000", "true"}, false, 3), {}, {},
           {std::chrono::seconds{60}, std::chrono::seconds{1}}, {}, report);
  EXPECT_FALSE(report.passed());
  ASSERT_EQ(report.commands.size(), 3U);  // no attempt more
  EXPECT_TRUE(report.commands[0].passed());
  EXPECT_THAT(report.commands[1].verdict(),
              testing::MatchesRegex("timed out after .* whole round"));
  EXPECT_TRUE(report.commands[1].last);
  EXPECT_EQ(report.commands[2].verdict(),
            "not run, as the time of the whole round (1.0 s) was over");
  EXPECT_EQ(report.first_failure(), &report.commands[1]);
}

TEST_F(RunningTests, CommandThatPassesWhenTriedAgainThenFlaky) {
  TestReport report;
  TestRunner(*sandbox_, log_, masker_)
      .run({root(), {}, {}, {}, {}},
           playbook_of({"test -e x || { touch x; " + std::string(kWrite) + "exit 1; }"}, true, 1),
           {}, {}, {std::chrono::seconds{60}}, {}, report);
  EXPECT_TRUE(report.passed());
  EXPECT_EQ(report.to_json(100)["flaky"].size(), 1U);
  EXPECT_THAT(report.commands.at(0).cases, IsEmpty());  // of an attempt that does not count
}

}  // namespace
}  // namespace necrocode::runner
