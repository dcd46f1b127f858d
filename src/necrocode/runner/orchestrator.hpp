// RunnerOrchestrator: the life of one task, from its context to a true result.
// It decides what happens when; how each thing is done stands in the parts it is given.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "necrocode/artifacts/client.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/pool/client.hpp"
#include "necrocode/process/sandbox.hpp"
#include "necrocode/registry/client.hpp"
#include "necrocode/runner/commit_message.hpp"
#include "necrocode/runner/executors.hpp"
#include "necrocode/runner/lease_keeper.hpp"
#include "necrocode/runner/log_shipper.hpp"
#include "necrocode/runner/playbook_choice.hpp"
#include "necrocode/runner/run_events.hpp"
#include "necrocode/runner/run_result.hpp"
#include "necrocode/runner/task_context.hpp"

namespace necrocode::runner {

/// What runs share. All of it outlives the orchestrator and is thread-safe.
struct RunnerServices {
  const git::Git& git;
  process::Sandbox& sandbox;
  const Executors& executors;
  const Masker& masker;
  TaskRegistryClient* registry = nullptr;    ///< null: no registry
  RepoPoolClient* pool = nullptr;            ///< null: own workspaces
  ArtifactStoreClient* artifacts = nullptr;  ///< null: artifacts stay in the run's folder
  LeaseKeeper* task_leases = nullptr;        ///< there where `registry` is
  LeaseKeeper* slot_leases = nullptr;        ///< there where `pool` is
  LogShipper* logs = nullptr;                ///< to `artifacts`; null: at the run's end
};

struct RunOptions {
  std::string runner_id;
  std::filesystem::path run_dir;   ///< for this run alone; made when absent
  std::filesystem::path data_dir;  ///< where baselines are kept, and what is owed is noted
  bool disposable = false;         ///< the run's folder goes when the store has what it holds
  int max_repairs = 2;
  int max_reasks = 2;
  llm::SpendingLimits spending{};  ///< on the model, in this run
  /// Where the model calls go, by the registry's name: parked there when its quota is used up.
  /// Empty: nothing is parked.
  std::string provider;
  int git_retries = 3;
  CommitStyle commit{};
  bool baseline = true;
  std::chrono::seconds tests_total_timeout{0};  ///< of one round of tests; 0: the task's alone
  int test_retries = 0;  ///< of a failed step that no playbook names; see PlaybookStep
  PlaybookPlaces playbooks{};
  RunExtent extent = RunExtent::kWhole;
  std::chrono::seconds slot_wait{20};
  std::chrono::seconds slot_lease{60};
  RunObserver observer;
};

/// One run. Not thread-safe; several at once are several objects.
class RunnerOrchestrator {
 public:
  RunnerOrchestrator(RunnerServices services, RunOptions options)
      : services_(services), options_(std::move(options)) {}

  /// Never throws for what a task, a repository, a model or a service does: that is in the result.
  /// `context.stop` ends the run as cancelled; `claim` is the task's lease, if it was claimed.
  RunResult run(const TaskContext& task, const registry::ClaimedTask* claim,
                const CallContext& context);

 private:
  RunnerServices services_;
  RunOptions options_;
};

}  // namespace necrocode::runner
