// Run: one run of the orchestrator, its state, and its phases in the order in which they happen.
// Inside of the runner only; run.cpp has the phases, run_end.cpp what happens whatever went before.
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/observe/log.hpp"
#include "necrocode/runner/artifact_uploader.hpp"
#include "necrocode/runner/orchestrator.hpp"
#include "necrocode/runner/run_teller.hpp"
#include "necrocode/runner/task_reporter.hpp"

namespace necrocode::runner {

// What each step of a run's end may take; one that hangs leaves the others theirs.
inline constexpr std::chrono::seconds kCollectTime{5};
inline constexpr std::chrono::seconds kHandBackTime{10};
inline constexpr std::chrono::seconds kReportTime{8};

/// Why a run was stopped from outside.
enum class Stopped { kNo, kByCaller, kLeaseLost, kSlotLost, kCancelRequested };

/// Whose files a run's are.
RunIdentity identity_of(const RunOptions& options, const TaskContext& task,
                        const registry::ClaimedTask* claim);

class Run {
 public:
  Run(const RunnerServices& services, const RunOptions& options, const TaskContext& task,
      const registry::ClaimedTask* claim, const CallContext& caller);
  RunResult execute();

 private:
  // What is pushed: where the run goes back to when it cannot follow its base.
  struct Proved {
    std::string commit;
    std::string base_commit;
    std::string base_tip;
    std::optional<TestReport> tests;
    StagedChange change;
    RedSteps red_before;
    PushResult push;
  };

  // One executor's work at the task.
  struct Effort {
    std::string name;
    std::unique_ptr<TaskExecutor> executor;
    int repairs = 0;
    int reasks = 0;
    std::set<std::string> answers{};  ///< their digests
    std::set<std::string> changed{};
    std::string failed_tests{};
  };

  // --- the phases

  void begin();
  void allocate();
  void prepare();
  void look_at_sandbox();
  void look_at_workspace();
  void choose_proof();
  void choose_executors();
  void plan();
  bool adopt_earlier_work();
  void baseline();
  std::filesystem::path baseline_file() const;
  void note_red(RedSteps red);
  void implement_until_tests_pass();
  bool another_may_do_better(const std::exception& error) const;
  void start_over(const std::exception& error);
  void repair_until_tests_pass();
  void refuse_secrets(const std::vector<std::string>& files);
  Implementation implement();
  Implementation call_model(const Assignment& assignment);
  void note_spending();
  std::string note_unusable(const RunnerError& error);
  void commit();
  void take_staged(StagedChange staged);
  void push();
  void push_commit();
  bool base_moved() const;
  bool follow_base();
  bool rebase(std::string& reason);
  void go_back(const Proved& proved);
  void conclude();

  // --- the end, whatever happened

  void fail(const std::exception& error);
  void stopped_as(const std::string& reason);
  void finish();
  void report(const CallContext& context);
  void look_at_remote(const CallContext& context);
  void collect_diff(const CallContext& context);
  void upload(const CallContext& context);
  void keep(const std::string& name, const CallContext& context);
  registry::TaskState registry_state() const;
  void release(const CallContext& context);

  // --- common to the phases

  bool is_plan() const { return options_.extent == RunExtent::kPlan; }
  Effort& effort() { return efforts_.at(effort_at_); }

  void enter(Phase phase);
  TestRunner::Times test_times() const;
  const TestReport& run_tests();
  [[noreturn]] void throw_tests_failed(const TestReport& report, bool repeated);
  const std::vector<std::string>& dependencies();
  Assignment make_assignment();
  void stop(Stopped why);
  template <class Step>
  void attempt(std::string_view what, std::chrono::nanoseconds time, Step step) {
    CallContext context;
    context.traceparent = work_.traceparent;
    try {
      step(context.within(time));
    } catch (const std::exception& error) {
      log::error("the run's end: cannot " + std::string(what), {{"error", error.what()}});
      log_.line("cannot " + std::string(what) + ": " + error.what());
    }
  }

  const RunnerServices& services_;
  const RunOptions& options_;
  const TaskContext& task_;
  llm::Spending spending_{options_.spending};
  TaskReporter reporter_;
  RunLog log_;
  RunTeller teller_;
  std::optional<TemporaryDirectory> scratch_;  ///< git directory and own workspace
  Transcript transcript_;
  ArtifactUploader uploader_;
  WorkspaceManager workspaces_;
  TestRunner tests_;
  SteadyTime started_;
  std::atomic<Stopped> stopped_ = Stopped::kNo;
  std::stop_source stop_;
  CallContext work_;  ///< for everything but the end of the run
  RunResult result_;
  std::optional<SlotAllocation> slot_;
  std::optional<LeaseKeeper::Held> slot_lease_;
  std::optional<Workspace> workspace_;
  TestRunner::Workspace test_workspace_;
  Playbook playbook_;
  Json test_values_;                        ///< what it asks for
  std::vector<std::string> test_commands_;  ///< its commands, as the model is told them
  std::optional<std::vector<std::string>> relevant_files_;  ///< once asked for
  std::optional<std::vector<std::string>> dependencies_;    ///< the same
  RedSteps red_before_;
  std::vector<Effort> efforts_;         ///< one for each executor of the task's chain, in its order
  std::size_t effort_at_ = 0;           ///< whose turn it is
  std::vector<std::string> given_up_;   ///< how those before it ended, a line each
  std::optional<StagedChange> staged_;  ///< of the change that the tests were run on
  std::string diff_;
  std::string commit_;
  std::stop_callback<std::function<void()>> on_caller_stop_;
};

}  // namespace necrocode::runner
