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
/// and `#!` lines. Nothing when there is no such program. A package is the folder above the nearest
/// package.json of a node_modules, a Python environment (pyvenv.cfg), or the file's own folder;
/// what is below `workspace` or the system's own folders is seen anyway. Throws SecurityError when
/// what it would have to show is a home folder whole, or one above it.
std::optional<Installation> find_installation(std::string_view name, std::string_view path,
                                              const std::filesystem::path& folder,
                                              const std::filesystem::path& workspace);

}  // namespace necrocode::agent
