// Applying a model's code changes to a work tree: all or none, and never outside of it.
//
// Every path is opened by openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, so a link planted
// in the repository, also one swapped in while we work, cannot lead out. Everything is checked and
// computed before the first write; a failure in between restores what was written, and removes the
// folders that were made.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "necrocode/llm/model.hpp"

namespace necrocode::runner {

/// Applies `changes` below `root`; the paths, in the order in which they were changed.
/// Throws SecurityError for a path through a link, a special or hard-linked file, or protected
/// content; ImplementationError for a read-only file, `modify` of a missing one, edits or a diff
/// that do not fit the file in one clear way (llm/edits.hpp, llm/unified_diff.hpp) or cost too much
/// work, paths that contradict each other (`q` as a file beside `q/r`, unless `q` is deleted).
/// Deletions are done first. `create` of an existing file replaces it; `delete` of a missing one
/// does nothing.
std::vector<std::string> apply_changes(const std::filesystem::path& root,
                                       const std::vector<llm::CodeChange>& changes,
                                       const std::vector<std::string>& readonly_files);

/// The file's content if it is a regular file of at most `bytes_max` bytes reached without links.
std::optional<std::string> read_workspace_file(const std::filesystem::path& root,
                                               const std::string& path, std::size_t bytes_max);

}  // namespace necrocode::runner
