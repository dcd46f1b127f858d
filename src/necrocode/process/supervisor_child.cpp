// The helper process and the inits it makes: the far side of the Supervisor.
// Single-threaded, and small on purpose. It reads no file, no environment and no credential; what a
// command is given is read by that command's init only.
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/process/enclosure.hpp"
#include "necrocode/process/gate.hpp"
#include "necrocode/process/supervisor.hpp"
#include "necrocode/process/supervisor_protocol.hpp"

namespace necrocode::process {
namespace {

using protocol::Isolation;
using protocol::Report;
using protocol::ReportKind;
using protocol::Request;
using protocol::StartStep;

/// What an init is born with; -1 where there is none.
struct InitDescriptors {
  int request = -1;
  int out = -1;
  int err = -1;
  int control = -1;
  int input = -1;
  int status = -1;
  int second_input = -1;
  int lifeline = -1;  ///< end of file when the helper is gone
  int group = -1;
  std::vector<int> groups_to_join;
};

void send_report(int socket, const Report& report) {
  ssize_t sent = -1;
  do {
    sent = ::send(socket, &report, sizeof report, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
}

[[noreturn]] void fail_start(int control, StartStep step, int error) {
  send_report(control, {ReportKind::kStartFailed, error, step});
  ::_exit(127);
}

bool write_proc_file(const char* path, const std::string& text) {
  FileDescriptor file(::open(path, O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

/// In a new user namespace: we keep our own ids, and nobody else's exist.
bool map_own_ids(uid_t uid, gid_t gid) {
  // Files in /proc/self belong to root while the process is not dumpable.
  ::prctl(PR_SET_DUMPABLE, 1);
  const auto line = [](unsigned id) {
    return std::to_string(id) + " " + std::to_string(id) + " 1\n";
  };
  const bool mapped = write_proc_file("/proc/self/setgroups", "deny") &&
                      write_proc_file("/proc/self/uid_map", line(uid)) &&
                      write_proc_file("/proc/self/gid_map", line(gid));
  ::prctl(PR_SET_DUMPABLE, 0);
  return mapped;
}

/// fork(), into new namespaces. The raw call is safe here because this process has one thread.
pid_t fork_into(Isolation isolation) {
  unsigned long flags = SIGCHLD;
  if (isolation != Isolation::kNone) flags |= CLONE_NEWPID;
  if (isolation == Isolation::kUserAndPid) flags |= CLONE_NEWUSER;
  return static_cast<pid_t>(::syscall(SYS_clone, flags, nullptr, nullptr, nullptr, nullptr));
}

/// fork(), into a group of cgroup v2 when there is one. `joined` tells the child whether it is in
/// there already: filters of container engines refuse clone3.
pid_t fork_into_group(int group, bool& joined) {
  joined = true;
  if (group >= 0) {
    clone_args args{};
    args.exit_signal = SIGCHLD;
    args.flags = CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(group);
    const auto child = static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
    if (child >= 0 || errno != ENOSYS) return child;
    joined = false;
  }
  return fork_into(Isolation::kNone);
}

bool join_group(int group) {
  const FileDescriptor processes(::openat(group, "cgroup.procs", O_WRONLY | O_CLOEXEC));
  return processes && ::write(processes.get(), "0", 1) == 1;
}

bool can_isolate(Isolation isolation) {
  const uid_t uid = ::getuid();
  const gid_t gid = ::getgid();
  const pid_t child = fork_into(isolation);
  if (child < 0) return false;
  if (child == 0) {
    ::_exit(isolation != Isolation::kUserAndPid || map_own_ids(uid, gid) ? 0 : 1);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

Isolation best_isolation() {
  for (const Isolation candidate : {Isolation::kPid, Isolation::kUserAndPid}) {
    if (can_isolate(candidate)) return candidate;
  }
  return Isolation::kNone;
}

void close_all_except(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned first = 0;
  for (const int fd : kept) {
    if (fd < 0) continue;
    const auto number = static_cast<unsigned>(fd);
    if (number > first) ::close_range(first, number - 1, 0);
    first = number + 1;
  }
  ::close_range(first, ~0U, 0);
}

std::optional<Request> read_request(int fd) {
  struct stat info = {};
  if (::fstat(fd, &info) != 0 || info.st_size <= 0) return std::nullopt;
  std::string bytes(static_cast<std::size_t>(info.st_size), '\0');
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t got =
        ::pread(fd, bytes.data() + filled, bytes.size() - filled, static_cast<off_t>(filled));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return std::nullopt;
    filled += static_cast<std::size_t>(got);
  }
  return protocol::decode(bytes);
}

bool join(const std::vector<int>& groups) {
  return std::all_of(groups.begin(), groups.end(),
                     [](int tasks) { return ::write(tasks, "0", 1) == 1; });
}

bool set_limit(decltype(RLIMIT_CORE) which, std::uint64_t wanted) {
  rlimit limit{};
  if (::getrlimit(which, &limit) != 0) return false;
  limit.rlim_max = std::min<rlim_t>(limit.rlim_max, wanted);
  limit.rlim_cur = limit.rlim_max;
  return ::setrlimit(which, &limit) == 0;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

/// Returns only on failure, with errno. A program without a slash is looked up in the absolute
/// folders of the command's own PATH.
int execute(Request& request) {
  const std::vector<char*> argv = pointers(request.argv);
  const std::vector<char*> env = pointers(request.env);
  const std::string& program = request.argv.front();
  if (program.find('/') != std::string::npos) {
    ::execve(program.c_str(), argv.data(), env.data());
    return errno;
  }
  std::string_view path = "/usr/local/bin:/usr/bin:/bin";
  for (const std::string_view entry : request.env) {
    if (entry.starts_with("PATH=")) path = entry.substr(5);
  }
  int error = ENOENT;
  for (const std::string_view folder : split(path, ':')) {
    if (!folder.starts_with('/')) continue;
    const std::string candidate = std::string(folder) + "/" + program;
    ::execve(candidate.c_str(), argv.data(), env.data());
    if (errno == ENOENT || errno == ENOTDIR) continue;
    const int refused = errno;
    if (::access(candidate.c_str(), F_OK) != 0) continue;  // a folder that we may not search
    error = refused;
    if (error != EACCES) break;
  }
  return error;
}

/// A pipe that holds `text` and its end; it fits, by kSecondInputBytes.
bool open_second_input(const std::string& text, int& fd) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return false;
  fd = ends[0];
  const FileDescriptor writer(ends[1]);
  return ::write(writer.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

/// Puts the descriptors at 0 to 4. Numbers below 5 are moved away first.
bool place_descriptors(InitDescriptors& fds) {
  constexpr int kFirstFree = 5;
  if (fds.input < 0) fds.input = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (fds.input < 0) return false;
  for (int* fd : {&fds.out, &fds.err, &fds.control, &fds.input, &fds.status, &fds.second_input,
                  &fds.lifeline}) {
    if (*fd < 0 || *fd >= kFirstFree) continue;
    *fd = ::fcntl(*fd, F_DUPFD_CLOEXEC, kFirstFree);
    if (*fd < 0) return false;
  }
  return ::dup2(fds.input, 0) == 0 && ::dup2(fds.out, 1) == 1 && ::dup2(fds.err, 2) == 2 &&
         (fds.status < 0 || ::dup2(fds.status, 3) == 3) &&
         (fds.second_input < 0 || ::dup2(fds.second_input, 4) == 4);
}

bool set_limits(const Request& request, Isolation isolation) {
  // The kernel counts processes by user and user namespace: only one of our own has no others.
  const bool count_processes = request.processes_max != 0 && isolation == Isolation::kUserAndPid;
  return set_limit(RLIMIT_CORE, 0) && set_limit(RLIMIT_FSIZE, request.file_size_max) &&
         set_limit(RLIMIT_NOFILE, request.open_files_max) &&
         (request.data_max == 0 || set_limit(RLIMIT_DATA, request.data_max)) &&
         (!count_processes || set_limit(RLIMIT_NPROC, request.processes_max));
}

Enclosure enclosure_of(const Request& request) {
  return {{request.readable.begin(), request.readable.end()},
          {request.writable.begin(), request.writable.end()},
          request.network != 0,
          static_cast<std::uint16_t>(request.connect_port)};
}

/// The command between fork and exec.
[[noreturn]] void become_command(InitDescriptors fds, Request& request, Isolation isolation,
                                 pid_t init) {
  ::setsid();  // no terminal, and a process group to send SIGTERM to
  if (isolation == Isolation::kNone) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != init) ::_exit(127);
  }
  if (!join(fds.groups_to_join)) fail_start(fds.control, StartStep::kGroups, errno);
  // When memory runs out, the kernel shall take the command and not who watches it.
  write_proc_file("/proc/self/oom_score_adj", "500");
  if (!request.second_input.empty() && !open_second_input(request.second_input, fds.second_input)) {
    fail_start(fds.control, StartStep::kDescriptors, errno);
  }
  if (!place_descriptors(fds)) fail_start(fds.control, StartStep::kDescriptors, errno);
  if (!set_limits(request, isolation)) fail_start(fds.control, StartStep::kLimits, errno);
  if (::chdir(request.working_directory.c_str()) != 0) {
    fail_start(fds.control, StartStep::kFolder, errno);
  }
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (request.enclosed != 0 && !enclose_self(enclosure_of(request))) {
    fail_start(fds.control, StartStep::kEnclose, errno);
  }
  fail_start(fds.control, StartStep::kExec, execute(request));
}

std::vector<pid_t> own_children() {
  std::vector<pid_t> children;
  FileDescriptor file(::open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC));
  std::array<char, 16 * 1024> buffer{};
  const ssize_t got = file ? ::read(file.get(), buffer.data(), buffer.size()) : 0;
  const std::string_view text(buffer.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
  for (const std::string_view word : split(text, ' ')) {
    if (const auto pid = parse_uint(word)) children.push_back(static_cast<pid_t>(*pid));
  }
  return children;
}

/// Without a pid namespace: orphans come to us (subreaper), so killing our children until there are
/// none ends all descendants.
void kill_descendants(pid_t command) {
  ::kill(-command, SIGKILL);
  while (true) {
    for (const pid_t child : own_children()) ::kill(child, SIGKILL);
    if (::waitpid(-1, nullptr, 0) < 0 && errno == ECHILD) return;
  }
}

/// The end of an init: of its namespace too, by the kernel.
[[noreturn]] void end_init(pid_t command, Isolation isolation) {
  if (isolation == Isolation::kNone) kill_descendants(command);
  ::_exit(0);
}

/// Reaps what has ended. True when the command was among it and is reported.
bool reap_and_report(pid_t command, int control) {
  bool ended = false;
  int status = 0;
  for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid != command) continue;
    ended = true;
    if (WIFSIGNALED(status)) {
      send_report(control, {ReportKind::kSignalled, WTERMSIG(status), StartStep::kNone});
    } else {
      send_report(control, {ReportKind::kExited, WEXITSTATUS(status), StartStep::kNone});
    }
  }
  return ended;
}

int open_sigchld() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  return ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void drain_sigchld(int fd) {
  signalfd_siginfo info{};
  while (::read(fd, &info, sizeof info) > 0) continue;
}

[[noreturn]] void watch_command(const InitDescriptors& fds, pid_t command, int sigchld,
                                Isolation isolation) {
  std::array<pollfd, 3> watched{pollfd{fds.control, POLLIN, 0}, pollfd{sigchld, POLLIN, 0},
                                pollfd{fds.lifeline, POLLIN, 0}};
  while (true) {
    if (::poll(watched.data(), watched.size(), -1) < 0 && errno != EINTR) {
      end_init(command, isolation);
    }
    if (watched[1].revents != 0) {
      drain_sigchld(sigchld);
      if (reap_and_report(command, fds.control)) end_init(command, isolation);
    }
    if (watched[2].revents != 0) end_init(command, isolation);
    if (watched[0].revents != 0) {
      char order = protocol::kKill;
      const ssize_t got = ::recv(fds.control, &order, 1, MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (got <= 0 || order != protocol::kTerminate) end_init(command, isolation);
      if (::kill(-command, SIGTERM) != 0) ::kill(command, SIGTERM);  // not yet in its own group
    }
  }
}

/// Makes the gate, hands its listener out and waits until it is taken. No copy is kept here.
void open_gate(const InitDescriptors& fds, std::uint16_t port) {
  FileDescriptor listener;
  if (const StartStep failed = make_gate(port, listener); failed != StartStep::kNone) {
    fail_start(fds.control, failed, errno);
  }
  const Report report{ReportKind::kListener, 0, StartStep::kNone};
  if (!protocol::send_with_descriptors(fds.control, &report, sizeof report, {listener.get()})) {
    fail_start(fds.control, StartStep::kHandOver, errno);
  }
  std::array<pollfd, 2> watched{pollfd{fds.control, POLLIN, 0}, pollfd{fds.lifeline, POLLIN, 0}};
  while (::poll(watched.data(), watched.size(), -1) < 0 && errno == EINTR) continue;
  char order = protocol::kKill;
  const bool told = watched[0].revents != 0 && ::recv(fds.control, &order, 1, MSG_DONTWAIT) == 1;
  if (told && order == protocol::kGo) return;
  if (told && order == protocol::kTerminate) {
    send_report(fds.control, {ReportKind::kSignalled, SIGTERM, StartStep::kNone});
  }
  ::_exit(0);
}

/// The life of an init: pid 1 of its namespace where there is one.
[[noreturn]] void run_init(InitDescriptors fds, Isolation isolation, uid_t uid, gid_t gid) {
  std::vector<int> kept = fds.groups_to_join;
  kept.insert(kept.end(), {fds.request, fds.out, fds.err, fds.control, fds.input, fds.status,
                           fds.lifeline, fds.group});
  close_all_except(std::move(kept));
  ::prctl(PR_SET_NAME, "necrocode-init");
  if (isolation == Isolation::kNone) {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  } else {
    // A second line beside the lifeline; getppid() shows nothing from inside the namespace.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  if (isolation == Isolation::kUserAndPid && !map_own_ids(uid, gid)) {
    fail_start(fds.control, StartStep::kNamespace, errno);
  }
  std::optional<Request> request = read_request(fds.request);
  if (!request) fail_start(fds.control, StartStep::kRequest, EINVAL);
  // A SIGTERM that comes while the command still has our dispositions must wait, not be ignored.
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, nullptr);
  const int sigchld = open_sigchld();
  if (sigchld < 0) fail_start(fds.control, StartStep::kDescriptors, errno);
  if (request->gate_port != 0) open_gate(fds, static_cast<std::uint16_t>(request->gate_port));
  const pid_t init = ::getpid();
  bool joined = true;
  const pid_t command = fork_into_group(fds.group, joined);
  if (command < 0) fail_start(fds.control, StartStep::kFork, errno);
  if (command == 0) {
    if (!joined && !join_group(fds.group)) fail_start(fds.control, StartStep::kGroups, errno);
    become_command(fds, *request, isolation, init);
  }
  close_all_except({fds.control, fds.lifeline, sigchld});
  request.reset();
  watch_command(fds, command, sigchld, isolation);
}

std::uint64_t microseconds(const timeval& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000 +
         static_cast<std::uint64_t>(time.tv_usec);
}

/// The helper: waits for commands to start and for inits to reap.
class Helper {
 public:
  Helper(int channel, Isolation isolation) : channel_(channel), isolation_(isolation) {}

  int run() {
    sigchld_.reset(open_sigchld());
    std::array<int, 2> lifeline{};
    if (!sigchld_ || ::pipe2(lifeline.data(), O_CLOEXEC) != 0) return 1;
    lifeline_read_.reset(lifeline[0]);
    lifeline_write_.reset(lifeline[1]);
    send_report(channel_,
                {ReportKind::kReady, static_cast<std::int32_t>(isolation_), StartStep::kNone});
    std::array<pollfd, 2> watched{pollfd{channel_, POLLIN, 0}, pollfd{sigchld_.get(), POLLIN, 0}};
    while (true) {
      if (::poll(watched.data(), watched.size(), -1) < 0 && errno != EINTR) return 1;
      if (watched[1].revents != 0) reap();
      if (watched[0].revents != 0 && !receive()) return 0;
    }
  }

 private:
  /// False when the parent is gone.
  bool receive() {
    protocol::StartHeader header;
    std::vector<FileDescriptor> received;
    const ssize_t got =
        protocol::receive_with_descriptors(channel_, &header, sizeof header, received);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    const std::size_t expected =
        4U + header.has_input + header.has_status + header.has_group + header.groups_to_join;
    const bool whole =
        got == sizeof header && header.magic == protocol::kMagic && received.size() == expected;
    if (whole) start(header, received);  // else its control socket closes, which its caller sees
    return true;
  }

  void start(const protocol::StartHeader& header, std::vector<FileDescriptor>& received) {
    InitDescriptors fds;
    fds.request = received[0].get();
    fds.out = received[1].get();
    fds.err = received[2].get();
    fds.control = received[3].get();
    std::size_t next = 4;
    if (header.has_input != 0) fds.input = received[next++].get();
    if (header.has_status != 0) fds.status = received[next++].get();
    if (header.has_group != 0) fds.group = received[next++].get();
    while (next < received.size()) fds.groups_to_join.push_back(received[next++].get());
    fds.lifeline = lifeline_read_.get();
    const uid_t uid = ::getuid();
    const gid_t gid = ::getgid();
    const pid_t init = fork_into(isolation_);
    if (init == 0) run_init(std::move(fds), isolation_, uid, gid);
    if (init < 0) {
      send_report(fds.control, {ReportKind::kStartFailed, errno, StartStep::kFork});
      send_report(fds.control, {ReportKind::kInitGone, 0, StartStep::kNone});
      return;
    }
    // Kept until the init is reaped: an exiting init closes its own copy before its namespace is
    // empty, so only our copy tells the caller the truth.
    controls_[init] = std::move(received[3]);
  }

  void reap() {
    drain_sigchld(sigchld_.get());
    int status = 0;
    rusage usage{};
    for (pid_t pid = 0; (pid = ::wait4(-1, &status, WNOHANG, &usage)) > 0;) {
      const auto found = controls_.find(pid);
      if (found == controls_.end()) continue;
      send_report(found->second.get(),
                  {ReportKind::kInitGone, status, StartStep::kNone,
                   microseconds(usage.ru_utime) + microseconds(usage.ru_stime),
                   static_cast<std::uint64_t>(usage.ru_maxrss) * limits::kKiB});
      controls_.erase(found);
    }
  }

  int channel_;
  Isolation isolation_;
  FileDescriptor sigchld_;
  FileDescriptor lifeline_read_;
  FileDescriptor lifeline_write_;  ///< nobody writes; it closes when we are gone
  std::map<pid_t, FileDescriptor> controls_;
};

}  // namespace

int supervisor_main(int argc, char** argv) {
  if (argc < 1 || argv[0] == nullptr || std::strcmp(argv[0], protocol::kHelperName) != 0) return -1;
  if (std::getenv(protocol::kHelperMark) == nullptr) return -1;
  const bool no_namespace = argc > 1 && std::strcmp(argv[1], protocol::kNoNamespaceFlag) == 0;
  close_all_except({0, 1, 2, protocol::kChannelFd});
  ::fcntl(protocol::kChannelFd, F_SETFD, FD_CLOEXEC);
  ::prctl(PR_SET_NAME, "necrocode-helper");
  protect_own_memory();
  // A session keyring is inherited through namespaces; ours may hold keys, an own one is empty.
  ::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr);
  // We end when the parent closes the channel, and by nothing else that is sent to a whole service.
  for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::signal(number, SIG_IGN);
  return Helper(protocol::kChannelFd, no_namespace ? Isolation::kNone : best_isolation()).run();
}

void protect_own_memory() {
  ::prctl(PR_SET_DUMPABLE, 0);
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
}

}  // namespace necrocode::process
