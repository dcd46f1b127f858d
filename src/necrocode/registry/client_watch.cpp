// TaskRegistryClient::watch(): the transfer runs on a thread of its own, so that who handles events
// may take any time; what is not handled yet is bounded, and the stream is ended and taken up again
// where more would come.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "necrocode/base/text.hpp"
#include "necrocode/net/event_stream.hpp"
#include "necrocode/registry/client.hpp"

namespace necrocode {
namespace {

using net::StreamEvent;
using std::chrono::milliseconds;

/// Before the stream says otherwise.
constexpr milliseconds kReconnectPause{1'000};
/// Whatever it says.
constexpr milliseconds kReconnectPauseMin{100};

/// Events on their way from the transfer to who handles them.
class Inbox {
 public:
  void put(StreamEvent event) {
    const std::lock_guard lock(mutex_);
    bytes_ += size_of(event);
    events_.push_back(std::move(event));
    changed_.notify_all();
  }
  bool has_room() {
    const std::lock_guard lock(mutex_);
    return bytes_ < limits::kWatchedEventBytes;
  }
  void wait_for_room(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, [&] { return bytes_ < limits::kWatchedEventBytes / 2; });
  }
  void end(std::exception_ptr why) {
    const std::lock_guard lock(mutex_);
    end_ = std::move(why);
    changed_.notify_all();
  }
  /// Throws why there is none and will be none.
  StreamEvent next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !events_.empty() || end_; });
    if (events_.empty()) std::rethrow_exception(end_);
    StreamEvent event = std::move(events_.front());
    events_.pop_front();
    bytes_ -= size_of(event);
    changed_.notify_all();
    return event;
  }

 private:
  static std::size_t size_of(const StreamEvent& event) {
    return sizeof event + event.data.size() + event.id.size() + event.name.size();
  }
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<StreamEvent> events_;
  std::size_t bytes_ = 0;
  std::exception_ptr end_;
};

/// One stream after the other, each from where the one before stopped.
class Receiver {
 public:
  Receiver(const net::ServiceCaller& caller, const registry::EventFilter& filter, Inbox& inbox)
      : caller_(caller), inbox_(inbox), last_id_(std::to_string(filter.after)) {
    call_.operation = "watch";
    call_.target = filter.task_id;
    call_.path = filter.path();
    call_.headers.set("Accept", "text/event-stream");
    call_.extra_time = limits::kHttpFeedSilence;
  }

  /// Until it throws.
  void run(const CallContext& context) {
    const auto make = [&] {
      inbox_.wait_for_room(context.stop);
      reader_.emplace();
      net::ServiceCall call = call_;
      call.headers.set("Last-Event-ID", last_id_);
      call.on_body = [&](std::string_view piece) { return take(piece); };
      return call;
    };
    const auto pause = [&] {
      if (!inbox_.has_room()) return milliseconds{0};
      return std::max(reader_->retry().value_or(kReconnectPause), kReconnectPauseMin);
    };
    caller_.follow(make, pause, context);
  }

 private:
  bool take(std::string_view piece) {
    reader_->take(piece, [&](StreamEvent event) {
      if (!event.id.empty()) last_id_ = event.id;
      inbox_.put(std::move(event));
    });
    return inbox_.has_room();
  }

  const net::ServiceCaller& caller_;
  Inbox& inbox_;
  net::ServiceCall call_;
  std::string last_id_;
  std::optional<net::EventStreamReader> reader_;
};

}  // namespace

bool TaskRegistryClient::watch(const registry::EventFilter& filter,
                               const std::function<bool(const registry::Event&)>& on_event,
                               const CallContext& context) {
  Inbox inbox;
  Receiver receiver(caller_, filter, inbox);
  std::jthread receiving([&](const std::stop_token& stop) {
    CallContext own = context;
    own.stop = stop;
    try {
      receiver.run(own);
    } catch (...) {
      inbox.end(std::current_exception());
    }
  });
  const std::stop_callback stopping(context.stop, [&] { receiving.request_stop(); });
  while (true) {
    StreamEvent event;
    try {
      event = inbox.next();
    } catch (const TimeoutError&) {
      return false;
    }
    if (context.cancelled() || context.expired()) return false;
    if (!on_event(registry::Event::from_json(Json::parse(event.data)))) return true;
  }
}

}  // namespace necrocode
