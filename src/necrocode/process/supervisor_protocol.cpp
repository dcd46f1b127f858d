#include "necrocode/process/supervisor_protocol.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace necrocode::process::protocol {
namespace {

/// How a field is written, and read back.
class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}
  bool operator()(std::uint64_t number) {
    out_.append(reinterpret_cast<const char*>(&number), sizeof number);
    return true;
  }
  bool operator()(const std::string& text) {
    (*this)(std::uint64_t{text.size()});
    out_.append(text);
    return true;
  }
  bool operator()(const std::vector<std::string>& texts) {
    (*this)(std::uint64_t{texts.size()});
    for (const std::string& text : texts) (*this)(text);
    return true;
  }

 private:
  std::string& out_;
};

class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  bool operator()(std::uint64_t& number) {
    if (in_.size() < sizeof number) return false;
    std::memcpy(&number, in_.data(), sizeof number);
    in_.remove_prefix(sizeof number);
    return true;
  }
  bool operator()(std::string& text) {
    std::uint64_t size = 0;
    if (!(*this)(size) || size > in_.size()) return false;
    text = in_.substr(0, size);
    in_.remove_prefix(size);
    return true;
  }
  bool operator()(std::vector<std::string>& texts) {
    std::uint64_t count = 0;
    if (!(*this)(count) || count > in_.size() / sizeof count) return false;
    texts.resize(count);
    return std::all_of(texts.begin(), texts.end(),
                       [this](std::string& text) { return (*this)(text); });
  }
  bool at_end() const { return in_.empty(); }

 private:
  std::string_view in_;
};

/// All fields, in their order.
template <class AnyRequest, class Visitor>
bool visit(AnyRequest& request, Visitor& field) {
  return field(request.argv) && field(request.env) && field(request.working_directory) &&
         field(request.file_size_max) && field(request.open_files_max) && field(request.data_max) &&
         field(request.processes_max) && field(request.gate_port) && field(request.second_input) &&
         field(request.enclosed) && field(request.readable) && field(request.writable) &&
         field(request.network) && field(request.connect_port);
}

}  // namespace

std::string encode(const Request& request) {
  std::string bytes;
  Writer writer(bytes);
  visit(request, writer);
  return bytes;
}

std::optional<Request> decode(std::string_view bytes) {
  Request request;
  Reader reader(bytes);
  if (!visit(request, reader) || !reader.at_end() || request.argv.empty()) return std::nullopt;
  return request;
}

bool send_with_descriptors(int socket, const void* bytes, std::size_t size,
                           const std::vector<int>& fds) {
  iovec part{const_cast<void*>(bytes), size};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kDescriptorsMax)> space{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space.data();
  message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
  std::memcpy(CMSG_DATA(rights), fds.data(), sizeof(int) * fds.size());
  ssize_t sent = -1;
  do {
    sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(size);
}

ssize_t receive_with_descriptors(int socket, void* bytes, std::size_t size,
                                 std::vector<FileDescriptor>& fds) {
  iovec part{bytes, size};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kDescriptorsMax)> space{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space.data();
  message.msg_controllen = space.size();
  const ssize_t got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got < 0) return got;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
  return got;
}

}  // namespace necrocode::process::protocol
