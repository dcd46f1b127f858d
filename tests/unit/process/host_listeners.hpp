// Listens in this process, where nothing in a sandbox may get: on a loopback port and on an
// abstract socket; and what in Python tries to.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <string>

#include "necrocode/base/file.hpp"

namespace necrocode::test {

struct HostListeners {
  FileDescriptor tcp{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  FileDescriptor abstract{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  int port = 0;
  std::string name = "necrocode-test-" + std::to_string(::getpid());

  HostListeners() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(tcp.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(tcp.get(), 5), 0);
    EXPECT_EQ(::getsockname(tcp.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    port = ntohs(address.sin_port);
    sockaddr_un local{};
    local.sun_family = AF_UNIX;
    std::memcpy(local.sun_path + 1, name.data(), name.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    EXPECT_EQ(::bind(abstract.get(), reinterpret_cast<sockaddr*>(&local), length), 0);
    EXPECT_EQ(::listen(abstract.get(), 5), 0);
  }
  std::string tcp_script() const {
    return "python3 -c \"import socket; socket.create_connection(('127.0.0.1', " +
           std::to_string(port) + "), 5); print('reached')\"";
  }
  std::string abstract_script() const {
    return "python3 -c \"import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\\\0" +
           name + "'); print('reached')\"";
  }
};

}  // namespace necrocode::test
