// ArtifactUploader: keeps what a run leaves: diff, log, test report. Masked; to the artifact store
// when there is one, always to the run's folder first. A failed upload is a warning, never a lost
// file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "necrocode/artifacts/client.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/runner/run_result.hpp"
#include "necrocode/runner/task_context.hpp"

namespace necrocode::runner {

class ArtifactUploader {
 public:
  /// `store` null: only the folder.
  ArtifactUploader(ArtifactStoreClient* store, std::filesystem::path run_dir, const Masker& masker)
      : store_(store), run_dir_(std::move(run_dir)), masker_(masker) {}

  /// Writes `content` as `name` and uploads it.
  UploadedArtifact keep(const TaskContext& task, const std::string& type, const std::string& name,
                        std::string_view content, const std::string& mime_type,
                        const CallContext& context);
  /// Uploads a file that already stands in the folder, masked.
  UploadedArtifact keep_file(const TaskContext& task, const std::string& type,
                             const std::string& name, const std::string& mime_type,
                             const CallContext& context);

 private:
  UploadedArtifact upload(const TaskContext& task, UploadedArtifact artifact,
                          const std::string& mime_type, const CallContext& context);
  ArtifactStoreClient* store_;
  std::filesystem::path run_dir_;
  const Masker& masker_;
  bool out_of_reach_ = false;  ///< the store, at the last upload: the next are not tried
};

}  // namespace necrocode::runner
