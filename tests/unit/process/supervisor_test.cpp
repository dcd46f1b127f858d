#include "necrocode/process/supervisor.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <thread>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "unit/process/process_table.hpp"

namespace necrocode::process {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;

const std::string kPath = "PATH=/usr/bin:/bin";

Command shell(const std::string& script) {
  Command command;
  command.argv = {"/bin/sh", "-c", script};
  command.env = {kPath};
  command.working_directory = "/";
  return command;
}

/// The same tests for each way of ending descendants.
class SupervisorTest : public testing::TestWithParam<bool> {
 protected:
  SupervisorTest() : supervisor_({GetParam(), 100ms}) {}
  CommandResult run(const Command& command, const CallContext& context = {},
                    const OutputSink& sink = {}) {
    return supervisor_.run(command, context, sink);
  }
  Supervisor supervisor_;
};
INSTANTIATE_TEST_SUITE_P(, SupervisorTest, testing::Bool(), [](const auto& which) {
  return which.param ? "PidNamespace" : "NoNamespace";
});

TEST_P(SupervisorTest, ExitCodeAndBothStreamsComeBack) {
  const CommandResult result = run(shell("echo out; echo err >&2; exit 7"));
  EXPECT_EQ(result.end, CommandEnd::kExited);
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(result.out.text(), "out\n");
  EXPECT_EQ(result.err.text(), "err\n");
  EXPECT_FALSE(result.ok());
  EXPECT_GT(result.duration, 0ns);
  EXPECT_TRUE(run(shell("exit 0")).ok());
}

TEST_P(SupervisorTest, SignalOfTheCommandIsReported) {
  const CommandResult result = run(shell("kill -SEGV $$"));
  EXPECT_EQ(result.end, CommandEnd::kSignalled);
  EXPECT_EQ(result.signal, SIGSEGV);
  EXPECT_EQ(result.exit_code, 128 + SIGSEGV);
}

TEST_P(SupervisorTest, InputIsReadToItsEnd) {
  Command command = shell("wc -c; head -c 3 /dev/null");
  command.input = std::string(3'000'000, 'i');
  EXPECT_EQ(trim(run(command).out.text()), "3000000");
  EXPECT_EQ(run(shell("cat")).out.text(), "");
}

TEST_P(SupervisorTest, InputThatNobodyReadsIsNoError) {
  Command command = shell("exit 0");
  command.input = std::string(1'000'000, 'i');
  EXPECT_TRUE(run(command).ok());
}

TEST_P(SupervisorTest, LongOutputKeepsHeadAndTail) {
  Command command =
      shell("printf 'begin-'; head -c 100000 /dev/zero | tr '\\0' x; printf -- '-end'");
  command.head_bytes = 10;
  command.tail_bytes = 7;
  std::uint64_t seen = 0;
  const CommandResult result =
      run(command, {}, [&seen](std::string_view piece) { seen += piece.size(); });
  EXPECT_EQ(result.out.head, "begin-xxxx");
  EXPECT_EQ(result.out.tail, "xxx-end");
  EXPECT_EQ(result.out.total_bytes, 100010U);
  EXPECT_EQ(seen, 100010U);
  EXPECT_TRUE(result.out.truncated());
  EXPECT_EQ(result.out.text(), "begin-xxxx\n… 99993 bytes left out …\nxxx-end");
}

TEST_P(SupervisorTest, HugeOutputStaysInBoundedMemory) {
  rusage before{};
  ::getrusage(RUSAGE_SELF, &before);
  const CommandResult result = run(shell("head -c 300000000 /dev/zero"));
  rusage after{};
  ::getrusage(RUSAGE_SELF, &after);
  EXPECT_EQ(result.out.total_bytes, 300'000'000U);
  EXPECT_EQ(result.out.head.size() + result.out.tail.size(),
            limits::kOutputHeadBytes + limits::kOutputTailBytes);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 16 * 1024);  // KiB
}

TEST_P(SupervisorTest, TimeoutEndsAProgramThatIgnoresTerm) {
  Command command = shell("trap '' TERM; echo ready; while :; do sleep 1; done");
  command.timeout = 150ms;
  const CommandResult result = run(command);
  EXPECT_EQ(result.end, CommandEnd::kTimedOut);
  EXPECT_EQ(result.signal, SIGKILL);
  EXPECT_EQ(result.out.text(), "ready\n");
  EXPECT_GE(result.duration, 250ms);
  EXPECT_LT(result.duration, 3s);
}

TEST_P(SupervisorTest, TimeoutLetsAProgramCleanUp) {
  Command command = shell("trap 'echo cleaned; exit 3' TERM; echo ready; sleep 100 & wait");
  command.timeout = 150ms;
  const CommandResult result = run(command);
  EXPECT_EQ(result.end, CommandEnd::kTimedOut);
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.out.text(), "ready\ncleaned\n");
}

TEST_P(SupervisorTest, DeadlineOfTheCallerCounts) {
  Supervisor patient({GetParam(), 60s});
  const CommandResult result = patient.run(shell("sleep 100"), CallContext{}.within(50ms));
  EXPECT_EQ(result.end, CommandEnd::kTimedOut);
  EXPECT_EQ(result.signal, SIGTERM);
}

TEST_P(SupervisorTest, TermThatComesBeforeTheCommandBeginsIsNotLost) {
  Supervisor patient({GetParam(), 60s});
  for (int microseconds = 1; microseconds < 1000; microseconds += 20) {
    const CommandResult result = patient.run(
        shell("exec sleep 100"), CallContext{}.within(std::chrono::microseconds(microseconds)));
    ASSERT_EQ(result.end, CommandEnd::kTimedOut);
    ASSERT_LT(result.duration, 30s);
  }
}

TEST_P(SupervisorTest, PassedDeadlineOrStopStartsNothing) {
  const TemporaryDirectory folder;
  const Command command = shell("touch " + (folder.path() / "ran").string());
  EXPECT_EQ(run(command, CallContext{}.within(0ns)).end, CommandEnd::kTimedOut);
  std::stop_source stop;
  stop.request_stop();
  CallContext context;
  context.stop = stop.get_token();
  EXPECT_EQ(run(command, context).end, CommandEnd::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "ran"));
}

TEST_P(SupervisorTest, StopTokenEndsTheCommandAtOnce) {
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  SteadyTime stopped;
  const CommandResult result =
      run(shell("echo started; sleep 100"), context, [&](std::string_view piece) {
        if (piece != "started\n") return;
        stopped = real_clock().steady_now();
        stop.request_stop();
      });
  EXPECT_EQ(result.end, CommandEnd::kCancelled);
  EXPECT_LT(real_clock().steady_now() - stopped, 50ms);
}

TEST_P(SupervisorTest, ProgramThatDoesNotExistIsNamedInTheError) {
  Command command = shell("");
  command.argv = {"no-such-program-here"};
  try {
    run(command);
    FAIL();
  } catch (const TestExecutionError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("no-such-program-here"), HasSubstr("No such file or directory")));
  }
  command.argv = {"/etc/passwd"};
  EXPECT_THAT([&] { run(command); },
              testing::ThrowsMessage<TestExecutionError>(HasSubstr("Permission denied")));
  command = shell("exit 0");
  command.working_directory = "/no/such/folder";
  EXPECT_THAT([&] { run(command); },
              testing::ThrowsMessage<TestExecutionError>(HasSubstr("/no/such/folder")));
  EXPECT_TRUE(run(shell("exit 0")).ok());
}

TEST_P(SupervisorTest, MalformedCommandIsRefused) {
  Command command = shell("exit 0");
  command.argv.clear();
  EXPECT_THROW(run(command), TestExecutionError);
  command = shell("exit 0");
  command.argv.emplace_back("a\0b", 3);
  EXPECT_THROW(run(command), TestExecutionError);
  command = shell("exit 0");
  command.env.emplace_back("A=\0b", 4);
  EXPECT_THROW(run(command), TestExecutionError);
  command = shell("exit 0");
  command.argv.emplace_back(64 * limits::kMiB, 'x');
  EXPECT_THROW(run(command), TestExecutionError);
  command.argv.back().resize(8 * limits::kMiB);  // over the kernel's own limit
  EXPECT_THAT([&] { run(command); },
              testing::ThrowsMessage<TestExecutionError>(HasSubstr("too long")));
}

TEST_P(SupervisorTest, ProgramIsFoundByThePathOfTheCommand) {
  const TemporaryDirectory folder;
  const auto program = folder.path() / "own-program";
  write_file_atomic(program, "#!/bin/sh\necho found $1\n", 0755);
  Command command = shell("");
  command.argv = {"own-program", "it"};
  command.env = {"PATH=relative:/no/such/folder:" + folder.path().string()};
  EXPECT_EQ(run(command).out.text(), "found it\n");
}

TEST_P(SupervisorTest, NothingIsInherited) {
  ::setenv("NECROCODE_TEST_SECRET", "do-not-inherit", 1);
  const FileDescriptor leaky(::open("/dev/null", O_RDONLY));  // without O_CLOEXEC, on purpose
  const CommandResult env = run(shell("env; cat /proc/$$/environ"));
  EXPECT_THAT(env.out.text(), Not(HasSubstr("do-not-inherit")));
  EXPECT_THAT(env.out.text(), Not(HasSubstr("NECROCODE_SUPERVISOR")));
  ::unsetenv("NECROCODE_TEST_SECRET");
  Command list = shell("");
  list.argv = {"/bin/ls", "/proc/self/fd"};
  EXPECT_EQ(run(list).out.text(), "0\n1\n2\n3\n");  // 3 is the listing itself
  const CommandResult state =
      run(shell("grep -E '^Sig(Blk|Ign)' /proc/self/status; ulimit -c; ulimit -n"));
  // The C library itself sets its two internal signals (32, 33) to be ignored when it spawns.
  EXPECT_THAT(state.out.text(), testing::MatchesRegex("SigBlk:\t0000000000000000\n"
                                                      "SigIgn:\t0000000[01]80*\n0\n4096\n|"
                                                      "SigBlk:\t0+\nSigIgn:\t0+\n0\n4096\n"));
}

// Field 6 of /proc/self/stat, read the same way on both sides: getsid() numbers a session by its
// caller's pid namespace, and says 0 where it began outside of that.
TEST_P(SupervisorTest, CommandHasASessionOfItsOwn) {
  const std::string stat = read_file("/proc/self/stat", 4096);
  const std::string own(split(stat.substr(stat.rfind(')') + 2), ' ').at(3));
  const CommandResult result = run(shell("cut -d' ' -f6 /proc/self/stat"));
  EXPECT_THAT(result.out.text(), testing::MatchesRegex("[1-9][0-9]*\n"));
  EXPECT_NE(result.out.text(), own + "\n");
}

TEST_P(SupervisorTest, FileSizeLimitHolds) {
  const TemporaryDirectory folder;
  Command command = shell("head -c 100000 /dev/zero > big");
  command.working_directory = folder.path();
  command.file_size_max = 5000;
  EXPECT_FALSE(run(command).ok());
  EXPECT_EQ(std::filesystem::file_size(folder.path() / "big"), 5000U);
}

TEST_P(SupervisorTest, StatusChannelComesBack) {
  Command command = shell("echo report >&3; echo out");
  command.status_channel = true;
  const CommandResult result = run(command);
  EXPECT_EQ(result.status, "report\n");
  EXPECT_EQ(result.out.text(), "out\n");
  command.argv.back() = "head -c 200000 /dev/zero >&3";
  EXPECT_EQ(run(command).status.size(), limits::kChildStatusBytes);
}

TEST_P(SupervisorTest, DaemonIsGoneAfterTheRun) {
  const std::string mark = test::unique_mark();
  const CommandResult result =
      run(shell("setsid sh -c 'setsid sleep " + mark + " >/dev/null 2>&1 & exit 0' & wait"));
  EXPECT_TRUE(result.ok());
  EXPECT_EQ(test::processes_with(mark), 0);
}

TEST_P(SupervisorTest, GrandchildThatHoldsThePipeDoesNotHang) {
  const std::string mark = test::unique_mark();
  const SteadyTime begin = real_clock().steady_now();
  const CommandResult result = run(shell("setsid sleep " + mark + " & echo done"));
  EXPECT_EQ(result.out.text(), "done\n");
  EXPECT_LT(real_clock().steady_now() - begin, 2s);
  EXPECT_EQ(test::processes_with(mark), 0);
}

TEST_P(SupervisorTest, ExceptionOfTheSinkEndsTheCommand) {
  const std::string mark = test::unique_mark();
  EXPECT_THROW(run(shell("echo hello; sleep " + mark), {},
                   [](std::string_view) { throw std::runtime_error("sink"); }),
               std::runtime_error);
  EXPECT_EQ(test::processes_with(mark), 0);
}

TEST_P(SupervisorTest, ManyRunsAtOnceStayApart) {
  std::atomic<int> good = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 32; ++i) {
      threads.emplace_back([this, i, &good] {
        Command command = shell("cat; echo " + std::to_string(i) + "; exit " + std::to_string(i));
        command.input = "input " + std::to_string(i) + "\n";
        const CommandResult result = run(command);
        const std::string number = std::to_string(i);
        good +=
            result.exit_code == i && result.out.text() == "input " + number + "\n" + number + "\n";
      });
    }
  }
  EXPECT_EQ(good, 32);
}

TEST_P(SupervisorTest, NoDescriptorIsLeaked) {
  run(shell("exit 0"));
  const int before = test::open_descriptors();
  for (int i = 0; i < 20; ++i) run(shell("exit 0"));
  Command missing = shell("");
  missing.argv = {"/no/such/program"};
  EXPECT_THROW(run(missing), TestExecutionError);
  EXPECT_EQ(test::open_descriptors(), before);
}

TEST_P(SupervisorTest, HelperKilledIsAnErrorThenANewOneWorks) {
  const std::string mark = test::unique_mark();
  const auto kill_helper = [] {
    for (const pid_t helper : test::children_of(::getpid())) {
      ::kill(helper, SIGKILL);
      siginfo_t ended{};
      ::waitid(P_PID, static_cast<id_t>(helper), &ended, WEXITED | WNOWAIT);
    }
  };
  EXPECT_THROW(
      run(shell("echo started; sleep " + mark), {}, [&](std::string_view) { kill_helper(); }),
      StorageError);
  EXPECT_TRUE(test::soon([&] { return test::processes_with(mark) == 0; }));
  EXPECT_TRUE(run(shell("exit 0")).ok());
  kill_helper();
  EXPECT_TRUE(run(shell("exit 0")).ok());  // found dead before anything was handed over
}

TEST_P(SupervisorTest, DestructionEndsWhatStillRuns) {
  const std::string mark = test::unique_mark();
  auto supervisor = std::make_unique<Supervisor>(SupervisorOptions{GetParam(), 100ms});
  std::atomic<bool> started = false;
  std::atomic<bool> threw = false;
  std::jthread runner([&, raw = supervisor.get()] {
    try {
      raw->run(shell("echo started; sleep " + mark), {}, [&](std::string_view) {
        started = true;
        started.notify_all();
      });
    } catch (const StorageError&) {
      threw = true;
    }
  });
  started.wait(false);
  supervisor.reset();
  runner.join();
  EXPECT_TRUE(threw);
  EXPECT_TRUE(test::soon([&] { return test::processes_with(mark) == 0; }));
}

/// Another copy of this program with a supervisor of its own, which runs `sleep MARK` until killed.
TEST_P(SupervisorTest, KilledParentLeavesNothing) {
  const std::string mark = test::unique_mark();
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  FileDescriptor read_end(ends[0]);
  FileDescriptor write_end(ends[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), 1);
  const std::string filter = std::string("--gtest_filter=*RunsUntilKilled*/") +
                             (GetParam() ? "PidNamespace" : "NoNamespace");
  const std::string variable = "NECROCODE_TEST_MARK=" + mark;
  std::array<char*, 3> argv{const_cast<char*>("test"), const_cast<char*>(filter.c_str()), nullptr};
  std::array<char*, 2> env{const_cast<char*>(variable.c_str()), nullptr};
  pid_t pid = -1;
  ASSERT_EQ(::posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, argv.data(), env.data()), 0);
  ::posix_spawn_file_actions_destroy(&actions);
  write_end.reset();
  const auto end_copy = [](pid_t* copy) {
    ::kill(*copy, SIGKILL);
    ::waitpid(*copy, nullptr, 0);
  };
  std::unique_ptr<pid_t, decltype(end_copy)> copy(&pid);  // also where an assertion fails
  std::string seen;
  std::array<char, 512> buffer{};
  while (seen.find("sleeping") == std::string::npos) {
    const ssize_t got = ::read(read_end.get(), buffer.data(), buffer.size());
    ASSERT_GT(got, 0) << seen;
    seen.append(buffer.data(), static_cast<std::size_t>(got));
  }
  EXPECT_TRUE(test::soon([&] { return test::processes_with(mark) == 2; }));
  copy.reset();
  EXPECT_TRUE(test::soon([&] { return test::processes_with(mark) == 0; }));
}

TEST_P(SupervisorTest, RunsUntilKilled) {
  const char* mark = std::getenv("NECROCODE_TEST_MARK");
  if (mark == nullptr) GTEST_SKIP() << "the second copy of KilledParentLeavesNothing";
  run(shell("echo sleeping; setsid sleep " + std::string(mark) + " & sleep " + mark), {},
      [](std::string_view piece) {
        [[maybe_unused]] const ssize_t wrote = ::write(1, piece.data(), piece.size());
      });
}

TEST(Supervisor, PidNamespaceIsUsedWhereTheHostAllows) {
  Supervisor none({false, 1s});
  EXPECT_FALSE(none.has_pid_namespace());
  Supervisor supervisor;
  if (!supervisor.has_pid_namespace()) GTEST_SKIP() << "this host gives no pid namespace";
  EXPECT_EQ(supervisor.run(shell("echo $$"), {}).out.text(), "2\n");
}

TEST(ProtectOwnMemory, ProcessIsNotDumpableAndStillStartsChildren) {
  const int before = ::prctl(PR_GET_DUMPABLE);
  protect_own_memory();
  EXPECT_EQ(::prctl(PR_GET_DUMPABLE), 0);
  rlimit core{};
  ::getrlimit(RLIMIT_CORE, &core);
  EXPECT_EQ(core.rlim_cur, 0U);
  Supervisor supervisor;
  EXPECT_TRUE(supervisor.run(shell("exit 0"), {}).ok());
  ::prctl(PR_SET_DUMPABLE, before);
}

TEST(SupervisorMain, IgnoresOrdinaryPrograms) {
  std::string name = "necrocode";
  std::array<char*, 2> argv{name.data(), nullptr};
  EXPECT_EQ(supervisor_main(1, argv.data()), -1);
  std::string helper = "necrocode-supervisor";  // by its name only: somebody's link
  argv[0] = helper.data();
  EXPECT_EQ(supervisor_main(1, argv.data()), -1);
}

}  // namespace
}  // namespace necrocode::process
