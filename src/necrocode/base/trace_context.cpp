#include "necrocode/base/trace_context.hpp"

#include <algorithm>

#include "necrocode/base/ids.hpp"

namespace necrocode {
namespace {

constexpr std::size_t kLength = 55;  // 2 + 32 + 16 + 2 digits, three dashes

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_id(std::string_view text) {
  return is_hex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

std::optional<TraceContext> TraceContext::parse(std::string_view text) {
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') {
    return std::nullopt;
  }
  const std::string_view version = text.substr(0, 2);
  const std::string_view rest = text.substr(kLength);
  if (!is_hex(version) || version == "ff") return std::nullopt;
  if (version == "00" ? !rest.empty() : !rest.empty() && rest.front() != '-') return std::nullopt;
  const std::string_view trace = text.substr(3, 32);
  const std::string_view span = text.substr(36, 16);
  const std::string_view flags = text.substr(53, 2);
  if (!is_id(trace) || !is_id(span) || !is_hex(flags)) return std::nullopt;
  return TraceContext{std::string(trace), std::string(span), std::string(flags)};
}

TraceContext TraceContext::child() const {
  return {trace_id, random_hex(8), flags};
}

std::string TraceContext::traceparent() const {
  return "00-" + trace_id + "-" + span_id + "-" + flags;
}

}  // namespace necrocode
