// TestRunner: runs the repository's own tests in the sandbox; its word decides, never the model's.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/json.hpp"
#include "necrocode/process/sandbox.hpp"
#include "necrocode/runner/junit.hpp"
#include "necrocode/runner/playbook_engine.hpp"
#include "necrocode/runner/run_log.hpp"

namespace necrocode::runner {

/// One attempt of one step.
struct TestCommandResult {
  std::string step;
  std::string command;
  int attempt = 1;
  bool last = true;  ///< of its step's attempts: this one counts
  process::CommandResult result;
  std::string changed_read_only;  ///< the first read-only file that is not as it was; or empty
  std::string not_run;            ///< why the command was not even started; or empty
  bool round_over = false;        ///< the round's time ended it, or left none for it
  std::vector<TestCase> cases{};  ///< of the JUnit reports that it wrote; only of the last attempt
  std::size_t cases_left_out = 0;
  std::string worse{};  ///< how it failed more than before the change; or empty
  bool passed() const { return result.ok() && changed_read_only.empty() && not_run.empty(); }
  /// It did not pass, and a limit of memory or processes stopped something of it.
  bool met_a_limit() const { return !result.ok() && !result.limit_reached.empty(); }
  /// "passed", "failed with exit code 1", "killed by signal 9", "timed out after 600 s",
  /// "cancelled", "changed the read-only file X", "exceeded its memory limit of 256 MiB
  /// (cgroup v1), and failed with exit code 137".
  std::string verdict() const;
  /// Its reports told of all cases, and so can be compared with another run's.
  /// By a signal, its time or a limit, or it never ran: what it would have said is not known.
  /// A shell tells a signal's end as 128 and the signal.
  bool cut_off() const {
    return result.end != process::CommandEnd::kExited || result.exit_code > 128 || met_a_limit() ||
           !not_run.empty();
  }
  bool has_all_cases() const { return !cases.empty() && cases_left_out == 0; }
};

struct TestReport {
  std::vector<TestCommandResult> commands;
  std::vector<StepReport> steps;
  std::vector<std::string> warnings;  ///< of limits that came near, or that a command lived through
  /// At least one step ran, and every one that ran passed.
  bool passed() const { return all_passed(steps); }
  bool ran() const { return any_ran(steps); }
  const TestCommandResult* first_failure() const;
  std::chrono::nanoseconds duration() const;
  /// With at most `output_bytes` of output a command, head and tail.
  Json to_json(std::size_t output_bytes) const;
};

/// How a step failed before the change.
struct RedStep {
  /// The titles of the cases that failed in it; nothing where its reports did not tell of all.
  std::optional<std::vector<std::string>> failed_cases{};
  std::size_t all_cases = 0;
  bool cut_off = false;  ///< by a signal, its time or a limit
  friend bool operator==(const RedStep&, const RedStep&) = default;
};
using RedSteps = std::map<std::string, RedStep>;

class TestRunner {
 public:
  struct Workspace {
    std::filesystem::path root;
    std::vector<std::filesystem::path> read_only;  ///< git directories that its `.git` points to
    std::vector<process::SandboxedCommand::Cover> covers;
    /// Paths below `root` that the tests see but cannot change: repositories of the user's.
    std::vector<std::string> protect;
    /// Files below `root`: a command that changes or replaces one has failed, whatever it says.
    std::vector<std::string> read_only_files;
  };
  struct Times {
    std::chrono::seconds command;   ///< for each attempt of a step that names no time
    std::chrono::seconds round{0};  ///< for all of them; 0: as long as the context lets it
  };
  /// Hears of each command as it ends, one at a time, perhaps on another thread than run()'s.
  using OnCommand = std::function<void(const TestCommandResult&)>;
  /// What the commands print is kept masked, as it came: in a JSON report the colour escapes within
  /// a secret would be another text.
  TestRunner(process::Sandbox& sandbox, RunLog& log, const Masker& masker,
             OnCommand on_command = {})
      : sandbox_(sandbox), log_(log), masker_(masker), on_command_(std::move(on_command)) {}

  /// Runs the playbook's commands by /bin/sh; `values` is what it asks for. A step that is no
  /// target may fail as `red_before` says: where both runs told of their cases, only the same ones.
  /// What the round's time does not reach has failed, as a result like any other. `report` holds
  /// what has run, also when this throws: TestExecutionError when a command cannot be started,
  /// TimeoutError when the context ends, PlaybookExecutionError.
  void run(const Workspace& workspace, const Playbook& playbook, const Json& values,
           const RedSteps& red_before, Times times, const CallContext& context, TestReport& report);

 private:
  class Round;
  process::Sandbox& sandbox_;
  RunLog& log_;
  const Masker& masker_;
  OnCommand on_command_;
};

}  // namespace necrocode::runner
