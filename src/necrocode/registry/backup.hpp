// Backup of a task registry on SQLite, also of one that is served, and the way back.
#pragma once

#include <cstdint>
#include <filesystem>

#include "necrocode/base/clock.hpp"

namespace necrocode::registry {

/// What a backup holds.
struct BackupSummary {
  int schema_version = 0;
  std::uint64_t bytes = 0;
  std::int64_t tasks = 0;
  std::int64_t events = 0;
};

/// Copies the registry at one moment to one file, verified (db/backup.hpp; counters and open
/// dependencies, too). Throws as db::backup_database().
BackupSummary backup_registry(const std::filesystem::path& database,
                              const std::filesystem::path& to, bool overwrite = false);

struct RestoreSummary {
  BackupSummary backup;
  std::filesystem::path kept;  ///< the registry that was there; empty when there was none
};

/// Puts a verified backup in the place of `database`. Ids of events go on above all that were ever
/// handed out, so that a reader that resumes after one misses nothing that is new. Throws as
/// db::restore_database(); then nothing was changed.
RestoreSummary restore_registry(const std::filesystem::path& from,
                                const std::filesystem::path& database,
                                const Clock& clock = real_clock());

}  // namespace necrocode::registry
