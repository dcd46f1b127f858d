#include "necrocode/llm/relay.hpp"

#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::llm {

bool Relay::push(std::string_view bytes) {
  std::unique_lock lock(mutex_);
  taken_.wait(lock, [this] { return abandoned_ || waiting_.size() < kBytesMax; });
  if (abandoned_) return false;
  waiting_.append(bytes);
  if (news_) news_();
  return true;
}

void Relay::finish() {
  end(End::kWhole);
}

void Relay::fail() {
  end(End::kBroken);
}

void Relay::end(End how) {
  const std::lock_guard lock(mutex_);
  end_ = how;
  if (news_) news_();
}

void Relay::abandon() {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
  waiting_.clear();
  taken_.notify_all();
}

void Relay::listen(std::function<void()> news) {
  const std::lock_guard lock(mutex_);
  news_ = std::move(news);
}

net::FeedBody::Piece Relay::next() {
  const std::lock_guard lock(mutex_);
  net::FeedBody::Piece piece;
  piece.bytes = std::exchange(waiting_, {});
  taken_.notify_all();
  if (end_ == End::kBroken) {
    if (piece.bytes.empty()) {
      throw net::TransportError(net::TransportFailure::kReset, net::Delivery::kResponseStarted,
                                false, "the answer broke off");
    }
    piece.more = true;
  }
  piece.last = end_ == End::kWhole;
  return piece;
}

}  // namespace necrocode::llm
