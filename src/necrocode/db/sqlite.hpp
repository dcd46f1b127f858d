// SQLite with RAII and errors as exceptions. No SQL of any domain here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/errors.hpp"

namespace necrocode::db {

/// An SQLite error; info().status is its extended result code.
class DatabaseError : public StorageError {
 public:
  using StorageError::StorageError;
  bool is_constraint() const;  ///< a UNIQUE, CHECK or FOREIGN KEY rule
  bool is_full() const;        ///< no space
  bool is_too_big() const;     ///< a value longer than SQLite takes
};

class Database;

/// A prepared statement. Bind by position from 1; not thread-safe. Resets itself on destruction of
/// the Rows that run() gave.
class Statement {
 public:
  Statement(Database& database, std::string_view sql);
  Statement(Statement&&) noexcept;
  ~Statement();

  Statement& bind(std::string_view text);
  Statement& bind(std::int64_t number);
  Statement& bind(double number);
  Statement& bind(std::nullopt_t);
  template <class T>
  Statement& bind(const std::optional<T>& value) {
    if (value) return bind(*value);
    return bind(std::nullopt);
  }
  Statement& bind(const char* text) { return bind(std::string_view(text)); }
  Statement& bind(const std::string& text) { return bind(std::string_view(text)); }
  Statement& bind(int number) { return bind(static_cast<std::int64_t>(number)); }
  Statement& bind(bool flag) { return bind(static_cast<std::int64_t>(flag)); }
  Statement& bind_blob(std::string_view bytes);

  /// The next row; false at the end, and then the statement is ready to be bound anew.
  bool step();
  /// Runs to the end, ignoring rows; ready to be bound anew.
  void run();
  void reset();

  // Columns from 0, of the row that step() found.
  std::int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;  ///< empty for NULL
  bool is_null(int column) const;
  std::optional<std::string> optional_text(int column) const;
  std::optional<std::int64_t> optional_integer(int column) const;

 private:
  friend class Database;
  struct State;
  std::unique_ptr<State> state_;
};

/// One connection: WAL, synchronous=FULL, foreign keys on, no extension loading, untrusted schema.
/// Not thread-safe: one owner at a time.
class Database {
 public:
  enum class Mode { kReadWrite, kReadOnly };
  /// Creates the file (mode 0600) when absent and writable; ":memory:" is none, and goes with this
  /// object. Throws DatabaseError.
  explicit Database(const std::filesystem::path& path, Mode mode = Mode::kReadWrite);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  /// One or more statements without parameters.
  void execute(std::string_view sql);
  /// A cached statement, reset and unbound; valid until the next prepare of the same text.
  Statement& prepare(std::string_view sql);
  /// From now on the caller writes the log back to the database file, by checkpoint(): SQLite's own
  /// checkpoints do not tell when they fail.
  void take_over_checkpoints();
  /// Pages in the log that checkpoint() would write; 0 without take_over_checkpoints().
  int wal_pages() const;
  /// Writes them, as far as no reader needs the old ones, and syncs. Throws.
  void checkpoint();
  std::int64_t last_insert_id() const;
  std::int64_t changes() const;
  /// Rows changed by this connection since it was opened, undone ones too.
  std::int64_t total_changes() const;

  /// Brings the schema to migrations.size() (PRAGMA user_version), each step in a transaction of
  /// its own. A newer schema than known throws DatabaseError naming both versions; nothing is
  /// changed. `before_first` is called with the version of a database that has one and is to get a
  /// newer one; what it throws leaves all as it was.
  void migrate(const std::vector<std::string_view>& migrations,
               const std::function<void(int version)>& before_first = {});

 private:
  friend class Statement;
  struct State;
  std::unique_ptr<State> state_;
};

/// BEGIN IMMEDIATE; rolled back on destruction unless committed. commit() returns after the sync.
class Transaction {
 public:
  explicit Transaction(Database& database);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Database& database_;
  bool open_ = true;
};

}  // namespace necrocode::db
