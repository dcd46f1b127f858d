// The sandbox of namespaces: bubblewrap's argument list.
#include "necrocode/process/sandbox.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <future>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/process/host_remedies.hpp"
#include "necrocode/process/host_view.hpp"
#include "necrocode/process/sandbox_parts.hpp"
#include "necrocode/process/system_call_filter.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;

/// Whom commands see themselves as when we are root: an ordinary user, so that tools neither try
/// what only root may do nor refuse to run. Every Linux user database has it.
constexpr std::string_view kNobody = "65534";

/// Opens `path` below `folder` without following any link. What for: a repository may have planted
/// a link where we are going to mount.
bool exists_without_links(const fs::path& folder, const fs::path& path) {
  FileDescriptor current(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!current) throw_errno("cannot open", folder.string());
  for (const fs::path& part : path.lexically_relative(folder)) {
    if (part == "." || part.empty()) continue;
    FileDescriptor next(::openat(current.get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!next && (errno == ENOENT || errno == ENOTDIR)) return false;
    if (!next) throw_errno("cannot open", path.string());
    struct stat info = {};
    if (::fstat(next.get(), &info) != 0) throw_errno("cannot look at", path.string());
    if (S_ISLNK(info.st_mode)) {
      throw SecurityError("refused: a symbolic link stands where a protected path should be: " +
                          path.string());
    }
    current = std::move(next);
  }
  return true;
}

class ArgumentList {
 public:
  template <class... Texts>
  void add(const Texts&... texts) {
    (list_.push_back(std::string(texts)), ...);
  }
  void read_only(const fs::path& path) { add("--ro-bind", path.string(), path.string()); }
  void tmpfs(std::uint64_t bytes, std::string_view mode, std::string_view place) {
    add("--size", std::to_string(bytes), "--perms", mode, "--tmpfs", place);
  }
  std::vector<std::string> take() { return std::move(list_); }

 private:
  std::vector<std::string> list_;
};

/// /bin, /lib …: links into /usr on a merged system, folders on others.
void add_system(ArgumentList& args) {
  args.read_only("/usr");
  for (const char* name : {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}) {
    std::error_code error;
    if (fs::is_symlink(name, error)) {
      args.add("--symlink", fs::read_symlink(name).string(), name);
    } else if (fs::is_directory(name, error)) {
      args.read_only(name);
    }
  }
}

/// A link into /usr stays a link, which is cheaper than a mount.
void add_etc(ArgumentList& args, const fs::path& path) {
  std::error_code error;
  const fs::path target = fs::read_symlink(path, error);
  if (!error && is_within((path.parent_path() / target).lexically_normal(), "/usr")) {
    args.add("--symlink", target.string(), path.string());
  } else {
    args.read_only(path);
  }
}

/// What in /proc is about the whole machine. A process without capabilities is still the owner of
/// these files when we are root, and sysctl looks at the owner alone: /proc/sys/kernel/core_pattern
/// would run a program of its choice on the host. bwrap 0.8 itself covers only what access(2) calls
/// writable, and that is not true of the folder /proc/sys.
/// Each mount costs some 0.1 ms, so what asks for a capability at every use is not covered.
void close_proc(ArgumentList& args) {
  std::error_code error;
  for (const char* name : {"sys", "fs", "scsi", "acpi", "mtrr"}) {
    const fs::path path = fs::path("/proc") / name;
    if (fs::exists(path, error)) args.read_only(path);
  }
  for (const char* name : {"kcore", "keys", "timer_list", "latency_stats", "sched_debug"}) {
    const fs::path path = fs::path("/proc") / name;
    if (fs::exists(path, error)) args.add("--ro-bind", "/dev/null", path.string());
  }
}

std::string filter_bytes() {
  const std::vector<sock_filter> code = system_call_filter(FilterKind::kInNamespaces);
  return {reinterpret_cast<const char*>(code.data()), code.size() * sizeof(sock_filter)};
}

class BubblewrapSandbox final : public Sandbox {
 public:
  BubblewrapSandbox(Supervisor& supervisor, const ResourceLimits& limits)
      : supervisor_(supervisor),
        limits_(limits),
        etc_(visible_etc(false)),
        etc_with_network_(visible_etc(true)) {
    const auto folders = own_path_folders();
    const auto program = find_program(folders, "bwrap");
    if (!program) throw CannotSandbox(std::string(kInstallBubblewrap));
    program_ = program->string();
    toolchains_ = find_toolchains(folders, home_folders()).visible;
    trial_ = std::async(std::launch::async, [this] { try_out(); });
  }

  CommandResult run(const SandboxedCommand& command, const CallContext& context,
                    const OutputSink& sink) override {
    require_usable();
    try {
      return run_untried(command, context, sink);
    } catch (const TestExecutionError& error) {
      // Bubblewrap may have a right to namespaces that our own supervisor lacks.
      const bool refused = error.summary().find("no network namespace") != std::string::npos;
      const std::string help = refused ? remedy(error.summary(), look_at_host()) : "";
      if (help.empty()) throw;
      throw TestExecutionError(error.summary() + "; " + help, error.info());
    }
  }

  void require_usable() override { trial_.get(); }
  std::string_view name() const override { return "bubblewrap"; }
  Gate make_gate() override { return {limits::kSandboxGatePort, {}}; }
  std::string limits() const override { return supervisor_.describe_limits(limits_); }

 private:
  CommandResult run_untried(const SandboxedCommand& command, const CallContext& context,
                            const OutputSink& sink) {
    CommandResult result = supervisor_.run(wrap(command), context, sink);
    const bool ran = result.status.find("\"exit-code\"") != std::string::npos;
    result.status.clear();
    if (ran || result.end != CommandEnd::kExited || !result.limit_reached.empty()) return result;
    // bwrap gave no exit code of the command, so it never ran, and all of stderr is bwrap's own.
    const std::string said(trim(result.err.text()));
    if (!said.starts_with("bwrap: execvp")) {
      ErrorInfo info;
      info.service = "sandbox";
      info.operation = "start";
      info.detail = printable(shorten(said, 1000));
      throw TestExecutionError("the sandbox cannot be set up", std::move(info));
    }
    const bool found = !said.ends_with("No such file or directory");
    result.exit_code = found ? kNotExecutableStatus : kNotFoundStatus;
    return result;
  }

  /// One run with everything on. An old bwrap may not know --disable-userns; then without it.
  void try_out() {
    const TemporaryDirectory workspace("necrocode-trial-");
    SandboxedCommand trial;
    trial.command.argv = {"/bin/sh", "-c", "exit 0"};
    trial.command.env = clean_environment();
    trial.command.timeout = std::chrono::seconds(30);
    trial.command.limits = default_limits();  // a small limit of the user's is no fault of the host
    trial.workspace = workspace.path();
    std::string reason;
    for (const bool disable_userns : {true, false}) {
      disable_userns_ = disable_userns;
      try {
        const CommandResult result = run_untried(trial, {}, {});
        if (result.ok()) return;
        reason = "a trial ended with code " + std::to_string(result.exit_code) + ": " +
                 printable(shorten(trim(result.err.text()), 500));
      } catch (const TestExecutionError& error) {
        reason = error.info().detail.empty() ? error.summary() : error.info().detail;
      }
    }
    const std::string help = remedy(reason, look_at_host());
    throw CannotSandbox("bubblewrap: " + reason + (help.empty() ? "" : "; " + help));
  }

  Command wrap(const SandboxedCommand& command) const {
    const fs::path workspace = checked_folder(command.workspace, "the workspace");
    const fs::path folder = checked_command(command, workspace);
    ArgumentList args;
    args.add(program_);
    // Behind a gate the supervisor has made a network already.
    add_namespaces(args, command.network || command.gate != nullptr);
    add_filesystem(args, command, workspace);
    args.add("--chdir", folder.string(), "--json-status-fd", "3", "--seccomp", "4", "--");

    Command wrapped = command.command;
    wrapped.argv = args.take();
    wrapped.argv.insert(wrapped.argv.end(), command.command.argv.begin(),
                        command.command.argv.end());
    wrapped.working_directory = "/";
    wrapped.limits = limits_of(command, limits_);
    wrapped.status_channel = true;
    wrapped.second_input = filter_;
    wrapped.gate_port = command.gate != nullptr ? command.gate->port : 0;
    wrapped.on_listener = command.on_listener;
    return wrapped;
  }

  static fs::path require_inside(const fs::path& path, const fs::path& workspace) {
    fs::path at = normal(path);
    if (!is_within(at, workspace) || at == workspace) {
      throw SecurityError("refused: a protected path is not inside the workspace: " +
                          path.string());
    }
    return at;
  }

  void add_namespaces(ArgumentList& args, bool given_network) const {
    args.add("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
             "--unshare-cgroup-try", "--hostname", "sandbox", "--cap-drop", "ALL", "--new-session",
             "--die-with-parent");
    if (!given_network) args.add("--unshare-net");
    if (disable_userns_) args.add("--disable-userns");
    if (::getuid() == 0) args.add("--uid", kNobody, "--gid", kNobody);
  }

  /// A mount point cannot be renamed, so each folder is mounted onto itself, the outer ones first.
  static void pin_folders(ArgumentList& args, const SandboxedCommand& command,
                          const fs::path& workspace) {
    std::set<fs::path> folders;
    const auto pin = [&](fs::path at) {
      for (; at != workspace; at = at.parent_path()) folders.insert(at);
    };
    for (const fs::path& path : command.pinned) pin(require_inside(path, workspace));
    for (const fs::path& path : command.protect) {
      pin(require_inside(path, workspace).parent_path());
    }
    for (const SandboxedCommand::Cover& cover : command.covers) {
      if (is_below_shown(cover.at)) continue;
      pin(require_inside(cover.at, workspace).parent_path());
    }
    if (folders.size() + command.protect.size() > limits::kSandboxMounts) {
      throw ResourceLimitError("the sandbox would need more than " +
                               std::to_string(limits::kSandboxMounts) +
                               " mounts to protect what tests may not move");
    }
    for (const fs::path& folder : folders) {
      if (exists_without_links(workspace, folder)) {
        args.add("--bind", folder.string(), folder.string());
      }
    }
  }

  void add_filesystem(ArgumentList& args, const SandboxedCommand& command,
                      const fs::path& workspace) const {
    add_system(args);
    for (const char* folder : {"/etc", "/etc/ssl"}) args.add("--perms", "0755", "--dir", folder);
    for (const fs::path& path : command.network ? etc_with_network_ : etc_) add_etc(args, path);
    args.add("--proc", "/proc", "--dev", "/dev");
    close_proc(args);
    args.tmpfs(limits::kSandboxShmBytes, "1777", "/dev/shm");
    args.tmpfs(limits::kSandboxTmpBytes, "1777", "/tmp");
    args.tmpfs(limits::kSandboxRunBytes, "0755", "/run");
    args.add("--perms", "0755", "--dir", "/var");
    args.tmpfs(limits::kSandboxTmpBytes, "1777", "/var/tmp");
    add_folders(args, command, workspace);
    pin_folders(args, command, workspace);
    for (const fs::path& path : command.protect) {
      const fs::path at = require_inside(path, workspace);
      if (exists_without_links(workspace, at)) args.read_only(at);
    }
    for (const SandboxedCommand::Cover& cover : command.covers) add_cover(args, cover, workspace);
    // The folders that bwrap made to mount on are memory of the host too, and have no size.
    args.add("--remount-ro", "/dev", "--remount-ro", "/");
  }

  /// What of the host's folders is seen; those that lie in others come after them.
  void add_folders(ArgumentList& args, const SandboxedCommand& command,
                   const fs::path& workspace) const {
    std::map<fs::path, std::string_view> binds;
    for (const fs::path& path : toolchains_) {
      if (!is_within(workspace, path)) binds[path] = kReadOnly;  // else it would show the siblings
    }
    for (const fs::path& path : checked_read_only(command)) binds[path] = kReadOnly;
    for (const fs::path& path : command.writable) {
      binds[checked_folder(path, "a writable folder")] = kWritable;
    }
    for (const auto& [path, option] : binds) args.add(option, path.string(), path.string());
    args.add(kWritable, workspace.string(), workspace.string());
  }

  static bool is_below_shown(const fs::path& path) {
    const fs::path at = normal(path);
    return is_within(at, kSandboxShown) && at != kSandboxShown;
  }

  static void add_cover(ArgumentList& args, const SandboxedCommand::Cover& cover,
                        const fs::path& workspace) {
    std::error_code error;
    const fs::path shown = normal(cover.shown);
    if (!shown.is_absolute() || !fs::exists(shown, error)) {
      throw TestExecutionError("cannot show to the sandbox: " + cover.shown.string() +
                               ": no such path");
    }
    fs::path at = normal(cover.at);
    if (!is_below_shown(at)) {
      at = require_inside(at, workspace);
      if (!exists_without_links(workspace, at)) return;
      if (fs::is_directory(at, error) != fs::is_directory(shown, error)) {
        throw TestExecutionError("cannot show " + shown.string() + " at " + at.string() +
                                 ": one is a folder, the other is not");
      }
    }
    args.add(cover.writable ? kWritable : kReadOnly, shown.string(), at.string());
  }

  static constexpr std::string_view kReadOnly = "--ro-bind";
  static constexpr std::string_view kWritable = "--bind";

  Supervisor& supervisor_;
  ResourceLimits limits_;
  std::vector<fs::path> etc_;
  std::vector<fs::path> etc_with_network_;
  std::vector<fs::path> toolchains_;
  std::string program_;
  std::string filter_ = filter_bytes();
  bool disable_userns_ = true;
  std::shared_future<void> trial_;  ///< last: it is waited for before anything else goes
};

}  // namespace

std::unique_ptr<Sandbox> make_bubblewrap_sandbox(Supervisor& supervisor,
                                                 const ResourceLimits& limits) {
  return std::make_unique<BubblewrapSandbox>(supervisor, limits);
}

}  // namespace necrocode::process
