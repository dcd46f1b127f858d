#include "necrocode/runner/task_reporter.hpp"

#include <algorithm>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::runner {
namespace {

// Of the time that the orchestrator gives for the report.
constexpr auto kSettleTime = std::chrono::seconds(2);
constexpr auto kCompleteTime = std::chrono::seconds(5);

constexpr std::size_t kDependenciesAsked = 16;
constexpr auto kAskTime = std::chrono::seconds(5);
constexpr std::size_t kTitleBytes = 200;
constexpr std::size_t kReasonBytes = 2 * limits::kKiB;

Json summary(const RunResult& result) {
  Json metadata =
      Json::object({{"runner_id", result.runner_id},
                    {"outcome", result.outcome()},
                    {"exit_code", static_cast<int>(result.exit_code)},
                    {"repairs", result.repairs},
                    {"model", result.model},
                    {"usage", result.usage.to_json()},
                    {"duration_seconds", std::chrono::duration<double>(result.duration).count()}});
  if (result.push) metadata.set("branch", result.push->branch).set("commit", result.push->commit);
  if (result.tests) metadata.set("tests_passed", result.tests->passed());
  return metadata;
}

}  // namespace

void TaskReporter::send(const std::string& event_type, const Json& data, const LeaseToken& lease,
                        const CallContext& context) {
  try {
    registry_->add_event(claim_->task.id, event_type, data, lease, context);
  } catch (const std::exception& error) {
    log::warn("event not recorded", {{"event_type", event_type}, {"error", error.what()}});
  }
}

void TaskReporter::event(const std::string& event_type, const Json& data,
                         const CallContext& context) {
  if (registry_) send(event_type, data, claim_->lease_token, context);
}

void TaskReporter::late_event(const std::string& event_type, const Json& data,
                              const CallContext& context) {
  if (registry_) send(event_type, data, {}, context);
}

void TaskReporter::require_lease(const CallContext& context) {
  if (!registry_) return;
  try {
    registry_->heartbeat(claim_->task.id, claim_->lease_token, context);
  } catch (const Conflict& error) {
    ErrorInfo info = error.info();
    info.end = CallEnd::kCancelled;
    throw TimeoutError("the task's lease was lost", std::move(info));
  }
}

void TaskReporter::park(const std::string& provider, const std::optional<RunFailure>& failure,
                        const CallContext& context) {
  if (!registry_ || provider.empty() || !failure || !failure->retry_at) return;
  if (failure->failure_class != "quota") return;
  registry_->park(provider, *failure->retry_at, failure->reason, context);
  log::info("a provider is parked",
            {{"provider", provider}, {"until", to_rfc3339(*failure->retry_at)}});
}

bool TaskReporter::finish(const RunResult& result, registry::TaskState state,
                          const CallContext& context) {
  if (!registry_) return true;
  registry::Completion completion;
  completion.lease_token = claim_->lease_token;
  completion.status = state;
  completion.metadata = summary(result);
  for (const UploadedArtifact& artifact : result.artifacts) {
    registry::ArtifactRef ref;
    ref.type = artifact.type;
    ref.uri = artifact.uri;
    ref.size_bytes = static_cast<std::int64_t>(artifact.size_bytes);
    ref.metadata = Json::object({{"name", artifact.name}, {"sha256", artifact.sha256}});
    ref.created_at = real_clock().system_now();
    completion.artifacts.push_back(std::move(ref));
  }
  if (result.failure) {
    completion.failure = registry::Failure{result.failure->failure_class, result.failure->reason,
                                           result.failure->retry_at};
  }
  try {
    // After what was told before, if that can still go out.
    registry_->settle(claim_->task.id, context.within(kSettleTime));
    if (registry_->complete_or_keep(claim_->task.id, completion, context.within(kCompleteTime)))
      return true;
    log::error("the registry is out of reach; the end of the task is kept and told later",
               {{"task", claim_->task.id}, {"outcome", result.outcome()}});
    return false;
  } catch (const std::exception& error) {
    log::error("the registry did not take the end of the task",
               {{"task", claim_->task.id}, {"outcome", result.outcome()}, {"error", error.what()}});
    return false;
  }
}

std::vector<std::string> TaskReporter::describe_dependencies(const TaskContext& task,
                                                             const CallContext& context) const {
  std::vector<std::string> lines = task.dependencies;
  if (!registry_) return lines;
  for (std::size_t i = 0; i < std::min(lines.size(), kDependenciesAsked); ++i) {
    const std::string& id = lines[i];
    const bool full = id.find(':') != std::string::npos;
    try {
      const registry::Task known = registry_->get_task(
          full ? id : std::string(task.task_id.spec()) + ":" + id, context.within(kAskTime));
      lines[i] += ": " + printable(shorten(known.fields["title"].string_or(""), kTitleBytes));
      const std::string branch = known.metadata["branch"].string_or("");
      if (!branch.empty()) lines[i] += " (branch " + printable(branch) + ")";
    } catch (const RunnerError& error) {
      log::warn("a dependency cannot be described", {{"task", id}, {"error", error.what()}});
    }
  }
  return lines;
}

std::vector<std::string> TaskReporter::describe_attempts() const {
  std::vector<std::string> lines;
  if (!claim_) return lines;
  for (const registry::AttemptRecord& attempt : claim_->previous_attempts) {
    const std::string reason = attempt.failure["reason"].string_or("");
    if (attempt.attempt == 0 || reason.empty()) continue;
    lines.push_back("attempt " + std::to_string(attempt.attempt) + ", " +
                    attempt.failure["class"].string_or("failed") + ": " +
                    printable(head_and_tail(reason, kReasonBytes)));
  }
  return lines;
}

std::optional<LeaseKeeper::Held> TaskReporter::keep_lease(LeaseKeeper* keeper,
                                                          LeaseKeeper::Tell tell) {
  if (!registry_) return std::nullopt;
  return keeper->hold(claim_->lease, {claim_->task.id, claim_->lease_token}, std::move(tell));
}

}  // namespace necrocode::runner
