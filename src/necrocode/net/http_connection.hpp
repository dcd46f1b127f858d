// HttpConnection: one accepted socket, served from its first request to its end; ConnectionHost:
// what the connections of one server share. Between http_server.cpp and http_connection.cpp;
// nothing else includes it. No Asio header here: a connection
// is handed over as a descriptor.
//
// On the I/O thread nothing may block and no code of a handler may run. Other threads reach a
// connection only by asio::post. A g++ 12 defect: a temporary that owns something must not stand in
// the argument list of a co_await'ed call; name it first.
#pragma once

#include <array>
#include <cstddef>
#include <ctime>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/net/exchange.hpp"
#include "necrocode/net/handler_pool.hpp"
#include "necrocode/net/http_router.hpp"

namespace boost::asio {
class io_context;
}

namespace necrocode::net {

/// A connection as its server sees it. Only on the I/O thread.
class HttpConnection {
 public:
  virtual ~HttpConnection() = default;
  virtual void on_stop() = 0;
  virtual void kill() = 0;
  /// Since when it has been waiting for a request; nothing while it serves one.
  virtual std::optional<SteadyTime> idle_since() const = 0;
  /// The number of the listener by which it came; 0: the server's own.
  virtual std::uint64_t listener() const = 0;
};

/// The server as its connections see it. Belongs to the I/O thread once that runs; the pools may be
/// given work from any thread. Outlives its connections. Its functions are in http_server.cpp.
struct ConnectionHost {
  ConnectionHost(HttpServerOptions given, boost::asio::io_context& loop)
      : options(std::move(given)), io(loop) {}
  virtual ~ConnectionHost() = default;
  ConnectionHost(const ConnectionHost&) = delete;
  ConnectionHost& operator=(const ConnectionHost&) = delete;

  /// Called last by a connection that ends.
  virtual void leave(HttpConnection* connection) = 0;
  std::string_view date();
  /// An outcome that no connection waits for any more.
  void discard(const Outcome& outcome);
  void report(const Exchange& exchange, int status);

  HttpServerOptions options;
  HttpRouter router;
  std::function<void(const AccessRecord&)> observer;

  boost::asio::io_context& io;
  std::set<HttpConnection*> connections;
  // Sockets are read into this one buffer and at once copied out of it: an idle or slow connection
  // holds no buffer of its own. Valid until the next suspension.
  std::array<char, limits::kHttpStreamChunkBytes> scratch{};
  std::size_t bodies_in_memory = 0;
  bool stopping = false;
  std::time_t date_second = 0;
  std::string date_text;

  std::optional<HandlerPool> pool;
  std::optional<HandlerPool> priority_pool;
  std::optional<HandlerPool> stream_pool;
  std::optional<HandlerPool> feed_pool;  // news for a thousand feeds hold up no request
};

/// Serves a connected TCP socket of the address family `family`. From here on it owns itself: it
/// enters `host.connections`, and leaves when it ends. A socket that cannot be served is closed.
void start_connection(ConnectionHost& host, FileDescriptor socket, int family,
                      std::string remote_address, std::uint64_t listener);

}  // namespace necrocode::net
