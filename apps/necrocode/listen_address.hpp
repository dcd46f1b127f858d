// HOST:PORT of --listen, which of them may be used, and a server's options from it.
#pragma once

#include <cstdint>
#include <string>

#include "necrocode/net/http_server.hpp"

namespace necrocode::app {

struct ListenAddress {
  std::string host;
  std::uint16_t port = 0;
  bool is_loopback() const;
};

/// `127.0.0.1:8000`, `[::1]:0`. Throws ConfigError.
ListenAddress parse_listen_address(const std::string& text);

/// For every command that listens. Throws SecurityError for an address that others can reach.
net::HttpServerOptions server_options(const ListenAddress& listen);

}  // namespace necrocode::app
