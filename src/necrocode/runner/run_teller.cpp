#include "necrocode/runner/run_teller.hpp"

#include <chrono>

#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::runner {
namespace {

double seconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

Json RunEvent::to_json(SystemTime now) const {
  Json json = Json::object(
      {{"type", type}, {"schema", 1}, {"time", to_rfc3339(now)}, {"task_id", task_id}});
  for (const auto& [name, value] : data.members()) json.set(name, value);
  return json;
}

void RunTeller::emit(const std::string& type, Json data) {
  const std::lock_guard lock(mutex_);
  if (!observer_ || observer_failed_) return;
  try {
    observer_({type, task_id_, std::move(data)});
  } catch (const std::exception& error) {
    observer_failed_ = true;
    log::error("the run's events can no longer be shown", {{"error", error.what()}});
  }
}

void RunTeller::warn(const std::string& message) {
  const std::string masked = masker_.mask(message);
  log_.line("warning: " + masked);
  emit("warning", Json::object({{"message", masked}}));
}

void RunTeller::model_call(int attempts, const llm::Usage& run_usage,
                           std::initializer_list<JsonMember> more) {
  retries("model_call", attempts - 1);
  Json data = Json::object(more);
  data.set("attempts", attempts).set("run_usage", run_usage.to_json());
  emit("model_call", std::move(data));
}

void RunTeller::retries(std::string_view operation, int count) {
  if (count <= 0) return;
  emit("retry", Json::object({{"operation", operation}, {"count", count}}));
}

void RunTeller::command(const TestCommandResult& command) {
  emit("command", Json::object({{"step", command.step},
                                {"command", command.command},
                                {"attempt", command.attempt},
                                {"passed", command.passed()},
                                {"verdict", command.verdict()},
                                {"exit_code", command.result.exit_code},
                                {"duration_seconds", seconds(command.result.duration)}}));
}

void RunTeller::tests(const TestReport& report) {
  for (const std::string& warning : report.warnings) {
    emit("warning", Json::object({{"message", warning}}));
  }
  emit("test", Json::object({{"passed", report.passed()},
                             {"commands", report.commands.size()},
                             {"duration_seconds", seconds(report.duration())}}));
}

}  // namespace necrocode::runner
