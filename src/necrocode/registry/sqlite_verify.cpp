#include "necrocode/registry/sqlite_verify.hpp"

namespace necrocode::registry {
namespace {

/// Each query answers with rows that should not be: what they are, and of which task or taskset.
constexpr const char* kQueries[] = {
    "SELECT 'the count of tasks is wrong in state ' || state || ' of', s.name FROM "
    "(SELECT spec_id, state, tasks FROM task_counts UNION ALL "
    " SELECT spec_id, state, -count(*) FROM tasks GROUP BY spec_id, state) "
    "LEFT JOIN tasksets s USING (spec_id) "
    "GROUP BY spec_id, state HAVING sum(tasks) <> 0 LIMIT 3",
    "SELECT 'the count of open dependencies is wrong of', t.id FROM tasks t LEFT JOIN "
    "(SELECT d.child, count(*) AS open FROM dependencies d JOIN tasks p ON p.seq = d.parent "
    " WHERE p.state <> 3 GROUP BY d.child) o ON o.child = t.seq "
    "WHERE t.open_dependencies <> coalesce(o.open, 0) LIMIT 3",
    "SELECT 'there are no fields of', t.id FROM tasks t "
    "WHERE NOT EXISTS (SELECT 1 FROM task_fields f WHERE f.seq = t.seq) LIMIT 3",
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
