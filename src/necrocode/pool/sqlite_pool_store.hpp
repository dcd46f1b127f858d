// PoolStore on SQLite: one file, `pool.db` in the pool manager's data directory.
#pragma once

#include <filesystem>
#include <memory>

#include "necrocode/pool/pool_store.hpp"

namespace necrocode::pool {

/// Throws db::DatabaseError when the file cannot be opened or is of a newer version.
std::unique_ptr<PoolStore> make_sqlite_pool_store(const std::filesystem::path& file);

}  // namespace necrocode::pool
