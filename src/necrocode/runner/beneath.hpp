// Opening what a model or a repository named, without being led out of the work tree.
#pragma once

#include <sys/types.h>

#include <string>

#include "necrocode/base/file.hpp"

namespace necrocode::runner {

/// openat2 of `path` below the folder `root`, through no link and no mount's way out, also not one
/// that is swapped in meanwhile. No descriptor, with errno, on failure.
FileDescriptor open_beneath(int root, const std::string& path, int flags, mode_t mode = 0);

}  // namespace necrocode::runner
