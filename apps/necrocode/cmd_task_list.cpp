// necrocode task list, necrocode task events: what the registry has, by filters.
#include <algorithm>

#include "commands.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "paging.hpp"
#include "runtime.hpp"
#include "task_rows.hpp"
#include "terminal.hpp"
#include "time_options.hpp"

namespace necrocode::app {
namespace {

struct ListArguments {
  CommonOptions common;
  std::string id;
  std::string spec;
  std::string state;
  std::string skill;
  std::string label;
  std::string text;
  std::string type;
  std::string since;
  std::string until;
  std::string after;
  std::string sort = "number";
  ListLimit limit;
};

ListArguments arguments;

void print_tasks(const std::vector<registry::Task>& tasks) {
  std::vector<std::string> header = {"TASK", "STATE", "ATTEMPT", "TITLE", "RUNNER", "BRANCH"};
  std::vector<std::vector<std::string>> rows;
  const bool reasons = std::any_of(tasks.begin(), tasks.end(), [](const registry::Task& task) {
    return !reason_of(task).empty();
  });
  if (reasons) header.emplace_back("REASON");
  for (const registry::Task& task : tasks) {
    rows.push_back({task.id, std::string(to_string(task.state)), std::to_string(task.attempt),
                    shorten(presentable(task.fields["title"].string_or("")), 60), task.runner_id,
                    task.metadata["branch"].string_or("")});
    if (reasons) rows.back().push_back(shorten(reason_of(task), 120));
  }
  print_table(header, rows);
}

std::vector<registry::TaskState> read_states() {
  std::vector<registry::TaskState> states;
  for (const std::string_view name : split(arguments.state, ',')) {
    if (trim(name).empty()) continue;
    const auto state = registry::parse_task_state(trim(name));
    if (!state)
      throw ConfigError("--state: \"" + printable(name) +
                        "\" is not a state: blocked, ready, running, done, failed, cancelled");
    states.push_back(*state);
  }
  return states;
}

int list() {
  registry::TaskQuery query;
  query.spec = arguments.spec;
  query.states = read_states();
  query.skill = arguments.skill;
  query.label = arguments.label;
  query.text = arguments.text;
  query.since = read_past_time("--since", arguments.since);
  query.until = read_past_time("--until", arguments.until);
  query.sort = arguments.sort;
  Runtime runtime(arguments.common);
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

/// Events as they are read, since a history may be longer than what fits into memory.
class EventPrinter {
 public:
  explicit EventPrinter(bool json) : json_(json) {
    if (json_) print("{\"items\": [");
  }
  void take(const registry::Event& event) {
    if (json_) {
      print(std::string(first_ ? "\n" : ",\n") + "  " + event.to_json().dump());
    } else {
      print_line(to_rfc3339(event.recorded_at) + "  " + presentable(event.task_id) + "  " +
                 presentable(event.event_type) + "  " + presentable(event.data.dump()));
    }
    first_ = false;
  }
  void finish() {
    if (json_) print_line(first_ ? "]}" : "\n]}");
  }

 private:
  const bool json_;
  bool first_ = true;
};

int events() {
  registry::EventFilter filter;
  filter.task_id = arguments.id;
  filter.spec = arguments.spec;
  filter.type = arguments.type;
  filter.since = read_past_time("--since", arguments.since);
  filter.until = read_past_time("--until", arguments.until);
  if (!arguments.after.empty()) {
    const auto after = parse_int(arguments.after);
    if (!after || *after < 0) throw ConfigError("--after takes an event's id, as --json shows it");
    filter.after = *after;
  }
  Runtime runtime(arguments.common);
  TaskRegistryClient client = runtime.registry();
  registry::EventPage page = client.events(filter);  // before anything is printed
  EventPrinter printer(arguments.common.json);
  while (true) {
    for (const registry::Event& event : page.items) {
      filter.after = event.id;
      printer.take(event);
    }
    if (!page.next_cursor || page.items.empty()) break;
    page = client.events(filter);
  }
  printer.finish();
  return 0;
}

}  // namespace

void declare_task_lists(Cli& task) {
  Cli& listing = arguments.common.service_command(
      task, "list", "Tasks by state, spec, skill, label, text or time", {Service::kRegistry}, list);
  listing.option("--spec", arguments.spec, "of this spec")
      .option("--state", arguments.state, "in these states, comma-separated")
      .option("--skill", arguments.skill, "that need this skill")
      .option("--label", arguments.label, "with this label")
      .option("--text", arguments.text, "with this text in title or description")
      .option("--since", arguments.since, "changed then or later: RFC 3339, or 2h, 7d ago")
      .option("--until", arguments.until, "last changed before")
      .option("--sort", arguments.sort, "number, priority or age");
  arguments.limit.declare(listing);
  arguments.common
      .service_command(task, "events", "The history of a task, a spec or all", {Service::kRegistry},
                       events)
      .optional_positional("id", arguments.id, "SPEC:NUMBER (default: all tasks)")
      .option("--spec", arguments.spec, "of this spec")
      .option("--type", arguments.type, "of this type, such as TaskFailed")
      .option("--since", arguments.since, "recorded then or later: RFC 3339, or 2h, 7d ago")
      .option("--until", arguments.until, "recorded before")
      .option("--after", arguments.after, "after this event's id");
}

}  // namespace necrocode::app
