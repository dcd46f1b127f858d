// FilesystemArtifactStore: objects as files named by their digest, an SQLite index beside them.
//
//   DIR/lock               held exclusively by the one process that serves DIR
//   DIR/index.sqlite       artifacts, tags, idempotency keys (WAL, synchronous=FULL); an append
//                          leaves it alone
//   DIR/objects/ab/abcd…   the bytes, once each; never changed after they appear
//   DIR/logs/ID            a log that is not sealed yet; then it is renamed to be an object
//   DIR/tmp/               uploads under way, and a marker for each object whose last reference is
//                          just coming or going: what a crash leaves here is put right at start
#pragma once

#include <filesystem>
#include <memory>

#include "necrocode/artifacts/artifact_store.hpp"

namespace necrocode::artifacts {

class FilesystemArtifactStore final : public ArtifactStore {
 public:
  /// Makes `directory` (mode 0700) when absent, and sweeps what a crash left; reads no object.
  /// Throws StorageError when it cannot, ResourceConflictError when another process serves it.
  explicit FilesystemArtifactStore(const std::filesystem::path& directory,
                                   const Clock& clock = real_clock());
  ~FilesystemArtifactStore() override;

  std::unique_ptr<ArtifactUpload> begin_upload() override;
  std::optional<Artifact> find(const ArtifactId& id) override;
  std::optional<StoredBytes> open(const Artifact& artifact) override;
  ArtifactList list(const ArtifactFilter& filter) override;
  bool remove(const ArtifactId& id) override;
  std::optional<Artifact> set_tags(const ArtifactId& id,
                                   const std::vector<std::string>& tags) override;
  ArtifactUsage usage() override;
  Artifact open_log(const ArtifactDraft& draft, std::chrono::seconds lease) override;
  std::optional<std::uint64_t> append(const ArtifactId& id, std::uint64_t offset,
                                      std::string_view bytes) override;
  std::optional<Artifact> seal(const ArtifactId& id) override;
  void tend_logs() override;
  void on_log_change(std::function<void(const ArtifactId&)> changed) override;
  void check() override;

 private:
  struct State;
  class Upload;
  class UndecidedObjects;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::artifacts
