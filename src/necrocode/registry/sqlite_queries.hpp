// The registry's reading: pages, tasksets, graphs, each within one snapshot. Private to the SQLite
// store; changes nothing.
#pragma once

#include "necrocode/registry/sqlite_rows.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

TaskPage query_tasks(db::Database& database, const TaskQuery& query);
Taskset query_taskset(db::Database& database, const std::string& spec);
std::map<TaskState, std::int64_t> query_counts(db::Database& database);
TasksetPage query_tasksets(db::Database& database, const std::string& cursor, int limit);
EventPage query_events(db::Database& database, const EventQuery& query);
std::int64_t query_newest_event(db::Database& database);
TaskGraph query_graph(db::Database& database, const std::string& spec);

}  // namespace necrocode::registry
