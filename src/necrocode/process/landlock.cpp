// The sandbox without namespaces: what it opens up, and what it cannot hold.
#include <algorithm>
#include <future>
#include <system_error>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/process/enclosure.hpp"
#include "necrocode/process/host_view.hpp"
#include "necrocode/process/sandbox.hpp"
#include "necrocode/process/sandbox_parts.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;

void add_present(std::vector<fs::path>& paths, const fs::path& path) {
  std::error_code error;
  if (fs::exists(path, error)) paths.push_back(path);
}

/// TMPDIR and HOME are `temporary` where the command has no others than clean_environment()'s /tmp.
/// Git, unlike most, takes a configuration of the system that it may not open for a failure.
void adapt(std::vector<std::string>& env, const fs::path& temporary) {
  std::erase_if(env, [](const std::string& variable) { return variable == "HOME=/tmp"; });
  const auto has = [&env](std::string_view name) {
    return std::any_of(env.begin(), env.end(),
                       [&](const std::string& variable) { return variable.starts_with(name); });
  };
  if (!has("HOME=")) env.push_back("HOME=" + temporary.string());
  if (!has("TMPDIR=")) env.push_back("TMPDIR=" + temporary.string());
  if (!has("GIT_CONFIG_NOSYSTEM=")) env.emplace_back("GIT_CONFIG_NOSYSTEM=1");
}

class LandlockSandbox final : public Sandbox {
 public:
  LandlockSandbox(Supervisor& supervisor, const ResourceLimits& limits)
      : supervisor_(supervisor), limits_(limits) {
    for (const char* path :
         {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/proc"}) {
      add_present(system_, path);
    }
    for (const char* path :
         {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}) {
      add_present(devices_, path);
    }
    toolchains_ = find_toolchains(own_path_folders(), home_folders()).visible;
    trial_ = std::async(std::launch::async, [this] { try_out(); });
  }

  CommandResult run(const SandboxedCommand& command, const CallContext& context,
                    const OutputSink& sink) override {
    require_usable();
    return run_untried(command, context, sink);
  }
  void require_usable() override { trial_.get(); }
  std::string_view name() const override { return "landlock"; }
  bool can_cover() const override { return false; }
  Gate make_gate() override { return make_host_gate(); }
  std::string limits() const override { return supervisor_.describe_limits(limits_); }

  std::vector<std::string> missing() const override {
    std::vector<std::string> sentences = {
        "names and arguments of this machine's other processes can be seen in /proc",
        "names, sizes and times of all files can be seen, and modes, owners and times changed "
        "where this user may",
        "protected paths can be written, and only be compared afterwards; nothing can be shown "
        "instead of them",
        "/tmp is closed and not private: TMPDIR and HOME are a folder of the command's own",
        "the gate's TCP port is open to every address, not to loopback alone",
        "without the network there is no loopback: nothing can listen, or be connected to",
        "Unix sockets, System V IPC, /dev/shm, debuggers and leak checkers do not work"};
    if (landlock_abi() < kLandlockAbiSignals) {
      sentences.emplace_back("other processes of this user can be sent signals");
    }
    if (!supervisor_.has_pid_namespace()) {
      sentences.emplace_back("a process that hides can outlive its command");
    }
    return sentences;
  }

 private:
  CommandResult run_untried(const SandboxedCommand& command, const CallContext& context,
                            const OutputSink& sink) {
    const fs::path workspace = checked_folder(command.workspace, "the workspace");
    const TemporaryDirectory temporary("necrocode-command-");
    Command enclosed = command.command;
    enclosed.working_directory = checked_command(command, workspace);
    enclosed.limits = limits_of(command, limits_);
    enclosed.enclosure = enclosure_of(command, workspace);
    enclosed.enclosure->writable.push_back(temporary.path());
    adapt(enclosed.env, temporary.path());
    hand_out_host_gate(command);
    try {
      return supervisor_.run(enclosed, context, sink);
    } catch (const TestExecutionError& error) {
      if (error.info().status == 0) throw;
      CommandResult result;  // of a program that is not there, as bubblewrap gives it
      result.exit_code = error.info().status;
      result.err.head = error.summary() + "\n";
      result.err.total_bytes = result.err.head.size();
      return result;
    }
  }

  /// One run that must not be able to read what lies beside its workspace.
  void try_out() {
    if (const int abi = landlock_abi(); abi < kLandlockAbiMin) {
      throw CannotSandbox(
          abi == 0
              ? "this kernel has no Landlock, or it is not switched on (on the kernel's command "
                "line: lsm=landlock,…)"
              : "Landlock of this kernel is of version " + std::to_string(abi) + ", at least " +
                    std::to_string(kLandlockAbiMin) + " (Linux 6.7) is needed");
    }
    const TemporaryDirectory folder("necrocode-trial-");
    SandboxedCommand trial;
    trial.workspace = folder.path() / "workspace";
    fs::create_directory(trial.workspace);
    write_file_atomic(folder.path() / "outside", "not to be read");
    trial.command.argv = {"/bin/sh", "-c", "! (: < ../outside) 2> /dev/null"};
    trial.command.env = clean_environment();
    trial.command.timeout = std::chrono::seconds(30);
    std::string reason;
    try {
      const CommandResult result = run_untried(trial, {}, {});
      if (result.ok()) return;
      reason = "a trial ended with code " + std::to_string(result.exit_code) + ": " +
               printable(shorten(trim(result.err.text()), 500));
    } catch (const TestExecutionError& error) {
      reason = error.summary();
    }
    throw CannotSandbox("Landlock: " + reason);
  }

  Enclosure enclosure_of(const SandboxedCommand& command, const fs::path& workspace) const {
    Enclosure enclosure;
    enclosure.readable = system_;
    for (const fs::path& path : visible_etc(command.network)) enclosure.readable.push_back(path);
    for (const fs::path& path : toolchains_) {
      if (!is_within(workspace, path)) enclosure.readable.push_back(path);
    }
    for (fs::path& path : checked_read_only(command)) enclosure.readable.push_back(std::move(path));
    enclosure.writable = devices_;
    enclosure.writable.push_back(workspace);
    for (const fs::path& path : command.writable) {
      enclosure.writable.push_back(checked_folder(path, "a writable folder"));
    }
    enclosure.network = command.network;
    if (command.gate != nullptr) enclosure.connect_port = command.gate->port;
    return enclosure;
  }

  Supervisor& supervisor_;
  ResourceLimits limits_;
  std::vector<fs::path> system_;
  std::vector<fs::path> devices_;
  std::vector<fs::path> toolchains_;
  std::shared_future<void> trial_;  ///< last: it is waited for before anything else goes
};

}  // namespace

std::unique_ptr<Sandbox> make_landlock_sandbox(Supervisor& supervisor,
                                               const ResourceLimits& limits) {
  return std::make_unique<LandlockSandbox>(supervisor, limits);
}

}  // namespace necrocode::process
