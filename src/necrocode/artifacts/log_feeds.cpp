#include "necrocode/artifacts/log_feeds.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>

namespace necrocode::artifacts {
namespace {

/// Of one follower, at a time; then its socket has to take them.
constexpr std::size_t kPiece = 64 * limits::kKiB;

/// One open feed; its connection has the only reference that lasts.
class Feed {
 public:
  Feed(ArtifactStore& store, ArtifactId id, std::uint64_t offset,
       std::optional<std::chrono::seconds> silence)
      : store_(store), id_(std::move(id)), offset_(offset), silence_(silence) {}

  net::FeedBody::Piece next() {
    const auto artifact = store_.find(id_);
    const auto stored = artifact ? store_.open(*artifact) : std::nullopt;
    if (!stored) throw NotFound("the log is gone while it is followed");
    net::FeedBody::Piece piece;
    piece.bytes = read(*stored);
    offset_ += piece.bytes.size();
    piece.more = offset_ < stored->size_bytes;
    piece.last = artifact->sealed && !piece.more;
    if (silence_) end_in_silence(piece);
    return piece;
  }

  const ArtifactId& id() const { return id_; }
  /// Both under the mutex of the feeds.
  void listen(std::function<void()> tell) { tell_ = std::move(tell); }
  void hear() const {
    if (tell_) tell_();
  }

 private:
  std::string read(const StoredBytes& stored) const {
    if (offset_ >= stored.size_bytes) return {};
    std::string bytes(std::min<std::uint64_t>(kPiece, stored.size_bytes - offset_), '\0');
    ssize_t got = 0;
    do {
      got = ::pread(stored.file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset_));
    } while (got < 0 && errno == EINTR);
    if (got < 0) throw_errno("cannot read", "a log");
    bytes.resize(static_cast<std::size_t>(got));
    return bytes;
  }

  void end_in_silence(net::FeedBody::Piece& piece) {
    const SteadyTime now = real_clock().steady_now();
    if (!piece.bytes.empty() || !silent_until_) silent_until_ = now + *silence_;
    piece.last = piece.last || now >= *silent_until_;
    piece.pause = std::chrono::ceil<std::chrono::milliseconds>(*silent_until_ - now);
  }

  ArtifactStore& store_;
  const ArtifactId id_;
  std::uint64_t offset_;
  const std::optional<std::chrono::seconds> silence_;
  std::optional<SteadyTime> silent_until_;
  std::function<void()> tell_;
};

}  // namespace

struct LogFeeds::State {
  std::mutex mutex;
  std::multimap<std::string, Feed*> open;  // by log

  void close(Feed* feed) {
    const std::lock_guard lock(mutex);
    const auto [begin, end] = open.equal_range(feed->id().value);
    open.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == feed; }));
  }
};

LogFeeds::LogFeeds(ArtifactStore& store) : state_(std::make_shared<State>()), store_(store) {
  store.on_log_change([weak = std::weak_ptr(state_)](const ArtifactId& id) {
    const auto state = weak.lock();
    if (!state) return;
    const std::lock_guard lock(state->mutex);
    const auto [begin, end] = state->open.equal_range(id.value);
    for (auto entry = begin; entry != end; ++entry) entry->second->hear();
  });
}

std::shared_ptr<net::FeedBody> LogFeeds::open(const ArtifactId& id, std::uint64_t offset,
                                              std::optional<std::chrono::seconds> silence) {
  auto own = std::make_unique<Feed>(store_, id, offset, silence);
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->open.size() >= kLogFeeds) {
      net::HttpError error(503, "too many logs are being followed");
      error.headers.set("Retry-After", "10");
      throw error;
    }
    state_->open.emplace(id.value, own.get());
  }
  // Leaves the others when its connection lets go of it.
  const std::shared_ptr<Feed> feed(own.release(), [state = state_](Feed* ended) {
    state->close(ended);
    delete ended;
  });
  auto body = std::make_shared<net::FeedBody>();
  body->start = [feed, state = state_](std::function<void()> news) {
    const std::lock_guard lock(state->mutex);
    feed->listen(std::move(news));
  };
  body->next = [feed] { return feed->next(); };
  return body;
}

}  // namespace necrocode::artifacts
