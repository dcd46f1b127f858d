// HOST:PORT of --listen.
#pragma once

#include <cstdint>
#include <string>

namespace necrocode::app {

struct ListenAddress {
  std::string host;
  std::uint16_t port = 0;
  bool is_loopback() const;
};

/// `127.0.0.1:8000`, `[::1]:0`. Throws ConfigError.
ListenAddress parse_listen_address(const std::string& text);

}  // namespace necrocode::app
