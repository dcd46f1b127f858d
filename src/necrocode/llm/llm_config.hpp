// LLMConfig: whom to ask, how, and within which limits. What is wrong in it is a ConfigError of
// LLMClient's constructor, which names all defects at once.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "necrocode/base/secret.hpp"
#include "necrocode/net/http_client.hpp"
#include "necrocode/net/retry.hpp"

namespace necrocode {

namespace llm {
class CapabilityTable;
class PriceTable;
class RateGovernor;
struct ModelCallReport;
}  // namespace llm

/// The defaults are documented ones that programs rely on (SPEC section 5).
struct LLMConfig {
  /// Sent as the dialect has it: Bearer, `x-api-key` (anthropic), or `api-key` (Azure); empty: none
  /// is sent.
  Secret api_key;
  std::string model = "gpt-4";
  /// The dialect's path is added. Of Azure with its `?api-version=…`, which stays behind it.
  std::string endpoint = "https://api.openai.com/v1";
  /// One attempt: of a whole answer until its last byte, of a streamed one until its first byte;
  /// that one may then take ten times as long, as long as it makes progress. Above 0, at most
  /// 86,400.
  double timeout_seconds = 120;
  int max_tokens = 4000;                 ///< of an answer, when the request names none; at least 1
  double temperature = 0.2;              ///< 0 to 2, when the request names none
  std::string provider = "openai-chat";  ///< or openai-responses, anthropic: the dialect

  double connect_timeout_seconds = 10;  ///< name, connection, TLS
  double idle_timeout_seconds = 0;      ///< between two bytes of a stream; 0: timeout_seconds
  double progress_timeout_seconds = 0;  ///< between two pieces of content; 0: timeout_seconds

  /// Of this key and model, for all callers of one governor; 0: no limit but what the service says.
  double requests_per_minute = 0;
  double tokens_per_minute = 0;
  /// Seconds between the begins of two requests; not kept towards this machine's own services.
  double min_request_interval = 0.1;

  /// Asked in this order when the one before cannot answer (see LLMClient). What is null in them is
  /// taken from here; their own fallbacks are not looked at.
  std::vector<LLMConfig> fallbacks{};

  net::RetryPolicy retry{};
  std::shared_ptr<net::HttpClient> http{};               ///< the shared one when null
  std::shared_ptr<llm::RateGovernor> governor{};         ///< one of the client's own when null
  std::shared_ptr<llm::CapabilityTable> capabilities{};  ///< one of the client's own when null
  std::shared_ptr<const llm::PriceTable> prices{};       ///< null: no cost is known
  /// Gets each call but health_check() when it has ended, on its thread. Must not throw or wait.
  std::function<void(const llm::ModelCallReport&)> on_call{};
  net::RetryEnvironment environment{};
};

/// The prompt is longer than the model can read: a 400 that a shorter prompt may avoid.
class ContextLengthExceeded : public ServiceError {
 public:
  using ServiceError::ServiceError;
};

}  // namespace necrocode
