#include "necrocode/base/errors.hpp"

#include <gmock/gmock.h>

#include <cerrno>
#include <system_error>
#include <type_traits>

#include "necrocode/base/check.hpp"
#include "necrocode/base/exit_code.hpp"

namespace necrocode {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(RunnerError, WhatHasTheSummaryAndOnlyTheFieldsThatAreSet) {
  EXPECT_STREQ(RunnerError("plain").what(), "plain");
  ErrorInfo info;
  info.service = "task-registry";
  info.operation = "get_task";
  info.target = "a:1";
  info.status = 503;
  info.attempts = 4;
  info.end = CallEnd::kExhausted;
  info.request_id = "r-1";
  info.detail = "try later";
  info.fields = {{"/x", "is wrong"}, {"", "is empty"}};
  const Unavailable error("no answer", info);
  EXPECT_STREQ(error.what(),
               "no answer (service=task-registry, operation=get_task, target=a:1, status=503, "
               "attempts=4, end=exhausted, request_id=r-1): try later; /x: is wrong; /: is empty");
  EXPECT_EQ(error.summary(), "no answer");
  EXPECT_EQ(error.info().status, 503);
}

TEST(RunnerError, WhatIsOneHarmlessLineWhateverTheOtherSideSaid) {
  ErrorInfo info;
  info.detail = "one\ntwo\x1b[2J";
  const std::string what = RunnerError("failed", info).what();
  EXPECT_THAT(what, Not(HasSubstr("\n")));
  EXPECT_THAT(what, Not(HasSubstr("\x1b")));
  EXPECT_THAT(what, HasSubstr("one\\ntwo"));
}

TEST(RunnerError, KeepsItsCause) {
  ErrorInfo info;
  info.cause = std::make_exception_ptr(StorageError("inner"));
  const RunnerError outer("outer", info);
  EXPECT_THROW(std::rethrow_exception(outer.info().cause), StorageError);
}

TEST(Errors, ServiceErrorsAreOneFamilyUnderRunnerError) {
  static_assert(std::is_base_of_v<RunnerError, ServiceError>);
  static_assert(std::is_base_of_v<ServiceError, NotFound>);
  static_assert(std::is_base_of_v<ServiceError, Conflict>);
  static_assert(std::is_base_of_v<ServiceError, Unavailable>);
  static_assert(std::is_base_of_v<ServiceError, RateLimited>);
  static_assert(std::is_base_of_v<ServiceError, Unauthorized>);
  static_assert(std::is_base_of_v<ServiceError, InvalidResponse>);
  static_assert(std::is_base_of_v<std::runtime_error, RunnerError>);
}

TEST(CallEnd, EachHasItsWord) {
  EXPECT_EQ(to_string(CallEnd::kNone), "none");
  EXPECT_EQ(to_string(CallEnd::kPermanent), "permanent");
  EXPECT_EQ(to_string(CallEnd::kExhausted), "exhausted");
  EXPECT_EQ(to_string(CallEnd::kDeadline), "deadline");
  EXPECT_EQ(to_string(CallEnd::kCancelled), "cancelled");
  EXPECT_EQ(to_string(CallEnd::kBreakerOpen), "breaker-open");
}

TEST(ThrowErrno, NamesWhatPathAndReason) {
  errno = ENOENT;
  try {
    throw_errno("cannot open", "/x");
    FAIL();
  } catch (const StorageError& error) {
    EXPECT_STREQ(error.what(), "cannot open /x: No such file or directory");
  }
  errno = EACCES;
  try {
    throw_errno("cannot write");
    FAIL();
  } catch (const StorageError& error) {
    EXPECT_STREQ(error.what(), "cannot write: Permission denied");
  }
}

TEST(IsDiskFull, OnlyForNoSpaceAndNoQuota) {
  const auto failed_with = [](int reason) {
    errno = reason;
    try {
      throw_errno("cannot write");
    } catch (const StorageError& error) {
      return is_disk_full(error);
    }
    return false;
  };
  EXPECT_TRUE(failed_with(ENOSPC));
  EXPECT_TRUE(failed_with(EDQUOT));
  EXPECT_FALSE(failed_with(EIO));
  EXPECT_FALSE(is_disk_full(StorageError("no cause")));
  ErrorInfo info;
  info.cause = std::make_exception_ptr(RunnerError("another kind of cause"));
  EXPECT_FALSE(is_disk_full(StorageError("x", info)));
}

TEST(NecrocodeCheckDeathTest, BrokenInvariantEndsTheProcessAndSaysWhich) {
  NECROCODE_CHECK(1 + 1 == 2);
  EXPECT_DEATH(NECROCODE_CHECK(1 + 1 == 3), "broken invariant 1 \\+ 1 == 3 at .*errors_test");
}

TEST(ExitCodeFor, WhatIsNotARunnerErrorIsInternal) {
  EXPECT_EQ(exit_code_for(std::runtime_error("x")), ExitCode::kInternal);
  EXPECT_EQ(exit_code_for(TaskContextValidationError("x")), ExitCode::kUsage);
  EXPECT_EQ(exit_code_for(ConfigError("x")), ExitCode::kUsage);
  EXPECT_EQ(exit_code_for(SecurityError("x")), ExitCode::kSecurity);
  EXPECT_EQ(exit_code_for(PushError("x")), ExitCode::kGit);
  EXPECT_EQ(exit_code_for(WorkspacePreparationError("x")), ExitCode::kGit);
  EXPECT_EQ(exit_code_for(ResourceLimitError("x")), ExitCode::kResourceLimit);
}

}  // namespace
}  // namespace necrocode
