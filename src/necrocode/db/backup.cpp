#include "necrocode/db/backup.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "necrocode/base/file.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/db/lock.hpp"

namespace necrocode::db {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDefectsTold = 10;
/// What SQLite keeps beside a database.
constexpr const char* kSideFiles[] = {"-wal", "-shm", "-journal"};

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

fs::path with_suffix(const fs::path& path, std::string_view suffix) {
  return path.string() + std::string(suffix);
}

[[noreturn]] void unusable(const fs::path& path, const std::string& why) {
  throw UnusableDatabase(path.string() + " cannot be used: " + why);
}

std::int64_t number_of(Database& database, std::string_view sql) {
  Statement query(database, sql);
  return query.step() ? query.integer(0) : 0;
}

std::vector<std::string> page_defects(Database& database) {
  std::vector<std::string> defects;
  Statement query(database, "PRAGMA integrity_check(" + std::to_string(kDefectsTold) + ")");
  while (query.step()) defects.push_back(query.text(0));
  if (defects == std::vector<std::string>{"ok"}) defects.clear();
  return defects;
}

std::vector<std::string> foreign_key_defects(Database& database) {
  std::vector<std::string> defects;
  Statement query(database, "PRAGMA foreign_key_check");
  while (defects.size() < kDefectsTold && query.step()) {
    defects.push_back("row " + query.text(1) + " of " + query.text(0) +
                      " names one that is not there");
  }
  query.reset();
  return defects;
}

DatabaseFacts verify_open(Database& database, const fs::path& path, const DatabaseKind& kind) {
  DatabaseFacts facts;
  facts.schema_version = static_cast<int>(number_of(database, "PRAGMA user_version"));
  const std::int64_t page_bytes = number_of(database, "PRAGMA page_size");
  facts.bytes = static_cast<std::uint64_t>(number_of(database, "PRAGMA page_count") * page_bytes);
  if (facts.schema_version == 0) unusable(path, "it is no database of this program");
  if (facts.schema_version > kind.schema_max) {
    unusable(path, "it has schema version " + std::to_string(facts.schema_version) +
                       ", this program knows up to " + std::to_string(kind.schema_max) +
                       ": use the newer program");
  }
  std::vector<std::string> defects = page_defects(database);
  if (defects.empty()) defects = foreign_key_defects(database);
  // Only a schema that is ours in full; an older one has other tables.
  if (defects.empty() && kind.check && facts.schema_version == kind.schema_max) {
    defects = kind.check(database);
  }
  if (defects.empty()) return facts;
  defects.resize(std::min(defects.size(), kDefectsTold));
  unusable(path, "it is damaged: " + join(defects, "; "));
}

/// Runs `work`, and says of a failure which file it was about.
template <class Work>
auto about(const fs::path& path, const Work& work) {
  try {
    return work();
  } catch (const DatabaseError& error) {
    const int code = error.info().status & 0xff;
    if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) unusable(path, error.info().detail);
    throw StorageError(path.string() + " cannot be copied", error.info());
  }
}

/// A database on its way to its name; removed with all beside it unless it got there.
class Draft {
 public:
  explicit Draft(const fs::path& target)
      : path_(folder_of(target) / (".necrocode-tmp-" + random_hex(8))) {
    // Private before anything is in it. VACUUM INTO takes an empty file.
    FileDescriptor file(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) throw_errno("cannot create", path_.string());
  }
  ~Draft() {
    if (path_.empty()) return;
    ::unlink(path_.c_str());
    for (const char* suffix : kSideFiles) ::unlink(with_suffix(path_, suffix).c_str());
  }
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  const fs::path& path() const { return path_; }

  /// One read transaction of `source`, however long it takes; without free pages, so that nothing
  /// that was deleted travels with it.
  void fill(Database& source) { Statement(source, "VACUUM INTO ?").bind(path_.string()).run(); }

  void sync() {
    FileDescriptor file(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
    if (!file) throw_errno("cannot open", path_.string());
    if (::fsync(file.get()) != 0) throw_errno("cannot sync", path_.string());
    for (const char* suffix : kSideFiles) {
      struct stat status = {};
      if (::stat(with_suffix(path_, suffix).c_str(), &status) == 0 && status.st_size > 0 &&
          std::string_view(suffix) != "-shm") {
        throw StorageError(path_.string() + " is not whole without " + suffix);
      }
    }
  }

  void take_place_of(const fs::path& target) {
    if (::rename(path_.c_str(), target.c_str()) != 0)
      throw_errno("cannot replace", target.string());
    done();
    fsync_directory(folder_of(target));
  }

  /// The same where nothing may be yet.
  void take_free_place(const fs::path& target) {
    if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) == 0) {
      done();
      return fsync_directory(folder_of(target));
    }
    if (errno == EEXIST) throw ResourceConflictError(target.string() + " is there already");
    // A file system without that flag.
    if (errno != EINVAL) throw_errno("cannot create", target.string());
    take_place_of(target);
  }

 private:
  void done() {
    for (const char* suffix : kSideFiles) ::unlink(with_suffix(path_, suffix).c_str());
    path_.clear();
  }
  fs::path path_;
};

void require_regular_or_absent(const fs::path& path) {
  struct stat status = {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) throw_errno("cannot create", path.string());
  } else if (!S_ISREG(status.st_mode)) {
    throw ResourceConflictError(path.string() + " is no regular file");
  }
}

bool is_same_file(const fs::path& a, const fs::path& b) {
  std::error_code error;  // absent: another file
  return fs::equivalent(a, b, error);
}

/// The database's file, or one that its name stands before: its log, its lock.
bool belongs_to(const fs::path& database, const fs::path& path) {
  if (is_same_file(database, path)) return true;
  std::error_code error;  // absent: another folder
  return path.filename().string().starts_with(database.filename().string() + "-") ||
                 path.filename() == database.filename().string() + ".lock"
             ? fs::equivalent(folder_of(database), folder_of(path), error)
             : false;
}

/// Brings all of an unserved database into its one file. False when it is too damaged for that.
bool fold(const fs::path& path) {
  try {
    // Read first: what is no database stays as it is, for who wants to look into it.
    {
      Database reader(path, Database::Mode::kReadOnly);
      number_of(reader, "SELECT count(*) FROM sqlite_master");
    }
    Database database(path);
    Statement checkpoint(database, "PRAGMA wal_checkpoint(TRUNCATE)");
    const bool busy = checkpoint.step() && checkpoint.integer(0) != 0;
    checkpoint.reset();
    if (busy) {
      throw ResourceConflictError("another process reads " + path.string() + ": try again");
    }
    return true;
  } catch (const DatabaseError& error) {
    if ((error.info().status & 0xff) != SQLITE_BUSY) return false;
    throw ResourceConflictError("another process uses " + path.string() + ": try again");
  }
}

std::string utc_stamp(SystemTime time) {
  std::string stamp = to_rfc3339(time);  // 2026-01-31T12:00:00.123Z
  std::erase_if(stamp, [](char c) { return c == '-' || c == ':'; });
  return stamp;
}

/// Gives the old database a second name. What stands beside it belongs to it, and would be taken
/// for the new one's.
fs::path keep_old(const fs::path& path, SystemTime now) {
  const bool whole = fold(path);
  const fs::path kept = with_suffix(path, ".before-restore-" + utc_stamp(now));
  if (::link(path.c_str(), kept.c_str()) != 0) throw_errno("cannot create", kept.string());
  for (const char* suffix : kSideFiles) {
    const fs::path side = with_suffix(path, suffix);
    const int failed =
        whole ? ::unlink(side.c_str()) : ::rename(side.c_str(), with_suffix(kept, suffix).c_str());
    if (failed != 0 && errno != ENOENT) throw_errno("cannot move away", side.string());
  }
  fsync_directory(folder_of(path));
  return kept;
}

void adjust_copy(const fs::path& copy, const fs::path& old, const RestoreOptions& options) {
  if (!options.adjust) return;
  std::optional<Database> before;
  try {
    if (fs::exists(old)) before.emplace(old, Database::Mode::kReadOnly);
  } catch (const DatabaseError&) {
    before.reset();  // what cannot be read is the usual reason for a restore
  }
  about(copy, [&] {
    Database database(copy);
    Transaction transaction(database);
    options.adjust(database, before ? &*before : nullptr);
    transaction.commit();
  });
}

}  // namespace

DatabaseFacts verify_database(const fs::path& path, const DatabaseKind& kind) {
  return about(path, [&] {
    Database database(path, Database::Mode::kReadOnly);
    return verify_open(database, path, kind);
  });
}

DatabaseFacts backup_database(const fs::path& from, const fs::path& to, const DatabaseKind& kind,
                              bool overwrite) {
  require_regular_or_absent(to);
  if (belongs_to(from, to)) {
    throw ResourceConflictError(to.string() + " is the database itself, or belongs to it");
  }
  if (!overwrite && fs::exists(to)) throw ResourceConflictError(to.string() + " is there already");
  Draft draft(to);
  about(from, [&] {
    Database source(from, Database::Mode::kReadOnly);
    draft.fill(source);
  });
  const DatabaseFacts facts = verify_database(draft.path(), kind);
  draft.sync();
  if (overwrite) {
    draft.take_place_of(to);
  } else {
    draft.take_free_place(to);
  }
  return facts;
}

RestoredDatabase restore_database(const fs::path& from, const fs::path& to,
                                  const RestoreOptions& options) {
  const FileDescriptor lock = lock_database(to, options.kind.name);
  if (is_same_file(from, to)) {
    throw ResourceConflictError(from.string() + " is the database itself");
  }
  RestoredDatabase restored;
  restored.facts = verify_database(from, options.kind);
  Draft draft(to);
  about(from, [&] {
    Database source(from, Database::Mode::kReadOnly);
    draft.fill(source);
  });
  verify_database(draft.path(), options.kind);
  adjust_copy(draft.path(), to, options);
  draft.sync();
  // Absent, its side files may still be there, and would be taken for the new one's.
  if (fs::exists(to)) {
    restored.kept = keep_old(to, options.clock.system_now());
  } else {
    for (const char* suffix : kSideFiles) ::unlink(with_suffix(to, suffix).c_str());
  }
  draft.take_place_of(to);
  return restored;
}

void migrate_with_backup(Database& database, const fs::path& path,
                         const std::vector<std::string_view>& migrations) {
  database.migrate(migrations, [&](int version) {
    backup_database(path, with_suffix(path, ".v" + std::to_string(version) + "-backup"),
                    {.schema_max = version}, true);
  });
}

}  // namespace necrocode::db
