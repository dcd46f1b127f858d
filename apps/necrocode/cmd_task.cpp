// necrocode task: the Task Registry from the command line. Here is what changes tasks; what shows
// them has files of its own.
#include "commands.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/task_context.hpp"
#include "runtime.hpp"
#include "task_checks.hpp"
#include "task_rows.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct TaskArguments {
  CommonOptions common;
  std::string file;
  std::string id;
  std::string spec;
  std::string repo;
  std::string reason;
  std::string priority;
  std::vector<std::string> labels;
  std::vector<std::string> metadata;
  std::string format = "json";
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

std::int64_t total_of(const Json& counts) {
  std::int64_t total = 0;
  for (const auto& [state, count] : counts.members()) total += count.as_int().value_or(0);
  return total;
}

int submit() {
  Runtime runtime(arguments.common);
  const Json taskset = read_taskset();
  check_tasks(taskset, runtime.config());
  TaskRegistryClient client = runtime.registry();
  if (arguments.common.json) {
    print_json(client.submit(taskset).to_json());
    return 0;
  }
  const registry::Taskset head = client.submit(taskset, {}, registry::TasksetPart::kHead);
  const std::string counts = counts_text(head.counts);
  print_line(presentable(head.spec_name) + ": " + std::to_string(total_of(head.counts)) +
             " tasks, version " + std::to_string(head.version) +
             (counts.empty() ? "" : ": " + counts));
  return 0;
}

void report(const registry::Task& task) {
  if (arguments.common.json) {
    print_json(task.to_json());
  } else {
    print_line(presentable(task.id) + "  " + std::string(to_string(task.state)) +
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

/// A change of the labels replaces them; `--label ""` alone takes all away.
Json read_labels() {
  Json labels = Json::array();
  for (const std::string& label : arguments.labels) {
    if (!label.empty()) labels.push_back(label);
  }
  return labels;
}

Json read_metadata() {
  Json metadata = Json::object();
  for (const std::string& pair : arguments.metadata) {
    const std::size_t equals = pair.find('=');
    const auto value =
        equals == std::string::npos ? std::nullopt : Json::try_parse(pair.substr(equals + 1));
    if (!value || equals == 0) {
      throw ConfigError("--metadata: \"" + printable(shorten(pair, 100)) +
                        "\" is not KEY=JSON; text is written KEY='\"text\"'");
    }
    metadata.set(pair.substr(0, equals), *value);
  }
  return metadata;
}

Json read_changes() {
  Json changes = Json::object();
  if (!arguments.priority.empty()) {
    const bool negative = arguments.priority.starts_with('-');
    const auto number = parse_int(arguments.priority.substr(negative ? 1 : 0));
    if (!number) {
      throw ConfigError("--priority: \"" + printable(shorten(arguments.priority, 100)) +
                        "\" is not a whole number");
    }
    changes.set("priority", negative ? -*number : *number);
  }
  if (!arguments.labels.empty()) changes.set("labels", read_labels());
  if (!arguments.metadata.empty()) changes.set("metadata", read_metadata());
  if (changes.size() == 0) throw ConfigError("set takes --priority, --label or --metadata");
  return changes;
}

int set() {
  const Json changes = read_changes();
  Runtime runtime(arguments.common);
  const registry::Task task = runtime.registry().patch(arguments.id, changes);
  report(task);
  return 0;
}

int graph() {
  Runtime runtime(arguments.common);
  const Json graph = runtime.registry().graph(arguments.spec, arguments.format);
  print_line(graph.is_string() ? presentable_text(masked(graph.string_or(""))) : graph.pretty());
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
  Cli& task = cli.command("task", "Tasks: submit, look, watch, change, cancel, retry");
  sub(task, "submit", "Create or update a whole taskset", submit)
      .input_file("file", arguments.file, "taskset, JSON or YAML")
      .option("--repo", arguments.repo, "repo_url for every task");
  declare_task_files(task);
  declare_task_lists(task);
  declare_task_pages(task);
  declare_task_watch(task);
  sub(task, "set", "Change a task's priority, labels or metadata, also while it runs", set)
      .positional("id", arguments.id, "SPEC:NUMBER")
      .option("--priority", arguments.priority, "higher first")
      .options("--label", arguments.labels,
               "in place of the labels it has; repeatable, \"\" for none")
      .options("--metadata", arguments.metadata, "KEY=JSON, beside what is there; repeatable");
  sub(task, "cancel", "Cancel a task, also a running one", cancel)
      .positional("id", arguments.id, "SPEC:NUMBER")
      .option("--reason", arguments.reason, "kept with the event");
  sub(task, "retry", "Make a failed task ready again", retry)
      .positional("id", arguments.id, "SPEC:NUMBER");
  declare_task_providers(task);
  Cli& graphing = task.command("graph", "Dependencies of a taskset");
  arguments.common.declare(graphing);
  arguments.common.declare_services(graphing, {Service::kRegistry});
  graphing.action(graph)
      .positional("spec", arguments.spec, "spec name")
      .option("--format", arguments.format, "json, dot or mermaid");
}

}  // namespace necrocode::app
