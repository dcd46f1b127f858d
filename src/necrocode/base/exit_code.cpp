#include "necrocode/base/exit_code.hpp"

#include "necrocode/base/errors.hpp"

namespace necrocode {
namespace {

ExitCode model_exit_code(const ServiceError& error) {
  if (dynamic_cast<const Unauthorized*>(&error)) return ExitCode::kModelRefused;
  // A web page, {"error"} or no choices with status 200: an answer, but not one to use.
  if (dynamic_cast<const InvalidResponse*>(&error)) return ExitCode::kModelUnusable;
  const bool for_good = error.info().end == CallEnd::kPermanent;
  if (error.info().status == 402) return ExitCode::kModelRefused;
  // A quota or a spend cap that is used up, with whatever status it came: no retry helps.
  if (dynamic_cast<const RateLimited*>(&error)) {
    return for_good ? ExitCode::kModelRefused : ExitCode::kModelUnavailable;
  }
  if (dynamic_cast<const Unavailable*>(&error)) return ExitCode::kModelUnavailable;
  // The request itself was refused: another one may be answered, this one never.
  return for_good ? ExitCode::kModelUnusable : ExitCode::kModelUnavailable;
}

}  // namespace

ExitCode exit_code_for(const std::exception& error) {
  const auto is = [&error]<class Type>(const Type*) {
    return dynamic_cast<const Type*>(&error) != nullptr;
  };
  if (is(static_cast<TaskContextValidationError*>(nullptr)) ||
      is(static_cast<ConfigError*>(nullptr)) || is(static_cast<PlaybookExecutionError*>(nullptr))) {
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
