#include "necrocode/exec/exec_result.hpp"

#include <gtest/gtest.h>

namespace necrocode::exec {
namespace {

process::CommandResult ended(process::CommandEnd end, int exit_code = 0) {
  process::CommandResult program;
  program.end = end;
  program.exit_code = exit_code;
  return program;
}

llm::Metered failed(llm::ExchangeClass how) {
  llm::Metered metered;
  metered.failure.emplace().how = how;
  metered.last = metered.failure;
  return metered;
}

constexpr auto kExited = process::CommandEnd::kExited;
constexpr auto kTimedOut = process::CommandEnd::kTimedOut;

TEST(ExecVerdict, OfAProgramThatEndedByItselfIsLeftToTheTests) {
  EXPECT_FALSE(verdict_of(ended(kExited, 0), {}, true));
  EXPECT_FALSE(verdict_of(ended(kExited, 1), {}, false));
  EXPECT_FALSE(verdict_of(ended(process::CommandEnd::kSignalled, 139), {}, true));
}

TEST(ExecVerdict, OfAFailureForGoodIsTheProvidersClass) {
  struct Case {
    llm::ExchangeClass how;
    ExitCode code;
  };
  using enum llm::ExchangeClass;
  for (const auto& [how, code] :
       {Case{kAuth, ExitCode::kModelRefused}, Case{kQuota, ExitCode::kModelRefused},
        Case{kCap, ExitCode::kModelRefused}, Case{kContext, ExitCode::kModelUnusable},
        Case{kRequest, ExitCode::kModelUnusable}, Case{kProtocol, ExitCode::kModelUnusable},
        Case{kRate, ExitCode::kModelUnavailable},
        Case{kUnavailable, ExitCode::kModelUnavailable}}) {
    for (const process::CommandResult& program :
         {ended(kExited, 1), ended(kTimedOut), ended(process::CommandEnd::kSignalled, 137)}) {
      const auto verdict = verdict_of(program, failed(how), true);
      ASSERT_TRUE(verdict) << to_string(how);
      EXPECT_EQ(verdict->exit_code, code) << to_string(how);
    }
    EXPECT_TRUE(verdict_of(ended(kExited, 0), failed(how), false))
        << "it says done, and did nothing";
    EXPECT_FALSE(verdict_of(ended(kExited, 0), failed(how), true))
        << "it got on without that answer";
  }
}

TEST(ExecVerdict, OfTheTimeAloneIsTheTime) {
  const auto verdict = verdict_of(ended(kTimedOut), {}, true);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->exit_code, ExitCode::kTaskTimeout);
}

TEST(ExecVerdict, OfALimitIsTheLimitUnlessTheProgramLivedThroughIt) {
  process::CommandResult program = ended(kExited, 1);
  program.limit_reached = "exceeded its memory limit of 256 MiB (cgroup v1)";
  const auto verdict = verdict_of(program, failed(llm::ExchangeClass::kAuth), true);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->exit_code, ExitCode::kResourceLimit);
  program.exit_code = 0;
  EXPECT_FALSE(verdict_of(program, {}, true));
}

TEST(TestLike, ByFolderNameAndTheCommandsThatRunIt) {
  for (const char* path : {"tests/a.txt", "src/__tests__/x.js", "pkg/test_double.py",
                           "double_test.go", "web/button.spec.ts", "src/FooTest.java",
                           "conftest.py", "Tests/data.json", "run/check.sh"}) {
    EXPECT_TRUE(is_test_like(path, {"sh -e ./run/check.sh --all", "grep -q x seen.txt"})) << path;
  }
  for (const char* path :
       {"src/latest.py", "contest.md", "src/attest/x.c", "check.sh", "seen.txt", "a/spectrum.h"}) {
    EXPECT_FALSE(is_test_like(path, {"sh ./run/check.sh", "grep -q x seen.txt"})) << path;
  }
}

TEST(ExecResult, ToJsonHasAllMembersAlsoOfARunThatNeverBegan) {
  ExecResult result;
  result.run_id = "exec-1";
  result.exit_code = ExitCode::kUsage;
  const Json json = result.to_json();
  for (const char* name : {"program", "provider", "files", "commits", "tests", "push", "error",
                           "artifacts", "tests_changed", "protected_restored", "git_put_back"}) {
    EXPECT_NE(json.find(name), nullptr) << name;
  }
  EXPECT_EQ(json["success"], Json(false));
  EXPECT_EQ(json["exit_code"], Json(2));
}

}  // namespace
}  // namespace necrocode::exec
