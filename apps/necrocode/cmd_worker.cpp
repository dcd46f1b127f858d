// necrocode worker: claims ready tasks until stopped.
#include "allocator.hpp"
#include "commands.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/runner/worker.hpp"
#include "runtime.hpp"
#include "terminal.hpp"
#include "worker_status.hpp"

namespace necrocode::app {
namespace {

struct WorkerArguments {
  CommonOptions common;
  int max_parallel = 1;
  std::vector<std::string> skills;
  int lease_seconds = 60;
  bool no_baseline = false;
  bool unsandboxed = false;
  std::string health_listen;
  std::string provider;
};

int run(const WorkerArguments& arguments) {
  StopOnSignal signals;
  allow_many_files();
  process::Supervisor& children = supervisor();
  Runtime runtime(arguments.common);
  runtime.expect_runs(arguments.max_parallel);
  // Without a registry or a model it can do nothing: that is said before anything starts.
  runtime.registry();
  require_folder("--data", runtime.config().data_dir / "runs");
  if (!arguments.provider.empty() && !is_plain_name(arguments.provider)) {
    throw ConfigError("--provider: a provider's name is [A-Za-z0-9][A-Za-z0-9._-]{0,99}");
  }
  runtime.require_model_key(runtime.config().executor);
  std::optional<WorkerStatus> status;
  if (!arguments.health_listen.empty()) {
    status.emplace(parse_listen_address(arguments.health_listen), runtime.http(), signals.token());
    runtime.on_call([&status](const net::CallReport& report) { status->count(report); });
    runtime.on_model_call([&status](const llm::ModelCallReport& call) { status->count(call); });
  }
  RunnerParts parts(runtime, children, arguments.unsandboxed);
  parts.sandbox().require_usable();  // before a task is claimed
  const config::Config& config = runtime.config();

  runner::WorkerOptions options;
  options.max_parallel = arguments.max_parallel;
  options.skills = arguments.skills;
  options.lease = std::chrono::seconds{arguments.lease_seconds};
  options.drain = std::chrono::seconds{config.drain_seconds};
  options.on_thread = keep_no_freed_memory;
  options.data_dir = config.data_dir;
  options.min_free_memory_bytes =
      static_cast<std::uint64_t>(config.min_free_memory_mb) * limits::kMiB;
  options.defaults = runtime.task_defaults();
  options.run = runtime.run_options();
  options.run.baseline = !arguments.no_baseline;
  options.run.provider = arguments.provider.empty() ? runtime.llm_host() : arguments.provider;
  options.run.slot_lease = options.lease;
  RunOutput output;
  if (status) {
    if (arguments.common.json) {
      output.print_json_line(Json::object({{"type", "listening"}, {"url", status->url()}}));
    } else {
      output.print_line("health and metrics at " + status->url());
    }
  }
  options.run.observer = [&arguments, &output](const runner::RunEvent& event) {
    if (arguments.common.json) {
      output.print_json_line(event.to_json(real_clock().system_now()));
    } else if (event.type == "phase") {
      output.print_line(presentable(event.task_id + "  " + event.data["phase"].string_or("")));
    }
  };
  options.on_result = [&arguments, &output](const runner::RunResult& result) {
    if (arguments.common.json) {
      output.print_json_line(result.to_json());
    } else {
      output.print_line(
          result.task_id + "  " + styled(result.success() ? "good" : "bad", result.outcome()) +
          "  " + human_duration(result.duration) +
          (result.failure ? "  " + shorten(presentable(result.failure->reason), 300) : ""));
    }
  };
  runner::Worker worker(parts.services(), options);
  const runner::WorkerSummary summary = worker.run(signals.context());
  if (!arguments.common.json) {
    output.print_line("worker stopped: " + std::to_string(summary.done) + " done, " +
                      std::to_string(summary.failed) + " failed, " +
                      std::to_string(summary.cancelled) + " cancelled, " +
                      std::to_string(summary.handed_back) + " handed back");
  }
  output.finish();
  return 0;
}

}  // namespace

void declare_worker(Cli& cli) {
  static WorkerArguments arguments;
  Cli& command = cli.command("worker", "Claims ready tasks and runs them, until stopped");
  arguments.common.declare(command);
  arguments.common.declare_services(command, kAllServices);
  arguments.common.declare_llm(command);
  arguments.common.declare_tests(command);
  arguments.common.declare_json(command, "print events as JSON lines");
  command.option("--max-parallel", arguments.max_parallel, 1, 1000, "runs side by side")
      .options("--skill", arguments.skills,
               "of the tasks that need a skill, claim only those that need this one (repeatable); "
               "tasks that need none are always claimed")
      .option("--lease-seconds", arguments.lease_seconds, 1, 3600, "lease of a task and its slot")
      .option(
          "--provider", arguments.provider,
          "the registry's name of the model provider (default: the endpoint's host): only tasks "
          "that need this one or none are claimed, and it is parked while its quota is used up")
      .option("--health-listen", arguments.health_listen,
              "HOST:PORT to answer GET /health and /metrics at; port 0 takes a free one")
      .flag("--no-baseline", arguments.no_baseline, "do not run the tests before the change")
      .flag("--unsandboxed", arguments.unsandboxed, "run tests without isolation, on your own risk")
      .action([] { return run(arguments); });
}

}  // namespace necrocode::app
