#include "necrocode/base/exit_code.hpp"

#include "necrocode/base/errors.hpp"

namespace necrocode {
namespace {

ExitCode model_exit_code(const ServiceError& error) {
  if (dynamic_cast<const Unauthorized*>(&error)) return ExitCode::kModelRefused;
  // A web page, {"error"} or no choices with status 200: an answer, but not one to use.
  if (dynamic_cast<const InvalidResponse*>(&error)) return ExitCode::kModelUnusable;
  // A quota or a spend cap that is used up, with whatever status it came: no retry helps.
  const bool limited = dynamic_cast<const RateLimited*>(&error) != nullptr;
  if (limited && error.info().end == CallEnd::kPermanent) return ExitCode::kModelRefused;
  const int status = error.info().status;
  if (status == 400 || status == 404 || status == 413 || status == 422)
    return ExitCode::kModelUnusable;
  return ExitCode::kModelUnavailable;
}

}  // namespace

ExitCode exit_code_for(const std::exception& error) {
  const auto is = [&error]<class Type>(const Type*) {
    return dynamic_cast<const Type*>(&error) != nullptr;
  };
  if (is(static_cast<TaskContextValidationError*>(nullptr)) ||
      is(static_cast<ConfigError*>(nullptr))) {
    return ExitCode::kUsage;
  }
  if (is(static_cast<SecurityError*>(nullptr))) return ExitCode::kSecurity;
  if (is(static_cast<ImplementationError*>(nullptr))) return ExitCode::kModelUnusable;
  if (is(static_cast<WorkspacePreparationError*>(nullptr)) ||
      is(static_cast<PushError*>(nullptr))) {
    return ExitCode::kGit;
  }
  if (is(static_cast<TestExecutionError*>(nullptr))) return ExitCode::kTestsFailed;
  if (is(static_cast<ResourceConflictError*>(nullptr))) return ExitCode::kServiceUnavailable;
  if (is(static_cast<ResourceLimitError*>(nullptr))) return ExitCode::kResourceLimit;
  if (const auto* service = dynamic_cast<const ServiceError*>(&error)) {
    return service->info().service == "llm" ? model_exit_code(*service)
                                            : ExitCode::kServiceUnavailable;
  }
  if (const auto* timeout = dynamic_cast<const TimeoutError*>(&error)) {
    if (timeout->info().end == CallEnd::kCancelled) return ExitCode::kCancelled;
    if (timeout->info().service == "llm") return ExitCode::kModelUnavailable;
    return timeout->info().service.empty() ? ExitCode::kTaskTimeout : ExitCode::kServiceUnavailable;
  }
  return ExitCode::kInternal;
}

}  // namespace necrocode
