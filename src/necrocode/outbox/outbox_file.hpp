// OutboxFile: the kept calls of one process, in one locked SQLite file; and the taking over of
// files whose process is gone. Nothing is sent here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/db/sqlite.hpp"

namespace necrocode::outbox {

/// One kept call.
struct KeptCall {
  std::int64_t id = 0;  ///< grows in the order of keeping; 0 before
  std::string service;
  std::string base_url;
  std::string operation;
  std::string target;
  std::string method;
  std::string path;
  std::string body;  ///< JSON text, or ""
  std::string idempotency_key;
  SystemTime kept_at;
  std::size_t bytes() const { return path.size() + body.size() + target.size(); }
};

/// One owner at a time. Every operation throws StorageError; changes are on disk when they return.
class OutboxFile {
 public:
  /// A file of its own in `folder`, made with the first call that is kept.
  explicit OutboxFile(std::filesystem::path folder);
  /// Removes the file when nothing is kept in it.
  ~OutboxFile();
  OutboxFile(const OutboxFile&) = delete;
  OutboxFile& operator=(const OutboxFile&) = delete;

  /// Its id. A call whose key is kept already is not kept twice.
  std::int64_t add(const KeptCall& call);
  void remove(std::int64_t id);
  std::optional<KeptCall> load(std::int64_t id);
  /// Moves the calls of every file here whose process is gone. What cannot be read is left where it
  /// is, and told in the log.
  std::vector<KeptCall> adopt();

 private:
  struct Opened {
    FileDescriptor lock;
    std::filesystem::path path;
    std::unique_ptr<db::Database> database;
  };
  static std::optional<Opened> open(const std::filesystem::path& path, bool make);
  static std::vector<KeptCall> calls_in(db::Database& database);
  static void remove_files(Opened opened);
  db::Database& own();
  void adopt_file(const std::filesystem::path& path, std::vector<KeptCall>& adopted);

  std::filesystem::path folder_;
  std::optional<Opened> own_;
};

}  // namespace necrocode::outbox
