#include "necrocode/pool/slot_lease.hpp"

#include <algorithm>
#include <thread>

#include "necrocode/observe/log.hpp"

namespace necrocode {
namespace {

using namespace std::chrono_literals;

constexpr auto kReleaseTime = 5s;
constexpr auto kRenewTime = 5s;

}  // namespace

struct SlotLease::State {
  State(RepoPoolClient& client, SlotAllocation allocation, std::chrono::nanoseconds time)
      : pool(client), slot(std::move(allocation)), duration(time) {}

  RepoPoolClient& pool;
  const SlotAllocation slot;
  const std::chrono::nanoseconds duration;
  std::stop_source lost;
  bool released = false;
  std::jthread thread;  // last: ends before what it uses

  void renew(const std::stop_token& stop);
  bool renew_once(const std::stop_token& stop, SteadyTime& expires);
};

/// Until the lease is lost or the object goes.
void SlotLease::State::renew(const std::stop_token& stop) {
  SteadyTime expires = real_clock().steady_now() + duration;
  std::chrono::nanoseconds pause = duration / 3;
  while (real_clock().sleep_for(pause, stop)) {
    const bool renewed = renew_once(stop, expires);
    if (lost.stop_requested()) return;
    pause =
        renewed ? std::chrono::nanoseconds(duration) / 3 : std::chrono::nanoseconds(duration) / 10;
  }
}

bool SlotLease::State::renew_once(const std::stop_token& stop, SteadyTime& expires) {
  CallContext context;
  context.stop = stop;
  const SteadyTime asked = real_clock().steady_now();
  try {
    pool.heartbeat(slot.slot_id, slot.lease_token,
                   context.within(std::min<std::chrono::nanoseconds>(kRenewTime, duration / 3)));
    expires = asked + duration;
    return true;
  } catch (const Conflict&) {
    lost.request_stop();
  } catch (const NotFound&) {
    lost.request_stop();
  } catch (const std::exception& error) {
    if (stop.stop_requested()) return false;
    log::warn("a slot's lease is not renewed, trying again",
              {{"slot_id", slot.slot_id.value}, {"error", error.what()}});
    if (real_clock().steady_now() >= expires) lost.request_stop();
  }
  return false;
}

SlotLease::SlotLease(RepoPoolClient& pool, SlotAllocation slot, std::chrono::seconds duration)
    : state_(std::make_unique<State>(pool, std::move(slot), std::max(duration, 1s))) {
  state_->thread =
      std::jthread([state = state_.get()](const std::stop_token& stop) { state->renew(stop); });
}

SlotLease::SlotLease(SlotLease&&) noexcept = default;

SlotLease& SlotLease::operator=(SlotLease&& other) noexcept {
  if (this != &other) {
    const SlotLease old(std::move(*this));
    state_ = std::move(other.state_);
  }
  return *this;
}

SlotLease::~SlotLease() {
  if (!state_) return;
  try {
    if (!state_->released) release(CallContext{}.within(kReleaseTime));
  } catch (const std::exception& error) {
    log::warn("a slot is not released; its lease ends by itself",
              {{"slot_id", state_->slot.slot_id.value}, {"error", error.what()}});
  }
}

const SlotAllocation& SlotLease::slot() const {
  return state_->slot;
}

std::stop_token SlotLease::lost() const {
  return state_->lost.get_token();
}

void SlotLease::release(const CallContext& context) {
  state_->thread.request_stop();
  state_->pool.release_slot(state_->slot.slot_id, state_->slot.lease_token, context);
  state_->released = true;
}

}  // namespace necrocode
