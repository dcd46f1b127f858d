// Installation: what a sandbox must show, read-only, so that a program of the user's can run there:
// the program itself, the package that it is part of, and its interpreter; nothing else of a home.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace necrocode::agent {

struct Installation {
  std::filesystem::path program;               ///< absolute, as it was found
  std::vector<std::filesystem::path> visible;  ///< for SandboxedCommand::read_only
  std::vector<std::filesystem::path> path;     ///< folders that its PATH needs, for env's `node`
};

/// `name`: as in argv[0]: with a slash relative to `folder`, else by `path` (a PATH). Follows links
/// and `#!` lines. Nothing when there is no such program.
/// What a file needs is the outermost node_modules that it is in; of a program for Node.js the
/// folder of its package.json; a Python environment (pyvenv.cfg); of an interpreter the folder that
/// has its `bin` and `lib`; a folder `bin` or of PATH; of a script, but for a shell's, its folder.
/// Else, and where that would be a home folder, one above it, or one that everybody puts things
/// into, the file alone. What is below `workspace` or in the system's own folders is seen anyway.
std::optional<Installation> find_installation(std::string_view name, std::string_view path,
                                              const std::filesystem::path& folder,
                                              const std::filesystem::path& workspace);

}  // namespace necrocode::agent
