// ArtifactUploader: keeps what a run leaves: diff, log, test report, transcript. Masked; always in
// the run's folder first, then in the artifact store when there is one. What the store has not
// taken, or a killed run never offered, is owed: a note in the data folder says so, and
// deliver_owed() sends it later.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/artifacts/client.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/registry/client.hpp"
#include "necrocode/runner/log_shipper.hpp"
#include "necrocode/runner/run_result.hpp"
#include "necrocode/runner/task_context.hpp"

namespace necrocode::runner {

/// Whose artifacts they are. Those of a further attempt are named after it, so that they stand
/// beside the earlier ones instead of replacing them.
struct RunIdentity {
  TaskId task_id;
  std::string runner_id;
  int attempt = 0;  ///< 0: not from a registry
};

class ArtifactUploader {
 public:
  /// `store` null: only the folder; `logs` null: the log is uploaded at the end.
  ArtifactUploader(ArtifactStoreClient* store, LogShipper* logs, std::filesystem::path run_dir,
                   RunIdentity run, const Masker& masker)
      : store_(store),
        logs_(logs),
        run_dir_(std::move(run_dir)),
        run_(std::move(run)),
        masker_(masker) {}

  /// Notes in `notes` that the run's files are owed to the store, until all_kept(). `passing`: the
  /// run's folder goes when they are delivered. Throws StorageError.
  void begin(const std::filesystem::path& notes, bool passing);
  /// Writes `content`, masked, as `name`: "diff.patch" and the like (see artifact_uploader.cpp).
  void write(const std::string& name, std::string_view content);
  /// A file of the folder as it is now, at its path.
  UploadedArtifact describe(const std::string& name) const;
  /// Uploads a file of the folder.
  UploadedArtifact keep(const std::string& name, const CallContext& context);
  /// No more files. The note goes when the store has all that were kept.
  void all_kept();

 private:
  ArtifactStoreClient* store_;
  LogShipper* logs_;
  std::filesystem::path run_dir_;
  RunIdentity run_;
  const Masker& masker_;
  std::filesystem::path note_;  ///< empty: nothing is owed
  std::optional<LogShipper::Shipment> shipment_;
  bool out_of_reach_ = false;  ///< the store, at the last upload: the next are not tried
};

/// Delivers what runs owe by `notes` whose process is gone or done, and records it with the
/// registry (null: not) as far as that takes it. What the store refuses stays in its folder, and is
/// owed no longer. False when the store is out of reach: something is still owed.
bool deliver_owed(const std::filesystem::path& notes, ArtifactStoreClient& store,
                  TaskRegistryClient* registry, const CallContext& context);

}  // namespace necrocode::runner
