// The retry loop: the only one in necrocode. Policy (immutable), hints (from each answer), one
// loop.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "necrocode/base/call_context.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::net {

/// Delay of retry n (from 1), full-jitter exponential: uniform in [0, min(cap, base ·
/// factor^(n-1))], and at least the server's hint (plus up to 10 % so that clients do not come back
/// in step).
struct RetryPolicy {
  int retries = 3;
  std::chrono::milliseconds base{1'000};
  double factor = 2.0;
  std::chrono::milliseconds cap{60'000};
  /// The longest delay that is slept. A hint beyond it ends the call with `retry_at`, as one beyond
  /// the deadline does: a call without a deadline must not sleep for a day because a server says
  /// so.
  std::chrono::milliseconds wait_max{300'000};
};

/// What an answer says about trying again.
struct RetryHint {
  /// retry-after-ms, else Retry-After (seconds or date, RFC 9110 section 10.2.3), else the latest
  /// x-ratelimit-reset[-requests|-tokens] of those whose remaining count is 0. Bounded to 24 h;
  /// what is negative or cannot be read is no hint.
  std::optional<std::chrono::milliseconds> delay;
  std::optional<bool> should_retry;  ///< x-should-retry
};
RetryHint read_retry_hint(const Headers& headers, SystemTime now);
/// How long until a limit is reset, as providers write it: a duration ("6m0s", "12ms"), bare
/// seconds, epoch seconds or milliseconds, or RFC 3339. Not negative, bounded to 24 h; nothing when
/// it cannot be read.
std::optional<std::chrono::milliseconds> read_reset(std::string_view text, SystemTime now);

/// 408, 425, 429, 500, 502, 503, 504.
bool is_retryable_status(int status);

/// Time and chance, for tests.
struct RetryEnvironment {
  const Clock* clock = &real_clock();
  std::function<double()>
      random;  ///< uniform in [0, 1); empty: a seeded generator of the thread's own
};

/// The environment's next random number.
double random_of(const RetryEnvironment& environment);

/// The final answer of all attempts, of whatever status, and how it came about.
struct RetryOutcome {
  HttpResponse response;
  int attempts = 0;
  /// Why there was no further attempt: kNone for a status below 400, else kPermanent, kExhausted or
  /// kDeadline.
  CallEnd end = CallEnd::kNone;
  bool maybe_accepted = false;         ///< an earlier attempt may have been carried out, unanswered
  std::optional<SystemTime> retry_at;  ///< when the answer's hint says that trying again may help
};

/// Says of an answer whether it is worth another attempt. Default: x-should-retry: false never,
/// otherwise by status; x-should-retry: true also other statuses from 400 on, but not those that
/// cannot change by themselves (400, 401, 403, 404, 413, 422).
using RetryDecision = std::function<bool(const HttpResponse&)>;

/// Sends until an answer stands. Any final status is an outcome, also an error's: the caller maps
/// it. A reset on a reused connection before any byte of the answer gets one free retry at once, on
/// a fresh connection. A BodySource is rewound before each further attempt. Once on_body has had
/// pieces there is no further attempt, unless on_restart is set. What on_body or a BodySource
/// throws comes through as it is; false from on_body is Unavailable with kPermanent.
///
/// All calls to one host share its HostGuard (host_guard.hpp). A retry that its budget has no token
/// for is not made: the call ends as kExhausted. While its breaker is open nothing is sent; the
/// call waits for the breaker as for a retry, and ends as kBreakerOpen where it has none left or
/// cannot wait that long.
///
/// Throws, with ErrorInfo::end, attempts, maybe_accepted, retry_at and the cause:
///  - TimeoutError: kDeadline (also when the next attempt could not begin before it: a hint beyond
///    the deadline sets retry_at) or kCancelled. What ran out of the caller's own deadline says
///    nothing to the host's breaker;
///  - Unavailable: no answer came; kExhausted, kBreakerOpen (with retry_at) or kPermanent (TLS,
///    invalid request);
///  - InvalidResponse: too large or malformed (kPermanent).
/// ErrorInfo::maybe_accepted is set when any of the attempts may have been carried out.
/// When the deadline leaves no room for a further attempt after a retryable *answer*, that answer
/// is the outcome (so that its own words are told), and its `retry_at` is the caller's to compute.
RetryOutcome send_with_retries(HttpClient& client, const HttpRequest& request,
                               const RetryPolicy& policy, const CallContext& context,
                               const RetryEnvironment& environment = {},
                               const RetryDecision& worth_retrying = {});

}  // namespace necrocode::net
