#include "necrocode/exec/plain_git.hpp"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/git/repository.hpp"

namespace necrocode::exec {
namespace {

constexpr std::size_t kRefsMax = 100'000;
constexpr std::size_t kPackedBytes = 64 * limits::kMiB;
constexpr std::size_t kLooseBytes = 4 * limits::kKiB;
constexpr std::size_t kIndexBytes = limits::kGiB;
constexpr std::string_view kRefs = "refs/";
constexpr int kDepthMax = 32;

bool is_kept(std::string_view name) {
  const bool kind = name.starts_with("refs/heads/") || name.starts_with("refs/tags/") ||
                    name.starts_with("refs/remotes/");
  return kind && git::is_branch_name(name.substr(kRefs.size()));
}

void add(Refs& refs, std::string_view name, std::string_view id) {
  if (!is_kept(name) || !git::is_object_id(id)) return;
  refs.insert_or_assign(std::string(name), std::string(id));
  if (refs.size() > kRefsMax) throw ResourceLimitError("the clone has more than 100 000 refs");
}

void read_loose(const PlainFolder& git_dir, const std::string& path, int depth, Refs& refs) {
  for (const std::string& name : git_dir.names(path)) {
    const std::string below = path + "/" + name;
    const auto status = git_dir.look(below);
    if (status && S_ISDIR(status->st_mode) && depth < kDepthMax) {
      read_loose(git_dir, below, depth + 1, refs);
    } else if (const auto id = git_dir.read(below, kLooseBytes)) {
      add(refs, below, trim(*id));
    }
  }
}

}  // namespace

std::string in_quotes(std::string_view value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '\n') {
      text += "\\n";
    } else {
      if (c == '"' || c == '\\') text += '\\';
      text += c;
    }
  }
  return text + "\"";
}

Refs read_refs(const PlainFolder& git_dir) {
  Refs refs;
  const std::string packed_refs = git_dir.read("packed-refs", kPackedBytes).value_or("");
  for (const std::string_view line : split(packed_refs, '\n')) {
    const std::size_t space = line.find(' ');
    if (space != std::string_view::npos) add(refs, line.substr(space + 1), line.substr(0, space));
  }
  for (const char* kind : {"refs/heads", "refs/tags", "refs/remotes"}) {
    read_loose(git_dir, kind, 0, refs);
  }
  return refs;
}

std::string ref_in(const Refs& refs, const std::string& name) {
  const auto found = refs.find(name);
  return found == refs.end() ? std::string() : found->second;
}

std::string packed(const Refs& refs) {
  std::string text = "# pack-refs with: sorted \n";
  for (const auto& [name, id] : refs) text.append(id).append(" ").append(name).append("\n");
  return text;
}

LockedFile::LockedFile(const PlainFolder& folder, std::string path)
    : folder_(&folder), path_(std::move(path)) {}

LockedFile::LockedFile(LockedFile&& other) noexcept
    : folder_(std::exchange(other.folder_, nullptr)), path_(std::move(other.path_)) {}

LockedFile& LockedFile::operator=(LockedFile&& other) noexcept {
  std::swap(folder_, other.folder_);
  path_.swap(other.path_);
  return *this;
}

LockedFile::~LockedFile() {
  const FileDescriptor above =
      folder_ ? folder_->open(parent_of(path_), O_PATH | O_DIRECTORY) : FileDescriptor();
  if (above) ::unlinkat(above.get(), (name_of(path_) + ".lock").c_str(), 0);
}

std::optional<LockedFile> LockedFile::make(const PlainFolder& folder, const std::string& path,
                                           std::string_view bytes) {
  if (!folder.make_room(path)) return std::nullopt;
  const FileDescriptor above = folder.open(parent_of(path), O_PATH | O_DIRECTORY);
  if (!above) return std::nullopt;
  // Whole before it becomes the lock: who finds a lock that was left finds the right content.
  const std::string draft = ".necrocode-" + random_hex(8);
  const FileDescriptor file(::openat(above.get(), draft.c_str(),
                                     O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!file) throw_errno("cannot write", (folder.path() / path).string());
  bool locked = false;
  int error = 0;
  try {
    write_all(file.get(), bytes);
    if (::fsync(file.get()) != 0) throw_errno("cannot write", (folder.path() / path).string());
    locked = ::renameat2(above.get(), draft.c_str(), above.get(), (name_of(path) + ".lock").c_str(),
                         RENAME_NOREPLACE) == 0;
    error = errno;
  } catch (...) {
    ::unlinkat(above.get(), draft.c_str(), 0);
    throw;
  }
  if (locked) return LockedFile(folder, path);
  ::unlinkat(above.get(), draft.c_str(), 0);
  errno = error;
  if (error != EEXIST) throw_errno("cannot lock", (folder.path() / path).string());
  return std::nullopt;
}

void LockedFile::commit() {
  const FileDescriptor above = folder_->open(parent_of(path_), O_RDONLY | O_DIRECTORY);
  const std::string name = name_of(path_);
  // git leaves empty folders behind where branches were.
  if (above) ::unlinkat(above.get(), name.c_str(), AT_REMOVEDIR);
  if (!above || ::renameat(above.get(), (name + ".lock").c_str(), above.get(), name.c_str()) != 0) {
    throw_errno("cannot replace", (folder_->path() / path_).string());
  }
  folder_ = nullptr;
  ::fsync(above.get());
}

std::optional<LockedFile> lock_ref(const PlainFolder& git_dir, const std::string& name,
                                   const std::string& from, const std::string& to) {
  if (!is_kept(name) || !git::is_object_id(to)) return std::nullopt;
  auto lock = LockedFile::make(git_dir, name, to + "\n");
  if (lock && ref_in(read_refs(git_dir), name) != from) return std::nullopt;
  return lock;
}

bool copy_index(const PlainFolder& git_dir, const std::filesystem::path& to) {
  bool found = false;
  for (const std::string& name : git_dir.names(".")) {
    if (name != "index" && !name.starts_with("sharedindex.")) continue;
    const auto status = git_dir.look(name);
    const auto bytes = git_dir.read(name, kIndexBytes);
    if (!status || !bytes) continue;
    write_file_atomic(to / name, *bytes);
    const std::array times = {status->st_atim, status->st_mtim};
    if (::utimensat(AT_FDCWD, (to / name).c_str(), times.data(), 0) != 0) {
      throw_errno("cannot set the time of", (to / name).string());
    }
    found = found || name == "index";
  }
  return found;
}

void append_log(const PlainFolder& git_dir, const std::string& name, const std::string& line,
                bool make) {
  const std::string path = "logs/" + name;
  if (make && !git_dir.make_room(path)) return;
  const int flags = O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | (make ? O_CREAT : 0);
  const FileDescriptor file = git_dir.open(path, flags, make ? 0666 : 0);
  struct stat status = {};
  if (!file || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return;
  write_all(file.get(), line);
}

}  // namespace necrocode::exec
