#include "necrocode/runner/lease_keeper.hpp"

#include <algorithm>

#include "necrocode/base/errors.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::runner {

struct LeaseKeeper::Entry {
  std::uint64_t id = 0;
  std::chrono::milliseconds lease{0};
  Renew renew;
  Tell tell;
  SteadyTime due;  // guarded by the keeper's mutex, as all below
  SteadyTime expires;
  bool renewing = false;
  bool over = false;
};

LeaseKeeper::LeaseKeeper() : thread_([this](const std::stop_token& stop) { work(stop); }) {}
LeaseKeeper::~LeaseKeeper() = default;

LeaseKeeper::Held LeaseKeeper::hold(std::chrono::milliseconds lease, Renew renew, Tell tell) {
  auto entry = std::make_shared<Entry>();
  const auto now = real_clock().steady_now();
  entry->lease = lease;
  entry->renew = std::move(renew);
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
    const std::shared_ptr<Entry> entry = *next;
    if (entry->due > real_clock().steady_now()) {
      wake_.wait_until(lock, stop, entry->due, [&] {
        return std::any_of(entries_.begin(), entries_.end(),
                           [&](const auto& e) { return e->due < entry->due; });
      });
      continue;
    }
    entry->renewing = true;
    lock.unlock();
    renew(entry, stop);
    lock.lock();
    entry->renewing = false;
    wake_.notify_all();
  }
}

void LeaseKeeper::renew(const std::shared_ptr<Entry>& entry, const std::stop_token& stop) {
  CallContext context;
  context.stop = stop;
  LeaseNews news = LeaseNews::kRenewed;
  bool answered = true;
  try {
    news = entry->renew(context.within(
        std::min<std::chrono::milliseconds>(entry->lease / 3, std::chrono::seconds{5})));
  } catch (const std::exception& error) {
    answered = false;
    log::warn("lease not renewed, trying again", {{"error", error.what()}});
  }
  const auto now = real_clock().steady_now();
  bool tell = false;
  {
    const std::lock_guard lock(mutex_);
    if (answered) entry->expires = now + entry->lease;
    entry->due = now + (answered ? entry->lease / 3 : entry->lease / 10);
    if (!answered && now >= entry->expires) news = LeaseNews::kLost;
    if (news != LeaseNews::kRenewed && !entry->over) {
      tell = true;
      entry->due = news == LeaseNews::kLost ? SteadyTime::max() : entry->due;
    }
  }
  if (tell) entry->tell(news);
}

}  // namespace necrocode::runner
