#include "necrocode/runner/artifact_uploader.hpp"

#include "necrocode/base/digest.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::runner {

UploadedArtifact ArtifactUploader::keep(const TaskContext& task, const std::string& type,
                                        const std::string& name, std::string_view content,
                                        const std::string& mime_type, const CallContext& context) {
  const std::string masked = masker_.mask(content);
  write_file_durable(run_dir_ / name, masked, 0600);
  UploadedArtifact artifact{type, name, (run_dir_ / name).string(), masked.size(),
                            sha256_hex(masked)};
  return upload(task, std::move(artifact), mime_type, context);
}

UploadedArtifact ArtifactUploader::keep_file(const TaskContext& task, const std::string& type,
                                             const std::string& name, const std::string& mime_type,
                                             const CallContext& context) {
  const std::string content = read_file(run_dir_ / name, 2 * limits::kRunLogBytes);
  UploadedArtifact artifact{type, name, (run_dir_ / name).string(), content.size(),
                            sha256_hex(content)};
  return upload(task, std::move(artifact), mime_type, context);
}

UploadedArtifact ArtifactUploader::upload(const TaskContext& task, UploadedArtifact artifact,
                                          const std::string& mime_type,
                                          const CallContext& context) {
  if (!store_ || out_of_reach_) return artifact;
  const Json metadata = Json::object({{"task_id", task.task_id.str()},
                                      {"spec_name", task.task_id.spec()},
                                      {"name", artifact.name},
                                      {"mime_type", mime_type}});
  try {
    artifact.uri = store_->upload_file(artifact.type, run_dir_ / artifact.name, metadata, context);
    artifact.stored = true;
  } catch (const RunnerError& error) {
    out_of_reach_ =
        dynamic_cast<const TimeoutError*>(&error) || dynamic_cast<const Unavailable*>(&error);
    log::warn(
        "artifact not uploaded, kept in the run's folder",
        {{"artifact", artifact.name}, {"folder", run_dir_.string()}, {"error", error.what()}});
  }
  return artifact;
}

}  // namespace necrocode::runner
