// The home of an agent program: made for it, and thrown away with what it wrote there.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace necrocode::agent {

/// Makes `home` (mode 0700) with a copy of `from` (empty: of nothing), with `files` (relative path
/// to content) and with the folders that home_environment() names; does nothing when `home` is
/// there. Throws ConfigError when `from` is no folder, holds more than 10,000 entries or 256 MiB,
/// or a link that is not relative or goes up; sockets and the like are left out. Throws
/// StorageError.
void make_home(const std::filesystem::path& home, const std::filesystem::path& from,
               const std::map<std::string, std::string>& files);

/// HOME, TMPDIR and the XDG folders, NAME=value.
std::vector<std::string> home_environment(const std::filesystem::path& home);

}  // namespace necrocode::agent
