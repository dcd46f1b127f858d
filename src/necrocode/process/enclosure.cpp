// Runs between fork and exec of a single-threaded process: what it needs from the kernel is asked
// for by number, since the headers of the distributions are older than the kernels they run on.
#include "necrocode/process/enclosure.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>

#include "necrocode/base/file.hpp"
#include "necrocode/process/system_call_filter.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;

// As in linux/landlock.h of Linux 6.12; the numbers are the same on all architectures.
constexpr long kCreateRuleset = 444;
constexpr long kAddRule = 445;
constexpr long kRestrictSelf = 446;
constexpr unsigned kAskVersion = 1;
constexpr int kRulePathBeneath = 1;
constexpr int kRuleNetPort = 2;

struct RulesetAttributes {
  std::uint64_t handled_fs;
  std::uint64_t handled_net;
  std::uint64_t scoped;  ///< since version 6
};
struct [[gnu::packed]] PathRule {
  std::uint64_t allowed;
  std::int32_t parent;
};
struct PortRule {
  std::uint64_t allowed;
  std::uint64_t port;
};

constexpr std::uint64_t kExecute = 1U << 0;
constexpr std::uint64_t kWriteFile = 1U << 1;
constexpr std::uint64_t kReadFile = 1U << 2;
constexpr std::uint64_t kReadFolder = 1U << 3;
constexpr std::uint64_t kTruncate = 1U << 14;       // version 3
constexpr std::uint64_t kDeviceControl = 1U << 15;  // version 5
constexpr std::uint64_t kRead = kExecute | kReadFile | kReadFolder;
constexpr std::uint64_t kOfFiles = kExecute | kWriteFile | kReadFile | kTruncate | kDeviceControl;
constexpr std::uint64_t kBindTcp = 1U << 0;
constexpr std::uint64_t kConnectTcp = 1U << 1;
constexpr std::uint64_t kScopeAbstractSockets = 1U << 0;
constexpr std::uint64_t kScopeSignals = 1U << 1;

std::uint64_t all_rights(int abi) {
  return abi >= 5 ? (kDeviceControl << 1) - 1 : kDeviceControl - 1;
}

bool allow_below(int ruleset, const fs::path& path, std::uint64_t access) {
  const FileDescriptor place(::open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat info = {};
  if (!place || ::fstat(place.get(), &info) != 0) return false;
  PathRule rule{S_ISDIR(info.st_mode) ? access : access & kOfFiles, place.get()};
  return ::syscall(kAddRule, ruleset, kRulePathBeneath, &rule, 0) == 0;
}

bool restrict_by_landlock(const Enclosure& enclosure) {
  const int abi = landlock_abi();
  if (abi < kLandlockAbiMin) {
    errno = EOPNOTSUPP;
    return false;
  }
  RulesetAttributes attributes{all_rights(abi), 0, 0};
  if (!enclosure.network) attributes.handled_net = kBindTcp | kConnectTcp;
  const bool scopes = abi >= kLandlockAbiSignals;
  if (scopes) attributes.scoped = kScopeAbstractSockets | kScopeSignals;
  const std::size_t size = scopes ? sizeof attributes : offsetof(RulesetAttributes, scoped);
  const FileDescriptor ruleset(static_cast<int>(::syscall(kCreateRuleset, &attributes, size, 0)));
  if (!ruleset) return false;
  const auto allow_each = [&](const std::vector<fs::path>& paths, std::uint64_t access) {
    return std::all_of(paths.begin(), paths.end(), [&](const fs::path& path) {
      return allow_below(ruleset.get(), path, access);
    });
  };
  if (!allow_each(enclosure.readable, kRead)) return false;
  if (!allow_each(enclosure.writable, attributes.handled_fs)) return false;
  if (enclosure.connect_port != 0 && !enclosure.network) {
    const PortRule rule{kConnectTcp, enclosure.connect_port};
    if (::syscall(kAddRule, ruleset.get(), kRuleNetPort, &rule, 0) != 0) return false;
  }
  return ::syscall(kRestrictSelf, ruleset.get(), 0) == 0;
}

/// Also root's: what it owns it can still use, as far as Landlock lets it.
bool drop_capabilities() {
  for (unsigned long capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0;
       ++capability) {
    // Without the right to do that there is nothing in the set that exec could give.
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EPERM) return false;
  }
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const std::array<__user_cap_data_struct, 2> none{};
  return ::syscall(SYS_capset, &header, none.data()) == 0;
}

bool install_filter(const Enclosure& enclosure) {
  std::vector<sock_filter> code =
      system_call_filter(enclosure.network             ? FilterKind::kOpenNetwork
                         : enclosure.connect_port != 0 ? FilterKind::kConnectOnly
                                                       : FilterKind::kNoNetwork);
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

}  // namespace

int landlock_abi() {
  const long version = ::syscall(kCreateRuleset, nullptr, 0, kAskVersion);
  return version > 0 ? static_cast<int>(version) : 0;
}

bool enclose_self(const Enclosure& enclosure) {
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && drop_capabilities() &&
         restrict_by_landlock(enclosure) && install_filter(enclosure);
}

}  // namespace necrocode::process
