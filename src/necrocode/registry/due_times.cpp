#include "necrocode/registry/due_times.hpp"

#include <algorithm>

namespace necrocode::registry {

bool DueTimes::apply(const Effects& effects, SteadyTime now) {
  const std::lock_guard lock(mutex_);
  for (const Effects::Lease& lease : effects.leases_started) {
    leases_.put(lease.token, {lease.seq, lease.task_id, lease.duration}, now + lease.duration);
  }
  for (const std::string& token : effects.cancel_requested) {
    if (Lease* lease = leases_.find(token)) lease->cancel_requested = true;
  }
  for (const std::string& token : effects.leases_ended) leases_.remove(token);
  for (const Effects::TaskWait& wait : effects.task_waits) {
    tasks_.put(wait.seq, wait, now + wait.duration);
  }
  for (const Effects::ProviderWait& wait : effects.provider_waits) {
    providers_.put(wait.name, wait, now + wait.duration);
  }
  const SteadyTime next = earliest();
  return next < std::exchange(planned_, std::min(planned_, next));
}

void DueTimes::add(const std::string& token, Lease lease, SteadyTime now) {
  const std::lock_guard lock(mutex_);
  const SteadyTime ends = now + lease.duration;
  leases_.put(token, std::move(lease), ends);
}

std::optional<DueTimes::Lease> DueTimes::renew(const std::string& token, const std::string& task_id,
                                               SteadyTime now) {
  const std::lock_guard lock(mutex_);
  const auto ends = leases_.time_of(token);
  if (!ends || *ends <= now) return std::nullopt;
  const Lease lease = *leases_.find(token);
  if (lease.task_id != task_id && !lease.task_id.ends_with(":" + task_id)) return std::nullopt;
  leases_.put(token, lease, now + lease.duration);
  return lease;
}

DueTimes::Due DueTimes::due(SteadyTime now) const {
  const std::lock_guard lock(mutex_);
  Due all;
  std::map<std::int64_t, LeaseRef> in_order;  // of the tasks' creation, whatever ends first
  leases_.for_each_until(now, [&](const std::string& token, const Lease& lease) {
    in_order.emplace(lease.seq, LeaseRef{lease.task_id, LeaseToken{token}});
  });
  for (auto& [seq, lease] : in_order) all.leases.push_back(std::move(lease));
  tasks_.for_each_until(now, [&](auto, const auto& wait) { all.tasks.push_back(wait); });
  providers_.for_each_until(now,
                            [&](const auto&, const auto& wait) { all.providers.push_back(wait); });
  return all;
}

void DueTimes::remove_waits(SteadyTime until) {
  const std::lock_guard lock(mutex_);
  tasks_.remove_until(until);
  providers_.remove_until(until);
}

std::optional<SteadyTime> DueTimes::plan() {
  const std::lock_guard lock(mutex_);
  planned_ = earliest();
  return planned_ == SteadyTime::max() ? std::nullopt : std::optional(planned_);
}

SteadyTime DueTimes::earliest() const {
  return std::min({leases_.earliest(), tasks_.earliest(), providers_.earliest()});
}

}  // namespace necrocode::registry
