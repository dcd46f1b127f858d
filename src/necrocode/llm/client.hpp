// LLMClient: one question to a language model service, answered or refused with a true reason.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "necrocode/base/call_context.hpp"
#include "necrocode/base/secret.hpp"
#include "necrocode/llm/model.hpp"
#include "necrocode/net/http_client.hpp"
#include "necrocode/net/retry.hpp"
#include "necrocode/net/service_caller.hpp"

namespace necrocode {

/// Whom to ask, and how. The defaults are documented ones that programs rely on (SPEC section 5).
struct LLMConfig {
  Secret api_key;  ///< sent as Bearer; empty: none is sent
  std::string model = "gpt-4";
  std::string endpoint = "https://api.openai.com/v1";  ///< /chat/completions is added
  double timeout_seconds = 120;                        ///< one attempt; above 0, at most 86,400
  int max_tokens = 4000;                 ///< of an answer, when the request names none; at least 1
  double temperature = 0.2;              ///< 0 to 2, when the request names none
  std::string provider = "openai-chat";  ///< the dialect; the only one so far
  net::RetryPolicy retry;
  std::shared_ptr<net::HttpClient> http;  ///< the shared one when null
  net::RetryEnvironment environment;
};

/// The prompt is longer than the model can read: a 400 that a shorter prompt may avoid.
class ContextLengthExceeded : public ServiceError {
 public:
  using ServiceError::ServiceError;
};

using LLMResponse = llm::LLMResponse;
using ChatRequest = llm::ChatRequest;
using ChatResponse = llm::ChatResponse;

/// Thread-safe. An answer is at most limits::kModelAnswerBytes. What a 400 teaches about the
/// endpoint (json_schema, max_completion_tokens, temperature) is remembered and does not count as
/// an attempt. Errors, all with service "llm", the service's own words masked and shortened to 500
/// bytes: Unauthorized (401, 403); RateLimited (429; end kPermanent for an exhausted quota (also
/// 402), never retried; retry_at when the service gave a hint, end kDeadline when it lies beyond
/// the deadline); ContextLengthExceeded; ServiceError with its status (400, 404, 413, 422, a
/// redirect; never retried); Unavailable (5xx, no connection, cut off); TimeoutError (silence,
/// deadline, cancel); InvalidResponse (200 that is not a completion: HTML, {"error"}, no choices;
/// malformed or endless); ImplementationError (a completion that cannot be used: cut off by length,
/// refused, filtered, empty or null content, no code-change JSON); SecurityError (refused paths).
class LLMClient {
 public:
  /// Throws ConfigError, naming all defects: endpoint not http(s), or with credentials or a query;
  /// key with CR, LF or another byte that is not visible ASCII; key over plain http to another host
  /// than loopback; unknown provider; a number out of its range.
  explicit LLMClient(LLMConfig config = {});
  ~LLMClient();
  LLMClient(LLMClient&&) noexcept;

  /// Asks for code changes. `workspace_path` is told to the log only; the prompt must already hold
  /// what the model is to see. `max_tokens` 0: the configuration's. `spent`: the answer's usage,
  /// set also when it cannot be used and this throws.
  LLMResponse generate_code(const std::string& prompt,
                            const std::filesystem::path& workspace_path = {}, int max_tokens = 0,
                            const CallContext& context = {}, llm::Usage* spent = nullptr);
  /// One exchange as it is; what a request leaves out comes from the configuration.
  ChatResponse chat(const ChatRequest& request, const CallContext& context = {});
  /// GET {endpoint}/models, once, within 5 s. Never throws; healthy for any answer but 401, 403 and
  /// 5xx.
  net::HealthStatus health_check();

  const std::string& model() const;     ///< the configured one
  const std::string& endpoint() const;  ///< without a slash at the end

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode
