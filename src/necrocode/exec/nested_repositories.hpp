// NestedRepositories: git directories in a work tree beside the clone's own: submodules, clones in
// ignored folders. The user's next git may run what their configuration names. So those that were
// there stay as they were, and those that a program made are put out of use.
#pragma once

#include <filesystem>
#include <list>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "necrocode/exec/plain_folder.hpp"
#include "necrocode/exec/steering_files.hpp"

namespace necrocode::exec {

class NestedRepositories {
 public:
  /// Looks at those that are there now. `covered`: the program will not reach git_dirs(). Throws
  /// ResourceLimitError for more than 500.
  NestedRepositories(std::filesystem::path root, bool covered);

  /// The folders that hold a `.git`, relative.
  const std::set<std::string>& paths() const { return paths_; }
  /// What a program must not write: each `.git`, and what it names in the work tree. Absolute.
  std::vector<std::filesystem::path> git_dirs() const;
  /// What was not as before, and is again, or was made since, and is renamed; told in words.
  std::vector<std::string> put_back() const;

 private:
  struct GitDir {
    std::string path;                    ///< relative; `.git`, or what that names
    std::optional<std::string> file;     ///< its content
    std::optional<std::string> link;     ///< where it leads
    std::optional<PlainFolder> folder;   ///< where it is one
    std::optional<SteeringFiles> files;  ///< where the program reaches them
  };
  void add(const std::string& path);
  void add_target(const std::string& path, const std::string& target);
  void put_back(const GitDir& git_dir, std::vector<std::string>& told) const;
  bool return_folder(const GitDir& git_dir) const;
  std::string disarm(const std::string& path) const;

  std::filesystem::path root_;
  bool covered_;
  PlainFolder top_;
  std::set<std::string> paths_;
  std::set<std::string> known_;
  std::list<GitDir> git_dirs_;  ///< the steering files know the folder by its address
};

}  // namespace necrocode::exec
