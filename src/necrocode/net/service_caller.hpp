// ServiceCaller: what the registry, pool and artifact clients have in common: base URL, token,
// idempotency key, retries, the mapping of answers to errors, one log record a call.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/base/json.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/base/secret.hpp"
#include "necrocode/net/call_spool.hpp"
#include "necrocode/net/http_client.hpp"
#include "necrocode/net/retry.hpp"

namespace necrocode::net {

/// What a service's /health said.
struct HealthStatus {
  bool healthy = false;
  std::string detail;                    ///< "ok", or why not, in one line
  std::chrono::milliseconds latency{0};  ///< of the one call
  /// What the client's other calls to that host meet; health_check() itself asks all the same.
  BreakerState breaker = BreakerState::kClosed;
};

/// One finished call, for metrics and traces. Nothing of its bodies, no secret.
struct CallReport {
  std::string service;    ///< "task-registry"
  std::string operation;  ///< the client's method
  std::string method;     ///< of HTTP
  int status = 0;         ///< of the last answer; 0: none came
  int attempts = 0;
  CallEnd end = CallEnd::kNone;  ///< kNone: it succeeded
  SystemTime began;
  std::chrono::nanoseconds duration{0};
  std::size_t bytes = 0;  ///< of the answer's body, unless it was streamed
  /// The call's span and the one of its context; empty when that has none.
  std::string trace_id, span_id, parent_span_id;
};

/// How a service client is made. What is wrong in it is a ConfigError of the client's constructor.
struct ServiceOptions {
  std::string base_url;  ///< http(s)://host[:port][/prefix], no credentials
  /// Sent as Bearer. At least 8 visible ASCII characters (a shorter one could not be masked in what
  /// the service says); refused over http to another host than loopback.
  Secret token;
  /// One attempt; of a streamed body (body_source, on_body) the longest standstill. Empty: the
  /// client's own default, ServiceCaller::kDefaultTimeout or ArtifactStoreClient::kDefaultTimeout.
  std::optional<std::chrono::milliseconds> timeout;
  std::chrono::milliseconds health_timeout{5'000};  ///< of health_check(), which has no retries
  RetryPolicy retry;                                ///< of every other call
  std::shared_ptr<HttpClient> http;                 ///< the shared one when null
  std::shared_ptr<CallSpool> spool;                 ///< of report(); null: nothing is kept
  RetryEnvironment environment;                     ///< time and chance, for tests
  /// Gets each call but health_check() when it has ended, on its thread. Must not throw or wait.
  std::function<void(const CallReport&)> on_call;
};

/// One call, as the client describes it.
struct ServiceCall {
  std::string operation;  ///< the client's method name, for errors and logs
  std::string target;     ///< what it acts on, for errors and logs
  std::string method = "GET";
  std::string path;  ///< "/tasks/" + percent_encode(id) + …, with the query
  Json body;         ///< sent as JSON unless null
  Headers headers;
  std::string raw_body;  ///< instead of `body`, with its Content-Type in `headers`
  std::shared_ptr<BodySource> body_source;
  std::function<bool(std::string_view)> on_body;  ///< see HttpRequest
  std::function<void(const HttpResponse&)> on_head;
  std::function<void(Headers&)> on_restart;
  std::chrono::milliseconds extra_time{0};  ///< added to the timeout: the server may wait that long
  std::size_t response_bytes_max = limits::kHttpResponseBodyBytes;
  std::size_t redirects_max = 0;  ///< same-origin redirects of a GET to follow; see HttpRequest
  std::string idempotency_key;    ///< empty: a fresh one for a mutating call
};

/// Thread-safe.
class ServiceCaller {
 public:
  static constexpr std::chrono::milliseconds kDefaultTimeout{30'000};
  /// `service` is the name in errors and logs ("task-registry"), `timeout` what holds unless the
  /// options say otherwise. Throws ConfigError for a base URL or token that cannot be used.
  ServiceCaller(std::string service, ServiceOptions options,
                std::chrono::milliseconds timeout = kDefaultTimeout);

  /// The 2xx answer (or 304); of a DELETE also the 404 after an attempt that may have been carried
  /// out. Else throws NotFound (404), Unauthorized (401, 403), Conflict (409,
  /// 412), RateLimited (429, with retry_at), Unavailable (408, 425, 5xx),
  /// TaskContextValidationError (400, 413, 422, with the problem's fields), ServiceError (other),
  /// or what send_with_retries() throws, with service, operation, target, request id and the
  /// problem's `detail` (at most 500 bytes, masked) filled in.
  HttpResponse call(const ServiceCall& call, const CallContext& context) const;
  /// The same, its body read as JSON; null for 204. Throws InvalidResponse when it is not JSON.
  Json call_json(const ServiceCall& call, const CallContext& context) const;
  /// call_json() of a call that must not be lost while the service is down: with a spool it is kept
  /// there when no answer comes or the service asks to come later (408, 425, 429, 5xx), and also
  /// while an earlier call about its target is kept, unless it is `urgent`. Nothing then. A
  /// cancelled call is not kept.
  std::optional<Json> report(ServiceCall call, const CallContext& context,
                             bool urgent = false) const;
  /// Waits until no call about `target` is kept any more; false when the context ended first.
  bool settle(const std::string& target, const CallContext& context) const;
  /// Reads a stream that has no end (text/event-stream): sends the call that `make` describes, and
  /// another one when its stream ended or was cut, so that `make` can say where to go on and its
  /// on_body may end one that is too much at a time. In between it waits up to `pause`, by chance,
  /// so that clients do not come back in step. Ends by a throw: what call() throws, also when a
  /// call brought no byte, InvalidResponse for an answer of another type.
  [[noreturn]] void follow(const std::function<ServiceCall()>& make,
                           const std::function<std::chrono::milliseconds()>& pause,
                           const CallContext& context) const;
  /// GET /health, once, without retries: healthy when its `components` has `component` as "ok",
  /// whatever the other services of the address say; without `components`, by the status. Never
  /// throws.
  HealthStatus health_check(std::string_view component) const;

  const std::string& base_url() const { return base_url_; }
  const std::string& service() const { return service_; }

 private:
  HttpRequest build(const ServiceCall& call, const CallContext& context) const;
  HttpRequest bare_request(std::string_view path) const;
  RetryOutcome send(const ServiceCall& call, HttpRequest request, const CallContext& context) const;
  [[noreturn]] void throw_for(const ServiceCall& call, const RetryOutcome& outcome) const;
  std::string health_words(const HttpResponse& response, std::string_view component) const;
  std::string own_words(const HttpResponse& response) const;
  std::string base_url_;
  std::string service_;
  ServiceOptions options_;
  std::chrono::milliseconds timeout_;
  std::shared_ptr<HttpClient> http_;
  Masker masker_;
};

}  // namespace necrocode::net
