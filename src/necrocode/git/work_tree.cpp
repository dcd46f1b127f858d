#include "necrocode/git/work_tree.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <unordered_set>

#include "necrocode/base/check.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/ids.hpp"

namespace necrocode::git {
namespace {

namespace fs = std::filesystem;

constexpr int kDepthMax =
    512;  // folders below each other; each holds a descriptor while we are in it
constexpr int kHoistedMax = 10'000;  // so deep folders in one tree

std::string reason() {
  return std::generic_category().message(errno);
}

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

/// Opens a folder below `parent`, never through a link.
Directory open_folder(int parent, const char* name) {
  FileDescriptor fd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return nullptr;
  Directory directory(::fdopendir(fd.get()));
  if (directory) fd.release();
  return directory;
}

bool is_dots(std::string_view name) {
  return name == "." || name == "..";
}

std::vector<std::string> names_in(DIR* directory) {
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(directory)) {
    if (!is_dots(entry->d_name)) names.emplace_back(entry->d_name);
  }
  return names;
}

/// Removes names and all below them, on one file system.
class Remover {
 public:
  /// `top`: an open folder of the tree; what lies too deep is first moved there.
  Remover(int top, dev_t device) : top_(top), device_(device) {}

  /// False, with errno, when something stays.
  bool remove(int parent, const char* name) {
    bool removed = remove_below(parent, name, 0);
    // Each may move others up, from further down; the tree ends somewhere.
    while (removed && !hoisted_.empty()) {
      const std::string next = std::move(hoisted_.back());
      hoisted_.pop_back();
      removed = remove_below(top_, next.c_str(), 0);
    }
    return removed;
  }

 private:
  bool remove_below(int parent, const char* name, int depth) {
    if (::unlinkat(parent, name, 0) == 0) return true;
    if (errno != EISDIR && errno != EPERM) return false;
    struct stat status = {};
    if (::fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) != 0) return false;
    if (!S_ISDIR(status.st_mode)) {
      errno = EPERM;
      return false;
    }
    if (status.st_dev != device_) {
      errno = EBUSY;
      return false;
    }
    if (::unlinkat(parent, name, AT_REMOVEDIR) == 0) return true;
    if ((status.st_mode & S_IRWXU) != S_IRWXU) {
      // A folder without w or x keeps what is in it. fchmodat would follow a link put there
      // meanwhile; the worst it can do is to give the owner access to a folder that is the owner's.
      ::fchmodat(parent, name, 0700, 0);
    }
    if (depth > kDepthMax) return hoist(parent, name);
    const Directory directory = open_folder(parent, name);
    if (!directory) return false;
    for (const std::string& child : names_in(directory.get())) {
      if (!remove_below(::dirfd(directory.get()), child.c_str(), depth + 1)) return false;
    }
    return ::unlinkat(parent, name, AT_REMOVEDIR) == 0;
  }

  bool hoist(int parent, const char* name) {
    const std::string place = ".necrocode-deep-" + random_hex(8);
    if (++hoists_ > kHoistedMax) {
      errno = ELOOP;
      return false;
    }
    if (::renameat(parent, name, top_, place.c_str()) != 0) return false;
    hoisted_.push_back(place);
    return true;
  }

  int top_;
  dev_t device_;
  int hoists_ = 0;
  std::vector<std::string> hoisted_;
};

bool matches(const IndexEntry& entry, const struct stat& status) {
  const mode_t type = status.st_mode & S_IFMT;
  if (type != (entry.mode & S_IFMT)) return false;
  if (type == S_IFREG && ((status.st_mode & S_IXUSR) != 0) != ((entry.mode & S_IXUSR) != 0))
    return false;
  const auto low = [](auto number) { return static_cast<std::uint32_t>(number); };
  return low(status.st_size) == entry.size && low(status.st_ino) == entry.inode &&
         low(status.st_uid) == entry.uid && low(status.st_gid) == entry.gid &&
         low(status.st_mtim.tv_sec) == entry.mtime_seconds &&
         low(status.st_mtim.tv_nsec) == entry.mtime_nanoseconds &&
         low(status.st_ctim.tv_sec) == entry.ctime_seconds &&
         low(status.st_ctim.tv_nsec) == entry.ctime_nanoseconds;
}

class Walk {
 public:
  Walk(const std::vector<IndexEntry>& index, bool remove, const std::set<std::string>& keep,
       fs::path aside = {})
      : remove_(remove), keep_(keep), aside_(std::move(aside)) {
    entries_.reserve(index.size());
    for (const IndexEntry& entry : index) {
      entries_.emplace(entry.path, &entry);
      for (std::string_view path = entry.path; path.find('/') != std::string_view::npos;) {
        path = path.substr(0, path.rfind('/'));
        if (!folders_.insert(path).second) break;
      }
    }
  }

  TreeComparison run(const fs::path& work_tree) {
    struct stat status = {};
    if (::lstat(work_tree.c_str(), &status) != 0) throw_errno("cannot look at", work_tree.string());
    if (remove_ && (status.st_mode & S_IRWXU) != S_IRWXU) {
      ::chmod(work_tree.c_str(), status.st_mode | S_IRWXU);
    }
    const Directory top = open_folder(AT_FDCWD, work_tree.c_str());
    if (!top) throw_errno("cannot open", work_tree.string());
    device_ = status.st_dev;
    remover_.emplace(::dirfd(top.get()), device_);
    visit(top.get(), "", 0);
    for (const auto& [path, entry] : entries_) {
      if (!seen_.contains(path)) differs(path);
    }
    return std::move(result_);
  }

 private:
  void visit(DIR* directory, const std::string& prefix, int depth) {
    const int fd = ::dirfd(directory);
    NECROCODE_CHECK(fd >= 0);
    for (const std::string& name : names_in(directory)) {
      if (prefix.empty() && name == ".git") continue;
      const std::string path = prefix + name;
      struct stat status = {};
      if (::fstatat(fd, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
        fails(path, reason());
        continue;
      }
      const auto entry = entries_.find(path);
      if (entry != entries_.end() && entry->second->is_submodule()) {
        // Its files are not part of this tree: an empty folder is what a checkout makes.
        if (S_ISDIR(status.st_mode)) {
          enter(fd, name, path, status, depth);
          seen_.insert(entry->first);
        } else {
          wrong(fd, name, path);
        }
      } else if (entry != entries_.end() && matches(*entry->second, status)) {
        seen_.insert(entry->first);
        ++result_.files;
        result_.disk_bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
      } else if (S_ISDIR(status.st_mode) && folders_.contains(path)) {
        enter(fd, name, path, status, depth);
      } else if (keep_.contains(path)) {
        // What is in a folder that nobody may open is not known, so it stays.
        const bool open = (status.st_mode & S_IRWXU) == S_IRWXU;
        if (S_ISDIR(status.st_mode) && open) enter(fd, name, path, status, depth);
      } else {
        wrong(fd, name, path);
      }
    }
  }

  void enter(int parent, const std::string& name, const std::string& path,
             const struct stat& status, int depth) {
    if (status.st_dev != device_) return fails(path, "another file system is mounted here");
    if (depth > kDepthMax) return fails(path, "too deep");
    if ((status.st_mode & S_IRWXU) != S_IRWXU) {
      differs(path);
      if (remove_) ::fchmodat(parent, name.c_str(), 0755, 0);
    }
    const Directory directory = open_folder(parent, name.c_str());
    if (!directory) return fails(path, reason());
    visit(directory.get(), path + "/", depth + 1);
  }

  void wrong(int parent, const std::string& name, const std::string& path) {
    differs(path);
    if (!remove_) return;
    const bool gone = aside_.empty() ? remover_->remove(parent, name.c_str())
                                     : move_aside(parent, name.c_str(), path);
    if (!gone) fails(path, reason());
  }
  // A rename needs no permission in what is renamed, and follows no link.
  bool move_aside(int parent, const char* name, const std::string& path) const {
    const fs::path target = aside_ / path;
    std::error_code error;
    fs::create_directories(target.parent_path(), error);
    return ::renameat(parent, name, AT_FDCWD, target.c_str()) == 0;
  }
  void differs(std::string_view path) {
    ++result_.difference_count;
    if (result_.differences.size() < TreeComparison::kDifferencesMax)
      result_.differences.emplace_back(path);
  }
  void fails(const std::string& path, const std::string& why) {
    if (result_.failures.size() < TreeComparison::kDifferencesMax)
      result_.failures.push_back(path + ": " + why);
  }

  bool remove_;
  const std::set<std::string>& keep_;
  fs::path aside_;
  dev_t device_ = 0;
  std::optional<Remover> remover_;
  std::unordered_map<std::string_view, const IndexEntry*> entries_;
  std::unordered_set<std::string_view> folders_;
  std::unordered_set<std::string_view> seen_;
  TreeComparison result_;
};

bool is_special(unsigned char type) {
  return type == DT_FIFO || type == DT_SOCK || type == DT_CHR || type == DT_BLK;
}

void find_repositories(DIR* directory, const std::string& prefix, int depth,
                       std::vector<std::string>& found, std::vector<std::string>* special) {
  std::vector<std::string> folders;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string_view name = entry->d_name;
    if (is_dots(name)) continue;
    if (name == ".git") {
      if (!prefix.empty()) found.push_back(prefix.substr(0, prefix.size() - 1));
    } else if (entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN) {
      folders.emplace_back(name);
    } else if (special && is_special(entry->d_type)) {
      special->push_back(prefix + std::string(name));
    }
  }
  for (const std::string& name : folders) {
    const Directory child =
        depth < kDepthMax ? open_folder(::dirfd(directory), name.c_str()) : nullptr;
    if (child) find_repositories(child.get(), prefix + name + "/", depth + 1, found, special);
  }
}

}  // namespace

TreeComparison compare_tree(const fs::path& work_tree, const std::vector<IndexEntry>& index) {
  return Walk(index, false, {}).run(work_tree);
}

TreeComparison sweep_tree(const fs::path& work_tree, const std::vector<IndexEntry>& index,
                          const std::set<std::string>& keep, const fs::path& aside) {
  return Walk(index, true, keep, aside).run(work_tree);
}

void wait_for_next_tick(const std::vector<IndexEntry>& index) {
  std::pair<std::uint32_t, std::uint32_t> newest{0, 0};
  for (const IndexEntry& entry : index) {
    newest = std::max(newest, {entry.ctime_seconds, entry.ctime_nanoseconds});
  }
  timespec now{};
  // Bounded: a clock that was set back would have us wait for ever.
  for (int round = 0; round < 50; ++round) {
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
    const std::pair stamp{static_cast<std::uint32_t>(now.tv_sec),
                          static_cast<std::uint32_t>(now.tv_nsec)};
    if (stamp > newest) return;
    const timespec pause{0, 1'000'000};
    ::nanosleep(&pause, nullptr);
  }
}

std::vector<std::string> nested_repositories(const fs::path& work_tree,
                                             std::vector<std::string>* special) {
  std::vector<std::string> found;
  const Directory top = open_folder(AT_FDCWD, work_tree.c_str());
  if (!top) throw_errno("cannot open", work_tree.string());
  find_repositories(top.get(), "", 0, found, special);
  return found;
}

}  // namespace necrocode::git
