// necrocode task: the Task Registry from the command line.
#include <cstdio>

#include "commands.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/config/yaml.hpp"
#include "runtime.hpp"
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
  int limit = 1000;
};

TaskArguments arguments;

Json read_taskset(const std::string& file) {
  const std::string text = read_file(file, 64 * limits::kMiB);
  if (std::filesystem::path(file).extension() != ".json") return config::parse_yaml(text, file);
  try {
    return Json::parse(text, file);
  } catch (const InvalidResponse& error) {
    throw TaskContextValidationError(error.summary());
  }
}

int submit() {
  Runtime runtime(arguments.common);
  Json taskset = read_taskset(arguments.file);
  if (!arguments.repo.empty() && taskset.is_object()) {
    Json tasks = Json::array();
    for (Json task : taskset["tasks"].items()) {
      if (task.is_object()) task.set("repo_url", arguments.repo);
      tasks.push_back(std::move(task));
    }
    taskset.set("tasks", std::move(tasks));
  }
  const registry::Taskset submitted = runtime.registry().submit(taskset);
  if (arguments.common.json) {
    print_json(submitted.to_json());
  } else {
    print_line(submitted.spec_name + ": " + std::to_string(submitted.tasks.size()) +
               " tasks, version " + std::to_string(submitted.version));
  }
  return 0;
}

void print_tasks(const std::vector<registry::Task>& tasks) {
  std::vector<std::vector<std::string>> rows;
  for (const registry::Task& task : tasks) {
    rows.push_back({task.id, std::string(to_string(task.state)), std::to_string(task.attempt),
                    shorten(task.fields["title"].string_or(""), 60), task.runner_id,
                    task.metadata["branch"].string_or("")});
  }
  print_table({"TASK", "STATE", "ATTEMPT", "TITLE", "RUNNER", "BRANCH"}, rows);
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
  query.limit = arguments.limit;
  const registry::TaskPage page = runtime.registry().list(query);
  if (!arguments.common.json) {
    print_tasks(page.items);
    if (page.next_cursor) print_line("… more; raise --limit");
    return 0;
  }
  Json items = Json::array();
  for (const registry::Task& task : page.items) items.push_back(task.to_json());
  print_json(Json::object({{"items", std::move(items)}, {"next_cursor", page.next_cursor}}));
  return 0;
}

int show() {
  Runtime runtime(arguments.common);
  print_json(runtime.registry().get_task(arguments.id).to_json());
  return 0;
}

int events() {
  Runtime runtime(arguments.common);
  TaskRegistryClient client = runtime.registry();
  std::int64_t after = 0;
  while (true) {
    const registry::EventPage page = client.events(arguments.id, after);
    for (const registry::Event& event : page.items) {
      after = event.id;
      if (arguments.common.json) {
        print_json_line(event.to_json());
      } else {
        print_line(to_rfc3339(event.recorded_at) + "  " + printable(event.event_type) + "  " +
                   printable(event.data.dump()));
      }
    }
    if (!page.next_cursor || page.items.empty()) return 0;
  }
}

int cancel() {
  Runtime runtime(arguments.common);
  const registry::Task task = runtime.registry().cancel(arguments.id, arguments.reason);
  print_line(task.id + "  " + std::string(to_string(task.state)) +
             (task.cancel_requested ? ", cancel requested" : ""));
  return 0;
}

int retry() {
  Runtime runtime(arguments.common);
  const registry::Task task = runtime.registry().retry(arguments.id);
  print_line(task.id + "  " + std::string(to_string(task.state)));
  return 0;
}

int graph() {
  Runtime runtime(arguments.common);
  const Json graph = runtime.registry().graph(arguments.spec, arguments.format);
  print_line(graph.is_string() ? graph.string_or("") : graph.pretty());
  return 0;
}

Cli& sub(Cli& parent, const std::string& name, const std::string& help,
         std::function<int()> action) {
  return arguments.common.service_command(parent, name, help, std::move(action));
}

}  // namespace

void declare_task(Cli& cli) {
  Cli& task = cli.command("task", "Tasks: submit, look, cancel, retry");
  sub(task, "submit", "Create or update a whole taskset", submit)
      .positional("file", arguments.file, "taskset, JSON or YAML")
      .option("--repo", arguments.repo, "repo_url for every task");
  sub(task, "list", "Tasks by state, spec, skill, label or text", list)
      .option("--spec", arguments.spec, "of this spec")
      .option("--state", arguments.state, "in these states, comma-separated")
      .option("--skill", arguments.skill, "that need this skill")
      .option("--label", arguments.label, "with this label")
      .option("--text", arguments.text, "with this text in title or description")
      .option("--sort", arguments.sort, "number, priority or age")
      .option("--limit", arguments.limit, 1, 1000, "at most so many");
  sub(task, "show", "One task, whole", show).positional("id", arguments.id, "SPEC:NUMBER");
  sub(task, "events", "A task's history", events).positional("id", arguments.id, "SPEC:NUMBER");
  sub(task, "cancel", "Cancel a task, also a running one", cancel)
      .positional("id", arguments.id, "SPEC:NUMBER")
      .option("--reason", arguments.reason, "kept with the event");
  sub(task, "retry", "Make a failed or cancelled task ready again", retry)
      .positional("id", arguments.id, "SPEC:NUMBER");
  sub(task, "graph", "Dependencies of a taskset", graph)
      .positional("spec", arguments.spec, "spec name")
      .option("--format", arguments.format, "json, dot or mermaid");
}

}  // namespace necrocode::app
