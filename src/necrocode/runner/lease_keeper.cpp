#include "necrocode/runner/lease_keeper.hpp"

#include <algorithm>

#include "necrocode/base/errors.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::runner {
namespace {

// One call takes no longer, so that a silent service leaves time for others within the lease.
constexpr auto kRenewTime = std::chrono::seconds(5);

}  // namespace

struct LeaseKeeper::Entry {
  std::uint64_t id = 0;
  std::chrono::milliseconds lease{0};
  LeaseName name;
  Tell tell;
  SteadyTime due;  // guarded by the keeper's mutex, as all below
  SteadyTime expires;
  bool renewing = false;
  bool over = false;
};

LeaseKeeper::LeaseKeeper(Renew renew)
    : renew_(std::move(renew)), thread_([this](const std::stop_token& stop) { work(stop); }) {}
LeaseKeeper::~LeaseKeeper() = default;

LeaseKeeper::Held LeaseKeeper::hold(std::chrono::milliseconds lease, LeaseName name, Tell tell) {
  auto entry = std::make_shared<Entry>();
  const auto now = real_clock().steady_now();
  entry->lease = lease;
  entry->name = std::move(name);
  entry->tell = std::move(tell);
  entry->due = now + lease / 3;
  entry->expires = now + lease;
  {
    const std::lock_guard lock(mutex_);
    entry->id = next_id_++;
    entries_.push_back(entry);
  }
  wake_.notify_all();
  return Held(*this, entry->id);
}

// Returns only when no renewal of it is under way, so that what its callbacks use may go.
void LeaseKeeper::drop(std::uint64_t id) {
  std::unique_lock lock(mutex_);
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [id](const auto& e) { return e->id == id; });
  if (found == entries_.end()) return;
  const std::shared_ptr<Entry> entry = *found;
  entry->over = true;
  entries_.erase(found);
  wake_.wait(lock, [&] { return !entry->renewing; });
}

void LeaseKeeper::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const auto next =
        std::min_element(entries_.begin(), entries_.end(),
                         [](const auto& a, const auto& b) { return a->due < b->due; });
    if (next == entries_.end()) {
      wake_.wait(lock, stop, [this] { return !entries_.empty(); });
      continue;
    }
    const std::shared_ptr<Entry> first = *next;
    const SteadyTime now = real_clock().steady_now();
    if (first->due > now) {
      wake_.wait_until(lock, stop, first->due, [&] {
        return std::any_of(entries_.begin(), entries_.end(),
                           [&](const auto& e) { return e->due < first->due; });
      });
      continue;
    }
    const Batch batch = due_now(now);
    for (const auto& entry : batch) entry->renewing = true;
    lock.unlock();
    renew(batch, stop);
    lock.lock();
    for (const auto& entry : batch) entry->renewing = false;
    wake_.notify_all();
  }
}

/// With those that are due soon, so that leases that began apart are renewed together.
LeaseKeeper::Batch LeaseKeeper::due_now(SteadyTime now) const {
  Batch batch;
  for (const auto& entry : entries_) {
    if (entry->due == SteadyTime::max() || entry->due - entry->lease / 12 > now) continue;
    batch.push_back(entry);
    if (batch.size() == limits::kHeartbeatsPerCall) break;
  }
  return batch;
}

void LeaseKeeper::renew(const Batch& batch, const std::stop_token& stop) {
  CallContext context;
  context.stop = stop;
  std::chrono::milliseconds time = kRenewTime;
  std::vector<LeaseName> names;
  for (const auto& entry : batch) {
    time = std::min(time, entry->lease / 3);
    names.push_back(entry->name);
  }
  News news;
  try {
    news = renew_(names, context.within(time));
  } catch (const std::exception& error) {
    log::warn("leases not renewed, trying again",
              {{"leases", batch.size()}, {"error", error.what()}});
  }
  const auto now = real_clock().steady_now();
  for (std::size_t i = 0; i < batch.size(); ++i) {
    settle(*batch[i], i < news.size() ? news[i] : std::nullopt, now);
  }
}

void LeaseKeeper::settle(Entry& entry, const std::optional<LeaseNews>& answer, SteadyTime now) {
  LeaseNews news = answer.value_or(LeaseNews::kRenewed);
  bool tell = false;
  {
    const std::lock_guard lock(mutex_);
    if (answer) entry.expires = now + entry.lease;
    entry.due = now + (answer ? entry.lease / 3 : entry.lease / 10);
    if (!answer && now >= entry.expires) news = LeaseNews::kLost;
    if (news != LeaseNews::kRenewed && !entry.over) {
      tell = true;
      if (news == LeaseNews::kLost) entry.due = SteadyTime::max();
    }
  }
  if (tell) entry.tell(news);
}

LeaseKeeper::Renew renew_tasks(TaskRegistryClient& registry) {
  return [&registry](const std::vector<LeaseName>& leases, const CallContext& context) {
    std::vector<registry::LeaseRef> asked;
    for (const LeaseName& lease : leases) asked.push_back({lease.id, lease.token});
    LeaseKeeper::News news;
    for (const auto& answer : registry.heartbeats(asked, context)) {
      news.push_back(!answer                    ? LeaseNews::kLost
                     : answer->cancel_requested ? LeaseNews::kCancelRequested
                                                : LeaseNews::kRenewed);
    }
    return news;
  };
}

LeaseKeeper::Renew renew_slots(RepoPoolClient& pool) {
  return [&pool](const std::vector<LeaseName>& leases, const CallContext& context) {
    LeaseKeeper::News news;
    for (const LeaseName& lease : leases) {
      try {
        pool.heartbeat(SlotId{lease.id}, lease.token, context);
        news.push_back(LeaseNews::kRenewed);
      } catch (const Conflict&) {
        news.push_back(LeaseNews::kLost);
      } catch (const NotFound&) {
        news.push_back(LeaseNews::kLost);
      } catch (const RunnerError& error) {
        log::warn("a slot's lease is not renewed", {{"slot", lease.id}, {"error", error.what()}});
        news.push_back(std::nullopt);  // of this one; the others are asked all the same
      }
    }
    return news;
  };
}

}  // namespace necrocode::runner
