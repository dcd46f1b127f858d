// Supervisor: starts every child of necrocode, and guarantees that nothing of it outlives us.
//
// One helper process (this same binary, started with a clean environment before any key is read)
// forks for each command an init process of its own pid namespace, which starts the command, waits
// for it and reports. When the init is gone, the kernel ends all that the command started; the init
// goes when the command ends, when its lifeline closes (we died, also by SIGKILL) or when it is
// told.
#pragma once

#include <memory>

#include "necrocode/base/call_context.hpp"
#include "necrocode/process/command.hpp"

namespace necrocode::process {

struct SupervisorOptions {
  /// False: never a pid namespace, as on a host that has none.
  bool pid_namespace = true;
  /// Between SIGTERM and SIGKILL.
  std::chrono::nanoseconds terminate_grace = limits::kTerminateGrace;
  /// False: limits by rlimits alone, as where no control group can be made.
  bool cgroups = true;
};

/// What a shell answers for a program that is not there, and for one that cannot be executed:
/// ErrorInfo::status of a command that was not started for that reason.
inline constexpr int kNotFoundStatus = 127;
inline constexpr int kNotExecutableStatus = 126;

/// Thread-safe: any number of run() at once, each on its caller's thread.
class Supervisor {
 public:
  /// Starts the helper process. Throws StorageError when that fails; what keeps it from coming up
  /// is told by the first call that needs it.
  explicit Supervisor(SupervisorOptions options = {});
  ~Supervisor();  ///< ends every command still running
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  /// Runs a command that we trust (git, bubblewrap) to its end and waits until nothing of it is
  /// left. A command that cannot be started (not found, no such folder) throws TestExecutionError
  /// with the reason. Timeouts and cancellation are results, not errors: SIGTERM to the command's
  /// process group, then the end of everything. An exception of `sink` ends the command, then
  /// passes on. Throws StorageError when the helper process died; the next run() starts another.
  CommandResult run(const Command& command, const CallContext& context,
                    const OutputSink& sink = {});

  /// True when commands get a pid namespace of their own. Without, descendants are ended by process
  /// group and as a subreaper, which a hostile program can escape.
  bool has_pid_namespace() const;

  /// How commands are held to these limits here: "memory 256 MiB (cgroup v1), 2048 processes
  /// (cgroup v1), CPU not limited". With rlimits memory is that of each process, and without a user
  /// namespace of ours (root needs none) nothing counts processes. Without cgroups nothing limits
  /// the CPU.
  std::string describe_limits(const ResourceLimits& limits) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// main() calls this first: when the process was started to be the helper, it runs it and returns
/// the exit code; otherwise -1. Nothing secret may have been read before.
int supervisor_main(int argc, char** argv);

/// Makes this process's memory, environment and descriptors unreadable to others of the same user
/// (PR_SET_DUMPABLE 0, no core files). main() calls it before it reads any credential.
void protect_own_memory();

}  // namespace necrocode::process
