#include "necrocode/exec/closed_paths.hpp"

#include <fcntl.h>
#include <unistd.h>

namespace necrocode::exec {
namespace {

constexpr std::size_t kPathsMax = 100'000;
constexpr int kDepthMax = 512;  // a descriptor each, as git::nested_repositories()

class Walk {
 public:
  /// `keep`: none is opened without it.
  explicit Walk(const std::set<std::string>* keep) : keep_(keep) {}

  ClosedPaths run(const PlainFolder& work_tree) {
    for (const std::string& name : work_tree.names(".")) {
      if (name != ".git") look_at(work_tree, name, 0);
    }
    return std::move(found_);
  }

 private:
  void look_at(const PlainFolder& work_tree, const std::string& path, int depth) {
    const FileDescriptor file = work_tree.open(path, O_PATH | O_NOFOLLOW);
    struct stat status = {};
    if (!file || ::fstat(file.get(), &status) != 0) return;
    const bool is_folder = S_ISDIR(status.st_mode);
    if (!is_folder && !S_ISREG(status.st_mode)) return;
    const std::string place = "/proc/self/fd/" + std::to_string(file.get());
    const mode_t needed = is_folder ? S_IRWXU : S_IRUSR;
    if ((status.st_mode & needed) != needed) {
      if (keep_ && !keep_->contains(path) && status.st_uid == ::geteuid()) {
        // The one link on this way is the kernel's, to what is open here.
        ::chmod(place.c_str(), (status.st_mode & 07777) | needed);
      }
      if (found_.closed.size() < kPathsMax) found_.closed.insert(path);
    }
    if (::faccessat(AT_FDCWD, place.c_str(), is_folder ? R_OK | X_OK : R_OK, AT_EACCESS) != 0) {
      if (found_.unreadable.size() < kPathsMax) found_.unreadable.push_back(path);
    } else if (is_folder && depth < kDepthMax) {
      for (const std::string& name : work_tree.names(path)) {
        look_at(work_tree, path + "/" + name, depth + 1);
      }
    }
  }

  const std::set<std::string>* keep_;
  ClosedPaths found_;
};

}  // namespace

ClosedPaths find_closed(const PlainFolder& work_tree) {
  return Walk(nullptr).run(work_tree);
}

ClosedPaths open_closed(const PlainFolder& work_tree, const std::set<std::string>& keep) {
  return Walk(&keep).run(work_tree);
}

}  // namespace necrocode::exec
