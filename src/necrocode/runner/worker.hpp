// Worker: N runners side by side in one process, each claiming the next ready task until stopped.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "necrocode/runner/orchestrator.hpp"

namespace necrocode::runner {

struct WorkerOptions {
  int max_parallel = 1;
  std::vector<std::string> skills;  ///< empty: any task
  std::chrono::seconds drain{30};   ///< for runs under way after a stop; then they are handed back
  std::chrono::seconds claim_wait{20};
  std::chrono::seconds lease{60};
  std::uint64_t min_free_memory_bytes = 0;  ///< of the machine: below it nothing is claimed
  std::filesystem::path data_dir;
  TaskDefaults defaults;
  RunOptions run;  ///< runner_id, run_dir and data_dir are set for each run
  /// Called first on each runner's thread.
  std::function<void()> on_thread;
  /// Called on the runner's thread when a run has ended.
  std::function<void(const RunResult&)> on_result;
};

struct WorkerSummary {
  int done = 0;
  int failed = 0;
  int cancelled = 0;
  int handed_back = 0;
};

/// Ends a claimed task that never became a run, as failed or (kReady) for another runner to take.
/// Never throws: what the registry does not take is logged, and the lease expires.
void give_up(TaskRegistryClient& registry, const registry::ClaimedTask& claim,
             registry::TaskState state, const std::string& reason);

class Worker {
 public:
  /// `services.registry` must be there.
  Worker(RunnerServices services, WorkerOptions options)
      : services_(services), options_(std::move(options)) {}

  /// Works until `context.stop`, then drains. Throws only for what keeps every runner from working.
  WorkerSummary run(const CallContext& context);

 private:
  void runner_loop(const std::string& runner_id, const std::stop_token& no_more,
                   const std::stop_token& now);
  void work_on(const registry::ClaimedTask& claim, const std::string& runner_id,
               const std::stop_token& now);
  bool wait_for_memory(const std::stop_token& stop) const;
  void deliver_loop(const std::stop_token& stop);
  RunnerServices services_;
  WorkerOptions options_;
  std::atomic<int> done_ = 0;
  std::atomic<int> failed_ = 0;
  std::atomic<int> cancelled_ = 0;
  std::atomic<int> handed_back_ = 0;
};

}  // namespace necrocode::runner
