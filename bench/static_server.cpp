// static_server FILE TYPE [events]: answers every HTTP/1.1 request on a free loopback port with the
// bytes of FILE (Content-Type: TYPE), keep-alive, one thread. `events`: as a model service sends
// its stream, chunked, one write an event. Its first line says where. For scripts/bench only: it
// reads requests only as far as it must to find their end.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace {

constexpr std::size_t kRequestBytesMax = 1 << 20;

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

/// The bytes of the first whole request in `data`, or 0.
std::size_t request_size(const std::string& data) {
  const std::size_t head = data.find("\r\n\r\n");
  if (head == std::string::npos) return 0;
  std::size_t body = 0;
  const std::size_t length = data.find("Content-Length: ");
  if (length != std::string::npos && length < head)
    body = std::strtoul(data.c_str() + length + 16, nullptr, 10);
  const std::size_t size = head + 4 + body;
  return data.size() >= size ? size : 0;
}

bool send_all(int socket, const std::string& data) {
  for (std::size_t sent = 0; sent < data.size();) {
    const ssize_t n = ::send(socket, data.data() + sent, data.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<std::size_t>(n);
  }
  return true;
}

/// An answer, in the pieces it is written in.
using Answer = std::vector<std::string>;

Answer whole_answer(const std::string& type, const std::string& body) {
  return {"HTTP/1.1 200 OK\r\nContent-Type: " + type +
          "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body};
}

std::string chunk(std::string_view data) {
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  return size + std::string(data) + "\r\n";
}

Answer event_stream(const std::string& type, std::string_view body) {
  Answer answer{"HTTP/1.1 200 OK\r\nContent-Type: " + type +
                "\r\nTransfer-Encoding: chunked\r\n\r\n"};
  while (!body.empty()) {
    const std::size_t end = body.find("\n\n");
    const std::string_view event = body.substr(0, end == body.npos ? end : end + 2);
    answer.push_back(chunk(event));
    body.remove_prefix(event.size());
  }
  answer.push_back(chunk(""));
  return answer;
}

/// Answers what is whole; false when the connection is over.
bool serve(int socket, std::string& data, const Answer& answer) {
  char buffer[65536];
  const ssize_t n = ::recv(socket, buffer, sizeof buffer, 0);
  if (n <= 0) return false;
  data.append(buffer, static_cast<std::size_t>(n));
  while (const std::size_t size = request_size(data)) {
    for (const std::string& piece : answer) {
      if (!send_all(socket, piece)) return false;
    }
    data.erase(0, size);
  }
  return data.size() < kRequestBytesMax;
}

int listen_on_loopback(int& port) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (listener < 0 || ::bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(listener, 1024) != 0 ||
      ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    fail("static_server: listen");
  }
  port = ntohs(address.sin_port);
  return listener;
}

void watch(int poll, int descriptor) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = descriptor;
  if (::epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event) != 0) fail("static_server: epoll_ctl");
}

}  // namespace

int main(int argc, char** argv) {
  const bool by_event = argc == 4 && std::string_view(argv[3]) == "events";
  if (argc != 3 && !by_event) {
    std::fputs("usage: static_server FILE TYPE [events]\n", stderr);
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  if (!file) fail(argv[1]);
  const std::string body((std::istreambuf_iterator<char>(file)), {});
  const Answer answer = by_event ? event_stream(argv[2], body) : whole_answer(argv[2], body);
  int port = 0;
  const int listener = listen_on_loopback(port);
  const int poll = ::epoll_create1(EPOLL_CLOEXEC);
  watch(poll, listener);
  std::printf("http://127.0.0.1:%d\n", port);
  std::fflush(stdout);

  std::unordered_map<int, std::string> connections;
  for (;;) {
    epoll_event events[64];
    const int count = ::epoll_wait(poll, events, 64, -1);
    if (count < 0 && errno != EINTR) fail("static_server: epoll_wait");
    for (int i = 0; i < count; ++i) {
      const int descriptor = events[i].data.fd;
      if (descriptor == listener) {
        const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (socket < 0) continue;
        const int one = 1;
        ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connections[socket];
        watch(poll, socket);
      } else if (!serve(descriptor, connections[descriptor], answer)) {
        connections.erase(descriptor);
        ::close(descriptor);
      }
    }
  }
}
