#include "necrocode/net/retry.hpp"

#include <algorithm>
#include <cmath>
#include <random>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::net {
namespace {

using std::chrono::milliseconds;

// A day: further off than any run waits, near enough that no arithmetic overflows.
constexpr milliseconds kHintMax = std::chrono::hours{24};

std::optional<milliseconds> bounded_ms(double ms) {
  if (!(ms >= 0)) return std::nullopt;
  return milliseconds(
      static_cast<std::int64_t>(std::ceil(std::min(ms, static_cast<double>(kHintMax.count())))));
}

std::optional<milliseconds> until(SystemTime time, SystemTime now) {
  return bounded_ms(std::max(0.0, std::chrono::duration<double, std::milli>(time - now).count()));
}

/// "6m0s", "12ms", "1h2m3.5s" as milliseconds.
std::optional<double> parse_units_ms(std::string_view text) {
  double total = 0;
  while (!text.empty()) {
    const std::size_t unit_begin = text.find_first_not_of("0123456789.");
    if (unit_begin == 0 || unit_begin == std::string_view::npos) return std::nullopt;
    const std::size_t unit_end =
        std::min(text.find_first_of("0123456789.", unit_begin), text.size());
    const auto number = parse_double(text.substr(0, unit_begin));
    const std::string_view unit = text.substr(unit_begin, unit_end - unit_begin);
    if (!number) return std::nullopt;
    const double factor = unit == "ms"  ? 1
                          : unit == "s" ? 1e3
                          : unit == "m" ? 60e3
                          : unit == "h" ? 3600e3
                          : unit == "d" ? 86400e3
                                        : -1;
    if (factor < 0) return std::nullopt;
    total += *number * factor;
    text.remove_prefix(unit_end);
  }
  return total;
}

std::optional<milliseconds> read_used_up_limits(const Headers& headers, SystemTime now) {
  std::optional<milliseconds> latest;
  for (const std::string_view kind : {"", "-requests", "-tokens"}) {
    const auto left = headers.get("x-ratelimit-remaining" + std::string(kind));
    const auto reset = headers.get("x-ratelimit-reset" + std::string(kind));
    if (!left || !reset || parse_double(trim(*left)).value_or(1) > 0) continue;
    const auto delay = read_reset(*reset, now);
    if (delay && (!latest || *delay > *latest)) latest = delay;
  }
  return latest;
}

std::optional<milliseconds> read_delay(const Headers& headers, SystemTime now) {
  if (const auto text = headers.get("retry-after-ms")) {
    if (const auto ms = parse_double(trim(*text)); ms && *ms >= 0) return bounded_ms(*ms);
  }
  if (const auto text = headers.get("retry-after")) {
    if (const auto seconds = parse_double(trim(*text))) {
      if (*seconds >= 0) return bounded_ms(*seconds * 1e3);
    } else if (const auto date = parse_http_date(trim(*text))) {
      return until(*date, now);
    }
  }
  return read_used_up_limits(headers, now);
}

bool cannot_change(int status) {
  return status == 400 || status == 401 || status == 403 || status == 404 || status == 413 ||
         status == 422;
}

bool default_decision(const HttpResponse& response, const RetryHint& hint) {
  if (response.status < 400 || hint.should_retry == false) return false;
  if (is_retryable_status(response.status)) return true;
  return hint.should_retry == true && !cannot_change(response.status);
}

double uniform_of_this_thread() {
  thread_local std::minstd_rand generator{std::random_device{}()};
  return std::uniform_real_distribution<double>(0.0, 1.0)(generator);
}

}  // namespace

double random_of(const RetryEnvironment& environment) {
  return environment.random ? environment.random() : uniform_of_this_thread();
}

namespace {

/// One call of send_with_retries().
class RetryLoop {
 public:
  RetryLoop(HttpClient& client, const HttpRequest& request, const RetryPolicy& policy,
            const CallContext& context, const RetryEnvironment& environment,
            const RetryDecision& decision)
      : client_(client),
        request_(&request),
        policy_(policy),
        context_(context),
        environment_(environment),
        decision_(decision),
        guard_(client.hosts().of(request.url)) {
    if (request.on_body) watch_sink();
    guard_->budget.deposit(now());
  }

  RetryOutcome run();

 private:
  std::optional<CircuitBreaker::Attempt> ask_breaker();
  void tell_breaker(CircuitBreaker::Attempt& attempt, const HttpResponse& response) const;
  void tell_breaker(CircuitBreaker::Attempt& attempt, const TransportError& error) const;
  bool answered(HttpResponse response);
  void failed(const TransportError& error);
  void watch_sink();
  void use_fresh_connection();
  bool is_stale_connection(const TransportError& error) const;
  milliseconds delay(std::optional<milliseconds> hint);
  bool fits(milliseconds delay) const;
  void sleep(milliseconds delay);
  void begin_again();
  ErrorInfo info(CallEnd end) const;
  int retries_max() const { return context_.retries.value_or(policy_.retries); }
  SteadyTime now() const { return environment_.clock->steady_now(); }
  double random() { return random_of(environment_); }
  HttpRequest& own_request() {
    if (!own_request_) own_request_ = *request_;
    request_ = &*own_request_;
    return *own_request_;
  }

  HttpClient& client_;
  const HttpRequest* request_;              // the caller's, or
  std::optional<HttpRequest> own_request_;  // a changed copy, made only when something must change
  const RetryPolicy& policy_;
  const CallContext& context_;
  const RetryEnvironment& environment_;
  const RetryDecision& decision_;
  const std::shared_ptr<HostGuard> guard_;

  RetryOutcome outcome_;
  int retries_ = 0;
  bool free_retry_used_ = false;
  bool sink_has_pieces_ = false;
  CircuitBreaker::Attempt* under_way_ = nullptr;  // while send() runs
  std::exception_ptr cause_;
};

RetryOutcome RetryLoop::run() {
  for (;;) {
    if (context_.cancelled()) throw TimeoutError("cancelled", info(CallEnd::kCancelled));
    if (context_.expired(*environment_.clock)) {
      throw TimeoutError("the deadline has passed", info(CallEnd::kDeadline));
    }
    auto admitted = ask_breaker();
    if (!admitted) continue;
    ++outcome_.attempts;
    try {
      under_way_ = &*admitted;
      HttpResponse response = client_.send(*request_, context_);
      tell_breaker(*admitted, response);
      if (answered(std::move(response))) return std::move(outcome_);
    } catch (const TransportError& error) {
      tell_breaker(*admitted, error);
      cause_ = std::current_exception();
      if (error.delivery() != Delivery::kNotSent) outcome_.maybe_accepted = true;
      failed(error);
    }
    begin_again();
  }
}

/// Nothing when it has waited for the open breaker, which may be asked again; throws when the call
/// cannot wait for it.
std::optional<CircuitBreaker::Attempt> RetryLoop::ask_breaker() {
  CircuitBreaker::Admission admission = guard_->breaker.admit(now());
  if (admission.attempt) return std::move(admission.attempt);
  // Spread, so that those who wait for one probe do not all come at once.
  auto wait = std::chrono::ceil<milliseconds>(admission.wait);
  wait += milliseconds(static_cast<std::int64_t>(random() * static_cast<double>(wait.count())));
  if (retries_ >= retries_max() || !fits(wait)) {
    outcome_.retry_at = environment_.clock->system_now() + wait;
    throw Unavailable("not tried: the host has been failing", info(CallEnd::kBreakerOpen));
  }
  ++retries_;
  sleep(wait);
  return std::nullopt;
}

/// A host that answers lives, also when it refuses, and when it steers its load by a hint.
void RetryLoop::tell_breaker(CircuitBreaker::Attempt& attempt, const HttpResponse& response) const {
  const int status = response.status;
  const bool steers =
      status == 503 &&
      read_retry_hint(response.headers, environment_.clock->system_now()).delay.has_value();
  const bool broken = status == 500 || status == 502 || status == 503 || status == 504;
  if (broken && !steers) return attempt.failed(now());
  attempt.succeeded();
}

void RetryLoop::tell_breaker(CircuitBreaker::Attempt& attempt, const TransportError& error) const {
  const bool host_failed = error.failure() == TransportFailure::kConnect ||
                           error.failure() == TransportFailure::kTimeout ||
                           error.failure() == TransportFailure::kReset;
  // A caller in a hurry says nothing about the host.
  const bool hurried =
      error.failure() == TransportFailure::kTimeout && context_.expired(*environment_.clock);
  if (host_failed && !hurried && !is_stale_connection(error)) attempt.failed(now());
}

/// True when the answer stands; otherwise it has slept and another attempt is due.
bool RetryLoop::answered(HttpResponse response) {
  if (response.status < 400 && !decision_) {  // nearly every call: no hint is worth reading
    outcome_.response = std::move(response);
    outcome_.end = CallEnd::kNone;
    return true;
  }
  const SystemTime time = environment_.clock->system_now();
  const bool is_error = response.status >= 400;
  const RetryHint hint = is_error ? read_retry_hint(response.headers, time) : RetryHint{};
  const bool worth = decision_ ? decision_(response) : default_decision(response, hint);
  if (is_error && hint.delay) outcome_.retry_at = time + *hint.delay;
  outcome_.response = std::move(response);
  if (!worth) {
    outcome_.end = is_error ? CallEnd::kPermanent : CallEnd::kNone;
    return true;
  }
  if (retries_ >= retries_max() || !guard_->budget.withdraw(now())) {
    outcome_.end = CallEnd::kExhausted;
    return true;
  }
  const milliseconds wait = delay(hint.delay);
  if (!fits(wait)) {
    outcome_.end = CallEnd::kDeadline;
    return true;
  }
  if (!is_error) outcome_.maybe_accepted = true;  // it was carried out, and is asked for again
  sleep(wait);
  outcome_.response = {};  // so that a later failure does not speak with this answer's words
  outcome_.retry_at.reset();
  return false;
}

/// Returns when another attempt is due; throws when there is none.
void RetryLoop::failed(const TransportError& error) {
  const std::string what = "no answer: " + error.summary();
  switch (error.failure()) {
    case TransportFailure::kCancelled:
      throw TimeoutError("cancelled", info(CallEnd::kCancelled));
    case TransportFailure::kTls:
    case TransportFailure::kInvalid:
      throw Unavailable(what, info(CallEnd::kPermanent));
    case TransportFailure::kTooLarge:
    case TransportFailure::kMalformed:
      throw InvalidResponse(error.summary(), info(CallEnd::kPermanent));
    case TransportFailure::kAborted:
      if (error.info().cause) std::rethrow_exception(error.info().cause);
      throw Unavailable(what, info(CallEnd::kPermanent));
    case TransportFailure::kTimeout:
    case TransportFailure::kConnect:
    case TransportFailure::kReset:
      break;
  }
  if (context_.expired(*environment_.clock)) throw TimeoutError(what, info(CallEnd::kDeadline));
  if (sink_has_pieces_ && !request_->on_restart) {
    throw Unavailable("the answer broke off: " + error.summary(), info(CallEnd::kExhausted));
  }
  if (is_stale_connection(error)) return use_fresh_connection();
  if (retries_ >= retries_max()) throw Unavailable(what, info(CallEnd::kExhausted));
  if (!guard_->budget.withdraw(now())) {
    throw Unavailable(what + "; too many calls to this host are being retried",
                      info(CallEnd::kExhausted));
  }
  const milliseconds wait = delay(std::nullopt);
  if (!fits(wait)) throw TimeoutError(what, info(CallEnd::kDeadline));
  sleep(wait);
}

void RetryLoop::watch_sink() {
  own_request().on_body = [this, sink = request_->on_body](std::string_view piece) {
    // A stream may not end for hours: that it comes is all the news there is of the host.
    if (!std::exchange(sink_has_pieces_, true)) under_way_->succeeded();
    return sink(piece);
  };
}

bool RetryLoop::is_stale_connection(const TransportError& error) const {
  return !free_retry_used_ && error.failure() == TransportFailure::kReset &&
         error.reused_connection() && error.delivery() != Delivery::kResponseStarted;
}

void RetryLoop::use_fresh_connection() {
  free_retry_used_ = true;
  own_request().fresh_connection = true;
}

/// Counts one retry and says how long to wait for it.
milliseconds RetryLoop::delay(std::optional<milliseconds> hint) {
  ++retries_;
  const double cap = static_cast<double>(policy_.cap.count());
  const double ceiling = std::min(
      cap, static_cast<double>(policy_.base.count()) * std::pow(policy_.factor, retries_ - 1));
  auto wait = milliseconds(static_cast<std::int64_t>(random() * ceiling));
  if (hint) {
    // Upwards only: before the hint the answer would be the same.
    const double spread = 0.1 * random() * static_cast<double>(hint->count());
    wait = std::max(wait, *hint + milliseconds(static_cast<std::int64_t>(spread)));
  }
  return wait;
}

bool RetryLoop::fits(milliseconds wait) const {
  return wait <= policy_.wait_max && wait < context_.remaining(*environment_.clock);
}

void RetryLoop::sleep(milliseconds wait) {
  if (wait.count() > 0 && !environment_.clock->sleep_for(wait, context_.stop)) {
    throw TimeoutError("cancelled", info(CallEnd::kCancelled));
  }
}

void RetryLoop::begin_again() {
  if (request_->body_source) request_->body_source->rewind();
  if (sink_has_pieces_ && request_->on_restart) request_->on_restart(own_request().headers);
  sink_has_pieces_ = false;
}

ErrorInfo RetryLoop::info(CallEnd end) const {
  ErrorInfo info;
  info.end = end;
  info.attempts = outcome_.attempts;
  info.maybe_accepted = outcome_.maybe_accepted;
  info.status = outcome_.response.status;
  info.retry_at = outcome_.retry_at;
  info.cause = cause_;
  return info;
}

}  // namespace

std::optional<milliseconds> read_reset(std::string_view text, SystemTime now) {
  text = trim(text);
  if (text.empty()) return std::nullopt;
  if (const auto number = parse_double(text)) {
    constexpr double kEpochSeconds = 1e9;  // September 2001; as a delay 31 years
    constexpr double kEpochMs = 1e12;
    if (*number < kEpochSeconds) return bounded_ms(*number * 1e3);
    const auto time = from_unix_seconds(*number < kEpochMs ? *number : *number / 1e3);
    return time ? until(*time, now) : std::nullopt;
  }
  if (const auto time = parse_rfc3339(text)) return until(*time, now);
  const auto ms = parse_units_ms(text);
  return ms ? bounded_ms(*ms) : std::nullopt;
}

RetryHint read_retry_hint(const Headers& headers, SystemTime now) {
  RetryHint hint;
  hint.delay = read_delay(headers, now);
  if (const auto text = headers.get("x-should-retry")) {
    if (iequals(trim(*text), "true")) hint.should_retry = true;
    if (iequals(trim(*text), "false")) hint.should_retry = false;
  }
  return hint;
}

bool is_retryable_status(int status) {
  switch (status) {
    case 408:
    case 425:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      return true;
    default:
      return false;
  }
}

RetryOutcome send_with_retries(HttpClient& client, const HttpRequest& request,
                               const RetryPolicy& policy, const CallContext& context,
                               const RetryEnvironment& environment,
                               const RetryDecision& worth_retrying) {
  return RetryLoop(client, request, policy, context, environment, worth_retrying).run();
}

}  // namespace necrocode::net
