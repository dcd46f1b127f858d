// RawClient: a blocking loopback connection that sends exactly the bytes it is told, and reads HTTP
// answers. Depends on nothing of our own HTTP code but the Headers type.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/http.hpp"

namespace necrocode::test {

struct RawAnswer {
  int status = 0;  ///< 0: the connection ended before an answer
  net::Headers headers;
  std::string body;
  bool whole = false;  ///< false: cut off inside the body
  Json json() const { return Json::try_parse(body).value_or(Json()); }
};

/// Every wait ends after 10 s and fails the test.
class RawClient {
 public:
  explicit RawClient(std::uint16_t port, int send_buffer = 0)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval limit{10, 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (send_buffer > 0) {
      ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ =
        ::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  bool connected() const { return connected_; }
  int fd() const { return socket_.get(); }

  /// False when the other side has closed.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }
  /// As many bytes as the socket takes at once; 0 when it takes none.
  std::size_t send_some(std::string_view bytes) {
    const ssize_t count =
        ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return count > 0 ? static_cast<std::size_t>(count) : 0;
  }
  void shutdown_write() { ::shutdown(socket_.get(), SHUT_WR); }
  void close() { socket_.reset(); }

  /// True when bytes, or the end, can be read within `wait`.
  bool readable(std::chrono::milliseconds wait) const {
    pollfd waiting{socket_.get(), POLLIN, 0};
    return ::poll(&waiting, 1, static_cast<int>(wait.count())) > 0;
  }
  /// The next answer; `head`: to a HEAD request.
  RawAnswer read_answer(bool head = false) {
    RawAnswer answer;
    std::size_t end = std::string::npos;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!fill()) return answer;
    }
    parse_head(buffer_.substr(0, end + 2), answer);
    buffer_.erase(0, end + 4);
    const bool none = head || answer.status < 200 || answer.status == 204 || answer.status == 304;
    answer.whole = none || read_body(answer);
    return answer;
  }
  /// Of a body that does not end: what came up to `text`, with it; all that came at the end of the
  /// connection.
  std::string read_until(std::string_view text) {
    std::size_t at = std::string::npos;
    while ((at = buffer_.find(text)) == std::string::npos) {
      if (!fill()) return std::exchange(buffer_, {});
    }
    std::string read = buffer_.substr(0, at + text.size());
    buffer_.erase(0, read.size());
    return read;
  }
  RawAnswer call(std::string_view request) {
    send(request);
    return read_answer();
  }
  /// True when the other side closes without sending anything more.
  bool ends() { return buffer_.empty() && !fill() && !timed_out_; }
  /// Bytes that came and no answer has used.
  const std::string& rest() const { return buffer_; }

 private:
  bool fill() {
    char bytes[16384];
    ssize_t count = 0;
    do {
      count = ::recv(socket_.get(), bytes, sizeof bytes, 0);
    } while (count < 0 && errno == EINTR);
    if (count < 0 && errno == EAGAIN) {
      timed_out_ = true;
      ADD_FAILURE() << "the server said nothing for 10 s";
    }
    if (count <= 0) return false;
    buffer_.append(bytes, static_cast<std::size_t>(count));
    return true;
  }
  static void parse_head(std::string_view text, RawAnswer& answer) {
    answer.status = std::atoi(std::string(text.substr(9, 3)).c_str());
    for (std::string_view line : split(text, '\n')) {
      const std::size_t colon = line.find(':');
      if (colon == std::string_view::npos || line.starts_with("HTTP/")) continue;
      answer.headers.add(line.substr(0, colon), std::string(trim(line.substr(colon + 1))));
    }
  }
  bool take(std::size_t count, std::string& to) {
    while (buffer_.size() < count) {
      if (!fill()) return false;
    }
    to.append(buffer_, 0, count);
    buffer_.erase(0, count);
    return true;
  }
  bool read_body(RawAnswer& answer) {
    if (const auto length = answer.headers.get("Content-Length")) {
      return take(static_cast<std::size_t>(parse_uint(*length).value()), answer.body);
    }
    if (!answer.headers.get("Transfer-Encoding")) {
      while (fill()) {
      }
      answer.body = std::move(buffer_);
      buffer_.clear();
      return true;
    }
    while (true) {
      std::size_t end = std::string::npos;
      while ((end = buffer_.find("\r\n")) == std::string::npos) {
        if (!fill()) return false;
      }
      const std::size_t size = std::strtoull(buffer_.c_str(), nullptr, 16);
      buffer_.erase(0, end + 2);
      std::string line_end;
      if (!take(size, answer.body) || !take(2, line_end) || line_end != "\r\n") return false;
      if (size == 0) return true;
    }
  }

  FileDescriptor socket_;
  bool connected_ = false;
  bool timed_out_ = false;
  std::string buffer_;
};

}  // namespace necrocode::test
