// Limits of what a command may take. Tests of cgroups are skipped, loudly, where none can be made.
#include "necrocode/process/resource_limits.hpp"

#include <gmock/gmock.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/process/cgroups.hpp"
#include "necrocode/process/sandbox.hpp"
#include "unit/process/process_table.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using namespace std::chrono_literals;

constexpr std::uint64_t kMiB = limits::kMiB;

// Perl is in every Debian. It fills so many MiB, says so, and does `then`.
std::string fill_memory(int mib, const std::string& then = "") {
  return "perl -e 'my @x; for (1.." + std::to_string(mib) +
         ") { push @x, chr(65 + $_ % 26) x 1048576 } print \"filled\\n\"; $| = 1; " + then + "'";
}

// Each process makes two more for ever; the shell waits.
const std::string kForkBomb = "bomb() { bomb & bomb & sleep ";

/// The groups of this process that there are.
std::vector<std::string> groups_left() {
  std::vector<std::string> names;
  const std::string mark = "-" + std::to_string(::getpid()) + "-";
  for (const OwnGroup& parent : own_groups("/proc/self")) {
    std::error_code error;
    if (parent.version == 0) continue;
    for (const auto& entry : fs::directory_iterator(parent.folder, error)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("necrocode-") && name.find(mark) != std::string::npos) {
        names.push_back(entry.path().string());
      }
    }
  }
  return names;
}

class LimitsTest : public testing::Test {
 protected:
  explicit LimitsTest(bool cgroups) : supervisor_({true, 100ms, cgroups}) {}
  ~LimitsTest() override { EXPECT_THAT(groups_left(), IsEmpty()); }

  CommandResult run(const std::string& script, const ResourceLimits& limits,
                    std::chrono::nanoseconds timeout = 60s) {
    Command command;
    command.argv = {"/bin/sh", "-c", script};
    command.env = {"PATH=/usr/bin:/bin"};
    command.working_directory = "/";
    command.timeout = timeout;
    command.limits = limits;
    command.on_warning = [this](const std::string& text) { warnings_.push_back(text); };
    return supervisor_.run(command, {});
  }

  Supervisor supervisor_;
  std::vector<std::string> warnings_;
};

class CgroupLimits : public LimitsTest {
 protected:
  CgroupLimits() : LimitsTest(true) {}
  void SetUp() override {
    const std::string how = supervisor_.describe_limits({kMiB, 1, 1});
    if (how.find("not limited") != std::string::npos || how.find("rlimit") != std::string::npos) {
      GTEST_SKIP() << "NO CGROUP CAN BE MADE ON THIS MACHINE: " << how;
    }
  }
};

class Rlimits : public LimitsTest {
 protected:
  Rlimits() : LimitsTest(false) {}
};

TEST_F(CgroupLimits, MemoryThenTheCommandIsKilledAndTheLimitNamed) {
  const CommandResult result = run(fill_memory(400), {64 * kMiB, 0, 0});
  EXPECT_FALSE(result.ok());
  EXPECT_EQ(result.out.text(), "");
  EXPECT_THAT(result.limit_reached, StartsWith("exceeded its memory limit of 64 MiB (cgroup v"));
  EXPECT_GT(result.usage.peak_memory_bytes, 40 * kMiB);
  EXPECT_LE(result.usage.peak_memory_bytes, 72 * kMiB);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("% of its memory limit of 64 MiB")));
}

TEST_F(CgroupLimits, MemoryOfAllProcessesTogetherThenTheLimit) {
  const CommandResult result = run(
      "perl -e 'for (1..4) { if (!fork) { my @x; push @x, chr(65 + $_ % 26) x 1048576 for 1..30; "
      "sleep 1000 } } wait; exit 1'",
      {64 * kMiB, 0, 0});
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(result.limit_reached, StartsWith("exceeded its memory limit"));
}

TEST_F(CgroupLimits, WithinThemThenUsageIsToldAndNoWarning) {
  const CommandResult result = run(fill_memory(30), {200 * kMiB, 64, 400});
  EXPECT_TRUE(result.ok());
  EXPECT_EQ(result.limit_reached, "");
  EXPECT_THAT(warnings_, IsEmpty());
  EXPECT_GE(result.usage.peak_memory_bytes, 30 * kMiB);
  EXPECT_LT(result.usage.peak_memory_bytes, 80 * kMiB);
  EXPECT_GT(result.usage.cpu_time, 0us);
  EXPECT_GE(result.usage.peak_processes, 1U);
}

TEST_F(CgroupLimits, FileCacheThenNoMemoryThatIsUsed) {
  const TemporaryDirectory folder("necrocode-cache-", "/var/tmp");
  struct statfs disk = {};
  ASSERT_EQ(::statfs(folder.path().c_str(), &disk), 0);
  if (disk.f_type == TMPFS_MAGIC) GTEST_SKIP() << "/var/tmp IS IN MEMORY ITSELF";
  const std::string file = (folder.path() / "file").string();
  const CommandResult result =
      run("head -c 300000000 /dev/zero > " + file + " && cat " + file + " > /dev/null && sleep 0.4",
          {100 * kMiB, 0, 0});
  EXPECT_TRUE(result.ok()) << result.limit_reached;
  EXPECT_THAT(warnings_, IsEmpty());
  EXPECT_LT(result.usage.peak_memory_bytes, 60 * kMiB);
}

TEST_F(CgroupLimits, LongCommandNearItsMemoryThenWarnedWhileItRuns) {
  Command command;
  command.argv = {"/bin/sh", "-c", fill_memory(90, "sleep 1000")};
  command.env = {"PATH=/usr/bin:/bin"};
  command.working_directory = "/";
  command.limits = {100 * kMiB, 0, 0};
  std::stop_source stop;
  command.on_warning = [&](const std::string& text) {
    warnings_.push_back(text);
    stop.request_stop();
  };
  CallContext context;
  context.stop = stop.get_token();
  EXPECT_EQ(supervisor_.run(command, context.within(30s)).end, CommandEnd::kCancelled);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("memory limit of 100 MiB")));
}

TEST_F(CgroupLimits, ForkBombThenBoundedAndNothingIsLeft) {
  const std::string mark = test::unique_mark();
  const CommandResult result = run(kForkBomb + mark + "; }; bomb", {0, 100, 0}, 3s);
  EXPECT_FALSE(result.ok());  // at its time, or when the first shell could not fork
  EXPECT_THAT(result.limit_reached, StartsWith("reached its limit of 100 processes (cgroup v"));
  EXPECT_LE(result.usage.peak_processes, 100U);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr(" % of its limit of 100 processes")));
  EXPECT_LT(result.duration, 8s);
  EXPECT_EQ(test::processes_with(mark), 0);
}

TEST_F(CgroupLimits, ProcessorThenASpinnerGetsItsShare) {
  const CommandResult result =
      run("perl -e 'my $c = 0; while ($c < 0.3) { ($c) = times }'", {0, 0, 10});
  EXPECT_TRUE(result.ok());
  EXPECT_GE(result.usage.cpu_time, 300ms);
  EXPECT_GE(result.duration, 2s);
}

TEST_F(CgroupLimits, CommandsAtOnceThenEachHasItsOwn) {
  CommandResult small;
  std::thread other([&] {
    Command command;
    command.argv = {"/bin/sh", "-c", fill_memory(200)};
    command.env = {"PATH=/usr/bin:/bin"};
    command.working_directory = "/";
    command.limits = {50 * kMiB, 0, 0};
    small = supervisor_.run(command, {});
  });
  const CommandResult large = run(fill_memory(100), {200 * kMiB, 0, 0});
  other.join();
  EXPECT_TRUE(large.ok()) << large.limit_reached;
  EXPECT_FALSE(small.ok());
  EXPECT_THAT(small.limit_reached, HasSubstr("50 MiB"));
}

TEST_F(CgroupLimits, CommandThatCannotBeStartedThenNoGroupIsLeft) {
  Command command;
  command.argv = {"no-such-program"};
  command.working_directory = "/";
  command.limits = {50 * kMiB, 10, 50};
  EXPECT_ANY_THROW(supervisor_.run(command, {}));
}

TEST_F(CgroupLimits, DescriptionThenSaysByWhat) {
  EXPECT_THAT(supervisor_.describe_limits({256 * kMiB, 100, 150}),
              testing::MatchesRegex("memory 256 MiB \\(cgroup v[12]\\), 100 processes "
                                    "\\(cgroup v[12]\\), CPU 150 % \\(cgroup v[12]\\)"));
  EXPECT_EQ(supervisor_.describe_limits({}),
            "memory not limited, processes not limited, CPU not limited");
}

TEST_F(CgroupLimits, CommandThatKillsItsInitWithoutNamespaceThenWhatItLeavesEndsWithTheGroup) {
  const std::string mark = test::unique_mark();
  Supervisor weak({false, 100ms});
  Command command;
  command.argv = {"/bin/sh", "-c", "setsid sleep " + mark + " & kill -9 $PPID; sleep 1000"};
  command.env = {"PATH=/usr/bin:/bin"};
  command.working_directory = "/";
  command.limits = {0, 100, 0};
  EXPECT_THROW(weak.run(command, {}), StorageError);
  EXPECT_TRUE(test::soon([&mark] { return test::processes_with(mark) == 0; }));
}

TEST_F(CgroupLimits, LeftByAKilledOwnerThenRemovedAtTheNextStart) {
  std::array<int, 2> ready{};
  ASSERT_EQ(::pipe(ready.data()), 0);
  const pid_t owner = ::fork();
  if (owner == 0) {
    const Cgroups cgroups({::getpid()});
    const auto group = cgroups.make({kMiB * 50, 10, 50});
    [[maybe_unused]] const auto wrote = ::write(ready[1], "x", 1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  const auto left = [owner] {
    int count = 0;
    for (const OwnGroup& parent : own_groups("/proc/self")) {
      for (const auto& entry : fs::directory_iterator(parent.folder)) {
        count += entry.path().filename().string().find("-" + std::to_string(owner) + "-") !=
                 std::string::npos;
      }
    }
    return count;
  };
  EXPECT_GT(left(), 0);
  Cgroups({::getpid()});  // removes nothing of an owner that lives
  EXPECT_GT(left(), 0);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  EXPECT_GT(left(), 0);
  Cgroups({::getpid()});
  EXPECT_EQ(left(), 0);
  for (const int fd : ready) ::close(fd);
}

class SandboxLimits : public CgroupLimits {
 protected:
  CommandResult run_inside(const std::string& script, const ResourceLimits& limits) {
    const auto sandbox = make_bubblewrap_sandbox(supervisor_, limits);
    SandboxedCommand command;
    command.command.argv = {"/bin/sh", "-c", script};
    command.command.env = clean_environment();
    command.command.timeout = 20s;
    command.workspace = folder_.path();
    return sandbox->run(command, {});
  }
  TemporaryDirectory folder_;
};

TEST_F(SandboxLimits, MemoryThenKilledAlsoInside) {
  const CommandResult result = run_inside(fill_memory(400), {64 * kMiB, 0, 0});
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(result.limit_reached, StartsWith("exceeded its memory limit of 64 MiB"));
}

TEST_F(SandboxLimits, FilesInItsTmpThenTheyAreMemoryOfTheCommand) {
  const CommandResult result =
      run_inside("head -c 500000000 /dev/zero > /tmp/file; echo lived", {64 * kMiB, 0, 0});
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(result.limit_reached, StartsWith("exceeded its memory limit of 64 MiB"));
}

TEST_F(SandboxLimits, WayOutThenThereIsNone) {
  const CommandResult result = run_inside(
      "ls -d /sys/fs/cgroup 2>&1; mkdir /tmp/c; mount -t cgroup2 none /tmp/c 2>&1; "
      "mount -t cgroup -o memory none /tmp/c 2>&1; unshare -C true 2>&1; unshare -Ur true 2>&1; "
      "cat /proc/self/mountinfo | grep -c cgroup; " +
          fill_memory(400),
      {64 * kMiB, 50, 0});
  EXPECT_THAT(result.limit_reached, StartsWith("exceeded its memory limit of 64 MiB"));
  const std::string out = result.out.text();
  EXPECT_THAT(out, HasSubstr("cannot access '/sys/fs/cgroup'"));
  EXPECT_THAT(out, HasSubstr("\n0\n"));
  EXPECT_THAT(out, testing::Not(HasSubstr("filled")));
}

TEST_F(Rlimits, MemoryThenTheProcessGetsNoMore) {
  const CommandResult result = run(fill_memory(400), {64 * kMiB, 0, 0});
  EXPECT_FALSE(result.ok());
  EXPECT_EQ(result.out.text(), "");
  EXPECT_THAT(result.err.text(), HasSubstr("ut of memory"));
  EXPECT_LT(result.usage.peak_memory_bytes, 80 * kMiB);
  EXPECT_TRUE(run(fill_memory(20), {64 * kMiB, 0, 0}).ok());
  EXPECT_THAT(supervisor_.describe_limits({64 * kMiB, 0, 50}),
              AllOf(HasSubstr("memory 64 MiB a process (rlimit)"), HasSubstr("CPU not limited")));
}

TEST_F(Rlimits, ReservedAddressesThenNotCounted) {
  // As Go, Java and Node begin: much address space, little memory.
  EXPECT_TRUE(
      run("perl -e 'syscall(9, 0, 1 << 36, 0, 0x4022, -1, 0) > 0 or exit 1'", {64 * kMiB, 0, 0})
          .ok());
}

TEST_F(Rlimits, ForkBombThenBoundedWhereTheKernelCountsAlone) {
  if (supervisor_.describe_limits({0, 10, 0}).find("10 processes (rlimit)") == std::string::npos) {
    GTEST_SKIP() << "ROOT IS NOT HELD TO RLIMIT_NPROC";
  }
  const std::string mark = test::unique_mark();
  const CommandResult result = run(kForkBomb + mark + "; }; bomb", {0, 50, 0}, 1s);
  EXPECT_THAT(result.err.text(), AnyOf(HasSubstr("annot fork"), HasSubstr("temporarily")));
  EXPECT_EQ(test::processes_with(mark), 0);
  EXPECT_TRUE(run("true", {0, 50, 0}).ok());
}

TEST(DefaultLimits, ThenHalfOfTheMemoryAndManyProcesses) {
  const ResourceLimits limits = default_limits();
  const auto whole = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                     static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  EXPECT_GT(limits.memory_bytes, 0U);
  EXPECT_LE(limits.memory_bytes, whole / 2);
  EXPECT_EQ(limits.processes, 2048U);
  EXPECT_EQ(limits.cpu_percent, 0);
}

/// A hierarchy of version 2 in plain files, as a kernel would show it to us.
class UnifiedTree : public testing::Test {
 protected:
  UnifiedTree() {
    fs::create_directories(own());
    write("../proc/mountinfo", "41 31 0:38 /outer " + mount().string() + " rw - cgroup2 none rw\n");
    write("../proc/cgroup", "0::/outer/own\n");
    write("own/cgroup.type", "domain\n");
    write("own/cgroup.controllers", "cpu io memory pids\n");
    write("own/cgroup.subtree_control", "\n");
    write("own/cgroup.procs", std::to_string(::getpid()) + "\n");
  }
  fs::path mount() const { return folder_.path() / "mount"; }
  fs::path own() const { return mount() / "own"; }
  fs::path proc() const { return folder_.path() / "proc"; }
  void write(const std::string& name, const std::string& text) const {
    const fs::path path = (mount() / name).lexically_normal();
    fs::create_directories(path.parent_path());
    write_file_atomic(path, text);
  }
  std::string read(const fs::path& path) const { return test::slurp(path); }
  fs::path the_group() const {
    for (const auto& entry : fs::directory_iterator(own())) {
      const std::string name = entry.path().filename().string();
      if (entry.is_directory() && name != "necrocode-itself") return entry.path();
    }
    return {};
  }
  TemporaryDirectory folder_;
};

TEST_F(UnifiedTree, AloneInItsGroupThenMovesAsideAndLimitsByOneFolder) {
  const Cgroups cgroups({::getpid()}, proc());
  for (const Controller one : kControllers) EXPECT_EQ(cgroups.version(one), 2);
  EXPECT_EQ(read(own() / "necrocode-itself/cgroup.procs"), std::to_string(::getpid()));
  EXPECT_THAT(read(own() / "cgroup.subtree_control"),
              AllOf(HasSubstr("+memory"), HasSubstr("+pids"), HasSubstr("+cpu")));
  const auto group = cgroups.make({256 * kMiB, 100, 150});
  const fs::path folder = the_group();
  EXPECT_EQ(read(folder / "memory.max"), std::to_string(256 * kMiB));
  EXPECT_EQ(read(folder / "memory.swap.max"), "0");
  EXPECT_EQ(read(folder / "pids.max"), "100");
  EXPECT_EQ(read(folder / "cpu.max"), "150000 100000");
  EXPECT_GE(group->folder(), 0);
  EXPECT_THAT(group->tasks(), IsEmpty());
}

TEST_F(UnifiedTree, WhatTheKernelCountsThenUsageAndTheLimit) {
  const Cgroups cgroups({::getpid()}, proc());
  const auto group = cgroups.make({256 * kMiB, 100, 0});
  const fs::path folder = the_group();
  EXPECT_EQ(group->limit_reached(), "");
  write_file_atomic(folder / "memory.current", std::to_string(200 * kMiB) + "\n");
  write_file_atomic(folder / "memory.stat", "anon 1\ninactive_file " + std::to_string(20 * kMiB) +
                                                "\nactive_file " + std::to_string(30 * kMiB) +
                                                "\n");
  write_file_atomic(folder / "pids.peak", "77\n");
  ResourceUsage usage;
  group->look(usage);
  EXPECT_EQ(usage.peak_memory_bytes, 150 * kMiB);
  EXPECT_EQ(usage.peak_processes, 77U);
  write_file_atomic(folder / "pids.events", "max 3\n");
  EXPECT_EQ(group->limit_reached(), "reached its limit of 100 processes (cgroup v2)");
  write_file_atomic(folder / "memory.events", "oom 1\noom_kill 1\n");
  EXPECT_EQ(group->limit_reached(), "exceeded its memory limit of 256 MiB (cgroup v2)");
  write_file_atomic(folder / "memory.events", "oom 0\noom_kill 1\n");
  EXPECT_EQ(group->limit_reached(), "was killed because the machine ran out of memory");
}

TEST_F(UnifiedTree, OthersInItsGroupThenNotUsed) {
  write("own/cgroup.procs", std::to_string(::getpid()) + "\n1\n");
  const Cgroups cgroups({::getpid()}, proc());
  for (const Controller one : kControllers) EXPECT_EQ(cgroups.version(one), 0);
  EXPECT_FALSE(fs::exists(own() / "necrocode-itself"));
  EXPECT_EQ(cgroups.make({256 * kMiB, 100, 0}), nullptr);
}

TEST_F(UnifiedTree, MovedAsideByAnEarlierStartThenTheGroupAbove) {
  write("../proc/cgroup", "0::/outer/own/necrocode-itself\n");
  write("own/cgroup.subtree_control", "cpu memory pids\n");
  write("own/cgroup.procs", "");
  write("own/necrocode-itself/cgroup.controllers", "cpu memory pids\n");
  const Cgroups cgroups({::getpid()}, proc());
  EXPECT_EQ(cgroups.version(Controller::kMemory), 2);
  const auto group = cgroups.make({256 * kMiB, 0, 0});
  EXPECT_EQ(the_group().parent_path(), own());
}

TEST_F(UnifiedTree, WithoutControllersThenNotUsed) {
  write("own/cgroup.controllers", "\n");
  const Cgroups cgroups({::getpid()}, proc());
  for (const Controller one : kControllers) EXPECT_EQ(cgroups.version(one), 0);
}

TEST(FirstVersion, MountsThenEachControllerWhereItIsMounted) {
  const TemporaryDirectory folder;
  const std::string root = folder.path().string();
  write_file_atomic(folder.path() / "mountinfo",
                    "1 0 0:1 / " + root +
                        "/cpu rw,nosuid shared:9 - cgroup c rw,cpu,cpuacct\n"
                        "2 0 0:2 /docker/x " +
                        root +
                        "/memory rw - cgroup c rw,memory\n"
                        "3 0 0:3 /elsewhere " +
                        root +
                        "/pids rw - cgroup c rw,pids\n"
                        "4 0 0:4 / /proc rw - proc proc rw\n\nnonsense\n");
  write_file_atomic(folder.path() / "cgroup",
                    "3:pids:/docker/x\n2:memory:/docker/x/in\n1:cpu,cpuacct:/a\n0::/\n");
  const OwnGroups groups = own_groups(folder.path());
  EXPECT_EQ(groups[0].folder, folder.path() / "memory/in");
  EXPECT_EQ(groups[0].version, 1);
  EXPECT_EQ(groups[1].version, 0);  // what is mounted there does not hold our group
  EXPECT_EQ(groups[2].folder, folder.path() / "cpu/a");
}

}  // namespace
}  // namespace necrocode::process
