// The open logs of FilesystemArtifactStore. A log's row stands in the index from its opening; its
// file, DIR/logs/ID, has its bytes and its size. Sealing writes size and digest into the row, and
// then renames the file: whatever ends it in between, the next start goes on from the row.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "necrocode/artifacts/filesystem_state.hpp"
#include "necrocode/base/digest.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::artifacts {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr std::size_t kPiece = 64 * limits::kKiB;

/// Nothing when it is not there any more.
FileDescriptor open_file(const fs::path& path, int flags) {
  FileDescriptor file(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file && errno != ENOENT) throw_errno("cannot open", path.string());
  return file;
}

/// Calls `take(position, bytes)` with what stands in [begin, end).
template <class Take>
void read_pieces(const FileDescriptor& file, std::uint64_t begin, std::uint64_t end, Take take) {
  std::string piece(std::min<std::uint64_t>(kPiece, end - begin), '\0');
  while (begin < end) {
    const std::size_t wanted = std::min<std::uint64_t>(piece.size(), end - begin);
    const ssize_t got = ::pread(file.get(), piece.data(), wanted, static_cast<off_t>(begin));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("cannot read", "a log");
    if (got == 0) throw StorageError("a log has fewer bytes than were appended");
    take(begin, std::string_view(piece).substr(0, static_cast<std::size_t>(got)));
    begin += static_cast<std::uint64_t>(got);
  }
}

/// How many of `bytes`, from `offset` on, the `size` bytes of the file have already.
std::size_t known_bytes(const FileDescriptor& file, std::uint64_t size, std::uint64_t offset,
                        std::string_view bytes) {
  if (offset > size) {
    throw ResourceConflictError("the log has " + std::to_string(size) +
                                " bytes: append at that offset");
  }
  const std::size_t known = std::min<std::uint64_t>(size - offset, bytes.size());
  read_pieces(file, offset, offset + known, [&](std::uint64_t at, std::string_view piece) {
    if (bytes.substr(at - offset, piece.size()) == piece) return;
    throw ResourceConflictError("the log, of " + std::to_string(size) +
                                " bytes, has other bytes behind offset " + std::to_string(offset));
  });
  return known;
}

/// All of `bytes`; where that fails, none of them if the file can still be cut.
void write_behind(const FileDescriptor& file, std::uint64_t size, std::string_view bytes) {
  for (std::uint64_t end = size; !bytes.empty();) {
    const ssize_t wrote = ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(end));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) {
      const int reason = errno;
      (void)!::ftruncate(file.get(), static_cast<off_t>(size));
      errno = reason;
      throw_errno("cannot append to", "a log");
    }
    end += static_cast<std::uint64_t>(wrote);
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

}  // namespace

void FilesystemArtifactStore::State::add_log(const std::string& id, milliseconds lease,
                                             std::uint64_t size) {
  auto log = std::make_shared<OpenLog>(id, lease, size);
  log->due = clock.steady_now() + lease;
  logs.add(std::move(log));
}

void FilesystemArtifactStore::State::drop_log(const std::string& id) {
  if (!logs.erase(id)) return;
  ::unlink(log_file(id).c_str());
  tell(id);
}

void FilesystemArtifactStore::State::load_logs() {
  db::Statement& find = index.prepare("SELECT sha256 FROM artifacts WHERE id=?");
  for (const fs::directory_entry& entry : fs::directory_iterator(logs_folder())) {
    const bool known = find.bind(entry.path().filename().string()).step();
    const std::string sha256 = known ? find.text(0) : "";
    find.reset();
    if (!known) {
      ::unlink(entry.path().c_str());
    } else if (!sha256.empty()) {
      place_object(entry.path(), sha256);
    }
  }
  db::Statement& open = index.prepare("SELECT id, lease_ms FROM artifacts WHERE lease_ms>0");
  while (open.step()) {
    const std::string id = open.text(0);
    struct stat found = {};
    if (::stat(log_file(id).c_str(), &found) != 0) {
      log::error("the file of an open log is gone; it goes on as an empty one", {{"log", id}});
      open_file(log_file(id), O_RDWR | O_CREAT);
    }
    add_log(id, milliseconds(open.integer(1)), static_cast<std::uint64_t>(found.st_size));
  }
}

std::optional<std::uint64_t> FilesystemArtifactStore::State::append(OpenLog& log,
                                                                    std::uint64_t offset,
                                                                    std::string_view bytes) {
  const std::lock_guard guard(log.mutex);
  if (log.closed) return std::nullopt;
  const FileDescriptor file = open_file(log_file(log.id), O_RDWR);
  if (!file) return std::nullopt;
  const std::uint64_t size = log.size;
  const std::string_view fresh = bytes.substr(known_bytes(file, size, offset, bytes));
  if (fresh.size() > limits::kArtifactBytes - size) {
    throw ResourceLimitError("an artifact has at most " + std::to_string(limits::kArtifactBytes) +
                             " bytes");
  }
  log.due = clock.steady_now() + log.lease;
  if (fresh.empty()) return size;
  write_behind(file, size, fresh);
  log.unsynced = true;
  log.size = size + fresh.size();
  tell(log.id);
  return log.size;
}

void FilesystemArtifactStore::State::sync(OpenLog& log) {
  const FileDescriptor file = open_file(log_file(log.id), O_RDWR);
  if (file && ::fdatasync(file.get()) != 0) throw_errno("cannot sync", log_file(log.id).string());
  log.unsynced = false;
}

void FilesystemArtifactStore::State::seal(OpenLog& log) {
  const fs::path path = log_file(log.id);
  const FileDescriptor file = open_file(path, O_RDWR);
  if (!file) return;  // removed, or sealed by another call
  const std::uint64_t size = log.size;
  // A failed append may have left a rest that could not be cut off.
  if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0 || ::fsync(file.get()) != 0) {
    throw_errno("cannot sync", path.string());
  }
  Sha256 hash;
  read_pieces(file, 0, size, [&](std::uint64_t, std::string_view piece) { hash.update(piece); });
  const std::string sha256 = hash.finish_hex();
  {
    const std::lock_guard guard(mutex);
    db::Transaction transaction(index);
    index.prepare("UPDATE artifacts SET size_bytes=?, sha256=?, lease_ms=NULL WHERE id=?")
        .bind(static_cast<std::int64_t>(size))
        .bind(sha256)
        .bind(log.id)
        .run();
    if (index.changes() == 0) return;  // removed meanwhile
    transaction.commit();
    log.closed = true;
    place_object(path, sha256);
    logs.erase(log.id);
  }
  tell(log.id);
}

FilesystemArtifactStore::~FilesystemArtifactStore() {
  if (!state_) return;
  for (const auto& log : state_->logs.all()) {
    try {
      if (log->unsynced) state_->sync(*log);
    } catch (const std::exception& error) {
      log::error("a log is not on disk yet", {{"log", log->id}, {"reason", error.what()}});
    }
  }
}

Artifact FilesystemArtifactStore::open_log(const ArtifactDraft& draft, std::chrono::seconds lease) {
  const milliseconds lease_ms = lease;
  const std::string fingerprint =
      fingerprint_of(draft, "log, " + std::to_string(lease_ms.count()) + " ms");
  const std::lock_guard guard(state_->mutex);
  if (auto first = state_->first_answer(draft, fingerprint)) {
    first->sealed = false;
    return find(first->id).value_or(*first);
  }
  if (state_->logs.count() >= kOpenLogs) {
    throw Unavailable(std::to_string(kOpenLogs) + " logs are open, which is the limit");
  }
  Artifact artifact = state_->named(draft);
  artifact.sealed = false;
  const std::string& id = artifact.id.value;
  UndecidedObjects undecided(*state_);
  const auto replaced = state_->replaced_by(draft);
  if (replaced && !replaced->sha256.empty()) undecided.add(replaced->sha256);
  const FileDescriptor file = open_file(state_->log_file(id), O_RDWR | O_CREAT | O_EXCL);
  state_->add_log(id, lease_ms, 0);
  try {
    fsync_directory(state_->logs_folder());
    state_->insert(artifact, draft, fingerprint, lease_ms.count());
  } catch (...) {
    state_->drop_log(id);
    throw;
  }
  if (replaced) state_->drop_log(replaced->id);
  return artifact;
}

std::optional<std::uint64_t> FilesystemArtifactStore::append(const ArtifactId& id,
                                                             std::uint64_t offset,
                                                             std::string_view bytes) {
  if (const auto log = state_->logs.find(id.value)) {
    if (const auto size = state_->append(*log, offset, bytes)) return size;
  }
  const auto artifact = find(id);
  const auto stored = artifact ? open(*artifact) : std::nullopt;
  if (!stored) return std::nullopt;
  if (known_bytes(stored->file, stored->size_bytes, offset, bytes) < bytes.size()) {
    throw ResourceConflictError("it is sealed, with " + std::to_string(stored->size_bytes) +
                                " bytes");
  }
  return stored->size_bytes;
}

std::optional<Artifact> FilesystemArtifactStore::seal(const ArtifactId& id) {
  if (const auto log = state_->logs.find(id.value)) {
    const std::lock_guard guard(log->mutex);
    state_->seal(*log);
  }
  return find(id);
}

void FilesystemArtifactStore::tend_logs() {
  const SteadyTime now = state_->clock.steady_now();
  for (const auto& log : state_->logs.all()) {
    const std::unique_lock lock(log->mutex, std::try_to_lock);
    if (!lock) continue;  // in use: next time
    try {
      if (log->closed || log->due <= now) {
        state_->seal(*log);
      } else if (log->unsynced) {
        state_->sync(*log);
      }
    } catch (const std::exception& error) {
      log::error("a log is not on disk yet", {{"log", log->id}, {"reason", error.what()}});
    }
  }
}

void FilesystemArtifactStore::on_log_change(std::function<void(const ArtifactId&)> changed) {
  state_->log_changed = std::move(changed);
}

}  // namespace necrocode::artifacts
