// ResourceLimits: what a command and all that it starts may take together; ResourceUsage: what they
// took.
#pragma once

#include <chrono>
#include <cstdint>

namespace necrocode::process {

/// Held by cgroups where we may make them, so for all processes of the command together; elsewhere
/// by rlimits, as far as those reach: see Supervisor::describe_limits().
struct ResourceLimits {
  /// Of memory, files of a tmpfs among it; the cache of other files is given back, not counted.
  /// 0, as below: not limited.
  std::uint64_t memory_bytes = 0;
  std::uint64_t processes = 0;  ///< threads are counted too
  int cpu_percent = 0;          ///< of the time that passes; 100 is one processor
};

struct ResourceUsage {
  /// The most that was seen in use at once, by looks some times a second; at least that of the
  /// largest process.
  std::uint64_t peak_memory_bytes = 0;
  std::uint64_t peak_processes = 0;  ///< 0: not known, without cgroups
  std::chrono::microseconds cpu_time{0};
};

/// What keeps a command that nobody configured from taking the machine: half of the memory that
/// this process may use, and more processes and threads than tests are known to need. Processors
/// are shared fairly by the kernel.
ResourceLimits default_limits();

}  // namespace necrocode::process
