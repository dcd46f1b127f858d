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

/// The note that a run's files are owed to the store, in `notes`: before the run's folder is made,
/// so that no folder is ever left without one. `disposable`: the folder goes when they are
/// delivered. Throws StorageError.
void note_owed(const std::filesystem::path& notes, const std::filesystem::path& run_dir,
               const RunIdentity& run, bool disposable);
/// Nothing is owed of the folder any more, and it is gone if it was disposable.
void forget_owed(const std::filesystem::path& notes, const std::filesystem::path& run_dir);

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

  /// With the run's log locked: notes what is owed, until all_kept(), and begins to ship the log.
  void begin(const std::filesystem::path& notes, bool disposable);
  /// Writes `content`, masked, as `name`: "diff.patch" and the like (see artifact_uploader.cpp).
  void write(const std::string& name, std::string_view content);
  /// A file of the folder as it is now, at its path.
  UploadedArtifact describe(const std::string& name) const;
  /// Uploads a file of the folder.
  UploadedArtifact keep(const std::string& name, const CallContext& context);
  /// No more files. Unless the store was out of reach, no file is owed any more; the note goes, or
  /// says of a disposable folder that only its removal is left (forget_owed).
  void all_kept();

 private:
  ArtifactStoreClient* store_;
  LogShipper* logs_;
  std::filesystem::path run_dir_;
  RunIdentity run_;
  const Masker& masker_;
  std::filesystem::path notes_;  ///< empty: nothing is owed
  bool disposable_ = false;
  bool all_stored_ = true;
  std::optional<LogShipper::Shipment> shipment_;
  bool out_of_reach_ = false;  ///< the store, at the last upload: the next are not tried
};

/// Delivers what runs owe by `notes` whose process is gone or done, and records it with the
/// registry (null: not) as far as that takes it. What the store refuses stays in its folder, and is
/// owed no longer. False when something is still owed: the store is out of reach, or a note cannot
/// be used, which is logged. Throws nothing.
bool deliver_owed(const std::filesystem::path& notes, ArtifactStoreClient& store,
                  TaskRegistryClient* registry, const CallContext& context);

}  // namespace necrocode::runner
