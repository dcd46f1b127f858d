// Why this host cannot sandbox, and the command that mends it. Internal to this folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace necrocode::process {

/// What decides whether a program may make namespaces here; nothing where the kernel has no such
/// setting.
struct HostFacts {
  bool root = false;
  std::optional<std::uint64_t> max_user_namespaces;      ///< user.max_user_namespaces
  std::optional<std::uint64_t> unprivileged_namespaces;  ///< kernel.unprivileged_userns_clone
  std::optional<std::uint64_t>
      apparmor_restricts;   ///< kernel.apparmor_restrict_unprivileged_userns
  bool filtered = false;    ///< a filter of system calls holds this process already
  std::string engine;       ///< of the container that we are in: "docker", "podman"; else empty
  bool in_profile = false;  ///< a profile of AppArmor holds this process
};

/// `root_folder` is where to look, for tests.
HostFacts look_at_host(const std::filesystem::path& root_folder = "/");

/// What to do about it, a sentence with the command; empty when nothing is known to help. `said` is
/// what bubblewrap gave as its reason.
std::string remedy(std::string_view said, const HostFacts& facts);

inline constexpr std::string_view kInstallBubblewrap =
    "bubblewrap (the program bwrap) is not installed; to mend it: sudo apt-get install bubblewrap";

}  // namespace necrocode::process
