// What to run as a child, and what came of it. Children are started by the Supervisor and nowhere
// else.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/process/enclosure.hpp"
#include "necrocode/process/resource_limits.hpp"

namespace necrocode::process {

/// A pipe takes that much at once on every system.
inline constexpr std::size_t kSecondInputBytes = 4096;

struct Command {
  std::vector<std::string> argv;  ///< argv[0] is found by the PATH of `env` when it has no slash
  /// The whole environment of the child, `NAME=value`; nothing is inherited.
  std::vector<std::string> env;
  std::filesystem::path working_directory;  ///< must exist
  std::string input;                        ///< its standard input, then end of file
  /// From start to end of the command; SIGTERM then, SIGKILL after limits::kTerminateGrace.
  std::chrono::nanoseconds timeout = std::chrono::nanoseconds::max();
  std::size_t head_bytes = limits::kOutputHeadBytes;  ///< kept of each stream's beginning …
  std::size_t tail_bytes = limits::kOutputTailBytes;  ///< … and of its end
  std::uint64_t file_size_max = 16 * limits::kGiB;    ///< RLIMIT_FSIZE
  std::uint64_t open_files_max = 4096;                ///< RLIMIT_NOFILE
  ResourceLimits limits{};                            ///< none unless set
  /// Told, once a limit, when 80 % of it are in use; on run()'s thread, which it must not hold up.
  std::function<void(const std::string& warning)> on_warning;
  /// Descriptor 3 of the child is a pipe to CommandResult::status, for programs that report there
  /// (bubblewrap's --json-status-fd).
  bool status_channel = false;
  /// Where not empty: what the child reads from its descriptor 4, for programs that take something
  /// there (bubblewrap's --seccomp). At most kSecondInputBytes.
  std::string second_input;
  /// Above 0: the command runs in a network namespace of its own that has nothing but a loopback,
  /// where a listener stands on this port of 127.0.0.1. `on_listener` gets it, from outside, before
  /// the command starts, on run()'s thread.
  std::uint16_t gate_port = 0;
  std::function<void(FileDescriptor listener)> on_listener;
  /// Holds the command from its first instruction on.
  std::optional<Enclosure> enclosure;
};

/// A stream of any length in bounded memory.
struct CapturedStream {
  std::string head;
  std::string tail;
  std::uint64_t total_bytes = 0;
  bool truncated() const { return total_bytes > head.size() + tail.size(); }
  /// Head and tail, with a line between that says how much is left out.
  std::string text() const;
};

enum class CommandEnd {
  kExited,     ///< by itself; exit_code is its own
  kSignalled,  ///< by a signal that we did not send; exit_code is 128 + signal
  kTimedOut,   ///< its timeout, or the caller's deadline
  kCancelled,  ///< the caller's stop token
};

struct CommandResult {
  CommandEnd end = CommandEnd::kExited;
  int exit_code = 0;
  int signal = 0;
  CapturedStream out;
  CapturedStream err;
  std::string status;  ///< from descriptor 3; the first limits::kChildStatusBytes
  std::chrono::nanoseconds duration{0};
  ResourceUsage usage;
  /// Of the limits that stopped something: "exceeded its memory limit of 256 MiB (cgroup v1)". Only
  /// cgroups tell; the command may have lived on, and even succeeded.
  std::string limit_reached;
  bool ok() const { return end == CommandEnd::kExited && exit_code == 0; }
};

/// Sees the output as it comes, both streams, on the thread that called run().
using OutputSink = std::function<void(std::string_view piece)>;

}  // namespace necrocode::process
