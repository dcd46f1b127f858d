// SharedState: the small database by which the proxies of a host know of each other: what is spent
// (SqliteSpendLedger), and when services want to be left alone (SharedPace). A process that is
// killed loses nothing of it; a loss of power may take the last moments.
#pragma once

#include <filesystem>
#include <mutex>

#include "necrocode/base/file.hpp"
#include "necrocode/db/sqlite.hpp"

namespace necrocode::llm {

class SharedState {
  FileDescriptor opening_;  // first: locked while the database is made

 public:
  /// Made when there is none; empty: in memory. Throws StorageError.
  explicit SharedState(const std::filesystem::path& file);

  std::mutex mutex;
  db::Database database;  ///< guarded by mutex
};

}  // namespace necrocode::llm
