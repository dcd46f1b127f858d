// RunResult: the true end of a run, as `--json`, result.json and the registry tell it.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/exit_code.hpp"
#include "necrocode/git/repository.hpp"
#include "necrocode/llm/model.hpp"
#include "necrocode/runner/test_runner.hpp"
#include "necrocode/runner/workspace.hpp"

namespace necrocode::runner {

/// The phases in their order (SPEC section 9).
enum class Phase {
  kValidate,
  kAllocate,
  kPrepare,
  kBaseline,
  kImplement,
  kTest,
  kRepair,
  kCommit,
  kPush,
  kUpload,
  kReport,
  kRelease,
};
std::string_view to_string(Phase phase);

/// How far a run goes.
enum class RunExtent {
  kWhole,
  kWithoutPush,  ///< `--dry-run`: no push, nothing told to registry or artifact store
  kPlan,         ///< `--plan`: up to the prompt, which is shown
};

struct UploadedArtifact {
  std::string type;
  std::string name;
  std::string uri;  ///< of the store, or the local path when there is none or it was out of reach
  std::uint64_t size_bytes = 0;
  std::string sha256;
  bool stored = false;  ///< by the artifact store
};

struct RunFailure {
  Phase phase = Phase::kValidate;
  std::string reason;
  std::string failure_class;  ///< agent, tests, infrastructure, quota, conflict, cancelled
  std::optional<SystemTime> retry_at;
};

struct RunResult {
  ExitCode exit_code = ExitCode::kInternal;
  std::string runner_id;
  std::string task_id;
  std::string sandbox;  ///< what the tests ran in: "bubblewrap", "landlock" or "unsandboxed"
  std::vector<std::string> sandbox_missing;  ///< what it promises less than the strongest one
  Phase phase = Phase::kValidate;            ///< the last one begun
  std::chrono::nanoseconds duration{0};
  std::vector<UploadedArtifact> artifacts;
  std::vector<git::FileChange> files;
  std::string executor;  ///< the last one that was asked: "llm", "command:codex"
  std::string model;
  llm::Usage usage;
  int model_calls = 0;
  int repairs = 0;
  int reasks = 0;
  bool adopted = false;  ///< the branch already held this task's work, and its tests pass
  std::optional<TestReport> tests;
  std::vector<std::string> red_at_base;  ///< steps that failed before the change
  std::optional<PushResult> push;
  std::optional<RunFailure> failure;
  RunExtent extent = RunExtent::kWhole;

  /// The change is pushed, and the tests pass. A dry run never is, although it ends with kDone.
  bool success() const { return exit_code == ExitCode::kDone && extent == RunExtent::kWhole; }
  /// "done", "planned", "failed", "cancelled", "unverified": one word for people.
  std::string_view outcome() const;
  Json to_json() const;
};

// What all results have in common, those of `exec` too.

/// "done", "failed", "cancelled", "unverified".
std::string_view outcome_of(ExitCode exit_code);
Json files_json(const std::vector<git::FileChange>& files);
Json artifacts_json(const std::vector<UploadedArtifact>& artifacts);
Json to_json(const PushResult& push);
Json to_json(const RunFailure& failure);

/// What an error means for a run: its exit code, class and words.
RunFailure describe_failure(Phase phase, const std::exception& error);
/// The result of a run that an error kept from beginning.
RunResult failed_before_start(const std::string& runner_id, const std::string& task_id,
                              const std::exception& error);

}  // namespace necrocode::runner
