#include "necrocode/registry/claim_queue.hpp"

#include <algorithm>
#include <list>
#include <mutex>
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
using Handle = std::shared_ptr<std::shared_ptr<net::Parked>>;

struct Waiter {
  ClaimRequest request;
  Handle handle;
  net::Parked& parked() const { return **handle; }
};

}  // namespace

struct ClaimQueue::State {
  State(TaskStore& task_store, const Clock& time, Answer make_answer)
      : store(task_store), clock(time), answer(std::move(make_answer)) {}

  TaskStore& store;
  const Clock& clock;
  const Answer answer;

  std::mutex mutex;
  std::list<Waiter> waiters;  // in order of arrival
  std::uint64_t news = 0;     // counts what may let a waiting claim succeed
  std::uint64_t served = 0;   // the `news` that the thread has acted on
  SteadyTime wake_at;         // when the thread means to wake
  std::stop_source wake;      // ends the thread's current sleep
  bool stopping = false;
  std::thread thread;

  void work();
  std::optional<SteadyTime> expire();
  void serve(std::uint64_t acting_on);
  void hand_over(const std::vector<Waiter>& served, const std::vector<ClaimOutcome>& outcomes);
  bool attempt(const char* what, const std::function<void()>& step);
  void remove(const Handle& handle);

  void tell_news() {
    const std::lock_guard lock(mutex);
    ++news;
    wake.request_stop();
  }
};

ClaimQueue::ClaimQueue(TaskStore& store, const Clock& clock, Answer answer)
    : state_(std::make_shared<State>(store, clock, std::move(answer))) {
  store.on_ready([state = std::weak_ptr(state_)] {
    if (const auto alive = state.lock()) alive->tell_news();
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

void ClaimQueue::lease_started(std::chrono::milliseconds duration) {
  const SteadyTime ends = state_->clock.steady_now() + duration;
  const std::lock_guard lock(state_->mutex);
  if (ends < state_->wake_at) state_->wake.request_stop();
}

net::Response ClaimQueue::claim(const ClaimRequest& request) {
  std::uint64_t seen = 0;
  bool others_first = false;
  {
    const std::lock_guard lock(state_->mutex);
    others_first = !state_->waiters.empty() && state_->news != state_->served;
    seen = others_first ? state_->served : state_->news;
  }
  if (!others_first || request.wait.count() == 0) {
    const ClaimOutcome outcome = state_->store.claim({request}).front();
    const bool claimed = !outcome.get().empty();
    if (claimed) lease_started(request.lease);
    if (claimed || request.wait.count() == 0) return state_->answer(outcome);
  }
  net::ParkRequest park;
  park.timeout = request.wait;
  const Handle handle = std::make_shared<std::shared_ptr<net::Parked>>();
  park.start = [state = state_, request, seen, handle](std::shared_ptr<net::Parked> parked) {
    const std::lock_guard lock(state->mutex);
    *handle = std::move(parked);
    state->waiters.push_back({request, handle});
    // Something became ready between the claim above and now: the thread has to look again.
    if (state->news != seen) {
      ++state->news;
      state->wake.request_stop();
    }
  };
  park.on_timeout = [state = state_, handle] {
    state->remove(handle);
    return state->answer({});
  };
  park.on_gone = [state = state_, handle] { state->remove(handle); };
  return net::Response::park(std::move(park));
}

void ClaimQueue::State::remove(const Handle& handle) {
  const std::lock_guard lock(mutex);
  waiters.remove_if([&](const Waiter& waiter) { return waiter.handle == handle; });
}

void ClaimQueue::State::work() {
  while (true) {
    std::uint64_t acting_on = 0;
    {
      const std::lock_guard lock(mutex);
      if (stopping) return;
      wake = std::stop_source();    // news from here on ends the coming sleep
      wake_at = SteadyTime::max();  // a lease that begins from here on ends it, too
      acting_on = news;
    }
    SteadyTime until = clock.steady_now() + kIdle;
    // Each for itself: leases end also when no claim can be served.
    const bool all_served = attempt("serve waiting claims", [&] { serve(acting_on); });
    const bool all_ended = attempt("end leases", [&] {
      if (const auto next = expire()) until = std::min(until, *next);
    });
    if (!all_served || !all_ended) until = std::min(until, clock.steady_now() + kAfterError);
    std::stop_token woken;
    {
      const std::lock_guard lock(mutex);
      wake_at = until;
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

std::optional<SteadyTime> ClaimQueue::State::expire() {
  const auto next = store.expire_leases();
  return next ? std::optional(clock.steady_now() + *next) : std::nullopt;
}

void ClaimQueue::State::serve(std::uint64_t acting_on) {
  std::vector<Waiter> waiting;
  {
    const std::lock_guard lock(mutex);
    if (acting_on == served) return;
    std::erase_if(waiters, [](const Waiter& waiter) { return !waiter.parked().waiting(); });
    waiting.assign(waiters.begin(), waiters.end());
  }
  for (std::size_t first = 0; first < waiting.size(); first += kServedAtOnce) {
    const auto begin = waiting.begin() + static_cast<std::ptrdiff_t>(first);
    const auto count = std::min(kServedAtOnce, waiting.size() - first);
    const std::vector<Waiter> some(begin, begin + static_cast<std::ptrdiff_t>(count));
    std::vector<ClaimRequest> requests;
    for (const Waiter& waiter : some) requests.push_back(waiter.request);
    hand_over(some, store.claim(requests));
  }
  const std::lock_guard lock(mutex);
  served = acting_on;
}

void ClaimQueue::State::hand_over(const std::vector<Waiter>& some,
                                  const std::vector<ClaimOutcome>& outcomes) {
  std::vector<LeaseRef> unwanted;
  for (std::size_t i = 0; i < some.size(); ++i) {
    const ClaimOutcome& outcome = outcomes[i];
    if (outcome.claimed.empty() && !outcome.refusal) continue;
    remove(some[i].handle);
    if (some[i].parked().complete(answer(outcome))) continue;
    for (const ClaimedTask& claimed : outcome.claimed) {
      unwanted.push_back({claimed.task.id, claimed.lease_token});
    }
  }
  store.give_back(unwanted);
}

}  // namespace necrocode::registry
