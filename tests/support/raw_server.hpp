// RawServer: plays scripted bytes over real loopback sockets, so that a client meets whatever a
// network can do: silence, cuts, resets, garbage. It knows nothing of our own HTTP server.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/http.hpp"

namespace necrocode::test {

struct RecordedRequest {
  std::size_t connection = 0;  ///< counted from 0
  std::string method, target;
  net::Headers headers;
  std::string body;
};

class RawServer;

/// The server's end of one connection. Used by one thread.
class RawConnection {
 public:
  RawConnection(RawServer& server, int fd, std::size_t index)
      : server_(server), fd_(fd), index_(index) {}

  std::size_t index() const { return index_; }
  int fd() const { return fd_.get(); }

  /// The next request, body included, also recorded by the server. Nothing when the peer closed.
  std::optional<RecordedRequest> read_request();
  /// Only the header's end; the body stays unread.
  std::optional<RecordedRequest> read_head();

  /// False when the peer is gone.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }
  /// Each byte in a packet of its own.
  bool send_bytewise(std::string_view bytes) {
    for (const char byte : bytes) {
      if (!send({&byte, 1})) return false;
    }
    return true;
  }
  void close() {
    if (fd_) ::shutdown(fd_.get(), SHUT_RDWR);
  }
  /// The peer sees ECONNRESET.
  void reset() {
    // Linux: dissolving the association sends RST, and the descriptor stays open for other threads.
    sockaddr none{};
    none.sa_family = AF_UNSPEC;
    EXPECT_EQ(::connect(fd_.get(), &none, sizeof none), 0);
  }
  /// Says nothing until the peer closes, at most that long; whether it has closed.
  bool closed_within(std::chrono::milliseconds time) {
    pollfd peer{fd_.get(), POLLRDHUP, 0};
    return ::poll(&peer, 1, static_cast<int>(time.count())) != 0;
  }
  /// Reads until the peer closes: the way to be silent.
  void wait_closed() {
    char buffer[4096];
    while (::recv(fd_.get(), buffer, sizeof buffer, 0) > 0) {
    }
  }

 private:
  friend class RawServer;
  bool receive() {
    char buffer[64 * 1024];
    const ssize_t count = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    if (count <= 0) return false;
    pending_.append(buffer, static_cast<std::size_t>(count));
    return true;
  }
  bool read_body(RecordedRequest& request);

  RawServer& server_;
  FileDescriptor fd_;
  std::size_t index_;
  std::string pending_;
};

/// Thread-safe. Each connection's script runs on a thread of its own.
class RawServer {
 public:
  using Script = std::function<void(RawConnection&)>;

  explicit RawServer(Script script) : script_(std::move(script)) {
    listener_ = FileDescriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(listener_.get(), generic, size), 0);
    EXPECT_EQ(::listen(listener_.get(), 128), 0);
    EXPECT_EQ(::getsockname(listener_.get(), generic, &size), 0);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }

  ~RawServer() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      for (auto& served : connections_) served.connection.close();
    }
    changed_.notify_all();
    ::shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
    for (auto& served : connections_) served.thread.join();
  }
  RawServer(const RawServer&) = delete;
  RawServer& operator=(const RawServer&) = delete;

  int port() const { return port_; }
  std::string url(std::string_view path = "/") const {
    return "http://127.0.0.1:" + std::to_string(port_) + std::string(path);
  }
  std::vector<RecordedRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  std::size_t connections() const {
    const std::lock_guard lock(mutex_);
    return connections_.size();
  }
  void wait_for_requests(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return requests_.size() >= count || stopping_; });
  }
  /// Until that many scripts have come to their end.
  void wait_for_ended(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_ >= count || stopping_; });
  }
  void record(RecordedRequest request) {
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(std::move(request));
    }
    changed_.notify_all();
  }

 private:
  struct Served {
    Served(RawServer& server, int fd, std::size_t index) : connection(server, fd, index) {}
    RawConnection connection;
    std::thread thread;
  };

  void accept_all() {
    for (;;) {
      const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      const std::lock_guard lock(mutex_);
      Served& served = connections_.emplace_back(*this, fd, connections_.size());
      if (stopping_) served.connection.close();
      served.thread = std::thread([this, &served] {
        script_(served.connection);
        const std::lock_guard ended(mutex_);
        served.connection.close();  // the descriptor itself stays until the end: no reuse meanwhile
        ++ended_;
        changed_.notify_all();
      });
    }
  }

  const Script script_;
  FileDescriptor listener_;
  int port_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Served> connections_;
  std::vector<RecordedRequest> requests_;
  std::size_t ended_ = 0;
  bool stopping_ = false;
  std::thread acceptor_;
};

inline std::optional<RecordedRequest> RawConnection::read_head() {
  std::size_t end = 0;
  while ((end = pending_.find("\r\n\r\n")) == std::string::npos) {
    if (!receive()) return std::nullopt;
  }
  RecordedRequest request;
  request.connection = index_;
  const std::string head = pending_.substr(0, end);
  pending_.erase(0, end + 4);
  const auto lines = split(head, '\n');
  const auto words = split(trim(lines[0]), ' ');
  if (words.size() != 3) return std::nullopt;
  request.method = words[0];
  request.target = words[1];
  for (std::size_t i = 1; i < lines.size(); ++i) {
    const std::size_t colon = lines[i].find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    request.headers.add(lines[i].substr(0, colon), std::string(trim(lines[i].substr(colon + 1))));
  }
  return request;
}

inline bool RawConnection::read_body(RecordedRequest& request) {
  const auto length = parse_uint(request.headers.get_or("Content-Length", "0"));
  if (!length) return false;
  while (pending_.size() < *length) {
    if (!receive()) return false;
  }
  request.body = pending_.substr(0, static_cast<std::size_t>(*length));
  pending_.erase(0, static_cast<std::size_t>(*length));
  return true;
}

inline std::optional<RecordedRequest> RawConnection::read_request() {
  auto request = read_head();
  if (!request || !read_body(*request)) return std::nullopt;
  server_.record(*request);
  return request;
}

/// A whole answer with its length.
inline std::string answer(int status, std::string_view body, std::string_view fields = {}) {
  return "HTTP/1.1 " + std::to_string(status) + " " + std::string(net::reason_phrase(status)) +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + std::string(fields) +
         "\r\n" + std::string(body);
}

/// Answers the nth request, over whatever connection it comes, with the nth answer; then with the
/// last.
inline RawServer::Script plays(std::vector<std::string> answers) {
  struct State {
    std::mutex mutex;
    std::size_t next = 0;
  };
  auto state = std::make_shared<State>();
  return [state, answers = std::move(answers)](RawConnection& connection) {
    while (connection.read_request()) {
      std::size_t index = 0;
      {
        const std::lock_guard lock(state->mutex);
        index = std::min(state->next++, answers.size() - 1);
      }
      if (!connection.send(answers[index])) return;
    }
  };
}

}  // namespace necrocode::test
