#include "necrocode/registry/tasks_md_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/ids.hpp"

namespace necrocode::registry {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kFileBytes = 16 * limits::kMiB;
constexpr int kAttempts = 3;

/// A file as it was read.
struct Snapshot {
  struct stat status = {};
  std::string text;

  bool same_as(const Snapshot& other) const {
    return status.st_dev == other.status.st_dev && status.st_ino == other.status.st_ino &&
           status.st_size == other.status.st_size &&
           status.st_mtim.tv_sec == other.status.st_mtim.tv_sec &&
           status.st_mtim.tv_nsec == other.status.st_mtim.tv_nsec && text == other.text;
  }
};

Snapshot read_snapshot(const fs::path& path) {
  Snapshot snapshot;
  if (::stat(path.c_str(), &snapshot.status) != 0) throw_errno("cannot open", path.string());
  if (!S_ISREG(snapshot.status.st_mode)) {
    throw StorageError(path.string() + " is not a regular file");
  }
  if (static_cast<std::size_t>(snapshot.status.st_size) > kFileBytes) {
    throw ResourceLimitError(path.string() + " is larger than " + std::to_string(kFileBytes) +
                             " bytes");
  }
  snapshot.text = read_file(path, kFileBytes);
  return snapshot;
}

fs::path resolved(const fs::path& path) {
  std::error_code error;
  fs::path target = fs::canonical(path, error);
  if (!error) return target;
  errno = error.value();
  throw_errno("cannot open", path.string());
}

/// The new text beside the file, until it takes the file's place.
class Replacement {
 public:
  Replacement(const fs::path& target, const Snapshot& old, std::string_view text)
      : target_(target), path_(target.parent_path() / (".necrocode-tmp-" + random_hex(8))) {
    FileDescriptor file(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) throw_errno("cannot create", path_.string());
    try {
      write_all(file.get(), text);
      // Another owner's file becomes ours where we may not give files away, as with any editor.
      if ((old.status.st_uid != ::geteuid() || old.status.st_gid != ::getegid()) &&
          ::fchown(file.get(), old.status.st_uid, old.status.st_gid) != 0 && errno != EPERM) {
        throw_errno("cannot set the owner of", path_.string());
      }
      if (::fchmod(file.get(), old.status.st_mode & 07777) != 0) {
        throw_errno("cannot set the mode of", path_.string());
      }
      if (::fsync(file.get()) != 0) throw_errno("cannot sync", path_.string());
    } catch (...) {
      ::unlink(path_.c_str());
      throw;
    }
  }
  ~Replacement() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  void take_place() {
    if (::rename(path_.c_str(), target_.c_str()) != 0) {
      throw_errno("cannot replace", target_.string());
    }
    path_.clear();
    fsync_directory(target_.parent_path());
  }

 private:
  fs::path target_;
  fs::path path_;
};

}  // namespace

std::string read_tasks_md(const fs::path& path) {
  return read_snapshot(path).text;
}

TickResult tick_tasks_md_file(const fs::path& path, const std::map<std::string, WantedBox>& wanted,
                              const TickOptions& options) {
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    const fs::path target = resolved(path);
    const Snapshot old = read_snapshot(target);
    TickResult result = tick_tasks_md(old.text, wanted);
    if (options.dry_run || result.changes.empty()) return result;
    Replacement replacement(target, old, result.text);
    if (options.before_replace) options.before_replace();
    if (resolved(path) != target || !read_snapshot(target).same_as(old)) continue;
    replacement.take_place();
    return result;
  }
  throw ResourceConflictError(path.string() + " changes all the time; nothing was ticked");
}

}  // namespace necrocode::registry
