#include "necrocode/registry/event_feeds.hpp"

#include <algorithm>
#include <mutex>
#include <set>

namespace necrocode::registry {
namespace {

/// What EventSource and we wait before connecting anew; sent first, so that the answer's head does
/// not wait for an event.
constexpr std::string_view kPreamble = "retry: 1000\n\n";
constexpr std::string_view kSilence = ":\n\n";

std::string to_stream(const Event& event) {
  return "id: " + std::to_string(event.id) + "\ndata: " + event.to_json().dump() + "\n\n";
}

/// One open feed; its connection has the only reference that lasts.
class Feed {
 public:
  Feed(TaskStore& store, EventQuery query) : store_(store), query_(std::move(query)) {}

  net::FeedBody::Piece next() {
    net::FeedBody::Piece piece;
    piece.bytes = std::exchange(preamble_, {});
    // What is committed after this is news again.
    const std::int64_t newest = store_.newest_event();
    const EventPage page = store_.events(query_);
    for (const Event& event : page.items) piece.bytes += to_stream(event);
    piece.more = page.next_cursor.has_value();
    if (!page.items.empty()) query_.after = page.items.back().id;
    // Events of others are not looked at twice.
    if (!piece.more) query_.after = std::max(query_.after, newest);
    return piece;
  }

  /// Under the mutex of the feeds.
  void listen(std::function<void()> tell) { tell_ = std::move(tell); }
  void hear(const CommitNews& news) const {
    if (tell_ && concerns(news)) tell_();
  }

 private:
  bool concerns(const CommitNews& news) const {
    if (query_.task_id.empty() && query_.spec.empty()) return !news.events_of.empty();
    const std::string spec = query_.spec + ":";
    return std::any_of(news.events_of.begin(), news.events_of.end(), [&](const std::string& id) {
      return query_.task_id.empty() ? id.starts_with(spec) : id == query_.task_id;
    });
  }

  TaskStore& store_;
  EventQuery query_;  // `after` moves on
  std::string preamble_{kPreamble};
  std::function<void()> tell_;
};

}  // namespace

struct EventFeeds::State {
  std::mutex mutex;
  std::set<Feed*> open;

  void close(Feed* feed) {
    const std::lock_guard lock(mutex);
    open.erase(feed);
  }
};

EventFeeds::EventFeeds(TaskStore& store) : state_(std::make_shared<State>()), store_(store) {
  store.on_commit([weak = std::weak_ptr(state_)](const CommitNews& news) {
    const auto state = weak.lock();
    if (!state || news.events_of.empty()) return;
    const std::lock_guard lock(state->mutex);
    for (const Feed* feed : state->open) feed->hear(news);
  });
}

net::Response EventFeeds::open(EventQuery query) {
  if (!query.task_id.empty()) query.task_id = store_.task(query.task_id).id;
  query.limit = static_cast<int>(limits::kPageSizeMax);
  query.bytes_max = limits::kEventFeedBytes;
  // Leaves the others when its connection lets go of it.
  const std::shared_ptr<Feed> feed(new Feed(store_, std::move(query)),
                                   [state = state_](Feed* ended) {
                                     state->close(ended);
                                     delete ended;
                                   });
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->open.size() >= limits::kEventFeeds) {
      net::HttpError error(503, "too many event feeds are open");
      error.headers.set("Retry-After", "10");
      throw error;
    }
    state_->open.insert(feed.get());
  }
  auto body = std::make_shared<net::FeedBody>();
  body->start = [feed, state = state_](std::function<void()> news) {
    const std::lock_guard lock(state->mutex);
    feed->listen(std::move(news));
  };
  body->next = [feed] { return feed->next(); };
  body->silence = kSilence;
  net::Response response;
  response.headers.set("Content-Type", "text/event-stream");
  response.headers.set("Cache-Control", "no-store");
  response.body = std::move(body);
  return response;
}

}  // namespace necrocode::registry
