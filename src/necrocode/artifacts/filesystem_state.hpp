// What the parts of FilesystemArtifactStore share. Nothing else includes it.
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "necrocode/artifacts/filesystem_store.hpp"
#include "necrocode/db/sqlite.hpp"

namespace necrocode::artifacts {

/// A log that is not sealed.
struct OpenLog {
  const std::string id;
  const std::chrono::milliseconds lease;
  std::atomic<std::uint64_t> size;  ///< changed under the mutex, read without it

  std::mutex mutex{};     ///< of the file, and of what follows
  SteadyTime due{};       ///< then it is sealed
  bool unsynced = false;  ///< it was appended to since its last sync
  bool closed = false;    ///< the index has it as sealed; its file may have to be placed yet
};

/// The open logs, by id. Thread-safe.
class OpenLogs {
 public:
  std::shared_ptr<OpenLog> find(const std::string& id) const {
    const std::lock_guard guard(mutex_);
    const auto found = logs_.find(id);
    return found == logs_.end() ? nullptr : found->second;
  }
  void add(std::shared_ptr<OpenLog> log) {
    const std::lock_guard guard(mutex_);
    logs_.emplace(log->id, std::move(log));
  }
  bool erase(const std::string& id) {
    const std::lock_guard guard(mutex_);
    return logs_.erase(id) > 0;
  }
  std::vector<std::shared_ptr<OpenLog>> all() const {
    const std::lock_guard guard(mutex_);
    std::vector<std::shared_ptr<OpenLog>> all;
    for (const auto& [id, log] : logs_) all.push_back(log);
    return all;
  }
  std::size_t count() const {
    const std::lock_guard guard(mutex_);
    return logs_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<OpenLog>> logs_;
};

// Writes go through `index` under `mutex`, which also orders every appearance and disappearance of
// an object file against the rows that refer to it. Reads have a connection of their own: a
// download does not wait for somebody's sync. Locks are taken in this order: of an open log,
// `mutex`, `reader_mutex`, of OpenLogs.
struct FilesystemArtifactStore::State {
  State(const std::filesystem::path& root, const Clock& a_clock);

  std::filesystem::path temporary() const { return directory / "tmp"; }
  std::filesystem::path objects() const { return directory / "objects"; }
  std::filesystem::path object(const std::string& sha256) const {
    return objects() / sha256.substr(0, 2) / sha256;
  }
  std::filesystem::path logs_folder() const { return directory / "logs"; }
  std::filesystem::path log_file(const std::string& id) const { return logs_folder() / id; }

  const Clock& clock;
  const std::filesystem::path directory;
  const FileDescriptor lock;
  std::mutex mutex;
  db::Database index;
  std::mutex reader_mutex;
  std::unique_ptr<db::Database> reader;
  OpenLogs logs;
  std::function<void(const ArtifactId&)> log_changed;

  struct Replaced {
    std::string id;
    std::string sha256;  ///< empty: it is an open log
  };

  bool is_referenced(const std::string& sha256);
  void sweep();
  /// Of the key, as far as the draft knows it: without size and digest.
  std::optional<Artifact> first_answer(const ArtifactDraft& draft, const std::string& fingerprint);
  std::optional<Replaced> replaced_by(const ArtifactDraft& draft);
  Artifact named(const ArtifactDraft& draft) const;
  /// Replaces and remembers the key, durably; `lease` makes it an open log.
  void insert(const Artifact& artifact, const ArtifactDraft& draft, const std::string& fingerprint,
              std::optional<std::int64_t> lease_ms = std::nullopt);
  void insert_tags(std::int64_t seq, const std::vector<std::string>& tags);
  void remember_key(const ArtifactDraft& draft, const std::string& fingerprint,
                    const Artifact& artifact);
  void place_object(const std::filesystem::path& from, const std::string& sha256);

  // In filesystem_logs.cpp.
  void load_logs();
  void add_log(const std::string& id, std::chrono::milliseconds lease, std::uint64_t size);
  /// Nothing when it is an open log no more.
  std::optional<std::uint64_t> append(OpenLog& log, std::uint64_t offset, std::string_view bytes);
  void sync(OpenLog& log);  ///< under its mutex
  void seal(OpenLog& log);  ///< under its mutex
  /// The index has it no more; nothing happens to what is no open log.
  void drop_log(const std::string& id);
  void tell(const std::string& id) const {
    if (log_changed) log_changed(ArtifactId{id});
  }
};

// Objects whose last reference is just coming or going. A marker file for each stands from before
// the index changes until the object's fate is done, so that a crash between the two leaves no
// orphan.
class FilesystemArtifactStore::UndecidedObjects {
 public:
  explicit UndecidedObjects(State& state) : state_(state) {}
  UndecidedObjects(const UndecidedObjects&) = delete;
  UndecidedObjects& operator=(const UndecidedObjects&) = delete;
  /// Whatever became of the transaction, the index now tells which objects are needed.
  ~UndecidedObjects();

  void add(const std::string& sha256);

 private:
  State& state_;
  std::vector<std::pair<std::string, std::filesystem::path>> markers_;
};

/// By what an upload, or a log, is the same as the one that came with its key before.
std::string fingerprint_of(const ArtifactDraft& draft, const std::string& content);
void make_directory(const std::filesystem::path& path);

}  // namespace necrocode::artifacts
