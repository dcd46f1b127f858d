#include "necrocode/git/index_file.hpp"

#include <string_view>

#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/git/repository.hpp"

namespace necrocode::git {
namespace {

constexpr std::size_t kIndexBytes = limits::kGiB;
constexpr std::size_t kObjectIdBytes = 20;
constexpr std::size_t kFixedBytes = 40 + kObjectIdBytes + 2;  // ten numbers, the id, the flags

[[noreturn]] void malformed(std::string_view what) {
  ErrorInfo info;
  info.service = "git";
  info.operation = "read-index";
  throw GitError("the index is not one of ours: " + std::string(what), std::move(info));
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  std::string_view take(std::size_t count) {
    if (bytes_.size() - at_ < count) malformed("cut off");
    const std::string_view piece = bytes_.substr(at_, count);
    at_ += count;
    return piece;
  }
  std::uint32_t number() { return big_endian(take(4)); }
  std::uint32_t short_number() { return big_endian(take(2)); }
  std::string_view until_nul() {
    const std::size_t end = bytes_.find('\0', at_);
    if (end == std::string_view::npos) malformed("a path without end");
    return take(end - at_);
  }
  std::size_t at() const { return at_; }
  std::size_t left() const { return bytes_.size() - at_; }

 private:
  static std::uint32_t big_endian(std::string_view bytes) {
    std::uint32_t value = 0;
    for (const char byte : bytes) value = (value << 8) | static_cast<unsigned char>(byte);
    return value;
  }
  std::string_view bytes_;
  std::size_t at_ = 0;
};

IndexEntry read_entry(Reader& reader) {
  const std::size_t start = reader.at();
  IndexEntry entry;
  entry.ctime_seconds = reader.number();
  entry.ctime_nanoseconds = reader.number();
  entry.mtime_seconds = reader.number();
  entry.mtime_nanoseconds = reader.number();
  reader.number();  // the device: differs between mounts of one file system
  entry.inode = reader.number();
  entry.mode = reader.number();
  entry.uid = reader.number();
  entry.gid = reader.number();
  entry.size = reader.number();
  reader.take(kObjectIdBytes);
  const std::uint32_t flags = reader.short_number();
  // Bits: assume-unchanged, extended, stage (2), length (12).
  if ((flags & 0xf000) != 0) malformed("an entry is unmerged, or hidden from checks");
  entry.path = reader.until_nul();
  if (entry.path.empty()) malformed("an empty path");
  // One to eight NULs, so that an entry's length is a multiple of eight.
  reader.take(8 - (reader.at() - start) % 8);
  return entry;
}

void check_extensions(Reader& reader) {
  while (reader.left() > kObjectIdBytes) {
    const std::string_view name = reader.take(4);
    // An optional extension begins with a capital letter; others (split, sparse) change the
    // meaning.
    if (name[0] < 'A' || name[0] > 'Z') malformed("split or sparse");
    reader.take(reader.number());
  }
}

}  // namespace

std::vector<IndexEntry> read_index(const std::filesystem::path& file) {
  const std::string bytes = read_file(file, kIndexBytes);
  Reader reader(bytes);
  if (reader.take(4) != "DIRC") malformed("no index");
  const std::uint32_t version = reader.number();
  if (version != 2 && version != 3) malformed("version " + std::to_string(version));
  const std::uint32_t count = reader.number();
  if (count > bytes.size() / kFixedBytes) malformed("more entries than bytes");
  std::vector<IndexEntry> entries;
  entries.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) entries.push_back(read_entry(reader));
  check_extensions(reader);
  return entries;
}

}  // namespace necrocode::git
