#include "necrocode/process/sandbox.hpp"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/process/host_view.hpp"
#include "unit/process/host_listeners.hpp"
#include "unit/process/process_table.hpp"
#include "unit/process/scoped_variable.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;
using testing::AnyOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using namespace std::chrono_literals;

using test::ScopedVariable;

class SandboxTest : public testing::Test {
 protected:
  SandboxTest() { fs::create_directory(workspace()); }
  fs::path workspace() const { return folder_.path() / "slot"; }
  SandboxedCommand shell(const std::string& script) const {
    SandboxedCommand command;
    command.command.argv = {"/bin/sh", "-c", script};
    command.command.env = clean_environment();
    command.workspace = workspace();
    return command;
  }
  CommandResult run(const SandboxedCommand& command) { return sandbox_->run(command, {}); }
  std::string output(const std::string& script) {
    const CommandResult result = run(shell(script));
    return result.out.text() + result.err.text();
  }

  TemporaryDirectory folder_;
  Supervisor supervisor_{{true, 100ms}};
  std::unique_ptr<Sandbox> sandbox_ = make_bubblewrap_sandbox(supervisor_);
};

TEST_F(SandboxTest, ExitCodesSignalsAndStreamsComeBack) {
  const CommandResult result = run(shell("echo out; echo err >&2; exit 9"));
  EXPECT_EQ(result.exit_code, 9);
  EXPECT_EQ(result.out.text(), "out\n");
  EXPECT_EQ(result.err.text(), "err\n");
  EXPECT_EQ(run(shell("kill -SEGV $$")).exit_code, 128 + SIGSEGV);
  EXPECT_EQ(sandbox_->name(), "bubblewrap");
}

TEST_F(SandboxTest, MissingProgramIsExitCode127) {
  SandboxedCommand command = shell("");
  command.command.argv = {"no-such-program-here"};
  const CommandResult result = run(command);
  EXPECT_EQ(result.end, CommandEnd::kExited);
  EXPECT_EQ(result.exit_code, 127);
  EXPECT_THAT(result.err.text(), HasSubstr("no-such-program-here"));
  write_file_atomic(workspace() / "plain", "no program", 0644);
  command.command.argv = {"./plain"};
  EXPECT_EQ(run(command).exit_code, 126);
}

TEST_F(SandboxTest, CommandCannotPretendThatTheSandboxFailed) {
  const CommandResult result = run(shell("echo 'bwrap: cannot set up' >&2; exit 1"));
  EXPECT_EQ(result.exit_code, 1);
}

TEST_F(SandboxTest, TimeoutEndsEverythingInside) {
  const std::string mark = test::unique_mark();
  SandboxedCommand command = shell("trap '' TERM; setsid sleep " + mark + " & sleep " + mark);
  command.command.timeout = 200ms;
  EXPECT_EQ(run(command).end, CommandEnd::kTimedOut);
  EXPECT_EQ(test::processes_with(mark), 0);
}

TEST_F(SandboxTest, DaemonIsGoneAfterTheRun) {
  const std::string mark = test::unique_mark();
  EXPECT_TRUE(run(shell("setsid sleep " + mark + " >/dev/null 2>&1 & exit 0")).ok());
  EXPECT_EQ(test::processes_with(mark), 0);
}

TEST_F(SandboxTest, EnvironmentIsClean) {
  const ScopedVariable secret("NECROCODE_TEST_API_KEY", "planted-secret-value");
  const std::string seen = output("env; cat /proc/*/environ");
  EXPECT_THAT(seen, Not(HasSubstr("planted-secret-value")));
  EXPECT_THAT(seen, HasSubstr("HOME=/tmp\n"));
  EXPECT_THAT(seen, HasSubstr("TERM=dumb\n"));
}

TEST_F(SandboxTest, ProcessesOutsideAreNeitherSeenNorReached) {
  const std::string own = std::to_string(::getpid());
  EXPECT_THAT(output("cat /proc/" + own + "/cmdline; cat /proc/" + own + "/environ"),
              HasSubstr("No such file"));
  // Only bwrap's own init, the shell and the listing itself.
  EXPECT_THAT(trim(output("set -- /proc/[0-9]*; echo $#")), AnyOf("1", "2", "3"));
  EXPECT_NE(run(shell("kill -0 " + own)).exit_code, 0);
}

TEST_F(SandboxTest, NoDescriptorIsHandedOn) {
  SandboxedCommand command = shell("");
  command.command.argv = {"/bin/ls", "/proc/self/fd"};
  EXPECT_EQ(run(command).out.text(), "0\n1\n2\n3\n");  // 3 is the listing itself
}

TEST_F(SandboxTest, NoCapabilitiesAndNoNewPrivileges) {
  const std::string status = output("grep -E 'Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status");
  EXPECT_EQ(status,
            "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n"
            "CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n");
  EXPECT_NE(run(shell("mount -t tmpfs none /mnt")).exit_code, 0);
  EXPECT_NE(run(shell("unshare -Ur true")).exit_code, 0);
}

TEST_F(SandboxTest, SettingsOfTheKernelCannotBeOpenedForWriting) {
  // Opened only, nothing is written: were the door open, the machine must not suffer from the test.
  // What is writable beside the process's own folders is printed.
  EXPECT_EQ(
      output("find /proc/sys /proc/sysrq-trigger /proc/irq /proc/mtrr /proc/fs -type f 2>/dev/null"
             " | while read -r f; do (: >> \"$f\") 2>/dev/null && echo \"$f\"; done"),
      "");
  EXPECT_NE(run(shell(": >> /proc/sys/kernel/core_pattern")).exit_code, 0);
  EXPECT_EQ(run(shell("cat /proc/kcore /proc/kmsg /proc/keys /proc/timer_list")).out.text(), "");
}

TEST_F(SandboxTest, HomeIsInvisible) {
  const fs::path home = folder_.path() / "home";
  fs::create_directories(home / ".ssh");
  write_file_atomic(home / ".ssh/id_test", "planted-private-key", 0600);
  write_file_atomic(home / ".netrc", "planted-password", 0600);
  const ScopedVariable variable("HOME", home.string());
  const std::unique_ptr<Sandbox> sandbox = make_bubblewrap_sandbox(supervisor_);
  const CommandResult result =
      sandbox->run(shell("cat " + (home / ".ssh/id_test").string() + " " +
                         (home / ".netrc").string() + "; ls -A ~; ls -A " + home.string()),
                   {});
  EXPECT_THAT(result.out.text(), Not(HasSubstr("planted")));
  for (const fs::path& real : home_folders()) {
    const std::string seen =
        output("ls -A " + real.string() + "/.ssh " + real.string() + "/.netrc");
    EXPECT_THAT(seen, HasSubstr("No such file"));
  }
}

TEST_F(SandboxTest, CredentialFilesOfTheSystemAreInvisible) {
  EXPECT_THAT(output("cat /etc/shadow /etc/ssl/private/* /etc/ssh/* 2>&1"),
              HasSubstr("No such file"));
  EXPECT_THAT(output("head -c 5 /etc/passwd"), HasSubstr("root:"));
  EXPECT_NE(run(shell("ls /sys")).exit_code, 0);
}

TEST_F(SandboxTest, OnlyTheWorkspaceAndTmpAreWritable) {
  EXPECT_TRUE(
      run(shell("echo kept > file && mkdir -p a/b && echo x > /tmp/t && echo x > /var/tmp/v "
                "&& echo x > /dev/null && echo x > /dev/shm/s"))
          .ok());
  EXPECT_EQ(read_file(workspace() / "file", 100), "kept\n");
  EXPECT_FALSE(fs::exists("/tmp/t"));
  for (const char* place : {"/x", "/usr/x", "/etc/x", "/dev/x", "/var/x", "/proc/x"}) {
    EXPECT_NE(run(shell(std::string("echo x > ") + place)).exit_code, 0) << place;
  }
  run(shell("echo x > ../x"));  // lands in the private /tmp, if at all
  EXPECT_FALSE(fs::exists(folder_.path() / "x"));
}

TEST_F(SandboxTest, SiblingFoldersAreInvisible) {
  fs::create_directory(folder_.path() / "slot-evil");
  write_file_atomic(folder_.path() / "slot-evil/secret", "planted");
  EXPECT_EQ(output("ls -A .."), "slot\n");
  fs::create_directory_symlink(folder_.path() / "slot-evil", workspace() / "link");
  EXPECT_THAT(output("cat link/secret"), HasSubstr("No such file"));
}

TEST_F(SandboxTest, WorkspaceOutsideTmpWorksToo) {
  const TemporaryDirectory elsewhere("necrocode-test-", "/var/tmp");
  SandboxedCommand command = shell("pwd; echo x > file; ls -A ..");
  command.workspace = elsewhere.path();
  const CommandResult result = run(command);
  EXPECT_TRUE(fs::exists(elsewhere.path() / "file")) << result.err.text();
}

TEST_F(SandboxTest, ProtectedPathsCannotBeChanged) {
  fs::create_directories(workspace() / "repo/.git/hooks");
  write_file_atomic(workspace() / "repo/.git/config", "original");
  write_file_atomic(workspace() / ".git", "gitdir: elsewhere\n");
  SandboxedCommand command = shell("");
  command.protect = {workspace() / "repo/.git", workspace() / ".git", workspace() / "absent/.git"};
  for (const char* script :
       {"echo x > repo/.git/config", "touch repo/.git/hooks/pre-commit", "rm -rf repo/.git/config",
        "mv repo/.git repo/old", "mv repo old && mkdir repo && rm -r old/.git", "mv repo old",
        "echo x > .git", "rm -f .git", "mv .git x", "rmdir repo/.git/hooks"}) {
    command.command.argv.back() = script;
    EXPECT_NE(run(command).exit_code, 0) << script;
  }
  command.command.argv.back() = "cat repo/.git/config || cat old/.git/config; echo ok > repo-file";
  EXPECT_EQ(run(command).out.text(), "original");
  EXPECT_EQ(read_file(workspace() / ".git", 100), "gitdir: elsewhere\n");
}

TEST_F(SandboxTest, PinnedFoldersStayWhereTheyAre) {
  fs::create_directories(workspace() / "a/b");
  SandboxedCommand command = shell("");
  command.pinned = {workspace() / "a/b", workspace() / "absent"};
  for (const char* script : {"mv a x", "mv a/b x", "rmdir a/b"}) {
    command.command.argv.back() = script;
    EXPECT_NE(run(command).exit_code, 0) << script;
  }
  command.command.argv.back() = "echo new > a/b/file && mv a/b/file a/file && cat a/file";
  EXPECT_EQ(run(command).out.text(), "new\n");
}

TEST_F(SandboxTest, MorePathsToPinThanItTakesThenRefused) {
  SandboxedCommand command = shell("exit 0");
  for (std::size_t i = 0; i <= limits::kSandboxMounts; ++i) {
    command.pinned.push_back(workspace() / ("folder" + std::to_string(i)));
  }
  EXPECT_THROW(run(command), ResourceLimitError);
}

TEST_F(SandboxTest, ProtectedPathThroughALinkIsRefused) {
  fs::create_directory(folder_.path() / "outside");
  fs::create_directory_symlink(folder_.path() / "outside", workspace() / "link");
  SandboxedCommand command = shell("exit 0");
  command.protect = {workspace() / "link"};
  EXPECT_THROW(run(command), SecurityError);
  command.protect = {workspace() / "link/.git"};
  EXPECT_THROW(run(command), SecurityError);
  command.protect = {folder_.path() / "outside"};
  EXPECT_THROW(run(command), SecurityError);
  command.protect = {workspace() / "../outside"};
  EXPECT_THROW(run(command), SecurityError);
  command.protect = {workspace()};
  EXPECT_THROW(run(command), SecurityError);
}

TEST_F(SandboxTest, ReadOnlyPathsAreSeenAndKept) {
  fs::create_directory(folder_.path() / "store");
  write_file_atomic(folder_.path() / "store/object", "shown");
  SandboxedCommand command = shell("cat ../store/object; echo x > ../store/object");
  command.read_only = {folder_.path() / "store"};
  const CommandResult result = run(command);
  EXPECT_EQ(result.out.text(), "shown");
  EXPECT_NE(result.exit_code, 0);
  EXPECT_EQ(read_file(folder_.path() / "store/object", 100), "shown");
  command.read_only = {folder_.path() / "none"};
  EXPECT_THROW(run(command), TestExecutionError);
}

TEST_F(SandboxTest, FurtherFoldersAreWritableAtTheirOwnPlaces) {
  const fs::path home = folder_.path() / "home";
  fs::create_directories(home / "template");
  write_file_atomic(home / "template/file", "original");
  SandboxedCommand command =
      shell("echo new > ../home/file; echo x > ../beside; echo x > ../home/template/file");
  command.writable = {home};
  command.read_only = {home / "template"};  // lies in the other one, whatever the order
  EXPECT_NE(run(command).exit_code, 0);
  EXPECT_EQ(read_file(home / "file", 100), "new\n");
  EXPECT_EQ(read_file(home / "template/file", 100), "original");
  EXPECT_FALSE(fs::exists(folder_.path() / "beside"));

  fs::create_directory_symlink("/", folder_.path() / "link");
  std::vector<fs::path> refused = {
      "/", "/etc", "/tmp", "/home", "relative", "/no/such/folder", folder_.path() / "link"};
  for (const fs::path& own : home_folders()) refused.push_back(own);
  for (const fs::path& path : refused) {
    command.writable = {path};
    EXPECT_THROW(run(command), SecurityError) << path;
  }
}

TEST_F(SandboxTest, CoversAreShownInsteadOfWhatIsThere) {
  fs::create_directories(folder_.path() / "other/.git");
  fs::create_directories(workspace() / ".git");
  write_file_atomic(workspace() / ".git/config", "own");
  write_file_atomic(workspace() / "pointer", "own");
  write_file_atomic(folder_.path() / "other/.git/config", "shown");
  write_file_atomic(folder_.path() / "other/file", "shown file");
  SandboxedCommand command =
      shell("cat .git/config pointer; echo x > pointer; echo new > .git/config; mv .git moved");
  command.covers = {
      {workspace() / ".git", folder_.path() / "other/.git", true},
      {workspace() / "pointer", folder_.path() / "other/file"},
      {workspace() / "absent", folder_.path() / "other/file"},
  };
  const CommandResult result = run(command);
  EXPECT_EQ(result.out.text(), "shownshown file") << result.err.text();
  EXPECT_NE(result.exit_code, 0);
  EXPECT_EQ(read_file(folder_.path() / "other/.git/config", 100), "new\n");
  EXPECT_EQ(read_file(folder_.path() / "other/file", 100), "shown file");
  EXPECT_EQ(read_file(workspace() / ".git/config", 100), "own");
  EXPECT_FALSE(fs::exists(workspace() / "absent"));
  for (const auto& [at, shown] :
       {std::pair{"pointer", "other/.git"}, {".git", "other/file"}, {"pointer", "none"}}) {
    command.covers = {{workspace() / at, folder_.path() / shown}};
    EXPECT_THROW(run(command), TestExecutionError) << at << " " << shown;
  }
}

TEST_F(SandboxTest, CoversBelowThePlaceForThemNeedNothingThere) {
  fs::create_directory(folder_.path() / "tools");
  write_file_atomic(folder_.path() / "tools/file", "shown");
  write_file_atomic(folder_.path() / "single", "single");
  SandboxedCommand command = shell(
      "cat /run/necrocode/a/tools/file /run/necrocode/single; echo x > /run/necrocode/single; "
      "echo new > /run/necrocode/writable/new");
  const fs::path shown(kSandboxShown);
  command.covers = {{shown / "a/tools", folder_.path() / "tools"},
                    {shown / "single", folder_.path() / "single"},
                    {shown / "writable", folder_.path() / "tools", true}};
  EXPECT_EQ(run(command).out.text(), "shownsingle");
  EXPECT_EQ(read_file(folder_.path() / "single", 100), "single");
  EXPECT_EQ(read_file(folder_.path() / "tools/new", 100), "new\n");
  for (const fs::path& at : {shown, shown / "../other", fs::path("/usr/bin"), folder_.path()}) {
    command.covers = {{at, folder_.path() / "tools"}};
    EXPECT_THROW(run(command), SecurityError) << at;
  }
}

TEST_F(SandboxTest, LimitsOfTheCommandHoldInsteadOfTheUsualOnes) {
  ResourceLimits usual;
  usual.memory_bytes = 512 * limits::kMiB;
  sandbox_ = make_bubblewrap_sandbox(supervisor_, usual);
  std::vector<std::string> warnings;
  SandboxedCommand command =
      shell("python3 -c \"x = bytearray(100 << 20); import time; time.sleep(0.6)\"");
  command.command.on_warning = [&](const std::string& words) { warnings.push_back(words); };
  EXPECT_TRUE(run(command).ok());
  EXPECT_TRUE(warnings.empty());
  command.command.limits.memory_bytes = 64 * limits::kMiB;
  EXPECT_FALSE(run(command).ok());
}

TEST_F(SandboxTest, SystemCallsThatLeadIntoTheKernelAreRefused) {
  EXPECT_EQ(output("grep Seccomp: /proc/self/status"), "Seccomp:\t2\n");
  write_file_atomic(workspace() / "calls.py", R"(
import ctypes, errno, fcntl, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
  ctypes.set_errno(0)
  print(name, libc.syscall(number, *arguments), errno.errorcode.get(ctypes.get_errno()))
import platform
x86 = platform.machine() == 'x86_64'
call('unshare', 272 if x86 else 97, 0x40000000)
call('clone', 56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0)
call('clone3', 435, 0, 0)
call('mount', 165 if x86 else 40, 0, 0, 0, 0, 0)
call('fsopen', 430, b'tmpfs', 0)
call('keyctl', 250 if x86 else 219, 0, -3, 0)
call('bpf', 321 if x86 else 280, 0, 0, 0)
call('perf_event_open', 298 if x86 else 241, 0, 0, 0, 0, 0)
call('userfaultfd', 323 if x86 else 282, 1)
call('io_uring_setup', 425, 1, 0)
for family, kind in ((40, 1), (16, 3), (17, 3), (38, 5)):
  try:
    socket.socket(family, kind, 9 if family == 16 else 0)
    print(family, 'made')
  except OSError as e:
    print(family, errno.errorcode[e.errno])
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
  for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    socket.socket(family, kind)
for request in (0x5412, 0x541c):
  try:
    fcntl.ioctl(0, request, b'x')
  except OSError as e:
    print('ioctl', errno.errorcode[e.errno])
)");
  EXPECT_EQ(output("python3 calls.py"),
            "unshare -1 EPERM\nclone -1 EPERM\nclone3 -1 ENOSYS\nmount -1 EPERM\n"
            "fsopen -1 EPERM\nkeyctl -1 EPERM\nbpf -1 EPERM\nperf_event_open -1 EPERM\n"
            "userfaultfd -1 EPERM\nio_uring_setup -1 ENOSYS\n40 EAFNOSUPPORT\n16 EAFNOSUPPORT\n"
            "17 EAFNOSUPPORT\n38 EAFNOSUPPORT\nioctl EPERM\nioctl EPERM\n");
}

TEST_F(SandboxTest, DebuggersAndThreadsWorkInside) {
  // A leak checker traces the program that it checks.
  EXPECT_EQ(output("python3 -c \"import threading as t; x = t.Thread(target=lambda: "
                   "print('thread')); x.start(); x.join()\"; strace -o trace true && echo traced"),
            "thread\ntraced\n");
}

TEST_F(SandboxTest, WorkingDirectoryIsInsideTheWorkspace) {
  fs::create_directory(workspace() / "sub");
  SandboxedCommand command = shell("pwd");
  command.command.working_directory = workspace() / "sub";
  EXPECT_EQ(run(command).out.text(), (workspace() / "sub").string() + "\n");
  command.command.working_directory = folder_.path();
  EXPECT_THROW(run(command), SecurityError);
  command.command.working_directory = workspace() / "none";
  EXPECT_THROW(run(command), TestExecutionError);
  command.command.argv.clear();
  EXPECT_THROW(run(command), TestExecutionError);
}

TEST_F(SandboxTest, WorkspaceThatHoldsMoreThanATaskIsRefused) {
  SandboxedCommand command = shell("exit 0");
  for (const char* place : {"/", "/tmp", "/etc", "/home", "relative", "/no/such/folder"}) {
    command.workspace = place;
    EXPECT_THROW(run(command), SecurityError) << place;
  }
  for (const fs::path& home : home_folders()) {
    command.workspace = home;
    EXPECT_THROW(run(command), SecurityError) << home;
  }
}

TEST_F(SandboxTest, NetworkIsReachedOnlyWhenAllowed) {
  const test::HostListeners listeners;
  EXPECT_THAT(output(listeners.tcp_script()), HasSubstr("ConnectionRefused"));
  EXPECT_THAT(output(listeners.abstract_script()), HasSubstr("ConnectionRefused"));
  SandboxedCommand command = shell(listeners.tcp_script());
  command.network = true;
  const CommandResult result = run(command);
  EXPECT_EQ(result.out.text(), "reached\n") << result.err.text();
}

TEST_F(SandboxTest, PythonFromPathWorksAndHasLoopbackOfItsOwn) {
  const std::string seen = output(
      "python3 -c \"import socket, ssl, json, multiprocessing as m; s = "
      "socket.create_server(('127.0.0.1', 0)); "
      "socket.create_connection(s.getsockname()); m.Lock(); print('works')\"");
  EXPECT_EQ(seen, "works\n");
}

TEST_F(SandboxTest, InputReachesTheCommand) {
  SandboxedCommand command = shell("cat");
  command.command.input = "typed in";
  EXPECT_EQ(run(command).out.text(), "typed in");
}

TEST_F(SandboxTest, ManyProcessesInsideAreAllGone) {
  const std::string mark = test::unique_mark();
  SandboxedCommand command =
      shell("i=0; while [ $i -lt 100 ]; do setsid sleep " + mark + " & i=$((i+1)); done; wait");
  command.command.timeout = 500ms;
  EXPECT_EQ(run(command).end, CommandEnd::kTimedOut);
  EXPECT_EQ(test::processes_with(mark), 0);
}

TEST(BubblewrapSandbox, MissingProgramIsASecurityErrorThatSaysWhatToDo) {
  const TemporaryDirectory empty;
  Supervisor supervisor;
  const ScopedVariable path("PATH", empty.path().string());
  EXPECT_THAT([&] { make_bubblewrap_sandbox(supervisor)->require_usable(); },
              testing::ThrowsMessage<SecurityError>(HasSubstr("--unsandboxed")));
}

TEST(BubblewrapSandbox, HostThatForbidsItIsASecurityErrorWithTheReason) {
  const TemporaryDirectory folder;
  write_file_atomic(folder.path() / "bwrap",
                    "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n",
                    0755);
  Supervisor supervisor;
  const ScopedVariable path("PATH", folder.path().string() + ":/usr/bin:/bin");
  EXPECT_THAT(
      [&] { make_bubblewrap_sandbox(supervisor)->require_usable(); },
      testing::ThrowsMessage<SecurityError>(HasSubstr("No permissions to create new namespace")));
}

TEST(Unsandboxed, RunsInTheWorkspaceWithTheGivenEnvironmentOnly) {
  const TemporaryDirectory workspace;
  Supervisor supervisor;
  const std::unique_ptr<Sandbox> sandbox = make_unsandboxed(supervisor);
  SandboxedCommand command;
  command.command.argv = {"/bin/sh", "-c", "pwd; env | grep -c ."};
  command.command.env = {"PATH=/usr/bin:/bin"};
  command.workspace = workspace.path();
  EXPECT_EQ(sandbox->run(command, {}).out.text(),
            workspace.path().string() + "\n2\n");  // PATH, PWD
  EXPECT_EQ(sandbox->name(), "unsandboxed");
}

TEST(CleanEnvironment, HoldsOnlyWhatIsOnTheList) {
  const ScopedVariable key("OPENAI_API_KEY", "planted");
  const ScopedVariable token("GIT_TOKEN", "planted");
  const ScopedVariable preload("LD_LIBRARY_PATH", "/planted");
  const ScopedVariable locale("LC_ALL", "C.UTF-8");
  const ScopedVariable zone("TZ", std::string(300, 'x'));
  const ScopedVariable path("PATH", "/usr/bin:relative:/bin");
  const auto env = clean_environment();
  EXPECT_THAT(env, Contains("PATH=/usr/bin:/bin"));
  EXPECT_THAT(env, Contains("LC_ALL=C.UTF-8"));
  EXPECT_THAT(env, Contains("HOME=/tmp"));
  EXPECT_THAT(env, Not(Contains(HasSubstr("planted"))));
  EXPECT_THAT(env, Not(Contains(StartsWith("TZ="))));
}

}  // namespace
}  // namespace necrocode::process
