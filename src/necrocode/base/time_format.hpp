// Times as text: RFC 3339 with milliseconds in UTC, Unix seconds, HTTP dates. System clock only.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "necrocode/base/clock.hpp"

namespace necrocode {

/// `2026-01-31T12:00:00.123Z`
std::string to_rfc3339(SystemTime time);
/// With any offset and any fraction; nothing when malformed or outside the years 1970–2261
/// (what SystemTime can hold).
std::optional<SystemTime> parse_rfc3339(std::string_view text);
/// Nothing outside the years 1970–2261, or when not finite.
std::optional<SystemTime> from_unix_seconds(double seconds);
std::int64_t to_unix_ms(SystemTime time);
SystemTime from_unix_ms(std::int64_t ms);
/// IMF-fixdate (RFC 9110 section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
std::string to_http_date(SystemTime time);
std::optional<SystemTime> parse_http_date(std::string_view text);
/// `1.2 s`, `340 ms`, `2 m 5 s`: for people.
std::string human_duration(std::chrono::nanoseconds duration);

}  // namespace necrocode
