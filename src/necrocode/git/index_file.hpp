// Reads git's index file (git's Documentation/technical/index-format.txt), so that the state of a
// work tree can be proven by ourselves: git compares whole seconds, skips what a flag tells it to
// skip, and costs a child. Never writes one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace necrocode::git {

/// One entry, with what lstat() said when git wrote the file. The numbers are cut to 32 bits, as
/// git does.
struct IndexEntry {
  std::string path;
  std::uint32_t mode = 0;  ///< 0100644, 0100755, 0120000 (link) or 0160000 (submodule)
  std::uint32_t ctime_seconds = 0, ctime_nanoseconds = 0;
  std::uint32_t mtime_seconds = 0, mtime_nanoseconds = 0;
  std::uint32_t inode = 0, uid = 0, gid = 0, size = 0;
  bool is_submodule() const { return mode == 0160000; }
};

/// The entries in git's order. Throws GitError when the file is malformed, of another version than
/// 2 or 3, split or sparse, or when an entry is unmerged or hidden from git's own checks
/// (skip-worktree, assume-unchanged, intent-to-add): none of these come from us. Throws
/// StorageError when unreadable.
std::vector<IndexEntry> read_index(const std::filesystem::path& file);

}  // namespace necrocode::git
