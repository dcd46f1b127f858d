#include "necrocode/exec/nested_repositories.hpp"

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/git/work_tree.hpp"

namespace necrocode::exec {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kRepositoriesMax = 500;  // a mount or a descriptor each
constexpr std::size_t kToldMax = 100;
constexpr std::size_t kFileBytes = 64 * limits::kKiB;
constexpr int kNamesTried = 100;
const std::string kMoved = ".git.necrocode-moved";

}  // namespace

NestedRepositories::NestedRepositories(fs::path root, bool covered)
    : root_(std::move(root)), covered_(covered), top_(root_) {
  for (const std::string& path : git::nested_repositories(root_)) {
    if (paths_.size() == kRepositoriesMax) {
      throw ResourceLimitError(
          "the work tree holds more than 500 repositories of their own, which are too many to be "
          "protected");
    }
    paths_.insert(path);
    add(path + "/.git");
  }
}

void NestedRepositories::add(const std::string& path) {
  if (!known_.insert(path).second) return;
  const auto status = top_.look(path);
  if (!status) return;
  GitDir& git_dir = git_dirs_.emplace_back();
  git_dir.path = path;
  if (S_ISDIR(status->st_mode)) {
    if (covered_) return;
    git_dir.folder.emplace(root_ / path);
    git_dir.files.emplace(*git_dir.folder, false);
  } else if (S_ISLNK(status->st_mode)) {
    git_dir.link = top_.link(path);
    if (git_dir.link) add_target(path, *git_dir.link);
  } else if ((git_dir.file = top_.read(path, kFileBytes))) {
    const std::string_view text = trim(*git_dir.file);
    if (text.starts_with("gitdir: ")) add_target(path, std::string(text.substr(8)));
  }
}

// What lies in the work tree is in the program's reach; the clone's own git directory is not.
void NestedRepositories::add_target(const std::string& path, const std::string& target) {
  std::error_code error;
  const fs::path place = fs::weakly_canonical(root_ / parent_of(path) / target, error);
  const std::string inner = place.lexically_relative(root_).generic_string();
  if (error || inner == "." || inner.starts_with("..") || (inner + "/").starts_with(".git/")) {
    return;
  }
  add(inner);
}

std::vector<fs::path> NestedRepositories::git_dirs() const {
  std::vector<fs::path> places;
  for (const GitDir& git_dir : git_dirs_) {
    if (!git_dir.link && top_.look(git_dir.path)) places.push_back(root_ / git_dir.path);
  }
  return places;
}

std::vector<std::string> NestedRepositories::put_back() const {
  std::vector<std::string> told;
  for (const GitDir& git_dir : git_dirs_) {
    try {
      put_back(git_dir, told);
    } catch (const RunnerError&) {
      told.push_back(printable(git_dir.path) + " (could not be put back)");
    }
  }
  std::size_t made = 0;
  for (const std::string& path : git::nested_repositories(root_)) {
    if (paths_.contains(path)) continue;
    std::string words = disarm(path + "/.git");
    if (++made <= kToldMax) told.push_back(std::move(words));
  }
  if (made > kToldMax) {
    told.push_back(std::to_string(made - kToldMax) + " more repositories of the program's");
  }
  return told;
}

void NestedRepositories::put_back(const GitDir& git_dir, std::vector<std::string>& told) const {
  const std::string& path = git_dir.path;
  const std::string name = printable(path);
  if (git_dir.file && top_.read(path, kFileBytes) != git_dir.file) {
    top_.write(path, *git_dir.file, 0644);
    told.push_back(name);
  } else if (git_dir.link && top_.link(path) != git_dir.link) {
    top_.write_link(path, *git_dir.link);
    told.push_back(name);
  } else if (git_dir.folder) {
    if (!git_dir.folder->is_in_place()) {
      const bool returned = return_folder(git_dir);
      told.push_back(name + (returned ? "" : " (could not be put back)"));
      if (!returned) return;
    }
    for (const auto& [file, lost, found] : git_dir.files->put_back()) {
      told.push_back(name + "/" + printable(file) + (lost ? " (could not be put back)" : ""));
    }
  }
}

bool NestedRepositories::return_folder(const GitDir& git_dir) const {
  const auto moved = git_dir.folder->moved_to();
  if (top_.look(git_dir.path)) disarm(git_dir.path);
  if (!moved || !top_.make_room(git_dir.path)) return false;
  const FileDescriptor above = top_.open(parent_of(git_dir.path), O_PATH | O_DIRECTORY);
  return above && ::renameat2(AT_FDCWD, moved->c_str(), above.get(), name_of(git_dir.path).c_str(),
                              RENAME_NOREPLACE) == 0;
}

// Under another name git does not find it. Nothing is lost.
std::string NestedRepositories::disarm(const std::string& path) const {
  const std::string told = printable(path) + " (a repository of the program's; ";
  const FileDescriptor above = top_.open(parent_of(path), O_PATH | O_DIRECTORY);
  for (int i = 1; above && i <= kNamesTried; ++i) {
    const std::string name = i == 1 ? kMoved : kMoved + "-" + std::to_string(i);
    if (::renameat2(above.get(), name_of(path).c_str(), above.get(), name.c_str(),
                    RENAME_NOREPLACE) == 0) {
      return told + "it is " + name + " there now)";
    }
    if (errno != EEXIST) break;
  }
  return told + "it could not be renamed: run no git there)";
}

}  // namespace necrocode::exec
