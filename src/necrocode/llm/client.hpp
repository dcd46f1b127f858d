// LLMClient: one question to a language model service, answered or refused with a true reason.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "necrocode/base/call_context.hpp"
#include "necrocode/llm/llm_config.hpp"
#include "necrocode/llm/model.hpp"
#include "necrocode/llm/spending.hpp"
#include "necrocode/net/service_caller.hpp"

namespace necrocode {

using LLMResponse = llm::LLMResponse;
using ChatRequest = llm::ChatRequest;
using ChatResponse = llm::ChatResponse;

/// Thread-safe. An answer is at most limits::kModelAnswerBytes. What a 400 teaches about an
/// endpoint (json_schema, max_completion_tokens, temperature, streaming) is remembered and does not
/// count as an attempt. All questions take their turn from the governor; one loop retries (see
/// net/retry.hpp), also an answer that broke off, whole. An answer is never asked for again because
/// of its content.
///
/// Fallbacks are asked in order when the one before ended with Unauthorized, RateLimited,
/// Unavailable, NotFound, ContextLengthExceeded or InvalidResponse, or with a TimeoutError before
/// the context's deadline; the error of the last one asked is thrown, but where that was out of
/// reach the RateLimited of one that said when it will answer. A request that was refused as such
/// (400, 422, content filter), an answer that cannot be used, a cancel and a reached cap end the
/// call.
///
/// Errors, all with service "llm", the service's own words masked and shortened to 500 bytes, what
/// had come of the answer in `partial` (masked, at most 64 KiB): Unauthorized (401, 403);
/// RateLimited (429; end kPermanent for an exhausted quota (also 402), never retried; retry_at when
/// the service gave a hint, end kDeadline when it lies beyond the deadline); SpendCapReached, a
/// RateLimited, before anything is sent; ContextLengthExceeded; ServiceError with its status (400,
/// 404, 413, 422, a redirect; never retried); Unavailable (5xx, no connection, cut off);
/// TimeoutError (silence, no progress, deadline, cancel); InvalidResponse (200 that is not a
/// completion: HTML, {"error"}, no choices; malformed or endless); ImplementationError (a
/// completion that cannot be used: cut off by length, refused, filtered, empty or null content, no
/// code-change JSON, tool arguments that are no JSON object); SecurityError (refused paths);
/// TaskContextValidationError (the request itself: no messages, an unknown role, a tool without a
/// usable name …).
///
/// `spending`, where a call takes it, is asked before anything is sent and told what was used, also
/// by attempts that failed and answers that cannot be used.
class LLMClient {
 public:
  /// Throws ConfigError, naming all defects: endpoint not http(s), or with credentials or another
  /// query than Azure's; key with CR, LF or another byte that is not visible ASCII; key over plain
  /// http to another host than loopback; unknown provider; a number out of its range; the same of
  /// a fallback.
  explicit LLMClient(LLMConfig config = {});
  ~LLMClient();
  LLMClient(LLMClient&&) noexcept;

  /// Asks for code changes, streamed where the endpoint allows it. `workspace_path` is told to the
  /// log only; the prompt must already hold what the model is to see. `max_tokens` 0: the
  /// configuration's.
  LLMResponse generate_code(const std::string& prompt,
                            const std::filesystem::path& workspace_path = {}, int max_tokens = 0,
                            const CallContext& context = {}, llm::Spending* spending = nullptr);
  /// One exchange, its answer in one piece; what a request leaves out comes from the configuration.
  ChatResponse chat(const ChatRequest& request, const CallContext& context = {},
                    llm::Spending* spending = nullptr);
  /// The same, streamed: `on_delta` gets the pieces as they come (of a service that does not
  /// stream, all at once), and ChatDelta::kRestart when they are void. What it throws ends the call
  /// and comes through. The answer that counts is the returned one.
  ChatResponse stream(const ChatRequest& request, const llm::OnDelta& on_delta,
                      const CallContext& context = {}, llm::Spending* spending = nullptr);
  /// The ids of GET {endpoint}/models, of the first endpoint; 5 s an attempt. Errors as above.
  std::vector<std::string> models(const CallContext& context = {});
  /// GET {endpoint}/models, once, within 5 s. Never throws; healthy for any answer but 401, 403 and
  /// 5xx.
  net::HealthStatus health_check();

  const std::string& model() const;     ///< the configured one
  const std::string& endpoint() const;  ///< without a slash at the end
  /// What is known of the first endpoint, e.g. {"format":"json_schema","stream":true,…}.
  Json capabilities() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode
