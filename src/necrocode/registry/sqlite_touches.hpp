// Which running tasks a task has to keep away from. Private to the SQLite store; what overlaps is
// touches.hpp's.
#pragma once

#include <optional>
#include <string>

#include "necrocode/registry/sqlite_rows.hpp"

namespace necrocode::registry {

/// Text of a task's touches as the rows hold them; "" without.
std::string touches_text(const TaskSpec& task);

/// The running task, if any, that touches the row's files in the same repository; of several the
/// oldest.
std::optional<std::int64_t> running_that_touches(db::Database& database, const TaskRow& row);

}  // namespace necrocode::registry
