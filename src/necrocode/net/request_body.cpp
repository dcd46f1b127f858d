#include "necrocode/net/request_body.hpp"

#include <algorithm>
#include <utility>
#include <variant>

#include "necrocode/base/limits.hpp"

namespace necrocode::net {

Refusal body_too_large(std::uint64_t bytes_max) {
  return {413, "the body is larger than " + std::to_string(bytes_max) + " bytes"};
}

RequestBody::RequestBody(const RequestHead& head, std::chrono::nanoseconds grace, SteadyTime now)
    : chunked_(head.chunked),
      left_(head.content_length.value_or(0)),
      grace_(grace),
      deadline_(now + grace) {}

BodyPiece RequestBody::take(std::string& buffer, SteadyTime now) {
  piece_.clear();
  if (!chunked_) {
    piece_ =
        buffer.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), left_)));
    buffer.erase(0, piece_.size());
    return count(piece_, now);
  }
  auto used = decoder_.decode(buffer, piece_, limits::kHttpStreamChunkBytes);
  if (auto* refusal = std::get_if<Refusal>(&used)) return {{}, std::move(*refusal)};
  buffer.erase(0, std::get<std::size_t>(used));
  return count(piece_, now);
}

BodyPiece RequestBody::count(std::string_view bytes, SteadyTime now) {
  if (!chunked_) left_ -= bytes.size();
  received_ += bytes.size();
  // Each byte buys time at the least allowed rate, and nobody saves up more than the grace.
  const std::chrono::nanoseconds earned(bytes.size() * 1'000'000'000ULL /
                                        limits::kHttpBodyBytesPerSecond);
  deadline_ = std::min(deadline_ + earned, std::max(deadline_, now + grace_));
  if (received_ > bytes_max_) return {bytes, body_too_large(bytes_max_)};
  return {bytes, std::nullopt};
}

void RequestBody::pause(SteadyTime now) {
  if (!paused_since_) paused_since_ = now;
}

void RequestBody::resume(SteadyTime now) {
  if (paused_since_) deadline_ += now - *std::exchange(paused_since_, std::nullopt);
}

}  // namespace necrocode::net
