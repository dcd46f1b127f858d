// A JUnit report of any bytes: read or refused with one error; what is kept is bounded, valid and
// printable, and our own report of it is one that reads the same.
#include <string>

#include "fuzz/fuzz.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/test_report.hpp"

namespace {

using namespace necrocode;
using namespace necrocode::runner;

void check_text(const std::string& text, std::size_t bytes) {
  FUZZ_CHECK(text.size() <= bytes + 100);
  FUZZ_CHECK(is_utf8(text));
  for (const std::string_view line : split(text, '\n')) FUZZ_CHECK(printable(line) == line);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Masker kMasker;
  TestReport report;
  TestCommandResult& command = report.commands.emplace_back();
  command.step = "step";
  try {
    command.cases = parse_junit(test::as_text(data, size), kMasker, 100).cases;
  } catch (const InvalidResponse&) {
    return 0;
  }
  FUZZ_CHECK(command.cases.size() <= 100);
  for (const TestCase& one : command.cases) {
    check_text(one.suite, kJunitNameBytes);
    check_text(one.classname, kJunitNameBytes);
    check_text(one.name, kJunitNameBytes);
    check_text(one.message, 10 * kJunitTextBytes);  // escaped
    check_text(one.text, 10 * kJunitTextBytes);
    FUZZ_CHECK(one.seconds >= 0);
  }
  const std::size_t count = command.cases.empty() ? 1 : command.cases.size();
  const JunitReport again = parse_junit(to_junit_xml(report), kMasker);
  FUZZ_CHECK(again.cases.size() == count);
  for (std::size_t i = 0; i < command.cases.size(); ++i) {
    FUZZ_CHECK(again.cases[i].outcome == command.cases[i].outcome);
  }
  return 0;
}
