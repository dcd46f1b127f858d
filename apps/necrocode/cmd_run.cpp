// necrocode run: one task, start to end.
#include "commands.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct RunArguments {
  CommonOptions common;
  std::string task_file;
  std::string repo;
  std::string llm_endpoint;
  std::string llm_model;
  std::string llm_timeout;
  std::string executor;
  std::string out;
  bool dry_run = false;
  bool no_baseline = false;
  bool unsandboxed = false;
};

std::map<std::string, std::string> settings_of(const RunArguments& arguments) {
  std::map<std::string, std::string> flags;
  if (!arguments.llm_endpoint.empty()) flags["llm.endpoint"] = arguments.llm_endpoint;
  if (!arguments.llm_model.empty()) flags["llm.model"] = arguments.llm_model;
  if (!arguments.llm_timeout.empty()) flags["llm.timeout_seconds"] = arguments.llm_timeout;
  return flags;
}

// The task's lease, when a registry is configured and knows the task.
std::optional<registry::ClaimedTask> claim(const runner::RunnerServices& services,
                                           const runner::TaskContext& task,
                                           const std::string& runner_id,
                                           const CallContext& context) {
  if (!services.registry) return std::nullopt;
  registry::ClaimRequest request;
  request.runner_id = RunnerId{runner_id};
  request.task_id = task.task_id.str();
  try {
    auto claimed = services.registry->claim(request, context);
    if (!claimed.empty()) return std::move(claimed.front());
  } catch (const NotFound&) {
    note("necrocode: the registry does not know " + task.task_id.str() +
         "; the run is not reported there");
    return std::nullopt;
  }
  throw TaskContextValidationError("the registry has task " + task.task_id.str() +
                                   ", but it is not ready to run");
}

void show_event(RunOutput& output, const runner::RunEvent& event, bool json) {
  if (json) {
    output.print_json_line(event.to_json(real_clock().system_now()));
  } else if (event.type == "phase") {
    note("  " + event.data["phase"].string_or(""));
  } else if (event.type == "warning") {
    note("  " + event.data["message"].string_or(""));
  } else if (event.type == "plan") {
    output.print_line(event.data.pretty());
  }
}

void show_result(RunOutput& output, const runner::RunResult& result,
                 const std::filesystem::path& run_dir) {
  const auto print_line = [&output](const std::string& line) { output.print_line(line); };
  const std::string outcome(result.outcome());
  print_line(styled(result.success() ? "good" : "bad", outcome) + "  " + result.task_id + "  " +
             human_duration(result.duration));
  if (result.failure) print_line("reason    " + presentable(result.failure->reason));
  if (result.push)
    print_line("branch    " + presentable(result.push->branch) + " at " + result.push->commit);
  if (result.tests) {
    for (const auto& command : result.tests->commands)
      print_line("test      " + presentable(command.command) + ": " + command.verdict());
  }
  print_line("model     " + std::to_string(result.model_calls) + " calls, " +
             std::to_string(result.usage.total_tokens) + " tokens, " +
             std::to_string(result.repairs) + " repairs");
  for (const auto& artifact : result.artifacts)
    print_line("artifact  " + artifact.type + "  " + artifact.uri);
  print_line("result    " + (run_dir / "result.json").string());
}

int run(const RunArguments& arguments) {
  StopOnSignal signals;
  process::Supervisor& children = supervisor();
  Runtime runtime(arguments.common, settings_of(arguments));
  runner::TaskDefaults defaults;
  defaults.timeout = std::chrono::seconds{runtime.config().default_timeout_seconds};
  defaults.test_timeout = std::chrono::seconds{runtime.config().test_timeout_seconds};
  defaults.repo_url = arguments.repo;
  runner::TaskContext task = runner::read_task_file(arguments.task_file, defaults);
  if (!arguments.executor.empty() && arguments.executor != "llm") {
    throw TaskContextValidationError("--executor must be \"llm\", not \"" +
                                     printable(arguments.executor) + "\"");
  }
  RunnerParts parts(runtime, children, arguments.unsandboxed);
  const runner::RunnerServices services = parts.services();

  runner::RunOptions options;
  options.runner_id = "runner-" + random_hex(4);
  options.data_dir = runtime.config().data_dir;
  options.run_dir = arguments.out.empty()
                        ? options.data_dir / "runs" /
                              (std::string(task.task_id.spec()) + "-" +
                               std::string(task.task_id.number()) + "-" + random_hex(4))
                        : std::filesystem::absolute(arguments.out);
  require_folder("--data", options.data_dir / "runs");
  if (!arguments.out.empty()) require_folder("--out", options.run_dir);
  options.max_repairs = runtime.config().max_repairs;
  options.git_retries = runtime.config().git_retry_count;
  options.baseline = !arguments.no_baseline;
  options.dry_run = arguments.dry_run;
  RunOutput output;
  options.observer = [&arguments, &output](const runner::RunEvent& event) {
    show_event(output, event, arguments.common.json);
  };
  const auto claimed = arguments.dry_run
                           ? std::nullopt
                           : claim(services, task, options.runner_id, signals.context());
  if (claimed) task.base_commits = claimed->task.base_commits;

  const runner::RunResult result = runner::RunnerOrchestrator(services, options)
                                       .run(task, claimed ? &*claimed : nullptr, signals.context());
  if (arguments.common.json) {
    output.print_json_line(result.to_json());
  } else {
    show_result(output, result, options.run_dir);
  }
  if (result.success()) output.finish();  // else the run's own exit code says more
  return static_cast<int>(result.exit_code);
}

}  // namespace

void declare_run(Cli& cli) {
  static RunArguments arguments;
  Cli& command =
      cli.command("run", "One task, start to end: workspace, change, tests, branch, artifacts");
  arguments.common.declare(command);
  arguments.common.declare_services(command);
  arguments.common.declare_json(command, "print events as JSON lines, the result last");
  command.positional("task", arguments.task_file, "task file, JSON or YAML")
      .option("--repo", arguments.repo, "repository to work on, instead of the task's repo_url")
      .option("--llm-endpoint", arguments.llm_endpoint, "base URL of an OpenAI-compatible service")
      .option("--llm-model", arguments.llm_model, "model name")
      .option("--llm-timeout", arguments.llm_timeout, "seconds for one model call")
      .option("--executor", arguments.executor, "how the change is made: llm")
      .option("--out", arguments.out, "folder for log, diff, test report and result.json")
      .flag("--dry-run", arguments.dry_run,
            "prepare the workspace and show the prompt; call no model, push nothing")
      .flag("--no-baseline", arguments.no_baseline, "do not run the tests before the change")
      .flag("--unsandboxed", arguments.unsandboxed, "run tests without isolation, on your own risk")
      .action([] { return run(arguments); });
}

}  // namespace necrocode::app
