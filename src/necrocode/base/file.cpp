#include "necrocode/base/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/ids.hpp"

namespace necrocode {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

void write_beside_and_rename(const fs::path& path, std::string_view bytes, unsigned mode,
                             bool durable) {
  // Not with the file's own name in it, which may be as long as a name can be.
  const fs::path temporary = folder_of(path) / (".necrocode-tmp-" + random_hex(8));
  FileDescriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!file) throw_errno("cannot create", temporary.string());
  try {
    write_all(file.get(), bytes);
    if (durable && ::fsync(file.get()) != 0) throw_errno("cannot sync", temporary.string());
    file.reset();
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      throw_errno("cannot replace", path.string());
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  if (durable) fsync_directory(folder_of(path));
}

}  // namespace

void FileDescriptor::reset(int fd) noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

std::string read_file(const fs::path& path, std::size_t bytes_max) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) throw_errno("cannot open", path.string());
  std::string content;
  std::size_t filled = 0;
  while (true) {
    content.resize(filled + 64 * 1024);
    const ssize_t got = ::read(file.get(), content.data() + filled, content.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("cannot read", path.string());
    filled += static_cast<std::size_t>(got);
    if (filled > bytes_max) {
      throw StorageError(path.string() + " is larger than " + std::to_string(bytes_max) + " bytes");
    }
    if (got == 0) break;
  }
  content.resize(filled);
  return content;
}

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) throw_errno("cannot write");
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

void write_file_durable(const fs::path& path, std::string_view bytes, unsigned mode) {
  write_beside_and_rename(path, bytes, mode, true);
}

void write_file_atomic(const fs::path& path, std::string_view bytes, unsigned mode) {
  write_beside_and_rename(path, bytes, mode, false);
}

void fsync_directory(const fs::path& path) {
  FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) throw_errno("cannot open", path.string());
  if (::fsync(folder.get()) != 0) throw_errno("cannot sync", path.string());
}

TemporaryDirectory::TemporaryDirectory(std::string_view prefix, const fs::path& parent) {
  std::string pattern =
      ((parent.empty() ? fs::temp_directory_path() : parent) / prefix).string() + "XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) throw_errno("cannot create a folder like", pattern);
  path_ = pattern;
  path_to_remove_ = path_;
}

TemporaryDirectory::TemporaryDirectory(TemporaryDirectory&& other) noexcept
    : path_(std::move(other.path_)), path_to_remove_(std::exchange(other.path_to_remove_, {})) {}

TemporaryDirectory::~TemporaryDirectory() {
  if (!path_to_remove_.empty()) remove_tree(path_to_remove_);
}

bool remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (!error) return true;
  // Folders without r, w or x keep their content: open them all up from the top, then try once
  // more. Each folder is opened before the iterator, at its next increment, goes into it.
  const auto open_up = [](const fs::path& folder) {
    std::error_code ignored;
    if (fs::symlink_status(folder, ignored).type() == fs::file_type::directory) {
      fs::permissions(folder, fs::perms::owner_all, fs::perm_options::add, ignored);
    }
  };
  open_up(path);
  std::error_code walk_error;
  fs::recursive_directory_iterator it(path, walk_error);
  while (!walk_error && it != fs::recursive_directory_iterator()) {
    open_up(it->path());
    it.increment(walk_error);
  }
  error.clear();
  fs::remove_all(path, error);
  return !error;
}

}  // namespace necrocode
