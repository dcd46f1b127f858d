// What the sandboxes do alike: checks of what they are asked to open up, and gates on the host.
// Internal to this folder.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/process/sandbox.hpp"

namespace necrocode::process {

inline constexpr std::string_view kDefaultPath = "/usr/local/bin:/usr/bin:/bin";

/// That this host cannot hold a sandbox; `reason` alone is for who tries another.
struct CannotSandbox : SecurityError {
  explicit CannotSandbox(const std::string& why)
      : SecurityError("the host cannot sandbox: " + why +
                      "; --unsandboxed runs what the model wrote without protection"),
        reason(why) {}
  std::string reason;
};

/// The folders of our own PATH.
std::vector<std::filesystem::path> own_path_folders();

/// Lexically normal, without a slash at its end.
std::filesystem::path normal(const std::filesystem::path& path);

/// `folder`, normal, to be writable inside. Throws SecurityError when it is not an absolute folder,
/// or holds a home or a folder of the system whole, also by way of a link. `what` is how the error
/// calls it.
std::filesystem::path checked_folder(const std::filesystem::path& folder, std::string_view what);

/// All of `command.read_only`, normal. Throws TestExecutionError for one that is not there.
std::vector<std::filesystem::path> checked_read_only(const SandboxedCommand& command);

/// Throws SecurityError when it asks for what cannot go together, or for a working directory
/// outside of `workspace`; TestExecutionError when it has no name or its folder is not there.
/// Returns the working directory.
std::filesystem::path checked_command(const SandboxedCommand& command,
                                      const std::filesystem::path& workspace);

/// The command's own limits where it has any, else `usual`.
ResourceLimits limits_of(const SandboxedCommand& command, const ResourceLimits& usual);

/// On the loopback of this process's network. Throws StorageError.
Gate make_host_gate();
/// Gives the command's caller what to accept on, when it has such a gate.
void hand_out_host_gate(const SandboxedCommand& command);

}  // namespace necrocode::process
