// HttpSocket: a connection's socket as its coroutine uses it: reads and sends with deadlines, is
// woken by other threads, notices that the client has gone. Knows nothing of HTTP but the framing
// of a chunk. One of the three files with Asio (http_server.cpp says which); all of it on the I/O
// thread, but for what waker() returns.
#pragma once

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "necrocode/base/clock.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::net {

class HttpSocket final : public std::enable_shared_from_this<HttpSocket> {
 public:
  using Tcp = boost::asio::ip::tcp;
  using Buffers = std::array<boost::asio::const_buffer, 3>;
  enum class Wait { kReady, kTimeout, kInterrupted, kFailed };

  /// `scratch`: a buffer that all sockets of the thread read into.
  HttpSocket(boost::asio::io_context& io, Tcp::socket socket, std::span<char> scratch);

  /// Until there is something to read; kInterrupted when it was woken first.
  boost::asio::awaitable<Wait> readable(SteadyTime deadline);
  /// What is there, at most `bytes_max`, without waiting; nothing at the end of the connection.
  /// Valid until the next suspension.
  std::optional<std::string_view> receive(std::size_t bytes_max);

  // Sending. False, and then gone(), when not all could be sent.
  boost::asio::awaitable<bool> send(Buffers buffers, int flags);
  boost::asio::awaitable<bool> send_file(FileBody& file);
  /// As a chunk, or bare; an empty chunk is the last.
  boost::asio::awaitable<bool> send_piece(const std::string& piece, bool chunked);
  /// Ends the sending side, and reads away what the client is still sending.
  boost::asio::awaitable<void> linger();

  /// Returns at once when it was woken since the last time.
  boost::asio::awaitable<void> sleep_until_woken(SteadyTime until);
  /// Something that the coroutine may be waiting for has happened.
  void wake();
  /// The same, for other threads.
  std::function<void()> waker();

  /// While an answer waits, the socket is read: its end tells that the client has gone (peer_gone()
  /// and a wake-up). Bytes are the next request's and go into `buffer`, up to the size of one head;
  /// beyond that the end is no longer seen.
  void watch_peer();
  void unwatch_peer();
  bool peer_gone() const { return peer_gone_; }

  /// Nothing can be sent any more.
  void give_up() { gone_ = true; }
  bool gone() const { return gone_; }
  /// Ends all waits, and the connection.
  void kill();
  bool killed() const { return killed_; }
  void close();

  std::string buffer;           ///< read, not used
  std::uint64_t bytes_in = 0;   ///< counted for their reader, who sets them to 0
  std::uint64_t bytes_out = 0;  ///< the same

 private:
  void set_deadline(SteadyTime deadline);
  void arm_timer();

  boost::asio::io_context& io_;
  Tcp::socket socket_;
  const std::span<char> scratch_;
  bool reading_ = false;
  bool gone_ = false;
  bool killed_ = false;

  // One timer for all deadlines. It is not set anew for each of them: when it fires too early, it
  // is set again, so that a request costs no timer operation.
  boost::asio::steady_timer timer_;
  SteadyTime deadline_ = SteadyTime::max();
  SteadyTime timer_expiry_ = SteadyTime::max();
  std::uint64_t timer_number_ = 0;
  bool timed_out_ = false;

  boost::asio::steady_timer wake_;
  bool woken_ = false;
  bool watching_ = false;
  bool peer_gone_ = false;
  std::uint64_t watch_number_ = 0;
};

}  // namespace necrocode::net
