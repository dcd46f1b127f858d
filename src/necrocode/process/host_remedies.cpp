#include "necrocode/process/host_remedies.hpp"

#include <unistd.h>

#include <system_error>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kFileBytes = 64 * 1024;

std::string text_of(const fs::path& path) {
  try {
    return read_file(path, kFileBytes);
  } catch (const StorageError&) {
    return {};  // this kernel has no such file, or keeps it from us: nothing is known
  }
}

std::optional<std::uint64_t> number_in(const fs::path& path) {
  return parse_uint(trim(text_of(path)));
}

std::string container_remedy(const HostFacts& facts) {
  const std::string& engine = facts.engine;
  // With another /proc below, the kernel shows no new one that hides less.
  std::string command = engine + " run --security-opt seccomp=unconfined --security-opt " +
                        (engine == "podman" ? "unmask=ALL" : "systempaths=unconfined");
  if (facts.in_profile) command += " --security-opt apparmor=unconfined";
  return "this container may not make namespaces or mount /proc; to mend it: " + command + " …";
}

}  // namespace

HostFacts look_at_host(const fs::path& root_folder) {
  HostFacts facts;
  facts.root = ::geteuid() == 0;
  const fs::path settings = root_folder / "proc/sys";
  facts.max_user_namespaces = number_in(settings / "user/max_user_namespaces");
  facts.unprivileged_namespaces = number_in(settings / "kernel/unprivileged_userns_clone");
  facts.apparmor_restricts = number_in(settings / "kernel/apparmor_restrict_unprivileged_userns");
  facts.filtered =
      text_of(root_folder / "proc/self/status").find("\nSeccomp:\t2") != std::string::npos;
  const std::string profile(trim(text_of(root_folder / "proc/self/attr/apparmor/current")));
  facts.in_profile = !profile.empty() && profile != "unconfined";
  std::error_code error;
  if (fs::exists(root_folder / ".dockerenv", error)) facts.engine = "docker";
  if (fs::exists(root_folder / "run/.containerenv", error)) facts.engine = "podman";
  return facts;
}

std::string remedy(std::string_view said, const HostFacts& facts) {
  if (said.find("Unknown option") != std::string_view::npos) {
    return "this bubblewrap is too old; to mend it: install 0.7.0 or newer, which Debian 12 and "
           "Ubuntu 24.04 have";
  }
  if (facts.max_user_namespaces == 0) {
    return "user namespaces are switched off; to mend it: sudo sysctl -w "
           "user.max_user_namespaces=15000";
  }
  if (!facts.root && facts.unprivileged_namespaces == 0) {
    return "user namespaces are switched off for all but root; to mend it: sudo sysctl -w "
           "kernel.unprivileged_userns_clone=1";
  }
  if (!facts.engine.empty()) return container_remedy(facts);
  if (!facts.root && facts.apparmor_restricts == 1) {
    return "AppArmor keeps programs without a profile from user namespaces; to mend it: sudo "
           "install -m 644 deploy/apparmor/necrocode /etc/apparmor.d/ && sudo apparmor_parser -r "
           "/etc/apparmor.d/necrocode (or for all programs: sudo sysctl -w "
           "kernel.apparmor_restrict_unprivileged_userns=0)";
  }
  if (said.find("mount proc") != std::string_view::npos) {
    return "parts of /proc are covered here, so that a new one cannot be mounted; to mend it, in a "
           "pod of Kubernetes: securityContext: {procMount: Unmasked}";
  }
  if (facts.filtered) {
    return "a filter of system calls that holds this process forbids it; to mend it, in a unit of "
           "systemd: RestrictNamespaces=no and no SystemCallFilter= without @mount; in a pod of "
           "Kubernetes: securityContext: {seccompProfile: {type: Unconfined}, procMount: Unmasked}";
  }
  if (said.find("namespace") != std::string_view::npos) {
    return "no known setting of the host forbids it, so what started this process does (a filter "
           "of "
           "system calls, a security module); to mend it: allow unshare(2) and clone(2) with "
           "CLONE_NEWUSER there";
  }
  return {};
}

}  // namespace necrocode::process
