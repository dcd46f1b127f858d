#include "necrocode/runner/orchestrator.hpp"

#include <algorithm>
#include <atomic>
#include <future>
#include <set>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/runner/artifact_uploader.hpp"
#include "necrocode/runner/baseline.hpp"
#include "necrocode/runner/change_set.hpp"
#include "necrocode/runner/repository_map.hpp"
#include "necrocode/runner/run_folder.hpp"
#include "necrocode/runner/run_teller.hpp"
#include "necrocode/runner/task_reporter.hpp"
#include "necrocode/runner/test_detection.hpp"
#include "necrocode/runner/test_report.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

// What each step of a run's end may take; one that hangs leaves the others theirs.
constexpr auto kCollectTime = 5s;
constexpr auto kHandBackTime = 10s;
constexpr auto kUploadTime = 15s;
constexpr auto kHurriedUploadTime = 5s;  // after a signal
constexpr auto kReportTime = 8s;
constexpr auto kParkTime = 3s;
constexpr auto kReleaseTime = 5s;

// How often a run follows its base branch, which may move faster than the tests run.
constexpr int kRebasesMax = 2;

// Why a run was stopped from outside.
enum class Stopped { kNo, kByCaller, kLeaseLost, kSlotLost, kCancelRequested };

// SPEC section 5: the last 10 % of the task's time, at most 30 s, is kept for the end of the run.
std::chrono::nanoseconds time_to_finish(std::chrono::seconds timeout) {
  return std::min<std::chrono::nanoseconds>(
      timeout / 10.0 < 1s ? 1s : std::chrono::nanoseconds(timeout) / 10, 30s);
}

// One run's state; the phases in the order in which they happen.
class Run {
 public:
  Run(const RunnerServices& services, const RunOptions& options, const TaskContext& task,
      const registry::ClaimedTask* claim, const CallContext& caller)
      : services_(services),
        options_(options),
        task_(task),
        reporter_(services.registry, claim),
        log_(options.run_dir / "run.log", services.masker),
        teller_(task.task_id.str(), options.observer, log_, services.masker),
        transcript_(options.run_dir / "transcript.jsonl", services.masker),
        uploader_(options.extent == RunExtent::kWhole ? services.artifacts : nullptr, services.logs,
                  options.run_dir,
                  {task.task_id, options.runner_id, claim ? claim->task.attempt : 0},
                  services.masker),
        workspaces_(services.git, options.git_retries),
        tests_(services.sandbox, log_, services.masker),
        started_(real_clock().steady_now()),
        on_caller_stop_(caller.stop, [this] { stop(Stopped::kByCaller); }) {
    work_.stop = stop_.get_token();
    work_.traceparent = caller.traceparent;
    work_.deadline =
        std::min(caller.deadline, started_ + task.timeout - time_to_finish(task.timeout));
    result_.extent = options.extent;
    result_.runner_id = options.runner_id;
    result_.task_id = task.task_id.str();
  }

  RunResult execute() {
    const log::Scope scope({{"runner", options_.runner_id}, {"task", result_.task_id}});
    const auto lease = reporter_.keep_lease(services_.task_leases, [this](LeaseNews news) {
      stop(news == LeaseNews::kLost ? Stopped::kLeaseLost : Stopped::kCancelRequested);
    });
    try {
      begin();
      allocate();
      prepare();
      if (is_plan()) {
        plan();
      } else if (!adopt_earlier_work()) {
        baseline();
        implement_until_tests_pass();
        commit();
        push();
      }
    } catch (const std::exception& error) {
      fail(error);
    }
    finish();
    return std::move(result_);
  }

 private:
  // --- the phases

  void begin() {
    enter(Phase::kValidate);
    for (const std::string& warning : task_.warnings) teller_.warn(warning);
    uploader_.begin(options_.data_dir / "owed", options_.passing);
    result_.sandbox = services_.sandbox.name();
    log_.line("tests run in: " + result_.sandbox + "; " + services_.sandbox.limits());
    // Both end up in the repository's history, where nothing can be taken back.
    if (services_.masker.contains_secret(task_.title + "\n" + task_.branch_name)) {
      throw SecurityError("the task's title or branch name holds a secret");
    }
    reporter_.event("RunnerStarted", Json::object({{"runner_id", options_.runner_id}}), work_);
  }

  void allocate() {
    if (!services_.pool || !task_.slot_path.empty() || is_plan()) return;
    enter(Phase::kAllocate);
    SlotAllocateOptions slot_options;
    slot_options.lease = options_.slot_lease;
    // A ready slot now: prepare() looks at the remote itself.
    slot_options.max_age = 1h;
    try {
      slot_ = services_.pool->allocate_slot(task_.repo_url, options_.runner_id,
                                            static_cast<double>(options_.slot_wait.count()),
                                            slot_options, work_);
    } catch (const TaskContextValidationError& error) {
      // The pool cannot use the repository: a matter of the workspace, whoever makes it.
      throw WorkspacePreparationError(error.summary(), error.info());
    }
    slot_lease_.emplace(
        services_.slot_leases->hold(options_.slot_lease, {slot_->slot_id.value, slot_->lease_token},
                                    [this](LeaseNews) { stop(Stopped::kSlotLost); }));
    const Json data =
        Json::object({{"slot_id", slot_->slot_id.value}, {"runner_id", options_.runner_id}});
    reporter_.event("SlotAllocated", data, work_);
  }

  void prepare() {
    enter(Phase::kPrepare);
    remove_leftovers(options_.run_dir);  // the log is ours, so no run is at work here
    scratch_.emplace(kScratchPrefix, options_.run_dir);
    workspace_.emplace(workspaces_.prepare(task_, slot_, scratch_->path(), work_));
    for (const std::string& warning : workspace_->warnings) teller_.warn(warning);
    test_workspace_ = {workspace_->root, workspace_->read_only, workspace_->covers, {}, {}};
    for (std::string& file : workspace_->repository.tracked_files(work_)) {
      if (matches_any(task_.readonly_files, file))
        test_workspace_.read_only_files.push_back(std::move(file));
    }
    // Repositories of the user's inside the slot: a test may not take their history away.
    for (const std::string& path : workspace_->users_files) {
      if (path.ends_with("/.git")) test_workspace_.protect.push_back(path);
    }
    log_.line("branch " + workspace_->branch + " from " + workspace_->base_commit);
    services_.sandbox.require_usable();  // before a model is paid
    choose_proof();
  }

  // Before the change, so that it cannot choose for itself.
  void choose_proof() {
    const auto read_at_head = [this](const std::string& path) {
      return workspaces_.read_at_remote_head(*workspace_, path, work_);
    };
    ChosenPlaybook chosen =
        choose_playbook(task_, workspace_->remote_url, options_.playbooks, read_at_head,
                        detect_test_commands(workspace_->root), options_.test_retries);
    for (const std::string& warning : chosen.warnings) teller_.warn(warning);
    playbook_ = std::move(chosen.playbook);
    test_commands_ = playbook_.commands();
    test_values_ = playbook_values(task_, workspace_->branch, workspace_->base_commit);
    if (!playbook_.steps.empty()) log_.line("the change is proved by " + chosen.origin);
  }

  void plan() {
    const Assignment assignment = make_assignment();
    result_.exit_code = ExitCode::kDone;
    teller_.emit("plan",
                 Json::object({{"branch", workspace_->branch},
                               {"base_commit", workspace_->base_commit},
                               {"test_commands", test_commands_},
                               {"prompt", services_.masker.mask(build_prompt(assignment))}}));
  }

  // An earlier runner may have been killed after its push: work that passes is not done twice.
  bool adopt_earlier_work() {
    if (!workspace_->has_earlier_work) return false;
    enter(Phase::kTest);
    log_.line("the branch already has work of this task: " + workspace_->remote_tip);
    if (run_tests().passed()) {
      result_.adopted = true;
      if (options_.extent == RunExtent::kWhole) {
        result_.push = PushResult{task_.branch_name, workspace_->remote_tip, 0};
      }
      result_.exit_code = ExitCode::kDone;
      return true;
    }
    workspaces_.reset_to_base(*workspace_, work_);
    result_.tests.reset();  // they were of another tree
    return false;
  }

  // Which test commands fail before the change; kept per base commit and commands.
  void baseline() {
    if (!options_.baseline || test_commands_.empty()) return;
    enter(Phase::kBaseline);
    const fs::path folder = options_.data_dir / "baselines";
    const fs::path kept =
        folder / (sha256_hex(workspace_->base_commit + "\n" + playbook_.fingerprint(test_values_)) +
                  ".json");
    if (auto known = read_baseline(kept)) {
      note_red(std::move(*known));
      return;
    }
    TestReport report;
    tests_.run(test_workspace_, without_fail_fast(playbook_), test_values_, {}, test_times(), work_,
               report);
    workspaces_.restore(*workspace_, work_);
    note_red(red_steps(report));
    const bool whole = std::none_of(report.commands.begin(), report.commands.end(),
                                    [](const TestCommandResult& one) { return one.round_over; });
    if (whole) keep_baseline(kept, red_before_);
  }

  void note_red(RedSteps red) {
    red_before_ = std::move(red);
    for (const auto& [step, cases] : red_before_) result_.red_at_base.push_back(step);
  }

  void implement_until_tests_pass() {
    enter(Phase::kImplement);
    std::set<std::string> seen_answers;
    while (true) {
      const Implementation answer = implement();
      const bool repeated = !seen_answers.insert(answer.answer_digest).second;
      for (const std::string& file : answer.changed_files) changed_.insert(file);
      // Before it is staged: a lent clone shares its object store, where nothing is taken back.
      refuse_secrets(answer.changed_files);
      workspaces_.stage(*workspace_, answer.changed_files, work_);
      if (test_commands_.empty()) return;
      enter(Phase::kTest);
      // Nearly always the tests pass, and the index does not change: looked at meanwhile.
      std::future<StagedChange> staged =
          std::async(std::launch::async, [this] { return workspaces_.staged(*workspace_, work_); });
      const TestReport& report = run_tests();
      if (report.passed() || !report.ran()) {
        staged_ = staged.get();
        return;
      }
      workspaces_.restore(*workspace_, work_);
      failed_tests_ =
          services_.masker.mask(describe_failure(report, red_before_, limits::kFailureOutputBytes));
      if (repeated || result_.repairs >= options_.max_repairs) throw_tests_failed(report, repeated);
      ++result_.repairs;
      enter(Phase::kRepair);
    }
  }

  // In the files themselves: a diff may show what git takes for binary in a form of its own.
  void refuse_secrets(const std::vector<std::string>& files) {
    for (const std::string& file : files) {
      const auto content =
          read_workspace_file(workspace_->root, file, 2 * limits::kModelAnswerBytes);
      if (services_.masker.contains_secret(file + "\n" + content.value_or(""))) {
        throw SecurityError("the change holds a secret; it is not committed");
      }
    }
  }

  // One usable answer, applied; asks again when it cannot be used.
  Implementation implement() {
    std::string unusable;
    while (true) {
      Assignment assignment = make_assignment();
      assignment.failed_tests = failed_tests_;
      assignment.unusable_answer = unusable;
      assignment.changed_files.assign(changed_.begin(), changed_.end());
      try {
        return call_model(assignment);
      } catch (const ImplementationError& error) {
        unusable = note_unusable(error);
        if (unusable.empty()) throw;
      } catch (const SecurityError& error) {
        unusable = note_unusable(error);
        if (unusable.empty()) throw;
      } catch (const InvalidResponse& error) {
        unusable = note_unusable(error);
        if (unusable.empty()) throw;
      }
    }
  }

  Implementation call_model(const Assignment& assignment) {
    spending_.require_left();
    ++result_.model_calls;
    try {
      Implementation answer =
          services_.executor.implement(assignment, work_, spending_, transcript_);
      result_.usage = spending_.usage();
      result_.model = answer.model;
      log_.line("change: " + join(answer.changed_files, ", "));
      log_.line("model's explanation: " + answer.explanation);
      teller_.model_call(answer.attempts, result_.usage,
                         {{"model", answer.model}, {"usage", answer.usage.to_json()}});
      teller_.emit("edit", Json::object({{"files", answer.changed_files}}));
      return answer;
    } catch (const std::exception& error) {
      result_.usage = spending_.usage();
      transcript_.failed(error.what());
      const auto* known = dynamic_cast<const RunnerError*>(&error);
      teller_.model_call(known ? known->info().attempts : 0, result_.usage,
                         {{"error", services_.masker.mask(error.what())}});
      throw;
    }
  }

  // The reason to ask again with, or nothing when that was done often enough.
  std::string note_unusable(const RunnerError& error) {
    const std::string reason = services_.masker.mask(error.what());
    teller_.warn("answer not used: " + reason);
    if (result_.reasks >= options_.max_reasks) return {};
    ++result_.reasks;
    return reason;
  }

  void commit() {
    enter(Phase::kCommit);
    take_staged(staged_ ? std::move(*staged_) : workspaces_.staged(*workspace_, work_));
    if (result_.files.empty()) throw ImplementationError("the model's answers changed nothing");
    if (services_.masker.contains_secret(diff_)) {
      throw SecurityError("the change holds a secret; it is not committed");
    }
    uploader_.write("diff.patch", diff_);  // from now on a kill loses nothing that was paid for
    commit_ = workspaces_.commit(
        *workspace_, services_.masker.mask(commit_message(task_, options_.commit)), work_);
    log_.line("commit " + commit_);
    teller_.emit("commit", Json::object({{"commit", commit_}}));
  }

  void take_staged(StagedChange staged) {
    result_.files = std::move(staged.files);
    diff_ = std::move(staged.diff);
  }

  void push() {
    if (options_.extent == RunExtent::kWithoutPush) {
      log_.line("not pushed, as it is a dry run");
      return conclude();
    }
    for (int moves = 0;; ++moves) {
      enter(Phase::kPush);
      reporter_.require_lease(work_);
      result_.push = workspaces_.push(*workspace_, task_, commit_, work_);
      log_.line("pushed " + result_.push->branch);
      teller_.retries("push", result_.push->retries);
      teller_.emit("push", Json::object({{"branch", result_.push->branch}, {"commit", commit_}}));
      const bool moved = result_.push->base_tip != workspace_->base_tip;
      if (!moved || result_.push->base_tip.empty() || moves == kRebasesMax || !rebase()) break;
    }
    conclude();
  }

  // The base moved while the run was at work: the same change on top of it, proved again. Where
  // that cannot be, what is pushed stays: it is proved as it stands.
  bool rebase() {
    const std::string pushed = commit_;
    const std::string base = workspace_->base_commit;
    const std::string base_tip = workspace_->base_tip;
    const std::optional<TestReport> tests = result_.tests;
    std::string reason;
    log_.line("the base moved to " + result_.push->base_tip);
    try {
      std::vector<std::string> conflicts;
      const auto rebased =
          workspaces_.rebase(*workspace_, task_, commit_, result_.push->base_tip, conflicts, work_);
      if (!rebased) {
        reason = "it conflicts in " + join(conflicts, ", ");
      } else if (prove_again()) {
        commit_ = *rebased;
        take_staged(workspaces_.staged(*workspace_, work_));
        return true;
      } else {
        reason = "the tests do not pass there";
      }
    } catch (const RunnerError& error) {
      if (stopped_.load() != Stopped::kNo) throw;
      reason = error.what();
    }
    workspaces_.return_to(*workspace_, pushed, base, CallContext().within(kHandBackTime));
    workspace_->base_tip = base_tip;
    result_.tests = tests;
    teller_.warn("the base moved meanwhile, and the change cannot follow: " + reason);
    return false;
  }

  bool prove_again() {
    if (playbook_.steps.empty()) return true;
    enter(Phase::kTest);
    const bool passed = run_tests().passed();
    workspaces_.restore(*workspace_, work_);
    return passed;
  }

  void conclude() {
    const bool verified = result_.tests && result_.tests->passed();
    result_.exit_code = verified ? ExitCode::kDone : ExitCode::kUnverified;
    if (verified) return;
    const std::string reason =
        playbook_.steps.empty() ? "the task names no test command and the repository suggests none"
                                : "none of the playbook's conditions held";
    result_.failure = RunFailure{Phase::kTest, "unverified: " + reason, "tests", {}};
  }

  // --- the end, whatever happened

  void fail(const std::exception& error) {
    result_.failure = describe_failure(result_.phase, error);
    result_.failure->reason = services_.masker.mask(result_.failure->reason);
    switch (stopped_.load()) {
      case Stopped::kNo:
        result_.exit_code = work_.expired() ? ExitCode::kTaskTimeout : exit_code_for(error);
        if (work_.expired())
          result_.failure->reason = "the task's time (" + human_duration(task_.timeout) +
                                    ") ran out: " + result_.failure->reason;
        break;
      case Stopped::kByCaller:
        stopped_as("stopped by a signal or its caller");
        break;
      case Stopped::kLeaseLost:
        stopped_as("the task's lease was lost");
        break;
      case Stopped::kSlotLost:
        result_.exit_code = ExitCode::kServiceUnavailable;
        result_.failure->reason = "the slot's lease was lost";
        result_.failure->failure_class = "infrastructure";
        break;
      case Stopped::kCancelRequested:
        stopped_as("cancelled through the registry");
        break;
    }
    log_.line("failed in " + std::string(to_string(result_.phase)) + ": " +
              result_.failure->reason);
  }

  void stopped_as(const std::string& reason) {
    result_.exit_code = ExitCode::kCancelled;
    result_.failure->reason = reason;
    result_.failure->failure_class = "cancelled";
  }

  // No step here may keep the next from happening, by failing or by taking its time.
  void finish() {
    const Phase reached = result_.phase;
    attempt("collect the diff", kCollectTime,
            [&](const CallContext& context) { collect_diff(context); });
    attempt("see what was pushed", kCollectTime,
            [&](const CallContext& context) { look_at_remote(context); });
    attempt("hand the workspace back", kHandBackTime, [&](const CallContext& context) {
      if (workspace_) {
        workspaces_.hand_back(*workspace_, result_.success(), context);
      }
    });
    scratch_.reset();  // on a full disk, room for what follows
    enter(Phase::kUpload);
    const bool hurry = stopped_.load() == Stopped::kByCaller;
    attempt("upload", hurry ? kHurriedUploadTime : kUploadTime,
            [&](const CallContext& context) { upload(context); });
    enter(Phase::kReport);
    result_.duration = real_clock().steady_now() - started_;
    attempt("report", kReportTime, [&](const CallContext& context) { report(context); });
    enter(Phase::kRelease);
    attempt("release the slot", kReleaseTime,
            [&](const CallContext& context) { release(context); });
    result_.phase = result_.success() ? Phase::kRelease : reached;
    result_.duration = real_clock().steady_now() - started_;
    attempt("write result.json", kCollectTime, [&](const CallContext&) {
      // A log that stays here has grown since.
      for (UploadedArtifact& artifact : result_.artifacts) {
        if (artifact.type == "log" && !artifact.stored) artifact = uploader_.describe("run.log");
      }
      write_file_durable(options_.run_dir / "result.json",
                         services_.masker.mask(result_.to_json().pretty()) + "\n", 0600);
    });
  }

  // Work that the registry does not know of is not done: it will be given out again.
  void report(const CallContext& context) {
    attempt("park the provider", kParkTime, [&](const CallContext& parking) {
      reporter_.park(options_.provider, result_.failure, parking);
    });
    if (reporter_.finish(result_, registry_state(), context) || !result_.success()) return;
    result_.exit_code = ExitCode::kServiceUnavailable;
    result_.failure = RunFailure{
        Phase::kReport, "the registry has not taken the end of the task", "infrastructure", {}};
  }

  // A run that was stopped between its push and the remote's word for it.
  void look_at_remote(const CallContext& context) {
    if (!result_.failure || result_.failure->phase != Phase::kPush || result_.push) return;
    result_.push = workspaces_.pushed(*workspace_, task_, commit_, context);
  }

  // A run that failed half-way still leaves what it changed.
  void collect_diff(const CallContext& context) {
    if (!workspace_ || is_plan() || !diff_.empty()) return;
    if (changed_.empty() && !result_.adopted) return;
    take_staged(workspaces_.staged(*workspace_, context));
  }

  void upload(const CallContext& context) {
    if (is_plan()) return;
    if (!diff_.empty()) {
      uploader_.write("diff.patch", diff_);
      keep("diff.patch", context);
    }
    if (result_.tests) {
      uploader_.write("tests.json", result_.tests->to_json(limits::kOutputHeadBytes).pretty());
      keep("tests.json", context);
      uploader_.write("junit.xml", to_junit_xml(*result_.tests));
      keep("junit.xml", context);
    }
    if (!transcript_.empty()) keep("transcript.jsonl", context);
    log_.line("ended: " + std::string(result_.outcome()));
    keep("run.log", context);
    uploader_.all_kept();
  }

  void keep(const std::string& name, const CallContext& context) {
    UploadedArtifact artifact = uploader_.keep(name, context);
    teller_.emit("artifact", Json::object({{"artifact_type", artifact.type},
                                           {"uri", artifact.uri},
                                           {"size_bytes", artifact.size_bytes}}));
    result_.artifacts.push_back(std::move(artifact));
  }

  registry::TaskState registry_state() const {
    if (result_.success()) return registry::TaskState::kDone;
    switch (stopped_.load()) {
      case Stopped::kByCaller:
      case Stopped::kSlotLost:
        return registry::TaskState::kReady;  // handed back for another runner
      case Stopped::kCancelRequested:
        return registry::TaskState::kCancelled;
      default:
        return registry::TaskState::kFailed;
    }
  }

  void release(const CallContext& context) {
    if (!slot_) return;
    slot_lease_.reset();
    services_.pool->release_slot(slot_->slot_id, slot_->lease_token, context);
    const Json data =
        Json::object({{"slot_id", slot_->slot_id.value}, {"runner_id", options_.runner_id}});
    reporter_.late_event("SlotReleased", data, context);
  }

  // --- common to the phases

  bool is_plan() const { return options_.extent == RunExtent::kPlan; }

  void enter(Phase phase) {
    if (is_plan() && phase >= Phase::kUpload) return;  // there is nothing to do in them
    result_.phase = phase;
    log_.line("phase " + std::string(to_string(phase)));
    teller_.emit("phase", Json::object({{"phase", to_string(phase)}}));
    // The end is told by the completion itself.
    if (phase != Phase::kValidate && phase < Phase::kUpload) {
      reporter_.event("TaskProgress", Json::object({{"phase", to_string(phase)}}), work_);
    }
  }

  TestRunner::Times test_times() const {
    return {task_.test_timeout, options_.tests_total_timeout};
  }

  const TestReport& run_tests() {
    TestReport& report = result_.tests.emplace();
    try {
      tests_.run(test_workspace_, playbook_, test_values_, red_before_, test_times(), work_,
                 report);
    } catch (...) {
      teller_.commands(report);
      throw;
    }
    teller_.commands(report);
    teller_.tests(report);
    return report;
  }

  [[noreturn]] void throw_tests_failed(const TestReport& report, bool repeated) {
    const TestCommandResult* failed = report.first_failure();
    const std::string reason = "the tests do not pass" +
                               std::string(repeated ? ", and the model repeats its answer" : "") +
                               (failed ? ": \"" + failed->step + "\" " + failed->verdict() : "");
    if (failed && failed->met_a_limit()) throw ResourceLimitError(reason);
    throw TestExecutionError(reason);
  }

  // What the model learns of the tasks that this one builds on.
  const std::vector<std::string>& dependencies() {
    if (!dependencies_) dependencies_ = reporter_.describe_dependencies(task_, work_);
    return *dependencies_;
  }

  Assignment make_assignment() {
    Assignment assignment{task_, workspace_->root, workspace_->repository.tracked_files(work_),
                          test_commands_};
    if (!relevant_files_) {
      relevant_files_ = rank_files(workspace_->root, assignment.tracked_files, task_words(task_));
    }
    assignment.relevant_files = *relevant_files_;
    assignment.dependencies = dependencies();
    assignment.earlier_attempts = reporter_.describe_attempts();
    assignment.users_files = workspace_->users_files;
    return assignment;
  }

  void stop(Stopped why) {
    Stopped expected = Stopped::kNo;
    stopped_.compare_exchange_strong(expected, why);
    stop_.request_stop();
  }

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
  std::set<std::string> changed_;
  std::string failed_tests_;
  std::optional<StagedChange> staged_;  ///< of the change that the tests were run on
  std::string diff_;
  std::string commit_;
  std::stop_callback<std::function<void()>> on_caller_stop_;
};

}  // namespace

RunResult RunnerOrchestrator::run(const TaskContext& task, const registry::ClaimedTask* claim,
                                  const CallContext& context) {
  try {
    fs::create_directories(options_.run_dir);
    remove_earlier_results(options_.run_dir);
    return Run(services_, options_, task, claim, context).execute();
  } catch (const std::exception& error) {
    // It could not even begin, as with a full disk: nothing was done, so the task is handed back.
    RunResult result;
    result.runner_id = options_.runner_id;
    result.task_id = task.task_id.str();
    result.exit_code = ExitCode::kGit;
    result.failure = describe_failure(Phase::kValidate, error);
    log::error("a run could not begin", {{"task", result.task_id}, {"error", error.what()}});
    TaskReporter(services_.registry, claim)
        .finish(result, registry::TaskState::kReady, CallContext().within(kReportTime));
    return result;
  }
}

}  // namespace necrocode::runner
