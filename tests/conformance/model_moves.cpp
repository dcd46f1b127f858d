// How tasks change their state, and what that means for others.
#include <algorithm>

#include "conformance/model_changes.hpp"
#include "necrocode/base/limits.hpp"

namespace necrocode::registry {
namespace {
using namespace std::chrono_literals;

bool ended_badly(TaskState state) {
  return state == TaskState::kFailed || state == TaskState::kCancelled;
}
}  // namespace

void ModelChanges::changed(ModelTask& task) {
  ++task.version;
  task.updated_at = now_;
}

void ModelChanges::enter(ModelTask& task, TaskState state) {
  task.state = state;
  task.wait_ends.reset();
  if (state == TaskState::kReady && task.not_before && *task.not_before > now_) {
    task.wait_ends = clock_.steady_now() + (*task.not_before - now_);
  }
  if (state == TaskState::kDone) task.failure = Json();
}

void ModelChanges::move(ModelTask& task, TaskState to, const std::string& type, const Json& data) {
  enter(task, to);
  changed(task);
  record(task, type, data);
  if (is_final(to)) tell_children(task);
}

void ModelChanges::end_run(ModelTask& task, const End& end) {
  record(task, end.event_type, end.data);
  const std::string token = task.token;
  for (ModelAttempt& attempt : task.attempts) {
    if (attempt.epoch != task.epoch) continue;
    attempt.record.ended_at = now_;
    attempt.record.outcome = to_string(end.state);
    attempt.record.failure = end.failure;
    if (!end.counts) attempt.record.attempt = 0;
  }
  task.token.clear();
  task.lease = {};
  task.runner_id.clear();
  task.cancel_requested = false;
  if (!end.counts) --task.attempt;
  // Dependencies may have been added while it ran.
  const bool blocked = end.state == TaskState::kReady && task.open_edges() > 0;
  task.not_before = end.not_before;
  enter(task, blocked ? TaskState::kBlocked : end.state);
  changed(task);
  answer_probe(token, end);
  if (is_final(task.state)) {
    tell_children(task);
  } else {
    cancel_if_doomed(task);
  }
}

void ModelChanges::answer_probe(const std::string& token, const End& end) {
  for (auto& [name, provider] : state_.providers) {
    if (token.empty() || provider.probe_token != token) continue;
    provider.probe_token.clear();
    provider.parked.probe.clear();
    if (end.probe == "quota") {
      // A time that has passed says nothing.
      const SystemTime until = std::max(end.retry_at.value_or(now_), now_);
      const std::string again = name;
      park(again, until > now_ ? until : now_ + 60s, end.failure["reason"].string_or(""));
    } else if (!end.probe.empty() && end.probe != "infrastructure") {
      const std::string gone = name;
      state_.providers.erase(gone);
    }
    return;
  }
}

bool ModelChanges::is_met(const ModelTask& child, const ModelEdge& edge) const {
  const ModelTask& parent = state_.tasks.at(edge.parent);
  if (edge.policy == DependencyPolicy::kRun && ended_badly(parent.state)) return true;
  if (parent.state != TaskState::kDone) return false;
  const bool merged = state_.tasksets.at(child.spec).limits.unblock_on == UnblockOn::kMerged;
  return !merged || parent.metadata["merged"] == Json(true);
}

void ModelChanges::tell_children(const ModelTask& parent) {
  const Json after = Json::object({{"after", parent.id}});
  std::vector<const ModelTask*> cancelled;
  for (auto& [seq, child] : state_.tasks) {
    if (child.version == 0) continue;  // being submitted, and not settled yet
    const auto edge =
        std::find_if(child.edges.begin(), child.edges.end(),
                     [&](const ModelEdge& candidate) { return candidate.parent == parent.seq; });
    if (edge == child.edges.end() || edge->met) continue;
    const bool waits = child.state == TaskState::kBlocked || child.state == TaskState::kReady;
    edge->met = is_met(child, *edge);
    if (edge->met && child.state == TaskState::kBlocked && child.open_edges() == 0) {
      move(child, TaskState::kReady, "TaskReady", after);
    } else if (waits && edge->policy == DependencyPolicy::kCancel && ended_badly(parent.state)) {
      enter(child, TaskState::kCancelled);
      changed(child);
      record(child, "TaskCancelled", after);
      cancelled.push_back(&child);
    }
  }
  // Only then those further down, so that a child of both hears of the nearer one.
  for (const ModelTask* child : cancelled) tell_children(*child);
}

bool ModelChanges::cancel_if_doomed(ModelTask& child) {
  const bool doomed = doom(child);
  if (doomed) tell_children(child);
  return doomed;
}

bool ModelChanges::doom(ModelTask& child) {
  if (child.state != TaskState::kBlocked && child.state != TaskState::kReady) return false;
  std::vector<ModelEdge> edges = child.edges;
  std::sort(edges.begin(), edges.end(),
            [](const ModelEdge& a, const ModelEdge& b) { return a.parent < b.parent; });
  for (const ModelEdge& edge : edges) {
    const ModelTask& parent = state_.tasks.at(edge.parent);
    if (edge.met || edge.policy != DependencyPolicy::kCancel || !ended_badly(parent.state))
      continue;
    enter(child, TaskState::kCancelled);
    changed(child);
    record(child, "TaskCancelled", Json::object({{"after", parent.id}}));
    return true;
  }
  return false;
}

}  // namespace necrocode::registry
