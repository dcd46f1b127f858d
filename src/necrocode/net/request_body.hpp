// RequestBody: how much of a request's body has come, and until when more of it must come. Takes
// the framing off; no sockets, no clock.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/base/clock.hpp"
#include "necrocode/net/http1.hpp"

namespace necrocode::net {

/// Bytes of a body, or why there are none. All empty: nothing there yet.
struct BodyPiece {
  std::string_view bytes;
  std::optional<Refusal> refusal;
};

Refusal body_too_large(std::uint64_t bytes_max);

class RequestBody {
 public:
  /// None: done() from the beginning.
  RequestBody() = default;
  /// The body that `head` announces. `grace`: how long it may come below the least allowed rate.
  RequestBody(const RequestHead& head, std::chrono::nanoseconds grace, SteadyTime now);

  /// A piece that goes above it comes with body_too_large().
  void set_limit(std::uint64_t bytes_max) { bytes_max_ = bytes_max; }

  bool chunked() const { return chunked_; }
  bool done() const { return chunked_ ? decoder_.done() : left_ == 0; }
  /// Without chunked framing: what has not been taken.
  std::uint64_t left() const { return left_; }

  /// The next piece out of `buffer`, and its framing; what follows the body stays there. The piece
  /// is valid until the next call.
  BodyPiece take(std::string& buffer, SteadyTime now);
  /// Without chunked framing: counts at most left() bytes that lie elsewhere.
  BodyPiece count(std::string_view bytes, SteadyTime now);

  /// When the next byte must have come.
  SteadyTime deadline() const { return deadline_; }
  /// The client could not have sent before.
  void restart(SteadyTime now) { deadline_ = now + grace_; }
  /// The time in which we would not read is not the client's.
  void pause(SteadyTime now);
  void resume(SteadyTime now);

 private:
  bool chunked_ = false;
  std::uint64_t left_ = 0;  // without chunked framing
  ChunkDecoder decoder_;
  std::uint64_t received_ = 0;
  std::uint64_t bytes_max_ = std::numeric_limits<std::uint64_t>::max();
  std::string piece_;  // what take() points into
  std::chrono::nanoseconds grace_{0};
  SteadyTime deadline_;
  std::optional<SteadyTime> paused_since_;
};

}  // namespace necrocode::net
