#include "necrocode/runner/run.hpp"

#include <algorithm>
#include <future>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/runner/baseline.hpp"
#include "necrocode/runner/change_set.hpp"
#include "necrocode/runner/repository_map.hpp"
#include "necrocode/runner/run_folder.hpp"
#include "necrocode/runner/test_detection.hpp"
#include "necrocode/runner/test_report.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

// How often a run follows its base branch, which may move faster than the tests run.
constexpr int kRebasesMax = 2;

// Of what ended one executor, as the next one is told.
constexpr std::size_t kReasonBytes = 1000;

// SPEC section 5: the last 10 % of the task's time, at most 30 s, is kept for the end of the run.
std::chrono::nanoseconds time_to_finish(std::chrono::seconds timeout) {
  return std::min<std::chrono::nanoseconds>(
      timeout / 10.0 < 1s ? 1s : std::chrono::nanoseconds(timeout) / 10, 30s);
}

}  // namespace

RunIdentity identity_of(const RunOptions& options, const TaskContext& task,
                        const registry::ClaimedTask* claim) {
  return {task.task_id, options.runner_id, claim ? claim->task.attempt : 0};
}

Run::Run(const RunnerServices& services, const RunOptions& options, const TaskContext& task,
         const registry::ClaimedTask* claim, const CallContext& caller)
    : services_(services),
      options_(options),
      task_(task),
      reporter_(services.registry, claim),
      log_(options.run_dir / "run.log", services.masker),
      teller_(task.task_id.str(), options.observer, log_, services.masker),
      transcript_(options.run_dir / "transcript.jsonl", services.masker),
      uploader_(options.extent == RunExtent::kWhole ? services.artifacts : nullptr, services.logs,
                options.run_dir, identity_of(options, task, claim), services.masker),
      workspaces_(services.git, options.git_retries),
      tests_(services.sandbox, log_, services.masker,
             [this](const TestCommandResult& command) { teller_.command(command); }),
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

RunResult Run::execute() {
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

void Run::begin() {
  enter(Phase::kValidate);
  for (const std::string& warning : task_.warnings) teller_.warn(warning);
  // What an earlier run in the folder owed is gone with its files.
  if (!options_.disposable) forget_owed(options_.data_dir / "owed", options_.run_dir);
  uploader_.begin(options_.data_dir / "owed", options_.disposable);
  // Both end up in the repository's history, where nothing can be taken back.
  if (services_.masker.contains_secret(task_.title + "\n" + task_.branch_name)) {
    throw SecurityError("the task's title or branch name holds a secret");
  }
  reporter_.event("RunnerStarted", Json::object({{"runner_id", options_.runner_id}}), work_);
}

void Run::allocate() {
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
  slot_lease_.emplace(services_.slot_leases->hold(options_.slot_lease,
                                                  {slot_->slot_id.value, slot_->lease_token},
                                                  [this](LeaseNews) { stop(Stopped::kSlotLost); }));
  const Json data =
      Json::object({{"slot_id", slot_->slot_id.value}, {"runner_id", options_.runner_id}});
  reporter_.event("SlotAllocated", data, work_);
}

void Run::prepare() {
  enter(Phase::kPrepare);
  remove_leftovers(options_.run_dir);  // the log is ours, so no run is at work here
  scratch_.emplace(kScratchPrefix, options_.run_dir);
  workspace_.emplace(workspaces_.prepare(task_, slot_, scratch_->path(), work_));
  for (const std::string& warning : workspace_->warnings) teller_.warn(warning);
  look_at_workspace();
  log_.line("branch " + workspace_->branch + " from " + workspace_->base_commit);
  look_at_sandbox();  // before a model is paid
  choose_proof();
  choose_executors();
}

void Run::look_at_sandbox() {
  process::Sandbox& sandbox = services_.sandbox;
  sandbox.require_usable();
  result_.sandbox = sandbox.name();
  result_.sandbox_missing = sandbox.missing();
  log_.line("tests run in: " + result_.sandbox + "; " + sandbox.limits());
  for (const std::string& lack : result_.sandbox_missing) log_.line("the sandbox: " + lack);
  if (!result_.sandbox_missing.empty() && result_.sandbox != "unsandboxed") {
    teller_.warn("this host has no more than the sandbox \"" + result_.sandbox +
                 "\"; the log and the result say what it cannot give");
  }
  // It was lent by somebody, and is not thrown away.
  if (workspace_->given && !sandbox.can_cover() && result_.sandbox != "unsandboxed") {
    throw SecurityError("slot_path is not used: the sandbox \"" + result_.sandbox +
                        "\" cannot keep tests from the clone's own .git; give a repo_url");
  }
}

// What the tests may not touch, and what a playbook may ask for.
void Run::look_at_workspace() {
  test_workspace_ = {workspace_->root, workspace_->read_only, workspace_->covers, {}, {}};
  for (std::string& file : workspace_->repository.tracked_files(work_)) {
    if (matches_any(task_.readonly_files, file))
      test_workspace_.read_only_files.push_back(std::move(file));
  }
  // Repositories of the user's inside the slot: a test may not take their history away.
  for (const std::string& path : workspace_->users_files) {
    if (path.ends_with("/.git")) test_workspace_.protect.push_back(path);
  }
  test_values_ = playbook_values(task_, workspace_->branch, workspace_->base_commit);
}

// Before the change, so that it cannot choose for itself.
void Run::choose_proof() {
  const auto read_at_head = [this](const std::string& path) {
    return workspaces_.read_at_remote_head(*workspace_, path, work_);
  };
  ChosenPlaybook chosen =
      choose_playbook(task_, workspace_->remote_url, options_.playbooks, read_at_head,
                      detect_test_commands(workspace_->root), options_.test_retries);
  for (const std::string& warning : chosen.warnings) teller_.warn(warning);
  playbook_ = std::move(chosen.playbook);
  test_commands_ = playbook_.commands();
  if (!playbook_.steps.empty()) log_.line("the change is proved by " + chosen.origin);
}

// All of the chain, so that one that is not there is told before another is paid.
void Run::choose_executors() {
  for (const std::string& name : services_.executors.chain_of(task_)) {
    const fs::path folder = scratch_->path() / ("executor-" + std::to_string(efforts_.size() + 1));
    const ExecutorScope scope = {task_, test_workspace_, workspace_->repository, log_, folder};
    efforts_.push_back({name, services_.executors.make(name, scope)});
  }
}

void Run::plan() {
  const Assignment assignment = make_assignment();
  result_.exit_code = ExitCode::kDone;
  teller_.emit(
      "plan",
      Json::object({{"branch", workspace_->branch},
                    {"base_commit", workspace_->base_commit},
                    {"test_commands", test_commands_},
                    {"prompt", services_.masker.mask(effort().executor->prompt(assignment))}}));
}

// An earlier runner may have been killed after its push: work that passes is not done twice.
bool Run::adopt_earlier_work() {
  if (!workspace_->has_earlier_work) return false;
  enter(Phase::kTest);
  log_.line("the branch already has work of this task: " + workspace_->remote_tip);
  if (run_tests().passed()) {
    result_.adopted = true;
    teller_.warn("the branch holds work of this task that passes its tests; it is adopted");
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
void Run::baseline() {
  if (!options_.baseline || test_commands_.empty()) return;
  enter(Phase::kBaseline);
  const fs::path kept = baseline_file();
  if (auto known = read_baseline(kept)) {
    note_red(std::move(*known));
    return;
  }
  TestReport report;
  tests_.run(test_workspace_, baseline_of(playbook_), test_values_, {}, test_times(), work_,
             report);
  workspaces_.restore(*workspace_, work_);
  note_red(red_steps(report));
  const bool whole = std::none_of(report.commands.begin(), report.commands.end(),
                                  [](const TestCommandResult& one) { return one.round_over; });
  if (whole) keep_baseline(kept, red_before_);
}

fs::path Run::baseline_file() const {
  return options_.data_dir / "baselines" /
         (sha256_hex(workspace_->base_commit + "\n" + playbook_.fingerprint(test_values_)) +
          ".json");
}

void Run::note_red(RedSteps red) {
  red_before_ = std::move(red);
  for (const auto& [step, cases] : red_before_) result_.red_at_base.push_back(step);
}

// Each executor in turn, until the tests pass on one's change. What ends the last one ends the run.
void Run::implement_until_tests_pass() {
  while (true) {
    try {
      return repair_until_tests_pass();
    } catch (const std::exception& error) {
      if (effort_at_ + 1 == efforts_.size() || !another_may_do_better(error)) throw;
      start_over(error);
    }
  }
}

bool Run::another_may_do_better(const std::exception& error) const {
  if (stopped_.load() != Stopped::kNo || work_.expired()) return false;
  switch (exit_code_for(error)) {
    case ExitCode::kTestsFailed:
    case ExitCode::kModelRefused:
    case ExitCode::kModelUnusable:
    case ExitCode::kModelUnavailable:
    case ExitCode::kResourceLimit:
      return true;
    default:
      return false;
  }
}

// The next executor begins from the base, and is told what became of this one.
void Run::start_over(const std::exception& error) {
  const std::string reason =
      printable(head_and_tail(services_.masker.mask(error.what()), kReasonBytes));
  const std::string ended = effort().name + " did not get there: " + reason;
  given_up_.push_back(ended);
  effort().executor.reset();
  ++effort_at_;
  teller_.warn(ended + "; " + effort().name + " begins from the base");
  workspaces_.reset_to_base(*workspace_, work_);
  staged_.reset();
  result_.tests.reset();
}

void Run::repair_until_tests_pass() {
  enter(Phase::kImplement);
  while (true) {
    const Implementation answer = implement();
    const bool repeated = !effort().answers.insert(answer.answer_digest).second;
    for (const std::string& file : answer.changed_files) effort().changed.insert(file);
    // Before it is staged: a lent clone shares its object store, where nothing is taken back.
    refuse_secrets(answer.changed_files);
    workspaces_.stage(*workspace_, answer.changed_files, work_);
    if (test_commands_.empty()) return;
    // What proves the change is proved without what else lies there.
    if (answer.leaves_more) workspaces_.restore(*workspace_, work_);
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
    effort().failed_tests =
        services_.masker.mask(describe_failure(report, red_before_, limits::kFailureOutputBytes));
    if (repeated || effort().repairs >= options_.max_repairs) throw_tests_failed(report, repeated);
    ++effort().repairs;
    ++result_.repairs;
    enter(Phase::kRepair);
  }
}

// In the files themselves: a diff may show what git takes for binary in a form of its own.
void Run::refuse_secrets(const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    const auto content = read_workspace_file(workspace_->root, file, 2 * limits::kModelAnswerBytes);
    if (services_.masker.contains_secret(file + "\n" + content.value_or(""))) {
      throw SecurityError("the change holds a secret; it is not committed");
    }
  }
}

// One usable answer, applied; asks again when it cannot be used.
Implementation Run::implement() {
  std::string unusable;
  while (true) {
    Assignment assignment = make_assignment();
    assignment.failed_tests = effort().failed_tests;
    assignment.unusable_answer = unusable;
    assignment.changed_files.assign(effort().changed.begin(), effort().changed.end());
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

Implementation Run::call_model(const Assignment& assignment) {
  spending_.require_left();
  result_.executor = effort().name;
  try {
    Implementation answer = effort().executor->implement(assignment, work_, spending_, transcript_);
    note_spending();
    result_.model = answer.model;
    log_.line("change: " + join(answer.changed_files, ", "));
    log_.line("model's explanation: " + answer.explanation);
    teller_.model_call(answer.attempts, result_.usage,
                       {{"model", answer.model}, {"usage", answer.usage.to_json()}});
    teller_.emit("edit", Json::object({{"files", answer.changed_files}}));
    return answer;
  } catch (const std::exception& error) {
    note_spending();
    transcript_.failed(error.what());
    const auto* known = dynamic_cast<const RunnerError*>(&error);
    teller_.model_call(known ? known->info().attempts : 0, result_.usage,
                       {{"error", services_.masker.mask(error.what())}});
    throw;
  }
}

void Run::note_spending() {
  result_.usage = spending_.usage();
  result_.model_calls = spending_.calls();
}

// The reason to ask again with, or nothing when that was done often enough.
std::string Run::note_unusable(const RunnerError& error) {
  const std::string reason = services_.masker.mask(error.what());
  teller_.warn("answer not used: " + reason);
  if (effort().reasks >= options_.max_reasks) return {};
  ++effort().reasks;
  ++result_.reasks;
  return reason;
}

void Run::commit() {
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

void Run::take_staged(StagedChange staged) {
  result_.files = std::move(staged.files);
  diff_ = std::move(staged.diff);
}

void Run::push() {
  if (options_.extent == RunExtent::kWithoutPush) {
    log_.line("not pushed, as it is a dry run");
    return conclude();
  }
  push_commit();
  for (int moves = 0; moves < kRebasesMax && base_moved(); ++moves) {
    if (!follow_base()) break;
  }
  conclude();
}

void Run::push_commit() {
  enter(Phase::kPush);
  reporter_.require_lease(work_);
  result_.push = workspaces_.push(*workspace_, task_, commit_, work_);
  log_.line("pushed " + result_.push->branch);
  teller_.retries("push", result_.push->retries);
  teller_.emit("push", Json::object({{"branch", result_.push->branch}, {"commit", commit_}}));
}

bool Run::base_moved() const {
  return !result_.push->base_tip.empty() && result_.push->base_tip != workspace_->base_tip;
}

// The base moved while the run was at work: the same change on top of it, proved again and
// pushed. Where that cannot be, what is pushed stays: it is proved as it stands.
bool Run::follow_base() {
  const Proved before = {commit_,       workspace_->base_commit, workspace_->base_tip,
                         result_.tests, {result_.files, diff_},  red_before_,
                         *result_.push};
  std::string reason;
  try {
    if (rebase(reason)) {
      push_commit();
      return true;
    }
  } catch (const std::exception& error) {
    if (stopped_.load() != Stopped::kNo) throw;
    const CallContext look = CallContext().within(kCollectTime);
    if (!workspaces_.pushed(*workspace_, task_, before.commit, look)) throw;
    reason = error.what();
  }
  go_back(before);
  if (!reason.empty()) {
    teller_.warn("the base moved meanwhile, and the change cannot follow: " + reason);
  }
  return false;
}

bool Run::rebase(std::string& reason) {
  log_.line("the base moved to " + result_.push->base_tip);
  const auto rebased =
      workspaces_.rebase(*workspace_, task_, commit_, result_.push->base_tip, reason, work_);
  if (!rebased) return false;
  look_at_workspace();
  red_before_ = read_baseline(baseline_file()).value_or(RedSteps());
  if (!playbook_.steps.empty()) {
    enter(Phase::kTest);
    const bool passed = run_tests().passed();
    workspaces_.restore(*workspace_, work_);
    if (!passed) reason = "the tests do not pass there";
    if (!passed) return false;
  }
  commit_ = *rebased;
  log_.line("commit " + commit_ + " on the new base");
  teller_.emit("commit", Json::object({{"commit", commit_}}));
  take_staged(workspaces_.staged(*workspace_, work_));
  return true;
}

void Run::go_back(const Proved& proved) {
  const CallContext context = CallContext().within(kHandBackTime);
  workspaces_.return_to(*workspace_, proved.commit, proved.base_commit, context);
  workspace_->base_tip = proved.base_tip;
  commit_ = proved.commit;
  result_.tests = proved.tests;
  result_.push = proved.push;
  red_before_ = proved.red_before;
  take_staged(proved.change);
}

void Run::conclude() {
  const bool verified = result_.tests && result_.tests->passed();
  result_.exit_code = verified ? ExitCode::kDone : ExitCode::kUnverified;
  if (verified) return;
  const std::string reason = playbook_.steps.empty()
                                 ? "the task names no test command and the repository suggests none"
                                 : "none of the playbook's conditions held";
  result_.failure = RunFailure{Phase::kTest, "unverified: " + reason, "tests", {}};
}

void Run::enter(Phase phase) {
  if (is_plan() && phase >= Phase::kUpload) return;  // there is nothing to do in them
  result_.phase = phase;
  log_.line("phase " + std::string(to_string(phase)));
  teller_.emit("phase", Json::object({{"phase", to_string(phase)}}));
  // The end is told by the completion itself.
  if (phase != Phase::kValidate && phase < Phase::kUpload) {
    reporter_.event("TaskProgress", Json::object({{"phase", to_string(phase)}}), work_);
  }
}

TestRunner::Times Run::test_times() const {
  return {task_.test_timeout, options_.tests_total_timeout};
}

const TestReport& Run::run_tests() {
  TestReport& report = result_.tests.emplace();
  tests_.run(test_workspace_, playbook_, test_values_, red_before_, test_times(), work_, report);
  teller_.tests(report);
  return report;
}

void Run::throw_tests_failed(const TestReport& report, bool repeated) {
  const TestCommandResult* failed = report.first_failure();
  const std::string reason = "the tests do not pass" +
                             std::string(repeated ? ", and the model repeats its answer" : "") +
                             (failed ? ": \"" + failed->step + "\" " + failed->verdict() : "");
  if (failed && failed->met_a_limit()) throw ResourceLimitError(reason);
  throw TestExecutionError(reason);
}

// What the model learns of the tasks that this one builds on.
const std::vector<std::string>& Run::dependencies() {
  if (!dependencies_) dependencies_ = reporter_.describe_dependencies(task_, work_);
  return *dependencies_;
}

Assignment Run::make_assignment() {
  Assignment assignment{task_, workspace_->root, workspace_->repository.tracked_files(work_),
                        test_commands_};
  if (!relevant_files_) {
    relevant_files_ = rank_files(workspace_->root, assignment.tracked_files, task_words(task_));
  }
  assignment.relevant_files = *relevant_files_;
  assignment.dependencies = dependencies();
  assignment.earlier_attempts = reporter_.describe_attempts();
  assignment.earlier_attempts.insert(assignment.earlier_attempts.end(), given_up_.begin(),
                                     given_up_.end());
  assignment.users_files = workspace_->users_files;
  return assignment;
}

void Run::stop(Stopped why) {
  Stopped expected = Stopped::kNo;
  stopped_.compare_exchange_strong(expected, why);
  stop_.request_stop();
}

}  // namespace necrocode::runner
