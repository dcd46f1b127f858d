// necrocode run: one task, start to end.
#include <algorithm>
#include <utility>

#include "commands.hpp"
#include "conduct.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/runner/artifact_uploader.hpp"
#include "necrocode/runner/run_folder.hpp"
#include "necrocode/runner/worker.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct RunArguments {
  CommonOptions common;
  std::string task_file;
  std::string repo;
  std::string executor;
  std::string playbook;
  std::string out;
  bool dry_run = false;
  bool plan = false;
  bool no_baseline = false;
  bool unsandboxed = false;
};

// The task as the registry has it: its truth is there. What the file says, too, must be the same.
runner::TaskContext agreed_context(const Json& file, const registry::Task& known,
                                   runner::TaskDefaults defaults) {
  const std::string repo = std::exchange(defaults.repo_url, "");
  if (known.fields["repo_url"].string_or("").empty()) defaults.repo_url = repo;
  const Json truth = known.to_json();
  runner::TaskContext task = runner::read_task_context(truth, defaults);
  Json merged = truth;
  for (const auto& [name, value] : file.members()) merged.set(name, value);
  task.warnings = runner::read_task_context(merged, defaults).warnings;
  // Metadata are notes, which the registry adds to; no run depends on them.
  const auto what_counts = [](runner::TaskContext context) {
    context.metadata = {};
    context.warnings.clear();
    return context;
  };
  std::vector<std::string> differing;
  for (const auto& [name, value] : file.members()) {
    const Json changed = Json(truth).set(name, value);
    if (what_counts(runner::read_task_context(changed, defaults)) != what_counts(task))
      differing.push_back(name);
  }
  if (!repo.empty() && repo != task.repo_url) differing.emplace_back("--repo");
  if (differing.empty()) return task;
  throw TaskContextValidationError("the registry has task " + known.id + " with another " +
                                   join(differing, ", ") +
                                   "; leave that out, or submit the task anew");
}

std::string why_not_ready(const registry::Task& task) {
  const std::string is = "task " + task.id + " is " + std::string(to_string(task.state));
  switch (task.state) {
    case registry::TaskState::kBlocked:
      return is + (task.blocked_reason.empty() ? "" : " (" + task.blocked_reason + ")") +
             ": it becomes ready when what it depends on is done";
    case registry::TaskState::kRunning:
      return is + " on " + task.runner_id + ": wait for it, or end it with `necrocode task cancel`";
    case registry::TaskState::kFailed:
      return is + ": `necrocode task retry " + task.id + "` makes it ready again";
    case registry::TaskState::kReady:
      return is +
             ", but was not given out: another runner took it, or it waits before its next "
             "attempt; see `necrocode task show " +
             task.id + "`";
    default:
      return is + ": nothing is left to run";
  }
}

// One `run`, up to its result. What is known so far is there also when it fails early.
class OneRun {
 public:
  OneRun(const RunArguments& arguments, RunOutput& output)
      : arguments_(arguments), output_(output) {
    options_.runner_id = "runner-" + random_hex(4);
  }

  runner::RunResult execute(const CallContext& context);

  /// The result of a run that could not begin, told where it will be looked for.
  runner::RunResult fail_early(const std::exception& error);
  void show(const runner::RunResult& result) const;

 private:
  void use_out_folder();
  void set_options(const Runtime& runtime);
  config::ExecutorChain given_executor() const;
  std::optional<registry::Task> find_task(TaskRegistryClient* registry, const CallContext& context);
  registry::ClaimedTask claim(TaskRegistryClient& registry, const registry::Task& known,
                              const CallContext& context) const;
  const RunArguments& arguments_;
  RunOutput& output_;
  runner::RunOptions options_;
  std::string task_id_;
};

void show_plan(RunOutput& output, const Json& plan) {
  const auto print_line = [&output](std::string_view name, const Json& value) {
    output.print_line(std::string(name) + presentable(value.string_or("")));
  };
  print_line("branch    ", plan["branch"]);
  print_line("base      ", plan["base_commit"]);
  for (const Json& command : plan["test_commands"].items()) print_line("test      ", command);
  output.print_line("");
  // Masked as a whole: a secret may have several lines.
  const std::string prompt = masked(plan["prompt"].string_or(""));
  for (const std::string_view line : split(prompt, '\n')) output.print_line(printable(line));
}

void show_event(RunOutput& output, const runner::RunEvent& event, bool json) {
  if (json) {
    output.print_json_line(event.to_json(real_clock().system_now()));
  } else if (event.type == "phase") {
    note("  " + event.data["phase"].string_or(""));
  } else if (event.type == "warning") {
    note("  " + event.data["message"].string_or(""));
  } else if (event.type == "plan") {
    show_plan(output, event.data);
  }
}

void show_result(RunOutput& output, const runner::RunResult& result,
                 const std::filesystem::path& run_dir) {
  const auto print_line = [&output](const std::string& line) { output.print_line(line); };
  const std::string outcome(result.outcome());
  print_line(styled(result.exit_code == ExitCode::kDone ? "good" : "bad", outcome) + "  " +
             result.task_id + "  " + human_duration(result.duration));
  if (result.failure) print_line("reason    " + presentable(result.failure->reason));
  if (result.push)
    print_line("branch    " + presentable(result.push->branch) + " at " + result.push->commit);
  if (result.tests) {
    for (const auto& command : result.tests->commands) {
      const std::string again =
          command.attempt > 1 ? " (attempt " + std::to_string(command.attempt) + ")" : "";
      print_line("test      " + presentable(command.step) + ": " + command.verdict() + again);
    }
  }
  if (result.adopted) print_line("adopted   the work of an earlier run on the branch");
  if (result.extent == runner::RunExtent::kPlan) return;
  if (result.executor.starts_with("command:")) {
    print_line("agent     " + presentable(result.executor.substr(result.executor.find(':') + 1)));
  }
  print_line("model     " + std::to_string(result.model_calls) + " calls, " +
             std::to_string(result.usage.total_tokens) + " tokens, " +
             std::to_string(result.repairs) + " repairs");
  for (const auto& artifact : result.artifacts)
    print_line("artifact  " + artifact.type + "  " + artifact.uri);
  print_line("result    " + (run_dir / "result.json").string());
}

void OneRun::show(const runner::RunResult& result) const {
  show_result(output_, result, options_.run_dir);
}

void OneRun::use_out_folder() {
  if (arguments_.out.empty()) return;
  const std::filesystem::path folder = std::filesystem::absolute(arguments_.out);
  require_folder("--out", folder);
  runner::remove_earlier_results(folder);
  options_.run_dir = folder;
}

void OneRun::set_options(const Runtime& runtime) {
  runner::RunOptions options = runtime.run_options();
  options.runner_id = options_.runner_id;
  options.run_dir = options_.run_dir;
  options_ = std::move(options);
  require_folder("--data", options_.data_dir / "runs");
  options_.baseline = !arguments_.no_baseline;
  if (arguments_.dry_run) options_.extent = runner::RunExtent::kWithoutPush;
  if (arguments_.plan) options_.extent = runner::RunExtent::kPlan;
  options_.observer = [this](const runner::RunEvent& event) {
    show_event(output_, event, arguments_.common.json);
  };
}

// The task as the registry has it, when one is configured and knows it.
std::optional<registry::Task> OneRun::find_task(TaskRegistryClient* registry,
                                                const CallContext& context) {
  if (!registry || task_id_.empty()) return std::nullopt;
  try {
    return registry->get_task(task_id_, context);
  } catch (const NotFound&) {
    note("necrocode: the registry does not know " + task_id_ + "; the run is not reported there");
    return std::nullopt;
  }
}

registry::ClaimedTask OneRun::claim(TaskRegistryClient& registry, const registry::Task& known,
                                    const CallContext& context) const {
  registry::ClaimRequest request;
  request.runner_id = RunnerId{options_.runner_id};
  request.task_id = known.id;
  std::vector<registry::ClaimedTask> claimed;
  if (known.state == registry::TaskState::kReady) claimed = registry.claim(request, context);
  if (claimed.empty()) throw TaskContextValidationError(why_not_ready(known));
  return std::move(claimed.front());
}

config::ExecutorChain OneRun::given_executor() const {
  if (arguments_.executor.empty()) return {};
  std::string problem;
  config::ExecutorChain chain = config::read_executor_chain(arguments_.executor, problem);
  if (!problem.empty()) throw TaskContextValidationError("--executor " + problem);
  return chain;
}

runner::RunResult OneRun::execute(const CallContext& context) {
  process::Supervisor& children = supervisor();
  Runtime runtime(arguments_.common);
  use_out_folder();
  const Json file = runner::read_task_file(arguments_.task_file);
  if (const auto id = runner::task_id_of(file)) task_id_ = id->str();
  set_options(runtime);
  if (!arguments_.playbook.empty()) {
    options_.playbooks.file = arguments_.playbook;
    runner::read_playbook_file(options_.playbooks.file);  // wrong: told before anything is begun
  }
  RunnerParts parts(runtime, children, arguments_.unsandboxed);
  const runner::RunnerServices services = parts.services();

  runner::TaskDefaults given = runtime.task_defaults();
  given.repo_url = arguments_.repo;
  given.executor = given_executor();
  const auto known = find_task(services.registry, context);
  runner::TaskContext task =
      known ? agreed_context(file, *known, given) : runner::read_task_context(file, given);
  const config::ExecutorChain executors = services.executors.chain_of(task);
  if (options_.extent != runner::RunExtent::kPlan) runtime.require_model_key(executors);
  if (options_.run_dir.empty()) {
    options_.run_dir = options_.data_dir / "runs" /
                       (std::string(task.task_id.spec()) + "-" +
                        std::string(task.task_id.number()) + "-" + random_hex(4));
  }
  std::optional<registry::ClaimedTask> claimed;
  if (known) parts.sandbox().require_usable();  // before it is claimed
  if (known && options_.extent == runner::RunExtent::kWhole) {
    claimed = claim(*services.registry, *known, context);
    try {
      // It may have changed since we looked.
      task = agreed_context(file, claimed->task, given);
    } catch (const std::exception& error) {
      runner::give_up(*services.registry, *claimed, registry::TaskState::kReady, error.what());
      throw;
    }
  }
  runner::RunResult result = runner::RunnerOrchestrator(services, options_)
                                 .run(task, claimed ? &*claimed : nullptr, context);
  const auto is_stored = [](const runner::UploadedArtifact& one) { return one.stored; };
  if (std::any_of(result.artifacts.begin(), result.artifacts.end(), is_stored)) {
    // The store is there, also for those of runs before it that were killed, or found no store.
    runner::deliver_owed(options_.data_dir / "owed", *services.artifacts, services.registry,
                         context.within(std::chrono::seconds{15}));
  }
  return result;
}

runner::RunResult OneRun::fail_early(const std::exception& error) {
  note("necrocode: " + std::string(error.what()));
  runner::RunResult result = runner::failed_before_start(options_.runner_id, task_id_, error);
  if (arguments_.out.empty()) return result;
  try {
    use_out_folder();  // also when it did not come to that: no earlier result may pass for this one
    write_file_durable(options_.run_dir / "result.json", masked(result.to_json().pretty()) + "\n",
                       0600);
  } catch (const RunnerError&) {
    // Without its words: they name the folder, and a key in them may not be known to the masker
    // yet.
    note("necrocode: the result is not kept, the folder of --out cannot be used");
  }
  return result;
}

int run(const RunArguments& arguments) {
  RunOutput output;
  OneRun one(arguments, output);
  return conduct(one, output, arguments.common.json);
}

}  // namespace

void declare_run(Cli& cli) {
  static RunArguments arguments;
  Cli& command =
      cli.command("run", "One task, start to end: workspace, change, tests, branch, artifacts");
  arguments.common.declare(command);
  arguments.common.declare_services(command, kAllServices);
  arguments.common.declare_llm(command);
  arguments.common.declare_tests(command);
  arguments.common.declare_json(command, "print events as JSON lines, the result last");
  command.positional("task", arguments.task_file, "task file, JSON or YAML")
      .option("--repo", arguments.repo,
              "repository to work on, instead of the file's repo_url; that of a task in the "
              "registry stays")
      .option(
          "--executor", arguments.executor,
          "how the change is made: llm, command:AGENT (codex, claude, …), or several with commas "
          "between, tried in turn (default: the task's, else the configured one)")
      .option("--playbook", arguments.playbook,
              "YAML file with the steps that prove the change, whatever the task names")
      .option(
          "--out", arguments.out,
          "folder for log, diff, test report and result.json (default: a new one below runs/ of "
          "the data folder)")
      .flag("--dry-run", arguments.dry_run,
            "everything but the push: nothing is told to a registry or artifact store")
      .flag("--plan", arguments.plan,
            "prepare the workspace and show the prompt; call no model, change nothing")
      .flag("--no-baseline", arguments.no_baseline, "do not run the tests before the change")
      .flag("--unsandboxed", arguments.unsandboxed, "run tests without isolation, on your own risk")
      .action([] { return run(arguments); });
}

}  // namespace necrocode::app
