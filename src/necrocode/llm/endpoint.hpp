// ModelEndpoint: one model service under one key: what is sent to it, how it is asked again, what
// it has taught about itself, and what its answers mean. Which endpoint is asked, and what is made
// of the answer, is LLMClient's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/call_context.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/base/trace_context.hpp"
#include "necrocode/llm/capabilities.hpp"
#include "necrocode/llm/dialect.hpp"
#include "necrocode/llm/llm_config.hpp"
#include "necrocode/llm/rate_governor.hpp"

namespace necrocode::llm {

class AnswerStream;

class ModelEndpoint;

/// What of one call is told, by its errors, its log record and its report.
struct ModelCall {
  std::string operation;                 ///< the client's method
  const ModelEndpoint* asked = nullptr;  ///< the last one; null before anything was sent
  int attempts = 0;
  int status = 0;               ///< the asked one's, as are the next and `partial`
  std::string request_id;       ///< masked
  std::string partial;          ///< what came of an answer that broke off; raw
  bool maybe_accepted = false;  ///< an attempt may have been carried out, unanswered
  Usage usage;                  ///< also of answers that cannot be used or broke off
  std::optional<TraceContext> span;
  std::string parent_span_id;
};

/// Thread-safe.
class ModelEndpoint {
 public:
  /// `config` was checked, and its shared parts are all set. `masker` knows all keys of the client:
  /// what one service says may hold another's.
  ModelEndpoint(LLMConfig config, std::shared_ptr<const Masker> masker);

  /// One exchange, retries included; streamed where `stream` and the endpoint allows it. Fills
  /// `call` as it goes. Throws what LLMClient throws, its info not completed yet.
  ChatResponse ask(ModelCall& call, ChatRequest request, bool stream, const OnDelta& on_delta,
                   const CallContext& context) const;
  /// The ids that GET /models names. Throws as ask().
  std::vector<std::string> models(ModelCall& call, const CallContext& context) const;
  /// GET /models, once, within 5 s: its status. Throws TransportError.
  int probe() const;
  net::BreakerState breaker() const;

  /// What errors and logs may show of the service's words: masked, one line, bounded.
  std::string safe(std::string_view text) const;
  /// The same of an answer's beginning, as it is.
  std::string safe_partial(std::string_view text) const;

  const LLMConfig& config() const { return config_; }
  const std::string& base() const { return base_; }
  const Masker& masker() const { return *masker_; }
  Capabilities capabilities() const;

 private:
  net::HttpRequest build(const ChatRequest& request, const Capabilities& used, bool stream,
                         const CallContext& context) const;
  void set_timeouts(net::HttpTimeouts& timeouts, bool stream, const CallContext& context) const;
  net::HttpRequest bare_request(std::string_view path) const;
  std::chrono::milliseconds progress_timeout(const CallContext& context) const;
  std::chrono::milliseconds attempt_timeout(const CallContext& context) const;
  std::optional<Completion> exchange(ModelCall& call, const ChatRequest& request,
                                     Capabilities& used, bool may_stream, const OnDelta& on_delta,
                                     const CallContext& context) const;
  std::optional<Completion> converse(ModelCall& call, const ChatRequest& request,
                                     Capabilities& used, bool streamed, AnswerStream& stream,
                                     const CallContext& context) const;
  void begin(ModelCall& call) const;
  std::string request_id_of(const net::Headers& headers) const;
  Usage price(Usage usage, const std::string& answered = {}) const;

  LLMConfig config_;
  const Dialect& dialect_;
  std::string base_;         // without slash and query
  std::string query_;        // with its "?", or empty
  std::string service_key_;  // of what is known of it
  std::string rate_key_;
  RateLimits limits_;
  net::Headers headers_;  // of every request: the key, and what the dialect always sends
  std::shared_ptr<const Masker> masker_;
};

/// What is wrong in the configuration: ConfigError with all of it.
void check(const LLMConfig& config);
/// What is wrong in the question: TaskContextValidationError with all of it.
void check(const ChatRequest& request);

}  // namespace necrocode::llm
