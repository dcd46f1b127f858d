// StreamCapture: fills a CapturedStream from pieces. Internal to this folder.
#pragma once

#include <cstddef>
#include <string_view>

#include "necrocode/process/command.hpp"

namespace necrocode::process {

/// Memory stays within head_bytes + tail_bytes, however much comes.
class StreamCapture {
 public:
  StreamCapture(std::size_t head_bytes, std::size_t tail_bytes)
      : head_bytes_(head_bytes), tail_bytes_(tail_bytes) {}
  void add(std::string_view piece);
  /// The stream so far; the capture is empty afterwards.
  CapturedStream take();

 private:
  std::size_t head_bytes_;
  std::size_t tail_bytes_;
  std::size_t tail_begin_ = 0;  ///< where the oldest byte of the full tail stands (it is a ring)
  CapturedStream stream_;
};

}  // namespace necrocode::process
