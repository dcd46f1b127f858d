// Sandbox: the only way to run what a model or a repository wrote.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "necrocode/process/supervisor.hpp"

namespace necrocode::process {

/// The folder inside for what is shown at a place of its own.
inline constexpr std::string_view kSandboxShown = "/run/necrocode";

/// The only place of the network that a command reaches: a port of its loopback, on which somebody
/// outside accepts.
struct Gate {
  std::uint16_t port = 0;  ///< of 127.0.0.1, as the command sees it
  /// On this machine's loopback, where the sandbox gives no network of its own; else empty, and
  /// made within the command's network when it starts.
  FileDescriptor listener;
};

struct SandboxedCommand {
  /// `env` may hold nothing secret. Where its `limits` set none, those of the sandbox hold. What
  /// the sandbox itself uses (status channel, second input, gate, enclosure) is not looked at.
  Command command;
  std::filesystem::path workspace;               ///< writable, at its own path; absolute
  std::vector<std::filesystem::path> read_only;  ///< further paths to see, at their own places
  /// Further folders that are writable, at their own places, outside of `workspace`. Like it, none
  /// may hold a home or a folder of the system whole.
  std::vector<std::filesystem::path> writable;
  /// Inside `workspace`, made read-only over it (a `.git`); those that do not exist are left out.
  /// Neither these nor the folders above them can be moved away.
  std::vector<std::filesystem::path> protect;
  /// Folders inside `workspace` that stay writable but, with those above them, where they are.
  std::vector<std::filesystem::path> pinned;
  /// What is shown at a place instead of what is there: inside `workspace` (over its `.git`), or
  /// below kSandboxShown, where nothing else is. A folder covers a folder, a file a file; where
  /// there is nothing to cover in the workspace it is left out, and by a sandbox that cannot do
  /// that, always.
  struct Cover {
    std::filesystem::path at;
    std::filesystem::path shown;
    bool writable = false;
  };
  std::vector<Cover> covers;
  bool network = false;
  /// Instead of `network`: one port. `on_listener` gets, before the command starts and on run()'s
  /// thread, what to accept on.
  const Gate* gate = nullptr;
  std::function<void(FileDescriptor listener)> on_listener;
};

/// Thread-safe.
class Sandbox {
 public:
  virtual ~Sandbox() = default;
  /// Like Supervisor::run(). Throws SecurityError when this host cannot hold the promise,
  /// ResourceLimitError for more than limits::kSandboxMounts paths to protect or to pin.
  virtual CommandResult run(const SandboxedCommand& command, const CallContext& context,
                            const OutputSink& sink = {}) = 0;
  /// Waits until it is known whether this host can hold the promise, which run() does by itself.
  /// Throws SecurityError, saying what is missing.
  virtual void require_usable() = 0;
  virtual std::string_view name() const = 0;  ///< "bubblewrap", "landlock" or "unsandboxed"
  /// What it promises less than bubblewrap does, a sentence each, for whoever reads a result.
  virtual std::vector<std::string> missing() const { return {}; }
  /// Whether SandboxedCommand::covers take effect.
  virtual bool can_cover() const { return true; }
  /// For one command. Throws StorageError when no port is free.
  virtual Gate make_gate() = 0;
  virtual std::string limits() const = 0;  ///< as Supervisor::describe_limits()
};

/// New pid, mount, network, IPC, UTS and user namespaces by bubblewrap; the system read-only; the
/// workspace and a private /tmp writable; no home, except toolchains there that PATH names,
/// read-only; no capabilities, no new privileges; a filter of system calls.
/// Throws SecurityError when bubblewrap is missing. Whether the host can do it shows a trial run,
/// which goes on beside the caller: require_usable() and the first run() wait for it.
/// Each command is held to `limits`; it sees no control groups, and cannot leave its own.
std::unique_ptr<Sandbox> make_bubblewrap_sandbox(Supervisor& supervisor,
                                                 const ResourceLimits& limits = default_limits());

/// Landlock and a filter of system calls, in the namespaces of the host: docs/sandbox.md says what
/// that holds; missing() what it does not. For Linux 6.7 and newer; as above, a trial shows whether
/// it can be used.
std::unique_ptr<Sandbox> make_landlock_sandbox(Supervisor& supervisor,
                                               const ResourceLimits& limits = default_limits());

/// The best of these two that this host can do; missing() then also says why not bubblewrap, and
/// what would mend that. Never throws; the SecurityError when it can do neither comes later, also
/// from what tells which one it is.
std::unique_ptr<Sandbox> make_sandbox(Supervisor& supervisor,
                                      const ResourceLimits& limits = default_limits());

/// No isolation but the supervisor's, and `limits`, which a hostile command that runs as root can
/// leave. Only on the user's explicit `--unsandboxed`.
std::unique_ptr<Sandbox> make_unsandboxed(Supervisor& supervisor,
                                          const ResourceLimits& limits = default_limits());

/// The environment that sandboxed commands get: PATH, LANG, TERM=dumb, HOME=/tmp and the like,
/// taken from ours by an allow-list. Never a credential.
std::vector<std::string> clean_environment();

}  // namespace necrocode::process
