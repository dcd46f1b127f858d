// RateGovernor: how many requests and tokens a key may send to a model, kept by all threads of a
// process together.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "necrocode/base/call_context.hpp"
#include "necrocode/base/clock.hpp"
#include "necrocode/net/http.hpp"

namespace necrocode::llm {

/// Of one key and model. What is not above 0 is no limit.
struct RateLimits {
  double requests_per_minute = 0;
  double tokens_per_minute = 0;
  std::chrono::milliseconds min_interval{0};  ///< between the begins of two requests
};

/// What limits are kept by: one key at one service for one model. Does not tell the key.
std::string rate_key(const std::string& origin, std::string_view api_key, std::string_view model);

/// Lets requests begin in the order in which they were asked for, no faster than the caller's own
/// limits, and no faster than the service says. Thread-safe; one for all clients of a process.
///
/// A limit of N a minute is a bucket of N that is refilled evenly: a key that has been idle may
/// send N at once, then one each 60/N s. That is how Anthropic counts, and what OpenAI's and
/// others' windows allow an idle key; a smaller bucket would make a short run wait for nothing.
/// Where a service allows less at once, its headers and 429s say so, and count.
class RateGovernor {
  struct Lane;

 public:
  /// The right to send one request. Move-only; may outlive the governor.
  class Permit {
   public:
    Permit() = default;  ///< of nothing
    Permit(Permit&&) = default;
    Permit& operator=(Permit&&) = default;
    /// What the request really took, once: the difference to the estimate goes back into the
    /// bucket, or is owed by the next requests. Without it the estimate stands.
    void settle(std::int64_t actual_tokens);

   private:
    friend class RateGovernor;
    Permit(std::shared_ptr<Lane> lane, std::int64_t tokens)
        : lane_(std::move(lane)), tokens_(tokens) {}

    std::shared_ptr<Lane> lane_;
    std::int64_t tokens_ = 0;
  };

  explicit RateGovernor(const Clock& clock = real_clock());
  ~RateGovernor();
  RateGovernor(const RateGovernor&) = delete;
  RateGovernor& operator=(const RateGovernor&) = delete;

  /// Waits for the turn of one request of about `tokens` tokens under `key` (rate_key()). The
  /// newest `limits` of a key count. A request larger than the whole bucket goes when that is full,
  /// and those behind it wait until it is paid for.
  ///
  /// Throws TimeoutError: kCancelled (within 50 ms of the stop), kDeadline (that had passed
  /// before); RateLimited: kDeadline, at once, when the turn cannot come before the deadline,
  /// kExhausted when 1,000 already wait for this key; both with retry_at, when the turn would come;
  /// ResourceLimitError: more than 1,000 keys in use at once.
  [[nodiscard]] Permit acquire(const std::string& key, const RateLimits& limits,
                               std::int64_t tokens, const CallContext& context);

  /// What an answer says, whatever its status.
  ///  - 429, and 503 and 529 with a hint (net::read_retry_hint()): every caller of the key waits
  ///    until then. A 429 without one: for 1 s, then 2 s … 60 s, until an answer below 400.
  ///  - x-ratelimit-{limit,remaining,reset}[-requests|-tokens] and
  ///    anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}:
  ///    no more than what remains begins before the reset. What one answer says counts until its
  ///    reset, unless another says less.
  /// Waits are bounded to 24 h; what cannot be read is ignored.
  void learn(const std::string& key, int status, const net::Headers& headers);

  /// How many wait for their turn under `key`.
  std::size_t waiting(const std::string& key) const;

 private:
  std::shared_ptr<Lane> lane_of(const std::string& key);

  const Clock& clock_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Lane>> lanes_;
  std::uint64_t uses_ = 0;  // of lanes, to know the one not used for longest
};

}  // namespace necrocode::llm
