// The end of a run, whatever went before: no step of it may keep the next from happening.
#include <algorithm>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/runner/run.hpp"
#include "necrocode/runner/test_report.hpp"

namespace necrocode::runner {
namespace {

using namespace std::chrono_literals;

constexpr auto kUploadTime = 15s;
constexpr auto kHurriedUploadTime = 5s;  // after a signal
constexpr auto kParkTime = 3s;
constexpr auto kReleaseTime = 5s;

// An answer that there was, and that no time would have made another.
bool is_the_models_for_good(const std::exception& error) {
  const auto* known = dynamic_cast<const ServiceError*>(&error);
  return known && known->info().service == "llm" &&
         (known->info().end == CallEnd::kPermanent || known->info().end == CallEnd::kExhausted);
}

}  // namespace

void Run::fail(const std::exception& error) {
  result_.failure = describe_failure(result_.phase, error);
  result_.failure->reason = services_.masker.mask(result_.failure->reason);
  switch (stopped_.load()) {
    case Stopped::kNo:
      result_.exit_code = exit_code_for(error);
      if (!work_.expired() || is_the_models_for_good(error)) break;
      result_.exit_code = ExitCode::kTaskTimeout;
      result_.failure->reason = "the task's time (" + human_duration(task_.timeout) +
                                ") ran out: " + result_.failure->reason;
      break;
    case Stopped::kByCaller:
      stopped_as("stopped by a signal or its caller");
      break;
    case Stopped::kLeaseLost:
      stopped_as("the task's lease was lost");
      break;
    case Stopped::kSlotLost:
      result_.exit_code = ExitCode::kServiceUnavailable;
      result_.failure->reason = "the slot's lease was lost";
      result_.failure->failure_class = "infrastructure";
      break;
    case Stopped::kCancelRequested:
      stopped_as("cancelled through the registry");
      break;
  }
  log_.line("failed in " + std::string(to_string(result_.phase)) + ": " + result_.failure->reason);
}

void Run::stopped_as(const std::string& reason) {
  result_.exit_code = ExitCode::kCancelled;
  result_.failure->reason = reason;
  result_.failure->failure_class = "cancelled";
}

// No step here may keep the next from happening, by failing or by taking its time.
void Run::finish() {
  const Phase reached = result_.phase;
  attempt("collect the diff", kCollectTime,
          [&](const CallContext& context) { collect_diff(context); });
  attempt("see what was pushed", kCollectTime,
          [&](const CallContext& context) { look_at_remote(context); });
  attempt("hand the workspace back", kHandBackTime, [&](const CallContext& context) {
    if (workspace_) {
      workspaces_.hand_back(*workspace_, result_.success(), context);
    }
  });
  scratch_.reset();  // on a full disk, room for what follows
  enter(Phase::kUpload);
  const bool hurry = stopped_.load() == Stopped::kByCaller;
  attempt("upload", hurry ? kHurriedUploadTime : kUploadTime,
          [&](const CallContext& context) { upload(context); });
  enter(Phase::kReport);
  result_.duration = real_clock().steady_now() - started_;
  attempt("report", kReportTime, [&](const CallContext& context) { report(context); });
  enter(Phase::kRelease);
  attempt("release the slot", kReleaseTime, [&](const CallContext& context) { release(context); });
  result_.phase = result_.success() ? Phase::kRelease : reached;
  result_.duration = real_clock().steady_now() - started_;
  attempt("write result.json", kCollectTime, [&](const CallContext&) {
    // A log that stays here has grown since.
    for (UploadedArtifact& artifact : result_.artifacts) {
      if (artifact.type == "log" && !artifact.stored) artifact = uploader_.describe("run.log");
    }
    write_file_durable(options_.run_dir / "result.json",
                       services_.masker.mask(result_.to_json().pretty()) + "\n", 0600);
  });
}

// Work that the registry does not know of is not done: it will be given out again.
void Run::report(const CallContext& context) {
  // An agent program's provider is another matter.
  if (result_.executor.empty() || result_.executor == "llm") {
    attempt("park the provider", kParkTime, [&](const CallContext& parking) {
      reporter_.park(options_.provider, result_.failure, parking);
    });
  }
  if (reporter_.finish(result_, registry_state(), context) || !result_.success()) return;
  result_.exit_code = ExitCode::kServiceUnavailable;
  result_.failure = RunFailure{
      Phase::kReport, "the registry has not taken the end of the task", "infrastructure", {}};
}

// A run that was stopped between its push and the remote's word for it.
void Run::look_at_remote(const CallContext& context) {
  if (!result_.failure || result_.failure->phase != Phase::kPush || result_.push) return;
  result_.push = workspaces_.pushed(*workspace_, task_, commit_, context);
}

// A run that failed half-way still leaves what it changed.
void Run::collect_diff(const CallContext& context) {
  if (!workspace_ || is_plan() || !diff_.empty()) return;
  const bool changed = !efforts_.empty() && !effort().changed.empty();
  if (!changed && !result_.adopted) return;
  take_staged(workspaces_.staged(*workspace_, context));
}

void Run::upload(const CallContext& context) {
  if (is_plan()) return;
  if (!diff_.empty()) {
    uploader_.write("diff.patch", diff_);
    keep("diff.patch", context);
  }
  if (result_.tests) {
    uploader_.write("tests.json", result_.tests->to_json(limits::kOutputHeadBytes).pretty());
    keep("tests.json", context);
    uploader_.write("junit.xml", to_junit_xml(*result_.tests));
    keep("junit.xml", context);
  }
  if (!transcript_.empty()) keep("transcript.jsonl", context);
  log_.line("ended: " + std::string(result_.outcome()));
  keep("run.log", context);
  uploader_.all_kept();
}

void Run::keep(const std::string& name, const CallContext& context) {
  UploadedArtifact artifact = uploader_.keep(name, context);
  teller_.emit("artifact", Json::object({{"artifact_type", artifact.type},
                                         {"uri", artifact.uri},
                                         {"size_bytes", artifact.size_bytes}}));
  result_.artifacts.push_back(std::move(artifact));
}

registry::TaskState Run::registry_state() const {
  if (result_.success()) return registry::TaskState::kDone;
  switch (stopped_.load()) {
    case Stopped::kByCaller:
    case Stopped::kSlotLost:
      return registry::TaskState::kReady;  // handed back for another runner
    case Stopped::kCancelRequested:
      return registry::TaskState::kCancelled;
    default:
      return registry::TaskState::kFailed;
  }
}

void Run::release(const CallContext& context) {
  if (!slot_) return;
  slot_lease_.reset();
  services_.pool->release_slot(slot_->slot_id, slot_->lease_token, context);
  const Json data =
      Json::object({{"slot_id", slot_->slot_id.value}, {"runner_id", options_.runner_id}});
  reporter_.late_event("SlotReleased", data, context);
}

}  // namespace necrocode::runner
