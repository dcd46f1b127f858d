#include "necrocode/exec/program_objects.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"

namespace necrocode::exec {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kFilesMax = 200'000;
constexpr std::uint64_t kBytesMax = 4 * limits::kGiB;
constexpr std::size_t kBufferBytes = 256 * limits::kKiB;

bool is_hex(std::string_view text, std::size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == text.npos;
}

bool is_pack(std::string_view name) {
  return name.starts_with("pack-") && name.ends_with(".pack") &&
         is_hex(name.substr(5, name.size() - 10), 40);
}

class Copier {
 public:
  explicit Copier(const PlainFolder& from) : from_(from), buffer_(kBufferBytes, '\0') {}

  // What is no regular file is no object.
  bool copy(const std::string& path, const fs::path& to) {
    const FileDescriptor in = from_.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    struct stat status = {};
    if (!in || ::fstat(in.get(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
    if (++files_ > kFilesMax) too_much();
    const FileDescriptor out(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!out) throw_errno("cannot write", to.string());
    for (;;) {
      const ssize_t got = ::read(in.get(), buffer_.data(), buffer_.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_errno("cannot read", path);
      if (got == 0) return true;
      bytes_ += static_cast<std::uint64_t>(got);
      if (bytes_ > kBytesMax) too_much();
      write_all(out.get(), std::string_view(buffer_).substr(0, static_cast<std::size_t>(got)));
    }
  }

 private:
  [[noreturn]] static void too_much() {
    throw ResourceLimitError(
        "the program's git objects are more than 200 000 files or 4 GiB; they stay behind");
  }
  const PlainFolder& from_;
  std::string buffer_;
  std::size_t files_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace

std::vector<fs::path> copy_objects(const PlainFolder& git_dir, const fs::path& to) {
  std::vector<fs::path> packs;
  Copier copier(git_dir);
  for (const std::string& folder : git_dir.names("objects")) {
    const std::string path = "objects/" + folder;
    const bool loose = is_hex(folder, 2);
    if (!loose && folder != "pack") continue;
    fs::create_directories(to / folder);
    for (const std::string& name : git_dir.names(path)) {
      if (!(loose ? is_hex(name, 38) : is_pack(name))) continue;
      if (copier.copy(path + "/" + name, to / folder / name) && !loose) {
        packs.push_back(to / folder / name);
      }
    }
  }
  return packs;
}

}  // namespace necrocode::exec
