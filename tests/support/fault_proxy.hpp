// FaultProxy: stands between a client and a service and does to each request what a network can do
// to it. Over real sockets; it knows HTTP only as far as where a message ends.
#pragma once

#include <array>
#include <atomic>
#include <random>

#include "support/raw_client.hpp"
#include "support/raw_server.hpp"

namespace necrocode::test {

enum class Fault {
  kNone,
  kResetBefore,   ///< before the service sees it
  kResetMidBody,  ///< half of it reached the service
  kDelay,         ///< 50 ms
  kBlackhole,     ///< never answered, never forwarded
  kLostReply,     ///< done, but the connection breaks before the answer
  kTruncate,      ///< half of the answer
  kDuplicate,     ///< the service gets it twice, at once
  kStatus429,
  kStatus503,
  kGarbage,  ///< an answer that is not HTTP
  kDrip,     ///< the answer byte by byte
};
inline constexpr std::array kFaults = {Fault::kResetBefore, Fault::kResetMidBody, Fault::kDelay,
                                       Fault::kBlackhole,   Fault::kLostReply,    Fault::kTruncate,
                                       Fault::kDuplicate,   Fault::kStatus429,    Fault::kStatus503,
                                       Fault::kDrip};

/// Thread-safe.
class FaultProxy {
 public:
  /// What happens to a request; asked once for each, from several threads.
  using Plan = std::function<Fault()>;

  FaultProxy(std::uint16_t upstream, Plan plan)
      : upstream_(upstream), plan_(std::move(plan)), server_([this](RawConnection& connection) {
          while (serve_one(connection)) {
          }
        }) {}

  std::string url() const { return server_.url(""); }
  /// While down each connection is reset as soon as something comes over it.
  void set_down(bool down) { down_ = down; }
  std::size_t requests() const { return requests_; }
  std::size_t faults() const { return faults_; }
  std::size_t connections() const { return server_.connections(); }

 private:
  static std::string bytes_of(const RecordedRequest& request) {
    std::string bytes = request.method + " " + request.target + " HTTP/1.1\r\n";
    for (const auto& [name, value] : request.headers) bytes += name + ": " + value + "\r\n";
    return bytes + "\r\n" + request.body;
  }
  static std::string bytes_of(const RawAnswer& answer, bool head) {
    std::string fields;
    for (const auto& [name, value] : answer.headers) {
      if (iequals(name, "Transfer-Encoding") || iequals(name, "Content-Length")) continue;
      fields += name + ": " + value + "\r\n";
    }
    if (head || answer.status == 204 || answer.status == 304) {
      return "HTTP/1.1 " + std::to_string(answer.status) + " x\r\n" + fields + "\r\n";
    }
    return test::answer(answer.status, answer.body, fields);
  }
  std::string forward(const RecordedRequest& request) const {
    RawClient client(upstream_);
    if (!client.connected()) return {};
    client.send(bytes_of(request));
    const bool head = request.method == "HEAD";
    const RawAnswer answer = client.read_answer(head);
    return answer.status == 0 ? std::string() : bytes_of(answer, head);
  }
  bool pass(RawConnection& connection, const std::string& answer) const {
    if (!answer.empty()) return connection.send(answer);
    connection.reset();
    return false;
  }

  /// False when the connection is over.
  bool serve_one(RawConnection& connection) {
    const auto request = connection.read_request();
    if (!request) return false;
    ++requests_;
    if (down_) {
      connection.reset();
      return false;
    }
    const Fault fault = plan_();
    if (fault != Fault::kNone) ++faults_;
    switch (fault) {
      case Fault::kNone:
        return pass(connection, forward(*request));
      case Fault::kResetBefore:
        connection.reset();
        return false;
      case Fault::kResetMidBody: {
        const std::string bytes = bytes_of(*request);
        RawClient(upstream_).send(std::string_view(bytes).substr(0, bytes.size() - 1));
        connection.reset();
        return false;
      }
      case Fault::kDelay:
        if (connection.closed_within(std::chrono::milliseconds(50))) return false;
        return pass(connection, forward(*request));
      case Fault::kBlackhole:
        connection.wait_closed();
        return false;
      case Fault::kLostReply:
        forward(*request);
        connection.reset();
        return false;
      case Fault::kTruncate: {
        const std::string answer = forward(*request);
        connection.send(std::string_view(answer).substr(0, answer.size() / 2));
        return false;
      }
      case Fault::kDuplicate: {
        std::thread twin([&] { forward(*request); });
        const std::string answer = forward(*request);
        twin.join();
        return pass(connection, answer);
      }
      case Fault::kStatus429:
        return connection.send(test::answer(429, "slow down", "Retry-After-Ms: 5\r\n"));
      case Fault::kStatus503:
        return connection.send(test::answer(503, "not now"));
      case Fault::kGarbage:
        connection.send("\x01\x02 this is not HTTP\r\n\r\n");
        return false;
      case Fault::kDrip:
        return connection.send_bytewise(forward(*request));
    }
    return false;
  }

  const std::uint16_t upstream_;
  const Plan plan_;
  std::atomic<bool> down_ = false;
  std::atomic<std::size_t> requests_ = 0;
  std::atomic<std::size_t> faults_ = 0;
  RawServer server_;  // last: its threads use the rest
};

/// One request in ten meets a fault, each kind as likely. The same seed, the same faults (in the
/// order in which requests arrive).
inline FaultProxy::Plan one_in_ten(std::uint64_t seed) {
  struct State {
    std::mutex mutex;
    std::mt19937_64 random;
  };
  auto state = std::make_shared<State>();
  state->random.seed(seed);
  return [state] {
    const std::lock_guard lock(state->mutex);
    if (state->random() % 10 != 0) return Fault::kNone;
    return kFaults[state->random() % kFaults.size()];
  };
}

}  // namespace necrocode::test
