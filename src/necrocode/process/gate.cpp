#include "necrocode/process/gate.hpp"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

namespace necrocode::process {
namespace {

/// The kernel itself gives 127.0.0.1 to a loopback that comes up.
bool bring_loopback_up() {
  const FileDescriptor any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  if (!any || ::ioctl(any.get(), SIOCGIFFLAGS, &request) != 0) return false;
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  return ::ioctl(any.get(), SIOCSIFFLAGS, &request) == 0;
}

}  // namespace

FileDescriptor listen_on_loopback(std::uint16_t port) {
  constexpr int kBacklog = 1024;  // the system's own limit holds as well
  FileDescriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (!listener ||
      ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener.get(), kBacklog) != 0) {
    return {};
  }
  return listener;
}

protocol::StartStep make_gate(std::uint16_t port, FileDescriptor& listener) {
  if (::unshare(CLONE_NEWNET) != 0) return protocol::StartStep::kNetwork;
  if (!bring_loopback_up()) return protocol::StartStep::kLoopback;
  listener = listen_on_loopback(port);
  return listener ? protocol::StartStep::kNone : protocol::StartStep::kListen;
}

}  // namespace necrocode::process
