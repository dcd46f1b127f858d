// necrocode demo: the main job from nothing, on real parts, ending with a summary that it has
// checked.
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "commands.hpp"
#include "demo_checks.hpp"
#include "embedded_files.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/llm/replay.hpp"
#include "necrocode/runner/worker.hpp"
#include "runtime.hpp"
#include "service_host.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr auto kTimeLimit = 180s;  // far beyond what it takes; only so that it always ends

struct DemoArguments {
  CommonOptions common;
  bool keep = false;
  bool unsandboxed = false;
  int parallel = 3;
};

std::string_view embedded(std::string_view path) {
  for (const EmbeddedFile& file : demo_files()) {
    if (file.path == path) return file.content;
  }
  throw StorageError("the binary carries no " + std::string(path));
}

// A real repository from the shipped files, pushed to a bare remote; the remote's path.
std::string make_repository(const git::Git& git, const fs::path& folder) {
  const fs::path remote = folder / "remote.git";
  const fs::path seed = folder / "seed";
  constexpr std::string_view kPrefix = "repository/";
  std::vector<std::string> paths;
  for (const EmbeddedFile& file : demo_files()) {
    if (!file.path.starts_with(kPrefix)) continue;
    const fs::path target = seed / file.path.substr(kPrefix.size());
    fs::create_directories(target.parent_path());
    write_file_atomic(target, file.content, file.executable ? 0755 : 0644);
    paths.emplace_back(file.path.substr(kPrefix.size()));
  }
  git.run({"init", "--quiet", "--bare", "--initial-branch=main", remote.string()}, {});
  const git::Repository repository(git, folder / "seed.git", seed);
  repository.init({}, {});
  repository.stage(paths, {});
  const std::string commit = repository.commit("Start of the demo repository\n", {});
  if (repository.push(remote.string(), commit, "main", "", {}) != git::PushOutcome::kPushed) {
    throw PushError("the demo's first commit was not pushed");
  }
  return remote.string();
}

Json taskset_for(const std::string& remote) {
  Json taskset = Json::parse(embedded("taskset.json"), "demo/taskset.json");
  Json tasks = Json::array();
  for (Json task : taskset["tasks"].items()) {
    task.set("repo_url", remote);
    tasks.push_back(std::move(task));
  }
  return taskset.set("tasks", std::move(tasks));
}

// One line a task: rewritten in place on a terminal, one line a change otherwise. On stderr.
class Progress {
 public:
  explicit Progress(const std::vector<registry::Task>& tasks) : live_(is_terminal(STDERR_FILENO)) {
    for (const registry::Task& task : tasks) {
      lines_[task.id] = {task.fields["title"].string_or(""), std::string(to_string(task.state))};
    }
  }

  void show(const std::string& task, const std::string& phase) {
    const std::lock_guard lock(mutex_);
    lines_[task].phase = phase;
    if (!live_) {
      note(row(task, lines_[task]));
      return;
    }
    std::vector<std::string> rows;
    for (const auto& [id, line] : lines_) rows.push_back("  " + row(id, line));
    draw_notes(rows, drawn_);
    drawn_ = rows.size();
  }

 private:
  struct Line {
    std::string title;
    std::string phase;
  };

  static std::string row(const std::string& task, const Line& line) {
    const auto column = [](std::string text) {
      text.resize(std::max<std::size_t>(text.size(), 10), ' ');
      return text + " ";
    };
    return column(task) + column(line.phase) + shorten(presentable(line.title), 60);
  }

  std::mutex mutex_;
  bool live_;
  std::size_t drawn_ = 0;  ///< lines on the screen
  std::map<std::string, Line> lines_;
};

// Results as the worker gives them, and a wait for all of them.
class Results {
 public:
  void begin(const std::string& task) {
    const std::lock_guard lock(mutex_);
    if (!by_task_.contains(task)) running_.insert(task);
  }
  void add(const runner::RunResult& result) {
    const std::lock_guard lock(mutex_);
    by_task_.insert_or_assign(result.task_id, result.to_json());
    running_.erase(result.task_id);
    if (!result.success()) ++failed_;
    changed_.notify_all();
  }
  /// Until `count` tasks have ended, one has failed (its dependents will not run) and those beside
  /// it are over, or the stop.
  void wait(std::size_t count, const CallContext& context) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, context.stop, context.deadline, [&] {
      return by_task_.size() >= count || (failed_ > 0 && running_.empty());
    });
  }
  Json get(const std::string& task) {
    const std::lock_guard lock(mutex_);
    const auto found = by_task_.find(task);
    return found == by_task_.end() ? Json() : found->second;
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, Json> by_task_;
  std::set<std::string> running_;
  int failed_ = 0;
};

Json task_summary(const registry::Task& task, const Json& run) {
  Json artifacts = Json::array();
  for (const registry::ArtifactRef& artifact : task.artifacts) {
    artifacts.push_back(Json::object(
        {{"type", artifact.type}, {"uri", artifact.uri}, {"size_bytes", artifact.size_bytes}}));
  }
  const Json& implementation = run["implementation"];
  return Json::object({{"task_id", task.id},
                       {"title", task.fields["title"]},
                       {"state", to_string(task.state)},
                       {"branch", task.metadata["branch"]},
                       {"commit", task.metadata["commit"]},
                       {"tests_passed", run["tests"]["passed"]},
                       {"tests", run["tests"]["commands"].size()},
                       {"model_calls", implementation["model_calls"]},
                       {"repairs", implementation["repairs"]},
                       {"tokens", implementation["usage"]["total_tokens"]},
                       {"seconds", run["duration_seconds"]},
                       {"error", run["error"]["reason"]},
                       {"artifacts", std::move(artifacts)}});
}

// The two drills of the cassette really happened: a repaired answer, and a 429 that was waited out.
DemoCheck check_drills(const Json& tasks, const std::vector<llm::ReplayRecord>& served) {
  std::int64_t repairs = 0;
  std::int64_t calls = 0;
  for (const Json& task : tasks.items()) {
    repairs += task["repairs"].as_int().value_or(0);
    calls += task["model_calls"].as_int().value_or(0);
  }
  const bool waited = static_cast<std::int64_t>(served.size()) == calls + 1;
  return {"a wrong answer was repaired, a 429 waited out", repairs >= 1 && waited,
          std::to_string(repairs) + " repair, " + std::to_string(served.size()) +
              " model answers for " + std::to_string(calls) + " calls"};
}

void show_summary(const Json& summary) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& task : summary["tasks"].items()) {
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.1f s", task["seconds"].as_double().value_or(0));
    rows.push_back({task["task_id"].string_or(""), task["state"].string_or(""),
                    task["branch"].string_or("-"), task["commit"].string_or("-").substr(0, 10),
                    task["tests_passed"].as_bool().value_or(false)
                        ? task["tests"].dump() + " passed"
                        : "not passed",
                    task["repairs"].dump(), task["tokens"].dump(), seconds});
  }
  print_line("");
  print_table({"TASK", "STATE", "BRANCH", "COMMIT", "TESTS", "REPAIRS", "TOKENS", "TIME"}, rows);
  print_line("");
  for (const Json& task : summary["tasks"].items()) {
    for (const Json& artifact : task["artifacts"].items()) {
      print_line(styled("dim", task["task_id"].string_or("") + "  " +
                                   artifact["type"].string_or("") + "  " +
                                   artifact["uri"].string_or("")));
    }
    if (task["error"].is_string())
      print_line(styled(
          "bad", task["task_id"].string_or("") + "  " + presentable(task["error"].string_or(""))));
  }
  if (!summary["checks"].items().empty()) print_line("");
  for (const Json& check : summary["checks"].items()) {
    const bool ok = check["ok"].as_bool().value_or(false);
    print_line(styled(ok ? "good" : "bad", ok ? "ok  " : "FAIL") + "  " +
               check["name"].string_or("") + " (" + presentable(check["detail"].string_or("")) +
               ")");
  }
}

// What one types to look at what is left.
void show_kept(const fs::path& folder) {
  const std::string url = "http://127.0.0.1:8000";
  print_line("\nEverything is kept in " + folder.string() + "; to look at it:");
  for (const std::string& command :
       {"necrocode serve --listen 127.0.0.1:8000 --data '" + (folder / "data").string() + "' &",
        "necrocode task list --url " + url, "necrocode artifact list --url " + url,
        "git --git-dir '" + (folder / "remote.git").string() + "' log --oneline --graph --all"}) {
    print_line("  " + command);
  }
}

// Everything of one demo, under one folder.
class Demo {
 public:
  Demo(const DemoArguments& arguments, const fs::path& folder)
      : arguments_(arguments),
        folder_(folder),
        replay_(llm::Cassette::parse(embedded("cassette.json"), "demo/cassette.json")) {}

  Json run(const StopOnSignal& signals) {
    const SteadyTime started = real_clock().steady_now();
    process::Supervisor& children = supervisor();
    const git::Git git(children, {});
    ServiceHostOptions host_options;
    host_options.data_dir = data_dir();
    ServiceHost host(git, host_options);
    host.start();
    replay_.start();
    say("services   " + host.url());
    say("model      " + replay_.url() + " (recorded answers)");
    const std::string remote = make_repository(git, folder_);
    say("repository " + remote);

    Runtime runtime(settings(host.url()));
    RunnerParts parts(runtime, children, arguments_.unsandboxed);
    parts.sandbox().require_usable();
    TaskRegistryClient registry = runtime.registry();
    RepoPoolClient pool = runtime.pool();
    ArtifactStoreClient artifacts = runtime.artifacts();
    const registry::Taskset taskset = registry.submit(taskset_for(remote));
    say("tasks      " + std::to_string(taskset.tasks.size()) + " submitted, " +
        std::to_string(arguments_.parallel) + " runners");
    work(parts.services(), taskset.tasks, signals.context().within(kTimeLimit));

    const std::vector<registry::Task> tasks = registry.get_taskset(taskset.spec_name).tasks;
    Json summary = summarize(tasks);
    const std::vector<DemoCheck> checks =
        check_demo({git, parts.sandbox(), runtime.masker(), registry, pool, artifacts, remote,
                    folder_ / "check", tasks, signals.context()});
    // Of a demo that was stopped in the middle no check says anything.
    if (signals.token().stop_requested()) {
      summary.set("stopped", true);
    } else {
      add_checks(summary, checks);
    }
    summary.set("seconds",
                std::chrono::duration<double>(real_clock().steady_now() - started).count());
    if (arguments_.keep) summary.set("kept", folder_.string());
    replay_.stop();
    host.stop();
    return summary;
  }

 private:
  // From nothing: the user's configuration, services and keys are not the demo's.
  config::LoadedConfig settings(const std::string& url) const {
    std::vector<config::Flag> flags = arguments_.common.flags();
    for (const char* key : {"task_registry_url", "repo_pool_url", "artifact_store_url"})
      flags.push_back({"", key, url});
    flags.push_back({"", "data_dir", data_dir().string()});
    flags.push_back({"", "llm.endpoint", replay_.url()});
    flags.push_back({"", "llm.model", "replay"});
    return config::load_flags(flags);
  }
  fs::path data_dir() const { return folder_ / "data"; }

  void work(const runner::RunnerServices& services, const std::vector<registry::Task>& tasks,
            const CallContext& context) {
    Progress progress(tasks);
    runner::WorkerOptions options;
    options.max_parallel = arguments_.parallel;
    options.data_dir = data_dir();
    options.claim_wait = 5s;
    // When it is asked to stop, every run is over or shall end now.
    options.drain = 1s;
    options.run.observer = [this, &progress](const runner::RunEvent& event) {
      results_.begin(event.task_id);
      if (event.type == "phase") progress.show(event.task_id, event.data["phase"].string_or(""));
    };
    options.on_result = [this, &progress](const runner::RunResult& result) {
      progress.show(result.task_id, std::string(result.outcome()));
      results_.add(result);
    };
    runner::Worker worker(services, options);
    std::stop_source stop;
    CallContext worker_context;
    worker_context.stop = stop.get_token();
    std::jthread thread([&] { worker.run(worker_context); });
    results_.wait(tasks.size(), context);
    stop.request_stop();
    thread.join();
  }

  Json summarize(const std::vector<registry::Task>& tasks) {
    Json list = Json::array();
    for (const registry::Task& task : tasks)
      list.push_back(task_summary(task, results_.get(task.id)));
    return Json::object({{"ok", false}, {"tasks", std::move(list)}});
  }

  void add_checks(Json& summary, std::vector<DemoCheck> checks) {
    checks.push_back(check_drills(summary["tasks"], replay_.served()));
    bool ok = true;
    Json list = Json::array();
    for (const DemoCheck& check : checks) {
      ok = ok && check.ok;
      list.push_back(
          Json::object({{"name", check.name}, {"ok", check.ok}, {"detail", check.detail}}));
    }
    summary.set("checks", std::move(list)).set("ok", ok);
  }

  void say(const std::string& line) const {
    if (!arguments_.common.json) print_line(line);
  }

  const DemoArguments& arguments_;
  fs::path folder_;
  llm::ReplayServer replay_;
  Results results_;
};

int run(const DemoArguments& arguments) {
  StopOnSignal signals;
  TemporaryDirectory folder("necrocode-demo-");
  if (arguments.keep) folder.keep();
  const Json summary = Demo(arguments, folder.path()).run(signals);
  const bool ok = summary["ok"].as_bool().value_or(false);
  const bool stopped = summary["stopped"].as_bool().value_or(false);
  if (arguments.common.json) {
    print_json(summary);
  } else {
    show_summary(summary);
    char line[128];
    std::snprintf(line, sizeof line, "\n%s in %.1f s",
                  stopped ? "Stopped by a signal, nothing was checked;"
                  : ok    ? "All checks held"
                          : "Some checks failed",
                  summary["seconds"].as_double().value_or(0));
    print_line(styled(ok ? "good" : "bad", line));
    if (arguments.keep) show_kept(folder.path());
  }
  if (stopped) return static_cast<int>(ExitCode::kCancelled);
  return ok ? 0 : 1;
}

}  // namespace

void declare_demo(Cli& cli) {
  static DemoArguments arguments;
  Cli& command =
      cli.command("demo", "The main job from nothing: services, a repository, tasks, runs, checks");
  arguments.common.declare_json(command, "print one JSON document");
  arguments.common.declare_log_level(command);
  command.flag("--keep", arguments.keep, "leave data, repository and clones for looking at")
      .option("--parallel", arguments.parallel, 1, 64, "runners side by side")
      .flag("--unsandboxed", arguments.unsandboxed, "run tests without isolation, on your own risk")
      .action([] { return run(arguments); });
}

}  // namespace necrocode::app
