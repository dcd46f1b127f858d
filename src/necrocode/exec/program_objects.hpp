// The objects that a program left in a git directory, copied as plain files.
#pragma once

#include <filesystem>
#include <vector>

#include "necrocode/exec/plain_folder.hpp"

namespace necrocode::exec {

/// Copies loose objects and packs of `git_dir` into the object folder `to`, through no link; the
/// packs, which need an index yet. Nothing else comes along. Throws ResourceLimitError above
/// 200 000 files or 4 GiB.
std::vector<std::filesystem::path> copy_objects(const PlainFolder& git_dir,
                                                const std::filesystem::path& to);

}  // namespace necrocode::exec
