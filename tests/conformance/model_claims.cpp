// Claims of the model: every candidate is looked at, for every task that is given.
#include <algorithm>
#include <tuple>

#include "conformance/model_changes.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/limits.hpp"

namespace necrocode::registry {

std::vector<ClaimOutcome> ModelChanges::claim(const std::vector<ClaimRequest>& requests) {
  std::vector<ClaimOutcome> outcomes;
  for (const ClaimRequest& request : requests) {
    ClaimOutcome& outcome = outcomes.emplace_back();
    try {
      outcome.claimed = claim_one_request(request);
    } catch (const NotFound&) {
      outcome.refusal = std::current_exception();
    } catch (const Conflict&) {
      outcome.refusal = std::current_exception();
    } catch (const TaskContextValidationError&) {
      outcome.refusal = std::current_exception();
    }
  }
  return outcomes;
}

std::vector<ClaimedTask> ModelChanges::claim_one_request(const ClaimRequest& request) {
  std::vector<ClaimedTask> claimed;
  const int max = request.task_id ? 1 : request.max;
  while (static_cast<int>(claimed.size()) < max) {
    ModelTask* task = best_for(request);
    if (!task) break;
    claimed.push_back(start_lease(*task, request));
  }
  return claimed;
}

ModelTask* ModelChanges::best_for(const ClaimRequest& request) {
  std::vector<ModelTask*> candidates;
  if (request.task_id) {
    candidates.push_back(&state_.get(*request.task_id));
  } else {
    for (auto& [seq, task] : state_.tasks) {
      const std::string skill = task.text("required_skill");
      const std::string provider = task.text("provider");
      const bool can = request.skills.empty() || skill.empty() ||
                       std::count(request.skills.begin(), request.skills.end(), skill) > 0;
      const bool may = request.provider.empty() || provider.empty() || provider == request.provider;
      if (can && may) candidates.push_back(&task);
    }
  }
  const auto order = [&](const ModelTask* task) {
    return std::tuple(-task->priority(), state_.running(task->spec), task->seq);
  };
  ModelTask* best = nullptr;
  for (ModelTask* task : candidates) {
    if (task->state != TaskState::kReady) continue;
    const std::string own = task->text("provider");
    const std::string provider = own.empty() ? request.provider : own;
    if (!state_.reasons_against(*task, provider, options_).empty()) continue;
    if (!best || order(task) < order(best)) best = task;
  }
  return best;
}

ClaimedTask ModelChanges::start_lease(ModelTask& task, const ClaimRequest& request) {
  ModelAttempt attempt;
  attempt.epoch = ++task.epoch;
  attempt.token = random_hex(16);
  attempt.terms = request;
  attempt.record.attempt = ++task.attempt;
  attempt.record.runner_id = request.runner_id.value;
  attempt.record.provider = task.text("provider");
  if (attempt.record.provider.empty()) attempt.record.provider = request.provider;
  attempt.record.started_at = now_;
  enter(task, TaskState::kRunning);
  task.token = attempt.token;
  task.lease = request.lease;
  task.runner_id = request.runner_id.value;
  task.cancel_requested = false;
  changed(task);
  record(task, "TaskAssigned",
         Json::object({{"runner_id", task.runner_id},
                       {"lease_seconds", static_cast<double>(task.lease.count()) / 1000}}));
  const auto parked = state_.providers.find(attempt.record.provider);
  if (parked != state_.providers.end()) {
    parked->second.probe_token = task.token;
    parked->second.parked.probe = task.id;
  }
  task.attempts.push_back(std::move(attempt));
  return hold_lease(task);
}

ClaimedTask ModelChanges::hold_lease(ModelTask& task) {
  task.lease_ends = clock_.steady_now() + task.lease;
  ClaimedTask claimed;
  claimed.task = state_.told(task);
  claimed.lease_token.value = task.token;
  claimed.lease = task.lease;
  claimed.expires_at = now_ + task.lease;
  std::vector<ModelEdge> edges = task.edges;
  std::sort(edges.begin(), edges.end(),
            [](const ModelEdge& a, const ModelEdge& b) { return a.parent < b.parent; });
  const bool merged = state_.tasksets.at(task.spec).limits.unblock_on == UnblockOn::kMerged;
  for (const ModelEdge& edge : edges) {
    const ModelTask& parent = state_.tasks.at(edge.parent);
    const std::string commit = parent.metadata["commit"].string_or("");
    if (parent.state == TaskState::kDone && !commit.empty() && !merged) {
      claimed.task.base_commits.push_back(commit);
    }
  }
  std::vector<AttemptRecord> records = state_.attempts(task);
  std::erase_if(records, [](const AttemptRecord& record) { return !record.ended_at; });
  const std::size_t skipped =
      records.size() - std::min<std::size_t>(records.size(), limits::kAttemptsTold);
  claimed.previous_attempts.assign(records.begin() + static_cast<std::ptrdiff_t>(skipped),
                                   records.end());
  return claimed;
}

bool ModelChanges::lives(const LeaseRef& lease) {
  const ModelTask* task = state_.find(lease.task_id);
  return task && !task->token.empty() && task->token == lease.token.value;
}

void ModelChanges::give_back(const std::vector<LeaseRef>& leases) {
  for (const LeaseRef& lease : leases) {
    ModelTask& task = state_.get(lease.task_id);
    if (task.token.empty() || task.token != lease.token.value) continue;
    End end{TaskState::kReady, "TaskReady"};
    if (task.cancel_requested) end = {TaskState::kCancelled, "TaskCancelled"};
    end.data.set("reason", "the claimant was gone before the answer");
    end.counts = false;
    end_run(task, end);
  }
}

std::optional<ClaimedTask> ModelChanges::claim_next(ModelTask& task, const std::string& token,
                                                    const NextClaim& next) {
  const auto finished = [&]() -> ModelAttempt* {
    for (ModelAttempt& attempt : task.attempts) {
      if (!token.empty() && attempt.token == token) return &attempt;
    }
    return nullptr;
  };
  ClaimRequest terms;
  if (next.terms) {
    terms = *next.terms;
  } else if (finished()) {
    terms = finished()->terms;
    terms.task_id.reset();
    terms.max = 1;
  } else {
    throw Conflict("claim_next: true needs a lease; give the claim's body instead");
  }
  try {
    std::vector<ClaimedTask> claimed = claim_one_request(terms);
    if (claimed.empty()) return std::nullopt;
    if (finished()) finished()->next_token = claimed.front().lease_token.value;
    return std::move(claimed.front());
  } catch (const NotFound&) {  // no next task, as one that is not ready
    return std::nullopt;
  } catch (const Conflict&) {
    return std::nullopt;
  }
}

std::optional<ClaimedTask> ModelChanges::next_of(const ModelTask& task, const std::string& token) {
  for (const ModelAttempt& attempt : task.attempts) {
    if (attempt.token != token || attempt.next_token.empty()) continue;
    for (auto& [seq, other] : state_.tasks) {
      if (other.token == attempt.next_token) return hold_lease(other);
    }
  }
  return std::nullopt;
}

}  // namespace necrocode::registry
