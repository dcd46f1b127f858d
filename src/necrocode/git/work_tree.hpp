// The files of a work tree against an index of ours, by our own lstat: to the nanosecond, with the
// change time, which no program can set. Works by descriptors, follows no link, leaves no file
// system.
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "necrocode/git/index_file.hpp"

namespace necrocode::git {

struct TreeComparison {
  std::size_t files = 0;         ///< as the index has them
  std::uint64_t disk_bytes = 0;  ///< that they take
  /// Paths that are not as in the index: changed, missing, untracked, ignored, of another type, a
  /// folder without its permissions. At most kDifferencesMax, in no order.
  std::vector<std::string> differences;
  std::size_t difference_count = 0;
  /// What could not be removed, or looked at, with the reason. At most kDifferencesMax.
  std::vector<std::string> failures;
  static constexpr std::size_t kDifferencesMax = 20;
};

/// Looks only. The `.git` at the top is not looked at.
TreeComparison compare_tree(const std::filesystem::path& work_tree,
                            const std::vector<IndexEntry>& index);

/// The same, and removes every path that is not exactly as in the index (missing ones stay
/// missing), so that what is left is proven, and git restores the rest. Folders without permissions
/// get them back, the top one too. `keep`: further paths, with each folder above them, that stay as
/// they are; of a folder in it only what is in `keep` as well. `aside`, when given, is an empty
/// folder of the same file system, and what would be removed is moved there, under its own path.
TreeComparison sweep_tree(const std::filesystem::path& work_tree,
                          const std::vector<IndexEntry>& index,
                          const std::set<std::string>& keep = {},
                          const std::filesystem::path& aside = {});

/// Returns when a later change of a file is sure to get a later change time than any in `index`:
/// file systems stamp with the kernel's coarse clock (4 ms or so).
void wait_for_next_tick(const std::vector<IndexEntry>& index);

/// Folders below `work_tree` that hold a `.git` of their own, relative. `special`, when given, gets
/// what git cannot stage: FIFOs, sockets, devices.
std::vector<std::string> nested_repositories(const std::filesystem::path& work_tree,
                                             std::vector<std::string>* special = nullptr);

}  // namespace necrocode::git
