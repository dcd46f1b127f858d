// ArtifactStore: bytes kept once by their SHA-256, found through an index of artifacts.
// A log is an artifact that grows until it is sealed. No HTTP here, and no URL: the service makes
// those. Names, types and ids are data, never paths.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/json.hpp"

namespace necrocode::artifacts {

/// Of a log to which nothing is appended; then it is sealed.
inline constexpr std::chrono::seconds kLogLease{120};
inline constexpr std::chrono::seconds kLogLeaseMax{3'600};
/// Not sealed, at once. Each takes a file and some 300 bytes of memory, no descriptor.
inline constexpr std::size_t kOpenLogs = 4096;

/// One entry of the index.
struct Artifact {
  ArtifactId id;
  std::string type;
  std::string name;              ///< as given, else the id
  std::string spec;              ///< empty when unknown
  std::string task;              ///< the task's number, or empty
  std::uint64_t size_bytes = 0;  ///< of an open log, so far
  std::string sha256;            ///< lower-case hex; empty for an open log
  SystemTime created_at;
  Json metadata;  ///< as sent
  std::vector<std::string> tags;
  bool sealed = true;  ///< false: a log that can be appended to
};

/// What an upload says about itself.
struct ArtifactDraft {
  std::string type;
  std::string name;  ///< empty: the id becomes the name
  std::string spec;
  std::string task;
  Json metadata = Json::object();
  std::vector<std::string> tags;
  std::string idempotency_key;  ///< empty: none
};

struct ContentDigest {
  std::string sha256;  ///< lower-case hex
  std::uint64_t size_bytes = 0;
};

/// The same idempotency key came with another upload.
class IdempotencyMismatch : public ResourceConflictError {
 public:
  using ResourceConflictError::ResourceConflictError;
};

/// Bytes on their way in. Nobody sees them before publish(); without it, destruction discards them.
/// One thread; must not outlive its store.
class ArtifactUpload {
 public:
  virtual ~ArtifactUpload() = default;
  /// Throws StorageError, or ResourceLimitError above limits::kArtifactBytes.
  virtual void write(std::string_view piece) = 0;
  /// No more bytes. What came, for comparing with what was announced.
  virtual ContentDigest finish() = 0;
  /// After finish(), once: makes the artifact visible. Durable on return. A draft with a task and a
  /// name replaces the artifact with the same spec, task, type and name. An idempotency key seen
  /// within 24 h gives the first answer again, or IdempotencyMismatch. Throws StorageError.
  virtual Artifact publish(const ArtifactDraft& draft) = 0;
};

/// An artifact's bytes; valid also when it is deleted meanwhile. Of an open log those so far.
struct StoredBytes {
  FileDescriptor file;
  std::uint64_t size_bytes = 0;
};

struct ArtifactFilter {
  std::string spec, task, type, tag;  ///< empty: any
  std::optional<SystemTime> since;    ///< created at or after
  std::optional<SystemTime> until;    ///< created before
  std::size_t limit = limits::kPageSizeDefault;
  std::int64_t before = INT64_MAX;  ///< a page's `next`
};

struct ArtifactList {
  std::vector<Artifact> items;       ///< newest first
  std::optional<std::int64_t> next;  ///< stable: artifacts that come or go move no others
};

struct ArtifactUsage {
  struct Group {
    std::string spec, type;
    std::uint64_t count = 0, size_bytes = 0;
  };
  std::vector<Group> groups;
  std::uint64_t count = 0;
  std::uint64_t size_bytes = 0;    ///< of all artifacts
  std::uint64_t stored_bytes = 0;  ///< each object once
  std::uint64_t open_logs = 0;
};

/// Thread-safe. Every call throws StorageError when the disk or the index fails.
class ArtifactStore {
 public:
  virtual ~ArtifactStore() = default;
  virtual std::unique_ptr<ArtifactUpload> begin_upload() = 0;
  virtual std::optional<Artifact> find(const ArtifactId& id) = 0;
  /// Nothing when the artifact is gone meanwhile. StorageError, naming artifact and object, when
  /// the object is missing or has another size than it was stored with.
  virtual std::optional<StoredBytes> open(const Artifact& artifact) = 0;
  virtual ArtifactList list(const ArtifactFilter& filter) = 0;
  /// False when there is no such artifact.
  virtual bool remove(const ArtifactId& id) = 0;
  /// The artifact with its new tags, or nothing when there is none.
  virtual std::optional<Artifact> set_tags(const ArtifactId& id,
                                           const std::vector<std::string>& tags) = 0;
  virtual ArtifactUsage usage() = 0;

  /// An empty log, durable on return. From now on it is an artifact: it replaces, and is replaced,
  /// as ArtifactUpload::publish() says, by which its appends end. Unavailable beyond kOpenLogs,
  /// IdempotencyMismatch.
  virtual Artifact open_log(const ArtifactDraft& draft, std::chrono::seconds lease) = 0;
  /// Appends what of `bytes`, which begin at `offset`, the log does not have yet, and renews its
  /// lease, also when that is nothing. The log's size then; nothing when there is no such artifact.
  /// Throws ResourceConflictError where the log ends before `offset`, has other bytes there, or is
  /// sealed and would grow; ResourceLimitError above limits::kArtifactBytes.
  /// On return the bytes are the operating system's: no process's death loses them. On disk they
  /// are with the next tend_logs(), or when the log is sealed. After a crash of the machine a log
  /// may have fewer bytes, never others.
  virtual std::optional<std::uint64_t> append(const ArtifactId& id, std::uint64_t offset,
                                              std::string_view bytes) = 0;
  /// Makes a log an artifact like any other, with its id. Durable on return; nothing happens to one
  /// that is sealed. Nothing when there is none.
  virtual std::optional<Artifact> seal(const ArtifactId& id) = 0;
  /// To be called every second: syncs what was appended, and seals each log to which nothing was
  /// appended for its lease (counted anew when the store starts). What fails is logged, and tried
  /// again.
  virtual void tend_logs() = 0;
  /// `changed` is told of each log that has grown, was sealed, or is gone. It runs on any thread,
  /// holding up the change, and calls no store. Before any other call, once.
  virtual void on_log_change(std::function<void(const ArtifactId&)> changed) = 0;

  /// Throws when the store cannot serve.
  virtual void check() = 0;
};

}  // namespace necrocode::artifacts
