// PlainFolder: a folder as plain data, whatever a program made of it: read and written beneath its
// top, through no link, never waiting for a FIFO.
#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/file.hpp"

namespace necrocode::exec {

/// "a/b" of "a/b/c"; "." of "c".
std::string parent_of(const std::string& path);
/// "c" of "a/b/c".
std::string name_of(const std::string& path);

/// Paths are relative, without "." and "..".
class PlainFolder {
 public:
  /// Throws StorageError when it cannot be opened.
  explicit PlainFolder(std::filesystem::path path);
  const std::filesystem::path& path() const { return path_; }
  /// Whether the folder is still at its path.
  bool is_in_place() const;
  /// Where it is now, when somebody moved it; nothing when it was removed.
  std::optional<std::filesystem::path> moved_to() const;
  /// Opens what is at the path now. Throws StorageError.
  void reopen();

  /// openat2 beneath; no descriptor, with errno, on failure.
  FileDescriptor open(const std::string& path, int flags, mode_t mode = 0) const;
  /// lstat, or nothing.
  std::optional<struct stat> look(const std::string& path) const;
  /// Of a regular file of at most `bytes_max` bytes, else nothing.
  std::optional<std::string> read(const std::string& path, std::size_t bytes_max) const;
  /// Where a link leads, else nothing.
  std::optional<std::string> link(const std::string& path) const;
  /// In a folder, ordered; none where there is no folder. "." is the top.
  std::vector<std::string> names(const std::string& path) const;

  /// Makes the folders above `path`; false where something else stands in the way.
  bool make_room(const std::string& path) const;
  /// Atomic: a reader sees the old content or the new. Whatever stands in the way is removed, at
  /// `path` and above it. Throws StorageError.
  void write(const std::string& path, std::string_view bytes, mode_t mode) const;
  void write_link(const std::string& path, const std::string& target) const;
  /// With all below it; true when nothing is there any more.
  bool remove(const std::string& path) const;

 private:
  void clear_way(const std::string& path) const;
  template <class Make>
  void replace(const std::string& path, Make make) const;
  std::filesystem::path path_;
  FileDescriptor top_;
};

}  // namespace necrocode::exec
