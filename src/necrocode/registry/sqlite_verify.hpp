// What must hold between the registry's tables, beside what SQLite itself checks.
#pragma once

#include <string>
#include <vector>

#include "necrocode/db/sqlite.hpp"

namespace necrocode::registry {

/// What does not, a few of each kind; empty when all is well. Reads every task once. For the newest
/// schema only.
std::vector<std::string> verify_registry(db::Database& database);

}  // namespace necrocode::registry
