#include "conformance/model_state.hpp"

#include <algorithm>
#include <cmath>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/registry/touches.hpp"

namespace necrocode::registry {
namespace {

std::string blocked_reason(const ModelState& state, const ModelTask& task) {
  std::vector<const ModelTask*> open;
  for (const ModelEdge& edge : task.edges) {
    if (!edge.met) open.push_back(&state.tasks.at(edge.parent));
  }
  if (open.empty()) return "set to blocked by a client";
  const auto ended_badly = [](const ModelTask* parent) {
    return parent->state == TaskState::kFailed || parent->state == TaskState::kCancelled;
  };
  std::sort(open.begin(), open.end(), [&](const ModelTask* a, const ModelTask* b) {
    return std::pair(!ended_badly(a), a->seq) < std::pair(!ended_badly(b), b->seq);
  });
  std::vector<std::string> named;
  for (std::size_t i = 0; i < open.size() && i < 3; ++i) {
    const bool unmerged = open[i]->state == TaskState::kDone;
    named.push_back(open[i]->id + " (" +
                    (unmerged ? "not merged" : std::string(to_string(open[i]->state))) + ")");
  }
  std::string reason = "waits for " + join(named, ", ");
  if (open.size() > 3) reason += " and " + std::to_string(open.size() - 3) + " more";
  return reason;
}

ErrorInfo target(const std::string& id) {
  ErrorInfo info;
  info.target = id;
  return info;
}

}  // namespace

int ModelTask::open_edges() const {
  return static_cast<int>(
      std::count_if(edges.begin(), edges.end(), [](const ModelEdge& edge) { return !edge.met; }));
}

std::vector<std::string> ModelTask::texts(std::string_view field) const {
  std::vector<std::string> values;
  for (const Json& value : fields[field].items()) values.push_back(value.string_or(""));
  return values;
}

ModelTask* ModelState::find(const std::string& id) {
  for (auto& [seq, task] : tasks) {
    if (task.id == id) return &task;
  }
  return nullptr;
}

ModelTask& ModelState::get(const std::string& id) {
  if (TaskId::parse(id)) {
    if (ModelTask* task = find(id)) return *task;
    throw NotFound("there is no such task", target(id));
  }
  if (!is_plain_name(id)) throw TaskContextValidationError("not a task id", target(id));
  std::vector<ModelTask*> candidates;
  std::vector<std::string> names;
  for (auto& [seq, task] : tasks) {
    if (task.number != id) continue;
    candidates.push_back(&task);
    names.push_back(task.id);
  }
  if (candidates.empty()) throw NotFound("there is no such task", target(id));
  if (candidates.size() == 1) return *candidates.front();
  std::sort(names.begin(), names.end());
  throw Conflict("the task id is ambiguous, it may be " + join(names, ", "), target(id));
}

ModelTaskset& ModelState::taskset(const std::string& spec) {
  const auto found = tasksets.find(spec);
  if (found == tasksets.end()) throw NotFound("there is no such taskset", target(spec));
  return found->second;
}

std::int64_t ModelState::running(const std::string& spec) const {
  return std::count_if(tasks.begin(), tasks.end(), [&](const auto& entry) {
    return entry.second.spec == spec && entry.second.state == TaskState::kRunning;
  });
}

std::vector<WaitReason> ModelState::holders_of(const ModelTask& task) const {
  std::vector<WaitReason> holders;
  for (const auto& [seq, other] : tasks) {
    if (other.state != TaskState::kRunning || other.text("repo_url") != task.text("repo_url")) {
      continue;
    }
    TouchesBudget enough;
    if (touches_overlap(task.texts("touches"), other.texts("touches"), enough)) {
      holders.push_back({"touches", other.id + " runs and touches the same files", other.id});
    }
  }
  return holders;
}

std::vector<WaitReason> ModelState::reasons_against(const ModelTask& task,
                                                    const std::string& provider,
                                                    const StoreOptions& options) const {
  std::vector<WaitReason> reasons;
  if (task.wait_ends) reasons.push_back({"not_before", "it waits", "", task.not_before});
  const ModelTaskset& taskset = tasksets.at(task.spec);
  const TasksetLimits& limits = taskset.limits;
  if (limits.max_running > 0 && running(task.spec) >= limits.max_running) {
    reasons.push_back({"spec_limit", "the spec runs as many tasks as it may"});
  }
  const std::string skill = task.text("required_skill");
  const auto skill_limit = options.max_running_by_skill.find(skill);
  const auto running_with_skill = std::count_if(tasks.begin(), tasks.end(), [&](const auto& entry) {
    return entry.second.state == TaskState::kRunning &&
           entry.second.text("required_skill") == skill;
  });
  if (skill_limit != options.max_running_by_skill.end() &&
      running_with_skill >= skill_limit->second) {
    reasons.push_back({"skill_limit", "as many tasks run with this skill as may"});
  }
  const bool money_spent = limits.budget_usd > 0 && static_cast<double>(taskset.spent_micros) >=
                                                        std::round(limits.budget_usd * 1e6);
  const bool tokens_spent =
      limits.budget_tokens > 0 && taskset.spent_tokens >= limits.budget_tokens;
  if (money_spent || tokens_spent) reasons.push_back({"budget", "the budget is spent"});
  if (const auto found = providers.find(provider); found != providers.end()) {
    const ModelProvider& parked = found->second;
    if (!parked.due) {
      reasons.push_back({"provider", provider + " is parked", "", parked.parked.until});
    } else if (!parked.parked.probe.empty()) {
      reasons.push_back({"provider", provider + " is being probed", parked.parked.probe});
    }
  }
  for (WaitReason& holder : holders_of(task)) reasons.push_back(std::move(holder));
  return reasons;
}

Task ModelState::told(const ModelTask& task) const {
  Task told;
  told.id = task.id;
  told.spec_name = task.spec;
  told.number = task.number;
  told.state = task.state;
  told.fields = task.fields;
  told.metadata = task.metadata;
  told.failure = task.failure;
  for (const std::string& name : task.texts("dependencies")) {
    told.dependencies.push_back(name.find(':') == std::string::npos ? task.spec + ":" + name
                                                                    : name);
  }
  told.artifacts = task.artifacts;
  told.attempt = task.attempt;
  told.version = task.version;
  told.runner_id = task.runner_id;
  told.cancel_requested = task.cancel_requested;
  if (task.state == TaskState::kBlocked) told.blocked_reason = blocked_reason(*this, task);
  if (task.wait_ends) told.not_before = task.not_before;
  told.created_at = task.created_at;
  told.updated_at = task.updated_at;
  return told;
}

std::vector<AttemptRecord> ModelState::attempts(const ModelTask& task) const {
  std::vector<AttemptRecord> records;
  for (const ModelAttempt& attempt : task.attempts) {
    AttemptRecord& record = records.emplace_back(attempt.record);
    for (const ArtifactRef& artifact : task.artifacts) {
      if (record.attempt > 0 && artifact.attempt == record.attempt) {
        record.artifacts.push_back(artifact);
      }
    }
  }
  return records;
}

Explanation ModelState::explain(const ModelTask& task, const StoreOptions& options) const {
  Explanation explanation;
  explanation.task_id = task.id;
  explanation.state = task.state;
  if (task.state == TaskState::kReady) {
    explanation.reasons = reasons_against(task, task.text("provider"), options);
    explanation.claimable = explanation.reasons.empty();
  } else if (task.state == TaskState::kBlocked) {
    for (const ModelEdge& edge : task.edges) {
      if (edge.met) continue;
      const ModelTask& parent = tasks.at(edge.parent);
      explanation.reasons.push_back({"dependency", "it waits for " + parent.id, parent.id});
    }
    if (explanation.reasons.empty()) {
      explanation.reasons.push_back({"state", "set to blocked by a client"});
    }
  } else if (is_final(task.state)) {
    const std::string why = task.failure["reason"].string_or("");
    explanation.reasons.push_back({"state", std::string(to_string(task.state)) + " " + why});
  }
  return explanation;
}

bool ModelState::anything_claimable(const StoreOptions& options) const {
  return std::any_of(tasks.begin(), tasks.end(),
                     [&](const auto& entry) { return explain(entry.second, options).claimable; });
}

std::optional<SteadyTime> ModelState::next_due() const {
  std::vector<SteadyTime> times;
  for (const auto& [seq, task] : tasks) {
    if (!task.token.empty()) times.push_back(task.lease_ends);
    if (task.wait_ends) times.push_back(*task.wait_ends);
  }
  for (const auto& [name, provider] : providers) {
    if (!provider.due) times.push_back(provider.ends);
  }
  if (times.empty()) return std::nullopt;
  return *std::min_element(times.begin(), times.end());
}

std::vector<std::string> natural_order(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (end < text.size() && is_ascii_digit(text[end])) ++end;
    if (end == at) {
      parts.push_back(text.substr(at++, 1));
      continue;
    }
    while (at + 1 < end && text[at] == '0') ++at;
    // "0" first, so that digits stand among other characters as their own.
    const std::string digits = text.substr(at, end - at);
    parts.push_back("0" + std::string(limits::kNameBytes - digits.size(), '0') + digits);
    at = end;
  }
  return parts;
}

}  // namespace necrocode::registry
