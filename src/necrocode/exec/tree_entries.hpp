// Files of a tree against those of another, and put back into a work tree.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "necrocode/exec/plain_folder.hpp"
#include "necrocode/git/repository.hpp"

namespace necrocode::exec {

/// A path that two trees differ in; mode "000000": not there.
struct TreeDifference {
  std::string old_mode, new_mode;
  std::string old_id, new_id;
  std::string path;
  bool was_there() const { return old_mode != "000000"; }
  bool is_there() const { return new_mode != "000000"; }
};

/// Between two trees or commits, ordered.
std::vector<TreeDifference> compare_trees(const git::Repository& repository,
                                          const std::string& from, const std::string& to,
                                          const CallContext& context);

/// Puts the old side of `differences` into the work tree: files, links, or nothing there. A
/// submodule stays. One child for all. Throws StorageError, GitError.
void put_back_files(const git::Repository& repository, const PlainFolder& work_tree,
                    const std::vector<TreeDifference>& differences, const CallContext& context);

/// Files that match a glob, are not in `tracked`, and not in or below one of `users`: made since,
/// and ignored, or in a repository of their own.
std::vector<std::string> made_files(const std::filesystem::path& work_tree,
                                    const std::vector<std::string>& globs,
                                    const std::set<std::string>& tracked,
                                    const std::set<std::string>& users);

}  // namespace necrocode::exec
