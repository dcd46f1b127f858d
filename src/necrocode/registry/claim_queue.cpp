#include "necrocode/registry/claim_queue.hpp"

#include <algorithm>
#include <list>
#include <mutex>
#include <set>
#include <thread>

#include "necrocode/observe/log.hpp"

namespace necrocode::registry {
namespace {

/// The longest sleep without anything to wait for; far from the clock's overflow.
constexpr auto kIdle = std::chrono::hours(1);
/// After an error of the store, so that a broken one is not asked in a circle.
constexpr auto kAfterError = std::chrono::seconds(1);
/// Served in one transaction.
constexpr std::size_t kServedAtOnce = 256;

/// Known before the answer is parked, so that its end can be told apart from any other's.
struct ParkedClaim {
  std::shared_ptr<net::Parked> parked;
  bool ended = false;  ///< timed out, or gone; under the queue's mutex
};
using Handle = std::shared_ptr<ParkedClaim>;

struct Claim {
  ClaimRequest request;
  std::optional<net::IdempotencyKey> key;
};

struct Waiter {
  const Claim claim;
  /// One, or more where the claim was told again with its key while it waited. Under the queue's
  /// mutex.
  std::vector<Handle> handles;
};

/// What one claim came to.
struct Served {
  std::optional<net::Response> response;  ///< nothing: no task, it may wait on
  std::vector<LeaseRef> leases;           ///< begun for it
};

/// The answer that the claim was given before. Of leases that have all ended since it says nothing:
/// who asks so late gets no task, and claims anew.
std::optional<net::Response> kept_answer(const net::IdempotencyKey& key, TaskChanges& changes) {
  std::optional<net::Response> kept = find_kept(changes.answers(), key);
  if (!kept || kept->status != 200) return kept;
  const Json body = Json::parse(std::get<std::string>(kept->body));
  for (const Json& task : body["tasks"].items()) {
    const LeaseToken token{task["lease_token"].string_or("")};
    if (changes.lives({task["id"].string_or(""), token})) return kept;
  }
  return net::Response::empty(204);
}

}  // namespace

struct ClaimQueue::State : std::enable_shared_from_this<ClaimQueue::State> {
  State(TaskStore& task_store, const Clock& time, Answer make_answer)
      : store(task_store), clock(time), answer(std::move(make_answer)) {}

  TaskStore& store;
  const Clock& clock;
  const Answer answer;

  std::mutex mutex;
  std::list<std::shared_ptr<Waiter>> waiters;  // in order of arrival
  std::uint64_t news = 0;                      // counts what may let a waiting claim succeed
  std::uint64_t served = 0;                    // the `news` that the thread has acted on
  // Names of the keys whose answers are being handed over: what was claimed may yet be given back.
  std::set<std::string> handing_over;
  std::stop_source wake;  // ends the thread's current sleep
  bool stopping = false;
  std::thread thread;

  void work();
  std::optional<SteadyTime> do_due();
  void serve(std::uint64_t acting_on);
  void serve_some(const std::vector<std::shared_ptr<Waiter>>& some);
  void claim_at_once(const Claim& claim, const Handle& handle, std::uint64_t seen);
  void give_back_later(const std::vector<LeaseRef>& leases);
  std::vector<Served> claim_all(const std::vector<Claim>& claims);
  std::vector<Served> claim_in(TaskChanges& changes, const std::vector<Claim>& claims);
  Served claim_of(const Claim& claim, const ClaimOutcome& outcome, net::IdempotencyStore& answers);
  bool hand_over(Waiter& waiter, const net::Response& response);
  void give_back(const std::vector<LeaseRef>& leases, const std::vector<std::string>& keys);
  std::shared_ptr<Waiter> waiter_with(const std::optional<net::IdempotencyKey>& key);
  void wait(const Claim& claim, const Handle& handle, std::uint64_t seen);
  bool attempt(const char* what, const std::function<void()>& step);
  void remove(const Handle& handle);

  void tell_news(const CommitNews& of_commit) {
    const std::lock_guard lock(mutex);
    if (of_commit.became_claimable) ++news;
    wake.request_stop();
  }
};

ClaimQueue::ClaimQueue(TaskStore& store, const Clock& clock, Answer answer)
    : state_(std::make_shared<State>(store, clock, std::move(answer))) {
  store.on_commit([state = std::weak_ptr(state_)](const CommitNews& news) {
    if (!news.became_claimable && !news.due_sooner) return;
    if (const auto alive = state.lock()) alive->tell_news(news);
  });
  state_->thread = std::thread([state = state_.get()] { state->work(); });
}

ClaimQueue::~ClaimQueue() {
  stop();
}

void ClaimQueue::stop() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->wake.request_stop();
  }
  if (state_->thread.joinable()) state_->thread.join();
}

net::Response ClaimQueue::claim(const ClaimRequest& request,
                                const std::optional<net::IdempotencyKey>& key) {
  const Claim claim{request, key};
  const bool waits = request.wait.count() > 0;
  std::uint64_t seen = 0;
  bool others_first = false;
  {
    const std::lock_guard lock(state_->mutex);
    others_first = (!state_->waiters.empty() && state_->news != state_->served) ||
                   state_->waiter_with(key) || (key && state_->handing_over.contains(key->name));
    seen = others_first ? state_->served : state_->news;
  }
  net::ParkRequest park;
  park.timeout = waits ? request.wait : net::kCommitTime;
  const Handle handle = std::make_shared<ParkedClaim>();
  park.start = [state = state_, claim, seen, handle,
                at_once = !others_first || !waits](std::shared_ptr<net::Parked> parked) {
    handle->parked = std::move(parked);
    if (at_once) {
      state->claim_at_once(claim, handle, seen);
    } else {
      state->wait(claim, handle, seen);
    }
  };
  park.on_timeout = [state = state_, handle] {
    state->remove(handle);
    return state->answer({});
  };
  if (waits) park.on_gone = [state = state_, handle] { state->remove(handle); };
  return net::Response::park(std::move(park));
}

/// Where nothing is ready it waits, if it may.
void ClaimQueue::State::claim_at_once(const Claim& claim, const Handle& handle,
                                      std::uint64_t seen) {
  const auto result = std::make_shared<Served>();
  const auto finished = [self = shared_from_this(), claim, handle, seen,
                         result](const std::exception_ptr& error) {
    if (error) {
      handle->parked->complete(self->answer({{}, error}));
    } else if (result->response) {
      const bool taken = handle->parked->complete(std::move(*result->response));
      // Who has a key asks for this answer again.
      if (!taken && !claim.key && !result->leases.empty()) self->give_back_later(result->leases);
    } else if (claim.request.wait.count() > 0) {
      self->wait(claim, handle, seen);
    } else {
      handle->parked->complete(self->answer({}));
    }
  };
  store.transact_later(
      [self = shared_from_this(), claim, result](TaskChanges& changes) {
        *result = std::move(self->claim_in(changes, {claim}).front());
      },
      finished);
}

/// Leases that nobody took: their claimant was gone before the answer.
void ClaimQueue::State::give_back_later(const std::vector<LeaseRef>& leases) {
  store.transact_later([leases](TaskChanges& changes) { changes.give_back(leases); },
                       [](const std::exception_ptr&) {});  // else they end when they are due
}

/// `seen`: the news that were acted on for this claim already.
void ClaimQueue::State::wait(const Claim& claim, const Handle& handle, std::uint64_t seen) {
  const std::lock_guard lock(mutex);
  if (handle->ended) return;  // while its claim was under way
  if (const auto first = waiter_with(claim.key)) {
    if (first->claim.key->fingerprint == claim.key->fingerprint) {
      first->handles.push_back(handle);
    } else {
      handle->parked->complete(net::key_of_another_request());
    }
    return;
  }
  waiters.push_back(std::make_shared<Waiter>(Waiter{claim, {handle}}));
  if (news == seen) return;
  // Something became ready between the claim and now: the thread has to look again.
  ++news;
  wake.request_stop();
}

/// Under the mutex.
std::shared_ptr<Waiter> ClaimQueue::State::waiter_with(
    const std::optional<net::IdempotencyKey>& key) {
  if (!key) return nullptr;
  const auto found = std::find_if(waiters.begin(), waiters.end(), [&](const auto& waiter) {
    return waiter->claim.key && waiter->claim.key->name == key->name;
  });
  return found == waiters.end() ? nullptr : *found;
}

void ClaimQueue::State::remove(const Handle& handle) {
  const std::lock_guard lock(mutex);
  handle->ended = true;
  for (const auto& waiter : waiters) std::erase(waiter->handles, handle);
  std::erase_if(waiters, [](const auto& waiter) { return waiter->handles.empty(); });
}

void ClaimQueue::State::work() {
  while (true) {
    std::uint64_t acting_on = 0;
    {
      const std::lock_guard lock(mutex);
      if (stopping) return;
      wake = std::stop_source();  // news from here on ends the coming sleep
      acting_on = news;
    }
    SteadyTime until = clock.steady_now() + kIdle;
    // Each for itself: leases end also when no claim can be served.
    const bool all_served = attempt("serve waiting claims", [&] { serve(acting_on); });
    const bool all_ended = attempt("end leases and waits", [&] {
      if (const auto next = do_due()) until = std::min(until, *next);
    });
    if (!all_served || !all_ended) until = std::min(until, clock.steady_now() + kAfterError);
    std::stop_token woken;
    {
      const std::lock_guard lock(mutex);
      woken = wake.get_token();
    }
    clock.sleep_until(until, woken);
  }
}

bool ClaimQueue::State::attempt(const char* what, const std::function<void()>& step) {
  try {
    step();
    return true;
  } catch (const std::exception& error) {
    log::error("the task registry's thread has failed", {{"at", what}, {"error", error.what()}});
    return false;
  }
}

std::optional<SteadyTime> ClaimQueue::State::do_due() {
  const auto next = store.do_due();
  return next ? std::optional(clock.steady_now() + *next) : std::nullopt;
}

void ClaimQueue::State::serve(std::uint64_t acting_on) {
  std::vector<std::shared_ptr<Waiter>> waiting;
  {
    const std::lock_guard lock(mutex);
    if (acting_on == served) return;
    for (const auto& waiter : waiters) {
      std::erase_if(waiter->handles,
                    [](const Handle& handle) { return !handle->parked->waiting(); });
    }
    std::erase_if(waiters, [](const auto& waiter) { return waiter->handles.empty(); });
    waiting.assign(waiters.begin(), waiters.end());
  }
  for (std::size_t first = 0; first < waiting.size(); first += kServedAtOnce) {
    const auto begin = waiting.begin() + static_cast<std::ptrdiff_t>(first);
    const auto count = std::min(kServedAtOnce, waiting.size() - first);
    serve_some({begin, begin + static_cast<std::ptrdiff_t>(count)});
  }
  const std::lock_guard lock(mutex);
  served = acting_on;
}

void ClaimQueue::State::serve_some(const std::vector<std::shared_ptr<Waiter>>& some) {
  std::vector<Claim> claims;
  for (const auto& waiter : some) claims.push_back(waiter->claim);
  const std::vector<Served> results = claim_all(claims);
  std::vector<LeaseRef> unwanted;
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < some.size(); ++i) {
    if (!results[i].response || hand_over(*some[i], *results[i].response)) continue;
    unwanted.insert(unwanted.end(), results[i].leases.begin(), results[i].leases.end());
    if (claims[i].key && !results[i].leases.empty()) keys.push_back(claims[i].key->name);
  }
  give_back(unwanted, keys);
}

/// One transaction for all of them, with the answers that are kept under their keys.
std::vector<Served> ClaimQueue::State::claim_all(const std::vector<Claim>& claims) {
  std::vector<Served> results;
  store.transact([&](TaskChanges& changes) { results = claim_in(changes, claims); });
  return results;
}

std::vector<Served> ClaimQueue::State::claim_in(TaskChanges& changes,
                                                const std::vector<Claim>& claims) {
  std::vector<Served> results(claims.size());
  std::vector<ClaimRequest> requests;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < claims.size(); ++i) {
    try {
      if (claims[i].key) results[i].response = kept_answer(*claims[i].key, changes);
    } catch (const net::HttpError&) {  // of another request
      results[i].response = net::key_of_another_request();
    }
    if (results[i].response) continue;
    requests.push_back(claims[i].request);
    places.push_back(i);
  }
  const std::vector<ClaimOutcome> outcomes = changes.claim(requests);
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    results[places[i]] = claim_of(claims[places[i]], outcomes[i], changes.answers());
  }
  return results;
}

Served ClaimQueue::State::claim_of(const Claim& claim, const ClaimOutcome& outcome,
                                   net::IdempotencyStore& answers) {
  Served result;
  if (outcome.claimed.empty() && !outcome.refusal) return result;
  result.response = answer(outcome);
  for (const ClaimedTask& task : outcome.claimed) {
    result.leases.push_back({task.task.id, task.lease_token});
  }
  if (claim.key) net::keep(answers, *claim.key, *result.response);
  return result;
}

/// True when somebody took it.
bool ClaimQueue::State::hand_over(Waiter& waiter, const net::Response& response) {
  std::vector<Handle> handles;
  {
    const std::lock_guard lock(mutex);
    handles.swap(waiter.handles);
    std::erase_if(waiters, [&](const auto& other) { return other.get() == &waiter; });
    if (waiter.claim.key) handing_over.insert(waiter.claim.key->name);
  }
  bool taken = false;
  for (const Handle& handle : handles) taken = handle->parked->complete(response) || taken;
  return taken;
}

/// Leases whose claimants are gone, and the keys that they were kept under.
void ClaimQueue::State::give_back(const std::vector<LeaseRef>& leases,
                                  const std::vector<std::string>& keys) {
  const auto handed_over = [this] {
    const std::lock_guard lock(mutex);
    if (handing_over.empty()) return;
    handing_over.clear();
    ++news;  // a claim told again meanwhile has waited for this
    wake.request_stop();
  };
  try {
    if (!leases.empty()) {
      store.transact([&](TaskChanges& changes) {
        changes.give_back(leases);
        for (const std::string& key : keys) changes.answers().forget(key);
      });
    }
  } catch (...) {
    handed_over();
    throw;
  }
  handed_over();
}

}  // namespace necrocode::registry
