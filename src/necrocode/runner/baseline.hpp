// What failed before the change: step by step, and case by case where JUnit reports tell of them.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "necrocode/runner/test_runner.hpp"

namespace necrocode::runner {

/// Of a run of the tests at the base. A step that the round's time cut short is none of them: what
/// it would have said is not known.
RedSteps red_steps(const TestReport& at_base);

/// How a failed step failed more than it did `before` the change: "2 test cases fail that did not
/// before: A; B". Empty when it did not, as far as that is known.
std::string worse_than(const RedStep& before, const TestCommandResult& now);

/// Of the failing cases those that did not fail `before`; all when nothing is known of them.
std::vector<const TestCase*> new_failures(const RedStep& before, const TestCommandResult& now);

/// The playbook that tells of every step whether it is red: none ends the round, and each that
/// fails is tried again, since a chance failure would excuse the step for as long as the baseline
/// is kept; but not one that was cut off, which might cost its whole time once more.
Playbook baseline_of(Playbook playbook);

/// Nothing when the file is not there, or not one that keep_baseline() wrote.
std::optional<RedSteps> read_baseline(const std::filesystem::path& file);
void keep_baseline(const std::filesystem::path& file, const RedSteps& red);

}  // namespace necrocode::runner
