#include "necrocode/runner/junit_files.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/beneath.hpp"
#include "necrocode/runner/change_set.hpp"
#include "necrocode/runner/task_context.hpp"

namespace necrocode::runner {
namespace {

constexpr int kDepth = 32;

FileState state_of(const struct stat& status) {
  return {status.st_dev, status.st_ino,
          status.st_ctim.tv_sec * 1'000'000'000LL + status.st_ctim.tv_nsec};
}

/// The regular files below a folder that globs name, reached without a link.
class Search {
 public:
  explicit Search(const std::filesystem::path& root)
      : root_(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {}

  void find(const std::string& glob) {
    const std::size_t wildcard = glob.find_first_of("*?");
    if (wildcard == std::string::npos && !glob.ends_with('/')) return look_at(glob);
    const std::size_t slash = glob.rfind('/', wildcard);
    const std::string folder = slash == std::string::npos ? "" : glob.substr(0, slash);
    const std::string rest = glob.substr(folder.size());
    const bool any_depth = rest.find("**") != std::string::npos || glob.ends_with('/');
    const auto depth = std::count(rest.begin() + (folder.empty() ? 0 : 1), rest.end(), '/');
    look_in(folder, glob, any_depth ? kDepth : static_cast<int>(depth));
  }

  const std::map<std::string, FileState>& files() const { return files_; }
  bool whole() const { return entries_ <= JunitFiles::kEntries; }

 private:
  void look_at(const std::string& path) {
    const FileDescriptor file = open_beneath(root_.get(), path, O_PATH | O_NOFOLLOW);
    struct stat status = {};
    if (file && ::fstat(file.get(), &status) == 0 && S_ISREG(status.st_mode)) {
      files_[path] = state_of(status);
    }
  }

  void look_in(const std::string& folder, const std::string& glob, int depth) {
    FileDescriptor opened =
        open_beneath(root_.get(), folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY);
    if (!opened) return;
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(::fdopendir(opened.get()), ::closedir);
    if (!listing) return;
    const int fd = opened.release();  // the listing's now
    while (const dirent* entry = ::readdir(listing.get())) {
      const std::string name = entry->d_name;
      if (name == "." || name == ".." || name == ".git") continue;
      if (++entries_ > JunitFiles::kEntries) return;
      struct stat status = {};
      if (::fstatat(fd, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
      const std::string path = folder.empty() ? name : folder + "/" + name;
      if (S_ISREG(status.st_mode) && matches_any({glob}, path)) files_[path] = state_of(status);
      if (S_ISDIR(status.st_mode) && depth > 0) look_in(path, glob, depth - 1);
    }
  }

  FileDescriptor root_;
  std::size_t entries_ = 0;
  std::map<std::string, FileState> files_;
};

Search find_all(const std::filesystem::path& root, const std::vector<std::string>& globs) {
  Search search(root);
  for (const std::string& glob : globs) search.find(glob);
  return search;
}

}  // namespace

JunitFiles::JunitFiles(std::filesystem::path root, std::vector<std::string> globs)
    : root_(std::move(root)), globs_(std::move(globs)), before_(find_all(root_, globs_).files()) {}

JunitReport JunitFiles::read(const Masker& masker, std::size_t cases_max,
                             std::vector<std::string>& warnings) const {
  JunitReport whole;
  std::size_t files = 0;
  std::size_t bytes_left = kBytes;
  const Search now = find_all(root_, globs_);
  if (!now.whole()) {
    warnings.push_back("more than " + std::to_string(kEntries) +
                       " files where JUnit reports may be: the others are not looked at");
    ++whole.left_out;
  }
  for (const auto& [path, state] : now.files()) {
    const auto earlier = before_.find(path);
    if (earlier != before_.end() && earlier->second == state) continue;
    if (++files > kFiles) {
      warnings.push_back("more than " + std::to_string(kFiles) +
                         " JUnit reports: the others are not read");
      ++whole.left_out;
      break;
    }
    const auto xml = read_workspace_file(root_, path, std::min(bytes_left, kJunitFileBytes));
    try {
      if (!xml) throw InvalidResponse("it is no regular file, or too large with those before it");
      bytes_left -= xml->size();
      JunitReport one = parse_junit(*xml, masker, cases_max - whole.cases.size());
      whole.left_out += one.left_out;
      std::move(one.cases.begin(), one.cases.end(), std::back_inserter(whole.cases));
    } catch (const InvalidResponse& error) {
      warnings.push_back("\"" + printable(path) + "\" is not read: " + error.summary());
      ++whole.left_out;
    }
  }
  return whole;
}

std::vector<std::string> usual_junit_places(const std::string& folder) {
  std::vector<std::string> places;
  for (const char* place :
       {"junit.xml", "necrocode-junit.xml", "test-results.xml", "build/junit.xml",
        "build/necrocode-junit.xml", "build/meson-logs/testlog.junit.xml",
        "build/test-results/test/*.xml", "reports/*.xml", "target/failsafe-reports/TEST-*.xml",
        "target/surefire-reports/TEST-*.xml", "test-reports/*.xml", "test-results/*.xml"}) {
    places.push_back(folder.empty() ? place : folder + "/" + place);
  }
  return places;
}

}  // namespace necrocode::runner
