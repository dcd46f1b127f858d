#include "necrocode/base/time_format.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "necrocode/base/text.hpp"

namespace necrocode {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::sys_days;

constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
constexpr std::array<const char*, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};

// SystemTime counts nanoseconds in 64 bits, which end on 11 April 2262.
constexpr int kYearMax = 2261;
constexpr double kSecondsEnd = 9'214'646'400;  // 2262-01-01T00:00:00Z

// Reads fixed-width fields one after the other; `ok` turns false at the first that does not fit.
struct Scanner {
  std::string_view text;
  bool ok = true;

  int number(std::size_t width) {
    const auto value = text.size() >= width ? parse_uint(text.substr(0, width)) : std::nullopt;
    if (!value) {
      ok = false;
      return 0;
    }
    text.remove_prefix(width);
    return static_cast<int>(*value);
  }
  char any_of(std::string_view allowed) {
    if (text.empty() || allowed.find(text.front()) == std::string_view::npos) {
      ok = false;
      return '\0';
    }
    const char c = text.front();
    text.remove_prefix(1);
    return c;
  }
  void literal(std::string_view expected) {
    if (!text.starts_with(expected)) {
      ok = false;
    } else {
      text.remove_prefix(expected.size());
    }
  }
};

std::optional<SystemTime> compose(int year, int month, int day, int hour, int minute, int second) {
  const std::chrono::year_month_day date{std::chrono::year{year},
                                         std::chrono::month{static_cast<unsigned>(month)},
                                         std::chrono::day{static_cast<unsigned>(day)}};
  if (!date.ok() || year < 1970 || year > kYearMax || hour > 23 || minute > 59 || second > 60) {
    return std::nullopt;
  }
  return SystemTime(sys_days(date)) + std::chrono::hours{hour} + std::chrono::minutes{minute} +
         std::chrono::seconds{second};
}

}  // namespace

std::string to_rfc3339(SystemTime time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date{day};
  const auto ms = duration_cast<milliseconds>(time - day).count();
  std::string text = "0000-00-00T00:00:00.000Z";
  const auto put = [&text](std::size_t last, std::int64_t value) {
    for (; value > 0; value /= 10) text[last--] = static_cast<char>('0' + value % 10);
  };
  put(3, static_cast<int>(date.year()));
  put(6, static_cast<unsigned>(date.month()));
  put(9, static_cast<unsigned>(date.day()));
  put(12, ms / 3'600'000);
  put(15, ms / 60'000 % 60);
  put(18, ms / 1000 % 60);
  put(22, ms % 1000);
  return text;
}

std::optional<SystemTime> parse_rfc3339(std::string_view text) {
  Scanner scan{text};
  const int year = scan.number(4);
  scan.literal("-");
  const int month = scan.number(2);
  scan.literal("-");
  const int day = scan.number(2);
  scan.any_of("Tt ");
  const int hour = scan.number(2);
  scan.literal(":");
  const int minute = scan.number(2);
  scan.literal(":");
  const int second = scan.number(2);
  if (!scan.ok) return std::nullopt;
  std::chrono::nanoseconds fraction{0};
  if (scan.text.starts_with(".")) {
    scan.text.remove_prefix(1);
    std::int64_t unit = 100'000'000;
    std::size_t digits = 0;
    while (digits < scan.text.size() && is_ascii_digit(scan.text[digits])) {
      fraction += std::chrono::nanoseconds{(scan.text[digits] - '0') * unit};
      unit /= 10;
      ++digits;
    }
    if (digits == 0) return std::nullopt;
    scan.text.remove_prefix(digits);
  }
  std::chrono::minutes offset{0};
  const char zone = scan.any_of("Zz+-");
  if (zone == '+' || zone == '-') {
    const int hours = scan.number(2);
    scan.literal(":");
    const int minutes = scan.number(2);
    if (hours > 23 || minutes > 59) return std::nullopt;
    offset = std::chrono::minutes{(zone == '-' ? -1 : 1) * (hours * 60 + minutes)};
  }
  if (!scan.ok || !scan.text.empty()) return std::nullopt;
  const auto time = compose(year, month, day, hour, minute, second);
  if (!time) return std::nullopt;
  const SystemTime moved = *time + duration_cast<SystemTime::duration>(fraction) - offset;
  return moved < SystemTime{} ? std::nullopt : std::optional(moved);
}

std::optional<SystemTime> from_unix_seconds(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds >= kSecondsEnd) return std::nullopt;
  // Microseconds: a double holds them exactly for the dates of this century.
  return SystemTime(std::chrono::microseconds{std::llround(seconds * 1e6)});
}

std::int64_t to_unix_ms(SystemTime time) {
  return std::chrono::floor<milliseconds>(time.time_since_epoch()).count();
}

SystemTime from_unix_ms(std::int64_t ms) {
  return SystemTime(milliseconds{ms});
}

std::string to_http_date(SystemTime time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date{day};
  const auto seconds = duration_cast<std::chrono::seconds>(time - day).count();
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%s, %02u %s %04d %02d:%02d:%02d GMT",
                kDays[std::chrono::weekday{day}.c_encoding()], static_cast<unsigned>(date.day()),
                kMonths[static_cast<unsigned>(date.month()) - 1], static_cast<int>(date.year()),
                static_cast<int>(seconds / 3600), static_cast<int>(seconds / 60 % 60),
                static_cast<int>(seconds % 60));
  return buffer;
}

std::optional<SystemTime> parse_http_date(std::string_view text) {
  Scanner scan{text};
  const auto is_day = [&](const char* day_name) { return text.starts_with(day_name); };
  if (std::none_of(kDays.begin(), kDays.end(), is_day)) return std::nullopt;
  scan.text.remove_prefix(3);
  scan.literal(", ");
  const int day = scan.number(2);
  scan.literal(" ");
  int month = 0;
  for (std::size_t i = 0; i < kMonths.size(); ++i) {
    if (scan.text.starts_with(kMonths[i])) month = static_cast<int>(i) + 1;
  }
  if (month == 0) return std::nullopt;
  scan.text.remove_prefix(3);
  scan.literal(" ");
  const int year = scan.number(4);
  scan.literal(" ");
  const int hour = scan.number(2);
  scan.literal(":");
  const int minute = scan.number(2);
  scan.literal(":");
  const int second = scan.number(2);
  scan.literal(" GMT");
  if (!scan.ok || !scan.text.empty()) return std::nullopt;
  return compose(year, month, day, hour, minute, second);
}

std::string human_duration(std::chrono::nanoseconds duration) {
  const double seconds = std::chrono::duration<double>(duration).count();
  char buffer[64];
  // The borders are where the rounded number would read "1000 ms" or "120.0 s".
  if (seconds < 0.9995) {
    std::snprintf(buffer, sizeof buffer, "%.0f ms", seconds * 1000);
  } else if (seconds < 119.95) {
    std::snprintf(buffer, sizeof buffer, "%.1f s", seconds);
  } else {
    const long long whole = std::llround(seconds);
    std::snprintf(buffer, sizeof buffer, "%lld m %lld s", whole / 60, whole % 60);
  }
  return buffer;
}

}  // namespace necrocode
