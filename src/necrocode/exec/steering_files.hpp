// SteeringFiles: what steers git in a git directory beside refs, objects and index: configuration,
// hooks, attributes, alternates and the like, as they were at one time, to be had again.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "necrocode/exec/plain_folder.hpp"

namespace necrocode::exec {

class SteeringFiles {
 public:
  /// Looks at `git_dir`, which must outlive this object. `with_refs`: also at HEAD and all refs.
  /// Files of more than 1 MiB, and more than 64 MiB together, are known by their times only.
  SteeringFiles(const PlainFolder& git_dir, bool with_refs);
  /// What differs now: each is as it was again, or `lost`, when its content was not kept. Of those
  /// that were not there the first 1000 are told by name, the rest as one, by their number.
  struct Difference {
    std::string path;
    bool lost = false;
    std::string found{};  ///< what a ref was at
  };
  std::vector<Difference> put_back() const;
  /// `path` shall be as it is now.
  void accept(const std::string& path);

 private:
  struct Kept {
    struct stat status = {};
    std::optional<std::string> content;  ///< of a file, or where a link leads
    bool operator==(const Kept& other) const;
  };
  using Files = std::map<std::string, Kept>;
  Files look() const;
  void look_at_repositories(const std::string& folder, int depth, std::size_t& bytes,
                            Files& files) const;
  void look_at_repository(const std::string& path, int depth, std::size_t& bytes,
                          Files& files) const;
  void look_at(const std::string& path, int depth, std::size_t& bytes, Files& files) const;
  const PlainFolder& git_dir_;
  bool with_refs_;
  Files files_;
};

}  // namespace necrocode::exec
