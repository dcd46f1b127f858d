// MeteringProxy: a model service's front for programs that we do not control. A program gets a
// loopback address and a dummy key of its run; the real key is added on the way out, and what goes
// through is counted, capped and classed. Requests and answers themselves go through unchanged, but
// for a key that a service tells: the program gets "***".
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/base/secret.hpp"
#include "necrocode/llm/metering.hpp"
#include "necrocode/llm/prices.hpp"
#include "necrocode/llm/rate_governor.hpp"
#include "necrocode/llm/spend_ledger.hpp"
#include "necrocode/net/http_client.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::llm {

/// A service behind the proxy. Those called "openai" and "anthropic" are asked by the dialect where
/// the address names no provider: Chat Completions and Responses at the one, Messages at the other.
struct ModelProvider {
  std::string name;      ///< [a-z0-9][a-z0-9_-]*: the first part of its address's path
  std::string endpoint;  ///< as LLMConfig::endpoint: https://api.openai.com/v1
  Secret api_key;        ///< empty: none is added
};

/// One exchange, when it has ended.
struct ExchangeReport {
  std::string provider;
  std::string model;  ///< that was asked for, or as far as it is known that answered
  std::string path;   ///< of the request
  ExchangeClass how = ExchangeClass::kOk;
  int status = 0;      ///< that the program saw; 0: none
  std::string detail;  ///< why it failed, masked, one line; else empty
  Usage usage;         ///< by the service's own counts, else estimated and marked so
  bool streamed = false;
  std::chrono::nanoseconds duration{0};
  Json to_json() const;
};

struct MeteredRunOptions {
  SpendAccount account;
  SpendCaps caps;
  /// No call is held back beyond it.
  SteadyTime deadline = SteadyTime::max();
  /// Gets each exchange when it has ended, on a thread of the proxy's. Must not throw or wait.
  std::function<void(const ExchangeReport&)> on_exchange;
  /// Each exchange with its bodies, masked, a JSON line each; empty: none is kept. Bounded by
  /// limits::kRecordedExchangesBytes.
  std::filesystem::path recording;
};

/// What a run's exchanges came to.
struct Metered {
  int calls = 0;    ///< that were forwarded
  int refused = 0;  ///< that were not, by caps
  Usage usage;      ///< the sum; cost_usd: nothing where one has no price
  /// The last exchange, or the one under way when it has been silent for `silence` (see
  /// MeteredRun::so_far()); nothing before the first.
  std::optional<ExchangeReport> last;
  /// The last exchange that failed, forgotten by a later one that did not: the failure for good, if
  /// there is one. kGone is no failure, and none is forgotten by it: a program that is ended while
  /// it tries again has failed all the same.
  std::optional<ExchangeReport> failure;
};

/// One run's leave to ask. Thread-safe. Ended by end(), or its destructor: exchanges under way are
/// broken off, its key is worth nothing any more.
class MeteredRun {
 public:
  virtual ~MeteredRun() = default;
  /// The dummy key: the program's OPENAI_API_KEY, ANTHROPIC_API_KEY and the like.
  virtual const std::string& key() const = 0;
  /// Accepts the program's connections from `listener`, until the run ends.
  virtual void accept_on(FileDescriptor listener) = 0;
  /// `silence`: an exchange without a byte for so long counts as kUnavailable in `last` and
  /// `failure`, although it is still under way.
  virtual Metered so_far(
      std::chrono::nanoseconds silence = std::chrono::nanoseconds::max()) const = 0;
  /// Ends the run: breaks off the exchanges under way, and counts them too. The last word.
  virtual Metered end() = 0;
};

struct MeteringProxyOptions {
  std::vector<ModelProvider> providers;
  std::shared_ptr<const PriceTable> prices = std::make_shared<const PriceTable>();
  /// Where runs of other processes see what is spent, and when a service wants to be left alone;
  /// empty: of this process alone.
  std::filesystem::path shared_state;
  RateLimits rates;  ///< of each key and model
  std::chrono::milliseconds first_byte_timeout{120'000};
  std::chrono::milliseconds idle_timeout{120'000};  ///< between two bytes of an answer
  /// Must know the providers' keys.
  std::shared_ptr<const Masker> masker = std::make_shared<const Masker>();
  /// One that keeps limits::kProxyExchanges connections to one host, or exchanges wait for each
  /// other; null: its own.
  std::shared_ptr<net::HttpClient> http;
  /// Shared with the process's model clients; null: its own.
  std::shared_ptr<RateGovernor> governor;
  net::HttpServerOptions server;
};

/// Passes on, for a run whose key a request carries (Authorization, x-api-key or api-key): POST to
/// model_routes(), POST /v1/messages/count_tokens, GET /v1/models; each also below /PROVIDER.
/// Anything else is a 404 that says what there is; another key is a 401.
///
/// Under a cap the worst that a call can cost is reserved first (docs/proxy.md has the rule); a
/// call for which there is no room, or no price, is answered with 402 in the API's own shape, and
/// never forwarded. A call that would have to wait beyond the run's deadline, or for more than five
/// minutes, is answered with 429 and Retry-After; one to a service whose breaker is open with 503.
/// The proxy repeats no call itself: the program does, or not. Only calls of models are counted:
/// lists of models and counts of tokens pass through.
///
/// Thread-safe. At most limits::kProxyExchanges at once, as many wait; above that 503.
class MeteringProxy {
 public:
  /// Throws ConfigError for an endpoint that is none, or a provider named twice; SecurityError for
  /// a key that would go over plain http to another machine; StorageError for shared state that
  /// cannot be opened.
  explicit MeteringProxy(MeteringProxyOptions options);
  ~MeteringProxy();  ///< stop()
  MeteringProxy(const MeteringProxy&) = delete;
  MeteringProxy& operator=(const MeteringProxy&) = delete;

  /// Throws ConfigError when the address cannot be bound.
  void start();
  void stop();  ///< Safe to call twice. Ends the exchanges under way.
  /// http://127.0.0.1:PORT: where the server's own address is; runs may have further listeners.
  std::string url() const;
  /// Must not outlive the proxy.
  std::unique_ptr<MeteredRun> open(MeteredRunOptions options);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::llm
