// HttpClient: one request, one answer, no retry. The retry loop stands above it (retry.hpp).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "necrocode/base/call_context.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/net/host_guard.hpp"
#include "necrocode/net/http.hpp"

namespace necrocode::net {

/// A request body that need not fit in memory. read() is called on the thread of send(); the
/// timers and the stop token wait while it blocks.
class BodySource {
 public:
  virtual ~BodySource() = default;
  /// Fills at most `size` bytes; 0 at the end. Throws to abort the request.
  virtual std::size_t read(char* buffer, std::size_t size) = 0;
  virtual std::uint64_t size() const = 0;
  /// Back to the start, for another attempt.
  virtual void rewind() = 0;
};

/// How long one attempt may take, each part of it. What runs out first ends it with
/// TransportFailure::kTimeout.
struct HttpTimeouts {
  std::chrono::milliseconds connect{10'000};  ///< name, connection and TLS; more than 0
  /// From the last byte of the request that could be sent to the answer's first header; 0: none.
  std::chrono::milliseconds first_byte{0};
  std::chrono::milliseconds idle{0};  ///< between two bytes of the answer's body; 0: none
  std::chrono::milliseconds total{
      30'000};  ///< this one attempt, 0: none; the deadline may be sooner
};

/// A whole answer, after the redirects that were followed; informational ones (1xx) are left out.
struct HttpResponse {
  int status = 0;
  Headers headers;
  std::string body;  ///< empty when on_body took it
};

/// What to send, and how to take the answer. Not changed by send(), which copies what it needs
/// longer; what the functions and the body source refer to must live until it returns.
struct HttpRequest {
  std::string method = "GET";
  std::string url;  ///< absolute, http or https
  Headers headers;
  std::string body;
  std::shared_ptr<BodySource> body_source;  ///< instead of `body`
  HttpTimeouts timeouts;
  /// An answer with a larger body is TransportFailure::kTooLarge.
  std::size_t response_bytes_max = limits::kHttpResponseBodyBytes;
  /// Same-origin redirects of GET and HEAD to follow; others are answered as they are.
  std::size_t redirects_max = 0;
  /// When set, gets the body of 2xx answers piece by piece on the thread of send()
  /// (response_bytes_max does not apply to it); the timers and the stop token wait while it blocks;
  /// false or a throw aborts the request.
  /// A TransportError that it throws (kReset, kMalformed …) fails the attempt as if the connection
  /// had: the retry loop decides by it.
  std::function<bool(std::string_view piece)> on_body;
  /// A deadline of this attempt from its head on, which on_head sets and on_body may move: bytes
  /// may come without progress. kTimeout when it passes. Null: there is none.
  const SteadyTime* progress_deadline = nullptr;
  /// The head of the 2xx answer whose body on_body gets, before that.
  std::function<void(const HttpResponse& head)> on_head;
  /// Called by the retry loop before another attempt when on_body has had pieces of the last one:
  /// the receiver starts anew, or asks for the rest by the headers of that attempt and the next.
  /// Without it such an attempt is the last.
  std::function<void(Headers& headers)> on_restart;
  /// Not over a kept-alive connection: for the attempt after one of them turned out to be stale.
  bool fresh_connection = false;
};

/// How far an attempt came; tells whether the other side may have acted.
enum class Delivery { kNotSent, kMaybeAccepted, kResponseStarted };

/// Why no whole answer came.
enum class TransportFailure {
  kConnect,    ///< DNS, connect, proxy
  kTls,        ///< handshake or verification; never worth a retry
  kReset,      ///< closed or reset before the answer was whole
  kTimeout,    ///< one of HttpTimeouts, or the deadline
  kTooLarge,   ///< headers or body above the limit
  kMalformed,  ///< not HTTP
  kCancelled,  ///< by the stop token
  kAborted,    ///< by on_body or a BodySource
  kInvalid,    ///< the request itself cannot be sent (URL, header)
};

/// No whole answer came. Callers of clients never see it: the retry loop turns it into a
/// RunnerError.
class TransportError : public RunnerError {
 public:
  /// `cause`: what a BodySource or on_body threw.
  TransportError(TransportFailure failure, Delivery delivery, bool reused_connection,
                 const std::string& detail, std::exception_ptr cause = {});
  TransportFailure failure() const { return failure_; }
  Delivery delivery() const { return delivery_; }
  /// The connection had carried an earlier request: a reset may only mean that it was stale.
  bool reused_connection() const { return reused_connection_; }

 private:
  TransportFailure failure_;
  Delivery delivery_;
  bool reused_connection_;
};

/// Thread-safe.
class HttpClient {
 public:
  virtual ~HttpClient() = default;
  /// Blocks until the answer is whole. Any status is an answer; throws TransportError otherwise.
  /// The stop token ends it within 50 ms and closes the connection.
  virtual HttpResponse send(const HttpRequest& request, const CallContext& context) = 0;
  /// What is known of the hosts' health; kept by the retry loop.
  virtual HostGuards& hosts() { return hosts_; }

 private:
  HostGuards hosts_;
};

/// How a client is made; the limits bound what it holds, not what may be asked of it at once.
struct HttpClientOptions {
  std::size_t connections_per_host = limits::kHttpConnectionsPerHost;
  std::string user_agent = "necrocode/0.1";
  std::string ca_file;  ///< PEM; empty: the system's
  bool proxies_from_environment = true;
};

/// Over libcurl, each request on its caller's thread; connections are kept alive and shared.
std::shared_ptr<HttpClient> make_curl_http_client(HttpClientOptions options = {});
/// One for the process, made at first use.
std::shared_ptr<HttpClient> shared_http_client();

}  // namespace necrocode::net
