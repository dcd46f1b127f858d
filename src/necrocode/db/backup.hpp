// Copies of a database in one file, made while others write it, and the way back. No SQL of any
// domain: what only a domain can check or adjust comes as a function.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/db/sqlite.hpp"

namespace necrocode::db {

/// What is in a file cannot be used: it is no database, truncated, damaged, or of a newer schema.
class UnusableDatabase : public StorageError {
 public:
  using StorageError::StorageError;
};

/// What a domain finds wrong in its tables, each in a few words; empty when all is well.
using DomainCheck = std::function<std::vector<std::string>(Database&)>;

/// What a program knows of its databases.
struct DatabaseKind {
  std::string name{};  ///< what a process that serves it has open: "its task registry"
  int schema_max = 0;  ///< the newest schema version that it understands
  DomainCheck check{};
};

/// One database file as it was found.
struct DatabaseFacts {
  int schema_version = 0;
  std::uint64_t bytes = 0;
};

/// Reads the whole file: its pages and indexes, foreign keys, schema version, then the domain's
/// check. Throws UnusableDatabase saying what is wrong, StorageError when it cannot be read.
DatabaseFacts verify_database(const std::filesystem::path& path, const DatabaseKind& kind);

/// A consistent copy of `from` as it is at one moment, in one file of mode 0600 that needs no
/// other; verified and synced before it takes its name. Nobody who writes `from` meanwhile is held
/// up. Throws UnusableDatabase, StorageError (is_disk_full() when there is no space), and
/// ResourceConflictError when `to` is there and must not be overwritten, or is `from` itself.
DatabaseFacts backup_database(const std::filesystem::path& from, const std::filesystem::path& to,
                              const DatabaseKind& kind, bool overwrite = false);

struct RestoreOptions {
  DatabaseKind kind;
  /// Adjusts the copy before it takes its place; `old` is null when there is none that can be
  /// read. Runs in a transaction.
  std::function<void(Database& restored, Database* old)> adjust{};
  const Clock& clock = real_clock();
};

struct RestoredDatabase {
  DatabaseFacts facts;
  std::filesystem::path kept;  ///< the database that was there before; empty when there was none
};

/// Puts a copy of the backup `from`, verified, in the place of `to`, whose folder exists. The old
/// database stays beside it as `<to>.before-restore-<UTC time>`. A crash leaves the old one or the
/// new one in place, both whole. Throws ResourceConflictError while another process serves or
/// reads `to`, else as verify_database(); then nothing was changed.
RestoredDatabase restore_database(const std::filesystem::path& from,
                                  const std::filesystem::path& to, const RestoreOptions& options);

/// Database::migrate(), with a verified copy of a database of an older schema beside it first, as
/// `<path>.v<N>-backup`. Without that copy nothing is migrated.
void migrate_with_backup(Database& database, const std::filesystem::path& path,
                         const std::vector<std::string_view>& migrations);

}  // namespace necrocode::db
