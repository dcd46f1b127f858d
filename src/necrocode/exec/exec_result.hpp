// ExecResult: the true end of one `necrocode exec`: what its last line, its result.json and its
// exit code say. docs/exec.md has the members, and the rule by which the exit code is chosen.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/agent/agent_runner.hpp"
#include "necrocode/base/exit_code.hpp"
#include "necrocode/exec/lent_tree.hpp"
#include "necrocode/llm/metering_proxy.hpp"
#include "necrocode/process/command.hpp"
#include "necrocode/runner/run_result.hpp"

namespace necrocode::exec {

/// One call of the program.
struct ProgramRound {
  std::string name;  ///< as it was called
  process::CommandEnd end = process::CommandEnd::kExited;
  int exit_code = 0;
  int signal = 0;
  std::string limit_reached;  ///< which limit stopped something of it, or empty
  std::uint64_t output_bytes = 0;
  std::chrono::nanoseconds duration{0};
  process::ResourceUsage usage;
};

struct ExecResult {
  ExitCode exit_code = ExitCode::kInternal;
  std::string run_id;
  runner::Phase phase = runner::Phase::kValidate;  ///< the last one begun
  std::chrono::nanoseconds duration{0};
  std::string sandbox;
  std::vector<std::string> sandbox_missing;  ///< what it promises less than the strongest one
  std::optional<ProgramRound> program;       ///< the last round
  int repairs = 0;                           ///< rounds after the first
  llm::Metered provider;
  std::vector<git::FileChange> files;  ///< that the program changed
  std::optional<TakenCommits> commits;
  std::vector<std::string> tests_changed;       ///< files that look like tests, and were changed
  std::vector<std::string> protected_restored;  ///< by --protect, before the tests
  std::vector<std::string> git_put_back;        ///< planted in the clone's git directory
  std::optional<runner::TestReport> tests;
  std::optional<runner::PushResult> push;
  std::vector<runner::UploadedArtifact> artifacts;
  std::optional<runner::RunFailure> failure;

  Json to_json() const;
};

/// How a round of the program, before any test, decides the end (agent::judge()); nothing: the
/// tests do.
struct Verdict {
  ExitCode exit_code;
  std::string reason;
  std::string failure_class;
};
std::optional<Verdict> verdict_of(const process::CommandResult& program,
                                  const llm::Metered& provider, bool changed);
/// 7, 8 or 9.
ExitCode exit_code_of(llm::ExchangeClass failure);

/// The file that a command runs: its program, or what an interpreter is given. A file that it only
/// looks at is no test. Points into `command`.
std::string_view script_of(std::string_view command);
/// Whether a path looks like one of a test: by its folders and name as the common test runners know
/// them, or because one of `commands` runs it.
bool is_test_like(std::string_view path, const std::vector<std::string>& commands);

}  // namespace necrocode::exec
