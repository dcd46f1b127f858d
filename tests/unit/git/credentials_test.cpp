// The token goes to the remote that asks for it, over git's own credential protocol, and nowhere
// else.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>

#include "necrocode/base/base64.hpp"
#include "necrocode/git/repository.hpp"

namespace necrocode::git {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kToken = "token-of-the-test-0123456789";

/// A server that answers each request's head with what `answer` makes of it, one a connection.
class TinyServer {
 public:
  explicit TinyServer(std::function<std::string(const std::string&)> answer)
      : answer_(std::move(answer)) {
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(socket_, 16), 0);
    EXPECT_EQ(::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~TinyServer() {
    ::shutdown(socket_, SHUT_RDWR);
    thread_.join();
    ::close(socket_);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

 private:
  void run() {
    while (true) {
      const int connection = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) return;
      std::string head;
      char buffer[4096];
      ssize_t got = 0;
      while (head.find("\r\n\r\n") == std::string::npos &&
             (got = ::read(connection, buffer, sizeof(buffer))) > 0) {
        head.append(buffer, static_cast<std::size_t>(got));
      }
      const std::string text = answer_(head);
      if (::write(connection, text.data(), text.size()) < 0) head.clear();
      ::close(connection);
    }
  }
  std::function<std::string(const std::string&)> answer_;
  int socket_ = -1;
  int port_ = 0;
  std::thread thread_;
};

const std::string kAskForPassword =
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: "
    "0\r\nConnection: close\r\n\r\n";
const std::string kNotHere =
    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

process::Supervisor& supervisor() {
  static process::Supervisor instance;
  return instance;
}

Git git_with_token() {
  GitOptions options;
  options.token = Secret(kToken);
  return {supervisor(), std::move(options)};
}

TEST(GitCredentials, TokenIsSentToTheRemoteThatAsks) {
  std::string authorization;
  TinyServer server([&](const std::string& head) {
    const std::size_t at = head.find("Authorization: Basic ");
    if (at == std::string::npos) return kAskForPassword;
    authorization = head.substr(at + 21, head.find('\r', at) - at - 21);
    return kNotHere;
  });
  try {
    git_with_token().remote_refs(server.url() + "/a.git", {});
    FAIL();
  } catch (const GitError& error) {
    EXPECT_THAT(error.what(), Not(HasSubstr(kToken)));
  }
  EXPECT_EQ(base64_decode(authorization), "x-access-token:" + std::string(kToken));
}

TEST(GitCredentials, TokenDoesNotFollowARedirectToAnotherHost) {
  std::atomic<bool> leaked = false;
  std::atomic<int> asked = 0;
  TinyServer elsewhere([&](const std::string& head) {
    ++asked;
    if (head.find("Authorization") != std::string::npos) leaked = true;
    return kAskForPassword;
  });
  TinyServer server([&](const std::string& head) {
    const std::string path = head.substr(4, head.find(' ', 4) - 4);
    return "HTTP/1.1 302 Found\r\nLocation: " + elsewhere.url() + path +
           "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  });
  EXPECT_THROW(git_with_token().remote_refs(server.url() + "/a.git", {}), GitError);
  EXPECT_FALSE(leaked);
  EXPECT_GT(asked, 0);
}

TEST(GitCredentials, WithoutATokenNobodyIsAskedForOne) {
  TinyServer server([](const std::string&) { return kAskForPassword; });
  const Git git(supervisor(), GitOptions{});
  EXPECT_THROW(git.remote_refs(server.url() + "/a.git", {}), GitError);
}

TEST(GitCredentials, ATokenOfSeveralLinesIsRefused) {
  GitOptions options;
  options.token = Secret("first-line\nsecond-line");
  EXPECT_THROW(Git(supervisor(), std::move(options)), SecurityError);
}

}  // namespace
}  // namespace necrocode::git
