// The errors of necrocode. Every error that leaves a public function is a RunnerError.
// No secret may enter a message; put it into a Secret and leave it out.
#pragma once

#include <chrono>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace necrocode {

/// How a call that was tried, perhaps more than once, came to its end.
enum class CallEnd {
  kNone,         ///< not a call
  kPermanent,    ///< the answer says that trying again cannot help
  kExhausted,    ///< every attempt failed
  kDeadline,     ///< the deadline came, or the next attempt could not have finished before it
  kCancelled,    ///< the caller's stop token
  kBreakerOpen,  ///< not tried: the host has been failing
};
std::string_view to_string(CallEnd end);

/// One defect of an input: where (an RFC 6901 JSON pointer, or a flag or key name) and what.
struct FieldError {
  std::string pointer;
  std::string message;
};

/// The readable fields of an error. Empty or zero where they do not apply.
struct ErrorInfo {
  std::string service;    ///< "task-registry", "repo-pool", "artifact-store", "llm", "git" …
  std::string operation;  ///< "update_task_status", "push" …
  std::string target;     ///< what it was done to: a task id, a URL without credentials
  int status = 0;         ///< HTTP status, or a child's exit code
  int attempts = 0;
  std::string detail;      ///< the other side's own words, bounded and masked
  std::string request_id;  ///< the other side's X-Request-Id
  /// What had come of an answer that broke off or cannot be used: its beginning, masked.
  std::string partial;
  CallEnd end = CallEnd::kNone;
  /// The last attempt reached the other side, its answer did not come back.
  bool maybe_accepted = false;
  std::optional<std::chrono::system_clock::time_point> retry_at;  ///< when trying again may help
  std::vector<FieldError> fields;                                 ///< defects of the input
  std::exception_ptr cause;
};

/// what() is one line: the summary, then the fields that are set.
class RunnerError : public std::runtime_error {
 public:
  explicit RunnerError(const std::string& summary, ErrorInfo info = {});
  const ErrorInfo& info() const noexcept { return info_; }
  const std::string& summary() const noexcept { return summary_; }

 private:
  std::string summary_;
  ErrorInfo info_;
};

/// The task, or another input, is wrong; info().fields names every defect at once.
class TaskContextValidationError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// Clone, fetch, branch, commit or slot: the work tree could not be made ready, or not committed.
class WorkspacePreparationError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// The model's answer cannot be used or applied.
class ImplementationError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// The tests could not be run, or did not pass.
class TestExecutionError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// The remote did not take the branch, or could not be reached; info().detail is git's own words.
class PushError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// An artifact was not stored, or not as it was sent.
class ArtifactUploadError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// A deadline passed, or the caller cancelled (info().end says which).
class TimeoutError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// Refused for safety: a path out of the workspace, a secret in the wrong place …
class SecurityError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// A limit was reached: memory, processes, output, disk or a size of limits.hpp.
class ResourceLimitError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// Somebody else holds or has changed what was asked for: a lock, a folder, a branch, a key.
class ResourceConflictError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// A playbook is wrong, not there, or asks for what there is not. (A step that fails is a failed
/// test.)
class PlaybookExecutionError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// A file, database or system call of our own failed.
class StorageError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// Configuration, environment or flags are wrong; info().fields names every defect at once.
class ConfigError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};

/// A service answered with an error, or could not be asked.
class ServiceError : public RunnerError {
 public:
  using RunnerError::RunnerError;
};
/// 404: the service does not know the thing, or the route.
class NotFound : public ServiceError {
 public:
  using ServiceError::ServiceError;
};
/// 409 or 412: an illegal transition, a lost lease or a lost update. Read anew before trying again.
class Conflict : public ServiceError {
 public:
  using ServiceError::ServiceError;
};
/// No connection, no answer, or 5xx, after the retries.
class Unavailable : public ServiceError {
 public:
  using ServiceError::ServiceError;
};
/// 429, or a quota that is used up; info().retry_at when the service said so.
class RateLimited : public ServiceError {
 public:
  using ServiceError::ServiceError;
};
/// 401 or 403.
class Unauthorized : public ServiceError {
 public:
  using ServiceError::ServiceError;
};
/// The answer is not what the protocol says.
class InvalidResponse : public ServiceError {
 public:
  using ServiceError::ServiceError;
};

/// A StorageError with errno's text: "cannot open PATH: No such file or directory". Its cause is
/// the std::system_error with the number.
[[noreturn]] void throw_errno(std::string_view what, std::string_view path = {});
/// True when the error's cause is a std::system_error that says the disk or the quota is used up.
bool is_disk_full(const StorageError& error);

}  // namespace necrocode
