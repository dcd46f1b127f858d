// EventStreamReader: server-sent events out of the bytes of a text/event-stream, as WHATWG HTML
// section 9.2.6 reads them. No sockets; who connects anew is somebody else's matter.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/base/limits.hpp"

namespace necrocode::net {

struct StreamEvent {
  std::string name;  ///< empty: none was given
  std::string data;  ///< lines joined with LF; the bytes as they came, so not always UTF-8
  std::string id;    ///< the last one given, what a reader resumes from; empty: none yet
};

/// One stream from its first byte; not thread-safe.
class EventStreamReader {
 public:
  /// The event may be moved from. What is left of it serves the next one, so that a sink which only
  /// looks at events costs no allocation.
  using Sink = std::function<void(StreamEvent&&)>;
  explicit EventStreamReader(std::size_t bytes_max = limits::kEventStreamBytes)
      : bytes_max_(bytes_max) {}

  /// Hands over each event that is whole now, in order. Comments, unknown fields and events without
  /// data are passed over; what stands unfinished at the stream's end is no event. Throws
  /// InvalidResponse when one event takes more than `bytes_max`, or its id or name more than
  /// limits::kEventStreamNameBytes, and what the sink throws; the stream cannot be read on then.
  void take(std::string_view bytes, const Sink& sink);
  /// The last `retry:`, bounded to a minute.
  std::optional<std::chrono::milliseconds> retry() const { return retry_; }

 private:
  void end_line(std::string_view line, const Sink& sink);
  void end_event(const Sink& sink);
  void take_field(std::string_view field, std::string_view value);
  /// Throws when the unfinished event and a line of it, which holds more than its value, are too
  /// large together.
  void check_size(std::size_t line_bytes) const;

  const std::size_t bytes_max_;
  bool at_start_ = true;  // where a byte order mark may stand
  bool after_cr_ = false;
  std::string line_;  // its beginning, of earlier bytes
  StreamEvent event_;
  bool has_data_ = false;
  std::string id_;  // stays when event_ is moved from
  std::optional<std::chrono::milliseconds> retry_;
};

}  // namespace necrocode::net
