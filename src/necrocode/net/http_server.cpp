// The HTTP server: it listens, accepts, keeps the number of connections within its limit, starts
// and stops. One I/O thread; what happens on a connection is in http_connection.cpp, how it waits
// and moves bytes in http_socket.cpp. These three are the only files with Asio and coroutines.
// Beast is left out: its parser takes forms that we must refuse (folded lines, several equal
// lengths in one field …), and a second parser in front of it would only be two readers of the same
// bytes; http1.cpp is the one reader.
#include "necrocode/net/http_server.hpp"

#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <future>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "necrocode/base/check.hpp"
#include "necrocode/base/clock.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/base/trace_context.hpp"
#include "necrocode/net/http_connection.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);

// Shared with the coroutine that accepts on it.
struct Listener {
  Listener(asio::io_context& io, std::uint64_t given) : acceptor(io), pause(io), number(given) {}
  void close() {
    error_code ignored;
    acceptor.close(ignored);
    pause.cancel();
  }

  tcp::acceptor acceptor;
  asio::steady_timer pause;
  const std::uint64_t number;  // 0: the server's own
};
using SharedListener = std::shared_ptr<Listener>;

// The server. Everything but `stop_mutex` and what it guards belongs to the I/O thread once it
// runs.
struct Core final : ConnectionHost {
  explicit Core(HttpServerOptions given) : ConnectionHost(std::move(given), loop) {
    router.unknown_path = options.unknown_path;
  }

  void listen();
  void start_threads();
  void run_io();
  void stop();
  std::uint64_t add_listener(FileDescriptor socket);
  void forget_listener(std::uint64_t listener);
  void begin_accepting(SharedListener listener);
  static asio::awaitable<void> accept_all(Core& core, SharedListener listener);
  void admit(tcp::socket socket, std::uint64_t listener);
  void turn_away(tcp::socket& socket);
  bool evict_idle();
  void leave(HttpConnection* connection) override;
  void begin_stop();
  void kill_all();

  std::uint16_t port = 0;

  asio::io_context loop{1};
  std::map<std::uint64_t, SharedListener> listeners;  // by number
  asio::steady_timer drain_timer{loop};

  std::mutex stop_mutex;
  bool started = false;
  bool stopped = false;
  std::uint64_t listeners_added = 0;
  std::thread thread;
};

void Core::listen() {
  std::string text = options.address == "localhost" ? "127.0.0.1" : options.address;
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  error_code error;
  const auto address = asio::ip::make_address(text, error);
  const tcp::endpoint endpoint(address, options.port);
  const auto listener = std::make_shared<Listener>(loop, 0);
  tcp::acceptor& acceptor = listener->acceptor;
  if (!error) acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    throw ConfigError("cannot listen on " + options.address + ":" + std::to_string(options.port) +
                      ": " + error.message() +
                      (error == asio::error::address_in_use
                           ? "; port 0 takes a free one, as in --listen 127.0.0.1:0"
                           : ""));
  }
  port = acceptor.local_endpoint().port();
  begin_accepting(listener);
}

void Core::begin_accepting(SharedListener listener) {
  listeners[listener->number] = listener;
  auto accepting = accept_all(*this, std::move(listener));
  asio::co_spawn(io, std::move(accepting), asio::detached);
}

void Core::start_threads() {
  // Signals stay with the thread that calls, and sendfile() must not raise SIGPIPE.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pool.emplace(options.handler_threads, options.handler_queue);
  priority_pool.emplace(1, options.handler_queue);
  stream_pool.emplace(options.stream_threads, options.stream_queue);
  feed_pool.emplace(limits::kHttpFeedThreads, 0);
  thread = std::thread([this] { run_io(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Core::run_io() {
  while (true) {
    try {
      io.run();
      return;
    } catch (const std::exception& error) {
      log::error("the HTTP server's loop failed and goes on", {{"error", error.what()}});
    }
  }
}

asio::awaitable<void> Core::accept_all(Core& core, SharedListener listener) {
  while (listener->acceptor.is_open()) {
    auto [error, socket] = co_await listener->acceptor.async_accept(kToken);
    if (!listener->acceptor.is_open()) co_return;
    if (!error) {
      core.admit(std::move(socket), listener->number);
      continue;
    }
    // Out of descriptors, most likely: an idle connection gives one back.
    log::warn("cannot accept a connection", {{"error", error.message()}});
    core.evict_idle();
    listener->pause.expires_after(std::chrono::milliseconds(100));
    co_await listener->pause.async_wait(kToken);
  }
}

void Core::admit(tcp::socket socket, std::uint64_t listener) {
  if (connections.size() >= options.connections_max && !evict_idle()) return turn_away(socket);
  error_code error;
  socket.set_option(tcp::no_delay(true), error);
  const tcp::endpoint peer = error ? tcp::endpoint() : socket.remote_endpoint(error);
  if (error) return;  // gone already
  FileDescriptor descriptor(socket.release(error));
  if (error) return;
  start_connection(*this, std::move(descriptor), peer.protocol().family(),
                   peer.address().to_string(), listener);
}

std::uint64_t Core::add_listener(FileDescriptor socket) {
  const std::lock_guard lock(stop_mutex);
  NECROCODE_CHECK(started);
  int family = 0;
  socklen_t size = sizeof family;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_DOMAIN, &family, &size) != 0) {
    throw_errno("cannot accept on a descriptor");
  }
  const auto listener = std::make_shared<Listener>(loop, ++listeners_added);
  listener->acceptor.assign(family == AF_INET6 ? tcp::v6() : tcp::v4(), socket.get());
  (void)socket.release();
  if (!stopped) {
    asio::post(io, [this, listener] {
      if (!stopping) begin_accepting(listener);
    });
  }
  return listener->number;
}

void Core::forget_listener(std::uint64_t listener) {
  const std::lock_guard lock(stop_mutex);
  if (!started || stopped) return;
  std::promise<void> closed;
  asio::post(io, [this, listener, &closed] {
    if (const auto found = listeners.find(listener); found != listeners.end()) {
      found->second->close();
      listeners.erase(found);
      for (HttpConnection* connection : connections) {
        if (connection->listener() == listener) connection->kill();
      }
    }
    closed.set_value();
  });
  closed.get_future().wait();
}

// One connection too many: it gets its answer without being read. What has come already is taken
// out, or closing would reset the connection and could take the answer along.
void Core::turn_away(tcp::socket& socket) {
  Exchange exchange;
  exchange.began = real_clock().steady_now();
  exchange.request.request_id = uuid7();
  const Response answer = unavailable("too many connections are open", "");
  const std::string text = response_head(answer, exchange.head, exchange.request, false, date()) +
                           std::get<std::string>(answer.body);
  error_code ignored;
  socket.non_blocking(true, ignored);
  exchange.bytes_out = socket.write_some(asio::buffer(text), ignored);
  socket.shutdown(tcp::socket::shutdown_send, ignored);
  exchange.bytes_in = socket.read_some(asio::buffer(scratch), ignored);
  report(exchange, answer.status);
}

// Closes the connection that has waited longest for a request. False when none is waiting.
bool Core::evict_idle() {
  HttpConnection* oldest = nullptr;
  for (HttpConnection* connection : connections) {
    if (!connection->idle_since()) continue;
    if (oldest == nullptr || connection->idle_since() < oldest->idle_since()) oldest = connection;
  }
  if (oldest != nullptr) oldest->kill();
  return oldest != nullptr;
}

void Core::leave(HttpConnection* connection) {
  connections.erase(connection);
  if (stopping && connections.empty()) drain_timer.cancel();
}

void Core::begin_stop() {
  stopping = true;
  for (const auto& [number, listener] : listeners) listener->close();
  listeners.clear();
  for (HttpConnection* connection : connections) connection->on_stop();
  if (connections.empty()) return;
  drain_timer.expires_after(options.drain_time);
  drain_timer.async_wait([this](error_code error) {
    if (!error) kill_all();
  });
}

void Core::kill_all() {
  for (HttpConnection* connection : connections) connection->kill();
}

void Core::stop() {
  const std::lock_guard lock(stop_mutex);
  if (!started || stopped) return;
  stopped = true;
  asio::post(io, [this] { begin_stop(); });
  thread.join();
  pool->stop();
  priority_pool->stop();
  stream_pool->stop();
  feed_pool->stop();
  // What the pool's threads handed over last; it closes answers parked too late.
  io.restart();
  io.poll();
}

}  // namespace

std::string_view ConnectionHost::date() {
  const auto now = real_clock().system_now();
  const std::time_t second = std::chrono::system_clock::to_time_t(now);
  if (second != date_second) {
    date_second = second;
    date_text = to_http_date(now);
  }
  return date_text;
}

void ConnectionHost::discard(const Outcome& outcome) {
  const auto parked = outcome.parked;
  if (!parked) return;
  if (parked->close()) {
    pool->submit(
        [on_gone = std::exchange(parked->request().on_gone, nullptr)] { run_guarded(on_gone); });
  }
  parked->forget();
}

void ConnectionHost::report(const Exchange& exchange, int status) {
  if (!observer) return;
  AccessRecord record;
  record.method = exchange.request.method;
  record.route = exchange.route != nullptr ? exchange.route->pattern : "";
  record.target = exchange.request.target;
  record.request_id = exchange.request.request_id;
  record.remote_address = exchange.request.remote_address;
  const auto trace = exchange.request.headers.get("traceparent");
  if (trace && TraceContext::parse(*trace)) record.traceparent = *trace;
  record.status = status;
  record.bytes_in = exchange.bytes_in;
  record.bytes_out = exchange.bytes_out;
  record.duration = real_clock().steady_now() - exchange.began;
  run_guarded([&] { observer(record); });
}

std::size_t connections_within_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return limits::kHttpConnections;
  const rlim_t before = std::exchange(limit.rlim_cur, limit.rlim_max);
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  const rlim_t reserve = std::min<rlim_t>(limits::kDescriptorReserve, limit.rlim_cur / 2);
  return std::min<rlim_t>(limits::kHttpConnections, limit.rlim_cur - reserve);
}

struct HttpServer::State {
  explicit State(HttpServerOptions options) : core(std::move(options)) {}
  Core core;
};

HttpServer::HttpServer(HttpServerOptions options)
    : state_(std::make_unique<State>(std::move(options))) {}

HttpServer::~HttpServer() {
  stop();
}

void HttpServer::route(std::string method, std::string pattern, Handler handler,
                       RouteOptions options) {
  NECROCODE_CHECK(!state_->core.started);
  state_->core.router.add(std::move(method), std::move(pattern), std::move(handler), options);
}

void HttpServer::on_access(std::function<void(const AccessRecord&)> observer) {
  NECROCODE_CHECK(!state_->core.started);
  state_->core.observer = std::move(observer);
}

void HttpServer::start() {
  Core& core = state_->core;
  const std::lock_guard lock(core.stop_mutex);
  NECROCODE_CHECK(!core.started);
  core.listen();
  core.start_threads();
  core.started = true;
}

std::uint64_t HttpServer::add_listener(FileDescriptor listener) {
  return state_->core.add_listener(std::move(listener));
}

void HttpServer::forget_listener(std::uint64_t number) {
  state_->core.forget_listener(number);
}

void HttpServer::stop() {
  state_->core.stop();
}

std::uint16_t HttpServer::port() const {
  return state_->core.port;
}

std::string HttpServer::url() const {
  std::string host = state_->core.options.address;
  if (host == "localhost") host = "127.0.0.1";
  if (host.find(':') != std::string::npos && !host.starts_with('[')) host = "[" + host + "]";
  return "http://" + host + ":" + std::to_string(port());
}

}  // namespace necrocode::net
