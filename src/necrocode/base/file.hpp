// Files of our own: owned descriptors, whole-file reads, atomic durable writes.
// Not for paths that a model or a repository named; those go through runner/ and openat2.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace necrocode {

/// Owns a file descriptor; move-only.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) noexcept : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() { reset(); }

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  int release() noexcept {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset(int fd = -1) noexcept;

 private:
  int fd_ = -1;
};

/// The whole file. Throws StorageError, also when it is larger than `bytes_max`.
std::string read_file(const std::filesystem::path& path, std::size_t bytes_max);
/// Writes all of `bytes` to `fd`, over short writes and EINTR. Throws StorageError.
void write_all(int fd, std::string_view bytes);
/// A reader sees the old content or the new, also after power loss: temporary file beside it,
/// fsync, rename, fsync of the folder. Throws StorageError.
void write_file_durable(const std::filesystem::path& path, std::string_view bytes,
                        unsigned mode = 0644);
/// The same without the syncs: atomic for readers, for files that can be made again.
void write_file_atomic(const std::filesystem::path& path, std::string_view bytes,
                       unsigned mode = 0644);
void fsync_directory(const std::filesystem::path& path);

/// A fresh folder with mode 0700, removed with all its content on destruction.
class TemporaryDirectory {
 public:
  /// Made inside `parent` (the system's temporary folder when empty).
  explicit TemporaryDirectory(std::string_view prefix = "necrocode-",
                              const std::filesystem::path& parent = {});
  TemporaryDirectory(TemporaryDirectory&& other) noexcept;
  TemporaryDirectory& operator=(TemporaryDirectory&&) = delete;
  ~TemporaryDirectory();
  const std::filesystem::path& path() const { return path_; }
  /// Leaves the folder where it is.
  void keep() { path_to_remove_.clear(); }

 private:
  std::filesystem::path path_;
  std::filesystem::path path_to_remove_;
};

/// Removes `path` and all below it, also what was made unreadable with chmod. Never follows links.
/// False when something could not be removed.
bool remove_tree(const std::filesystem::path& path);

}  // namespace necrocode
