// Transfer: one request over libcurl, from its preparation to its answer or its failure. Between
// curl_http_client.cpp and curl_transfer.cpp, the only files with libcurl; nothing else includes
// it. Of other transfers, of connections and threads nothing is known here. No libcurl header: a
// handle is a void*, as CURL itself is.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/base/clock.hpp"
#include "necrocode/net/http_client.hpp"

struct curl_slist;

namespace necrocode::net {

struct Transfer;

/// Requests under way to one origin, and those that wait for one of its connections.
struct Host {
  std::size_t active = 0;
  std::deque<Transfer*> waiting;
};

/// Who drives a transfer. Called on the I/O thread.
class TransferDriver {
 public:
  /// The time to the precision of one turn of the loop.
  virtual SteadyTime turn_began() const = 0;
  /// The transfer's due() has become sooner than its `timer`.
  virtual void rearm(Transfer& transfer) = 0;

 protected:
  ~TransferDriver() = default;
};

struct CurlFree {
  void operator()(void* easy) const;
  void operator()(curl_slist* list) const;
};
template <class T>
using CurlPointer = std::unique_ptr<T, CurlFree>;

/// One request under way. The caller's until it is handed over, then the I/O thread's until `done`.
struct Transfer {
  /// Both must outlive it. Throws std::bad_alloc.
  Transfer(TransferDriver& the_driver, const HttpClientOptions& the_options);

  /// Makes it ready for another request, which must live until `done`. Throws TransportError when
  /// the request cannot be sent.
  void begin(const HttpRequest& the_request, const Url& url, SteadyTime the_deadline);
  /// libcurl is done with the request; `code` is its CURLcode.
  void end(int code);

  /// The first failure counts.
  void fail(TransportFailure kind, std::string detail, std::exception_ptr cause = {});
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

  TransferDriver& driver;
  const HttpClientOptions& options;
  CurlPointer<void> easy;
  CurlPointer<curl_slist> fields;
  const HttpRequest* request = nullptr;
  std::string origin;
  Host* host = nullptr;
  SteadyTime deadline;

  HttpResponse response;
  std::optional<Failure> failure;
  bool headers_complete = false;
  std::size_t header_bytes = 0;
  int requests_begun = 0;
  bool reused = false;
  bool answer_began = false;
  bool in_multi = false;
  std::uint64_t body_left = 0;
  std::int64_t uploaded = 0;
  SteadyTime last_sent, last_received;
  SteadyTime timer;
  char error_text[256] = {};

  std::atomic<bool> cancelled{false};
  std::mutex mutex;
  std::condition_variable wake;
  bool done = false;

 private:
  void set_constant_options();
  void prepare(const Url& url);
  void set_method();
  void add_header_line(std::string_view line);
  void check_header_block();
};

/// The URL to go on with, when our policy allows it: GET or HEAD without a body, same origin, no
/// credentials in it.
std::optional<Url> redirect_target(const HttpRequest& request, const Url& from,
                                   const HttpResponse& response);
/// For a request that cannot be sent.
TransportError invalid(const std::string& detail);

}  // namespace necrocode::net
