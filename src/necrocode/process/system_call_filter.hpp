// The filter of system calls (seccomp BPF) of sandboxed commands: refuses what reaches beyond a
// sandbox or into the kernel's rarely walked parts; all else is allowed. Internal to this folder.
#pragma once

#include <linux/filter.h>

#include <vector>

namespace necrocode::process {

enum class FilterKind {
  /// Inside of namespaces of its own, which hold the network, processes and IPC.
  kInNamespaces,
  /// In those of the host, with the network open.
  kOpenNetwork,
  /// In those of the host; of the network only outgoing TCP, which Landlock leads to a port.
  kConnectOnly,
  /// In those of the host, no network.
  kNoNetwork,
};

/// Refusals are error codes that programs know how to go on from (EPERM; ENOSYS where libraries
/// have another way; EAFNOSUPPORT for sockets). A program of another architecture (of 32 bits) is
/// killed by SIGSYS: its system calls have other numbers.
std::vector<sock_filter> system_call_filter(FilterKind kind);

}  // namespace necrocode::process
