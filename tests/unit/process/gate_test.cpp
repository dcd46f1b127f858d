// A command behind a gate: it reaches who accepts outside, and nothing else.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <thread>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/process/sandbox.hpp"
#include "unit/process/acceptor.hpp"
#include "unit/process/host_listeners.hpp"
#include "unit/process/process_table.hpp"
#include "unit/process/situations.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;
using test::Acceptor;
using test::Situation;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;

/// A sandbox and what it needs, made by whoever shall be its user.
struct Place {
  TemporaryDirectory folder;
  Supervisor supervisor{{true, 100ms}};
  std::unique_ptr<Sandbox> sandbox = make_bubblewrap_sandbox(supervisor);
  Gate gate = sandbox->make_gate();

  SandboxedCommand shell(const std::string& script) const {
    SandboxedCommand command;
    command.command.argv = {"/bin/sh", "-c", script};
    command.command.env = clean_environment();
    command.workspace = folder.path();
    command.gate = &gate;
    return command;
  }
  /// What `script` prints, with `acceptor` at the other side.
  std::string output(const std::string& script, Acceptor& acceptor) {
    SandboxedCommand command = shell(script);
    command.on_listener = [&](FileDescriptor listener) { acceptor.take(std::move(listener)); };
    const CommandResult result = sandbox->run(command, {});
    return result.out.text() + result.err.text();
  }
};

class GateTest : public testing::TestWithParam<Situation> {
 protected:
  static void in_situation(const std::function<void()>& body) { test::in(GetParam(), body); }
};
INSTANTIATE_TEST_SUITE_P(, GateTest, testing::Values(Situation::kAsWeAre, Situation::kAsNobody),
                         [](const auto& which) { return test::name_of(which.param); });

TEST_P(GateTest, CommandReachesWhoAcceptsOutside) {
  in_situation([] {
    Place place;
    Acceptor acceptor("proxy");
    const std::string two =
        Acceptor::say("one", place.gate.port) + "; " + Acceptor::say("two", place.gate.port);
    EXPECT_EQ(place.output(two, acceptor), "proxy heard one\nproxy heard two\n");
    EXPECT_EQ(place.gate.port, limits::kSandboxGatePort);
  });
}

TEST_P(GateTest, CommandReachesNothingElse) {
  in_situation([] {
    const test::HostListeners host;
    Place place;
    Acceptor acceptor("proxy");
    const std::string seen =
        place.output(Acceptor::say("x", host.port) + "; " + Acceptor::say("x", 80, "192.0.2.1") +
                         "; " + Acceptor::say("x", 80, "169.254.169.254") + "; " +
                         host.abstract_script() + "; tail -n +3 /proc/net/dev | wc -l",
                     acceptor);
    EXPECT_THAT(seen, AllOf(HasSubstr("Connection refused"), HasSubstr("Network is unreachable"),
                            HasSubstr("ConnectionRefusedError"), HasSubstr("\n1\n"),
                            Not(HasSubstr("reached")), Not(HasSubstr("heard"))));
    EXPECT_EQ(acceptor.connections(), 0);
  });
}

TEST_P(GateTest, ListenerIsHandedOutBeforeTheCommandStarts) {
  in_situation([] {
    Place place;
    SandboxedCommand command = place.shell("echo started > started");
    bool started_before = true;
    int calls = 0;
    command.on_listener = [&](const FileDescriptor& listener) {
      ++calls;
      EXPECT_TRUE(listener);
      EXPECT_EQ(::fcntl(listener.get(), F_GETFD), FD_CLOEXEC);
      started_before = fs::exists(place.folder.path() / "started");
    };
    EXPECT_TRUE(place.sandbox->run(command, {}).ok());
    EXPECT_EQ(calls, 1);
    EXPECT_FALSE(started_before);
    EXPECT_TRUE(fs::exists(place.folder.path() / "started"));
  });
}

TEST_P(GateTest, NobodyAcceptsThenTheBacklogTakesAHundred) {
  in_situation([] {
    Place place;
    SandboxedCommand command = place.shell(
        "python3 -c \"import socket; s = [socket.create_connection(('127.0.0.1', " +
        std::to_string(place.gate.port) + "), 2) for _ in range(100)]; print(len(s))\"");
    FileDescriptor kept;
    command.on_listener = [&](FileDescriptor listener) { kept = std::move(listener); };
    EXPECT_EQ(place.sandbox->run(command, {}).out.text(), "100\n");
  });
}

TEST_P(GateTest, TwoAtOnceDoNotMeet) {
  in_situation([] {
    Place place;
    Acceptor first("first");
    Acceptor second("second");
    // Each waits for the other, so that both gates stand at the same time.
    const auto script = [&](const std::string& own, const std::string& other) {
      return "echo > " + own + "; while [ ! -e " + other + " ]; do :; done; " +
             Acceptor::say(own, place.gate.port);
    };
    std::string heard_by_second;
    std::thread beside([&] { heard_by_second = place.output(script("b", "a"), second); });
    EXPECT_EQ(place.output(script("a", "b"), first), "first heard a\n");
    beside.join();
    EXPECT_EQ(heard_by_second, "second heard b\n");
  });
}

/// The network namespaces that processes are in.
std::set<std::string> networks() {
  std::set<std::string> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const fs::path link = fs::read_symlink(entry.path() / "ns/net", error);
    if (!error) found.insert(link.string());
  }
  return found;
}

TEST_P(GateTest, NothingIsLeftAfterTheEnd) {
  in_situation([] {
    Place place;
    place.sandbox->require_usable();
    const int before = test::open_descriptors();
    const std::string mark = test::unique_mark();
    std::string inside;
    {
      Acceptor acceptor("proxy");
      inside =
          trim(place.output("setsid sleep " + mark + " & readlink /proc/self/ns/net", acceptor));
      EXPECT_THAT(inside, HasSubstr("net:["));
    }
    EXPECT_EQ(test::processes_with(mark), 0);
    EXPECT_EQ(test::open_descriptors(), before);
    EXPECT_TRUE(test::soon([&] { return !networks().contains(inside); }));
  });
}

TEST_P(GateTest, TakerThatThrowsThenTheCommandNeverStarts) {
  in_situation([] {
    Place place;
    SandboxedCommand command = place.shell("echo started > started");
    command.on_listener = [](const FileDescriptor&) { throw StorageError("no room"); };
    EXPECT_THROW(place.sandbox->run(command, {}), StorageError);
    EXPECT_FALSE(fs::exists(place.folder.path() / "started"));
  });
}

TEST_P(GateTest, DeadlineThatPassesWhileTheListenerIsTakenEndsTheRun) {
  in_situation([] {
    Place place;
    SandboxedCommand command = place.shell("sleep 600");
    command.command.timeout = 50ms;
    command.on_listener = [](const FileDescriptor&) {
      const auto until = std::chrono::steady_clock::now() + 60ms;
      while (std::chrono::steady_clock::now() < until) std::this_thread::yield();
    };
    EXPECT_EQ(place.sandbox->run(command, {}).end, CommandEnd::kTimedOut);
  });
}

TEST(Gate, NeitherRootNorNobodyKeepsThePortOfTheHost) {
  // The same number on the host is another port: the gate stands although it is taken there.
  const FileDescriptor taken(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(taken.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(taken.get(), 1), 0);
  ASSERT_EQ(::getsockname(taken.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  Place place;
  place.gate.port = ntohs(address.sin_port);
  Acceptor acceptor("proxy");
  EXPECT_EQ(place.output(Acceptor::say("x", place.gate.port), acceptor), "proxy heard x\n");
}

TEST(Gate, TogetherWithTheNetworkIsRefused) {
  Place place;
  SandboxedCommand command = place.shell("exit 0");
  command.network = true;
  EXPECT_THROW(place.sandbox->run(command, {}), SecurityError);
}

TEST(Gate, WithoutAPortIsRefusedAndNotTheNetworkOfTheHost) {
  Place place;
  place.gate.port = 0;
  EXPECT_THROW(place.sandbox->run(place.shell("exit 0"), {}), SecurityError);
}

TEST(Gate, BubblewrapWorksAndTheSupervisorMayNotThenTheRemedyIsTold) {
  // As with a profile of AppArmor for bubblewrap alone.
  test::on_own_thread([] {
    Place place;
    place.sandbox->require_usable();
    test::install_filter({{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
                          {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, SYS_unshare},
                          {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, args)},
                          {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, CLONE_NEWNET},
                          {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM},
                          {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}});
    Supervisor refused;
    const std::unique_ptr<Sandbox> sandbox = make_bubblewrap_sandbox(refused);
    ASSERT_NO_THROW(sandbox->require_usable());
    EXPECT_THAT([&] { sandbox->run(place.shell("exit 0"), {}); },
                testing::ThrowsMessage<TestExecutionError>(
                    AllOf(HasSubstr("no network namespace"), HasSubstr("to mend it"))));
  });
}

TEST(Gate, ThatCannotBeMadeThenNothingRunsAndTheStepIsNamed) {
  const auto why = [](long call, int error) {
    std::string words;
    test::on_own_thread([&] {
      test::refuse_call(call, error);
      const TemporaryDirectory folder;
      Supervisor supervisor;
      Command command;
      command.argv = {"/bin/sh", "-c", "echo started > started"};
      command.working_directory = folder.path();
      command.gate_port = 14700;
      command.on_listener = [](const FileDescriptor&) { ADD_FAILURE() << "there is no listener"; };
      try {
        supervisor.run(command, {});
      } catch (const TestExecutionError& failed) {
        words = failed.what();
      }
      EXPECT_FALSE(fs::exists(folder.path() / "started"));
    });
    return words;
  };
  EXPECT_THAT(why(SYS_unshare, EPERM),
              AllOf(HasSubstr("no network namespace"), HasSubstr("Operation not permitted")));
  EXPECT_THAT(why(SYS_ioctl, EPERM), HasSubstr("loopback does not come up"));
  EXPECT_THAT(why(SYS_listen, ENOBUFS), HasSubstr("no listener on port 14700"));
}

TEST(Unsandboxed, GateIsOnTheLoopbackOfTheHost) {
  const TemporaryDirectory workspace;
  Supervisor supervisor;
  const std::unique_ptr<Sandbox> sandbox = make_unsandboxed(supervisor);
  const Gate gate = sandbox->make_gate();
  EXPECT_NE(gate.port, 0);
  SandboxedCommand command;
  command.command.argv = {"/bin/sh", "-c", Acceptor::say("one", gate.port)};
  command.command.env = {"PATH=/usr/local/bin:/usr/bin:/bin"};
  command.workspace = workspace.path();
  command.gate = &gate;
  for (const char* name : {"round 1", "round 2"}) {  // the same gate, taken again
    Acceptor acceptor(name);
    command.on_listener = [&](FileDescriptor listener) { acceptor.take(std::move(listener)); };
    EXPECT_EQ(sandbox->run(command, {}).out.text(), std::string(name) + " heard one\n");
  }
  EXPECT_THAT(sandbox->missing(), testing::Contains(HasSubstr("network of the host")));
}

}  // namespace
}  // namespace necrocode::process
