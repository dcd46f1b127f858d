#include "necrocode/process/sandbox_parts.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdlib>
#include <system_error>

#include "necrocode/base/errors.hpp"
#include "necrocode/process/gate.hpp"
#include "necrocode/process/host_view.hpp"

namespace necrocode::process {

namespace fs = std::filesystem;

std::vector<fs::path> own_path_folders() {
  const char* path = std::getenv("PATH");
  return path_folders(path != nullptr ? path : kDefaultPath);
}

fs::path normal(const fs::path& path) {
  fs::path result = path.lexically_normal();
  return result.has_filename() ? result : result.parent_path();
}

fs::path checked_folder(const fs::path& folder, std::string_view what) {
  const fs::path result = normal(folder);
  std::error_code error;
  const fs::path real = fs::canonical(result, error);
  if (!result.is_absolute() || error || !fs::is_directory(real, error)) {
    throw SecurityError("refused: " + std::string(what) +
                        " is not an absolute folder: " + folder.string());
  }
  std::vector<fs::path> never_whole = home_folders();
  for (const char* place : {"/usr", "/etc", "/dev", "/proc", "/sys", "/run", "/tmp", "/var",
                            "/home", "/opt", "/bin", "/sbin", "/lib", "/lib64", "/boot"}) {
    never_whole.emplace_back(place);
  }
  for (const fs::path& place : never_whole) {
    if (is_within(place, result) || is_within(place, real)) {
      throw SecurityError("refused: " + std::string(what) + " holds " + place.string() +
                          " whole: " + folder.string());
    }
  }
  return result;
}

std::vector<fs::path> checked_read_only(const SandboxedCommand& command) {
  std::vector<fs::path> result;
  for (const fs::path& path : command.read_only) {
    std::error_code error;
    if (!path.is_absolute() || !fs::exists(path, error)) {
      throw TestExecutionError("cannot show to the sandbox: " + path.string() + ": no such path");
    }
    result.push_back(normal(path));
  }
  return result;
}

fs::path checked_command(const SandboxedCommand& command, const fs::path& workspace) {
  if (command.gate != nullptr && command.network) {
    throw SecurityError("refused: a command behind a gate cannot have the network as well");
  }
  // A command is given another network because there is a gate: never without one.
  if (command.gate != nullptr && command.gate->port == 0) {
    throw SecurityError("refused: a gate without a port");
  }
  const fs::path folder = command.command.working_directory.empty()
                              ? workspace
                              : normal(command.command.working_directory);
  std::error_code error;
  if (!is_within(folder, workspace)) {
    throw SecurityError("refused: the working directory is outside the workspace: " +
                        folder.string());
  }
  if (!fs::is_directory(folder, error)) {
    throw TestExecutionError("cannot start a command in " + folder.string() + ": no such folder");
  }
  if (command.command.argv.empty() || command.command.argv.front().empty()) {
    throw TestExecutionError("cannot start a command without a name");
  }
  return folder;
}

ResourceLimits limits_of(const SandboxedCommand& command, const ResourceLimits& usual) {
  const ResourceLimits& own = command.command.limits;
  const bool set = own.memory_bytes != 0 || own.processes != 0 || own.cpu_percent != 0;
  return set ? own : usual;
}

Gate make_host_gate() {
  FileDescriptor listener = listen_on_loopback(0);
  sockaddr_in address{};
  socklen_t size = sizeof address;
  if (!listener ||
      ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw_errno("cannot listen on a port of 127.0.0.1");
  }
  return {ntohs(address.sin_port), std::move(listener)};
}

void hand_out_host_gate(const SandboxedCommand& command) {
  if (command.gate == nullptr || !command.on_listener) return;
  FileDescriptor copy(::fcntl(command.gate->listener.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) throw_errno("cannot hand out the listener of a gate");
  command.on_listener(std::move(copy));
}

}  // namespace necrocode::process
