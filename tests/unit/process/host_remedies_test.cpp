#include "necrocode/process/host_remedies.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/process/enclosure.hpp"
#include "necrocode/process/sandbox.hpp"
#include "unit/process/scoped_variable.hpp"
#include "unit/process/situations.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// A folder that looks like the root of a host.
class Host {
 public:
  Host& with(const fs::path& path, const std::string& text) {
    fs::create_directories((folder_.path() / path).parent_path());
    write_file_atomic(folder_.path() / path, text);
    return *this;
  }
  HostFacts facts(bool root = false) const {
    HostFacts facts = look_at_host(folder_.path());
    facts.root = root;
    return facts;
  }

 private:
  TemporaryDirectory folder_;
};

constexpr const char* kNoNamespace =
    "bwrap: No permissions to create new namespace, likely because the kernel does not allow "
    "non-privileged user namespaces.";

TEST(HostRemedies, OldBubblewrapIsToBeReplaced) {
  EXPECT_THAT(remedy("bwrap: Unknown option --size", Host().facts()), HasSubstr("0.7.0"));
}

TEST(HostRemedies, SwitchedOffNamespacesAreToBeSwitchedOn) {
  Host off;
  off.with("proc/sys/user/max_user_namespaces", "0\n");
  EXPECT_THAT(remedy("bwrap: No space left on device", off.facts()),
              HasSubstr("sysctl -w user.max_user_namespaces="));
  Host debian;
  debian.with("proc/sys/user/max_user_namespaces", "15000\n")
      .with("proc/sys/kernel/unprivileged_userns_clone", "0\n");
  EXPECT_THAT(remedy(kNoNamespace, debian.facts()),
              HasSubstr("sysctl -w kernel.unprivileged_userns_clone=1"));
  // Root is not held by it.
  EXPECT_THAT(remedy(kNoNamespace, debian.facts(true)), HasSubstr("no known setting"));
}

TEST(HostRemedies, AppArmorsRuleIsMendedByOurProfile) {
  Host ubuntu;
  ubuntu.with("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
  const std::string words = remedy("bwrap: setting up uid map: Permission denied", ubuntu.facts());
  EXPECT_THAT(words, AllOf(HasSubstr("deploy/apparmor/necrocode"), HasSubstr("apparmor_parser -r"),
                           HasSubstr("kernel.apparmor_restrict_unprivileged_userns=0")));
  EXPECT_TRUE(fs::exists(fs::path(NECROCODE_SOURCE_DIR) / "deploy/apparmor/necrocode"));
  ubuntu.with("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0\n");
  EXPECT_EQ(remedy("bwrap: something else", ubuntu.facts()), "");
}

TEST(HostRemedies, ContainersAreToBeStartedWithMoreRights) {
  Host docker;
  docker.with(".dockerenv", "")
      .with("proc/self/attr/apparmor/current", "docker-default (enforce)\n");
  EXPECT_THAT(remedy(kNoNamespace, docker.facts(true)),
              HasSubstr("docker run --security-opt seccomp=unconfined --security-opt "
                        "systempaths=unconfined --security-opt apparmor=unconfined"));
  Host podman;
  podman.with("run/.containerenv", "").with("proc/self/attr/apparmor/current", "unconfined\n");
  EXPECT_THAT(
      remedy("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", podman.facts()),
      AllOf(HasSubstr("podman run"), HasSubstr("unmask=ALL"), Not(HasSubstr("apparmor"))));
}

TEST(HostRemedies, CoveredProcAndFiltersElsewhereAreNamed) {
  EXPECT_THAT(remedy("bwrap: Can't mount proc on /newroot/proc: Operation not permitted",
                     Host().facts(true)),
              HasSubstr("procMount: Unmasked"));
  Host service;
  service.with("proc/self/status", "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n");
  EXPECT_THAT(remedy(kNoNamespace, service.facts()), HasSubstr("RestrictNamespaces=no"));
}

TEST(BestSandbox, BubblewrapWhereTheHostAllows) {
  Supervisor supervisor;
  const std::unique_ptr<Sandbox> sandbox = make_sandbox(supervisor);
  EXPECT_EQ(sandbox->name(), "bubblewrap");
  EXPECT_TRUE(sandbox->can_cover());
  EXPECT_THAT(sandbox->missing(), testing::IsEmpty());
  EXPECT_NE(sandbox->make_gate().port, 0);
}

TEST(BestSandbox, LandlockWhereNamespacesAreRefusedAndSaysWhy) {
  if (landlock_abi() < kLandlockAbiMin) GTEST_SKIP() << "this kernel's Landlock is too old";
  test::in(test::Situation::kNobodyAndRefused, [] {
    const TemporaryDirectory workspace;
    Supervisor supervisor;
    const std::unique_ptr<Sandbox> sandbox = make_sandbox(supervisor);
    sandbox->require_usable();
    EXPECT_EQ(sandbox->name(), "landlock");
    EXPECT_FALSE(sandbox->can_cover());
    EXPECT_THAT(
        sandbox->missing().front(),
        AllOf(HasSubstr("No permissions to create new namespace"), HasSubstr("to mend it")));
    SandboxedCommand command;
    command.command.argv = {"/bin/sh", "-c", "echo works"};
    command.command.env = clean_environment();
    command.workspace = workspace.path();
    EXPECT_EQ(sandbox->run(command, {}).out.text(), "works\n");
  });
}

TEST(BestSandbox, NoBubblewrapThenItsInstallationIsTold) {
  if (landlock_abi() < kLandlockAbiMin) GTEST_SKIP() << "this kernel's Landlock is too old";
  const TemporaryDirectory empty;
  const test::ScopedVariable path("PATH", empty.path().string());
  Supervisor supervisor;
  const std::unique_ptr<Sandbox> sandbox = make_sandbox(supervisor);
  EXPECT_EQ(sandbox->name(), "landlock");
  EXPECT_THAT(sandbox->missing().front(), HasSubstr("apt-get install bubblewrap"));
}

TEST(BestSandbox, NeitherThenRefusedWithBothReasons) {
  test::on_own_thread([] {
    constexpr long kCreateRuleset = 444;
    test::refuse_namespaces();
    test::refuse_call(kCreateRuleset, EOPNOTSUPP);
    Supervisor supervisor;
    const std::unique_ptr<Sandbox> sandbox = make_sandbox(supervisor);
    for (int round = 0; round < 2; ++round) {
      EXPECT_THAT([&] { sandbox->require_usable(); },
                  testing::ThrowsMessage<SecurityError>(AllOf(
                      HasSubstr("No permissions to create new namespace"), HasSubstr("to mend it"),
                      HasSubstr("no Landlock"), HasSubstr("--unsandboxed"))));
    }
  });
}

}  // namespace
}  // namespace necrocode::process
