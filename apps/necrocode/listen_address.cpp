#include "listen_address.hpp"

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::app {

bool ListenAddress::is_loopback() const {
  return host == "::1" || host.starts_with("127.");
}

ListenAddress parse_listen_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  const auto port = colon == std::string::npos
                        ? std::nullopt
                        : parse_uint(std::string_view(text).substr(colon + 1));
  if (!port || *port > 65535) {
    throw ConfigError("--listen must be HOST:PORT, as in 127.0.0.1:8000, not \"" + printable(text) +
                      "\"");
  }
  std::string host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host == "localhost") host = "127.0.0.1";
  if (host.empty())
    throw ConfigError("--listen needs a host before the colon, as in 127.0.0.1:8000");
  return {host, static_cast<std::uint16_t>(*port)};
}

net::HttpServerOptions server_options(const ListenAddress& listen) {
  if (!listen.is_loopback()) {
    throw SecurityError("--listen takes addresses of this machine only, as 127.0.0.1:0: on " +
                        printable(listen.host) +
                        " anyone could connect, and there are no tokens and no TLS yet");
  }
  net::HttpServerOptions options;
  options.address = listen.host;
  options.port = listen.port;
  options.connections_max = net::connections_within_descriptors();
  return options;
}

}  // namespace necrocode::app
