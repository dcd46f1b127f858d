#include "necrocode/net/body_sources.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace necrocode::net {
namespace {

class MemoryBody final : public BodySource {
 public:
  explicit MemoryBody(std::string bytes) : bytes_(std::move(bytes)) {}

  std::size_t read(char* buffer, std::size_t size) override {
    const std::size_t count = bytes_.copy(buffer, size, position_);
    position_ += count;
    return count;
  }
  std::uint64_t size() const override { return bytes_.size(); }
  void rewind() override { position_ = 0; }

 private:
  const std::string bytes_;
  std::size_t position_ = 0;
};

class FileBody final : public BodySource {
 public:
  FileBody(FileDescriptor fd, std::uint64_t offset, std::uint64_t size)
      : fd_(std::move(fd)), offset_(offset), size_(size) {}

  std::size_t read(char* buffer, std::size_t size) override {
    const std::size_t wanted =
        static_cast<std::size_t>(std::min<std::uint64_t>(size, size_ - position_));
    if (wanted == 0) return 0;
    ssize_t count = 0;
    do {
      // pread: the descriptor's own position stays out of it, so a rewind cannot miss.
      count = ::pread(fd_.get(), buffer, wanted, static_cast<off_t>(offset_ + position_));
    } while (count < 0 && errno == EINTR);
    if (count < 0) throw_errno("cannot read the file to send");
    if (count == 0) throw StorageError("the file became shorter while it was sent");
    position_ += static_cast<std::uint64_t>(count);
    return static_cast<std::size_t>(count);
  }
  std::uint64_t size() const override { return size_; }
  void rewind() override { position_ = 0; }

 private:
  const FileDescriptor fd_;
  const std::uint64_t offset_;
  const std::uint64_t size_;
  std::uint64_t position_ = 0;
};

}  // namespace

std::shared_ptr<BodySource> memory_body(std::string bytes) {
  return std::make_shared<MemoryBody>(std::move(bytes));
}

std::shared_ptr<BodySource> file_body(FileDescriptor fd, std::uint64_t offset, std::uint64_t size) {
  return std::make_shared<FileBody>(std::move(fd), offset, size);
}

}  // namespace necrocode::net
