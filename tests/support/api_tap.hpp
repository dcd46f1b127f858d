// ApiTap: stands between clients and a service, passes every byte on as it is, and afterwards holds
// what was said against the service's own /openapi.json.
#pragma once

#include <atomic>
#include <memory>

#include "support/api_document.hpp"
#include "support/raw_client.hpp"
#include "support/raw_server.hpp"

namespace necrocode::test {

/// Thread-safe while it passes; the checks come after.
class ApiTap {
 public:
  ApiTap() : server_(std::make_unique<RawServer>([this](RawConnection& near) { pass(near); })) {}

  /// Where to pass things on to; before the first connection.
  void connect(std::uint16_t upstream) {
    upstream_ = upstream;
    const std::string request = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
    document_ = ApiDocument(RawClient(upstream).call(request).json());
  }

  std::string url() const { return server_->url(""); }

  /// Ends all connections and fails the test for every exchange that is not as declared.
  void expect_as_declared() {
    if (!server_) return;
    server_.reset();
    for (const auto& talk : talks_) {
      std::string_view asked = talk->asked;
      std::string_view answered = talk->answered;
      while (auto request = take(asked, true, false)) {
        const bool head = request->method == "HEAD";
        auto answer = take(answered, false, head);
        while (answer && answer->status < 200) answer = take(answered, false, head);
        if (!answer) break;
        ++exchanges_;
        for (const std::string& wrong : document_.check(*request, *answer)) {
          ADD_FAILURE() << request->method << " " << shorten(request->target, 200) << " "
                        << answer->status << ": " << wrong;
        }
      }
      EXPECT_LT(std::max(talk->asked.size(), talk->answered.size()), kKept) << "not all was seen";
    }
    EXPECT_TRUE(talks_.empty() || exchanges_ > 0) << "nothing was held against the document";
  }
  std::size_t exchanges() const { return exchanges_; }
  const ApiDocument& document() const { return document_; }

 private:
  struct Talk {
    std::string asked, answered;
  };
  static constexpr std::size_t kKept = 64 * limits::kMiB;  // of one direction

  void pass(RawConnection& near) {
    RawClient far(upstream_);
    if (!far.connected()) return near.reset();
    auto talk = std::make_shared<Talk>();
    {
      const std::lock_guard lock(mutex_);
      talks_.push_back(talk);
    }
    bool asking = true;
    while (true) {
      pollfd ends[2] = {{asking ? near.fd() : -1, POLLIN, 0}, {far.fd(), POLLIN, 0}};
      if (::poll(ends, 2, -1) < 0) continue;
      if (ends[0].revents != 0 && !move(near.fd(), far.fd(), talk->asked)) {
        far.shutdown_write();
        asking = false;
      }
      if (ends[1].revents != 0 && !move(far.fd(), near.fd(), talk->answered)) return;
    }
  }
  static bool move(int from, int to, std::string& kept) {
    char bytes[64 * 1024];
    const ssize_t count = ::recv(from, bytes, sizeof bytes, 0);
    if (count <= 0) return false;
    std::string_view rest(bytes, static_cast<std::size_t>(count));
    if (kept.size() < kKept) kept.append(rest);
    while (!rest.empty()) {
      const ssize_t sent = ::send(to, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      rest.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  /// The next message, taken off `bytes`; nothing when there is no whole head.
  static std::optional<HttpMessage> take(std::string_view& bytes, bool request, bool head_only) {
    const std::size_t end = bytes.find("\r\n\r\n");
    if (end == std::string_view::npos) return std::nullopt;
    HttpMessage message;
    bool first = true;
    for (const std::string_view line : split(bytes.substr(0, end), '\n')) {
      const std::string_view text = trim(line);
      const std::size_t colon = text.find(':');
      if (first) {
        const auto words = split(text, ' ');
        if (words.size() < 2) return std::nullopt;
        if (request) {
          message.method = words[0];
          message.target = words[1];
        } else {
          message.status = static_cast<int>(parse_uint(words[1]).value_or(0));
        }
      } else if (colon != std::string_view::npos) {
        message.headers.add(text.substr(0, colon), std::string(trim(text.substr(colon + 1))));
      }
      first = false;
    }
    bytes.remove_prefix(end + 4);
    const bool none =
        head_only ||
        (!request && (message.status < 200 || message.status == 204 || message.status == 304));
    if (!none) take_body(bytes, message);
    return message;
  }
  static void take_body(std::string_view& bytes, HttpMessage& message) {
    if (!message.headers.get("Transfer-Encoding")) {
      const auto length = parse_uint(message.headers.get_or("Content-Length", "0")).value_or(0);
      message.whole = bytes.size() >= length;
      message.body = bytes.substr(0, length);
      bytes.remove_prefix(message.body.size());
      return;
    }
    while (true) {
      const std::size_t end = bytes.find("\r\n");
      const auto size = std::strtoull(std::string(bytes.substr(0, 20)).c_str(), nullptr, 16);
      if (end == std::string_view::npos || bytes.size() < end + size + 4) {
        message.whole = false;
        bytes = {};
        return;
      }
      message.body += bytes.substr(end + 2, size);
      bytes.remove_prefix(end + size + 4);
      if (size == 0) return;
    }
  }

  std::atomic<std::uint16_t> upstream_ = 0;
  ApiDocument document_{Json()};
  std::mutex mutex_;
  std::vector<std::shared_ptr<Talk>> talks_;
  std::size_t exchanges_ = 0;
  std::unique_ptr<RawServer> server_;  // last: its threads use the rest
};

}  // namespace necrocode::test
