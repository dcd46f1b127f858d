#include "necrocode/runner/run_result.hpp"

#include <array>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::runner {
namespace {

std::string failure_class_of(const std::exception& error) {
  switch (exit_code_for(error)) {
    case ExitCode::kTestsFailed:
    case ExitCode::kResourceLimit:  // mostly of a test: no better on another machine
      return "tests";
    case ExitCode::kUsage:  // a task that no other attempt makes right
    case ExitCode::kSecurity:
    case ExitCode::kModelUnusable:
      return "agent";
    case ExitCode::kModelRefused:
      return "quota";
    case ExitCode::kCancelled:
      return "cancelled";
    default:
      break;
  }
  return dynamic_cast<const DependencyConflict*>(&error) ? "conflict" : "infrastructure";
}

}  // namespace

std::string_view to_string(Phase phase) {
  constexpr std::array<std::string_view, 12> kNames = {
      "validate", "allocate", "prepare", "baseline", "implement", "test",
      "repair",   "commit",   "push",    "upload",   "report",    "release"};
  return kNames[static_cast<std::size_t>(phase)];
}

std::string_view outcome_of(ExitCode exit_code) {
  switch (exit_code) {
    case ExitCode::kDone:
      return "done";
    case ExitCode::kUnverified:
      return "unverified";
    case ExitCode::kCancelled:
      return "cancelled";
    default:
      return "failed";
  }
}

Json files_json(const std::vector<git::FileChange>& files) {
  Json list = Json::array();
  for (const git::FileChange& file : files) {
    list.push_back(Json::object({{"path", file.path},
                                 {"status", file.status},
                                 {"added", file.added},
                                 {"removed", file.removed}}));
  }
  return list;
}

Json artifacts_json(const std::vector<UploadedArtifact>& artifacts) {
  Json list = Json::array();
  for (const UploadedArtifact& artifact : artifacts) {
    list.push_back(Json::object({{"type", artifact.type},
                                 {"name", artifact.name},
                                 {"uri", artifact.uri},
                                 {"size_bytes", artifact.size_bytes},
                                 {"sha256", artifact.sha256},
                                 {"stored", artifact.stored}}));
  }
  return list;
}

Json to_json(const PushResult& push) {
  return Json::object(
      {{"branch", push.branch}, {"commit", push.commit}, {"retries", push.retries}});
}

Json to_json(const RunFailure& failure) {
  return Json::object(
      {{"phase", to_string(failure.phase)},
       {"reason", failure.reason},
       {"class", failure.failure_class},
       {"retry_at", failure.retry_at ? Json(to_rfc3339(*failure.retry_at)) : Json()}});
}

std::string_view RunResult::outcome() const {
  if (exit_code == ExitCode::kDone && extent == RunExtent::kPlan) return "planned";
  if (exit_code == ExitCode::kDone && extent == RunExtent::kWithoutPush) return "done, not pushed";
  return outcome_of(exit_code);
}

Json RunResult::to_json() const {
  std::int64_t added = 0;
  std::int64_t removed = 0;
  for (const git::FileChange& file : files) {
    added += file.added.value_or(0);
    removed += file.removed.value_or(0);
  }
  Json json = Json::object({{"type", "result"},
                            {"schema", 1},
                            {"success", success()},
                            {"outcome", outcome()},
                            {"exit_code", static_cast<int>(exit_code)},
                            {"runner_id", runner_id},
                            {"task_id", task_id},
                            {"sandbox", sandbox},
                            {"sandbox_missing", sandbox_missing},
                            {"phase", to_string(phase)},
                            {"duration_seconds", std::chrono::duration<double>(duration).count()},
                            {"artifacts", artifacts_json(artifacts)}});
  json.set("implementation", Json::object({{"files", files_json(files)},
                                           {"lines_added", added},
                                           {"lines_removed", removed},
                                           {"executor", executor},
                                           {"model", model},
                                           {"model_calls", model_calls},
                                           {"usage", usage.to_json()},
                                           {"repairs", repairs},
                                           {"reasks", reasks},
                                           {"adopted", adopted}}));
  json.set("tests", tests ? tests->to_json(2 * limits::kKiB) : Json());
  json.set("red_at_base", red_at_base);
  json.set("push", push ? runner::to_json(*push) : Json());
  json.set("error", failure ? runner::to_json(*failure) : Json());
  if (extent == RunExtent::kWithoutPush) json.set("dry_run", true);
  if (extent == RunExtent::kPlan) json.set("plan", true);
  return json;
}

RunFailure describe_failure(Phase phase, const std::exception& error) {
  RunFailure failure;
  failure.phase = phase;
  failure.reason = shorten(error.what(), 2000);
  failure.failure_class = failure_class_of(error);
  if (const auto* known = dynamic_cast<const RunnerError*>(&error))
    failure.retry_at = known->info().retry_at;
  return failure;
}

RunResult failed_before_start(const std::string& runner_id, const std::string& task_id,
                              const std::exception& error) {
  RunResult result;
  result.runner_id = runner_id;
  result.task_id = task_id;
  result.exit_code = exit_code_for(error);
  result.failure = describe_failure(Phase::kValidate, error);
  return result;
}

}  // namespace necrocode::runner
