#include "necrocode/runner/run_log.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::runner {

namespace {

// Locked before it is emptied: the log of a run that is still going stays whole. The lock ends with
// the descriptor, so also when its process is killed.
FileDescriptor open_log(const std::filesystem::path& path) {
  FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) throw_errno("cannot create the run's log", path.string());
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw_errno("cannot lock the run's log", path.string());
    throw ResourceConflictError("another run is writing to " + path.parent_path().string());
  }
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) throw_errno("cannot look at the run's log", path.string());
  if (S_ISREG(info.st_mode) && ::ftruncate(file.get(), 0) != 0) {
    throw_errno("cannot empty the run's log", path.string());
  }
  return file;
}

}  // namespace

RunLog::RunLog(const std::filesystem::path& file, const Masker& masker)
    : path_(file), file_(open_log(file)), stream_(masker) {}

bool is_being_written(const std::filesystem::path& run_log) {
  const FileDescriptor file(::open(run_log.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  return file && ::flock(file.get(), LOCK_SH | LOCK_NB) != 0;
}

void RunLog::line(std::string_view text) {
  const std::lock_guard lock(mutex_);
  write(stream_.finish());
  write(stream_.push(to_rfc3339(real_clock().system_now()) + " " + std::string(text) + "\n"));
  write(stream_.finish());
}

void RunLog::output(std::string_view piece) {
  const std::lock_guard lock(mutex_);
  write(stream_.push(piece));
}

void RunLog::flush() {
  const std::lock_guard lock(mutex_);
  write(stream_.finish());
}

bool RunLog::failed() const {
  const std::lock_guard lock(mutex_);
  return failed_;
}

void RunLog::write(std::string_view masked) {
  if (masked.empty() || failed_ || written_ > limits::kRunLogBytes) return;
  written_ += masked.size();
  if (written_ > limits::kRunLogBytes)
    masked = "\n[the log reached its limit; the rest is left out]\n";
  try {
    write_all(file_.get(), masked);
  } catch (const StorageError& error) {
    failed_ = true;
    log::error("the run's log cannot be written; the rest of it is lost",
               {{"file", path_.string()}, {"error", error.what()}});
  }
}

}  // namespace necrocode::runner
