// TraceContext: the header field `traceparent` of W3C Trace Context, which tells the records of one
// action apart from all others, over processes. Nothing is sent or stored here.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace necrocode {

struct TraceContext {
  std::string trace_id;      ///< 32 lower-case hex digits, not all 0
  std::string span_id;       ///< 16, the same
  std::string flags = "00";  ///< 2; the lowest bit: the trace is recorded

  /// Nothing for what is not version 00, or of a later version one that begins as 00 does.
  static std::optional<TraceContext> parse(std::string_view traceparent);
  /// A new span of the same trace.
  TraceContext child() const;
  std::string traceparent() const;  ///< as version 00
};

}  // namespace necrocode
