#include "necrocode/runner/test_report.hpp"

#include <algorithm>
#include <set>

#include "necrocode/base/text.hpp"
#include "necrocode/runner/baseline.hpp"

namespace necrocode::runner {
namespace {

constexpr std::size_t kMessageBytes = limits::kKiB;      // of one case, for the model
constexpr std::size_t kOutputBytes = 16 * limits::kKiB;  // of one step, in JUnit XML

std::string output_of(const TestCommandResult& command) {
  return command.result.out.text() + command.result.err.text();
}

/// Its message; and what the tool keeps in its report only, as Gradle does.
std::string describe_case(const TestCase& one, const std::string& output) {
  std::string told = one.message;
  const std::string_view first_line = std::string_view(one.text).substr(0, one.text.find('\n'));
  if (output.find(first_line) == std::string::npos && one.text != one.message) {
    told += (told.empty() ? "" : "\n") + one.text;
  }
  told = replace_all(head_and_tail(told, kMessageBytes), "\n", "\n  ");
  return "- " + one.title() + (told.empty() ? "" : ": " + told) + "\n";
}

std::string describe_cases(const TestCommandResult& failed, const RedSteps& red_before,
                           std::size_t bytes) {
  const auto before = red_before.find(failed.step);
  std::vector<const TestCase*> cases =
      new_failures(before == red_before.end() ? RedStep{} : before->second, failed);
  const std::set<const TestCase*> fresh(cases.begin(), cases.end());
  for (const TestCase& one : failed.cases) {
    if (one.failed() && !fresh.contains(&one)) cases.push_back(&one);
  }
  if (cases.empty()) return {};
  std::string text = std::to_string(cases.size()) + " of " + std::to_string(failed.cases.size()) +
                     " test cases failed:\n";
  const std::string output = output_of(failed);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string one = describe_case(*cases[i], output);
    if (text.size() + one.size() > bytes) {
      return text + "… and " + std::to_string(cases.size() - i) + " more\n";
    }
    text += one;
  }
  return text;
}

Json case_counts(const TestCommandResult& command) {
  std::int64_t failed = 0;
  std::int64_t skipped = 0;
  for (const TestCase& one : command.cases) {
    failed += one.failed() ? 1 : 0;
    skipped += one.outcome == TestCase::Outcome::kSkipped ? 1 : 0;
  }
  const auto all = static_cast<std::int64_t>(command.cases.size());
  Json counts =
      Json::object({{"passed", all - failed - skipped}, {"failed", failed}, {"skipped", skipped}});
  if (command.cases_left_out > 0) counts.set("left_out", command.cases_left_out);
  return counts;
}

// As many as fit into `bytes`, at least one.
Json failed_cases(const TestCommandResult& command, std::size_t bytes) {
  Json list = Json::array();
  std::size_t used = 0;
  for (const TestCase& one : command.cases) {
    if (!one.failed()) continue;
    const std::string name = one.title();
    used += name.size() + one.message.size();
    if (list.size() > 0 && used > bytes) break;
    list.push_back(Json::object({{"name", name}, {"message", one.message}}));
  }
  return list;
}

std::string attributes(std::initializer_list<std::pair<const char*, std::string>> list) {
  std::string text;
  for (const auto& [name, value] : list) {
    text += std::string(" ") + name + "=\"" + xml_escape(value) + "\"";
  }
  return text;
}

std::string seconds(double value) {
  std::string text = std::to_string(value);  // "1.500000", whatever the locale is: the C one
  return text.substr(0, text.find('.') + 4);
}

struct Suite {
  std::string name;
  double seconds = 0;
  std::vector<TestCase> cases{};
  std::vector<std::string> notes{};  ///< names of properties that are true
};

TestCase step_as_case(const TestCommandResult& command) {
  TestCase whole;
  whole.name = command.step;
  whole.seconds = std::chrono::duration<double>(command.result.duration).count();
  if (command.passed()) return whole;
  whole.outcome = command.result.end == process::CommandEnd::kExited ? TestCase::Outcome::kFailed
                                                                     : TestCase::Outcome::kError;
  whole.message = command.verdict();
  whole.text = head_and_tail(output_of(command), kOutputBytes);
  return whole;
}

Suite suite_of(const TestCommandResult& command) {
  Suite suite{command.step, std::chrono::duration<double>(command.result.duration).count()};
  suite.cases = command.cases;
  const bool told = std::any_of(command.cases.begin(), command.cases.end(),
                                [](const TestCase& one) { return one.failed(); });
  if (command.cases.empty() || (!command.passed() && !told)) {
    suite.cases.push_back(step_as_case(command));
  }
  return suite;
}

std::vector<Suite> suites_of(const TestReport& report) {
  std::vector<Suite> suites;
  for (const TestCommandResult& command : report.commands) {
    if (command.last) suites.push_back(suite_of(command));
  }
  for (const StepReport& step : report.steps) {
    if (step.skipped) {
      TestCase whole;
      whole.name = step.name;
      whole.outcome = TestCase::Outcome::kSkipped;
      whole.message = "the step's condition did not hold";
      suites.push_back({step.name, 0, {std::move(whole)}});
      continue;
    }
    for (Suite& suite : suites) {
      if (suite.name != step.name) continue;
      if (step.known_red) suite.notes.emplace_back("known_failure");
      if (step.passed && step.attempts > 1) suite.notes.emplace_back("flaky");
    }
  }
  return suites;
}

std::size_t count(const Suite& suite, TestCase::Outcome outcome) {
  return static_cast<std::size_t>(
      std::count_if(suite.cases.begin(), suite.cases.end(),
                    [&](const TestCase& one) { return one.outcome == outcome; }));
}

std::string case_xml(const TestCase& one, const Suite& suite) {
  std::string classname = one.classname.empty() ? one.suite : one.classname;
  if (classname.empty()) classname = suite.name;
  std::string xml =
      "    <testcase" +
      attributes({{"name", one.name}, {"classname", classname}, {"time", seconds(one.seconds)}});
  if (!one.file.empty()) xml += attributes({{"file", one.file}});
  const char* tag = one.outcome == TestCase::Outcome::kFailed    ? "failure"
                    : one.outcome == TestCase::Outcome::kError   ? "error"
                    : one.outcome == TestCase::Outcome::kSkipped ? "skipped"
                                                                 : nullptr;
  if (!tag) return xml + "/>\n";
  xml += std::string(">\n      <") + tag + attributes({{"message", one.message}});
  xml += one.text.empty() ? "/>" : ">" + xml_escape(one.text) + "</" + tag + ">";
  return xml + "\n    </testcase>\n";
}

}  // namespace

std::string describe_failure(const TestReport& report, const RedSteps& red_before,
                             std::size_t bytes) {
  const TestCommandResult* failed = report.first_failure();
  if (!failed) return {};
  const std::string cases = describe_cases(*failed, red_before, bytes / 2);
  const std::string output =
      head_and_tail(output_of(*failed), bytes - std::min(bytes, cases.size()));
  return cases + "$ " + failed->command + "\n" + failed->verdict() + "\n" + to_valid_utf8(output) +
         "\n";
}

void add_cases(Json& told, const TestCommandResult& command, std::size_t bytes) {
  if (command.cases.empty() && command.cases_left_out == 0) return;
  told.set("cases", case_counts(command));
  told.set("failed_cases", failed_cases(command, bytes));
}

std::string to_junit_xml(const TestReport& report) {
  std::string xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"necrocode\">\n";
  for (const Suite& suite : suites_of(report)) {
    xml += "  <testsuite" +
           attributes({{"name", suite.name},
                       {"tests", std::to_string(suite.cases.size())},
                       {"failures", std::to_string(count(suite, TestCase::Outcome::kFailed))},
                       {"errors", std::to_string(count(suite, TestCase::Outcome::kError))},
                       {"skipped", std::to_string(count(suite, TestCase::Outcome::kSkipped))},
                       {"time", seconds(suite.seconds)}}) +
           ">\n";
    if (!suite.notes.empty()) {
      xml += "    <properties>\n";
      for (const std::string& note : suite.notes) {
        xml += "      <property" + attributes({{"name", note}, {"value", "true"}}) + "/>\n";
      }
      xml += "    </properties>\n";
    }
    for (const TestCase& one : suite.cases) xml += case_xml(one, suite);
    xml += "  </testsuite>\n";
  }
  return xml + "</testsuites>\n";
}

}  // namespace necrocode::runner
