#include "necrocode/net/http_socket.hpp"

#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "necrocode/observe/log.hpp"

namespace necrocode::net {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);

SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}

}  // namespace

HttpSocket::HttpSocket(asio::io_context& io, Tcp::socket socket, std::span<char> scratch)
    : io_(io), socket_(std::move(socket)), scratch_(scratch), timer_(io), wake_(io) {}

// ---- reading ----

asio::awaitable<HttpSocket::Wait> HttpSocket::readable(SteadyTime deadline) {
  if (killed_) co_return Wait::kInterrupted;
  set_deadline(deadline);
  reading_ = true;
  const auto [error] = co_await socket_.async_wait(Tcp::socket::wait_read, kToken);
  reading_ = false;
  deadline_ = SteadyTime::max();
  if (!error) co_return Wait::kReady;
  if (error != asio::error::operation_aborted) co_return Wait::kFailed;
  co_return timed_out_ ? Wait::kTimeout : Wait::kInterrupted;
}

std::optional<std::string_view> HttpSocket::receive(std::size_t bytes_max) {
  const std::size_t most = std::min(bytes_max, scratch_.size());
  error_code error;
  const std::size_t count = socket_.read_some(asio::buffer(scratch_.data(), most), error);
  if (error == asio::error::would_block || error == asio::error::try_again) {
    return std::string_view();
  }
  if (error) return std::nullopt;
  bytes_in += count;
  return std::string_view(scratch_.data(), count);
}

// ---- sending ----

asio::awaitable<bool> HttpSocket::send(Buffers buffers, int flags) {
  while (asio::buffer_size(buffers) > 0) {
    if (gone_ || killed_) co_return false;
    set_deadline(steady_now() + limits::kHttpWriteStall);
    const auto [error, count] = co_await socket_.async_send(buffers, flags, kToken);
    deadline_ = SteadyTime::max();
    if (error) {
      gone_ = true;
      co_return false;
    }
    bytes_out += count;
    std::size_t used = count;
    for (asio::const_buffer& rest : buffers) {
      const std::size_t part = std::min(used, rest.size());
      rest += part;
      used -= part;
    }
  }
  co_return true;
}

asio::awaitable<bool> HttpSocket::send_file(FileBody& file) {
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
      bytes_out += static_cast<std::uint64_t>(count);
      if (left == 0) co_return true;
    }
    // Also after success: it is the next connection's turn.
    set_deadline(steady_now() + limits::kHttpWriteStall);
    const auto [error] = co_await socket_.async_wait(Tcp::socket::wait_write, kToken);
    deadline_ = SteadyTime::max();
    if (error) {
      gone_ = true;
      co_return false;
    }
  }
  co_return left == 0;
}

asio::awaitable<bool> HttpSocket::send_piece(const std::string& piece, bool chunked) {
  char size[24] = "";
  if (chunked) std::snprintf(size, sizeof size, "%zx\r\n", piece.size());
  const std::string_view size_line(size);
  const Buffers buffers{asio::buffer(size_line), asio::buffer(piece),
                        asio::buffer(std::string_view(chunked ? "\r\n" : ""))};
  co_return co_await send(buffers, 0);
}

// After a refusal the client may still be sending. Closing at once would reset the connection and
// could take the answer from it, so what comes is read away for a while.
asio::awaitable<void> HttpSocket::linger() {
  error_code ignored;
  socket_.shutdown(Tcp::socket::shutdown_send, ignored);
  const SteadyTime deadline = steady_now() + limits::kHttpLinger;
  while (!killed_ && steady_now() < deadline) {
    const Wait wait = co_await readable(deadline);
    if (wait != Wait::kReady || !receive(scratch_.size())) co_return;
  }
}

// ---- waiting ----

asio::awaitable<void> HttpSocket::sleep_until_woken(SteadyTime until) {
  if (!woken_) {
    wake_.expires_at(until);
    co_await wake_.async_wait(kToken);
  }
  woken_ = false;
}

void HttpSocket::wake() {
  woken_ = true;
  wake_.cancel();
  error_code ignored;
  if (reading_) socket_.cancel(ignored);
}

std::function<void()> HttpSocket::waker() {
  return [weak = weak_from_this(), &io = io_] {
    asio::post(io, [weak] {
      if (const auto self = weak.lock()) self->wake();
    });
  };
}

void HttpSocket::watch_peer() {
  watching_ = true;
  const std::uint64_t number = ++watch_number_;
  socket_.async_wait(Tcp::socket::wait_read, [weak = weak_from_this(), number](error_code error) {
    const auto self = weak.lock();
    if (!self || !self->watching_ || self->watch_number_ != number) return;
    const auto bytes = error ? std::nullopt : self->receive(self->scratch_.size());
    if (bytes) {
      self->buffer.append(*bytes);
      if (self->buffer.size() < limits::kHttpHeaderBytes) self->watch_peer();
      return;
    }
    self->peer_gone_ = true;
    self->wake();
  });
}

void HttpSocket::unwatch_peer() {
  watching_ = false;
  error_code ignored;
  socket_.cancel(ignored);
}

void HttpSocket::kill() {
  killed_ = true;
  error_code ignored;
  socket_.close(ignored);
  wake();
}

void HttpSocket::close() {
  error_code ignored;
  socket_.shutdown(Tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
}

void HttpSocket::set_deadline(SteadyTime deadline) {
  deadline_ = deadline;
  timed_out_ = false;
  if (deadline < timer_expiry_) arm_timer();
}

void HttpSocket::arm_timer() {
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

}  // namespace necrocode::net
