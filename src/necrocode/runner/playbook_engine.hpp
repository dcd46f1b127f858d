// PlaybookEngine: which step of a playbook runs when. It decides, and asks `run` for each command;
// nothing here starts a process.
#pragma once

#include <functional>

#include "necrocode/runner/playbook.hpp"

namespace necrocode::runner {

/// One attempt of a step, ready for the shell.
struct StepCommand {
  std::string name;   ///< of the step
  std::string shell;  ///< for `sh -c`
  std::vector<std::string> env;
  std::string working_directory;
  std::vector<std::string> junit;  ///< globs of its reports; none: the usual places
  std::optional<std::chrono::seconds> timeout;
  int attempt = 1;
  bool retry_cut_off = true;  ///< as PlaybookStep's
  bool alone = true;          ///< no other command runs beside it
};

struct StepReport {
  std::string name;
  bool skipped = false;  ///< its condition did not hold
  bool passed = false;
  int attempts = 0;        ///< passed after more than one: flaky
  bool known_red = false;  ///< failed no more than before the change, and is no target
};

/// Runs one command and says whether it passed. Called from several threads at once for a parallel
/// group.
using RunStep = std::function<bool(const StepCommand&)>;

/// Whether a step that has failed just now did so before the change, and no less. None: it did not.
using FailedBefore = std::function<bool(const std::string& step)>;

/// Runs the steps in their order, up to the first failure with fail_fast. `values`: what conditions
/// and commands ask for; the steps' own ends are added as steps.KEY.passed and steps.KEY.skipped.
/// `failed_before` is asked of steps that are no target: such a failure ends nothing. `reports`
/// holds what has been, also when this throws: PlaybookExecutionError for a value that is missing
/// or does not compare, with the step's name, or what `run` throws.
void run_playbook(const Playbook& playbook, Json values, const FailedBefore& failed_before,
                  const RunStep& run, std::vector<StepReport>& reports);

/// True when at least one step ran.
bool any_ran(const std::vector<StepReport>& reports);
/// True when at least one step passed, and none failed but those known to be red.
bool all_passed(const std::vector<StepReport>& reports);

}  // namespace necrocode::runner
