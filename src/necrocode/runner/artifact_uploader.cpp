#include "necrocode/runner/artifact_uploader.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "necrocode/base/check.hpp"
#include "necrocode/base/digest.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/runner/run_folder.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kNoteBytes = 64 * limits::kKiB;
constexpr std::string_view kLog = "run.log";
/// Between a note and its folder's log no run takes longer.
constexpr std::chrono::seconds kBeginTime{10};

// Every file of a run that the store gets, in the order in which it gets them.
struct Kind {
  std::string_view name;
  std::string_view type;
  std::string_view mime_type;
};
constexpr std::array<Kind, 7> kKinds = {{{"diff.patch", "diff", "text/x-diff"},
                                         {"users-work.patch", "users-work", "text/x-diff"},
                                         {"tests.json", "test", "application/json"},
                                         {"junit.xml", "junit", "application/xml"},
                                         {"transcript.jsonl", "transcript", "application/jsonl"},
                                         {"exchanges.jsonl", "exchanges", "application/jsonl"},
                                         {kLog, "log", "text/plain"}}};

const Kind& kind_of(std::string_view name) {
  const auto kind = std::find_if(kKinds.begin(), kKinds.end(),
                                 [name](const Kind& known) { return known.name == name; });
  NECROCODE_CHECK(kind != kKinds.end());
  return *kind;
}

std::string stored_name(const RunIdentity& run, std::string_view name) {
  return (run.attempt > 1 ? "attempt-" + std::to_string(run.attempt) + "-" : "") +
         std::string(name);
}

// With size and digest as the file is now; its uri is its path until the store gives one.
UploadedArtifact describe_file(const fs::path& folder, const RunIdentity& run, const Kind& kind) {
  const fs::path file = folder / kind.name;
  UploadedArtifact artifact{std::string(kind.type), stored_name(run, kind.name), file.string(), 0,
                            ""};
  const FileDescriptor opened(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!opened) throw_errno("cannot open", file.string());
  Sha256 digest;
  std::array<char, 64 * limits::kKiB> piece{};
  while (true) {
    const ssize_t got = ::read(opened.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("cannot read", file.string());
    if (got == 0) break;
    digest.update({piece.data(), static_cast<std::size_t>(got)});
    artifact.size_bytes += static_cast<std::uint64_t>(got);
  }
  artifact.sha256 = digest.finish_hex();
  return artifact;
}

Json metadata_of(const RunIdentity& run, const Kind& kind, const std::string& name) {
  return Json::object({{"task_id", run.task_id.str()},
                       {"spec_name", run.task_id.spec()},
                       {"name", name},
                       {"mime_type", kind.mime_type},
                       {"runner_id", run.runner_id},
                       {"attempt", run.attempt}});
}

void upload(ArtifactStoreClient& store, const fs::path& file, const RunIdentity& run,
            const Kind& kind, UploadedArtifact& artifact, const CallContext& context) {
  artifact.uri =
      store.upload_file(artifact.type, file, metadata_of(run, kind, artifact.name), context);
  artifact.stored = true;
}

bool is_out_of_reach(const RunnerError& error) {
  return dynamic_cast<const TimeoutError*>(&error) != nullptr ||
         dynamic_cast<const Unavailable*>(&error) != nullptr;
}

struct Owed {
  RunIdentity run;
  fs::path run_dir;
  bool disposable = false;
  bool delivered = false;  ///< of a disposable folder: only its removal is left
};

// By the folder: a later run in it takes the place of an earlier one, as its files do.
fs::path note_of(const fs::path& notes, const fs::path& run_dir) {
  return notes / (sha256_hex(fs::absolute(run_dir).string()).substr(0, 32) + ".json");
}

void write_note(const fs::path& notes, const Owed& owed) {
  fs::create_directories(notes);
  write_file_atomic(note_of(notes, owed.run_dir),
                    Json::object({{"folder", fs::absolute(owed.run_dir).string()},
                                  {"task_id", owed.run.task_id.str()},
                                  {"runner_id", owed.run.runner_id},
                                  {"attempt", owed.run.attempt},
                                  {"disposable", owed.disposable},
                                  {"delivered", owed.delivered}})
                        .dump(),
                    0600);
}

std::optional<Owed> read_note(const fs::path& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error)) return std::nullopt;
  const auto note = Json::try_parse(read_file(file, kNoteBytes));
  const auto id = note ? task_id_of(*note) : std::nullopt;
  if (!id) throw StorageError("not a note of what a run owes");
  return Owed{{*id, (*note)["runner_id"].string_or(""),
               static_cast<int>((*note)["attempt"].as_int().value_or(0))},
              (*note)["folder"].string_or(""),
              (*note)["disposable"].as_bool().value_or(false),
              (*note)["delivered"].as_bool().value_or(false)};
}

// The lock that a run holds on its log while it is at work; nothing when somebody has it.
FileDescriptor take(const fs::path& run_dir) {
  FileDescriptor log(
      ::open((run_dir / kLog).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (log && ::flock(log.get(), LOCK_EX | LOCK_NB) != 0) log.reset();
  return log;
}

// The registry may have given the task out again, and then takes nothing from an earlier attempt;
// the store has it all the same.
void record(TaskRegistryClient& registry, const RunIdentity& run, const UploadedArtifact& artifact,
            const CallContext& context) {
  const Json metadata = Json::object({{"name", artifact.name}, {"sha256", artifact.sha256}});
  try {
    registry.add_artifact(run.task_id.str(), artifact.type, artifact.uri,
                          static_cast<std::int64_t>(artifact.size_bytes), metadata, {}, context);
  } catch (const RunnerError& error) {
    log::info("a late artifact is not recorded with its task",
              {{"task", run.task_id.str()}, {"uri", artifact.uri}, {"error", error.what()}});
  }
}

// A newer run of the same task, which no registry counts, may have its files there by now.
std::string late_name(const RunIdentity& run, const Kind& kind) {
  return (run.attempt == 0 ? run.runner_id + "-" : "") + stored_name(run, kind.name);
}

// False when the store refuses some of it for good.
bool deliver(const Owed& owed, ArtifactStoreClient& store, TaskRegistryClient* registry,
             const CallContext& context) {
  bool refused = false;
  std::error_code error;
  for (const Kind& kind : kKinds) {
    const fs::path file = owed.run_dir / kind.name;
    if (!fs::is_regular_file(fs::symlink_status(file, error))) continue;
    UploadedArtifact artifact = describe_file(owed.run_dir, owed.run, kind);
    artifact.name = late_name(owed.run, kind);
    try {
      upload(store, file, owed.run, kind, artifact, context);
    } catch (const RunnerError& failure) {
      if (is_out_of_reach(failure)) throw;
      refused = true;
      log::error("the store refuses an artifact; it stays in the run's folder",
                 {{"file", file.string()}, {"error", failure.what()}});
      continue;
    }
    if (registry && owed.run.attempt > 0) record(*registry, owed.run, artifact, context);
  }
  if (!refused) {
    log::info("a run's artifacts are delivered late", {{"folder", owed.run_dir.string()}});
  }
  return !refused;
}

// Only what a worker made for itself is ever removed.
void remove_disposable(const fs::path& notes, const Owed& owed) {
  const bool is_workers = owed.run_dir.lexically_normal().parent_path() ==
                          (fs::absolute(notes).parent_path() / "runs").lexically_normal();
  if (owed.disposable && is_workers) remove_tree(owed.run_dir);
}

bool is_older_than(const fs::path& file, std::chrono::seconds age) {
  std::error_code error;
  const auto written = fs::last_write_time(file, error);
  return !error && fs::file_time_type::clock::now() - written > age;
}

void end_note(const fs::path& notes, const fs::path& note, const Owed& owed, bool is_over) {
  std::error_code error;
  if (is_over) remove_disposable(notes, owed);
  fs::remove(note, error);
}

// Everything that one note asks for; the note goes with it.
void settle(const fs::path& notes, const fs::path& note, const Owed& owed,
            ArtifactStoreClient& store, TaskRegistryClient* registry, const CallContext& context) {
  std::error_code error;
  if (!fs::exists(owed.run_dir / kLog, error)) {
    // A run that was killed as it began, or is just about to; or somebody took the files away. Not
    // a disk that is not there.
    const bool is_gone = !error && fs::exists(owed.run_dir.parent_path(), error);
    if (is_gone && is_older_than(note, kBeginTime)) end_note(notes, note, owed, true);
    return;
  }
  const FileDescriptor lock = take(owed.run_dir);
  if (!lock) return;                 // at work, or somebody else delivers it
  const auto now = read_note(note);  // another run may have had the folder meanwhile
  if (!now || now->run.runner_id != owed.run.runner_id) return;
  end_note(notes, note, *now, now->delivered || deliver(*now, store, registry, context));
}

}  // namespace

void note_owed(const fs::path& notes, const fs::path& run_dir, const RunIdentity& run,
               bool disposable) {
  write_note(notes, {run, run_dir, disposable});
}

void forget_owed(const fs::path& notes, const fs::path& run_dir) {
  std::error_code error;
  fs::remove(note_of(notes, run_dir), error);
}

void ArtifactUploader::begin(const fs::path& notes, bool disposable) {
  if (!store_) return;
  if (logs_) {
    shipment_.emplace(
        logs_->ship(run_dir_ / kLog, metadata_of(run_, kind_of(kLog), stored_name(run_, kLog))));
  }
  notes_ = notes;
  disposable_ = disposable;
  note_owed(notes, run_dir_, run_, disposable);
}

void ArtifactUploader::write(const std::string& name, std::string_view content) {
  write_file_atomic(run_dir_ / kind_of(name).name, masker_.mask(content), 0600);
}

UploadedArtifact ArtifactUploader::describe(const std::string& name) const {
  return describe_file(run_dir_, run_, kind_of(name));
}

UploadedArtifact ArtifactUploader::keep(const std::string& name, const CallContext& context) {
  const Kind& kind = kind_of(name);
  UploadedArtifact artifact = describe(name);
  if (!store_ || out_of_reach_) return artifact;
  try {
    const auto uri = name == kLog && shipment_ ? shipment_->seal(context) : std::nullopt;
    if (uri) {
      artifact.uri = *uri;
      artifact.stored = true;
    } else {
      upload(*store_, run_dir_ / name, run_, kind, artifact, context);
    }
  } catch (const RunnerError& error) {
    out_of_reach_ = is_out_of_reach(error);
    all_stored_ = false;
    log::warn("artifact not uploaded, kept in the run's folder",
              {{"artifact", name}, {"folder", run_dir_.string()}, {"error", error.what()}});
  }
  return artifact;
}

void ArtifactUploader::all_kept() {
  if (notes_.empty() || out_of_reach_) return;
  if (disposable_ && all_stored_) {
    write_note(notes_, {run_, run_dir_, true, true});
  } else {
    forget_owed(notes_, run_dir_);
  }
}

bool deliver_owed(const fs::path& notes, ArtifactStoreClient& store, TaskRegistryClient* registry,
                  const CallContext& context) {
  std::error_code error;
  remove_drafts(notes, kBeginTime);
  std::vector<fs::path> files;
  for (fs::directory_iterator entry(notes, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".json") files.push_back(entry->path());
  }
  bool all_settled = true;
  for (const fs::path& note : files) {
    if (context.cancelled()) return all_settled;
    try {
      const auto owed = read_note(note);
      if (owed) settle(notes, note, *owed, store, registry, context);
    } catch (const Unavailable& failure) {
      log::warn("artifacts of earlier runs cannot be delivered yet", {{"error", failure.what()}});
      return false;  // nor the others
    } catch (const std::exception& failure) {
      all_settled = false;
      log::warn("what an earlier run owes cannot be delivered",
                {{"note", note.string()}, {"error", failure.what()}});
    }
  }
  return all_settled;
}

}  // namespace necrocode::runner
