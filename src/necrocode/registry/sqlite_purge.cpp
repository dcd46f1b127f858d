// Retention: what is old enough goes, a bounded number of rows at a time.
#include <utility>
#include <vector>

#include "necrocode/base/time_format.hpp"
#include "necrocode/registry/sqlite_changes.hpp"

namespace necrocode::registry {
namespace {

/// So many tasks and events in one transaction: others wait for it.
constexpr std::int64_t kPurgedAtOnce = 1000;
/// So many tasksets are looked at in one transaction.
constexpr std::int64_t kTasksetsAtOnce = 100;

std::vector<std::int64_t> integers(db::Statement& query) {
  std::vector<std::int64_t> found;
  while (query.step()) found.push_back(query.integer(0));
  return found;
}

}  // namespace

bool SqliteChange::purge(const Retention& retention, std::int64_t& events_after) {
  const auto before = [&](std::chrono::milliseconds age) { return now_ms_ - age.count(); };
  bool more = false;
  if (retention.tasksets) more = purge_tasksets(before(*retention.tasksets));
  if (retention.events) more = purge_events(before(*retention.events), events_after) || more;
  return more;
}

// The events first, then the tasks, some at a time; a taskset without any goes itself. One that is
// half gone is still unchanged for long, and so goes on going.
bool SqliteChange::purge_tasksets(std::int64_t before_ms) {
  db::Statement& query = database_.prepare(
      "SELECT s.spec_id FROM tasksets s JOIN taskset_numbers n USING (spec_id) "
      "WHERE n.blocked = 0 AND n.ready = 0 AND n.running = 0 AND s.updated_ms < ?1 "
      "AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.spec_id = s.spec_id AND t.updated_ms >= ?1) "
      "AND NOT EXISTS (SELECT 1 FROM tasks t JOIN dependencies d ON d.parent = t.seq "
      "JOIN tasks c ON c.seq = d.child WHERE t.spec_id = s.spec_id AND c.state < 3) LIMIT ?2");
  query.bind(before_ms).bind(kTasksetsAtOnce);
  const std::vector<std::int64_t> specs = integers(query);
  std::int64_t room = kPurgedAtOnce;
  for (const std::int64_t spec_id : specs) {
    room -= purge_events_of(spec_id, room);
    if (room == 0) return true;
    db::Statement& some =
        database_.prepare("SELECT seq FROM tasks WHERE spec_id = ? ORDER BY seq LIMIT ?");
    some.bind(spec_id).bind(room);
    const std::vector<std::int64_t> tasks = integers(some);
    for (const std::int64_t seq : tasks) purge_task(spec_id, seq);
    room -= static_cast<std::int64_t>(tasks.size());
    if (room == 0) return true;
    database_.prepare("DELETE FROM tasksets WHERE spec_id = ?").bind(spec_id).run();
    specs_.erase(spec_id);
  }
  return static_cast<std::int64_t>(specs.size()) == kTasksetsAtOnce;
}

/// With its attempts, artifact references, fields and dependencies, which follow it; its events are
/// gone already.
void SqliteChange::purge_task(std::int64_t spec_id, std::int64_t seq) {
  const TaskState state = load_row(database_, seq).state;
  // Nobody that has not ended waits for it; a cancelled task that is retried shall not.
  database_
      .prepare(
          "UPDATE tasks SET open_dependencies = open_dependencies - 1 WHERE seq IN "
          "(SELECT child FROM dependencies WHERE parent = ? AND met = 0)")
      .bind(seq)
      .run();
  database_.prepare("DELETE FROM dependencies WHERE parent = ?").bind(seq).run();
  database_.prepare("DELETE FROM tasks WHERE seq = ?").bind(seq).run();
  count(spec_id, state, -1);
}

/// Returns how many it removed.
std::int64_t SqliteChange::purge_events_of(std::int64_t spec_id, std::int64_t max) {
  database_
      .prepare(
          "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE spec_id = ? "
          "ORDER BY id LIMIT ?)")
      .bind(spec_id)
      .bind(max)
      .run();
  return database_.changes();
}

/// Ends at the first that is young; those of a later time, which a clock that was set back leaves
/// between the others, stay and are passed over.
bool SqliteChange::purge_events(std::int64_t before_ms, std::int64_t& after) {
  db::Statement& query =
      database_.prepare("SELECT id, recorded_ms FROM events WHERE id > ? ORDER BY id LIMIT ?");
  query.bind(after).bind(kPurgedAtOnce);
  const std::int64_t first = std::exchange(after, 0);
  std::int64_t last = 0;
  std::int64_t looked_at = 0;
  while (query.step()) {
    const std::int64_t recorded_ms = query.integer(1);
    if (recorded_ms >= before_ms && recorded_ms <= now_ms_) break;
    last = query.integer(0);
    ++looked_at;
  }
  query.reset();
  if (looked_at == 0) return false;
  database_.prepare("DELETE FROM events WHERE id > ? AND id <= ? AND recorded_ms < ?")
      .bind(first)
      .bind(last)
      .bind(before_ms)
      .run();
  if (looked_at < kPurgedAtOnce) return false;
  after = last;
  return true;
}

}  // namespace necrocode::registry
