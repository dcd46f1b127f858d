// Dependencies: what the end of a task means for those that wait for it.
#include <algorithm>

#include "necrocode/base/time_format.hpp"
#include "necrocode/registry/sqlite_changes.hpp"

namespace necrocode::registry {
namespace {

bool is_merged(const TaskRow& row) {
  return Json::parse(row.metadata)["merged"] == Json(true);
}

}  // namespace

void SqliteChange::move(TaskRow& row, TaskState to, const std::string& event_type,
                        const Json& data) {
  transition(row, to, event_type, data);
  if (is_final(to)) tell_dependents(row);
}

void SqliteChange::transition(TaskRow& row, TaskState to, const std::string& event_type,
                              const Json& data) {
  const TaskState previous = row.state;
  row.state = to;
  if (to == TaskState::kReady) enter_ready(row);
  save(row, previous);
  record(row, event_type, data);
}

void SqliteChange::enter_ready(TaskRow& row) {
  row.hold = 0;
  if (row.not_before_ms > now_ms_) {
    row.hold = kWaiting;
    effects_.task_waits.push_back(
        {row.seq, row.not_before_ms, std::chrono::milliseconds(row.not_before_ms - now_ms_)});
  } else {
    effects_.news.became_claimable = true;
  }
}

TaskState SqliteChange::resting_state(const TaskRow& row) {
  if (row.open_dependencies == 0) return TaskState::kReady;
  return dooming_parent(row) ? TaskState::kCancelled : TaskState::kBlocked;
}

std::optional<std::string> SqliteChange::dooming_parent(const TaskRow& row) {
  db::Statement& query = database_.prepare(
      "SELECT p.id FROM dependencies d JOIN tasks p ON p.seq = d.parent "
      "WHERE d.child = ? AND d.met = 0 AND d.policy = 1 AND p.state IN (4, 5) "
      "ORDER BY p.seq LIMIT 1");
  if (!query.bind(row.seq).step()) return std::nullopt;
  std::string parent = query.text(0);
  query.reset();
  return parent;
}

// A list, not a recursion: a chain of tasks may be as long as a taskset.
void SqliteChange::tell_dependents(const TaskRow& ended) {
  std::vector<TaskRow> to_tell{ended};
  while (!to_tell.empty()) {
    const TaskRow parent = std::move(to_tell.back());
    to_tell.pop_back();
    std::vector<TaskRow> next = tell_each_dependent(parent);
    std::reverse(next.begin(), next.end());
    to_tell.insert(to_tell.end(), std::make_move_iterator(next.begin()),
                   std::make_move_iterator(next.end()));
  }
}

std::vector<TaskRow> SqliteChange::tell_each_dependent(const TaskRow& parent) {
  for (const std::int64_t child : meet_edges(parent)) dependency_met(child, parent);
  std::vector<TaskRow> ended;
  if (parent.state == TaskState::kDone) return ended;
  std::vector<std::int64_t> doomed;
  {
    db::Statement& query = database_.prepare(
        "SELECT d.child FROM dependencies d JOIN tasks c ON c.seq = d.child "
        "WHERE d.parent = ? AND d.met = 0 AND d.policy = 1 AND c.state IN (0, 1) ORDER BY d.child");
    query.bind(parent.seq);
    while (query.step()) doomed.push_back(query.integer(0));
  }
  for (const std::int64_t seq : doomed) {
    TaskRow child = load_row(database_, seq);
    transition(child, TaskState::kCancelled, event_for(TaskState::kCancelled),
               Json::object({{"after", parent.id}}));
    ended.push_back(std::move(child));
  }
  return ended;
}

std::vector<std::int64_t> SqliteChange::meet_edges(const TaskRow& parent) {
  // Asked first, as a change of nothing costs more.
  db::Statement& query =
      database_.prepare("SELECT 1 FROM dependencies WHERE parent = ? AND met = 0 LIMIT 1");
  if (!query.bind(parent.seq).step()) return {};
  query.reset();
  const bool done = parent.state == TaskState::kDone;
  db::Statement& update =
      done ? database_.prepare(
                 "UPDATE dependencies SET met = 1 WHERE parent = ?1 AND met = 0 AND (?2 OR "
                 "(SELECT n.unblock_on FROM tasks c JOIN taskset_numbers n USING (spec_id) "
                 "WHERE c.seq = child) = 0) RETURNING child")
           : database_.prepare(
                 "UPDATE dependencies SET met = 1 WHERE parent = ?1 AND met = 0 AND policy = 2 "
                 "RETURNING child");
  update.bind(parent.seq);
  if (done) update.bind(is_merged(parent));
  std::vector<std::int64_t> children;
  while (update.step()) children.push_back(update.integer(0));
  std::sort(children.begin(), children.end());
  return children;
}

void SqliteChange::dependency_met(std::int64_t child, const TaskRow& parent) {
  db::Statement& update = database_.prepare(
      "UPDATE tasks SET open_dependencies = open_dependencies - 1 WHERE seq = ? "
      "RETURNING state, open_dependencies");
  update.bind(child).step();
  const bool freed =
      static_cast<TaskState>(update.integer(0)) == TaskState::kBlocked && update.integer(1) == 0;
  update.reset();
  if (!freed) return;
  TaskRow row = load_row(database_, child);
  transition(row, TaskState::kReady, event_for(TaskState::kReady),
             Json::object({{"after", parent.id}}));
}

void SqliteChange::tell_merged(const TaskRow& row) {
  if (row.state == TaskState::kDone && is_merged(row)) tell_dependents(row);
}

}  // namespace necrocode::registry
