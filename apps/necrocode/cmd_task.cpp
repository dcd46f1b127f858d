// necrocode task: the Task Registry from the command line.
#include <algorithm>
#include <map>

#include "commands.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/runner/task_context.hpp"
#include "paging.hpp"
#include "runtime.hpp"
#include "task_checks.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct TaskArguments {
  CommonOptions common;
  std::string file;
  std::string id;
  std::string spec;
  std::string state;
  std::string skill;
  std::string label;
  std::string text;
  std::string sort = "number";
  std::string repo;
  std::string reason;
  std::string format = "json";
  std::string after;
  ListLimit limit;
};

TaskArguments arguments;

Json read_taskset() {
  Json taskset = runner::read_task_file(arguments.file, 64 * limits::kMiB);
  if (!taskset["tasks"].is_array()) {
    throw TaskContextValidationError(
        taskset["task_id"].is_null()
            ? "a taskset is {\"spec_name\": …, \"tasks\": […]}, and this has no list of tasks"
            : "this is one task; use `necrocode run`, or give a taskset");
  }
  if (!arguments.repo.empty()) {
    Json tasks = Json::array();
    for (Json task : taskset["tasks"].items()) {
      if (task.is_object()) task.set("repo_url", arguments.repo);
      tasks.push_back(std::move(task));
    }
    taskset.set("tasks", std::move(tasks));
  }
  return taskset;
}

int submit() {
  Runtime runtime(arguments.common);
  const Json taskset = read_taskset();
  check_tasks(taskset, runtime.config());
  const registry::Taskset submitted = runtime.registry().submit(taskset);
  if (arguments.common.json) {
    print_json(submitted.to_json());
  } else {
    print_line(submitted.spec_name + ": " + std::to_string(submitted.tasks.size()) +
               " tasks, version " + std::to_string(submitted.version));
  }
  return 0;
}

// Why a task is not done yet, or will not be.
std::string reason_of(const registry::Task& task) {
  if (task.state == registry::TaskState::kDone) return {};
  const std::string failure = task.failure["reason"].string_or("");
  return failure.empty() ? task.blocked_reason : failure;
}

void print_tasks(const std::vector<registry::Task>& tasks) {
  std::vector<std::string> header = {"TASK", "STATE", "ATTEMPT", "TITLE", "RUNNER", "BRANCH"};
  std::vector<std::vector<std::string>> rows;
  const bool reasons = std::any_of(tasks.begin(), tasks.end(), [](const registry::Task& task) {
    return !reason_of(task).empty();
  });
  if (reasons) header.emplace_back("REASON");
  for (const registry::Task& task : tasks) {
    rows.push_back({task.id, std::string(to_string(task.state)), std::to_string(task.attempt),
                    shorten(task.fields["title"].string_or(""), 60), task.runner_id,
                    task.metadata["branch"].string_or("")});
    if (reasons) rows.back().push_back(shorten(presentable(reason_of(task)), 120));
  }
  print_table(header, rows);
}

int list() {
  Runtime runtime(arguments.common);
  registry::TaskQuery query;
  query.spec = arguments.spec;
  for (const std::string_view name : split(arguments.state, ',')) {
    if (trim(name).empty()) continue;
    const auto state = registry::parse_task_state(trim(name));
    if (!state)
      throw ConfigError("--state: \"" + printable(name) +
                        "\" is not a state: blocked, ready, running, done, failed, cancelled");
    query.states.push_back(*state);
  }
  query.skill = arguments.skill;
  query.label = arguments.label;
  query.text = arguments.text;
  query.sort = arguments.sort;
  TaskRegistryClient client = runtime.registry();
  const registry::TaskPage page =
      list_pages([&client](const registry::TaskQuery& one) { return client.list(one); }, query,
                 arguments.limit);
  const bool more = page.next_cursor.has_value();
  if (!arguments.common.json) {
    print_tasks(page.items);
    if (more) print_line(kMoreLine);
    return 0;
  }
  Json items = Json::array();
  for (const registry::Task& task : page.items) items.push_back(task.to_json());
  print_json(Json::object({{"items", std::move(items)}, {"more", more}}));
  return 0;
}

int show() {
  Runtime runtime(arguments.common);
  print_json(runtime.registry().get_task(arguments.id).to_json());
  return 0;
}

void print_event(const registry::Event& event) {
  if (arguments.common.json) return print_json_line(event.to_json());
  print_line(to_rfc3339(event.recorded_at) + "  " + event.task_id + "  " +
             printable(event.event_type) + "  " + printable(event.data.dump()));
}

int events() {
  Runtime runtime(arguments.common);
  TaskRegistryClient client = runtime.registry();
  std::int64_t after = 0;
  while (true) {
    const registry::EventPage page = client.events({.task_id = arguments.id, .after = after});
    for (const registry::Event& event : page.items) {
      after = event.id;
      print_event(event);
    }
    if (!page.next_cursor || page.items.empty()) return 0;
  }
}

bool may_end_a_task(const registry::Event& event) {
  return event.event_type == "TaskCompleted" || event.event_type == "TaskFailed" ||
         event.event_type == "TaskCancelled" || event.data["removed"] == Json(true);
}

// Whether all is done, once nothing more will happen by itself. A blocked task whose spec has a
// failed or cancelled one waits for a person.
std::optional<bool> end_of(TaskRegistryClient& client, const registry::EventFilter& watched) {
  using registry::TaskState;
  std::map<TaskState, int> states;
  if (!watched.task_id.empty()) {
    ++states[client.get_task(watched.task_id).state];
  } else {
    for (const registry::Task& task : client.get_taskset(watched.spec).tasks) ++states[task.state];
  }
  const bool failed = states[TaskState::kFailed] + states[TaskState::kCancelled] > 0;
  if (states[TaskState::kReady] + states[TaskState::kRunning] > 0) return std::nullopt;
  if (states[TaskState::kBlocked] > 0 && !failed) return std::nullopt;
  return !failed;
}

registry::EventFilter read_watched(TaskRegistryClient& client) {
  registry::EventFilter watched;
  (TaskId::parse(arguments.id) ? watched.task_id : watched.spec) = arguments.id;
  if (arguments.after.empty()) return watched;
  const auto after = parse_int(arguments.after);
  if (!after || *after < 1) throw ConfigError("--after takes an event's id, as --json shows it");
  const registry::EventPage page = client.events({.after = *after - 1}, 1);
  if (page.items.empty() || page.items.front().id != *after) {
    throw ConfigError("--after: the registry has no event " + arguments.after);
  }
  watched.after = *after;
  return watched;
}

int watch() {
  Runtime runtime(arguments.common);
  TaskRegistryClient client = runtime.registry();
  registry::EventFilter seen = read_watched(client);
  std::optional<bool> end = end_of(client, seen);
  bool ending = end.has_value();  // from then on each event may be the last
  const auto all_seen = [&] { return client.events(seen, 1).items.empty(); };
  if (ending && all_seen()) return *end ? 0 : 1;
  client.watch(seen, [&](const registry::Event& event) {
    seen.after = event.id;
    print_event(event);
    ending = ending || may_end_a_task(event);
    end.reset();
    if (!ending || !all_seen()) return true;
    try {
      end = end_of(client, seen);
    } catch (const NotFound&) {  // removed
      end = false;
    }
    return !end;
  });
  return end.value_or(false) ? 0 : 1;
}

void report(const registry::Task& task) {
  if (arguments.common.json) {
    print_json(task.to_json());
  } else {
    print_line(task.id + "  " + std::string(to_string(task.state)) +
               (task.cancel_requested ? ", cancel requested" : ""));
  }
}

int cancel() {
  Runtime runtime(arguments.common);
  const registry::Task task = runtime.registry().cancel(arguments.id, arguments.reason);
  report(task);
  return 0;
}

int retry() {
  Runtime runtime(arguments.common);
  const registry::Task task = runtime.registry().retry(arguments.id);
  report(task);
  return 0;
}

int graph() {
  Runtime runtime(arguments.common);
  const Json graph = runtime.registry().graph(arguments.spec, arguments.format);
  print_line(graph.is_string() ? graph.string_or("") : graph.pretty());
  return 0;
}

// A command that reports something, also as JSON.
Cli& sub(Cli& parent, const std::string& name, const std::string& help,
         std::function<int()> action) {
  return arguments.common.service_command(parent, name, help, {Service::kRegistry},
                                          std::move(action));
}

}  // namespace

void declare_task(Cli& cli) {
  Cli& task = cli.command("task", "Tasks: submit, look, cancel, retry");
  sub(task, "submit", "Create or update a whole taskset", submit)
      .input_file("file", arguments.file, "taskset, JSON or YAML")
      .option("--repo", arguments.repo, "repo_url for every task");
  declare_task_files(task);
  Cli& listing = sub(task, "list", "Tasks by state, spec, skill, label or text", list);
  listing.option("--spec", arguments.spec, "of this spec")
      .option("--state", arguments.state, "in these states, comma-separated")
      .option("--skill", arguments.skill, "that need this skill")
      .option("--label", arguments.label, "with this label")
      .option("--text", arguments.text, "with this text in title or description")
      .option("--sort", arguments.sort, "number, priority or age");
  arguments.limit.declare(listing);
  sub(task, "show", "One task, whole", show).positional("id", arguments.id, "SPEC:NUMBER");
  sub(task, "events", "A task's history", events).positional("id", arguments.id, "SPEC:NUMBER");
  sub(task, "watch",
      "Events as they come, until the task has ended, or all tasks of the spec: 0 when done", watch)
      .positional("id", arguments.id, "SPEC:NUMBER or SPEC")
      .option("--after", arguments.after, "go on after this event's id");
  sub(task, "cancel", "Cancel a task, also a running one", cancel)
      .positional("id", arguments.id, "SPEC:NUMBER")
      .option("--reason", arguments.reason, "kept with the event");
  sub(task, "retry", "Make a failed task ready again", retry)
      .positional("id", arguments.id, "SPEC:NUMBER");
  Cli& graphing = task.command("graph", "Dependencies of a taskset");
  arguments.common.declare(graphing);
  arguments.common.declare_services(graphing, {Service::kRegistry});
  graphing.action(graph)
      .positional("spec", arguments.spec, "spec name")
      .option("--format", arguments.format, "json, dot or mermaid");
}

}  // namespace necrocode::app
