// ArtifactStore: bytes kept once by their SHA-256, found through an index of artifacts.
// No HTTP here, and no URL: the service makes those. Names, types and ids are data, never paths.
#pragma once

#include <cstdint>
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

/// One entry of the index.
struct Artifact {
  ArtifactId id;
  std::string type;
  std::string name;  ///< as given, else the id
  std::string spec;  ///< empty when unknown
  std::string task;  ///< the task's number, or empty
  std::uint64_t size_bytes = 0;
  std::string sha256;  ///< lower-case hex
  SystemTime created_at;
  Json metadata;  ///< as sent
  std::vector<std::string> tags;
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

/// An object's bytes; valid also when the artifact is deleted meanwhile.
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
  /// Throws when the store cannot serve.
  virtual void check() = 0;
};

}  // namespace necrocode::artifacts
