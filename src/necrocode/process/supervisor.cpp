// The near side of the Supervisor: starts the helper, hands it commands, watches each on its
// caller's thread. No thread is made here and nothing is forked; see supervisor_child.cpp for the
// far side.
#include "necrocode/process/supervisor.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/process/captured_stream.hpp"
#include "necrocode/process/cgroups.hpp"
#include "necrocode/process/supervisor_protocol.hpp"

namespace necrocode::process {
namespace {

using protocol::Report;
using protocol::ReportKind;
using protocol::StartStep;

constexpr std::size_t kReadBytes = 64 * limits::kKiB;  // a pipe holds no more
/// Between two looks at what a command uses; each costs 0.02 ms.
constexpr auto kLookInterval = std::chrono::milliseconds(250);
constexpr std::uint64_t kWarnPercent = 80;

struct FdPair {
  FileDescriptor near;  ///< ours
  FileDescriptor far;   ///< the child's
};

FdPair make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw_errno("cannot make a pipe");
  FdPair pipe{FileDescriptor(ends[0]), FileDescriptor(ends[1])};
  ::fcntl(pipe.near.get(), F_SETFL, O_NONBLOCK);
  return pipe;
}

FdPair make_socket_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw_errno("cannot make a socket pair");
  }
  return {FileDescriptor(ends[0]), FileDescriptor(ends[1])};
}

/// An unnamed file with this content, which nobody can change any more; read from its beginning.
FileDescriptor make_memory_file(std::string_view bytes) {
  FileDescriptor file(::memfd_create("necrocode", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) throw_errno("cannot make a memory file");
  write_all(file.get(), bytes);
  ::lseek(file.get(), 0, SEEK_SET);
  ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
  return file;
}

/// Rounded up, so that a wait never ends just before its time; -1 waits for ever.
int poll_milliseconds(SteadyTime until) {
  if (until == SteadyTime::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - real_clock().steady_now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
}

std::string error_text(int error) {
  return std::generic_category().message(error);
}

/// The helper process; shared by the runs that use it, once it has said hello.
class HelperProcess {
 public:
  explicit HelperProcess(bool pid_namespace) {
    FdPair channel = make_socket_pair();
    spawn(channel.far.get(), pid_namespace);
    channel.far.reset();
    channel_ = std::move(channel.near);
  }
  ~HelperProcess() { end(); }
  HelperProcess(const HelperProcess&) = delete;
  HelperProcess& operator=(const HelperProcess&) = delete;

  /// To be called before anything else; waits the first time.
  void await_hello() {
    if (std::exchange(awaited_, true)) return;
    try {
      read_hello();
    } catch (...) {
      end();
      throw;
    }
  }
  protocol::Isolation isolation() const { return isolation_; }
  pid_t pid() const { return pid_; }

  bool alive() const {
    pollfd watched{channel_.get(), POLLIN, 0};
    return ::poll(&watched, 1, 0) == 0;  // after the hello, only end of file can come
  }

  /// False when the helper is gone.
  bool send(const protocol::StartHeader& header, const std::vector<int>& fds) const {
    if (protocol::send_with_descriptors(channel_.get(), &header, sizeof header, fds)) return true;
    if (errno == EPIPE || errno == ECONNRESET) return false;
    throw_errno("cannot hand a command to the supervisor");
  }

  /// Everything it runs ends with it.
  void end() {
    if (channel_) ::shutdown(channel_.get(), SHUT_RDWR);
    if (pid_ <= 0) return;
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) continue;
    pid_ = -1;
  }

 private:
  void spawn(int channel, bool pid_namespace) {
    std::array<char*, 3> argv{
        const_cast<char*>(protocol::kHelperName),
        pid_namespace ? nullptr : const_cast<char*>(protocol::kNoNamespaceFlag), nullptr};
    std::string mark = std::string(protocol::kHelperMark) + "=1";
    std::array<char*, 2> env{mark.data(), nullptr};

    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, channel, protocol::kChannelFd);
    for (const int fd : {0, 1, 2}) {
      ::posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    }
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    sigset_t none;
    sigset_t all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    // A session of its own: a terminal's Ctrl-C is for us to translate, not for the children.
    ::posix_spawnattr_setflags(
        &attributes,
        static_cast<short>(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID));
    const int error =
        ::posix_spawn(&pid_, "/proc/self/exe", &actions, &attributes, argv.data(), env.data());
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
      pid_ = -1;
      throw StorageError("cannot start the supervisor: " + error_text(error));
    }
  }

  void read_hello() {
    const SteadyTime until = real_clock().steady_now() + limits::kSupervisorStart;
    pollfd watched{channel_.get(), POLLIN, 0};
    while (::poll(&watched, 1, poll_milliseconds(until)) < 0 && errno == EINTR) continue;
    Report hello;
    const ssize_t got = ::recv(channel_.get(), &hello, sizeof hello, MSG_DONTWAIT);
    if (got != sizeof hello || hello.kind != ReportKind::kReady) {
      if (got < 0) ::kill(pid_, SIGKILL);
      throw StorageError("the supervisor does not start: main() must call supervisor_main() first");
    }
    isolation_ = static_cast<protocol::Isolation>(hello.value);
  }

  pid_t pid_ = -1;
  bool awaited_ = false;
  FileDescriptor channel_;
  protocol::Isolation isolation_ = protocol::Isolation::kNone;
};

/// The group of a command, and the limits that no group holds.
struct Confinement {
  std::unique_ptr<CommandGroup> group;  ///< may be null
  std::uint64_t data_max = 0;           ///< as in protocol::Request
  std::uint64_t processes_max = 0;
};

/// One command from its start to the time when nothing of it is left.
class Run {
 public:
  Run(const Command& command, const CallContext& context, const OutputSink& sink,
      std::chrono::nanoseconds grace, Confinement confinement)
      : command_(command),
        sink_(sink),
        confinement_(std::move(confinement)),
        grace_(grace),
        begin_(real_clock().steady_now()),
        deadline_(context.within(command.timeout).deadline),
        out_(make_pipe(), command),
        err_(make_pipe(), command),
        control_(make_socket_pair()),
        buffer_(kReadBytes, '\0') {
    if (command.status_channel) status_ = make_pipe();
    if (confinement_.group) look_at_ = begin_ + kLookInterval;
    if (context.stop.stop_possible()) {
      cancelled_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      if (!cancelled_) throw_errno("cannot make an event descriptor");
    }
  }

  /// False when the helper is gone.
  bool start(const HelperProcess& helper) {
    const FileDescriptor request = make_memory_file(encoded_request());
    protocol::StartHeader header;
    std::vector<int> fds{request.get(), out_.pipe.far.get(), err_.pipe.far.get(),
                         control_.far.get()};
    FileDescriptor input;
    if (!command_.input.empty()) {
      input = make_memory_file(command_.input);
      header.has_input = 1;
      fds.push_back(input.get());
    }
    if (status_.far) {
      header.has_status = 1;
      fds.push_back(status_.far.get());
    }
    if (const CommandGroup* group = confinement_.group.get()) {
      const std::vector<int> joins = group->tasks();
      header.has_group = group->folder() >= 0;
      header.groups_to_join = static_cast<std::uint8_t>(joins.size());
      if (group->folder() >= 0) fds.push_back(group->folder());
      fds.insert(fds.end(), joins.begin(), joins.end());
    }
    if (!helper.send(header, fds)) return false;
    for (FdPair* pair : {&out_.pipe, &err_.pipe, &control_, &status_}) pair->far.reset();
    return true;
  }

  CommandResult wait(const std::stop_token& stop) {
    const int wake = cancelled_.get();
    const std::stop_callback on_stop(stop, [wake] {
      const std::uint64_t one = 1;
      [[maybe_unused]] const ssize_t wrote = ::write(wake, &one, sizeof one);
    });
    try {
      while (!finished()) step();
    } catch (...) {
      end_without_output();
      throw;
    }
    return result();
  }

 private:
  struct Output {
    Output(FdPair fds, const Command& command)
        : pipe(std::move(fds)), capture(command.head_bytes, command.tail_bytes) {}
    FdPair pipe;
    StreamCapture capture;
  };

  std::string encoded_request() const {
    const auto clean = [](const std::vector<std::string>& texts) {
      return std::none_of(texts.begin(), texts.end(), [](const std::string& text) {
        return text.find('\0') != std::string::npos;
      });
    };
    if (command_.argv.empty() || command_.argv.front().empty()) {
      throw TestExecutionError("cannot start a command without a name");
    }
    if (!clean(command_.argv) || !clean(command_.env)) {
      throw TestExecutionError("cannot start " + command_.argv.front() +
                               ": an argument or variable contains a NUL byte");
    }
    if (command_.second_input.size() > kSecondInputBytes) {
      throw TestExecutionError("cannot start " + command_.argv.front() + ": its second input has " +
                               std::to_string(command_.second_input.size()) + " bytes, at most " +
                               std::to_string(kSecondInputBytes) + " are possible");
    }
    std::string bytes = protocol::encode(request());
    if (bytes.size() > limits::kChildRequestBytes) {
      throw TestExecutionError("cannot start " + command_.argv.front() + ": too many arguments");
    }
    return bytes;
  }

  protocol::Request request() const {
    protocol::Request request;
    request.argv = command_.argv;
    request.env = command_.env;
    request.working_directory = command_.working_directory.string();
    request.file_size_max = command_.file_size_max;
    request.open_files_max = command_.open_files_max;
    request.data_max = confinement_.data_max;
    request.processes_max = confinement_.processes_max;
    request.gate_port = command_.gate_port;
    request.second_input = command_.second_input;
    if (const auto& enclosure = command_.enclosure) {
      request.enclosed = 1;
      for (const auto& path : enclosure->readable) request.readable.push_back(path.string());
      for (const auto& path : enclosure->writable) request.writable.push_back(path.string());
      request.network = enclosure->network ? 1 : 0;
      request.connect_port = enclosure->connect_port;
    }
    return request;
  }

  bool finished() const {
    if (control_.near) return false;
    const bool drained = !out_.pipe.near && !err_.pipe.near && !status_.near;
    return drained || real_clock().steady_now() >= drain_until_;
  }

  void step() {
    std::array<pollfd, 5> watched{
        pollfd{out_.pipe.near.get(), POLLIN, 0}, pollfd{err_.pipe.near.get(), POLLIN, 0},
        pollfd{status_.near.get(), POLLIN, 0}, pollfd{control_.near.get(), POLLIN, 0},
        pollfd{stopping() ? -1 : cancelled_.get(), POLLIN, 0}};
    if (::poll(watched.data(), watched.size(), poll_milliseconds(next_time())) < 0) {
      if (errno != EINTR) throw_errno("cannot wait for a command");
      return;
    }
    if (watched[0].revents != 0) read_output(out_);
    if (watched[1].revents != 0) read_output(err_);
    if (watched[2].revents != 0) read_status();
    if (watched[3].revents != 0) read_reports();
    if (watched[4].revents != 0) terminate(CommandEnd::kCancelled);
    check_time();
  }

  bool stopping() const { return ended_by_us_.has_value(); }

  SteadyTime next_time() const {
    if (!control_.near) return drain_until_;
    if (killed_ || exited_) return SteadyTime::max();  // its end is certain and near
    return std::min(stopping() ? kill_at_ : deadline_, look_at_);
  }

  void check_time() {
    if (!control_.near || killed_ || exited_) return;
    const SteadyTime now = real_clock().steady_now();
    if (!stopping() && now >= deadline_) terminate(CommandEnd::kTimedOut);
    if (stopping() && now >= kill_at_) kill();
    if (now >= look_at_) {
      look();
      look_at_ = now + kLookInterval;
    }
  }

  void look() {
    if (confinement_.group) confinement_.group->look(result_.usage);
    const ResourceLimits& limits = command_.limits;
    warn_when_near(result_.usage.peak_memory_bytes, limits.memory_bytes, warned_of_memory_,
                   "memory limit of " + size_text(limits.memory_bytes));
    warn_when_near(result_.usage.peak_processes, limits.processes, warned_of_processes_,
                   "limit of " + std::to_string(limits.processes) + " processes");
  }

  void warn_when_near(std::uint64_t used, std::uint64_t limit, bool& warned,
                      const std::string& what) {
    if (limit == 0 || warned || used * 100 < limit * kWarnPercent) return;
    warned = true;
    const std::uint64_t percent = std::min<std::uint64_t>(100, used * 100 / limit);
    if (command_.on_warning) {
      command_.on_warning("used " + std::to_string(percent) + " % of its " + what);
    }
  }

  void order(char what) { ::send(control_.near.get(), &what, 1, MSG_NOSIGNAL); }

  void terminate(CommandEnd end) {
    if (stopping() || exited_ || !control_.near) return;
    ended_by_us_ = end;
    kill_at_ = real_clock().steady_now() + grace_;
    order(protocol::kTerminate);
  }

  void kill() {
    killed_ = true;
    order(protocol::kKill);
  }

  /// The next piece, empty when there is none now. Closes the pipe at its end.
  std::string_view read_piece(FileDescriptor& fd) {
    const ssize_t got = ::read(fd.get(), buffer_.data(), buffer_.size());
    if (got > 0) return {buffer_.data(), static_cast<std::size_t>(got)};
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) fd.reset();
    return {};
  }

  void read_output(Output& output) {
    const std::string_view piece = read_piece(output.pipe.near);
    output.capture.add(piece);
    if (sink_ && !piece.empty()) sink_(piece);
  }

  void read_status() {
    const std::string_view piece = read_piece(status_.near);
    result_.status.append(piece.substr(0, limits::kChildStatusBytes - result_.status.size()));
  }

  void read_reports() {
    Report report;
    std::vector<FileDescriptor> received;
    const ssize_t got =
        protocol::receive_with_descriptors(control_.near.get(), &report, sizeof report, received);
    // ECONNRESET comes once, before the last reports, when an order of ours was left unread.
    if (got < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET)) return;
    if (got != sizeof report) {
      control_.near.reset();
      drain_until_ = real_clock().steady_now() + limits::kDrainAfterExit;
      return;
    }
    if (report.kind == ReportKind::kInitGone) {
      gone_ = true;
      result_.usage.cpu_time = std::chrono::microseconds(report.cpu_microseconds);
      result_.usage.peak_memory_bytes =
          std::max(result_.usage.peak_memory_bytes, report.largest_process_bytes);
    }
    if (report.kind == ReportKind::kListener && !received.empty() && !killed_) {
      if (command_.on_listener) command_.on_listener(std::move(received.front()));
      order(protocol::kGo);
    }
    if (report.kind == ReportKind::kStartFailed && !failed_start_) failed_start_ = report;
    if (report.kind == ReportKind::kExited) {
      exited_ = true;
      result_.exit_code = report.value;
    }
    if (report.kind == ReportKind::kSignalled) {
      exited_ = true;
      result_.signal = report.value;
      result_.exit_code = 128 + report.value;
    }
  }

  /// After an exception: nothing may be left behind, but nobody wants to see the output any more.
  void end_without_output() noexcept {
    if (control_.near) kill();
    out_.pipe.near.reset();
    err_.pipe.near.reset();
    while (control_.near) {
      pollfd watched{control_.near.get(), POLLIN, 0};
      ::poll(&watched, 1, -1);
      read_reports();
    }
  }

  [[noreturn]] void throw_failed_start() const {
    const std::string reason = error_text(failed_start_->value);
    const std::string& program = command_.argv.front();
    ErrorInfo info;
    info.service = "supervisor";
    info.operation = "start";
    info.target = program;
    switch (failed_start_->step) {
      case StartStep::kFolder:
        throw TestExecutionError("cannot start " + program + " in " +
                                     command_.working_directory.string() + ": " + reason,
                                 std::move(info));
      case StartStep::kExec:
        info.status = failed_start_->value == ENOENT || failed_start_->value == ENOTDIR
                          ? kNotFoundStatus
                          : kNotExecutableStatus;
        throw TestExecutionError("cannot start " + program + ": " + reason, std::move(info));
      case StartStep::kGroups:
        throw TestExecutionError(
            "cannot start " + program + ": it cannot enter its control group: " + reason,
            std::move(info));
      case StartStep::kFork:
        throw TestExecutionError("cannot start " + program + ": no new process: " + reason,
                                 std::move(info));
      case StartStep::kNetwork:
        throw TestExecutionError("cannot start " + program +
                                     " behind a gate: no network namespace of its own: " + reason,
                                 std::move(info));
      case StartStep::kLoopback:
        throw TestExecutionError(
            "cannot start " + program + " behind a gate: its loopback does not come up: " + reason,
            std::move(info));
      case StartStep::kListen:
        throw TestExecutionError("cannot start " + program +
                                     " behind a gate: no listener on port " +
                                     std::to_string(command_.gate_port) + ": " + reason,
                                 std::move(info));
      case StartStep::kHandOver:
        throw TestExecutionError(
            "cannot start " + program + " behind a gate: its listener is not handed out: " + reason,
            std::move(info));
      case StartStep::kEnclose:
        throw TestExecutionError("cannot start " + program +
                                     ": it cannot be enclosed by Landlock and seccomp: " + reason,
                                 std::move(info));
      default:
        throw TestExecutionError("cannot start " + program + ": preparation failed: " + reason,
                                 std::move(info));
    }
  }

  CommandResult result() {
    if (failed_start_) throw_failed_start();
    if (!gone_) throw StorageError("the supervisor died while it ran " + command_.argv.front());
    if (!exited_ && !killed_) {
      throw StorageError("the init of " + command_.argv.front() + " was killed from outside");
    }
    if (!exited_) {
      result_.signal = SIGKILL;
      result_.exit_code = 128 + SIGKILL;
    }
    result_.end = result_.signal != 0 ? CommandEnd::kSignalled : CommandEnd::kExited;
    if (ended_by_us_) result_.end = *ended_by_us_;
    look();
    if (confinement_.group) result_.limit_reached = confinement_.group->limit_reached();
    result_.out = out_.capture.take();
    result_.err = err_.capture.take();
    result_.duration = real_clock().steady_now() - begin_;
    return std::move(result_);
  }

  const Command& command_;
  const OutputSink& sink_;
  Confinement confinement_;
  std::chrono::nanoseconds grace_;
  SteadyTime begin_;
  SteadyTime deadline_;
  SteadyTime kill_at_ = SteadyTime::max();
  SteadyTime look_at_ = SteadyTime::max();  ///< where there is something to see
  SteadyTime drain_until_ = SteadyTime::max();
  Output out_;
  Output err_;
  FdPair control_;
  FdPair status_;
  FileDescriptor cancelled_;
  std::string buffer_;
  std::optional<CommandEnd> ended_by_us_;
  std::optional<Report> failed_start_;
  bool exited_ = false;  ///< its end is reported
  bool killed_ = false;
  bool gone_ = false;  ///< the helper says that nothing is left
  bool warned_of_memory_ = false;
  bool warned_of_processes_ = false;
  CommandResult result_;
};

}  // namespace

struct Supervisor::State {
  const SupervisorOptions options;
  std::mutex mutex;
  std::shared_ptr<HelperProcess> helper;  ///< under the mutex
  std::once_flag looked_for_cgroups;
  std::optional<Cgroups> cgroups;  ///< looked for when the first limit is asked for

  explicit State(SupervisorOptions wanted) : options(wanted) {}

  /// Begins to start the first helper; it comes up while the caller does something else.
  void start_helper() {
    const std::lock_guard lock(mutex);
    helper = std::make_shared<HelperProcess>(options.pid_namespace);
  }

  /// The helper; a new one when the last died.
  std::shared_ptr<HelperProcess> living_helper() {
    const std::lock_guard lock(mutex);
    if (helper) helper->await_hello();
    if (!helper || !helper->alive()) {
      helper.reset();
      helper = std::make_shared<HelperProcess>(options.pid_namespace);
      helper->await_hello();
    }
    return helper;
  }

  int cgroup_version(Controller controller) {
    std::call_once(looked_for_cgroups, [this] {
      if (options.cgroups) cgroups.emplace(std::vector{::getpid(), living_helper()->pid()});
    });
    return cgroups ? cgroups->version(controller) : 0;
  }

  Confinement confine(const ResourceLimits& limits) {
    Confinement result;
    if (limits.memory_bytes == 0 && limits.processes == 0 && limits.cpu_percent == 0) return result;
    if (cgroup_version(Controller::kMemory) == 0) result.data_max = limits.memory_bytes;
    if (cgroup_version(Controller::kProcesses) == 0) result.processes_max = limits.processes;
    if (cgroups) result.group = cgroups->make(limits);
    return result;
  }
};

Supervisor::Supervisor(SupervisorOptions options) : state_(std::make_unique<State>(options)) {
  if (std::getenv(protocol::kHelperMark) != nullptr) {
    throw StorageError("main() must call supervisor_main() before it makes a Supervisor");
  }
  state_->start_helper();
}

Supervisor::~Supervisor() {
  // Also for runs that other threads still wait in: they hold the helper and see its end.
  const std::lock_guard lock(state_->mutex);
  if (state_->helper) state_->helper->end();
}

CommandResult Supervisor::run(const Command& command, const CallContext& context,
                              const OutputSink& sink) {
  CommandResult unstarted;
  unstarted.end = context.cancelled() ? CommandEnd::kCancelled : CommandEnd::kTimedOut;
  unstarted.exit_code = 128 + SIGTERM;
  if (context.cancelled() || context.expired()) return unstarted;

  Run run(command, context, sink, state_->options.terminate_grace, state_->confine(command.limits));
  std::shared_ptr<HelperProcess> helper = state_->living_helper();
  if (!run.start(*helper)) {
    helper = state_->living_helper();  // it died just now
    if (!run.start(*helper)) throw StorageError("the supervisor dies as soon as it starts");
  }
  return run.wait(context.stop);
}

bool Supervisor::has_pid_namespace() const {
  return state_->living_helper()->isolation() != protocol::Isolation::kNone;
}

std::string Supervisor::describe_limits(const ResourceLimits& limits) const {
  const auto by = [this](Controller controller, const char* otherwise) {
    const int version = state_->cgroup_version(controller);
    return version != 0 ? " (cgroup v" + std::to_string(version) + ")" : std::string(otherwise);
  };
  const bool rlimit_counts =
      state_->living_helper()->isolation() == protocol::Isolation::kUserAndPid;
  std::vector<std::string> parts = {"memory not limited", "processes not limited",
                                    "CPU not limited"};
  if (limits.memory_bytes != 0) {
    parts[0] =
        "memory " + size_text(limits.memory_bytes) + by(Controller::kMemory, " a process (rlimit)");
  }
  const std::string counted = by(Controller::kProcesses, rlimit_counts ? " (rlimit)" : "");
  if (limits.processes != 0 && !counted.empty()) {
    parts[1] = std::to_string(limits.processes) + " processes" + counted;
  }
  const std::string shared = by(Controller::kCpu, "");
  if (limits.cpu_percent != 0 && !shared.empty()) {
    parts[2] = "CPU " + std::to_string(limits.cpu_percent) + " %" + shared;
  }
  return join(parts, ", ");
}

}  // namespace necrocode::process
