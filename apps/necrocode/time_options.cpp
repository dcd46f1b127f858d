#include "time_options.hpp"

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::app {
namespace {

using std::chrono::milliseconds;
using namespace std::chrono_literals;

/// So far back or ahead nothing is meant; also what a SystemTime can hold with room to spare.
constexpr std::uint64_t kWeeksMax = 5'200;

std::optional<milliseconds> parse_duration(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const auto unit = [&]() -> milliseconds {
    switch (text.back()) {
      case 's':
        return 1s;
      case 'm':
        return 1min;
      case 'h':
        return 1h;
      case 'd':
        return 24h;
      case 'w':
        return 168h;
      default:
        return 0ms;
    }
  }();
  const auto number = parse_uint(text.substr(0, text.size() - 1));
  const milliseconds longest = kWeeksMax * 168h;
  if (unit == 0ms || !number || *number > static_cast<std::uint64_t>(longest / unit)) {
    return std::nullopt;
  }
  return unit * static_cast<milliseconds::rep>(*number);
}

[[noreturn]] void refuse(const std::string& flag, const std::string& text, const char* forms) {
  throw ConfigError(flag + ": \"" + printable(shorten(text, 100)) + "\" is not " + forms);
}

}  // namespace

milliseconds read_duration(const std::string& flag, const std::string& text) {
  const auto duration = parse_duration(text);
  if (!duration) refuse(flag, text, "a duration such as 90s, 30m, 2h, 7d or 2w");
  return *duration;
}

SystemTime read_time(const std::string& flag, const std::string& text) {
  const auto time = parse_rfc3339(text);
  if (!time) refuse(flag, text, "a time such as 2026-01-31T12:00:00Z");
  return *time;
}

std::optional<SystemTime> read_past_time(const std::string& flag, const std::string& text) {
  if (text.empty()) return std::nullopt;
  if (const auto ago = parse_duration(text)) return real_clock().system_now() - *ago;
  const auto time = parse_rfc3339(text);
  if (!time) refuse(flag, text, "a time such as 2026-01-31T12:00:00Z, or how long ago: 2h, 7d");
  return time;
}

}  // namespace necrocode::app
