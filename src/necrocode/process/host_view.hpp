// HostView: what of this machine a sandboxed command may see besides its workspace: the system
// (/usr and what stands for it), harmless files of /etc, and the toolchains that PATH names.
// An allow-list: what is not named here does not exist inside. For this folder and agent/.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace necrocode::process {

/// The folders of `path` (a PATH) that are absolute, in order, each once.
std::vector<std::filesystem::path> path_folders(std::string_view path);

/// What PATH names outside the system's own folders.
struct Toolchains {
  std::vector<std::filesystem::path> visible;  ///< to be seen read-only, at their own places
  /// Variables that point them to their data, since HOME is another inside (RUSTUP_HOME …).
  std::vector<std::pair<std::string, std::string>> env;
};
/// Of a known toolchain in a home folder what it needs to run, never its credentials; of any other
/// folder that PATH names only that folder. A home folder itself, or a folder above one, never.
Toolchains find_toolchains(const std::vector<std::filesystem::path>& folders,
                           const std::vector<std::filesystem::path>& homes);

/// The home folders of this user: by $HOME and by the user database.
std::vector<std::filesystem::path> home_folders();

/// Those entries of /etc that exist here and are on the allow-list; `network` adds resolv.conf.
std::vector<std::filesystem::path> visible_etc(bool network);

/// True when `path` is `folder` or below it; lexical.
bool is_within(const std::filesystem::path& path, const std::filesystem::path& folder);

/// The first executable file of that name in `folders`.
std::optional<std::filesystem::path> find_program(const std::vector<std::filesystem::path>& folders,
                                                  std::string_view name);

}  // namespace necrocode::process
