// necrocode exec: any agent program, supervised, in the clone that it is started in.
#include <unistd.h>

#include <array>
#include <cstdio>

#include "commands.hpp"
#include "conduct.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/exec/exec_run.hpp"
#include "necrocode/runner/run_folder.hpp"
#include "necrocode/runner/run_log.hpp"
#include "runtime.hpp"
#include "size_options.hpp"
#include "spend_options.hpp"
#include "terminal.hpp"
#include "time_options.hpp"

namespace necrocode::app {
namespace {

namespace fs = std::filesystem;

struct ExecArguments {
  CommonOptions common;
  std::vector<std::string> argv;
  std::string timeout = "30m";
  std::vector<std::string> tests;
  int repairs = 0;
  std::string cap_usd;
  std::string daily_cap_usd;
  std::string owner;
  std::string prices;
  std::string memory;
  int pids = 0;
  std::vector<std::string> protect;
  bool require_clean = false;
  std::string push;
  std::string out;
  std::string home_template;
  bool record = false;
  bool unsandboxed = false;
};

constexpr int kProcessesMax = 1'000'000;
constexpr int kRepairsMax = 20;

constexpr std::uint64_t kMemoryMin = 16 * limits::kMiB;  // below them a sandbox cannot even begin
constexpr int kProcessesMin = 8;

// Before anything is made in it.
void refuse_inside_clone(const fs::path& out, const fs::path& folder) {
  std::error_code error;
  for (fs::path root = folder; root.has_relative_path(); root = root.parent_path()) {
    if (!fs::exists(fs::symlink_status(root / ".git", error))) continue;
    const std::string inner = fs::weakly_canonical(out, error).string() + "/";
    const std::string outer = fs::weakly_canonical(root, error).string() + "/";
    if (inner.starts_with(outer)) {
      throw ConfigError(
          "--out must lie outside of the clone, or what is kept of the run would be "
          "a change of it: " +
          out.string());
    }
    return;
  }
}

std::string default_owner() {
  return "uid-" + std::to_string(::getuid());
}

void show_event(RunOutput& output, const runner::RunEvent& event, bool json) {
  if (json) {
    output.print_json_line(event.to_json(real_clock().system_now()));
  } else if (event.type == "warning") {
    note("necrocode: " + event.data["message"].string_or(""));
  }
}

std::string counted(std::size_t count, std::string_view what) {
  return std::to_string(count) + " " + std::string(what) + (count == 1 ? "" : "s");
}

std::string dollars(double usd) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), usd < 0.01 ? "$%.6f" : "$%.4f", usd);
  return text.data();
}

// On stderr: stdout is the program's own, as it would be without us.
void show_result(const exec::ExecResult& result, const fs::path& run_dir) {
  note("necrocode: " + std::string(runner::outcome_of(result.exit_code)) + " after " +
       human_duration(result.duration) + " (exit code " +
       std::to_string(static_cast<int>(result.exit_code)) + ")");
  if (result.failure) note("  reason    " + result.failure->reason);
  if (result.tests) {
    for (const auto& command : result.tests->commands) {
      note("  test      " + command.step + ": " + command.verdict());
    }
  }
  note("  changed   " + counted(result.files.size(), "file"));
  if (!result.tests_changed.empty()) {
    note("  tests     changed: " + join(result.tests_changed, ", "));
  }
  if (result.commits) {
    note("  commits   " + std::to_string(result.commits->count) + " on " + result.commits->branch +
         (result.commits->moved_aside.empty() ? "" : ": " + result.commits->moved_aside));
  }
  if (result.push) note("  pushed    " + result.push->branch + " at " + result.push->commit);
  const llm::Usage& usage = result.provider.usage;
  note("  model     " + counted(static_cast<std::size_t>(result.provider.calls), "call") + ", " +
       counted(static_cast<std::size_t>(usage.total_tokens), "token") +
       (usage.cost_usd  ? ", " + dollars(*usage.cost_usd)
        : usage.empty() ? std::string()
                        : ", no price known") +
       (usage.estimated ? " (estimated)" : "") +
       (result.provider.refused == 0
            ? std::string()
            : "; " + counted(static_cast<std::size_t>(result.provider.refused), "call") +
                  " refused by caps"));
  note("  kept in   " + run_dir.string());
}

// What killed runs left behind, in folders that nobody is at work in: their programs' homes.
void sweep(const fs::path& runs) {
  std::error_code error;
  for (fs::directory_iterator entry(runs, error), end; !error && entry != end;
       entry.increment(error)) {
    const fs::path& folder = entry->path();
    if (!folder.filename().string().starts_with("exec-")) continue;
    if (!runner::is_being_written(folder / "run.log")) runner::remove_leftovers(folder);
  }
}

// One `exec`, up to its result. What is known so far is there also when it fails early.
class OneExec {
 public:
  OneExec(const ExecArguments& arguments, RunOutput& output)
      : arguments_(arguments), output_(output) {
    options_.run_id = "exec-" + random_hex(4);
  }

  exec::ExecResult execute(const CallContext& context) {
    process::Supervisor& children = supervisor();
    read_arguments();  // before anything is begun
    Runtime runtime(arguments_.common);
    use_folders(runtime);
    set_options(runtime);
    process::ResourceLimits limits = runtime.agent_limits();
    if (memory_bytes_) limits.memory_bytes = *memory_bytes_;
    if (arguments_.pids > 0) limits.processes = static_cast<std::uint64_t>(arguments_.pids);
    const auto sandbox = arguments_.unsandboxed ? process::make_unsandboxed(children, limits)
                                                : process::make_sandbox(children, limits);
    const git::Git git(children, runtime.git_options());
    const agent::AgentAdapters adapters(runtime.config().agents);
    llm::MeteringProxyOptions metering = runtime.metering_proxy_options();
    if (!arguments_.prices.empty()) metering.prices = read_prices("--prices", arguments_.prices);
    metering.shared_state = shared_spending(runtime.config());
    warn_of_what_is_missing(metering);
    llm::MeteringProxy proxy(std::move(metering));
    proxy.start();
    MaskingStream shown(runtime.masker());
    if (!arguments_.common.json) {
      options_.output = [this, &shown](std::string_view piece) {
        output_.print(presentable_text(shown.push(piece)));
      };
    }
    exec::ExecResult result =
        exec::execute({git, *sandbox, proxy, adapters, runtime.masker()}, options_, context);
    if (!arguments_.common.json) output_.print(presentable_text(shown.finish()));
    return result;
  }

  /// The result of one that could not begin, told where it will be looked for.
  exec::ExecResult fail_early(const std::exception& error) {
    note("necrocode: " + std::string(error.what()));
    exec::ExecResult result = exec::failed_before_start(options_.run_id, error);
    if (options_.run_dir.empty()) return result;
    try {
      write_file_durable(options_.run_dir / "result.json", masked(result.to_json().pretty()) + "\n",
                         0600);
    } catch (const RunnerError&) {
      note("necrocode: the result is not kept, the folder of --out cannot be used");
    }
    return result;
  }

  void show(const exec::ExecResult& result) const { show_result(result, options_.run_dir); }

 private:
  void read_arguments() {
    options_.argv = arguments_.argv;
    options_.timeout =
        std::chrono::ceil<std::chrono::seconds>(read_duration("--timeout", arguments_.timeout));
    if (options_.timeout.count() < 1) throw ConfigError("--timeout must be at least 1s");
    options_.caps.run_usd = positive_usd("--cap-usd", arguments_.cap_usd);
    options_.caps.daily_usd = positive_usd("--daily-cap-usd", arguments_.daily_cap_usd);
    if (!arguments_.memory.empty()) memory_bytes_ = read_size("--memory", arguments_.memory);
    if (memory_bytes_ && *memory_bytes_ < kMemoryMin) {
      throw ConfigError("--memory must be at least 16m, for the sandbox itself");
    }
    if (arguments_.pids != 0 && arguments_.pids < kProcessesMin) {
      throw ConfigError("--pids must be at least 8, for the sandbox itself");
    }
    for (const std::string& glob : arguments_.protect) {
      if (glob.empty()) throw ConfigError("--protect must be a glob, not empty");
    }
    if (!arguments_.push.empty() && !git::is_branch_name(arguments_.push)) {
      throw ConfigError("--push must be the name of a branch, not \"" + printable(arguments_.push) +
                        "\"");
    }
    for (const std::string& command : arguments_.tests) {
      if (trim(command).empty()) throw ConfigError("--test must be a command, not empty");
    }
    std::error_code error;
    options_.folder = fs::current_path(error);
    if (error) throw ConfigError("the folder that we are started in is gone");
    options_.test_commands = arguments_.tests;
    options_.repairs = arguments_.repairs;
    options_.protect = arguments_.protect;
    options_.require_clean = arguments_.require_clean;
    options_.push_branch = arguments_.push;
    options_.owner = arguments_.owner.empty() ? default_owner() : arguments_.owner;
    options_.record = arguments_.record;
    if (arguments_.home_template.empty()) return;
    options_.home_template = fs::absolute(arguments_.home_template);
    if (!fs::is_directory(options_.home_template)) {
      throw ConfigError("--home-template must be a folder: " + options_.home_template.string());
    }
  }

  void use_folders(const Runtime& runtime) {
    const fs::path runs = runtime.config().data_dir / "runs";
    sweep(runs);
    if (arguments_.out.empty()) {
      require_folder("--data", runs);
      options_.run_dir = runs / options_.run_id;
      fs::create_directory(options_.run_dir);
      return;
    }
    // Not through the clone, whose folder the program may close.
    const fs::path folder = fs::absolute(arguments_.out).lexically_normal();
    refuse_inside_clone(folder, options_.folder);
    require_folder("--out", folder);
    runner::remove_earlier_results(folder);
    options_.run_dir = folder;
  }

  // Not an error: a program may need no model, and a model no key.
  void warn_of_what_is_missing(const llm::MeteringProxyOptions& metering) const {
    const bool has_cap = options_.caps.run_usd || options_.caps.daily_usd;
    if (has_cap && metering.prices->empty()) {
      note(
          "necrocode: no prices are known, so under a cap no model is asked: give --prices FILE "
          "(examples/prices.yaml), or prices: in the configuration");
    }
    const bool has_key = std::any_of(
        metering.providers.begin(), metering.providers.end(), [](const llm::ModelProvider& one) {
          return !one.api_key.empty() || !one.endpoint.starts_with("https://api.");
        });
    if (!has_key) {
      note(
          "necrocode: no key is set: $OPENAI_API_KEY for api.openai.com, $ANTHROPIC_API_KEY for "
          "api.anthropic.com; the program has only one of this run");
    }
  }

  void set_options(const Runtime& runtime) {
    const config::Config& config = runtime.config();
    options_.test_timeout = std::chrono::seconds{config.test_timeout_seconds};
    options_.test_retries = config.test_retry_count;
    options_.git_retries = config.git_retry_count;
    options_.commit = runtime.run_options().commit;
    options_.commit.title = "{title}";  // there is no task that a template could name
    if (!options_.caps.run_usd && config.budgets_run_usd > 0) {
      options_.caps.run_usd = config.budgets_run_usd;
    }
    if (!options_.caps.daily_usd && config.budgets_daily_usd > 0) {
      options_.caps.daily_usd = config.budgets_daily_usd;
    }
    options_.observer = [this](const runner::RunEvent& event) {
      show_event(output_, event, arguments_.common.json);
    };
  }

  const ExecArguments& arguments_;
  RunOutput& output_;
  exec::ExecOptions options_;
  std::optional<std::uint64_t> memory_bytes_;
};

int exec_program(const ExecArguments& arguments) {
  RunOutput output;
  OneExec one(arguments, output);
  return conduct(one, output, arguments.common.json);
}

}  // namespace

void declare_exec(Cli& cli) {
  static ExecArguments arguments;
  Cli& command = cli.command(
      "exec", "Any agent program, supervised, in this clone: sandboxed, metered, capped, tested");
  arguments.common.declare(command);
  arguments.common.declare_tests(command);
  arguments.common.declare_json(command, "print events as JSON lines, the result last");
  command.program(arguments.argv, "the agent, as you would call it here")
      .text("--timeout", arguments.timeout, "for all of it: 90s, 30m, 2h (default: 30m)")
      .options("--test", arguments.tests,
               "command that proves the change, again for more (default: what the repository "
               "suggests)")
      .option("--repairs", arguments.repairs, 0, kRepairsMax,
              "how often the program is called again with the tests' failing output")
      .text("--cap-usd", arguments.cap_usd,
            "what this run may spend on the model (default: budgets.run_usd)")
      .text("--daily-cap-usd", arguments.daily_cap_usd,
            "what all runs of this host together may spend in a day of UTC (default: "
            "budgets.daily_usd)")
      .text("--owner", arguments.owner, "who spends, in the ledger (default: the user's id)")
      .text("--prices", arguments.prices,
            "YAML or JSON file with US dollars per million tokens, in place of prices: of the "
            "configuration")
      .text("--memory", arguments.memory,
            "of the program, and of a test command: 512m, 2g (default: limits.memory_mb)")
      .option("--pids", arguments.pids, 0, kProcessesMax,
              "processes and threads of the same; 0: limits.processes")
      .options("--protect", arguments.protect,
               "glob of files that are as before again when the tests run; again for more")
      .flag("--require-clean", arguments.require_clean,
            "refuse a work tree with changes that are not committed")
      .text("--push", arguments.push,
            "new branch to commit the change to and push, once the tests pass, or where there are "
            "none")
      .text("--out", arguments.out,
            "folder for log, diff, test report and result.json (default: a new one below runs/ "
            "of the data folder)")
      .text("--home-template", arguments.home_template,
            "folder that the program's home begins as a copy of")
      .flag("--record", arguments.record, "keep every exchange with the model, masked")
      .flag("--unsandboxed", arguments.unsandboxed,
            "run the program and the tests without isolation, on your own risk")
      .action([] { return exec_program(arguments); });
}

}  // namespace necrocode::app
