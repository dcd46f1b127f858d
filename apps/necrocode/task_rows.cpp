#include "task_rows.hpp"

#include <cstdio>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "terminal.hpp"

namespace necrocode::app {

std::string reason_of(const registry::Task& task) {
  using registry::TaskState;
  if (task.state == TaskState::kDone) return {};
  std::string reason;
  if (task.state == TaskState::kBlocked) reason = presentable(task.blocked_reason);
  if (task.not_before) reason = "not before " + to_rfc3339(*task.not_before);
  if (task.cancel_requested) reason = "cancel requested";
  const std::string failure = failure_text(task.failure);
  if (failure.empty() || task.state == TaskState::kRunning) return reason;
  return reason.empty() ? failure : reason + "; last attempt: " + failure;
}

std::string failure_text(const Json& failure) {
  if (failure.is_null()) return {};
  return presentable(failure["class"].string_or("") + ": " + failure["reason"].string_or(""));
}

std::string counts_text(const Json& counts) {
  std::vector<std::string> parts;
  for (const registry::TaskState state : registry::kTaskStates) {
    const std::int64_t count = counts[to_string(state)].as_int().value_or(0);
    if (count > 0) parts.push_back(std::to_string(count) + " " + std::string(to_string(state)));
  }
  return join(parts, ", ");
}

std::string cost_text(double usd) {
  if (usd <= 0) return {};
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, usd < 1 ? "%.4f USD" : "%.2f USD", usd);
  return buffer;
}

}  // namespace necrocode::app
