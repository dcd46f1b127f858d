// necrocode task watch: what happens, until nothing more does. A table on a terminal, else a line
// an event.
#include <unistd.h>

#include <cstdlib>

#include "commands.hpp"
#include "necrocode/base/exit_code.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "runtime.hpp"
#include "task_end.hpp"
#include "task_feed.hpp"
#include "task_table.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

using std::chrono::milliseconds;
using namespace std::chrono_literals;

/// Between two drawings.
constexpr milliseconds kFrame = 200ms;
/// Without an event, what is watched is looked at so often: what it waits for may be of another
/// spec, whose events do not come here.
constexpr milliseconds kQuiet = 1'000ms;

struct WatchArguments {
  CommonOptions common;
  std::string id;
  std::string after;
};

WatchArguments arguments;

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

void print_event(const registry::Event& event) {
  if (arguments.common.json) return print_json_line(event.to_json());
  print_line(to_rfc3339(event.recorded_at) + "  " + presentable(event.task_id) + "  " +
             presentable(event.event_type) + "  " + presentable(event.data.dump()));
}

bool may_end_a_task(const registry::Event& event) {
  return event.event_type == "TaskCompleted" || event.event_type == "TaskFailed" ||
         event.event_type == "TaskCancelled" || event.data["removed"] == Json(true);
}

int watch_lines(TaskRegistryClient& client, registry::EventFilter seen,
                const CallContext& context) {
  // From an end on each event may be the last.
  bool ending = end_of(client, seen, context).has_value();
  // Also what happened just before the end is to be shown.
  const auto all_seen = [&] { return client.events(seen, 1, context).items.empty(); };
  const auto end_of_all = [&]() -> std::optional<bool> {
    if (!all_seen()) return std::nullopt;
    std::optional<bool> end = false;
    try {
      end = end_of(client, seen, context);
    } catch (const NotFound&) {  // removed, which ends it as well
    }
    return end && all_seen() ? end : std::nullopt;
  };
  std::optional<bool> end = ending ? end_of_all() : std::nullopt;
  TaskFeed feed(client, seen, context.stop);
  while (!end) {
    const auto event = feed.next(kQuiet);
    if (context.cancelled()) return static_cast<int>(ExitCode::kCancelled);
    if (event) {
      seen.after = event->id;
      print_event(*event);
      ending = ending || may_end_a_task(*event);
    }
    if (ending || !event) end = end_of_all();
  }
  return *end ? 0 : 1;
}

/// Gives the table what has come, until it is time to draw again.
void take_events(TaskFeed& feed, TaskTable& table, SteadyTime next_frame) {
  milliseconds wait = kQuiet;
  while (const auto event = feed.next(wait)) {
    table.take(*event);
    const auto left = next_frame - real_clock().steady_now();
    wait = std::max(0ms, std::chrono::ceil<milliseconds>(left));
    if (left < -kQuiet) return;  // a long history: something is shown meanwhile
  }
}

int watch_table(TaskRegistryClient& client, const registry::EventFilter& watched,
                const CallContext& context) {
  std::optional<bool> end = end_of(client, watched, context);  // throws before anything is drawn
  TaskTable table(client, watched, context);
  TaskFeed feed(client, watched, context.stop);
  try {
    while (true) {
      table.draw();
      if (end) return *end ? 0 : 1;
      take_events(feed, table, real_clock().steady_now() + kFrame);
      if (context.cancelled()) return static_cast<int>(ExitCode::kCancelled);
      end = end_of(client, watched, context);
    }
  } catch (const NotFound&) {  // removed, which ends it as well
    return static_cast<int>(ExitCode::kTestsFailed);
  }
}

bool can_draw() {
  const char* name = std::getenv("TERM");
  return is_terminal(STDOUT_FILENO) && name && *name && std::string_view(name) != "dumb";
}

int watch() {
  const StopOnSignal signals;
  Runtime runtime(arguments.common);
  TaskRegistryClient client = runtime.registry();
  const registry::EventFilter watched = read_watched(client);
  const bool table = !arguments.common.json && can_draw();
  return table ? watch_table(client, watched, signals.context())
               : watch_lines(client, watched, signals.context());
}

}  // namespace

void declare_task_watch(Cli& task) {
  arguments.common
      .service_command(task, "watch",
                       "A table on a terminal, else events as they come, until the task has ended, "
                       "or all tasks of the spec, or none can go on: 0 when all are done",
                       {Service::kRegistry}, watch)
      .positional("id", arguments.id, "SPEC:NUMBER or SPEC")
      .option("--after", arguments.after, "go on after this event's id");
}

}  // namespace necrocode::app
