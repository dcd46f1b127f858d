#include "necrocode/net/host_guard.hpp"

#include <algorithm>

#include "necrocode/net/http.hpp"

namespace necrocode::net {

using std::chrono::nanoseconds;

void RetryBudget::refill(SteadyTime now) const {
  if (filled_at_ != SteadyTime{} && now > filled_at_) {
    const double seconds = std::chrono::duration<double>(now - filled_at_).count();
    tokens_ =
        std::min(limits::kRetryBudgetTokens, tokens_ + seconds * limits::kRetryBudgetPerSecond);
  }
  filled_at_ = std::max(filled_at_, now);
}

void RetryBudget::deposit(SteadyTime now) {
  const std::lock_guard lock(mutex_);
  refill(now);
  tokens_ = std::min(limits::kRetryBudgetTokens, tokens_ + limits::kRetryBudgetPerCall);
}

bool RetryBudget::withdraw(SteadyTime now) {
  const std::lock_guard lock(mutex_);
  refill(now);
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

double RetryBudget::tokens(SteadyTime now) const {
  const std::lock_guard lock(mutex_);
  refill(now);
  return tokens_;
}

std::string_view to_string(BreakerState state) {
  switch (state) {
    case BreakerState::kClosed:
      return "closed";
    case BreakerState::kOpen:
      return "open";
    case BreakerState::kHalfOpen:
      return "half-open";
  }
  return "closed";
}

CircuitBreaker::Attempt::~Attempt() {
  if (breaker_ && probe_ != 0) breaker_->abandon(probe_);
}

void CircuitBreaker::Attempt::succeeded() {
  if (breaker_) std::exchange(breaker_, nullptr)->succeeded();
}

void CircuitBreaker::Attempt::failed(SteadyTime now) {
  if (breaker_) std::exchange(breaker_, nullptr)->failed(now, probe_);
}

CircuitBreaker::Admission CircuitBreaker::admit(SteadyTime now) {
  const std::lock_guard lock(mutex_);
  if (open_ && now < open_until_) return {std::nullopt, open_until_ - now};
  if (open_ && probing_ != 0) return {std::nullopt, limits::kBreakerProbeWait};
  if (open_) probing_ = ++probes_;
  return {Attempt(this, probing_)};
}

void CircuitBreaker::succeeded() {
  const std::lock_guard lock(mutex_);
  failures_ = 0;
  open_ = false;
  probing_ = 0;
  open_for_ = limits::kBreakerOpenMin;
}

void CircuitBreaker::failed(SteadyTime now, std::uint64_t number) {
  const std::lock_guard lock(mutex_);
  // A probe whose breaker has closed meanwhile decides nothing any more.
  const bool probe = number != 0 && number == probing_;
  if (open_ && !probe) return;  // began before it opened, and says nothing new
  if (failures_++ == 0) first_failure_ = now;
  const bool sustained =
      failures_ >= limits::kBreakerFailures && now - first_failure_ >= limits::kBreakerSpan;
  if (!probe && !sustained) return;
  open_ = true;
  probing_ = 0;
  open_until_ = now + open_for_;
  open_for_ = std::min<nanoseconds>(2 * open_for_, limits::kBreakerOpenMax);
  ++times_opened_;
}

void CircuitBreaker::abandon(std::uint64_t probe) {
  const std::lock_guard lock(mutex_);
  if (probing_ == probe) probing_ = 0;
}

BreakerState CircuitBreaker::state(SteadyTime now) const {
  const std::lock_guard lock(mutex_);
  if (!open_) return BreakerState::kClosed;
  return now < open_until_ ? BreakerState::kOpen : BreakerState::kHalfOpen;
}

std::uint64_t CircuitBreaker::times_opened() const {
  const std::lock_guard lock(mutex_);
  return times_opened_;
}

std::shared_ptr<HostGuard> HostGuards::of(std::string_view url) {
  {
    // A client's URLs begin with their origin as it is kept here: no need to take them apart.
    const std::size_t authority = url.find("://");
    const std::size_t end =
        authority == std::string_view::npos ? 0 : url.find_first_of("/?#", authority + 3);
    const std::lock_guard lock(mutex_);
    const auto found = guards_.find(url.substr(0, end));
    if (found != guards_.end() && !found->first.empty()) return found->second;
  }
  const auto parsed = Url::parse(url);
  const std::string origin = parsed ? parsed->origin() : std::string();
  const std::lock_guard lock(mutex_);
  if (const auto found = guards_.find(origin); found != guards_.end()) return found->second;
  if (by_age_.size() >= limits::kHostGuards) {
    guards_.erase(by_age_.front());
    by_age_.erase(by_age_.begin());
  }
  by_age_.push_back(origin);
  return guards_[origin] = std::make_shared<HostGuard>();
}

std::vector<HostGuards::Entry> HostGuards::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<Entry> entries;
  for (const auto& [origin, guard] : guards_) entries.push_back({origin, guard});
  return entries;
}

}  // namespace necrocode::net
