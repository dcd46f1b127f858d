// What a command can do in the sandbox that has no namespaces, tried from inside: as root, as an
// ordinary user, and where the host refuses namespaces.
#include <gmock/gmock.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/process/enclosure.hpp"
#include "necrocode/process/sandbox.hpp"
#include "unit/process/acceptor.hpp"
#include "unit/process/host_listeners.hpp"
#include "unit/process/process_table.hpp"
#include "unit/process/scoped_variable.hpp"
#include "unit/process/situations.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;
using test::Acceptor;
using test::Situation;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;

struct Place {
  TemporaryDirectory folder;
  Supervisor supervisor{{true, 100ms}};
  std::unique_ptr<Sandbox> sandbox = make_landlock_sandbox(supervisor);

  Place() { fs::create_directory(workspace()); }
  fs::path workspace() const { return folder.path() / "slot"; }
  SandboxedCommand shell(const std::string& script) const {
    SandboxedCommand command;
    command.command.argv = {"/bin/sh", "-c", script};
    command.command.env = clean_environment();
    command.workspace = workspace();
    return command;
  }
  CommandResult run(const SandboxedCommand& command) { return sandbox->run(command, {}); }
  std::string output(const SandboxedCommand& command) {
    const CommandResult result = run(command);
    return result.out.text() + result.err.text();
  }
  std::string output(const std::string& script) { return output(shell(script)); }
  /// What a program in Python prints.
  std::string python(const std::string& program, const Gate* gate = nullptr, bool network = false) {
    write_file_atomic(workspace() / "program.py", program);
    SandboxedCommand command = shell("python3 program.py");
    command.gate = gate;
    command.network = network;
    return output(command);
  }
};

class LandlockTest : public testing::TestWithParam<Situation> {
 protected:
  void SetUp() override {
    if (landlock_abi() < kLandlockAbiMin) GTEST_SKIP() << "this kernel's Landlock is too old";
  }
  static void in_situation(const std::function<void()>& body) { test::in(GetParam(), body); }
};
INSTANTIATE_TEST_SUITE_P(, LandlockTest,
                         testing::Values(Situation::kAsWeAre, Situation::kAsNobody,
                                         Situation::kNamespacesRefused,
                                         Situation::kNobodyAndRefused),
                         [](const auto& which) { return test::name_of(which.param); });

TEST_P(LandlockTest, CommandsRunAsElsewhere) {
  in_situation([] {
    Place place;
    const CommandResult result = place.run(place.shell("echo out; echo err >&2; exit 9"));
    EXPECT_EQ(result.exit_code, 9);
    EXPECT_EQ(result.out.text(), "out\n");
    EXPECT_EQ(result.err.text(), "err\n");
    EXPECT_EQ(place.run(place.shell("kill -SEGV $$")).exit_code, 128 + SIGSEGV);
    SandboxedCommand missing = place.shell("");
    missing.command.argv = {"no-such-program-here"};
    EXPECT_EQ(place.run(missing).exit_code, 127);
    EXPECT_THAT(place.run(missing).err.text(), HasSubstr("no-such-program-here"));
    write_file_atomic(place.workspace() / "plain", "no program", 0644);
    missing.command.argv = {"./plain"};
    EXPECT_EQ(place.run(missing).exit_code, 126);
    EXPECT_EQ(place.sandbox->name(), "landlock");
  });
}

TEST_P(LandlockTest, WorkspaceAndAFolderOfItsOwnAreWritable) {
  in_situation([] {
    Place place;
    const std::string seen = place.output(
        "mkdir -p a/b && echo x > a/b/f && mv a/b/f a/f && ln -s f a/l && rm a/f && chmod 700 a "
        "&& echo ok; echo x > \"$TMPDIR/t\" && cat \"$HOME/t\"; echo x > /dev/null && echo null; "
        "echo \"$TMPDIR\"");
    EXPECT_THAT(seen, testing::StartsWith("ok\nx\nnull\n/"));
    const fs::path temporary(trim(seen.substr(seen.rfind("\n/") + 1)));
    EXPECT_FALSE(fs::exists(temporary)) << temporary;
    SandboxedCommand own = place.shell("echo $HOME $TMPDIR");
    std::erase(own.command.env, "HOME=/tmp");
    own.command.env.insert(own.command.env.end(), {"HOME=/given", "TMPDIR=/given/tmp"});
    EXPECT_EQ(place.output(own), "/given /given/tmp\n");
  });
}

TEST_P(LandlockTest, ProgramsThatTestsUseWork) {
  in_situation([] {
    Place place;
    EXPECT_EQ(place.output("git init -q . && git -c user.name=a -c user.email=b commit -q "
                           "--allow-empty -m x && git log --format=%s"),
              "x\n");
    EXPECT_EQ(place.output("printf 'all:\\n\\t@echo made\\n' > Makefile; make; "
                           "bash -c 'cat <(echo substituted)'; echo out > /dev/stdout"),
              "made\nsubstituted\nout\n");
    EXPECT_EQ(place.output("python3 -c \"import subprocess as s, threading as t, tempfile; "
                           "x = t.Thread(target=lambda: s.run(['echo', 'child'])); x.start(); "
                           "x.join(); tempfile.TemporaryFile()\""),
              "child\n");
  });
}

TEST_P(LandlockTest, NothingElseIsWritten) {
  in_situation([] {
    Place place;
    const fs::path sibling = place.folder.path() / "file";
    write_file_atomic(sibling, "original", 0666);
    for (const std::string& path :
         {std::string("/tmp/necrocode-x"), std::string("/etc/x"), std::string("/usr/x"),
          std::string("/dev/shm/x"), std::string("/var/tmp/x"), std::string("/x"),
          std::string("/proc/self/oom_score_adj"), std::string("/proc/sys/kernel/core_pattern"),
          std::string("/sys/fs/cgroup/x"), sibling.string()}) {
      EXPECT_NE(place.run(place.shell("(: >> " + path + ") 2> /dev/null")).exit_code, 0) << path;
    }
    place.output(
        "echo x > ../file; rm -f ../file; mv ../file moved; ln ../file linked; "
        "truncate -s 0 ../file; echo x > ../new; mkdir ../folder; mv . ../other");
    EXPECT_EQ(read_file(sibling, 100), "original");
    EXPECT_FALSE(fs::exists(place.workspace() / "linked"));
    EXPECT_FALSE(fs::exists(place.folder.path() / "new"));
    EXPECT_FALSE(fs::exists(place.folder.path() / "folder"));
    EXPECT_TRUE(fs::exists(place.workspace()));
  });
}

TEST_P(LandlockTest, NothingElseIsRead) {
  in_situation([] {
    const TemporaryDirectory home;
    fs::create_directories(home.path() / ".ssh");
    write_file_atomic(home.path() / ".ssh/id_test", "planted-private-key");
    write_file_atomic(home.path() / ".netrc", "planted-password");
    const test::ScopedVariable variable("HOME", home.path().string());
    Place place;
    fs::create_directory(place.folder.path() / "slot-evil");
    write_file_atomic(place.folder.path() / "slot-evil/secret", "planted");
    fs::create_directory_symlink(place.folder.path() / "slot-evil", place.workspace() / "link");
    const std::string seen =
        place.output("cat " + home.path().string() + "/.ssh/id_test " + home.path().string() +
                     "/.netrc ../slot-evil/secret link/secret /etc/shadow; ls .. /tmp /root "
                     "/etc /var /run " +
                     home.path().string());
    EXPECT_THAT(seen, AllOf(Not(HasSubstr("planted")), Not(HasSubstr("root:")),
                            Not(HasSubstr("id_test\n")), Not(HasSubstr("passwd\n"))));
    EXPECT_THAT(place.output("head -c 5 /etc/passwd; ls -d /usr/bin"), HasSubstr("root:/usr/bin"));
  });
}

TEST_P(LandlockTest, ReadOnlyAndWritableFoldersAreWhatTheySay) {
  in_situation([] {
    Place place;
    for (const char* name : {"store", "home"}) {
      fs::create_directory(place.folder.path() / name);
      write_file_atomic(place.folder.path() / name / "object", "shown", 0755);
    }
    SandboxedCommand command =
        place.shell("cat ../store/object; echo x > ../store/object; echo new > ../home/object");
    command.read_only = {place.folder.path() / "store"};
    command.writable = {place.folder.path() / "home"};
    EXPECT_THAT(place.output(command), testing::StartsWith("shown"));
    EXPECT_EQ(read_file(place.folder.path() / "store/object", 100), "shown");
    EXPECT_EQ(read_file(place.folder.path() / "home/object", 100), "new\n");
    command.writable = {"/tmp"};
    EXPECT_THROW(place.run(command), SecurityError);
    command.writable = {};
    command.workspace = "/";
    EXPECT_THROW(place.run(command), SecurityError);
  });
}

TEST_P(LandlockTest, EnvironmentIsClean) {
  in_situation([] {
    const test::ScopedVariable secret("NECROCODE_TEST_API_KEY", "planted-secret-value");
    Place place;
    EXPECT_THAT(place.output("env; cat /proc/*/environ"),
                AllOf(HasSubstr("TERM=dumb\n"), Not(HasSubstr("planted-secret-value"))));
  });
}

/// Somebody else's process of this thread's user, with a secret in its environment, and readable by
/// its like: `sleep`, which does not hide itself.
class Bystander {
 public:
  Bystander() {
    std::array<std::string, 2> words{"sleep", "600"};
    std::array<char*, 3> argv{words[0].data(), words[1].data(), nullptr};
    std::string secret = "KEY=planted-in-a-bystander";
    std::array<char*, 2> env{secret.data(), nullptr};
    EXPECT_EQ(::posix_spawn(&pid_, "/bin/sleep", nullptr, nullptr, argv.data(), env.data()), 0);
  }
  ~Bystander() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Bystander(const Bystander&) = delete;
  Bystander& operator=(const Bystander&) = delete;
  std::string folder() const { return "/proc/" + std::to_string(pid_); }
  std::string pid() const { return std::to_string(pid_); }

 private:
  pid_t pid_ = -1;
};

TEST_P(LandlockTest, OtherProcessesAreNeitherReadNorTouched) {
  in_situation([] {
    const Bystander bystander;
    const std::string of = bystander.folder();
    // This user may, without the sandbox.
    ASSERT_TRUE(test::soon(
        [&] { return test::slurp(of + "/environ").find("planted") != std::string::npos; }));
    Place place;
    EXPECT_THAT(place.output("cat " + of + "/cmdline"), HasSubstr("sleep"));  // see missing()
    for (const char* look : {"head -c 1 environ", "head -c 1 mem", "head -c 1 maps",
                             "head -c 1 auxv", "head -c 1 io", "head -c 1 syscall", "ls cwd/",
                             "ls root/", "readlink exe", "readlink fd/0", "cat < fd/0"}) {
      const CommandResult result = place.run(place.shell("cd " + of + " && echo there && " + look));
      EXPECT_NE(result.exit_code, 0) << look;
      EXPECT_EQ(result.out.text(), "there\n") << look;
    }
    EXPECT_THAT(place.output("cat /proc/*/environ"), Not(HasSubstr("planted")));
    EXPECT_NE(place.run(place.shell("kill -0 " + bystander.pid())).exit_code, 0);
    const std::string denied = place.python(R"(
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
print(libc.ptrace(16, )" + bystander.pid() + R"(, 0, 0), errno.errorcode[ctypes.get_errno()])
)");
    EXPECT_EQ(denied, "-1 EPERM\n");
  });
}

TEST_P(LandlockTest, NoPrivilegesAreLeft) {
  in_situation([] {
    Place place;
    EXPECT_EQ(place.output("grep -E 'Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp:' /proc/self/status"),
              "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
              "CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n");
    for (const char* script : {"unshare -Ur true", "unshare -n true", "mount -t tmpfs none .",
                               "chroot / true", "setpriv --reuid 1 true"}) {
      EXPECT_NE(place.run(place.shell(script)).exit_code, 0) << script;
    }
    SandboxedCommand command = place.shell("");
    command.command.argv = {"/bin/ls", "/proc/self/fd"};
    EXPECT_EQ(place.output(command), "0\n1\n2\n3\n");  // 3 is the listing itself
  });
}

/// Tries sockets of many kinds, prints those that it gets.
constexpr const char* kSockets = R"(
import socket as s
kinds = {'tcp': (s.AF_INET, s.SOCK_STREAM), 'tcp6': (s.AF_INET6, s.SOCK_STREAM),
  'tcp-nonblocking': (s.AF_INET, s.SOCK_STREAM | s.SOCK_NONBLOCK | s.SOCK_CLOEXEC),
  'tcp-named': (s.AF_INET, s.SOCK_STREAM, 6), 'mptcp': (s.AF_INET, s.SOCK_STREAM, 262),
  'sctp': (s.AF_INET, s.SOCK_STREAM, 132), 'smc': (s.AF_INET, s.SOCK_STREAM, 256),
  'udp': (s.AF_INET, s.SOCK_DGRAM), 'udp6': (s.AF_INET6, s.SOCK_DGRAM),
  'raw': (s.AF_INET, s.SOCK_RAW, 1), 'icmp': (s.AF_INET, s.SOCK_DGRAM, 1),
  'unix': (s.AF_UNIX, s.SOCK_STREAM), 'unix-datagram': (s.AF_UNIX, s.SOCK_DGRAM),
  'netlink': (s.AF_NETLINK, s.SOCK_RAW, 0), 'audit': (s.AF_NETLINK, s.SOCK_RAW, 9),
  'packet': (s.AF_PACKET, s.SOCK_RAW), 'vsock': (40, s.SOCK_STREAM), 'alg': (38, s.SOCK_SEQPACKET)}
got = []
for name, arguments in kinds.items():
  try:
    s.socket(*arguments).close()
    got.append(name)
  except OSError:
    pass
for name, kind in {'pair': s.SOCK_STREAM, 'datagram-pair': s.SOCK_DGRAM}.items():
  try:
    s.socketpair(s.AF_UNIX, kind)
    got.append(name)
  except OSError:
    pass
print(*got)
)";

TEST_P(LandlockTest, SocketsAreThoseThatCannotBeLedElsewhere) {
  in_situation([] {
    Place place;
    EXPECT_EQ(place.python(kSockets), "pair\n");
    const Gate gate = place.sandbox->make_gate();
    EXPECT_EQ(place.python(kSockets, &gate), "tcp tcp6 tcp-nonblocking tcp-named pair\n");
    const std::string open = place.python(kSockets, nullptr, true);
    EXPECT_THAT(open, AllOf(HasSubstr("tcp "), HasSubstr("udp "), Not(HasSubstr("unix")),
                            Not(HasSubstr("vsock")), Not(HasSubstr("raw"))));
  });
}

TEST_P(LandlockTest, GateIsTheOnlyPort) {
  in_situation([] {
    const test::HostListeners host;
    Place place;
    const Gate gate = place.sandbox->make_gate();
    Acceptor acceptor("proxy");
    SandboxedCommand command =
        place.shell(Acceptor::say("one", gate.port) + "; " + Acceptor::say("x", host.port) + "; " +
                    Acceptor::say("x", 80, "192.0.2.1") + "; " + host.abstract_script());
    command.gate = &gate;
    command.on_listener = [&](FileDescriptor listener) { acceptor.take(std::move(listener)); };
    const std::string seen = place.output(command);
    EXPECT_THAT(seen, testing::StartsWith("proxy heard one\n[Errno 13] Permission denied\n"
                                          "[Errno 13] Permission denied\n"));
    EXPECT_THAT(seen, AllOf(HasSubstr("not supported by protocol"), Not(HasSubstr("reached"))));
    EXPECT_EQ(acceptor.connections(), 1);
  });
}

TEST_P(LandlockTest, NoWayAroundTheGate) {
  in_situation([] {
    const test::HostListeners host;
    Place place;
    const Gate gate = place.sandbox->make_gate();
    const std::string seen = place.python(R"(
import socket
def attempt(what):
  try:
    what()
    print('done')
  except OSError as e:
    print(e.strerror)
there = ('127.0.0.1', )" + std::to_string(host.port) +
                                              R"()
attempt(lambda: socket.socket().sendto(b'x', socket.MSG_FASTOPEN, there))
attempt(lambda: socket.socket().sendmsg([b'x'], [], socket.MSG_FASTOPEN, there))
attempt(lambda: socket.socket().bind(('127.0.0.1', 0)))
attempt(lambda: socket.socket().listen())
)",
                                          &gate);
    EXPECT_EQ(seen,
              "Operation not permitted\nOperation not permitted\nPermission denied\n"
              "Permission denied\n");
  });
}

TEST_P(LandlockTest, NetworkIsReachedWhenAllowed) {
  in_situation([] {
    const test::HostListeners host;
    Place place;
    EXPECT_THAT(place.output(host.tcp_script()), Not(HasSubstr("reached")));
    SandboxedCommand command = place.shell(host.tcp_script());
    command.network = true;
    EXPECT_EQ(place.output(command), "reached\n");
    const Gate gate = place.sandbox->make_gate();
    command.gate = &gate;
    EXPECT_THROW(place.run(command), SecurityError);
  });
}

TEST_P(LandlockTest, NothingIsLeftAfterTheEnd) {
  in_situation([] {
    Place place;
    place.sandbox->require_usable();
    const int before = test::open_descriptors();
    const std::string mark = test::unique_mark();
    EXPECT_TRUE(place.run(place.shell("setsid sleep " + mark + " > /dev/null 2>&1 & exit 0")).ok());
    SandboxedCommand command =
        place.shell("trap '' TERM; setsid sleep " + mark + " & sleep " + mark);
    command.command.timeout = 200ms;
    EXPECT_EQ(place.run(command).end, CommandEnd::kTimedOut);
    EXPECT_EQ(test::processes_with(mark), 0);
    EXPECT_EQ(test::open_descriptors(), before);
  });
}

TEST_P(LandlockTest, WhatIsMissingIsNamed) {
  in_situation([] {
    Place place;
    EXPECT_FALSE(place.sandbox->can_cover());
    const std::vector<std::string> missing = place.sandbox->missing();
    EXPECT_THAT(missing, Contains(HasSubstr("/proc")));
    EXPECT_THAT(missing, Contains(HasSubstr("protected paths can be written")));
    const bool kept = place.supervisor.has_pid_namespace();
    EXPECT_EQ(testing::Matches(Contains(HasSubstr("outlive")))(missing), !kept);
  });
}

TEST(LandlockSandbox, KernelWithoutItIsRefusedWithWhatIsNeeded) {
  test::on_own_thread([] {
    constexpr long kCreateRuleset = 444;
    test::refuse_call(kCreateRuleset, ENOSYS);
    Supervisor supervisor;
    const std::unique_ptr<Sandbox> sandbox = make_landlock_sandbox(supervisor);
    EXPECT_THAT([&] { sandbox->require_usable(); },
                testing::ThrowsMessage<SecurityError>(
                    AllOf(HasSubstr("lsm=landlock"), HasSubstr("--unsandboxed"))));
    SandboxedCommand command;
    command.command.argv = {"true"};
    EXPECT_THROW(sandbox->run(command, {}), SecurityError);
  });
}

TEST(LandlockSandbox, EnclosureThatFailsThenNothingRuns) {
  const TemporaryDirectory folder;
  Supervisor supervisor;
  Command command;
  command.argv = {"/bin/sh", "-c", "echo started > started"};
  command.working_directory = folder.path();
  command.enclosure = Enclosure{{"/usr", "/no/such/folder"}, {folder.path()}, false, 0};
  EXPECT_THAT([&] { supervisor.run(command, {}); },
              testing::ThrowsMessage<TestExecutionError>(
                  AllOf(HasSubstr("Landlock"), HasSubstr("No such file"))));
  EXPECT_FALSE(fs::exists(folder.path() / "started"));
}

}  // namespace
}  // namespace necrocode::process
