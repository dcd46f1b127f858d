// Submissions to the model.
#include <algorithm>
#include <cmath>
#include <set>

#include "conformance/model_changes.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::registry {

struct ModelChanges::Submitting {
  struct Entry {
    std::int64_t seq = 0;
    bool created = false;
    bool edges_changed = false;
    int open_before = 0;
  };
  const Submission& submission;
  std::vector<Entry> entries{};
  std::set<std::int64_t> unnamed{};   ///< to be removed
  std::vector<std::int64_t> ended{};  ///< by this submission
  bool created = false;
  bool changed = false;
  bool unblock_on_changed = false;
  std::vector<FieldError> errors{};

  void refuse_errors() const {
    if (errors.empty()) return;
    ErrorInfo info;
    info.fields = errors;
    throw TaskContextValidationError("invalid taskset", std::move(info));
  }
};

bool ModelChanges::submit(const Submission& submission) {
  Submitting submitting{submission};
  const std::string& spec = submission.spec_name;
  put_taskset(submitting);
  for (std::size_t i = 0; i < submission.tasks.size(); ++i) put_task(submitting, i);
  if (submission.replace) {
    std::set<std::int64_t> named;
    for (const auto& entry : submitting.entries) named.insert(entry.seq);
    for (const auto& [seq, task] : state_.tasks) {
      const bool begun =
          task.epoch > 0 || (task.state != TaskState::kBlocked && task.state != TaskState::kReady);
      if (task.spec == spec && !begun && named.count(seq) == 0) submitting.unnamed.insert(seq);
    }
  }
  for (std::size_t i = 0; i < submission.tasks.size(); ++i) put_edges(submitting, i);
  submitting.refuse_errors();
  remove_unnamed(submitting);
  submitting.refuse_errors();
  refuse_cycles(submitting);
  // First what is done, so that the others find it so whatever the order they come in.
  for (std::size_t i = 0; i < submission.tasks.size(); ++i) settle_done(submitting, i);
  for (const auto& entry : submitting.entries) {
    if (!entry.created && !entry.edges_changed) continue;
    ModelTask& task = state_.tasks.at(entry.seq);
    for (ModelEdge& edge : task.edges) edge.met = is_met(task, edge);
  }
  // Then the states, and what they mean for others once all of them are known.
  for (std::size_t i = 0; i < submission.tasks.size(); ++i) settle(submitting, i);
  for (const std::int64_t seq : submitting.ended) tell_children(state_.tasks.at(seq));
  if (submitting.unblock_on_changed) {
    for (const auto& [seq, task] : state_.tasks) tell_if_merged(task);
  }
  ModelTaskset& taskset = state_.tasksets.at(spec);
  if (submitting.changed) {
    ++taskset.version;
    taskset.updated_at = now_;
  }
  return submitting.created;
}

void ModelChanges::put_taskset(Submitting& submitting) {
  const Submission& submission = submitting.submission;
  const auto [place, created] = state_.tasksets.try_emplace(submission.spec_name);
  ModelTaskset& taskset = place->second;
  if (created) {
    taskset.name = submission.spec_name;
    taskset.metadata = Json::object();
    taskset.created_at = now_;
  }
  submitting.created = created;
  const ModelTaskset before = taskset;
  if (submission.metadata) taskset.metadata = *submission.metadata;
  TasksetLimits& limits = taskset.limits;
  limits.max_running = submission.max_running.value_or(limits.max_running);
  if (submission.budget_usd) limits.budget_usd = std::ceil(*submission.budget_usd * 1e6) / 1e6;
  limits.budget_tokens = submission.budget_tokens.value_or(limits.budget_tokens);
  limits.unblock_on = submission.unblock_on.value_or(limits.unblock_on);
  submitting.changed =
      created || before.metadata != taskset.metadata || !(before.limits == taskset.limits);
  submitting.unblock_on_changed = before.limits.unblock_on != limits.unblock_on;
}

void ModelChanges::put_task(Submitting& submitting, std::size_t index) {
  const TaskSpec& given = submitting.submission.tasks[index];
  const std::string& spec = submitting.submission.spec_name;
  Submitting::Entry& entry = submitting.entries.emplace_back();
  const std::optional<SystemTime> not_before = given.not_before;
  if (ModelTask* task = state_.find(spec + ":" + given.number)) {
    entry.seq = task->seq;
    if (task->fields == given.fields) return;
    submitting.changed = true;
    const Json before = std::exchange(task->fields, given.fields);
    const bool merged = before["metadata"] != given.fields["metadata"] &&
                        merge_metadata(*task, given.fields["metadata"]);
    if (before["not_before"] != given.fields["not_before"]) {
      task->not_before = not_before;
      enter(*task, task->state);
    }
    changed(*task);
    record(*task, "TaskUpdated", Json::object({{"fields", true}}));
    if (merged && task->state == TaskState::kDone) submitting.ended.push_back(task->seq);
    return;
  }
  submitting.changed = true;
  entry.created = true;
  entry.seq = ++state_.last_seq;
  ModelTask& task = state_.tasks[entry.seq];
  task.seq = entry.seq;
  task.id = spec + ":" + given.number;
  task.spec = spec;
  task.number = given.number;
  task.fields = given.fields;
  task.metadata = given.fields["metadata"].is_object() ? given.fields["metadata"] : Json::object();
  task.created_at = task.updated_at = now_;
  task.not_before = not_before;
}

void ModelChanges::put_edges(Submitting& submitting, std::size_t index) {
  const TaskSpec& given = submitting.submission.tasks[index];
  Submitting::Entry& entry = submitting.entries[index];
  ModelTask& task = state_.tasks.at(entry.seq);
  std::vector<ModelEdge> edges;
  for (std::size_t i = 0; i < given.dependencies.size(); ++i) {
    const std::string& name = given.dependencies[i];
    const std::string id = name.find(':') == std::string::npos ? task.spec + ":" + name : name;
    const std::string at = "/tasks/" + std::to_string(index) + "/dependencies/" + std::to_string(i);
    const ModelTask* parent = state_.find(id);
    if (!parent || submitting.unnamed.count(parent->seq) > 0) {
      submitting.errors.push_back({at, "there is no task " + id});
      continue;
    }
    if (parent->seq == task.seq) {
      submitting.errors.push_back({at, "closes a cycle: " + id + " → " + id});
      continue;
    }
    const bool known = std::any_of(edges.begin(), edges.end(), [&](const ModelEdge& edge) {
      return edge.parent == parent->seq;
    });
    const auto own = given.dependency_policies.find(name);
    const DependencyPolicy policy =
        own == given.dependency_policies.end() ? given.dependency_policy : own->second;
    if (!known) edges.push_back({parent->seq, policy, false});
  }
  const auto as_set = [](const std::vector<ModelEdge>& list) {
    std::set<std::pair<std::int64_t, DependencyPolicy>> set;
    for (const ModelEdge& edge : list) set.insert({edge.parent, edge.policy});
    return set;
  };
  entry.open_before = task.open_edges();
  if (as_set(edges) == as_set(task.edges)) return;
  entry.edges_changed = true;
  task.edges = std::move(edges);
}

void ModelChanges::remove_unnamed(Submitting& submitting) {
  for (const std::int64_t seq : submitting.unnamed) {
    const ModelTask& task = state_.tasks.at(seq);
    for (const auto& [other_seq, other] : state_.tasks) {
      if (submitting.unnamed.count(other_seq) > 0) continue;
      for (const ModelEdge& edge : other.edges) {
        if (edge.parent != seq) continue;
        submitting.errors.push_back(
            {"/replace", "cannot remove " + task.id + ": " + other.id + " depends on it"});
      }
    }
  }
  if (!submitting.errors.empty()) return;
  for (const std::int64_t seq : submitting.unnamed) {
    record(state_.tasks.at(seq), "TaskUpdated", Json::object({{"removed", true}}));
    submitting.changed = true;
  }
  for (const std::int64_t seq : submitting.unnamed) state_.tasks.erase(seq);
}

void ModelChanges::refuse_cycles(const Submitting& submitting) const {
  // Tasks none of whose parents is left are taken away; what remains has a cycle.
  std::map<std::int64_t, std::set<std::int64_t>> parents;
  for (const auto& [seq, task] : state_.tasks) {
    for (const ModelEdge& edge : task.edges) parents[seq].insert(edge.parent);
  }
  for (bool removed = true; removed && !parents.empty();) {
    removed = false;
    for (auto task = parents.begin(); task != parents.end();) {
      const bool waits =
          std::any_of(task->second.begin(), task->second.end(),
                      [&](std::int64_t parent) { return parents.count(parent) > 0; });
      removed = removed || !waits;
      task = waits ? std::next(task) : parents.erase(task);
    }
  }
  if (parents.empty()) return;
  // Each of them has a parent among them, so walking up ends in the cycle.
  std::vector<std::int64_t> path{parents.begin()->first};
  while (std::count(path.begin(), path.end(), path.back()) == 1) {
    const std::set<std::int64_t>& next = parents.at(path.back());
    path.push_back(*std::find_if(next.begin(), next.end(),
                                 [&](std::int64_t parent) { return parents.count(parent) > 0; }));
  }
  path.erase(path.begin(), std::find(path.begin(), path.end(), path.back()));
  // Named from a task of this submission on.
  path.pop_back();
  const auto first = std::find_if(path.begin(), path.end(), [&](std::int64_t seq) {
    return std::any_of(submitting.entries.begin(), submitting.entries.end(),
                       [&](const auto& entry) { return entry.seq == seq; });
  });
  std::rotate(path.begin(), first, path.end());
  path.push_back(path.front());
  std::vector<std::string> names;
  for (const std::int64_t seq : path) names.push_back(state_.tasks.at(seq).id);
  ErrorInfo info;
  info.fields.push_back({"/tasks", "closes a cycle: " + join(names, " → ")});
  throw TaskContextValidationError("invalid taskset", std::move(info));
}

void ModelChanges::settle_done(Submitting& submitting, std::size_t index) {
  if (!submitting.submission.tasks[index].done) return;
  const Submitting::Entry& entry = submitting.entries[index];
  ModelTask& task = state_.tasks.at(entry.seq);
  if (task.state == TaskState::kRunning || task.state == TaskState::kDone) return;
  submitting.changed = true;
  submitting.ended.push_back(task.seq);
  enter(task, TaskState::kDone);
  changed(task);
  if (entry.created) {
    record(task, "TaskCreated", Json::object({{"state", "done"}}));
  } else {
    record(task, "TaskCompleted", Json::object({{"reason", "submitted as done"}}));
  }
}

void ModelChanges::settle(Submitting& submitting, std::size_t index) {
  const Submitting::Entry& entry = submitting.entries[index];
  if (!entry.created && !entry.edges_changed) return;
  ModelTask& task = state_.tasks.at(entry.seq);
  const int open = task.open_edges();
  if (!entry.created && doom(task)) {
    submitting.ended.push_back(task.seq);
    return;
  }
  if (entry.created && task.state != TaskState::kDone) {
    const TaskState state = open > 0 ? TaskState::kBlocked : TaskState::kReady;
    move(task, state, "TaskCreated", Json::object({{"state", to_string(state)}}));
  } else if (task.state == TaskState::kReady && open > 0) {
    move(task, TaskState::kBlocked, "TaskUpdated", Json::object({{"to", "blocked"}}));
  } else if (task.state == TaskState::kBlocked && open == 0 && entry.open_before > 0) {
    move(task, TaskState::kReady, "TaskReady", Json::object({{"reason", "dependencies changed"}}));
  } else if (!entry.created) {
    changed(task);
  }
  if (doom(task)) submitting.ended.push_back(task.seq);
}

}  // namespace necrocode::registry
