#include "task_end.hpp"

#include <map>

namespace necrocode::app {
namespace {

using registry::TaskState;

/// Whether tasks can no longer be done: they have failed, or are blocked behind what has. Each is
/// asked about once.
class StuckTasks {
 public:
  StuckTasks(TaskRegistryClient& client, const CallContext& context)
      : client_(client), context_(context) {}

  bool stuck(const std::string& task_id) {
    // A list, not a recursion: a chain of tasks may be as long as a taskset.
    std::vector<std::string> chain{task_id};
    while (!chain.empty()) {
      const std::optional<std::string> first = look_at(chain.back());
      if (first) {
        chain.push_back(*first);
      } else {
        chain.pop_back();
      }
    }
    return stuck_.at(task_id);
  }

 private:
  /// Decides about the task, or says which one has to be looked at first. The registry does not
  /// tell of dependencies that no longer count, by their policy.
  std::optional<std::string> look_at(const std::string& id) {
    bool& is_stuck = stuck_[id];  // false meanwhile, should a registry tell of a circle
    const registry::Explanation& told = explanation_of(id);
    if (told.state == TaskState::kFailed || told.state == TaskState::kCancelled) is_stuck = true;
    if (told.state != TaskState::kBlocked) return std::nullopt;
    for (const registry::WaitReason& reason : told.reasons) {
      if (reason.kind != "dependency") continue;
      const auto parent = stuck_.find(reason.task_id);
      if (parent == stuck_.end()) return reason.task_id;
      if (parent->second) {
        is_stuck = true;
        break;
      }
    }
    return std::nullopt;
  }
  const registry::Explanation& explanation_of(const std::string& id) {
    const auto found = told_.find(id);
    if (found != told_.end()) return found->second;
    registry::Explanation& told = told_[id];
    try {
      told = client_.explain(id, context_);
    } catch (const NotFound&) {
      told.state = TaskState::kCancelled;  // removed meanwhile, which ends it as well
    }
    return told;
  }

  TaskRegistryClient& client_;
  const CallContext& context_;
  std::map<std::string, bool> stuck_;
  std::map<std::string, registry::Explanation> told_;
};

std::optional<bool> end_of_task(TaskRegistryClient& client, const std::string& id,
                                const CallContext& context) {
  const registry::Task task = client.get_task(id, context);
  if (registry::is_final(task.state)) return task.state == TaskState::kDone;
  if (task.state == TaskState::kBlocked && StuckTasks(client, context).stuck(task.id)) return false;
  return std::nullopt;
}

bool all_blocked_are_stuck(TaskRegistryClient& client, const std::string& spec,
                           const CallContext& context) {
  StuckTasks tasks(client, context);
  registry::TaskQuery query;
  query.spec = spec;
  query.states = {TaskState::kBlocked};
  query.limit = static_cast<int>(limits::kPageSizeMax);
  while (true) {
    const registry::TaskPage page = client.list(query, context);
    for (const registry::Task& task : page.items) {
      if (!tasks.stuck(task.id)) return false;
    }
    if (!page.next_cursor || *page.next_cursor == query.cursor) return true;
    query.cursor = *page.next_cursor;
  }
}

}  // namespace

std::optional<bool> end_of(TaskRegistryClient& client, const registry::EventFilter& watched,
                           const CallContext& context) {
  if (!watched.task_id.empty()) return end_of_task(client, watched.task_id, context);
  const Json counts =
      client.get_taskset(watched.spec, context, registry::TasksetPart::kHead).counts;
  const auto count = [&](TaskState state) { return counts[to_string(state)].as_int().value_or(0); };
  if (count(TaskState::kReady) + count(TaskState::kRunning) > 0) return std::nullopt;
  if (count(TaskState::kBlocked) > 0) {
    if (!all_blocked_are_stuck(client, watched.spec, context)) return std::nullopt;
    return false;
  }
  return count(TaskState::kFailed) + count(TaskState::kCancelled) == 0;
}

}  // namespace necrocode::app
