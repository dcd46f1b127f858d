#include "necrocode/runner/orchestrator.hpp"

#include "necrocode/observe/log.hpp"
#include "necrocode/runner/run.hpp"
#include "necrocode/runner/run_folder.hpp"

namespace necrocode::runner {

namespace fs = std::filesystem;

RunResult RunnerOrchestrator::run(const TaskContext& task, const registry::ClaimedTask* claim,
                                  const CallContext& context) {
  try {
    if (services_.artifacts && options_.disposable) {
      note_owed(options_.data_dir / "owed", options_.run_dir, identity_of(options_, task, claim),
                options_.disposable);
    }
    fs::create_directories(options_.run_dir);
    remove_earlier_results(options_.run_dir);
    return Run(services_, options_, task, claim, context).execute();
  } catch (const std::exception& error) {
    // It could not even begin, as with a full disk: nothing was done, so the task is handed back.
    RunResult result = failed_before_start(options_.runner_id, task.task_id.str(), error);
    result.exit_code = ExitCode::kGit;
    log::error("a run could not begin", {{"task", result.task_id}, {"error", error.what()}});
    TaskReporter(services_.registry, claim)
        .finish(result, registry::TaskState::kReady, CallContext().within(kReportTime));
    return result;
  }
}

}  // namespace necrocode::runner
