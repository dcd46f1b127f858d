#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>

#include "necrocode/base/file.hpp"

namespace necrocode::test {

/// Accepts on a gate's listener and answers what it gets with its own name before it.
class Acceptor {
 public:
  explicit Acceptor(std::string name) : name_(std::move(name)) {}
  ~Acceptor() { stop(); }
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  void take(FileDescriptor listener) {
    listener_ = std::move(listener);
    thread_ = std::thread([this] { serve(); });
  }
  void stop() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t wrote = ::write(wake_.get(), &one, sizeof one);
    if (thread_.joinable()) thread_.join();
    listener_.reset();
  }
  bool taken() const { return static_cast<bool>(listener_); }
  int connections() const { return connections_; }

  /// A program for a shell inside: says `word`, prints the answer or the error.
  static std::string say(const std::string& word, int port, const std::string& host = "127.0.0.1") {
    return "python3 -c \"\nimport socket\ntry:\n  s = socket.create_connection(('" + host + "', " +
           std::to_string(port) + "), 5)\n  s.sendall(b'" + word +
           "')\n  print(s.recv(100).decode())\nexcept OSError as e:\n  print(e)\n\"";
  }

 private:
  void serve() {
    std::array<pollfd, 2> watched{pollfd{listener_.get(), POLLIN, 0},
                                  pollfd{wake_.get(), POLLIN, 0}};
    while (::poll(watched.data(), watched.size(), -1) > 0 && watched[1].revents == 0) {
      const FileDescriptor connection(::accept(listener_.get(), nullptr, nullptr));
      ++connections_;
      std::array<char, 100> word{};
      const ssize_t got = ::read(connection.get(), word.data(), word.size());
      if (got <= 0) continue;
      const std::string answer =
          name_ + " heard " + std::string(word.data(), static_cast<std::size_t>(got));
      [[maybe_unused]] const ssize_t wrote =
          ::write(connection.get(), answer.data(), answer.size());
    }
  }

  std::string name_;
  FileDescriptor listener_;
  FileDescriptor wake_{::eventfd(0, EFD_CLOEXEC)};
  std::atomic<int> connections_ = 0;
  std::thread thread_;
};

}  // namespace necrocode::test
