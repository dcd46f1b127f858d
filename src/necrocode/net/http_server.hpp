// HttpServer: routes to handlers on a bounded pool; Asio and coroutines stay in http_server.cpp,
// http_connection.cpp and http_socket.
//
// A handler gets a Request and returns a Response. It runs on a pool thread and may block for short
// (a database transaction, a file). An answer that has to wait for something is *parked*: the
// handler keeps the Parked handle and returns; whoever has the news completes it, from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/net/http.hpp"

namespace necrocode::net {

/// The body of a streaming route, read by its handler. Blocking; one thread. The handler begins
/// when the body is whole or limits::kHttpStreamBufferBytes of it have come, so that a slow small
/// upload holds no thread; `Expect: 100-continue` is answered before that.
class BodyReader {
 public:
  virtual ~BodyReader() = default;
  /// The next piece, at most limits::kHttpStreamChunkBytes, empty at the end. Throws HttpError (408
  /// too slow, 413 above the route's limit, 400 cut off or malformed framing).
  virtual std::string read() = 0;
  /// Content-Length, when the client sent one.
  virtual std::optional<std::uint64_t> declared_size() const = 0;
};

struct Request {
  std::string method;
  std::string target;  ///< as sent
  std::string path;    ///< without the query, still percent-encoded
  std::string route;   ///< the pattern that matched
  /// The values of a route's {name} segments, decoded. A segment holds no '/', no NUL; an encoded
  /// slash or dot-segment in the path is answered 400 before any handler.
  std::map<std::string, std::string, std::less<>> params;
  std::vector<std::pair<std::string, std::string>> query;  ///< decoded, in order
  Headers headers;
  std::string body;              ///< of a non-streaming route, whole
  BodyReader* stream = nullptr;  ///< of a streaming route
  std::string request_id;
  std::string remote_address;

  const std::string& param(std::string_view name) const;                ///< must be in the route
  std::optional<std::string> query_value(std::string_view name) const;  ///< the first
  std::size_t query_count(std::string_view name) const;
  /// The body as a JSON object; an empty body is {}. Throws HttpError 400, or 422 for another type.
  Json json() const;
};

struct Response;

/// A parked answer's handle. Thread-safe; keep it in a shared_ptr as it comes.
class Parked {
 public:
  virtual ~Parked() = default;
  /// False when it was completed before, timed out, or the client is gone: then nothing was sent,
  /// and what the answer would have handed over (a claim, a slot) must be given back.
  virtual bool complete(Response response) = 0;
  /// True as long as complete() may still succeed.
  virtual bool waiting() const = 0;
};

/// A file to send (sendfile-like, in chunks).
struct FileBody {
  FileDescriptor fd;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

/// A stream produced piece by piece, with chunked encoding: called on a pool thread whenever the
/// socket can take more; empty at the end.
using BodyProducer = std::function<std::string()>;

/// A body whose pieces come when they come: each is sent at once, and no thread waits in between.
/// The functions run on a pool's thread, one at a time. It ends with its last piece, when the
/// client goes or when the server stops, and is then let go of, on any thread; whoever reads a feed
/// without an end must say with its next request what it has seen.
struct FeedBody {
  struct Piece {
    std::string bytes;
    bool more = false;                   ///< there is more already
    bool last = false;                   ///< the body is whole with these bytes
    std::chrono::milliseconds pause{0};  ///< above 0: asked again after it, news or not
  };
  /// First: gets what to call, from any thread, when `next` may have something.
  std::function<void(std::function<void()> news)> start;
  std::function<Piece()> next;  ///< what has come; a throw cuts the connection off
  std::string silence;          ///< sent after limits::kHttpFeedSilence of nothing else
};

/// Made by a handler in place of an answer. `start` gets the handle right after parking (on the
/// handler's thread); `on_timeout` makes the answer when `timeout` passes first; `on_gone` is
/// called when the client disconnects first, for which it is only watched where somebody asks. Both
/// run on a pool thread. When the server stops
/// first, neither is called: the answer is 503 and complete() says false.
struct ParkRequest {
  std::chrono::milliseconds timeout{0};
  std::function<void(std::shared_ptr<Parked>)> start;
  std::function<Response()> on_timeout;
  std::function<void()> on_gone;
};

struct Response {
  int status = 200;
  Headers headers;
  /// A HEAD request gets the headers that GET would have, and no body; the server sees to it.
  std::variant<std::string, std::shared_ptr<FileBody>, BodyProducer, std::shared_ptr<FeedBody>,
               std::shared_ptr<ParkRequest>>
      body;

  static Response json(int status, const Json& value);
  static Response text(int status, std::string text,
                       std::string content_type = "text/plain; charset=utf-8");
  static Response empty(int status);
  static Response park(ParkRequest park);
};

/// Thrown by handlers: becomes application/problem+json (RFC 9457).
class HttpError : public RunnerError {
 public:
  HttpError(int status, const std::string& detail, std::vector<FieldError> fields = {});
  int status() const { return info().status; }
  Headers headers;  ///< Retry-After and the like, added to the answer
};

/// problem+json: type, title, status, detail, instance (unless empty), errors[] of pointer,
/// message.
Response problem(int status, std::string_view detail, std::string_view instance,
                 const std::vector<FieldError>& fields = {});
/// The one table from errors to HTTP: HttpError as it says; TaskContextValidationError 422;
/// NotFound 404; Conflict, ResourceConflictError 409; Unauthorized 403; RateLimited 429;
/// Unavailable, TimeoutError 503; ResourceLimitError 413; StorageError 500 (507 when the disk is
/// full), its words only in the log; everything else 500 "internal error", its words only in the
/// log.
Response problem_for(const std::exception& error, const Request& request);
/// Only the status of that answer; nothing is logged.
int problem_status(const std::exception& error);

using Handler = std::function<Response(const Request&)>;

struct RouteOptions {
  std::uint64_t body_bytes_max = limits::kHttpRequestBodyBytes;
  bool streaming = false;  ///< the handler reads Request::stream, on a thread kept for such
  /// The handler never waits and is quick: it asks for a park, or answers from memory. It runs on
  /// the server's own thread when the body is at most limits::kHttpBriefBodyBytes.
  bool brief = false;
  bool priority = false;  ///< has its own thread, answered also when the pool is full (`/health`)
};

/// Raises the process's soft limit of descriptors to its hard one. The connections for which that
/// is enough: limits::kHttpConnections, or limits::kDescriptorReserve fewer than the descriptors.
std::size_t connections_within_descriptors();

struct HttpServerOptions {
  std::string address = "127.0.0.1";
  std::uint16_t port = 0;  ///< 0: a free one
  std::size_t handler_threads = limits::kHttpHandlerThreads;
  std::size_t handler_queue = limits::kHttpHandlerQueue;
  std::size_t stream_threads = limits::kHttpStreamThreads;
  std::size_t stream_queue = limits::kHttpStreamQueue;
  /// One more closes the idlest connection, or is answered 503 when none is idle.
  std::size_t connections_max = limits::kHttpConnections;
  std::chrono::milliseconds header_time = limits::kHttpHeaderTime;
  std::chrono::milliseconds body_grace = limits::kHttpBodyGrace;
  std::chrono::milliseconds keep_alive_idle = limits::kHttpKeepAliveIdle;
  std::chrono::milliseconds drain_time{5'000};  ///< given to requests under way by stop()
  std::string unknown_path = "no such path";    ///< what the 404 of a path without a route says
};

/// Called once for each finished request, on the I/O thread: it must not block. For the access log
/// and metrics. Status 499: the client was gone before the answer.
struct AccessRecord {
  std::string method, route, target, request_id, remote_address;
  std::string traceparent;  ///< as sent, if it can be read
  int status = 0;
  std::uint64_t bytes_in = 0, bytes_out = 0;
  std::chrono::nanoseconds duration{0};
};

class HttpServer {
 public:
  explicit HttpServer(HttpServerOptions options = {});
  ~HttpServer();  ///< stop()
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// `pattern`: "/tasks/{id}/status"; literal segments win over {parameters}. Another method on a
  /// known path is 405 with Allow; an unknown path 404. HEAD is answered through GET. Only before
  /// start().
  void route(std::string method, std::string pattern, Handler handler, RouteOptions options = {});
  void on_access(std::function<void(const AccessRecord&)> observer);

  /// Binds and serves on threads of its own. Throws ConfigError when the address cannot be bound.
  void start();
  /// Accepts from `listener` too, a TCP socket that listens: in another network namespace, say.
  /// After start(), until stop() or forget_listener() with the number that this returns. Throws
  /// StorageError for a descriptor that is no socket.
  std::uint64_t add_listener(FileDescriptor listener);
  /// Closes it, and the connections that came by it, whatever they are at. Returns when they are
  /// closed. An unknown number is fine.
  void forget_listener(std::uint64_t number);
  /// No new connections; idle ones close; requests under way get drain_time; parked answers end
  /// with 503. Returns when all threads are gone, so a handler that never returns holds it. Safe to
  /// call twice, and from any thread but the server's own.
  void stop();
  std::uint16_t port() const;
  std::string url() const;  ///< http://127.0.0.1:PORT

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::net
