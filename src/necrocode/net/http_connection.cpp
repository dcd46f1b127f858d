#include "necrocode/net/http_connection.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <utility>
#include <variant>

#include "necrocode/base/ids.hpp"
#include "necrocode/net/http_socket.hpp"
#include "necrocode/net/request_body.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr std::chrono::milliseconds kParkMax = std::chrono::hours(24);
// An empty buffer larger than this gives its memory back, so that idle connections stay small.
constexpr std::size_t kIdleBufferBytes = 512;

SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}

class Connection final : public HttpConnection {
 public:
  Connection(ConnectionHost& host, tcp::socket socket, std::string remote_address,
             std::uint64_t listener);

  static asio::awaitable<void> run(std::shared_ptr<Connection> self);
  void on_stop() override { socket_->wake(); }
  void kill() override { socket_->kill(); }
  std::optional<SteadyTime> idle_since() const override {
    return socket_->killed() ? std::nullopt : idle_since_;
  }
  std::uint64_t listener() const override { return listener_; }

 private:
  using SharedExchange = std::shared_ptr<Exchange>;
  using Wait = HttpSocket::Wait;
  using Buffers = HttpSocket::Buffers;

  asio::awaitable<void> serve();
  asio::awaitable<bool> serve_one(SteadyTime head_deadline);
  void end_exchange();
  asio::awaitable<std::variant<std::monostate, RequestHead, Refusal>> read_head(
      SteadyTime deadline);
  asio::awaitable<Response> answer(SharedExchange exchange);
  asio::awaitable<Response> refuse(SharedExchange exchange, Refusal refusal);

  void begin_body(const Exchange& exchange);
  BodyPiece take_body();
  asio::awaitable<BodyPiece> next_body();
  asio::awaitable<std::optional<Refusal>> read_whole_body(Exchange& exchange);
  asio::awaitable<std::optional<Refusal>> fill_pipe(Exchange& exchange);
  bool may_fill_pipe(Exchange& exchange);
  asio::awaitable<void> refill_pipe(Exchange& exchange);
  void discard_body();

  bool submit(HandlerPool& pool, const SharedExchange& exchange, std::function<Outcome()> make,
              bool admitted);
  bool submit_handler(const SharedExchange& exchange, std::function<Response()> handler,
                      bool admitted);
  asio::awaitable<void> wait_for_answer(SharedExchange exchange);
  asio::awaitable<Response> wait_parked(SharedExchange exchange);

  asio::awaitable<bool> respond(SharedExchange exchange, Response response);
  asio::awaitable<bool> send_produced(SharedExchange exchange, BodyProducer producer);
  asio::awaitable<bool> send_feed(SharedExchange exchange, std::shared_ptr<FeedBody> feed);
  asio::awaitable<bool> make_piece(SharedExchange exchange, HandlerPool& pool,
                                   std::function<Outcome()> make);

  ConnectionHost& host_;
  const std::shared_ptr<HttpSocket> socket_;
  const std::string remote_address_;
  const std::uint64_t listener_;
  RequestBody body_;
  bool expects_continue_ = false;
  std::size_t body_in_memory_ = 0;
  std::shared_ptr<Exchange> current_;

  std::optional<SteadyTime> idle_since_;
  // What follows on this connection cannot be trusted or will not be served.
  bool close_after_ = false;
};

// ---- one connection ----

Connection::Connection(ConnectionHost& host, tcp::socket socket, std::string remote_address,
                       std::uint64_t listener)
    : host_(host),
      socket_(std::make_shared<HttpSocket>(host.io, std::move(socket), host.scratch)),
      remote_address_(std::move(remote_address)),
      listener_(listener) {}

asio::awaitable<void> Connection::run(std::shared_ptr<Connection> self) {
  try {
    co_await self->serve();
  } catch (const std::exception& error) {
    log::error("a connection failed", {{"error", error.what()}});
  }
  self->end_exchange();
  self->socket_->close();
  self->host_.leave(self.get());
}

asio::awaitable<void> Connection::serve() {
  SteadyTime head_deadline = steady_now() + host_.options.header_time;
  bool first = true;
  while (!host_.stopping && !socket_->killed()) {
    if (socket_->buffer.empty()) {
      if (socket_->buffer.capacity() > kIdleBufferBytes) std::string().swap(socket_->buffer);
      idle_since_ = steady_now();
      const Wait wait = co_await socket_->readable(
          first ? head_deadline : *idle_since_ + host_.options.keep_alive_idle);
      idle_since_.reset();
      if (wait == Wait::kInterrupted) continue;
      if (wait != Wait::kReady) co_return;
    }
    if (!first) head_deadline = steady_now() + host_.options.header_time;
    if (!co_await serve_one(head_deadline)) co_return;
    first = false;
  }
}

// False when the connection is to be closed.
asio::awaitable<bool> Connection::serve_one(SteadyTime head_deadline) {
  current_ = std::make_shared<Exchange>();
  const SharedExchange exchange = current_;
  exchange->began = steady_now();
  socket_->bytes_out = 0;
  socket_->bytes_in = socket_->buffer.size();
  auto read = co_await read_head(head_deadline);
  if (std::holds_alternative<std::monostate>(read)) co_return false;
  exchange->request.remote_address = remote_address_;
  Response response;
  if (auto* refusal = std::get_if<Refusal>(&read)) {
    close_after_ = true;
    exchange->request.request_id = uuid7();
    response = problem(refusal->status, refusal->detail, "");
  } else {
    exchange->head = std::get<RequestHead>(std::move(read));
    response = co_await answer(exchange);
    response = sendable(std::move(response), exchange->request);
  }
  if (exchange->pipe) exchange->pipe->close();
  const int status = response.status;
  const bool keep =
      !socket_->gone() && !socket_->killed() && co_await respond(exchange, std::move(response));
  end_exchange();
  exchange->bytes_in = socket_->bytes_in;
  exchange->bytes_out = socket_->bytes_out;
  host_.report(*exchange, socket_->gone() && socket_->bytes_out == 0 ? 499 : status);
  if (!keep && !socket_->gone() && !socket_->killed() && (close_after_ || !body_.done()) &&
      !host_.stopping) {
    co_await socket_->linger();
  }
  co_return keep;
}

// From here on nothing waits for the handler, and the handler not for us.
void Connection::end_exchange() {
  host_.bodies_in_memory -= std::exchange(body_in_memory_, 0);
  if (!current_) return;
  current_->abandoned = true;
  if (current_->pipe) current_->pipe->close();
  current_.reset();
}

asio::awaitable<std::variant<std::monostate, RequestHead, Refusal>> Connection::read_head(
    SteadyTime deadline) {
  HeadReader reader;
  while (true) {
    auto head = reader.take(socket_->buffer);
    if (!std::holds_alternative<std::monostate>(head)) co_return head;
    const Wait wait = co_await socket_->readable(deadline);
    if (wait == Wait::kTimeout && !socket_->buffer.empty()) {
      co_return Refusal{408, "the head did not come in time"};
    }
    if (wait == Wait::kInterrupted && !socket_->killed()) continue;
    if (wait != Wait::kReady) co_return std::monostate{};
    const auto bytes = socket_->receive(host_.scratch.size());
    if (!bytes) co_return std::monostate{};
    socket_->buffer.append(*bytes);
  }
}

asio::awaitable<Response> Connection::answer(SharedExchange exchange) {
  std::string allow;
  begin_body(*exchange);
  auto refusal = prepare(*exchange, host_.router, allow);
  if (!refusal) {
    const RouteOptions& options = exchange->route->options;
    body_.set_limit(options.body_bytes_max);
    if (options.streaming) {
      refusal = co_await fill_pipe(*exchange);
    } else {
      refusal = co_await read_whole_body(*exchange);
    }
  }
  if (refusal) {
    Response response = co_await refuse(exchange, *refusal);
    if (!allow.empty()) response.headers.set("Allow", std::move(allow));
    co_return response;
  }
  if (socket_->gone()) co_return Response{};
  const auto call = [raw = exchange.get()] { return raw->route->handler(raw->request); };
  if (exchange->route->options.brief &&
      exchange->request.body.size() <= limits::kHttpBriefBodyBytes) {
    exchange->outcome = run_handler(call, *exchange, true, socket_->waker());
    exchange->answered = true;
  } else if (!submit_handler(exchange, call, false)) {
    co_return unavailable("too many requests are waiting", exchange->request.path);
  }
  co_await wait_for_answer(exchange);
  if (!exchange->answered) {
    exchange->abandoned = true;
    socket_->give_up();
    co_return Response{};
  }
  if (exchange->outcome.parked) co_return co_await wait_parked(exchange);
  co_return std::move(exchange->outcome.response);
}

// What has come of a small body is read away: if that is all, the connection can be kept. The
// rest may never come, and the answer does not wait for it.
asio::awaitable<Response> Connection::refuse(SharedExchange exchange, Refusal refusal) {
  if (refusal.status == 503) {
    co_return unavailable(refusal.detail, exchange->request.path);
  }
  if (!expects_continue_ && !body_.chunked() && body_.left() <= limits::kHttpDiscardBytes &&
      refusal.status != 408) {
    discard_body();
  }
  co_return problem(refusal.status, refusal.detail, exchange->request.path);
}

// ---- request bodies ----

void Connection::begin_body(const Exchange& exchange) {
  body_ = RequestBody(exchange.head, host_.options.body_grace, steady_now());
  expects_continue_ = exchange.head.expects_continue;
}

// What is there, without waiting.
BodyPiece Connection::take_body() {
  if (socket_->buffer.empty()) {
    std::uint64_t bytes_max = host_.scratch.size();
    if (!body_.chunked()) bytes_max = std::min(bytes_max, body_.left());
    const auto bytes = socket_->receive(static_cast<std::size_t>(bytes_max));
    if (!bytes) return {{}, Refusal{400, "the body was cut off"}};
    if (!body_.chunked()) return body_.count(*bytes, steady_now());
    socket_->buffer.append(*bytes);
  }
  return body_.take(socket_->buffer, steady_now());
}

// Waits for bytes. All empty when it was interrupted.
asio::awaitable<BodyPiece> Connection::next_body() {
  BodyPiece piece;
  if (expects_continue_) {
    expects_continue_ = false;
    body_.restart(steady_now());
    const Buffers buffers{asio::buffer(kContinue)};
    if (socket_->buffer.empty() && !co_await socket_->send(buffers, 0)) co_return piece;
  }
  if (socket_->buffer.empty()) {
    const Wait wait = co_await socket_->readable(body_.deadline());
    if (wait == Wait::kTimeout) piece.refusal = Refusal{408, "the body comes too slowly"};
    if (wait == Wait::kFailed) socket_->give_up();
    if (wait != Wait::kReady) co_return piece;
  }
  piece = take_body();
  co_return piece;
}

asio::awaitable<std::optional<Refusal>> Connection::read_whole_body(Exchange& exchange) {
  std::optional<Refusal> refusal;
  while (!body_.done() && !refusal && !socket_->gone() && !socket_->killed()) {
    BodyPiece piece = co_await next_body();
    refusal = std::move(piece.refusal);
    exchange.request.body.append(piece.bytes);
    host_.bodies_in_memory += piece.bytes.size();
    body_in_memory_ += piece.bytes.size();
    if (!refusal && host_.bodies_in_memory > limits::kHttpBodiesInMemory) {
      refusal = Refusal{503, "too many request bodies are in memory"};
    }
  }
  if (socket_->killed()) socket_->give_up();
  co_return refusal;
}

// A handler's thread is taken only when the body is there or the buffer is full, so that small
// slow uploads, and clients that were told to continue and do not, hold no thread.
asio::awaitable<std::optional<Refusal>> Connection::fill_pipe(Exchange& exchange) {
  exchange.pipe = std::make_shared<BodyPipe>(exchange.head.content_length, socket_->waker());
  if (!exchange.head.chunked && !exchange.head.content_length) exchange.pipe->finish();
  exchange.request.stream = exchange.pipe.get();
  while (!body_.done() && exchange.pipe->has_room() && !socket_->gone() && !socket_->killed()) {
    BodyPiece piece = co_await next_body();
    if (piece.refusal) co_return std::move(piece.refusal);
    exchange.pipe->push(piece.bytes);
  }
  if (body_.done()) exchange.pipe->finish();
  if (socket_->killed()) socket_->give_up();
  co_return std::nullopt;
}

bool Connection::may_fill_pipe(Exchange& exchange) {
  if (!exchange.pipe || body_.done() || close_after_) return false;
  if (exchange.pipe->has_room()) return true;
  body_.pause(steady_now());
  return false;
}

asio::awaitable<void> Connection::refill_pipe(Exchange& exchange) {
  body_.resume(steady_now());
  BodyPiece piece = co_await next_body();
  if (socket_->gone()) piece.refusal = Refusal{400, "the client is gone"};
  if (piece.refusal) {
    close_after_ = true;
    exchange.pipe->fail(*std::move(piece.refusal));
    co_return;
  }
  exchange.pipe->push(piece.bytes);
  if (body_.done()) exchange.pipe->finish();
}

void Connection::discard_body() {
  while (!body_.done() && !socket_->killed()) {
    const BodyPiece piece = take_body();
    if (piece.refusal || piece.bytes.empty()) return;
  }
}

// ---- handlers and parked answers ----

// Has a pool's thread make an outcome, which then stands in the exchange. False when the pool is
// full; what was admitted before is always taken.
bool Connection::submit(HandlerPool& pool, const SharedExchange& exchange,
                        std::function<Outcome()> make, bool admitted) {
  exchange->answered = false;
  auto job = [exchange, make = std::move(make), weak = socket_->weak_from_this(), &host = host_] {
    if (exchange->abandoned) return;
    auto outcome = make();
    asio::post(host.io, [exchange, weak, &host, outcome = std::move(outcome)]() mutable {
      const auto socket = weak.lock();
      if (exchange->abandoned || !socket) return host.discard(outcome);
      exchange->outcome = std::move(outcome);
      exchange->answered = true;
      socket->wake();
    });
  };
  if (!admitted) return pool.try_submit(std::move(job));
  pool.submit(std::move(job));
  return true;
}

bool Connection::submit_handler(const SharedExchange& exchange, std::function<Response()> handler,
                                bool admitted) {
  const RouteOptions& options = exchange->route->options;
  // What ends a wait does not read the body any more.
  HandlerPool& pool = options.priority                 ? *host_.priority_pool
                      : options.streaming && !admitted ? *host_.stream_pool
                                                       : *host_.pool;
  auto make = [raw = exchange.get(), handler = std::move(handler), admitted,
               wake = socket_->waker()] { return run_handler(handler, *raw, !admitted, wake); };
  return submit(pool, exchange, std::move(make), admitted);
}

asio::awaitable<void> Connection::wait_for_answer(SharedExchange exchange) {
  while (!exchange->answered && !socket_->killed()) {
    if (may_fill_pipe(*exchange)) {
      co_await refill_pipe(*exchange);
    } else {
      co_await socket_->sleep_until_woken(SteadyTime::max());
    }
  }
}

asio::awaitable<Response> Connection::wait_parked(SharedExchange exchange) {
  const std::shared_ptr<ParkedAnswer> parked = exchange->outcome.parked;
  const SteadyTime deadline = steady_now() + std::min(parked->request().timeout, kParkMax);
  std::optional<Response> response;
  const bool watched = parked->request().on_gone != nullptr;
  if (watched) socket_->watch_peer();
  while (!response && !socket_->gone()) {
    response = parked->take();
    if (response) break;
    if ((socket_->killed() || host_.stopping) && parked->close()) {
      response = unavailable("the service is stopping", exchange->request.path);
    } else if (socket_->peer_gone() && parked->close()) {
      host_.pool->submit(
          [on_gone = std::exchange(parked->request().on_gone, nullptr)] { run_guarded(on_gone); });
      socket_->give_up();
    } else if (steady_now() >= deadline && parked->close()) {
      if (watched) socket_->unwatch_peer();
      if (auto on_timeout = std::exchange(parked->request().on_timeout, nullptr)) {
        submit_handler(exchange, std::move(on_timeout), true);
        co_await wait_for_answer(exchange);
        response = std::move(exchange->outcome.response);
      } else {
        response = unavailable("what was waited for did not come", exchange->request.path);
      }
    } else {
      co_await socket_->sleep_until_woken(deadline);
    }
  }
  if (watched) socket_->unwatch_peer();
  parked->forget();
  exchange->outcome.parked.reset();
  if (!response) co_return Response{};
  co_return *std::move(response);
}

// ---- answers ----

// Sends the answer. True when the connection can take another request.
asio::awaitable<bool> Connection::respond(SharedExchange exchange, Response response) {
  auto* producer = std::get_if<BodyProducer>(&response.body);
  auto* feed = std::get_if<std::shared_ptr<FeedBody>>(&response.body);
  const bool with_body = exchange->request.method != "HEAD" && may_have_body(response.status);
  bool keep = !close_after_ && !host_.stopping && body_.done() && exchange->head.keep_alive;
  // Without chunked framing the end of the connection is the end of the body.
  if ((producer != nullptr || feed != nullptr) && exchange->head.http_1_0) keep = false;
  const std::string head =
      response_head(response, exchange->head, exchange->request, keep, host_.date());
  Buffers buffers{asio::buffer(head)};
  auto* file = std::get_if<std::shared_ptr<FileBody>>(&response.body);
  const bool file_follows = with_body && file != nullptr && (*file)->size > 0;
  if (const auto* text = std::get_if<std::string>(&response.body); text != nullptr && with_body) {
    buffers[1] = asio::buffer(*text);
  }
  if (!co_await socket_->send(buffers, file_follows ? MSG_MORE : 0)) co_return false;
  if (file_follows && !co_await socket_->send_file(**file)) co_return false;
  if (with_body && producer != nullptr && !co_await send_produced(exchange, std::move(*producer))) {
    co_return false;
  }
  if (with_body && feed != nullptr && !co_await send_feed(exchange, std::move(*feed))) {
    co_return false;
  }
  co_return keep && !host_.stopping;
}

// The next piece of a body, from a pool's thread. False when none came: without the last chunk the
// client knows that the body is not whole.
asio::awaitable<bool> Connection::make_piece(SharedExchange exchange, HandlerPool& pool,
                                             std::function<Outcome()> make) {
  submit(pool, exchange, std::move(make), true);
  while (!exchange->answered && !socket_->killed()) {
    co_await socket_->sleep_until_woken(SteadyTime::max());
  }
  if (!socket_->killed() && !exchange->outcome.broken) co_return true;
  socket_->give_up();
  co_return false;
}

asio::awaitable<bool> Connection::send_produced(SharedExchange exchange, BodyProducer producer) {
  const auto shared = std::make_shared<BodyProducer>(std::move(producer));
  const bool chunked = !exchange->head.http_1_0;
  while (true) {
    std::function<Outcome()> make = [shared] { return run_producer(*shared); };
    if (!co_await make_piece(exchange, *host_.pool, std::move(make))) co_return false;
    const std::string piece = std::get<std::string>(std::move(exchange->outcome.response.body));
    if (piece.empty() && !chunked) co_return true;
    const bool sent = co_await socket_->send_piece(piece, chunked);
    if (!sent || piece.empty()) co_return sent;
  }
}

// `news` may be told from any thread, at any time; told often, it wakes this once. True when the
// body came to its end.
asio::awaitable<bool> Connection::send_feed(SharedExchange exchange,
                                            std::shared_ptr<FeedBody> feed) {
  const bool chunked = !exchange->head.http_1_0;
  const auto news = std::make_shared<std::atomic<bool>>(true);
  std::function<void()> start = [feed, news, wake = socket_->waker()] {
    const auto tell = [news, wake] {
      if (!news->exchange(true)) wake();
    };
    feed->start(tell);
  };
  SteadyTime silent_until = steady_now() + limits::kHttpFeedSilence;
  SteadyTime paused_until = SteadyTime::max();
  FeedBody::Piece piece;
  socket_->watch_peer();
  while (!piece.last && !socket_->gone() && !socket_->killed() && !socket_->peer_gone() &&
         !host_.stopping) {
    piece = {};
    if (news->exchange(false) || steady_now() >= paused_until) {
      std::function<Outcome()> make = [feed, first = std::exchange(start, nullptr)] {
        return run_feed(*feed, first);
      };
      if (!co_await make_piece(exchange, *host_.feed_pool, std::move(make))) co_return false;
      piece = std::move(exchange->outcome.piece);
      if (piece.more) news->store(true);
      const bool paused = piece.pause.count() > 0;
      paused_until = paused ? steady_now() + piece.pause : SteadyTime::max();
    } else if (steady_now() < silent_until) {
      co_await socket_->sleep_until_woken(std::min(silent_until, paused_until));
    } else {
      piece.bytes = feed->silence;
      silent_until = steady_now() + limits::kHttpFeedSilence;
    }
    if (piece.bytes.empty()) continue;  // an empty chunk would be the last
    if (!co_await socket_->send_piece(piece.bytes, chunked)) co_return false;
    silent_until = steady_now() + limits::kHttpFeedSilence;
  }
  socket_->unwatch_peer();
  if (chunked && (piece.last || host_.stopping)) {
    const std::string end;
    co_return co_await socket_->send_piece(end, true) && piece.last;
  }
  co_return piece.last;
}

}  // namespace

void start_connection(ConnectionHost& host, FileDescriptor socket, int family,
                      std::string remote_address, std::uint64_t listener) {
  error_code error;
  tcp::socket stream(host.io);
  stream.assign(family == AF_INET6 ? tcp::v6() : tcp::v4(), socket.get(), error);
  if (!error) {
    (void)socket.release();
    stream.non_blocking(true, error);
  }
  if (error) return log::warn("cannot serve a connection", {{"error", error.message()}});
  auto connection =
      std::make_shared<Connection>(host, std::move(stream), std::move(remote_address), listener);
  host.connections.insert(connection.get());
  auto running = Connection::run(std::move(connection));
  asio::co_spawn(host.io, std::move(running), asio::detached);
}

}  // namespace necrocode::net
