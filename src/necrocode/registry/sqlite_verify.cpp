#include "necrocode/registry/sqlite_verify.hpp"

namespace necrocode::registry {
namespace {

/// Each query answers with rows that should not be: what they are, and of which task or taskset.
constexpr const char* kQueries[] = {
    "SELECT 'the counts of tasks are wrong of', s.name FROM tasksets s "
    "LEFT JOIN taskset_numbers n USING (spec_id) LEFT JOIN "
    "(SELECT spec_id, sum(state = 0) AS blocked, sum(state = 1) AS ready, sum(state = 2) AS "
    "running, "
    " sum(state = 3) AS done, sum(state = 4) AS failed, sum(state = 5) AS cancelled "
    " FROM tasks GROUP BY spec_id) t USING (spec_id) "
    "WHERE (n.blocked, n.ready, n.running, n.done, n.failed, n.cancelled) IS NOT "
    "(coalesce(t.blocked, 0), coalesce(t.ready, 0), coalesce(t.running, 0), coalesce(t.done, 0), "
    "coalesce(t.failed, 0), coalesce(t.cancelled, 0)) LIMIT 3",
    "SELECT 'the count of open dependencies is wrong of', t.id FROM tasks t LEFT JOIN "
    "(SELECT child, count(*) AS open FROM dependencies WHERE met = 0 GROUP BY child) o "
    "ON o.child = t.seq WHERE t.open_dependencies <> coalesce(o.open, 0) LIMIT 3",
    "SELECT 'there are no fields of', t.id FROM tasks t "
    "WHERE NOT EXISTS (SELECT 1 FROM task_fields f WHERE f.seq = t.seq) LIMIT 3",
    "SELECT 'a task is in no lane of its own:', t.id FROM tasks t "
    "LEFT JOIN lanes l ON l.lane = t.lane "
    "WHERE (l.spec_id, l.skill, l.provider) IS NOT (t.spec_id, t.skill, t.provider) LIMIT 3",
    "SELECT 'a lane is headed by what nobody can claim, in', s.name FROM lanes l "
    "JOIN tasksets s USING (spec_id) LEFT JOIN tasks t ON t.seq = l.head "
    "WHERE l.head IS NOT NULL AND (t.lane, t.state, t.hold) IS NOT (l.lane, 1, 0) LIMIT 3",
    "SELECT 'a lane has a claimable task and no head, in', s.name FROM lanes l "
    "JOIN taskset_numbers n USING (spec_id) JOIN tasksets s USING (spec_id) "
    "WHERE l.head IS NULL AND (n.max_running = 0 OR n.running < n.max_running) "
    "AND (n.budget_usd_micros = 0 OR n.spent_usd_micros < n.budget_usd_micros) "
    "AND (n.budget_tokens = 0 OR n.spent_tokens < n.budget_tokens) AND EXISTS "
    "(SELECT 1 FROM tasks t WHERE t.lane = l.lane AND t.state = 1 AND t.hold = 0) LIMIT 3",
    "SELECT 'a lane does not know what runs, of', s.name FROM lanes l "
    "JOIN taskset_numbers n USING (spec_id) JOIN tasksets s USING (spec_id) "
    "WHERE l.share <> n.running LIMIT 3",
    "SELECT 'a task is held for one that does not run:', t.id FROM tasks t "
    "LEFT JOIN tasks h ON h.seq = t.hold WHERE t.hold > 0 AND h.state IS NOT 2 LIMIT 3",
    "SELECT 'a provider is probed by a task that does not run:', p.name FROM providers p "
    "LEFT JOIN tasks t ON t.seq = p.probe WHERE p.probe > 0 AND t.state IS NOT 2 LIMIT 3",
};

}  // namespace

std::vector<std::string> verify_registry(db::Database& database) {
  std::vector<std::string> defects;
  for (const char* sql : kQueries) {
    db::Statement query(database, sql);
    while (query.step()) defects.push_back(query.text(0) + " " + query.text(1));
  }
  return defects;
}

}  // namespace necrocode::registry
