#include "necrocode/net/event_stream.hpp"

#include <algorithm>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::net {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::uint64_t kRetryMax = 60'000;

std::string_view checked_name(std::string_view text) {
  if (text.size() <= limits::kEventStreamNameBytes) return text;
  throw InvalidResponse("the id or name of a stream's event is larger than " +
                        std::to_string(limits::kEventStreamNameBytes) + " bytes");
}

/// Where the next `mark` stands, asked for places that only move on: no byte is looked at twice,
/// however the marks of two kinds are mixed.
class NextMark {
 public:
  NextMark(std::string_view bytes, char mark) : bytes_(bytes), mark_(mark), at_(bytes.find(mark)) {}
  std::size_t from(std::size_t begin) {
    if (at_ < begin) at_ = bytes_.find(mark_, begin);
    return at_;
  }

 private:
  std::string_view bytes_;
  char mark_;
  std::size_t at_;
};

/// Nothing unless `text` is all digits; a number that no integer holds is bounded like any other.
std::optional<std::chrono::milliseconds> read_retry(std::string_view text) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos) return {};
  return std::chrono::milliseconds(std::min(parse_uint(text).value_or(kRetryMax), kRetryMax));
}

}  // namespace

void EventStreamReader::check_size(std::size_t line_bytes) const {
  if (event_.data.size() + line_bytes <= bytes_max_) return;
  throw InvalidResponse("an event of the stream is larger than " + std::to_string(bytes_max_) +
                        " bytes");
}

void EventStreamReader::take(std::string_view bytes, const Sink& sink) {
  if (bytes.empty()) return;
  // The LF of a CRLF whose CR has ended the line already.
  if (std::exchange(after_cr_, false) && bytes.front() == '\n') bytes.remove_prefix(1);
  NextMark cr(bytes, '\r');
  NextMark lf(bytes, '\n');
  for (std::size_t begin = 0; begin < bytes.size();) {
    const std::size_t end = std::min(cr.from(begin), lf.from(begin));
    const std::string_view part = bytes.substr(begin, end - begin);
    check_size(line_.size() + part.size());
    if (end == std::string_view::npos) {
      line_.append(part);
      return;
    }
    if (line_.empty()) {
      end_line(part, sink);
    } else {
      line_.append(part);
      end_line(line_, sink);
      line_.clear();
    }
    begin = end + 1;
    if (bytes[end] == '\n') continue;
    after_cr_ = begin == bytes.size();
    if (!after_cr_ && bytes[begin] == '\n') ++begin;
  }
}

void EventStreamReader::end_line(std::string_view line, const Sink& sink) {
  if (std::exchange(at_start_, false) && line.starts_with(kByteOrderMark)) {
    line.remove_prefix(kByteOrderMark.size());
  }
  if (line.empty()) return end_event(sink);
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos) return take_field(line, {});
  std::string_view value = line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  take_field(line.substr(0, colon), value);
}

void EventStreamReader::end_event(const Sink& sink) {
  if (std::exchange(has_data_, false)) {
    event_.id = id_;
    sink(std::move(event_));
    event_.data.clear();
  }
  event_.name.clear();
}

void EventStreamReader::take_field(std::string_view field, std::string_view value) {
  if (field == "data") {
    if (std::exchange(has_data_, true)) event_.data += '\n';
    event_.data.append(value);
  } else if (field == "event") {
    event_.name = checked_name(value);
  } else if (field == "id") {
    if (value.find('\0') == std::string_view::npos) id_ = checked_name(value);
  } else if (field == "retry") {
    if (const auto pause = read_retry(value)) retry_ = pause;
  }
}

}  // namespace necrocode::net
