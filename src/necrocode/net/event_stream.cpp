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

}  // namespace

void EventStreamReader::keep(std::string& part, std::string_view bytes) {
  if (line_.size() + data_.size() + bytes.size() > bytes_max_) {
    throw InvalidResponse("an event of the stream is larger than " + std::to_string(bytes_max_) +
                          " bytes");
  }
  part.append(bytes);
}

void EventStreamReader::take(std::string_view bytes, const Sink& sink) {
  while (!bytes.empty()) {
    // The LF of a CRLF whose CR has ended the line already.
    if (std::exchange(after_cr_, false) && bytes.front() == '\n') {
      bytes.remove_prefix(1);
      continue;
    }
    const std::size_t end = bytes.find_first_of("\r\n");
    if (end == std::string_view::npos) return keep(line_, bytes);
    after_cr_ = bytes[end] == '\r';
    const std::string_view rest = bytes.substr(0, end);
    bytes.remove_prefix(end + 1);
    if (line_.empty()) {
      end_line(rest, sink);
      continue;
    }
    keep(line_, rest);
    const std::string line = std::exchange(line_, {});
    end_line(line, sink);
  }
}

void EventStreamReader::end_line(std::string_view line, const Sink& sink) {
  if (std::exchange(at_start_, false) && line.starts_with(kByteOrderMark)) {
    line.remove_prefix(kByteOrderMark.size());
  }
  if (line.empty()) {
    std::string name = std::exchange(name_, {});
    if (!std::exchange(has_data_, false)) return;
    StreamEvent event{std::move(name), std::exchange(data_, {}), id_};
    event.data.pop_back();  // the last line's LF
    return sink(std::move(event));
  }
  const std::size_t colon = line.find(':');
  const std::string_view field = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "data") {
    keep(data_, value);
    keep(data_, "\n");
    has_data_ = true;
  } else if (field == "event") {
    name_ = checked_name(value);
  } else if (field == "id") {
    if (value.find('\0') == std::string_view::npos) id_ = checked_name(value);
  } else if (field == "retry") {
    const auto milliseconds = parse_uint(value);
    if (milliseconds) retry_ = std::chrono::milliseconds(std::min(*milliseconds, kRetryMax));
  }
}

}  // namespace necrocode::net
