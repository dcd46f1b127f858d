#include "necrocode/exec/exec_run.hpp"

#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>

#include <map>
#include <set>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/git/work_tree.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/runner/artifact_uploader.hpp"
#include "necrocode/runner/change_set.hpp"
#include "necrocode/runner/run_folder.hpp"
#include "necrocode/runner/run_log.hpp"
#include "necrocode/runner/run_teller.hpp"
#include "necrocode/runner/test_detection.hpp"
#include "necrocode/runner/test_report.hpp"
#include "necrocode/runner/workspace.hpp"

namespace necrocode::exec {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using runner::Phase;

// After the time that the user gave, for all that belongs to the end: it may lose the diff, not its
// promise to be over.
constexpr auto kEndTime = 4s;
constexpr auto kStopTime = 10s;  // the same after a signal
constexpr std::size_t kScriptBytes = 4 * limits::kMiB;
constexpr std::size_t kCommitsPushed = 200;  // each is looked through for secrets

// The argument that holds the prompt, as far as one can tell: the longest that has a space in it.
std::vector<std::string>::iterator find_prompt(std::vector<std::string>& argv) {
  auto found = argv.end();
  for (auto argument = argv.begin() + 1; argument < argv.end(); ++argument) {
    if (argument->find(' ') == std::string::npos) continue;
    if (found == argv.end() || argument->size() > found->size()) found = argument;
  }
  return found;
}

// A task of its own: no other exec's work on a branch is ever taken for this one's.
runner::TaskContext task_of(const ExecOptions& options) {
  runner::TaskContext task(TaskId::make("exec", options.run_id).value());
  task.branch_name = options.push_branch;
  task.timeout = options.timeout;
  task.title = fs::path(options.argv.front()).filename().string();
  std::vector<std::string> argv = options.argv;
  const auto prompt = find_prompt(argv);
  if (prompt != argv.end()) task.title += ": " + *prompt;
  return task;
}

class ExecRun {
 public:
  ExecRun(const ExecServices& services, const ExecOptions& options, const CallContext& caller)
      : services_(services),
        options_(options),
        task_(task_of(options)),
        log_(options.run_dir / "run.log", services.masker),
        teller_(options.run_id, options.observer, log_, services.masker),
        uploader_(nullptr, nullptr, options.run_dir, {task_.task_id, options.run_id},
                  services.masker),
        tests_(services.sandbox, log_, services.masker,
               [this](const runner::TestCommandResult& command) { teller_.command(command); }),
        started_(real_clock().steady_now()),
        work_(caller.within(options.timeout)) {
    result_.run_id = options.run_id;
  }

  ExecResult execute() {
    try {
      prepare();
      run_until_proved();
      push();
    } catch (const std::exception& error) {
      fail(error);
    }
    finish();
    return std::move(result_);
  }

 private:
  // --- the phases

  void prepare() {
    enter(Phase::kValidate);
    runner::remove_leftovers(options_.run_dir);
    services_.sandbox.require_usable();
    result_.sandbox = services_.sandbox.name();
    result_.sandbox_missing = services_.sandbox.missing();
    for (const std::string& lack : result_.sandbox_missing) teller_.warn("the sandbox: " + lack);
    log_.line("sandbox: " + result_.sandbox + "; " + services_.sandbox.limits());
    enter(Phase::kPrepare);
    scratch_.emplace(runner::kScratchPrefix, options_.run_dir);
    const fs::path git_dir = scratch_->path() / "git";
    fs::create_directory(git_dir);
    tree_.emplace(services_.git, options_.folder, git_dir, options_.require_clean,
                  services_.sandbox.can_cover(), work_);
    if (const std::string work = tree_->users_work(work_); !work.empty()) {
      uploader_.write("users-work.patch", work);
      kept_.emplace_back("users-work.patch");
    }
    require_writable();
    warn_of_repositories_inside();
    log_.line("at " + tree_->before().head +
              (tree_->before().branch.empty() ? "" : " of " + tree_->before().branch));
    // Before anything is spent on a change that could not be pushed.
    if (!options_.push_branch.empty()) look_at_remote();
    test_commands_ = options_.test_commands.empty() ? runner::detect_test_commands(tree_->root())
                                                    : options_.test_commands;
    scripts_ = digest_scripts();
    gate_ = services_.sandbox.make_gate();
    open_proxy();
  }

  // In the sandbox we are no more than the user that we are: root without its capabilities.
  void require_writable() const {
    struct stat info = {};
    if (result_.sandbox == "unsandboxed" || ::stat(tree_->root().c_str(), &info) != 0) return;
    if (info.st_uid == ::geteuid() || (info.st_mode & S_IWOTH) != 0) return;
    throw WorkspacePreparationError(
        "the clone belongs to user " + std::to_string(info.st_uid) +
        ", and a sandboxed program of ours could not write there: run as that user (setpriv "
        "--reuid " +
        std::to_string(info.st_uid) + " …), or chown the clone");
  }

  void warn_of_repositories_inside() {
    const std::vector<std::string> inside = git::nested_repositories(tree_->root());
    if (inside.empty()) return;
    teller_.warn("repositories inside of the clone (" + join(inside, ", ") +
                 "): what the program changes in their files is not looked at, nor pushed");
  }

  void open_proxy() {
    llm::MeteredRunOptions metered;
    metered.account = {options_.run_id, options_.owner};
    metered.caps = options_.caps;
    metered.deadline = work_.deadline;
    metered.on_exchange = [this](const llm::ExchangeReport& exchange) {
      log_.line("model: " + exchange.to_json().dump());
      teller_.emit("model_exchange", exchange.to_json());
    };
    if (options_.record) {
      metered.recording = options_.run_dir / "exchanges.jsonl";
      kept_.emplace_back("exchanges.jsonl");
    }
    metered_ = services_.proxy.open(std::move(metered));
  }

  void run_until_proved() {
    enter(Phase::kImplement);
    std::string failed_tests;
    while (true) {
      const bool goes_on = run_program(failed_tests);
      if (!goes_on) return;
      failed_tests = prove();
      if (failed_tests.empty()) return;
      if (result_.repairs >= options_.repairs) {
        throw_tests_failed();
      }
      tree_->return_to(after_tree_, work_);  // what the tests left is no part of the change
      ++result_.repairs;
      enter(Phase::kRepair);
    }
  }

  // False when the end is decided, whatever tests may say.
  bool run_program(const std::string& failed_tests) {
    has_looked_ = false;
    const agent::AgentRound round =
        agent::run_agent(services_.sandbox, agent_workspace(), agent_command(failed_tests), gate_,
                         *metered_, work_, [this](std::string_view piece) {
                           log_.output(piece);
                           if (options_.output) options_.output(piece);
                         });
    log_.flush();
    if (!round.found) {
      throw TaskContextValidationError("there is no program \"" + printable(options_.argv.front()) +
                                       "\": name it with its folder, or one that PATH finds");
    }
    note_program(round);
    // Else nobody can look into it.
    std::error_code error;
    fs::permissions(tree_->root(), fs::perms::owner_all, fs::perm_options::add, error);
    look();
    if (round.program.end == process::CommandEnd::kCancelled) throw_cancelled();
    if (services_.masker.contains_secret(diff_)) {
      throw SecurityError("the change holds a secret; it is neither tested nor pushed");
    }
    const std::optional<Verdict> verdict =
        verdict_of(round.program, result_.provider, !result_.files.empty());
    if (!verdict) return true;
    decide(verdict->exit_code, verdict->reason, verdict->failure_class);
    return false;
  }

  agent::AgentWorkspace agent_workspace() {
    agent::AgentWorkspace workspace;
    workspace.root = tree_->root();
    workspace.working_directory = options_.folder;
    workspace.home = scratch_->path() / "home";
    workspace.home_template = options_.home_template;
    workspace.read_only = tree_->read_only();
    workspace.writable = tree_->writable();
    workspace.covers = tree_->covers();
    workspace.env = tree_->env();
    return workspace;
  }

  // The user's own command. In later rounds of a program that an adapter knows, with what failed
  // behind the prompt, or, where no argument looks like one, what the adapter has for such rounds.
  // Any other program is called as before, with the file that says what failed.
  agent::AgentCommand agent_command(const std::string& failed_tests) {
    const agent::AgentAdapter* adapter = services_.adapters.of_program(options_.argv.front());
    const std::string wish = "The change in the files does not pass yet. Mend it.\n" + failed_tests;
    const fs::path home = scratch_->path() / "home";
    const agent::AgentValues values = {
        wish, agent::endpoint_of(gate_), metered_->key(), {}, home, tree_->root()};
    std::vector<std::string> argv = options_.argv;
    if (!failed_tests.empty() && adapter) {
      const auto prompt = find_prompt(argv);
      if (prompt == argv.end() && !adapter->resume.empty()) {
        agent::AgentCommand command = agent::command_of(*adapter, values, true);
        command.argv.front() = argv.front();
        return command;
      }
      if (prompt != argv.end()) *prompt += "\n\n" + wish;
    }
    agent::AgentCommand command = agent::command_of(adapter, argv, values);
    if (!failed_tests.empty()) {
      write_file_atomic(home / "failed-tests.txt", failed_tests);
      command.env.push_back("NECROCODE_FAILED_TESTS=" + (home / "failed-tests.txt").string());
    }
    return command;
  }

  void note_program(const agent::AgentRound& agent_round) {
    const process::CommandResult& program = agent_round.program;
    ProgramRound round;
    round.name = options_.argv.front();
    round.end = program.end;
    round.exit_code = program.exit_code;
    round.signal = program.signal;
    round.limit_reached = program.limit_reached;
    round.output_bytes = program.out.total_bytes + program.err.total_bytes;
    round.duration = program.duration;
    round.usage = program.usage;
    result_.program = round;
    result_.provider = agent_round.metered;
    log_.line("program: exit code " + std::to_string(round.exit_code) + " after " +
              human_duration(round.duration));
    teller_.emit("program", result_.to_json()["program"]);
  }

  // Empty when the tests pass, or there are none; else what goes back to the program.
  std::string prove() {
    if (!options_.protect.empty()) restore_protected();
    if (test_commands_.empty()) return {};
    enter(Phase::kTest);
    runner::TestReport& report = result_.tests.emplace();
    runner::TestRunner::Workspace workspace;
    workspace.root = tree_->root();
    workspace.read_only = tree_->read_only();
    workspace.covers = tree_->covers();
    for (auto& cover : workspace.covers) cover.writable = false;
    tests_.run(workspace, runner::playbook_of(test_commands_, true, options_.test_retries),
               Json::object({}), {}, {options_.test_timeout}, work_, report);
    teller_.tests(report);
    if (report.passed()) return {};
    return services_.masker.mask(runner::describe_failure(report, {}, limits::kFailureOutputBytes));
  }

  void restore_protected() {
    result_.protected_restored = tree_->restore(options_.protect, work_);
    for (const std::string& file : result_.protected_restored) {
      teller_.warn("changed by the program, and as before again: " + file);
    }
    if (!result_.protected_restored.empty()) look();
  }

  // Also what no test proves, as any run does; its exit code says so.
  void push() {
    if (result_.failure) return;
    if (!options_.push_branch.empty()) push_change();
    if (result_.tests && result_.tests->passed()) {
      result_.exit_code = ExitCode::kDone;
    } else {
      decide(ExitCode::kUnverified,
             "unverified: no test command is given, and the repository suggests none", "tests");
    }
  }

  void push_change() {
    enter(Phase::kCommit);
    take_commits(work_);
    refuse_secrets_in_commits();
    const TreeAfter after{after_tree_, result_.files, diff_};
    const std::string commit = tree_->commit(
        after, services_.masker.mask(runner::commit_message(task_, options_.commit)), work_);
    if (commit == tree_->before().head)
      throw PushError("the program changed nothing, so there is nothing to push");
    teller_.emit("commit", Json::object({{"commit", commit}}));
    enter(Phase::kPush);
    result_.push = workspaces_.push(*remote_, task_, commit, work_);
    log_.line("pushed " + result_.push->branch);
    teller_.emit("push", Json::object({{"branch", result_.push->branch}, {"commit", commit}}));
  }

  // What was committed and taken away again is pushed as well.
  void refuse_secrets_in_commits() const {
    if (!result_.commits) return;
    const git::Repository& repository = tree_->repository();
    const std::string range = result_.commits->from + ".." + result_.commits->to;
    const std::string commits = repository.run(
        {"rev-list", "--max-count=" + std::to_string(kCommitsPushed + 1), range}, work_);
    std::size_t count = 0;
    for (const std::string_view line : split(trim(commits), '\n')) {
      const std::string commit(line);
      if (++count > kCommitsPushed) {
        throw WorkspacePreparationError("the program made more than " +
                                        std::to_string(kCommitsPushed) + " commits to push");
      }
      if (services_.masker.contains_secret(repository.commit_message(commit, work_)) ||
          services_.masker.contains_secret(repository.diff(commit + "^", commit, work_))) {
        throw SecurityError("a commit of the program's holds a secret; nothing is pushed");
      }
    }
  }

  // The branch is new at the remote, or an earlier one of ours: as for any run (docs/runs.md).
  void look_at_remote() {
    remote_.emplace(tree_->repository(), tree_->root(), tree_->remote_url(), options_.push_branch);
    workspaces_.look_at_branch(*remote_, task_, work_);
  }

  // --- the end, whatever happened

  void fail(const std::exception& error) {
    result_.failure = runner::describe_failure(result_.phase, error);
    result_.exit_code = exit_code_for(error);
    if (work_.cancelled()) {
      result_.exit_code = ExitCode::kCancelled;
      result_.failure->reason = "stopped by a signal or its caller";
      result_.failure->failure_class = "cancelled";
    } else if (work_.expired() && result_.exit_code != ExitCode::kSecurity) {
      result_.exit_code = ExitCode::kTaskTimeout;
      result_.failure->reason =
          "its time (" + human_duration(options_.timeout) + ") ran out: " + result_.failure->reason;
    }
    result_.failure->reason = services_.masker.mask(result_.failure->reason);
    log_.line("failed: " + result_.failure->reason);
  }

  void decide(ExitCode code, const std::string& reason, const std::string& failure_class) {
    result_.exit_code = code;
    result_.failure =
        runner::RunFailure{result_.phase, services_.masker.mask(reason), failure_class, {}};
    log_.line(result_.failure->reason);
  }

  [[noreturn]] void throw_cancelled() const {
    ErrorInfo info;
    info.end = CallEnd::kCancelled;
    throw TimeoutError("the program was stopped", std::move(info));
  }

  [[noreturn]] void throw_tests_failed() const {
    const runner::TestCommandResult* failed = result_.tests->first_failure();
    const std::string reason =
        "the tests do not pass" +
        (failed ? ": \"" + failed->step + "\" " + failed->verdict() : std::string());
    if (failed && failed->met_a_limit()) throw ResourceLimitError(reason);
    throw TestExecutionError(reason);
  }

  // No step here may keep the next from happening, by failing or by taking its time.
  void finish() {
    const Phase reached = result_.phase;
    end_metering();
    if (tree_) {
      if (!has_looked_) attempt("look at the change", [&](const auto&) { look(); });
      attempt("take the program's commits",
              [&](const CallContext& context) { take_commits(context); });
      attempt("put the clone's git directory back", [&](const CallContext&) {
        result_.git_put_back = tree_->put_back();
        for (const std::string& what : result_.git_put_back) {
          teller_.warn("what the program left for git, put back: " + what);
        }
      });
    }
    tree_.reset();
    scratch_.reset();  // its home too
    enter(Phase::kUpload);
    attempt("keep the artifacts", [&](const CallContext&) { keep_all(); });
    result_.duration = real_clock().steady_now() - started_;
    result_.phase = result_.exit_code == ExitCode::kDone ? Phase::kRelease : reached;
    attempt("write result.json", [&](const CallContext&) {
      write_file_durable(options_.run_dir / "result.json",
                         services_.masker.mask(result_.to_json().pretty()) + "\n", 0600);
    });
  }

  void take_commits(const CallContext& context) {
    if (!result_.program || commits_taken_) return;
    commits_taken_ = true;
    result_.commits = tree_->take_commits("necrocode/" + options_.run_id, context);
  }

  // The last word on what was spent; what the last round failed by stays.
  void end_metering() {
    if (!metered_) return;
    llm::Metered sums = metered_->end();
    if (!sums.failure) sums.failure = result_.provider.failure;
    result_.provider = std::move(sums);
  }

  template <class Step>
  void attempt(std::string_view what, Step step) {
    try {
      step(end_context());
    } catch (const std::exception& error) {
      log::error("the end: cannot " + std::string(what), {{"error", error.what()}});
      teller_.warn("cannot " + std::string(what) + ": " + error.what());
    }
  }

  void keep_all() {
    if (!diff_.empty()) {
      uploader_.write("diff.patch", diff_);
      kept_.emplace_back("diff.patch");
    }
    if (result_.tests) {
      uploader_.write("tests.json", result_.tests->to_json(limits::kOutputHeadBytes).pretty());
      uploader_.write("junit.xml", runner::to_junit_xml(*result_.tests));
      kept_.insert(kept_.end(), {"tests.json", "junit.xml"});
    }
    log_.line("ended: " + std::string(runner::outcome_of(result_.exit_code)));
    kept_.emplace_back("run.log");
    for (const std::string& name : kept_) {
      std::error_code error;
      if (!fs::exists(options_.run_dir / name, error)) continue;
      const runner::UploadedArtifact artifact = uploader_.describe(name);
      teller_.emit("artifact", Json::object({{"artifact_type", artifact.type},
                                             {"uri", artifact.uri},
                                             {"size_bytes", artifact.size_bytes}}));
      result_.artifacts.push_back(artifact);
    }
  }

  // --- common to the phases

  // Of what must be done even when there is no time left, or somebody wants us to stop.
  CallContext end_context() {
    const SteadyTime now = real_clock().steady_now();
    if (work_.cancelled() && !over_by_) over_by_ = now + kStopTime;
    CallContext context;
    context.deadline = std::min(over_by_.value_or(SteadyTime::max()), work_.deadline + kEndTime);
    return context;
  }

  // Also after a round that failed: what was paid for is kept.
  void look() {
    const CallContext context = end_context();
    TreeAfter after = tree_->look(context);
    after_tree_ = after.tree;
    result_.files = std::move(after.files);
    diff_ = std::move(after.diff);
    if (!after.diff_left_out.empty()) teller_.warn("there is no diff: " + after.diff_left_out);
    for (const std::string& path : after.unread) {
      teller_.warn("cannot be read, and is no part of the change: " + path);
    }
    has_looked_ = true;
    for (const git::FileChange& file : result_.files) {
      if (is_test_like(file.path, test_commands_)) tests_changed_.insert(file.path);
    }
    for (const auto& [path, digest] : digest_scripts()) {
      if (scripts_[path] != digest) tests_changed_.insert(path);
    }
    result_.tests_changed.assign(tests_changed_.begin(), tests_changed_.end());
    teller_.emit("edit", Json::object({{"files", paths()}}));
  }

  // What the test commands run, as far as it lies in the work tree: git may ignore it, and then no
  // diff shows that it was changed.
  std::map<std::string, std::string> digest_scripts() const {
    std::map<std::string, std::string> digests;
    for (const std::string& command : test_commands_) {
      const std::string path(script_of(command));
      if (path.empty() || path.front() == '/') continue;
      const auto content = runner::read_workspace_file(tree_->root(), path, kScriptBytes);
      if (content) digests[path] = sha256_hex(*content);
    }
    return digests;
  }

  std::vector<std::string> paths() const {
    std::vector<std::string> paths;
    for (const git::FileChange& file : result_.files) paths.push_back(file.path);
    return paths;
  }

  void enter(Phase phase) {
    result_.phase = phase;
    log_.line("phase " + std::string(to_string(phase)));
    teller_.emit("phase", Json::object({{"phase", to_string(phase)}}));
  }

  const ExecServices& services_;
  const ExecOptions& options_;
  const runner::TaskContext task_;
  runner::RunLog log_;
  runner::RunTeller teller_;
  runner::ArtifactUploader uploader_;
  runner::TestRunner tests_;
  const SteadyTime started_;
  const CallContext work_;
  ExecResult result_;
  std::optional<TemporaryDirectory> scratch_;
  std::optional<LentTree> tree_;
  std::optional<runner::Workspace> remote_;
  runner::WorkspaceManager workspaces_{services_.git, options_.git_retries};
  process::Gate gate_;
  std::unique_ptr<llm::MeteredRun> metered_;
  std::vector<std::string> test_commands_;
  std::string after_tree_;
  std::string diff_;
  bool has_looked_ = true;  ///< at the work tree, since the program was last at work
  bool commits_taken_ = false;
  std::optional<SteadyTime> over_by_;           ///< after a signal
  std::map<std::string, std::string> scripts_;  ///< of test commands: path to digest, before
  std::set<std::string> tests_changed_;
  std::vector<std::string> kept_;
};

}  // namespace

ExecResult execute(const ExecServices& services, const ExecOptions& options,
                   const CallContext& context) {
  fs::create_directories(options.run_dir);
  return ExecRun(services, options, context).execute();
}

ExecResult failed_before_start(const std::string& run_id, const std::exception& error) {
  ExecResult result;
  result.run_id = run_id;
  result.exit_code = exit_code_for(error);
  result.failure = runner::describe_failure(Phase::kValidate, error);
  return result;
}

}  // namespace necrocode::exec
