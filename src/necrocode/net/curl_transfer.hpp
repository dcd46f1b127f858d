// Transfer: one request over libcurl, from its preparation to its answer or its failure. Between
// curl_http_client.cpp and curl_transfer.cpp, the only files with libcurl; nothing else includes
// it. Of other transfers, of connections and threads nothing is known here. No libcurl header: a
// handle is a void*, as CURL and CURLM themselves are.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/base/clock.hpp"
#include "necrocode/net/http_client.hpp"

struct curl_slist;

namespace necrocode::net {

struct CurlFree {
  void operator()(void* easy) const;
  void operator()(curl_slist* list) const;
};
template <class T>
using CurlPointer = std::unique_ptr<T, CurlFree>;
struct CurlMultiFree {
  void operator()(void* multi) const;
};

/// A handle for one request at a time, with the connection that it keeps alive. Its caller's, but
/// for cancel().
struct Transfer {
  /// `share` is a CURLSH. All three must outlive it. Throws std::bad_alloc.
  Transfer(const HttpClientOptions& the_options, void* share);

  /// Makes it ready for another request, which must live until run() has returned. Throws
  /// TransportError when the request cannot be sent.
  void begin(const HttpRequest& the_request, const Url& url, SteadyTime the_deadline);
  /// Until there is an answer or a failure.
  void run();
  /// Ends run() soon, with `reason`. From any thread, and at any time.
  void cancel(const char* reason);

  /// The first failure counts.
  void fail(TransportFailure kind, std::string detail, std::exception_ptr cause = {});
  /// Within a handler: fails with what on_head or on_body threw.
  void receiver_threw();
  /// Only after a failure.
  TransportError to_error() const;
  Delivery delivery() const;
  /// When this transfer must be looked at again.
  SteadyTime due() const;
  bool body_goes_to_sink() const { return request->on_body && response.status / 100 == 2; }

  // What libcurl's callbacks tell.

  /// True when libcurl found a kept-alive connection dead and wants to send the request once more,
  /// silently. Whether it may be sent again is not libcurl's to decide: the retry loop counts
  /// attempts.
  bool refuse_silent_retry();
  void request_begins();
  void take_header_line(std::string_view line);
  void take_body(std::string_view bytes);
  /// Nothing when it failed.
  std::optional<std::size_t> read_body(char* buffer, std::size_t size);

  struct Failure {
    TransportFailure kind;
    std::string detail;
    std::exception_ptr cause;
  };

  const HttpClientOptions& options;
  std::unique_ptr<void, CurlMultiFree> multi;
  CurlPointer<void> easy;
  CurlPointer<curl_slist> fields;
  const HttpRequest* request = nullptr;
  std::string origin;
  SteadyTime deadline;

  HttpResponse response;
  std::optional<Failure> failure;
  bool headers_complete = false;
  std::size_t header_bytes = 0;
  int requests_begun = 0;
  bool reused = false;
  bool answer_began = false;
  std::uint64_t body_left = 0;
  std::int64_t uploaded = 0;
  SteadyTime now;  ///< to the precision of one turn of run()
  SteadyTime last_sent, last_received;
  char error_text[256] = {};
  std::atomic<const char*> cancelled{nullptr};  ///< why

 private:
  /// What the handle was last set to: most requests are like the one before.
  struct Set {
    std::string method;  ///< of a request without a body
    long fresh = -1, connect_ms = -1, no_progress = -1, direct = -1;
  };
  /// True when it has ended.
  bool turn();
  bool is_over();      ///< cancelled, or out of time
  void end(int code);  ///< libcurl is done with the request; `code` is its CURLcode
  void set_constant_options(void* share);
  void prepare(const Url& url);
  void set_method();
  void set_changed(int option, long& before, long value);
  void add_header_line(std::string_view line);
  void check_header_block();
  Set set_;
};

/// The URL to go on with, when our policy allows it: GET or HEAD without a body, same origin, no
/// credentials in it.
std::optional<Url> redirect_target(const HttpRequest& request, const Url& from,
                                   const HttpResponse& response);
/// For a request that cannot be sent.
TransportError invalid(const std::string& detail);

}  // namespace necrocode::net
