#include "necrocode/registry/backup.hpp"

#include <algorithm>

#include "necrocode/db/backup.hpp"
#include "necrocode/registry/sqlite_rows.hpp"
#include "necrocode/registry/sqlite_verify.hpp"

namespace necrocode::registry {
namespace {

namespace fs = std::filesystem;

/// More events than come between a backup and its restore: 300 a second for a month.
constexpr std::int64_t kUnknownEvents = 1'000'000'000;

db::DatabaseKind kind() {
  return {.name = "its task registry",
          .schema_max = static_cast<int>(sqlite_migrations().size()),
          .check = verify_registry};
}

std::int64_t number_of(db::Database& database, const char* sql) {
  db::Statement query(database, sql);
  return query.step() ? query.integer(0) : 0;
}

std::int64_t last_event(db::Database& database) {
  return number_of(database, "SELECT seq FROM sqlite_sequence WHERE name = 'events'");
}

BackupSummary summary_of(db::Database& database, const db::DatabaseFacts& facts) {
  return {facts.schema_version, facts.bytes, number_of(database, "SELECT count(*) FROM tasks"),
          number_of(database, "SELECT count(*) FROM events")};
}

void raise_event_ids(db::Database& restored, db::Database* old) {
  const std::int64_t own = last_event(restored);
  std::int64_t last = own + kUnknownEvents;
  try {
    if (old) last = std::max(own, last_event(*old));
  } catch (const db::DatabaseError&) {
    // Damaged, which is the usual reason for a restore.
    last = own + kUnknownEvents;
  }
  restored.prepare("DELETE FROM sqlite_sequence WHERE name = 'events'").run();
  restored.prepare("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)").bind(last).run();
}

}  // namespace

BackupSummary backup_registry(const fs::path& database, const fs::path& to, bool overwrite) {
  const db::DatabaseFacts facts = db::backup_database(database, to, kind(), overwrite);
  db::Database copy(to, db::Database::Mode::kReadOnly);
  return summary_of(copy, facts);
}

RestoreSummary restore_registry(const fs::path& from, const fs::path& database,
                                const Clock& clock) {
  RestoreSummary summary;
  const auto adjust = [&](db::Database& restored, db::Database* old) {
    raise_event_ids(restored, old);
    summary.backup = summary_of(restored, {});
  };
  const db::RestoredDatabase restored =
      db::restore_database(from, database, {kind(), adjust, clock});
  summary.backup.schema_version = restored.facts.schema_version;
  summary.backup.bytes = restored.facts.bytes;
  summary.kept = restored.kept;
  return summary;
}

}  // namespace necrocode::registry
