// The exit codes, fixed because scripts rely on them (SPEC section 9; README.md lists them), and
// the one table from errors to them.
#pragma once

#include <exception>

namespace necrocode {

enum class ExitCode : int {
  kDone = 0,
  kTestsFailed = 1,  ///< other commands: a check failed
  kUsage = 2,
  kServiceUnavailable = 3,
  kTaskTimeout = 4,
  kCancelled = 5,
  kSecurity = 6,
  kModelRefused = 7,   ///< 401, 403, exhausted quota, spend cap
  kModelUnusable = 8,  ///< 400, 404, 413, 422, or no usable answer
  kModelUnavailable = 9,
  kGit = 10,
  kResourceLimit = 11,
  kUnverified = 12,
  kInternal = 70,
};

/// The exit code of an error; kInternal for what is not a RunnerError.
ExitCode exit_code_for(const std::exception& error);

}  // namespace necrocode
