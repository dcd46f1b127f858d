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
