// What the Supervisor, its helper and its inits say to each other. Internal to this folder.
//
// The channel (SOCK_SEQPACKET) carries one StartHeader a command with its descriptors; the control
// socket of a command carries orders to its init and Reports back. End of file on either means that
// the other side is gone.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/file.hpp"

namespace necrocode::process::protocol {

/// argv of the helper; nothing else may be called with it.
inline constexpr const char* kHelperName = "necrocode-supervisor";
inline constexpr const char* kNoNamespaceFlag = "--no-pid-namespace";
inline constexpr int kChannelFd = 3;
/// The only variable of the helper's environment: a program that starts a Supervisor but does not
/// call supervisor_main() must not start copies of itself for ever.
inline constexpr const char* kHelperMark = "NECROCODE_SUPERVISOR_HELPER";

inline constexpr std::uint32_t kMagic = 0x6e637231;  // "ncr1"

/// Its descriptors, in order: encoded request (memfd), stdout, stderr, control; then, as far as the
/// header says so, the input (memfd), the status pipe, the command's group of cgroup v2 (a folder),
/// and the files by which it joins those of v1.
struct StartHeader {
  std::uint32_t magic = kMagic;
  std::uint8_t has_input = 0;
  std::uint8_t has_status = 0;
  std::uint8_t has_group = 0;
  std::uint8_t groups_to_join = 0;
};
inline constexpr int kGroupsToJoinMax = 3;
inline constexpr int kDescriptorsMax = 7 + kGroupsToJoinMax;

/// Orders on the control socket, one byte each. End of file is kKill.
inline constexpr char kGo = 'G';  ///< the listener is taken, the command may start
inline constexpr char kTerminate = 'T';
inline constexpr char kKill = 'K';

enum class Isolation : std::int32_t {
  kNone,        ///< session, process group and subreaper
  kPid,         ///< a pid namespace
  kUserAndPid,  ///< a user namespace (same ids) with a pid namespace in it
};

enum class ReportKind : std::int32_t {
  kReady,        ///< helper, on the channel: value is the Isolation
  kListener,     ///< with the gate's listener as its descriptor; the init waits for kGo
  kStartFailed,  ///< value is errno, step says what failed
  kExited,       ///< value is the exit code
  kSignalled,    ///< value is the signal
  kInitGone,     ///< helper: the init is reaped, nothing is left; value is its wait status
};

enum class StartStep : std::int32_t {
  kNone,
  kFork,
  kNamespace,
  kRequest,
  kDescriptors,
  kLimits,
  kGroups,
  kFolder,
  kNetwork,   ///< a network namespace
  kLoopback,  ///< bringing it up
  kListen,    ///< on the gate's port
  kHandOver,  ///< of the listener
  kEnclose,   ///< Landlock and the filter of system calls
  kExec,
};

struct Report {
  ReportKind kind = ReportKind::kReady;
  std::int32_t value = 0;
  StartStep step = StartStep::kNone;
  // Of kInitGone: what its processes took.
  std::uint64_t cpu_microseconds = 0;
  std::uint64_t largest_process_bytes = 0;
};

/// The parts of a Command that its init needs.
struct Request {
  std::vector<std::string> argv;
  std::vector<std::string> env;
  std::string working_directory;
  std::uint64_t file_size_max = 0;
  std::uint64_t open_files_max = 0;
  std::uint64_t data_max = 0;  ///< RLIMIT_DATA; 0: as it is
  std::uint64_t processes_max =
      0;  ///< RLIMIT_NPROC, where it counts this command's alone; 0: as it is
  std::uint64_t gate_port = 0;
  std::string second_input;
  // Of an Enclosure; without one, `enclosed` is 0.
  std::uint64_t enclosed = 0;
  std::vector<std::string> readable;
  std::vector<std::string> writable;
  std::uint64_t network = 0;
  std::uint64_t connect_port = 0;
};

std::string encode(const Request& request);
/// Nothing when malformed.
std::optional<Request> decode(std::string_view bytes);

/// One message with 1 to kDescriptorsMax descriptors. False with errno on failure.
bool send_with_descriptors(int socket, const void* bytes, std::size_t size,
                           const std::vector<int>& fds);
/// Like recvmsg(MSG_DONTWAIT); what came with it is added to `fds`, closed on exec.
ssize_t receive_with_descriptors(int socket, void* bytes, std::size_t size,
                                 std::vector<FileDescriptor>& fds);

}  // namespace necrocode::process::protocol
