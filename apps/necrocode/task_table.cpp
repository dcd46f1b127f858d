#include "task_table.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "task_rows.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

using registry::TaskState;

// What a terminal is told (ECMA-48, and the private modes of DEC's terminals).
constexpr const char* kBegin = "\x1b[?25l\x1b[?7l";  // cursor hidden, lines are cut at the edge
constexpr const char* kEnd = "\x1b[?7h\x1b[?25h";
constexpr const char* kClearRight = "\x1b[K";
constexpr const char* kClearBelow = "\x1b[J";

/// Above the tasks: counts, and the columns' names; below them: how many there are more, and the
/// line with the cursor.
constexpr std::size_t kOtherLines = 4;
/// So many waiting tasks are asked about in a drawing; the others show no reason.
constexpr std::size_t kExplained = 10;
constexpr std::size_t kTitleBytes = 48;

struct Size {
  std::size_t rows = 24;
  std::size_t columns = 80;
};

Size terminal_size() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) {
    return {};
  }
  return {size.ws_row, size.ws_col};
}

bool leaves_running(std::string_view event_type) {
  return event_type == "TaskCompleted" || event_type == "TaskFailed" ||
         event_type == "TaskCancelled" || event_type == "TaskRetried" || event_type == "TaskReady";
}

const char* style_of(TaskState state) {
  if (state == TaskState::kRunning) return "good";
  return state == TaskState::kFailed || state == TaskState::kCancelled ? "bad" : "dim";
}

}  // namespace

struct TaskTable::View {
  std::string name;
  Json counts;
  double spent_usd = 0;
  std::vector<registry::Task> tasks;
  std::vector<std::string> reasons;  ///< one a task
};

TaskTable::TaskTable(TaskRegistryClient& client, registry::EventFilter watched, CallContext context)
    : client_(client), watched_(std::move(watched)), context_(std::move(context)) {
  print(kBegin);
}

TaskTable::~TaskTable() {
  try {
    print(kEnd);
  } catch (const StorageError& error) {
    note("necrocode: " + error.summary());
  }
}

void TaskTable::take(const registry::Event& event) {
  if (event.event_type == "TaskAssigned") {
    started_[event.task_id] = event.recorded_at;
    if (!first_start_) first_start_ = event.recorded_at;
  } else if (leaves_running(event.event_type)) {
    started_.erase(event.task_id);
  }
}

void TaskTable::add_tasks(View& view, std::vector<TaskState> states, std::size_t rows) {
  if (view.tasks.size() >= rows) return;
  registry::TaskQuery query;
  query.spec = watched_.spec;
  query.states = std::move(states);
  query.limit = static_cast<int>(std::min(rows - view.tasks.size(), limits::kPageSizeMax));
  for (registry::Task& task : client_.list(query, context_).items)
    view.tasks.push_back(std::move(task));
}

TaskTable::View TaskTable::read_view(std::size_t rows) {
  View view;
  if (!watched_.task_id.empty()) {
    view.tasks.push_back(client_.get_task(watched_.task_id, context_));
    const registry::Task& task = view.tasks.front();
    view.name = task.id;
    view.counts = Json::object({{std::string(to_string(task.state)), 1}});
    for (const registry::AttemptRecord& record : client_.attempts(task.id, context_)) {
      view.spent_usd += record.cost_usd;
    }
  } else {
    const registry::Taskset head =
        client_.get_taskset(watched_.spec, context_, registry::TasksetPart::kHead);
    view.name = head.spec_name;
    view.counts = head.counts;
    view.spent_usd = head.spent_usd;
    // The most telling first, where not all have room; a third is kept for what has failed.
    const auto count = [&](TaskState state) {
      return static_cast<std::size_t>(head.counts[to_string(state)].as_int().value_or(0));
    };
    const std::size_t ended_badly = count(TaskState::kFailed) + count(TaskState::kCancelled);
    add_tasks(view, {TaskState::kRunning}, rows - std::min(rows / 3, ended_badly));
    add_tasks(view, {TaskState::kFailed, TaskState::kCancelled}, rows);
    add_tasks(view, {TaskState::kReady, TaskState::kBlocked}, rows);
  }
  std::size_t asked = 0;
  for (const registry::Task& task : view.tasks) {
    view.reasons.push_back(waiting_reason(task, asked));
  }
  return view;
}

std::string TaskTable::waiting_reason(const registry::Task& task, std::size_t& asked) const {
  std::string reason = reason_of(task);
  if (task.state != TaskState::kReady || task.not_before || asked >= kExplained) return reason;
  ++asked;
  try {
    const registry::Explanation told = client_.explain(task.id, context_);
    return told.reasons.empty() ? reason : presentable(told.reasons.front().detail);
  } catch (const NotFound&) {
    return reason;  // removed meanwhile; the next drawing is without it
  }
}

std::string TaskTable::time_since(std::optional<SystemTime> start) const {
  if (!start) return {};
  const auto time = std::max(SystemTime::duration{0}, real_clock().system_now() - *start);
  return human_duration(std::chrono::floor<std::chrono::seconds>(time));
}

std::string TaskTable::head_line(const View& view) const {
  std::string line = presentable(view.name) + ": " + counts_text(view.counts);
  for (const std::string& more : {cost_text(view.spent_usd), time_since(first_start_)}) {
    if (!more.empty()) line += " | " + more;
  }
  return line;
}

std::vector<std::string> TaskTable::row_of(const registry::Task& task) const {
  std::optional<SystemTime> start;
  const auto found = started_.find(task.id);
  if (task.state == TaskState::kRunning && found != started_.end()) start = found->second;
  return {task.id,
          std::string(to_string(task.state)),
          std::to_string(task.attempt),
          time_since(start),
          shorten(presentable(task.fields["title"].string_or("")), kTitleBytes),
          task.runner_id};
}

void TaskTable::draw() {
  const Size size = terminal_size();
  const std::size_t rows = size.rows > kOtherLines ? size.rows - kOtherLines : 0;
  View view = read_view(rows);
  std::vector<std::vector<std::string>> cells;
  for (std::size_t i = 0; i < view.tasks.size(); ++i) {
    cells.push_back(row_of(view.tasks[i]));
    cells.back().push_back(view.reasons[i]);
  }
  const std::vector<std::string> table =
      table_lines({"TASK", "STATE", "ATTEMPT", "FOR", "TITLE", "RUNNER", "REASON"}, cells);
  std::vector<std::string> lines = {cut_to_width(head_line(view), size.columns)};
  for (std::size_t i = 0; i < table.size(); ++i) {
    const char* style = i == 0 ? "dim" : style_of(view.tasks[i - 1].state);
    lines.push_back(styled(style, cut_to_width(table[i], size.columns)));
  }
  std::int64_t open = -static_cast<std::int64_t>(view.tasks.size());
  for (const TaskState state : registry::kTaskStates) {
    if (state != TaskState::kDone) open += view.counts[to_string(state)].as_int().value_or(0);
  }
  if (watched_.task_id.empty() && open > 0) lines.push_back("… " + std::to_string(open) + " more");

  std::string screen = "\r";
  if (drawn_lines_ > 0) screen += "\x1b[" + std::to_string(drawn_lines_) + "A";
  for (const std::string& line : lines) screen += line + kClearRight + "\r\n";
  print(screen + kClearBelow);
  drawn_lines_ = lines.size();
}

}  // namespace necrocode::app
