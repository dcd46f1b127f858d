#include "necrocode/exec/plain_folder.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <memory>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/runner/beneath.hpp"

namespace necrocode::exec {
namespace {

constexpr int kFolder = O_RDONLY | O_DIRECTORY;

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

}  // namespace

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

PlainFolder::PlainFolder(std::filesystem::path path) : path_(std::move(path)) {
  reopen();
}

void PlainFolder::reopen() {
  top_.reset(::open(path_.c_str(), kFolder | O_CLOEXEC));
  if (!top_) throw_errno("cannot open", path_.string());
}

bool PlainFolder::is_in_place() const {
  struct stat here = {}, there = {};
  return ::fstat(top_.get(), &here) == 0 && ::lstat(path_.c_str(), &there) == 0 &&
         here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

std::optional<std::filesystem::path> PlainFolder::moved_to() const {
  struct stat here = {};
  if (::fstat(top_.get(), &here) != 0 || here.st_nlink == 0) return std::nullopt;
  std::error_code error;
  const auto path =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(top_.get()), error);
  return error ? std::nullopt : std::optional(path);
}

FileDescriptor PlainFolder::open(const std::string& path, int flags, mode_t mode) const {
  return runner::open_beneath(top_.get(), path, flags, mode);
}

std::optional<struct stat> PlainFolder::look(const std::string& path) const {
  const FileDescriptor file = open(path, O_PATH | O_NOFOLLOW);
  struct stat status = {};
  if (!file || ::fstat(file.get(), &status) != 0) return std::nullopt;
  return status;
}

std::optional<std::string> PlainFolder::read(const std::string& path, std::size_t bytes_max) const {
  const FileDescriptor file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  struct stat status = {};
  if (!file || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  if (static_cast<std::size_t>(status.st_size) > bytes_max) return std::nullopt;
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t got = ::read(file.get(), bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("cannot read", (path_ / path).string());
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  bytes.resize(filled);
  return bytes;
}

std::optional<std::string> PlainFolder::link(const std::string& path) const {
  const FileDescriptor file = open(path, O_PATH | O_NOFOLLOW);
  std::array<char, PATH_MAX> target{};
  const ssize_t length = file ? ::readlinkat(file.get(), "", target.data(), target.size()) : -1;
  if (length < 0) return std::nullopt;
  return std::string(target.data(), static_cast<std::size_t>(length));
}

std::vector<std::string> PlainFolder::names(const std::string& path) const {
  std::vector<std::string> names;
  FileDescriptor folder = open(path, kFolder | O_NOFOLLOW);
  const std::unique_ptr<DIR, CloseDirectory> entries(folder ? ::fdopendir(folder.get()) : nullptr);
  if (!entries) return names;
  folder.release();
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool PlainFolder::make_room(const std::string& path) const {
  for (std::size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    const FileDescriptor above = open(parent_of(part), O_PATH | O_DIRECTORY);
    if (!above) return false;
    if (::mkdirat(above.get(), name_of(part).c_str(), 0777) != 0 && errno != EEXIST) return false;
  }
  return static_cast<bool>(open(parent_of(path), O_PATH | O_DIRECTORY));
}

void PlainFolder::clear_way(const std::string& path) const {
  for (std::size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    const auto there = look(part);
    if (there && !S_ISDIR(there->st_mode)) remove(part);
  }
  const auto there = look(path);
  if (there && S_ISDIR(there->st_mode)) remove(path);
  if (!make_room(path)) throw_errno("cannot make the folder of", (path_ / path).string());
}

// `make` makes the new file under a name of its own, which then takes the place.
template <class Make>
void PlainFolder::replace(const std::string& path, Make make) const {
  clear_way(path);
  const FileDescriptor folder = open(parent_of(path), kFolder);
  const std::string draft = ".necrocode-" + random_hex(8);
  if (!folder || !make(folder.get(), draft.c_str())) {
    throw_errno("cannot write", (path_ / path).string());
  }
  if (::renameat(folder.get(), draft.c_str(), folder.get(), name_of(path).c_str()) != 0) {
    const int error = std::exchange(errno, 0);
    ::unlinkat(folder.get(), draft.c_str(), 0);
    errno = error;
    throw_errno("cannot replace", (path_ / path).string());
  }
}

void PlainFolder::write(const std::string& path, std::string_view bytes, mode_t mode) const {
  replace(path, [&](int folder, const char* draft) {
    const FileDescriptor file(
        ::openat(folder, draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
    if (file) write_all(file.get(), bytes);
    return file && ::fchmod(file.get(), mode) == 0;
  });
}

void PlainFolder::write_link(const std::string& path, const std::string& target) const {
  replace(path, [&](int folder, const char* draft) {
    return ::symlinkat(target.c_str(), folder, draft) == 0;
  });
}

bool PlainFolder::remove(const std::string& path) const {
  const FileDescriptor folder = open(parent_of(path), O_PATH | O_DIRECTORY);
  if (!folder) return errno == ENOENT;
  if (::unlinkat(folder.get(), name_of(path).c_str(), 0) == 0 || errno == ENOENT) return true;
  // The one link on this way is the kernel's, to the folder that is open here.
  return remove_tree("/proc/self/fd/" + std::to_string(folder.get()) + "/" + name_of(path));
}

}  // namespace necrocode::exec
