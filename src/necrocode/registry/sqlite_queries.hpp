// The registry's reading: pages, tasksets, graphs, each within one snapshot. Private to the SQLite
// store; changes nothing.
#pragma once

#include "necrocode/registry/sqlite_rows.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

TaskPage query_tasks(db::Database& database, const TaskQuery& query);
Taskset query_taskset(db::Database& database, const std::string& spec, TasksetPart part);
std::map<TaskState, std::int64_t> query_counts(db::Database& database);
TasksetPage query_tasksets(db::Database& database, const std::string& cursor, int limit);
EventPage query_events(db::Database& database, const EventQuery& query);
std::int64_t query_newest_event(db::Database& database);
std::vector<AttemptRecord> query_attempts(db::Database& database, const std::string& task_id);
Explanation query_explanation(db::Database& database, const StoreOptions& options,
                              const std::string& task_id);
/// By name.
std::vector<ParkedProvider> query_parked_providers(db::Database& database);
/// Counts no further than `at_most`.
std::int64_t running_with_skill(db::Database& database, const std::string& skill, int at_most);
TaskGraph query_graph(db::Database& database, const std::string& spec);

}  // namespace necrocode::registry
