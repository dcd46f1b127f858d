#include "necrocode/db/sqlite.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <map>
#include <system_error>

#include "necrocode/base/check.hpp"
#include "necrocode/base/file.hpp"

namespace necrocode::db {
namespace {

[[noreturn]] void fail(sqlite3* handle, int code, std::string_view what) {
  ErrorInfo info;
  info.status = handle ? sqlite3_extended_errcode(handle) : code;
  info.detail = handle ? sqlite3_errmsg(handle) : sqlite3_errstr(code);
  if ((info.status & 0xff) == SQLITE_FULL) {
    // As from a system call, so that is_disk_full() knows it and a service answers 507.
    const std::error_code full = std::make_error_code(std::errc::no_space_on_device);
    info.cause = std::make_exception_ptr(std::system_error(full));
  }
  throw DatabaseError("SQLite: " + std::string(what), std::move(info));
}

}  // namespace

bool DatabaseError::is_constraint() const {
  return (info().status & 0xff) == SQLITE_CONSTRAINT;
}
bool DatabaseError::is_too_big() const {
  return (info().status & 0xff) == SQLITE_TOOBIG;
}
bool DatabaseError::is_full() const {
  return (info().status & 0xff) == SQLITE_FULL;
}

struct Statement::State {
  sqlite3* handle = nullptr;
  sqlite3_stmt* statement = nullptr;
  int next_parameter = 1;
  bool used = false;  ///< since the last reset

  int parameter() {
    used = true;
    return next_parameter++;
  }
  void check(int code, std::string_view what) {
    if (code != SQLITE_OK) fail(handle, code, what);
  }
};

struct Database::State {
  sqlite3* handle = nullptr;
  std::string path;
  std::map<std::string, Statement, std::less<>> statements;
  int wal_pages = 0;
  ~State() {
    statements.clear();
    sqlite3_close_v2(handle);
  }
};

Statement::Statement(Database& database, std::string_view sql) : state_(std::make_unique<State>()) {
  state_->handle = database.state_->handle;
  const int code = sqlite3_prepare_v3(state_->handle, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &state_->statement, nullptr);
  if (code != SQLITE_OK) fail(state_->handle, code, "cannot prepare " + std::string(sql));
}
Statement::Statement(Statement&&) noexcept = default;
Statement::~Statement() {
  if (state_) sqlite3_finalize(state_->statement);
}

Statement& Statement::bind(std::string_view text) {
  // A null pointer would bind NULL.
  state_->check(
      sqlite3_bind_text64(state_->statement, state_->parameter(), text.data() ? text.data() : "",
                          text.size(), SQLITE_TRANSIENT, SQLITE_UTF8),
      "bind");
  return *this;
}
Statement& Statement::bind(std::int64_t number) {
  state_->check(sqlite3_bind_int64(state_->statement, state_->parameter(), number), "bind");
  return *this;
}
Statement& Statement::bind(double number) {
  state_->check(sqlite3_bind_double(state_->statement, state_->parameter(), number), "bind");
  return *this;
}
Statement& Statement::bind(std::nullopt_t) {
  state_->check(sqlite3_bind_null(state_->statement, state_->parameter()), "bind");
  return *this;
}
Statement& Statement::bind_blob(std::string_view bytes) {
  state_->check(
      sqlite3_bind_blob64(state_->statement, state_->parameter(), bytes.data() ? bytes.data() : "",
                          bytes.size(), SQLITE_TRANSIENT),
      "bind");
  return *this;
}

bool Statement::step() {
  state_->used = true;
  const int code = sqlite3_step(state_->statement);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) {
    const std::string sql = sqlite3_sql(state_->statement);
    try {
      fail(state_->handle, code, "cannot run " + sql);
    } catch (...) {
      reset();
      throw;
    }
  }
  reset();
  return false;
}

void Statement::run() {
  while (step()) {
  }
}

void Statement::reset() {
  if (!state_->used) return;
  state_->used = false;
  sqlite3_reset(state_->statement);
  sqlite3_clear_bindings(state_->statement);
  state_->next_parameter = 1;
}

std::int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(state_->statement, column);
}
double Statement::real(int column) const {
  return sqlite3_column_double(state_->statement, column);
}
std::string Statement::text(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(state_->statement, column));
  const int size = sqlite3_column_bytes(state_->statement, column);
  return bytes ? std::string(bytes, static_cast<std::size_t>(size)) : std::string();
}
bool Statement::is_null(int column) const {
  return sqlite3_column_type(state_->statement, column) == SQLITE_NULL;
}
std::optional<std::string> Statement::optional_text(int column) const {
  return is_null(column) ? std::nullopt : std::optional(text(column));
}
std::optional<std::int64_t> Statement::optional_integer(int column) const {
  return is_null(column) ? std::nullopt : std::optional(integer(column));
}

namespace {

/// Before the first connection: no statistics of memory, which every allocation would lock for.
void configure_once() {
  static const int kDone = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
  // Misuse: the process uses SQLite already, and will do without.
  NECROCODE_CHECK(kDone == SQLITE_OK || kDone == SQLITE_MISUSE);
}

}  // namespace

Database::Database(const std::filesystem::path& path, Mode mode)
    : state_(std::make_unique<State>()) {
  configure_once();
  state_->path = path.string();
  if (mode == Mode::kReadWrite && path != ":memory:") {
    // Created by ourselves so that it is never readable by others, whatever the umask.
    FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) throw_errno("cannot open", state_->path);
  }
  const int flags = mode == Mode::kReadWrite ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY;
  const int code =
      sqlite3_open_v2(path.c_str(), &state_->handle, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  if (code != SQLITE_OK) {
    fail(state_->handle, code, "cannot open " + state_->path);
  }
  // Plans do not hang on what is bound: else each value of a partial index's column plans anew.
  sqlite3_db_config(state_->handle, SQLITE_DBCONFIG_ENABLE_QPSG, 1, nullptr);
  sqlite3_extended_result_codes(state_->handle, 1);
  sqlite3_busy_timeout(state_->handle, 5000);
  sqlite3_db_config(state_->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(state_->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  if (mode == Mode::kReadWrite) execute("PRAGMA journal_mode=WAL");
  // FULL: an acknowledged commit survives power loss; NORMAL loses it (measured, see docs/adr).
  execute("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY");
}

Database::~Database() = default;

void Database::execute(std::string_view sql) {
  const int code =
      sqlite3_exec(state_->handle, std::string(sql).c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK)
    fail(state_->handle, code, "cannot run " + std::string(sql.substr(0, 200)));
}

Statement& Database::prepare(std::string_view sql) {
  auto found = state_->statements.find(sql);
  if (found == state_->statements.end()) {
    found = state_->statements.emplace(std::string(sql), Statement(*this, sql)).first;
  }
  found->second.reset();
  return found->second;
}

void Database::take_over_checkpoints() {
  // In place of the hook that checkpoints.
  const auto count = [](void* state, sqlite3*, const char*, int pages) {
    static_cast<State*>(state)->wal_pages = pages;
    return SQLITE_OK;
  };
  sqlite3_wal_hook(state_->handle, count, state_.get());
}

int Database::wal_pages() const {
  return state_->wal_pages;
}

void Database::checkpoint() {
  int left = 0;
  int written = 0;
  const int code = sqlite3_wal_checkpoint_v2(state_->handle, nullptr, SQLITE_CHECKPOINT_PASSIVE,
                                             &left, &written);
  if (code == SQLITE_BUSY) return;  // another connection is at it
  if (code != SQLITE_OK) fail(state_->handle, code, "cannot write the log to the database");
  state_->wal_pages = 0;
}

std::int64_t Database::last_insert_id() const {
  return sqlite3_last_insert_rowid(state_->handle);
}
std::int64_t Database::changes() const {
  return sqlite3_changes64(state_->handle);
}
std::int64_t Database::total_changes() const {
  return sqlite3_total_changes64(state_->handle);
}

void Database::migrate(const std::vector<std::string_view>& migrations,
                       const std::function<void(int version)>& before_first) {
  Statement& query = prepare("PRAGMA user_version");
  NECROCODE_CHECK(query.step());
  const auto version = static_cast<std::size_t>(query.integer(0));
  query.reset();
  if (version > migrations.size()) {
    throw DatabaseError(state_->path + " has schema version " + std::to_string(version) +
                        ", this program knows up to " + std::to_string(migrations.size()) +
                        ": use the newer program");
  }
  if (before_first && version > 0 && version < migrations.size()) {
    before_first(static_cast<int>(version));
  }
  for (std::size_t step = version; step < migrations.size(); ++step) {
    Transaction transaction(*this);
    execute(migrations[step]);
    execute("PRAGMA user_version=" + std::to_string(step + 1));
    transaction.commit();
  }
}

Transaction::Transaction(Database& database) : database_(database) {
  database_.prepare("BEGIN IMMEDIATE").run();
}

Transaction::~Transaction() {
  if (!open_) return;
  try {
    database_.execute("ROLLBACK");
  } catch (const DatabaseError&) {
    // SQLite rolled back by itself after a full disk or an I/O error; there is nothing left to
    // undo.
  }
}

void Transaction::commit() {
  database_.prepare("COMMIT").run();
  open_ = false;
}

}  // namespace necrocode::db
