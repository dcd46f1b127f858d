#include "necrocode/process/captured_stream.hpp"

#include <algorithm>
#include <utility>

namespace necrocode::process {

std::string CapturedStream::text() const {
  if (!truncated()) return head + tail;
  const std::uint64_t left_out = total_bytes - head.size() - tail.size();
  return head + "\n… " + std::to_string(left_out) + " bytes left out …\n" + tail;
}

void StreamCapture::add(std::string_view piece) {
  stream_.total_bytes += piece.size();
  const std::size_t to_head = std::min(head_bytes_ - stream_.head.size(), piece.size());
  stream_.head.append(piece.substr(0, to_head));
  piece.remove_prefix(to_head);
  if (piece.size() > tail_bytes_) piece.remove_prefix(piece.size() - tail_bytes_);
  if (piece.empty()) return;

  std::string& ring = stream_.tail;
  const std::size_t to_grow = std::min(tail_bytes_ - ring.size(), piece.size());
  ring.append(piece.substr(0, to_grow));
  piece.remove_prefix(to_grow);
  while (!piece.empty()) {
    const std::size_t count = std::min(ring.size() - tail_begin_, piece.size());
    ring.replace(tail_begin_, count, piece.substr(0, count));
    tail_begin_ = (tail_begin_ + count) % ring.size();
    piece.remove_prefix(count);
  }
}

CapturedStream StreamCapture::take() {
  const auto oldest = stream_.tail.begin() + static_cast<std::ptrdiff_t>(tail_begin_);
  std::rotate(stream_.tail.begin(), oldest, stream_.tail.end());
  tail_begin_ = 0;
  return std::exchange(stream_, {});
}

}  // namespace necrocode::process
