// The registry's tables and how a row becomes a Task. Private to the SQLite store; no transitions
// here.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/db/sqlite.hpp"
#include "necrocode/registry/model.hpp"

namespace necrocode::registry {

const std::vector<std::string_view>& sqlite_migrations();

/// TaskRow::hold of a task whose not_before has not passed.
inline constexpr std::int64_t kWaiting = -1;
/// Money stands in whole millionths of a dollar.
inline constexpr double kMicros = 1e6;

/// A task as the tables hold it. The tasks table has what changes; the submitted fields stand
/// apart, so that a transition does not rewrite them.
struct TaskRow {
  std::int64_t seq = 0;
  std::int64_t spec_id = 0;
  std::string id;
  TaskState state = TaskState::kBlocked;
  std::string metadata;
  std::string failure;  ///< JSON text, or ""
  int open_dependencies = 0;
  int attempt = 0;               ///< claims so far, as people count them
  std::int64_t retry_epoch = 0;  ///< attempts up to this epoch no longer count
  std::int64_t epoch = 0;        ///< the fence: counts every claim, never reset
  std::string lease_token;
  std::int64_t lease_ms = 0;
  std::string runner_id;
  bool cancel_requested = false;
  std::int64_t version = 0;
  std::int64_t created_ms = 0;
  std::int64_t updated_ms = 0;
  std::string fields;
  std::string provider;
  std::string touches;    ///< JSON: the repo_url, then the globs; "" without
  std::int64_t hold = 0;  ///< of a ready task: kWaiting, or the task that touches its files
  std::int64_t not_before_ms = 0;
  std::int64_t priority = 0;
  std::string skill;

  std::string_view spec_name() const { return std::string_view(id).substr(0, id.find(':')); }
  std::string_view number() const { return std::string_view(id).substr(id.find(':') + 1); }
};

/// The full id of a task that exists. Throws TaskContextValidationError (not an id), NotFound, or
/// Conflict naming the candidates.
std::string resolve_task_id(db::Database& database, std::string_view text);
/// The task of any id that resolve_task_id() takes.
TaskRow load_row(db::Database& database, std::string_view text);
TaskRow load_row(db::Database& database, std::int64_t seq);
/// With its artifacts and, when blocked, the reason.
Task to_task(db::Database& database, const TaskRow& row);
/// A task's artifact references, all together.
struct ArtifactTotals {
  std::size_t count = 0;
  std::size_t bytes = 0;  ///< of their texts
};
ArtifactTotals artifact_totals(db::Database& database, std::int64_t seq);
/// What a task takes in an answer, of the texts that callers can make large.
std::size_t stored_bytes(db::Database& database, const TaskRow& row);
/// The `commit` of each done parent's metadata, in the parents' order of creation; none where the
/// taskset waits until parents are merged.
std::vector<std::string> base_commits(db::Database& database, std::int64_t seq);

/// All attempts, or those that have ended, the last limits::kAttemptsTold of them; oldest first.
enum class AttemptsWanted { kAll, kToldToTheNext };
std::vector<AttemptRecord> load_attempts(db::Database& database, std::int64_t seq,
                                         AttemptsWanted wanted);

[[noreturn]] void throw_no_task(std::string_view id);
[[noreturn]] void throw_no_taskset(std::string_view spec);

/// Sorts as people count: "1.2" before "1.10".
std::string natural_key(std::string_view text);

/// Reads the column list kTaskColumns from `first` on.
TaskRow read_row(const db::Statement& statement);
extern const char* const kTaskColumns;  ///< of `tasks t JOIN task_fields f USING (seq)`

}  // namespace necrocode::registry
