#include "necrocode/runner/test_runner.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <set>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/runner/baseline.hpp"
#include "necrocode/runner/junit_files.hpp"
#include "necrocode/runner/test_report.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

// That a file's folder is not exchanged meanwhile, the sandbox sees to.
std::optional<FileState> look_at(const fs::path& path) {
  struct stat status = {};
  if (::lstat(path.c_str(), &status) != 0) return std::nullopt;
  return FileState{status.st_dev, status.st_ino,
                   status.st_ctim.tv_sec * 1'000'000'000LL + status.st_ctim.tv_nsec};
}

std::vector<std::optional<FileState>> look_at_all(const fs::path& root,
                                                  const std::vector<std::string>& files) {
  std::vector<std::optional<FileState>> states;
  for (const std::string& file : files) states.push_back(look_at(root / file));
  return states;
}

// The folders that hold these files, without the root.
std::vector<fs::path> folders_of(const fs::path& root, const std::vector<std::string>& files) {
  std::set<fs::path> folders;
  for (const std::string& file : files) {
    if (file.find('/') != std::string::npos) folders.insert((root / file).parent_path());
  }
  return {folders.begin(), folders.end()};
}

Json stream_json(const process::CapturedStream& stream, std::size_t bytes) {
  return Json::object({{"text", to_valid_utf8(head_and_tail(stream.text(), bytes))},
                       {"bytes", stream.total_bytes}});
}

std::string end_text(const process::CommandResult& result) {
  switch (result.end) {
    case process::CommandEnd::kExited:
      return result.exit_code == 0 ? "passed"
                                   : "failed with exit code " + std::to_string(result.exit_code);
    case process::CommandEnd::kSignalled:
      return "killed by signal " + std::to_string(result.signal);
    case process::CommandEnd::kTimedOut:
      return "timed out after " + human_duration(result.duration);
    case process::CommandEnd::kCancelled:
      return "cancelled";
  }
  return "failed";
}

Json usage_json(const process::ResourceUsage& usage) {
  return Json::object({{"peak_memory_bytes", usage.peak_memory_bytes},
                       {"peak_processes", usage.peak_processes},
                       {"cpu_seconds", std::chrono::duration<double>(usage.cpu_time).count()}});
}

}  // namespace

std::string TestCommandResult::verdict() const {
  if (!not_run.empty()) return not_run;
  if (result.ok() && !changed_read_only.empty()) {
    return "changed the read-only file " + printable(changed_read_only);
  }
  return (met_a_limit() ? result.limit_reached + ", and " : "") + end_text(result) +
         (round_over ? ", with the time of the whole round" : "") +
         (worse.empty() ? "" : "; " + worse);
}

const TestCommandResult* TestReport::first_failure() const {
  const auto is_known = [this](const std::string& name) {
    return std::any_of(steps.begin(), steps.end(),
                       [&](const StepReport& step) { return step.name == name && step.known_red; });
  };
  const auto failed =
      std::find_if(commands.begin(), commands.end(), [&](const TestCommandResult& command) {
        return command.last && !command.passed() && !is_known(command.step);
      });
  return failed == commands.end() ? nullptr : &*failed;
}

std::chrono::nanoseconds TestReport::duration() const {
  std::chrono::nanoseconds total{0};
  for (const TestCommandResult& command : commands) total += command.result.duration;
  return total;
}

Json TestReport::to_json(std::size_t output_bytes) const {
  Json list = Json::array();
  for (const TestCommandResult& command : commands) {
    Json told = Json::object(
        {{"step", command.step},
         {"command", command.command},
         {"attempt", command.attempt},
         {"passed", command.passed()},
         {"verdict", command.verdict()},
         {"exit_code", command.result.exit_code},
         {"duration_seconds", std::chrono::duration<double>(command.result.duration).count()},
         {"usage", usage_json(command.result.usage)},
         {"stdout", stream_json(command.result.out, output_bytes)},
         {"stderr", stream_json(command.result.err, output_bytes)}});
    add_cases(told, command, output_bytes);
    list.push_back(std::move(told));
  }
  Json flaky = Json::array();
  Json skipped = Json::array();
  Json known = Json::array();
  for (const StepReport& step : steps) {
    if (step.skipped) skipped.push_back(step.name);
    if (step.known_red) known.push_back(step.name);
    if (step.passed && step.attempts > 1) flaky.push_back(step.name);
  }
  return Json::object({{"passed", passed()},
                       {"duration_seconds", std::chrono::duration<double>(duration()).count()},
                       {"flaky", std::move(flaky)},
                       {"skipped", std::move(skipped)},
                       {"known_failures", std::move(known)},
                       {"commands", std::move(list)}});
}

namespace {

void mask(process::CapturedStream& stream, const Masker& masker) {
  for (std::string* text : {&stream.head, &stream.tail}) {
    std::string masked = masker.mask(*text);
    stream.total_bytes -= text->size();
    stream.total_bytes += masked.size();
    *text = std::move(masked);
  }
}

}  // namespace

/// The commands of one run of a playbook, which may go side by side.
class TestRunner::Round {
 public:
  Round(const TestRunner& runner, const Workspace& workspace, const RedSteps& red_before,
        Times times, const CallContext& context, TestReport& report)
      : runner_(runner),
        workspace_(workspace),
        red_before_(red_before),
        times_(times),
        over_at_(real_clock().steady_now() + times.round),
        context_(context),
        report_(report),
        as_given_(look_at_all(workspace.root, workspace.read_only_files)) {
    base_.command.env = process::clean_environment();
    // A .pyc is only looked up by whole seconds and size: a quick change would run the old one.
    base_.command.env.push_back("PYTHONDONTWRITEBYTECODE=1");
    base_.command.timeout = times.command;
    base_.workspace = workspace.root;
    base_.read_only = workspace.read_only;
    base_.covers = workspace.covers;
    base_.protect = {workspace.root / ".git"};
    for (const std::string& path : workspace.protect) {
      base_.protect.push_back(workspace.root / path);
    }
    base_.pinned = folders_of(workspace.root, workspace.read_only_files);
  }

  bool run(const StepCommand& step) {
    if (step.attempt > 1 && !step.retry_cut_off && was_cut_off(step.name)) return false;
    process::SandboxedCommand command = base_;
    command.command.argv = {"/bin/sh", "-c", step.shell};
    command.command.env.insert(command.command.env.end(), step.env.begin(), step.env.end());
    if (step.timeout) command.command.timeout = *step.timeout;
    command.command.on_warning = [this, &step](const std::string& text) { warn(step, text); };
    runner_.log_.line("$ " + step.shell);
    TestCommandResult last;
    last.step = step.name;
    last.command = step.shell;
    last.attempt = step.attempt;
    const auto left = over_at_ - real_clock().steady_now();
    const bool round_ends_first = times_.round.count() > 0 && left < command.command.timeout;
    if (round_ends_first) command.command.timeout = left;
    if (round_ends_first && left.count() <= 0) {
      if (step.attempt > 1) return false;  // what the first attempt showed says more
      last.round_over = true;
      last.not_run =
          "not run, as the time of the whole round (" + human_duration(times_.round) + ") was over";
    } else if (const auto folder = folder_of(step)) {
      command.command.working_directory = *folder;
      run_in_sandbox(command, step, last);
      last.round_over = round_ends_first && last.result.end == process::CommandEnd::kTimedOut;
    } else {
      last.not_run = "its working_directory \"" + printable(step.working_directory) +
                     "\" is no folder of the repository";
    }
    last.changed_read_only = changed_read_only();
    const bool passed = last.passed();
    if (passed && !last.result.limit_reached.empty()) warn(step, last.result.limit_reached);
    keep(std::move(last));
    if (!passed) require_time_left();
    return passed;
  }

  /// Called between the steps, of one that failed.
  bool failed_before(const std::string& step) {
    const std::lock_guard lock(mutex_);
    return red_before_.contains(step) &&
           std::all_of(report_.commands.begin(), report_.commands.end(),
                       [&](const TestCommandResult& command) {
                         return command.step != step || !command.last || command.worse.empty();
                       });
  }

 private:
  bool was_cut_off(const std::string& step) {
    const std::lock_guard lock(mutex_);
    const auto& all = report_.commands;
    return std::any_of(all.begin(), all.end(), [&](const TestCommandResult& one) {
      return one.step == step && one.last && one.cut_off();
    });
  }

  void run_in_sandbox(const process::SandboxedCommand& command, const StepCommand& step,
                      TestCommandResult& last) {
    // Of steps side by side, no one could say whose a report at a usual place is.
    const bool usual = step.junit.empty() && step.alone;
    const JunitFiles reports(workspace_.root,
                             usual ? usual_junit_places(step.working_directory) : step.junit);
    last.result = run_logged(command, step);
    mask(last.result.out, runner_.masker_);
    mask(last.result.err, runner_.masker_);
    std::vector<std::string> warnings;
    JunitReport junit = reports.read(runner_.masker_, kJunitCases, warnings);
    for (const std::string& warning : warnings) runner_.log_.line("warning: " + warning);
    last.cases = std::move(junit.cases);
    last.cases_left_out = junit.left_out;
  }

  /// Two outputs at once would hide a secret from the masker, each cutting the other's: those of a
  /// group come when they are whole.
  process::CommandResult run_logged(const process::SandboxedCommand& command,
                                    const StepCommand& step) const {
    RunLog& log = runner_.log_;
    if (step.alone) {
      auto result = runner_.sandbox_.run(command, context_,
                                         [&log](std::string_view piece) { log.output(piece); });
      log.flush();
      return result;
    }
    auto result = runner_.sandbox_.run(command, context_);
    log.line("output of \"" + printable(step.name) + "\":\n" + result.out.text() +
             result.err.text());
    return result;
  }

  /// Looked at when the step's turn has come: a step before it may have made it.
  std::optional<fs::path> folder_of(const StepCommand& step) const {
    std::error_code error;
    const fs::path root = fs::canonical(workspace_.root);
    const fs::path real = fs::canonical(root / step.working_directory, error);
    const auto [end, unused] = std::mismatch(root.begin(), root.end(), real.begin(), real.end());
    if (error || end != root.end() || !fs::is_directory(real)) return std::nullopt;
    return real;
  }

  std::string changed_read_only() const {
    for (std::size_t i = 0; i < as_given_.size(); ++i) {
      const std::string& file = workspace_.read_only_files[i];
      if (look_at(workspace_.root / file) != as_given_[i]) return file;
    }
    return {};
  }

  void warn(const StepCommand& step, const std::string& text) {
    const std::string warning = "\"" + printable(step.name) + "\" " + text;
    runner_.log_.line("warning: " + warning);
    const std::lock_guard lock(mutex_);
    report_.warnings.push_back(warning);
  }

  void keep(TestCommandResult result) {
    const std::lock_guard lock(mutex_);
    std::size_t cases = 0;
    for (TestCommandResult& earlier : report_.commands) {
      if (result.attempt > 1 && earlier.step == result.step) {
        earlier.last = false;
        earlier.cases.clear();
      }
      cases += earlier.cases.size();
    }
    if (const std::size_t room = kJunitCases - cases; result.cases.size() > room) {
      result.cases_left_out += result.cases.size() - room;
      result.cases.resize(room);
    }
    const auto before = red_before_.find(result.step);
    if (!result.passed() && before != red_before_.end()) {
      result.worse = worse_than(before->second, result);
    }
    runner_.log_.line(result.command + ": " + result.verdict());
    report_.commands.push_back(std::move(result));
    if (runner_.on_command_) runner_.on_command_(report_.commands.back());
  }

  void require_time_left() const {
    if (!context_.cancelled() && !context_.expired()) return;
    ErrorInfo info;
    info.operation = "test";
    info.end = context_.cancelled() ? CallEnd::kCancelled : CallEnd::kDeadline;
    throw TimeoutError(
        context_.cancelled() ? "cancelled while testing" : "the task's time ran out while testing",
        std::move(info));
  }

  const TestRunner& runner_;
  const Workspace& workspace_;
  const RedSteps& red_before_;
  const Times times_;
  const SteadyTime over_at_;  ///< where the round has a time of its own
  const CallContext& context_;
  std::mutex mutex_;
  TestReport& report_;  ///< guarded by mutex_
  const std::vector<std::optional<FileState>> as_given_;
  process::SandboxedCommand base_;
};

void TestRunner::run(const Workspace& workspace, const Playbook& playbook, const Json& values,
                     const RedSteps& red_before, Times times, const CallContext& context,
                     TestReport& report) {
  report = {};
  Round round(*this, workspace, red_before, times, context, report);
  run_playbook(
      playbook, values, [&round](const std::string& step) { return round.failed_before(step); },
      [&round](const StepCommand& step) { return round.run(step); }, report.steps);
}

}  // namespace necrocode::runner
