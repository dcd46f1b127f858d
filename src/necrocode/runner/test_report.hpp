// A TestReport for others: for the model that shall mend what failed, as JSON, and as JUnit XML.
#pragma once

#include <string>

#include "necrocode/runner/test_runner.hpp"

namespace necrocode::runner {

/// What goes back to the model of the first failure, at most `bytes` bytes and the command: names
/// and messages of the test cases that failed, the new ones first; the verdict; head and tail of
/// the output. Empty when nothing has failed.
std::string describe_failure(const TestReport& report, const RedSteps& red_before,
                             std::size_t bytes);

/// Adds "cases" (how many passed, failed, were skipped) and "failed_cases" (names and messages, at
/// least one, else at most `bytes` of them) to what is told of a command that reported its cases.
void add_cases(Json& told, const TestCommandResult& command, std::size_t bytes);

/// A test suite for each step, with the cases of its last attempt; of a step without reports, one
/// case that is the step. A step that failed though no case did has a case for that.
std::string to_junit_xml(const TestReport& report);

}  // namespace necrocode::runner
