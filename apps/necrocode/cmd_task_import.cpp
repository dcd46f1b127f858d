// necrocode task import, necrocode task tick: tasks from files, and back into them.
#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "commands.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/registry/json_lines.hpp"
#include "necrocode/registry/tasks_md_file.hpp"
#include "paging.hpp"
#include "runtime.hpp"
#include "task_checks.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLinesFileBytes = 256 * limits::kMiB;

struct FileArguments {
  CommonOptions common;
  std::string file;
  std::string spec;
  std::string repo;
  std::string format;
  std::vector<std::string> columns;
  std::vector<std::string> tests;
  bool parallel = false;
  bool without_optional = false;
  bool reopen_failed = false;
  bool dry_run = false;
  bool watch = false;
};

FileArguments arguments;

/// `.kiro/specs/NAME/tasks.md` is of NAME; another file of its own name.
std::string spec_of_file() {
  const fs::path path = fs::absolute(arguments.file).lexically_normal();
  const fs::path folder = path.parent_path();
  const bool kiro = path.filename() == "tasks.md" && folder.parent_path().filename() == "specs";
  const std::string name = kiro ? folder.filename().string() : path.stem().string();
  const std::string plain = is_plain_name(name) ? name : slugify(name, limits::kNameBytes);
  if (!plain.empty()) return plain;
  throw ConfigError("--spec: " + printable(arguments.file) + " makes no name of a spec; give one");
}

std::string spec_name() {
  return arguments.spec.empty() ? spec_of_file() : arguments.spec;
}

/// Tasksets as a file has them, and what each of their tasks is to be called when it is wrong.
struct FileTasks {
  std::vector<Json> tasksets;
  std::map<std::string, std::size_t> line_of;  ///< by full id
};

std::string id_of(const Json& taskset, const Json& task) {
  return taskset["spec_name"].string_or("") + ":" + task["id"].string_or("");
}

FileTasks read_plan() {
  if (!arguments.columns.empty() || arguments.reopen_failed) {
    throw ConfigError("--map and --reopen-failed are for --format jsonl and copy");
  }
  const auto plan = registry::parse_tasks_md(registry::read_tasks_md(arguments.file));
  FileTasks read;
  const std::string spec = spec_name();
  for (const registry::MarkdownTask& task : plan)
    read.line_of[spec + ":" + task.number] = task.line;
  read.tasksets.push_back(
      registry::to_taskset(plan, spec,
                           {.parallel = arguments.parallel,
                            .without_optional = arguments.without_optional,
                            .repo_url = arguments.repo,
                            .source_name = fs::path(arguments.file).filename().string()}));
  return read;
}

FileTasks read_lines(bool copy) {
  if (arguments.parallel || arguments.without_optional) {
    throw ConfigError("--parallel and --without-optional are for --format md");
  }
  registry::JsonLinesOptions options;
  options.copy = copy;
  options.spec_name = spec_name();
  options.repo_url = arguments.repo;
  options.reopen_failed = arguments.reopen_failed;
  for (const std::string& mapping : arguments.columns) {
    const std::size_t equals = mapping.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == mapping.size()) {
      throw ConfigError("--map takes OUR=THEIRS, not \"" + printable(mapping) + "\"");
    }
    options.columns[mapping.substr(0, equals)] = mapping.substr(equals + 1);
  }
  registry::JsonLinesTasks lines =
      registry::parse_json_lines(read_file(arguments.file, kLinesFileBytes), options);
  for (const std::string& warning : lines.warnings) note("necrocode: warning: " + warning);
  FileTasks read;
  for (std::size_t i = 0; i < lines.tasksets.size(); ++i) {
    const Json& taskset = lines.tasksets[i];
    for (std::size_t k = 0; k < lines.lines[i].size(); ++k) {
      read.line_of[id_of(taskset, taskset["tasks"].items()[k])] = lines.lines[i][k];
    }
  }
  read.tasksets = std::move(lines.tasksets);
  return read;
}

FileTasks read_file_by_format() {
  std::string format = arguments.format;
  const std::string ending = ascii_lower(fs::path(arguments.file).extension().string());
  if (format.empty() && (ending == ".md" || ending == ".markdown")) format = "md";
  if (format.empty() && (ending == ".jsonl" || ending == ".ndjson")) format = "jsonl";
  if (format == "md") return read_plan();
  if (format == "jsonl" || format == "copy") return read_lines(format == "copy");
  throw ConfigError("--format takes md, jsonl or copy" +
                    (format.empty() ? std::string("; the file's name does not tell which")
                                    : ", not \"" + printable(format) + "\""));
}

FileTasks read_tasks() {
  FileTasks read = read_file_by_format();
  if (arguments.tests.empty()) return read;
  for (Json& taskset : read.tasksets) {
    Json tasks = Json::array();
    for (Json task : taskset["tasks"].items()) {
      if (task["test_commands"].is_null()) task.set("test_commands", arguments.tests);
      tasks.push_back(std::move(task));
    }
    taskset.set("tasks", std::move(tasks));
  }
  return read;
}

bool has_workspace(const Json& task) {
  return !task["repo_url"].is_null() || !task["slot_path"].is_null();
}

bool is_done(const Json& task) {
  return task["done"] == Json(true);
}

void check(const FileTasks& read, const config::Config& config) {
  for (const Json& taskset : read.tasksets) {
    const Json::Array& tasks = taskset["tasks"].items();
    if (tasks.empty()) throw TaskContextValidationError("nothing is left to import");
    if (std::none_of(tasks.begin(), tasks.end(), has_workspace) &&
        !std::all_of(tasks.begin(), tasks.end(), is_done)) {
      throw ConfigError("--repo is needed: no task says to which repository it belongs");
    }
    check_tasks(taskset, config, [&](std::size_t index) {
      return "line " + std::to_string(read.line_of.at(id_of(taskset, tasks[index])));
    });
  }
}

/// The registry's defects by the file's lines.
[[noreturn]] void refuse(const TaskContextValidationError& error, const FileTasks& read,
                         const Json& submission) {
  constexpr std::string_view kTasks = "/tasks/";
  ErrorInfo info = error.info();
  for (FieldError& field : info.fields) {
    if (!field.pointer.starts_with(kTasks)) continue;
    const std::string rest = field.pointer.substr(kTasks.size());
    const std::size_t end = std::min(rest.find('/'), rest.size());
    const auto index = parse_uint(rest.substr(0, end));
    if (!index || *index >= submission["tasks"].size()) continue;
    const Json& task = submission["tasks"].items()[*index];
    const auto line = read.line_of.find(id_of(submission, task));
    if (line == read.line_of.end()) continue;
    field.pointer = "line " + std::to_string(line->second) + rest.substr(end);
  }
  throw TaskContextValidationError(error.summary(), std::move(info));
}

void print_plan(const std::vector<Json>& submissions) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& submission : submissions) {
    for (const Json& task : submission["tasks"].items()) {
      std::vector<std::string> after;
      for (const Json& one : task["dependencies"].items()) after.push_back(one.string_or(""));
      rows.push_back({id_of(submission, task), is_done(task) ? "done" : "open",
                      shorten(join(after, " "), 60), shorten(task["title"].string_or(""), 60)});
    }
  }
  print_table({"TASK", "STATE", "AFTER", "TITLE"}, rows);
}

int dry_run(const std::vector<Json>& submissions) {
  if (arguments.common.json) {
    print_json(Json::object({{"dry_run", true}, {"submissions", Json(Json::Array(submissions))}}));
  } else {
    print_plan(submissions);
  }
  return 0;
}

int import() {
  Runtime runtime(arguments.common);
  const FileTasks read = read_tasks();
  check(read, runtime.config());
  const std::vector<Json> submissions = registry::split_submissions(read.tasksets);
  if (arguments.dry_run) return dry_run(submissions);
  TaskRegistryClient client = runtime.registry();
  struct Result {
    std::int64_t tasks = 0;
    std::int64_t done = 0;
    std::int64_t version = 0;
  };
  std::map<std::string, Result> results;
  for (const Json& submission : submissions) {
    Result& result = results[submission["spec_name"].string_or("")];
    try {
      result.version = client.submit(submission).version;
    } catch (const TaskContextValidationError& error) {
      refuse(error, read, submission);
    }
    for (const Json& task : submission["tasks"].items()) {
      ++result.tasks;
      result.done += is_done(task) ? 1 : 0;
    }
  }
  Json tasksets = Json::array();
  for (const auto& [spec, result] : results) {
    tasksets.push_back(Json::object({{"spec_name", spec},
                                     {"tasks", result.tasks},
                                     {"done", result.done},
                                     {"version", result.version}}));
    if (arguments.common.json) continue;
    print_line(spec + ": " + std::to_string(result.tasks) + " tasks, " +
               std::to_string(result.done) + " of them done, version " +
               std::to_string(result.version));
  }
  if (arguments.common.json) print_json(Json::object({{"tasksets", std::move(tasksets)}}));
  return 0;
}

Json notes_json(const std::vector<registry::TickNote>& notes) {
  Json list = Json::array();
  for (const registry::TickNote& one : notes) {
    list.push_back(
        Json::object({{"number", one.number}, {"line", one.line}, {"message", one.message}}));
  }
  return list;
}

Json tick_json(const registry::TickResult& result) {
  Json changes = Json::array();
  for (const registry::BoxChange& change : result.changes) {
    changes.push_back(Json::object({{"number", change.number},
                                    {"line", change.line},
                                    {"title", change.title},
                                    {"from", std::string(1, change.from)},
                                    {"to", std::string(1, change.to)}}));
  }
  return Json::object({{"changes", std::move(changes)},
                       {"conflicts", notes_json(result.conflicts)},
                       {"differences", notes_json(result.differences)}});
}

/// The registry's tasks of one spec, and the file that is ticked by them.
class Ticker {
 public:
  Ticker(TaskRegistryClient& client, std::string spec) : client_(client), spec_(std::move(spec)) {}

  void load() {
    const auto list = [this](const registry::TaskQuery& query) { return client_.list(query); };
    registry::TaskQuery query;
    query.spec = spec_;
    ListLimit limit;
    limit.all = true;
    boxes_.clear();
    for (const registry::Task& task : list_pages(list, query, limit).items) put(task);
    if (boxes_.empty()) throw ConfigError("the registry has no task of spec " + printable(spec_));
  }

  /// What became of the event's task.
  void follow(const registry::Event& event) {
    try {
      put(client_.get_task(event.task_id));
    } catch (const NotFound&) {  // removed
      boxes_.erase(event.task_id.substr(spec_.size() + 1));
    }
  }

  /// Nothing more happens by itself: all have ended, or wait for one that failed.
  bool at_end() const {
    return count(registry::TaskState::kReady) + count(registry::TaskState::kRunning) == 0 &&
           (count(registry::TaskState::kBlocked) == 0 ||
            count(registry::TaskState::kFailed) + count(registry::TaskState::kCancelled) > 0);
  }
  bool all_done() const { return count(registry::TaskState::kDone) == boxes_.size(); }
  bool had_conflicts() const { return had_conflicts_; }

  void tick() {
    const registry::TickResult result =
        registry::tick_tasks_md_file(arguments.file, boxes_, {.dry_run = arguments.dry_run});
    say(result);
    had_conflicts_ = !result.conflicts.empty();
  }

 private:
  void put(const registry::Task& task) {
    boxes_[task.number] = {task.fields["title"].string_or(""), task.state};
  }

  std::size_t count(registry::TaskState state) const {
    return static_cast<std::size_t>(std::count_if(
        boxes_.begin(), boxes_.end(), [&](const auto& box) { return box.second.state == state; }));
  }

  void say(const registry::TickResult& result) {
    for (const auto* notes : {&result.conflicts, &result.differences}) {
      for (const registry::TickNote& one : *notes) {
        std::string line = arguments.file;
        if (one.line > 0) line += ":" + std::to_string(one.line);
        line += ": " + one.number + " " + one.message;
        if (said_.insert(line).second) note(line);
      }
    }
    if (arguments.common.json) {
      if (!arguments.watch) return print_json(tick_json(result));
      if (!result.changes.empty()) print_json_line(tick_json(result));
      return;
    }
    for (const registry::BoxChange& change : result.changes) {
      print_line("[" + std::string(1, change.to) + "] " + change.number + " " +
                 presentable(change.title));
    }
  }

  TaskRegistryClient& client_;
  const std::string spec_;
  std::map<std::string, registry::WantedBox> boxes_;
  std::set<std::string> said_;
  bool had_conflicts_ = false;
};

/// Where the spec's events end now.
registry::EventFilter newest(TaskRegistryClient& client, const std::string& spec) {
  registry::EventFilter filter{.spec = spec};
  while (true) {
    const registry::EventPage page = client.events(filter);
    if (!page.items.empty()) filter.after = page.items.back().id;
    if (!page.next_cursor || page.items.empty()) return filter;
  }
}

int tick() {
  if (arguments.watch && arguments.dry_run) {
    throw ConfigError("--watch writes what --dry-run would only show");
  }
  Runtime runtime(arguments.common);
  TaskRegistryClient client = runtime.registry();
  const std::string spec = spec_name();
  Ticker ticker(client, spec);
  // Before the tasks are read, so that no change falls in between.
  const registry::EventFilter seen =
      arguments.watch ? newest(client, spec) : registry::EventFilter{};
  ticker.load();
  ticker.tick();
  if (!arguments.watch) return ticker.had_conflicts() ? 1 : 0;
  const auto ended = [&] {
    if (!ticker.at_end()) return false;
    ticker.load();  // an event tells of one task, and its dependents may have moved with it
    ticker.tick();
    return ticker.at_end();
  };
  if (!ended()) {
    client.watch(seen, [&](const registry::Event& event) {
      if (!event.event_type.starts_with("Task") || event.event_type == "TaskProgress") return true;
      ticker.follow(event);
      ticker.tick();
      return !ended();
    });
  }
  return ticker.all_done() && !ticker.had_conflicts() ? 0 : 1;
}

}  // namespace

void declare_task_files(Cli& task) {
  arguments.common
      .service_command(task, "import", "Tasks from a plan (tasks.md) or another queue's lines",
                       {Service::kRegistry}, import)
      .input_file("file", arguments.file, "tasks.md, or JSON lines")
      .option("--spec", arguments.spec,
              "the spec's name (default: the folder of .kiro/specs/NAME/tasks.md, else the file's)")
      .option("--repo", arguments.repo, "repo_url for every task that names none")
      .options("--test", arguments.tests, "test command of tasks that name none; repeatable")
      .option("--format", arguments.format,
              "md, jsonl, or copy for PostgreSQL's COPY (default: by the file's name)")
      .options("--map", arguments.columns, "OUR=THEIRS: our field from their column; repeatable")
      .flag("--parallel", arguments.parallel, "a plan's tasks in any order")
      .flag("--without-optional", arguments.without_optional, "a plan without its [ ]* tasks")
      .flag("--reopen-failed", arguments.reopen_failed,
            "failed and cancelled lines as open tasks, labelled was-failed")
      .flag("--dry-run", arguments.dry_run, "show what would be submitted");
  arguments.common
      .service_command(task, "tick", "Tick the boxes of a plan as its tasks are done",
                       {Service::kRegistry}, tick)
      .input_file("file", arguments.file, "tasks.md")
      .option("--spec", arguments.spec, "the spec's name (default: as `import` has it)")
      .flag("--watch", arguments.watch, "go on until all tasks have ended: 0 when all are done")
      .flag("--dry-run", arguments.dry_run, "show what would change");
}

}  // namespace necrocode::app
