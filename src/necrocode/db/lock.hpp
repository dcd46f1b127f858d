// Who may change a database: one process at a time.
#pragma once

#include <filesystem>
#include <string_view>

#include "necrocode/base/file.hpp"

namespace necrocode::db {

/// Locks `<path>.lock` as long as the descriptor lives. Throws ResourceConflictError when another
/// process has it; `what` is what that process has open ("its task registry").
FileDescriptor lock_database(const std::filesystem::path& path, std::string_view what);

}  // namespace necrocode::db
