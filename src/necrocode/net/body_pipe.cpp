#include "necrocode/net/body_pipe.hpp"

#include <utility>

#include "necrocode/base/limits.hpp"

namespace necrocode::net {

BodyPipe::BodyPipe(std::optional<std::uint64_t> declared_size, std::function<void()> wake)
    : declared_size_(declared_size), wake_(std::move(wake)) {}

std::string BodyPipe::read() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return closed_ || finished_ || failure_ || !pieces_.empty(); });
  if (closed_) throw HttpError(400, "the client is gone");
  if (pieces_.empty()) {
    if (failure_) throw HttpError(failure_->status, failure_->detail);
    return {};
  }
  std::string piece = std::move(pieces_.front());
  pieces_.pop_front();
  buffered_ -= piece.size();
  // Half empty before it is filled again: fewer turns between the threads.
  if (buffered_ <= limits::kHttpStreamBufferBytes / 2 && wake_ &&
      std::exchange(wake_wanted_, false)) {
    wake_();
  }
  return piece;
}

void BodyPipe::push(std::string_view bytes) {
  if (bytes.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    buffered_ += bytes.size();
    // Small reads share a piece, so that a dripping client cannot make the bookkeeping large.
    if (!pieces_.empty() && pieces_.back().size() + bytes.size() <= limits::kHttpStreamChunkBytes) {
      pieces_.back().append(bytes);
    } else {
      pieces_.emplace_back(bytes);
    }
  }
  changed_.notify_one();
}

void BodyPipe::finish() {
  {
    const std::lock_guard lock(mutex_);
    finished_ = true;
  }
  changed_.notify_one();
}

void BodyPipe::fail(Refusal refusal) {
  {
    const std::lock_guard lock(mutex_);
    failure_ = std::move(refusal);
  }
  changed_.notify_one();
}

void BodyPipe::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    wake_ = nullptr;
  }
  changed_.notify_one();
}

bool BodyPipe::has_room() {
  const std::lock_guard lock(mutex_);
  const bool room = buffered_ < limits::kHttpStreamBufferBytes;
  if (!room) wake_wanted_ = true;
  return room;
}

}  // namespace necrocode::net
