// Enclosure: what is left to a process by Landlock and by a filter of system calls, where there are
// no namespaces to put it in. See docs/sandbox.md for what that holds and what it cannot.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace necrocode::process {

struct Enclosure {
  std::vector<std::filesystem::path> readable;  ///< and executable, with all below
  std::vector<std::filesystem::path> writable;  ///< in every way, with all below
  bool network = false;                         ///< all of it; else:
  std::uint16_t connect_port = 0;               ///< TCP to this port, of any address; 0: nothing
};

/// The version of Landlock that the kernel has switched on; 0: none.
int landlock_abi();
/// The first one that knows rules for TCP, which an Enclosure needs.
inline constexpr int kLandlockAbiMin = 4;
/// The first one that keeps signals inside.
inline constexpr int kLandlockAbiSignals = 6;

/// Encloses the calling thread and all that it will start, for good: no new privileges, no
/// capabilities, the rules of Landlock, the filter. False with errno when a part of it fails; the
/// process must then end. All paths must exist.
bool enclose_self(const Enclosure& enclosure);

}  // namespace necrocode::process
