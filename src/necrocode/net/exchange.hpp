// Exchange: one request from its head to its answer, shared by the I/O thread and the pool's
// threads; and ParkedAnswer, its answer that waits. No sockets: who wakes whom is told by
// functions.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "necrocode/base/clock.hpp"
#include "necrocode/net/body_pipe.hpp"
#include "necrocode/net/http1.hpp"
#include "necrocode/net/http_router.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::net {

// The state machine that makes "exactly one of complete, timeout, gone, stop" true.
class ParkedAnswer final : public Parked {
 public:
  ParkedAnswer(std::shared_ptr<ParkRequest> request, std::function<void()> wake)
      : request_(std::move(request)), wake_(std::move(wake)) {}

  bool complete(Response response) override {
    const std::lock_guard lock(mutex_);
    if (state_ != State::kWaiting) return false;
    response_ = std::move(response);
    state_ = State::kAnswered;
    wake_();
    wake_ = nullptr;
    return true;
  }
  bool waiting() const override {
    const std::lock_guard lock(mutex_);
    return state_ == State::kWaiting;
  }

  /// After true, complete() says false.
  bool close() {
    const std::lock_guard lock(mutex_);
    if (state_ != State::kWaiting) return false;
    state_ = State::kClosed;
    wake_ = nullptr;
    return true;
  }
  /// The answer, once complete() gave it.
  std::optional<Response> take() {
    const std::lock_guard lock(mutex_);
    if (state_ != State::kAnswered) return std::nullopt;
    return std::exchange(response_, std::nullopt);
  }
  /// What the handler asked for. Its functions usually hold this very object, through the handle
  /// that `start` gave them: whoever calls one takes it out, and forget() drops the rest, or none
  /// is ever freed. Only on the I/O thread, `start` on the handler's before that.
  ParkRequest& request() { return *request_; }
  void forget() { *request_ = ParkRequest{}; }

 private:
  enum class State { kWaiting, kAnswered, kClosed };
  const std::shared_ptr<ParkRequest> request_;
  mutable std::mutex mutex_;
  State state_ = State::kWaiting;
  std::function<void()> wake_;
  std::optional<Response> response_;
};

// What a pool thread made of a request.
struct Outcome {
  Response response;
  std::shared_ptr<ParkedAnswer> parked;
  bool broken = false;      // what makes the body threw
  FeedBody::Piece piece{};  // of a feed
};

// One request on its way. Shared with the pool's threads, which may outlast the connection.
struct Exchange {
  RequestHead head;
  Request request;
  const Route* route = nullptr;
  std::shared_ptr<BodyPipe> pipe;
  std::atomic<bool> abandoned = false;  // the connection is gone: nobody wants the answer

  // `outcome` is set together with `answered`, on the I/O thread.
  bool answered = false;
  Outcome outcome;

  SteadyTime began;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
};

/// Fills the request from its head and finds its route; a refusal when there is none, with `allow`
/// when the path is known. The body is not touched.
std::optional<Refusal> prepare(Exchange& exchange, const HttpRouter& router, std::string& allow);
/// Runs on a pool thread: what `make` answers, with every exception turned into a problem. A parked
/// answer is started here; `wake` is called when it is completed.
Outcome run_handler(const std::function<Response()>& make, const Exchange& exchange, bool may_park,
                    const std::function<void()>& wake);
/// Runs on a pool thread: the next piece of a body.
Outcome run_producer(const BodyProducer& producer);
/// The same of a feed, with `start` called before.
Outcome run_feed(const FeedBody& feed, const std::function<void()>& start);
/// For callbacks that have no answer: an exception is logged.
void run_guarded(const std::function<void()>& call);
/// A problem with Retry-After: 1.
Response unavailable(std::string_view detail, std::string_view instance);

bool is_sane_request_id(std::string_view id);
/// The answer, or a problem in place of one that cannot be sent.
Response sendable(Response response, const Request& request);
bool may_have_body(int status);
/// Status line and header fields with the empty line. Framing is the server's: what the handler
/// says about it is left out.
std::string response_head(const Response& response, const RequestHead& head, const Request& request,
                          bool keep, std::string_view date);

}  // namespace necrocode::net
