#include "necrocode/net/http_connection.hpp"

#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstdio>
#include <utility>
#include <variant>

#include "necrocode/base/ids.hpp"
#include "necrocode/net/request_body.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr std::chrono::milliseconds kParkMax = std::chrono::hours(24);
// An empty buffer larger than this gives its memory back, so that idle connections stay small.
constexpr std::size_t kIdleBufferBytes = 512;

SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}

class Connection final : public HttpConnection, public std::enable_shared_from_this<Connection> {
 public:
  Connection(ConnectionHost& host, tcp::socket socket, std::string remote_address);

  static asio::awaitable<void> run(std::shared_ptr<Connection> self);
  /// Something the coroutine may be waiting for has happened.
  void wake();
  void on_stop() override;
  void kill() override;
  std::optional<SteadyTime> idle_since() const override {
    return killed_ ? std::nullopt : idle_since_;
  }

 private:
  using SharedExchange = std::shared_ptr<Exchange>;
  enum class Wait { kReady, kTimeout, kInterrupted, kFailed };
  using Buffers = std::array<asio::const_buffer, 3>;

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
  bool may_feed(Exchange& exchange);
  asio::awaitable<void> feed(Exchange& exchange);
  void discard_body();

  std::function<void()> waker();
  bool submit(HandlerPool& pool, const SharedExchange& exchange, std::function<Outcome()> make,
              bool admitted);
  bool submit_handler(const SharedExchange& exchange, std::function<Response()> handler,
                      bool admitted);
  asio::awaitable<void> wait_for_answer(SharedExchange exchange);
  asio::awaitable<Response> wait_parked(SharedExchange exchange);
  void watch_peer();

  asio::awaitable<bool> respond(SharedExchange exchange, Response response);
  asio::awaitable<bool> send(Buffers buffers, int flags);
  asio::awaitable<bool> send_file(FileBody& file);
  asio::awaitable<bool> send_produced(SharedExchange exchange, BodyProducer producer);
  asio::awaitable<bool> send_piece(const std::string& piece, bool chunked);
  asio::awaitable<void> linger();

  std::optional<std::string_view> receive(std::size_t bytes_max);
  asio::awaitable<Wait> readable(SteadyTime deadline);
  asio::awaitable<void> sleep_until_woken(SteadyTime until);
  void set_deadline(SteadyTime deadline);
  void arm_timer();

  ConnectionHost& host_;
  tcp::socket socket_;
  const std::string remote_address_;
  std::string buffer_;  // read, not used
  RequestBody body_;
  bool expects_continue_ = false;
  std::uint64_t sent_ = 0;
  std::uint64_t got_ = 0;
  std::size_t body_in_memory_ = 0;
  std::shared_ptr<Exchange> current_;

  std::optional<SteadyTime> idle_since_;
  bool reading_ = false;
  bool gone_ = false;  // no answer can be sent
  // What follows on this connection cannot be trusted or will not be served.
  bool close_after_ = false;
  bool killed_ = false;

  // One timer for all deadlines. It is not set anew for each of them: when it fires too early, it
  // is set again, so that a request costs no timer operation.
  asio::steady_timer timer_;
  SteadyTime deadline_ = SteadyTime::max();
  SteadyTime timer_expiry_ = SteadyTime::max();
  std::uint64_t timer_number_ = 0;
  bool timed_out_ = false;

  asio::steady_timer wake_;
  bool woken_ = false;
  bool watching_ = false;
  bool peer_gone_ = false;
  std::uint64_t watch_number_ = 0;
};

// ---- one connection ----

Connection::Connection(ConnectionHost& host, tcp::socket socket, std::string remote_address)
    : host_(host),
      socket_(std::move(socket)),
      remote_address_(std::move(remote_address)),
      timer_(host.io),
      wake_(host.io) {}

asio::awaitable<void> Connection::run(std::shared_ptr<Connection> self) {
  try {
    co_await self->serve();
  } catch (const std::exception& error) {
    log::error("a connection failed", {{"error", error.what()}});
  }
  self->end_exchange();
  error_code ignored;
  self->socket_.shutdown(tcp::socket::shutdown_both, ignored);
  self->socket_.close(ignored);
  self->host_.leave(self.get());
}

asio::awaitable<void> Connection::serve() {
  SteadyTime head_deadline = steady_now() + host_.options.header_time;
  bool first = true;
  while (!host_.stopping && !killed_) {
    if (buffer_.empty()) {
      if (buffer_.capacity() > kIdleBufferBytes) std::string().swap(buffer_);
      idle_since_ = steady_now();
      const Wait wait =
          co_await readable(first ? head_deadline : *idle_since_ + host_.options.keep_alive_idle);
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
  sent_ = 0;
  got_ = buffer_.size();
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
  const bool keep = !gone_ && !killed_ && co_await respond(exchange, std::move(response));
  end_exchange();
  exchange->bytes_in = got_;
  exchange->bytes_out = sent_;
  host_.report(*exchange, gone_ && sent_ == 0 ? 499 : status);
  if (!keep && !gone_ && !killed_ && (close_after_ || !body_.done())) co_await linger();
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
    auto head = reader.take(buffer_);
    if (!std::holds_alternative<std::monostate>(head)) co_return head;
    const Wait wait = co_await readable(deadline);
    if (wait == Wait::kTimeout && !buffer_.empty()) {
      co_return Refusal{408, "the head did not come in time"};
    }
    if (wait == Wait::kInterrupted && !killed_) continue;
    if (wait != Wait::kReady) co_return std::monostate{};
    const auto bytes = receive(host_.scratch.size());
    if (!bytes) co_return std::monostate{};
    buffer_.append(*bytes);
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
  if (gone_) co_return Response{};
  const auto call = [raw = exchange.get()] { return raw->route->handler(raw->request); };
  if (!submit_handler(exchange, call, false)) {
    co_return unavailable("too many requests are waiting", exchange->request.path);
  }
  co_await wait_for_answer(exchange);
  if (!exchange->answered) {
    exchange->abandoned = true;
    gone_ = true;
    co_return Response{};
  }
  if (exchange->outcome.parked) co_return co_await wait_parked(exchange);
  co_return std::move(exchange->outcome.response);
}

// What has come of a small body is read away: if that is all, the connection can be kept. The rest
// may never come, and the answer does not wait for it.
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
  if (buffer_.empty()) {
    std::uint64_t bytes_max = host_.scratch.size();
    if (!body_.chunked()) bytes_max = std::min(bytes_max, body_.left());
    const auto bytes = receive(static_cast<std::size_t>(bytes_max));
    if (!bytes) return {{}, Refusal{400, "the body was cut off"}};
    if (!body_.chunked()) return body_.count(*bytes, steady_now());
    buffer_.append(*bytes);
  }
  return body_.take(buffer_, steady_now());
}

// Waits for bytes. All empty when it was interrupted.
asio::awaitable<BodyPiece> Connection::next_body() {
  BodyPiece piece;
  if (expects_continue_) {
    expects_continue_ = false;
    body_.restart(steady_now());
    const Buffers buffers{asio::buffer(kContinue)};
    if (buffer_.empty() && !co_await send(buffers, 0)) co_return piece;
  }
  if (buffer_.empty()) {
    const Wait wait = co_await readable(body_.deadline());
    if (wait == Wait::kTimeout) piece.refusal = Refusal{408, "the body comes too slowly"};
    if (wait == Wait::kFailed) gone_ = true;
    if (wait != Wait::kReady) co_return piece;
  }
  piece = take_body();
  co_return piece;
}

asio::awaitable<std::optional<Refusal>> Connection::read_whole_body(Exchange& exchange) {
  std::optional<Refusal> refusal;
  while (!body_.done() && !refusal && !gone_ && !killed_) {
    BodyPiece piece = co_await next_body();
    refusal = std::move(piece.refusal);
    exchange.request.body.append(piece.bytes);
    host_.bodies_in_memory += piece.bytes.size();
    body_in_memory_ += piece.bytes.size();
    if (!refusal && host_.bodies_in_memory > limits::kHttpBodiesInMemory) {
      refusal = Refusal{503, "too many request bodies are in memory"};
    }
  }
  gone_ = gone_ || killed_;
  co_return refusal;
}

// A handler's thread is taken only when the body is there or the buffer is full, so that small slow
// uploads, and clients that were told to continue and do not, hold no thread.
asio::awaitable<std::optional<Refusal>> Connection::fill_pipe(Exchange& exchange) {
  exchange.pipe = std::make_shared<BodyPipe>(exchange.head.content_length, waker());
  if (!exchange.head.chunked && !exchange.head.content_length) exchange.pipe->finish();
  exchange.request.stream = exchange.pipe.get();
  while (!body_.done() && exchange.pipe->has_room() && !gone_ && !killed_) {
    BodyPiece piece = co_await next_body();
    if (piece.refusal) co_return std::move(piece.refusal);
    exchange.pipe->push(piece.bytes);
  }
  if (body_.done()) exchange.pipe->finish();
  gone_ = gone_ || killed_;
  co_return std::nullopt;
}

bool Connection::may_feed(Exchange& exchange) {
  if (!exchange.pipe || body_.done() || close_after_) return false;
  if (exchange.pipe->has_room()) return true;
  body_.pause(steady_now());
  return false;
}

asio::awaitable<void> Connection::feed(Exchange& exchange) {
  body_.resume(steady_now());
  BodyPiece piece = co_await next_body();
  if (gone_) piece.refusal = Refusal{400, "the client is gone"};
  if (piece.refusal) {
    close_after_ = true;
    exchange.pipe->fail(*std::move(piece.refusal));
    co_return;
  }
  exchange.pipe->push(piece.bytes);
  if (body_.done()) exchange.pipe->finish();
}

void Connection::discard_body() {
  while (!body_.done() && !killed_) {
    const BodyPiece piece = take_body();
    if (piece.refusal || piece.bytes.empty()) return;
  }
}

// ---- handlers and parked answers ----

// For other threads.
std::function<void()> Connection::waker() {
  return [weak = weak_from_this(), &io = host_.io] {
    asio::post(io, [weak] {
      if (const auto self = weak.lock()) self->wake();
    });
  };
}

// Has a pool's thread make an outcome, which then stands in the exchange. False when the pool is
// full; what was admitted before is always taken.
bool Connection::submit(HandlerPool& pool, const SharedExchange& exchange,
                        std::function<Outcome()> make, bool admitted) {
  exchange->answered = false;
  auto job = [exchange, make = std::move(make), weak = weak_from_this(), &host = host_] {
    if (exchange->abandoned) return;
    auto outcome = make();
    asio::post(host.io, [exchange, weak, &host, outcome = std::move(outcome)]() mutable {
      const auto self = weak.lock();
      if (exchange->abandoned || !self) return host.discard(outcome);
      exchange->outcome = std::move(outcome);
      exchange->answered = true;
      self->wake();
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
  auto make = [raw = exchange.get(), handler = std::move(handler), admitted, wake = waker()] {
    return run_handler(handler, *raw, !admitted, wake);
  };
  return submit(pool, exchange, std::move(make), admitted);
}

asio::awaitable<void> Connection::wait_for_answer(SharedExchange exchange) {
  while (!exchange->answered && !killed_) {
    if (may_feed(*exchange)) {
      co_await feed(*exchange);
    } else {
      co_await sleep_until_woken(SteadyTime::max());
    }
  }
}

asio::awaitable<Response> Connection::wait_parked(SharedExchange exchange) {
  const std::shared_ptr<ParkedAnswer> parked = exchange->outcome.parked;
  const SteadyTime deadline = steady_now() + std::min(parked->request().timeout, kParkMax);
  std::optional<Response> response;
  watch_peer();
  while (!response && !gone_) {
    response = parked->take();
    if (response) break;
    if ((killed_ || host_.stopping) && parked->close()) {
      response = unavailable("the service is stopping", exchange->request.path);
    } else if (peer_gone_ && parked->close()) {
      host_.pool->submit(
          [on_gone = std::exchange(parked->request().on_gone, nullptr)] { run_guarded(on_gone); });
      gone_ = true;
    } else if (steady_now() >= deadline && parked->close()) {
      watching_ = false;
      if (auto on_timeout = std::exchange(parked->request().on_timeout, nullptr)) {
        submit_handler(exchange, std::move(on_timeout), true);
        co_await wait_for_answer(exchange);
        response = std::move(exchange->outcome.response);
      } else {
        response = unavailable("what was waited for did not come", exchange->request.path);
      }
    } else {
      co_await sleep_until_woken(deadline);
    }
  }
  watching_ = false;
  error_code ignored;
  socket_.cancel(ignored);
  parked->forget();
  exchange->outcome.parked.reset();
  if (!response) co_return Response{};
  co_return *std::move(response);
}

// While an answer is parked, the socket is read: its end tells that the client has gone. Bytes are
// the next request's and are kept, up to the size of one head; beyond that the end is no longer
// seen.
void Connection::watch_peer() {
  watching_ = true;
  const std::uint64_t number = ++watch_number_;
  socket_.async_wait(tcp::socket::wait_read, [weak = weak_from_this(), number](error_code error) {
    const auto self = weak.lock();
    if (!self || !self->watching_ || self->watch_number_ != number) return;
    const auto bytes = error ? std::nullopt : self->receive(self->host_.scratch.size());
    if (bytes) {
      self->buffer_.append(*bytes);
      if (self->buffer_.size() < limits::kHttpHeaderBytes) self->watch_peer();
      return;
    }
    self->peer_gone_ = true;
    self->wake();
  });
}

// ---- answers ----

// Sends the answer. True when the connection can take another request.
asio::awaitable<bool> Connection::respond(SharedExchange exchange, Response response) {
  auto* producer = std::get_if<BodyProducer>(&response.body);
  const bool with_body = exchange->request.method != "HEAD" && may_have_body(response.status);
  bool keep = !close_after_ && !host_.stopping && body_.done() && exchange->head.keep_alive;
  // Without chunked framing the end of the connection is the end of the body.
  if (producer != nullptr && exchange->head.http_1_0) keep = false;
  const std::string head =
      response_head(response, exchange->head, exchange->request, keep, host_.date());
  Buffers buffers{asio::buffer(head)};
  auto* file = std::get_if<std::shared_ptr<FileBody>>(&response.body);
  const bool file_follows = with_body && file != nullptr && (*file)->size > 0;
  if (const auto* text = std::get_if<std::string>(&response.body); text != nullptr && with_body) {
    buffers[1] = asio::buffer(*text);
  }
  if (!co_await send(buffers, file_follows ? MSG_MORE : 0)) co_return false;
  if (file_follows && !co_await send_file(**file)) co_return false;
  if (with_body && producer != nullptr && !co_await send_produced(exchange, std::move(*producer))) {
    co_return false;
  }
  co_return keep && !host_.stopping;
}

asio::awaitable<bool> Connection::send(Buffers buffers, int flags) {
  while (asio::buffer_size(buffers) > 0) {
    if (gone_ || killed_) co_return false;
    set_deadline(steady_now() + limits::kHttpWriteStall);
    const auto [error, count] = co_await socket_.async_send(buffers, flags, kToken);
    deadline_ = SteadyTime::max();
    if (error) {
      gone_ = true;
      co_return false;
    }
    sent_ += count;
    std::size_t used = count;
    for (asio::const_buffer& buffer : buffers) {
      const std::size_t part = std::min(used, buffer.size());
      buffer += part;
      used -= part;
    }
  }
  co_return true;
}

asio::awaitable<bool> Connection::send_file(FileBody& file) {
  auto offset = static_cast<off_t>(file.offset);
  std::uint64_t left = file.size;
  while (left > 0 && !killed_) {
    const auto most =
        static_cast<std::size_t>(std::min<std::uint64_t>(left, limits::kHttpSendfileBytes));
    const ssize_t count = ::sendfile(socket_.native_handle(), file.fd.get(), &offset, most);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0 || (count < 0 && errno != EAGAIN)) {
      if (count == 0) log::error("a file ended before its size", {{"left", left}});
      gone_ = true;
      co_return false;
    }
    if (count > 0) {
      left -= static_cast<std::uint64_t>(count);
      sent_ += static_cast<std::uint64_t>(count);
      if (left == 0) co_return true;
    }
    // Also after success: it is the next connection's turn.
    set_deadline(steady_now() + limits::kHttpWriteStall);
    const auto [error] = co_await socket_.async_wait(tcp::socket::wait_write, kToken);
    deadline_ = SteadyTime::max();
    if (error) {
      gone_ = true;
      co_return false;
    }
  }
  co_return left == 0;
}

asio::awaitable<bool> Connection::send_produced(SharedExchange exchange, BodyProducer producer) {
  const auto shared = std::make_shared<BodyProducer>(std::move(producer));
  const bool chunked = !exchange->head.http_1_0;
  while (true) {
    submit(*host_.pool, exchange, [shared] { return run_producer(*shared); }, true);
    while (!exchange->answered && !killed_) co_await sleep_until_woken(SteadyTime::max());
    if (killed_ || exchange->outcome.broken) {
      // Without the last chunk the client knows that the body is not whole.
      gone_ = true;
      co_return false;
    }
    const std::string piece = std::get<std::string>(std::move(exchange->outcome.response.body));
    if (piece.empty() && !chunked) co_return true;
    const bool sent = co_await send_piece(piece, chunked);
    if (!sent || piece.empty()) co_return sent;
  }
}

asio::awaitable<bool> Connection::send_piece(const std::string& piece, bool chunked) {
  char size[24] = "";
  if (chunked) std::snprintf(size, sizeof size, "%zx\r\n", piece.size());
  const std::string_view size_line(size);
  const Buffers buffers{asio::buffer(size_line), asio::buffer(piece),
                        asio::buffer(std::string_view(chunked ? "\r\n" : ""))};
  co_return co_await send(buffers, 0);
}

// After a refusal the client may still be sending. Closing at once would reset the connection and
// could take the answer from it, so what comes is read away for a while.
asio::awaitable<void> Connection::linger() {
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  const SteadyTime deadline = steady_now() + limits::kHttpLinger;
  while (!host_.stopping && !killed_ && steady_now() < deadline) {
    const Wait wait = co_await readable(deadline);
    if (wait != Wait::kReady || !receive(host_.scratch.size())) co_return;
  }
}

// ---- waiting ----

// Into the shared buffer; nothing at the end of the connection.
std::optional<std::string_view> Connection::receive(std::size_t bytes_max) {
  error_code error;
  const std::size_t count = socket_.read_some(asio::buffer(host_.scratch.data(), bytes_max), error);
  if (error == asio::error::would_block || error == asio::error::try_again) {
    return std::string_view();
  }
  if (error) return std::nullopt;
  got_ += count;
  return std::string_view(host_.scratch.data(), count);
}

asio::awaitable<Connection::Wait> Connection::readable(SteadyTime deadline) {
  if (killed_) co_return Wait::kInterrupted;
  set_deadline(deadline);
  reading_ = true;
  const auto [error] = co_await socket_.async_wait(tcp::socket::wait_read, kToken);
  reading_ = false;
  deadline_ = SteadyTime::max();
  if (!error) co_return Wait::kReady;
  if (error != asio::error::operation_aborted) co_return Wait::kFailed;
  co_return timed_out_ ? Wait::kTimeout : Wait::kInterrupted;
}

asio::awaitable<void> Connection::sleep_until_woken(SteadyTime until) {
  if (!woken_) {
    wake_.expires_at(until);
    co_await wake_.async_wait(kToken);
  }
  woken_ = false;
}

void Connection::wake() {
  woken_ = true;
  wake_.cancel();
  error_code ignored;
  if (reading_) socket_.cancel(ignored);
}

void Connection::on_stop() {
  wake();
}

void Connection::kill() {
  killed_ = true;
  error_code ignored;
  socket_.close(ignored);
  wake();
}

void Connection::set_deadline(SteadyTime deadline) {
  deadline_ = deadline;
  timed_out_ = false;
  if (deadline < timer_expiry_) arm_timer();
}

void Connection::arm_timer() {
  timer_expiry_ = deadline_;
  timer_.expires_at(deadline_);
  timer_.async_wait([weak = weak_from_this(), number = ++timer_number_](error_code) {
    const auto self = weak.lock();
    if (!self || self->timer_number_ != number) return;
    self->timer_expiry_ = SteadyTime::max();
    if (self->deadline_ == SteadyTime::max()) return;
    if (steady_now() < self->deadline_) return self->arm_timer();
    self->timed_out_ = true;
    error_code ignored;
    self->socket_.cancel(ignored);
  });
}

}  // namespace

void start_connection(ConnectionHost& host, FileDescriptor socket, int family,
                      std::string remote_address) {
  error_code error;
  tcp::socket stream(host.io);
  stream.assign(family == AF_INET6 ? tcp::v6() : tcp::v4(), socket.get(), error);
  if (!error) {
    (void)socket.release();
    stream.non_blocking(true, error);
  }
  if (error) return log::warn("cannot serve a connection", {{"error", error.message()}});
  auto connection =
      std::make_shared<Connection>(host, std::move(stream), std::move(remote_address));
  host.connections.insert(connection.get());
  auto running = Connection::run(std::move(connection));
  asio::co_spawn(host.io, std::move(running), asio::detached);
}

}  // namespace necrocode::net
