#include "necrocode/base/time_format.hpp"

#include <gmock/gmock.h>

#include <limits>

namespace necrocode {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

std::string again(std::string_view text) {
  const auto time = parse_rfc3339(text);
  return time ? to_rfc3339(*time) : "nothing";
}

TEST(ToRfc3339, MillisecondsInUtcRoundedDown) {
  EXPECT_EQ(to_rfc3339(SystemTime{}), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(to_rfc3339(SystemTime(seconds{1'769'860'800} + nanoseconds{123'999'999})),
            "2026-01-31T12:00:00.123Z");
  EXPECT_EQ(to_rfc3339(SystemTime(milliseconds{-1})), "1969-12-31T23:59:59.999Z");
}

TEST(ParseRfc3339, OffsetsMoveToUtc) {
  EXPECT_EQ(again("2026-01-31T12:00:00Z"), "2026-01-31T12:00:00.000Z");
  EXPECT_EQ(again("2026-01-31t12:00:00z"), "2026-01-31T12:00:00.000Z");
  EXPECT_EQ(again("2026-01-31 12:00:00+05:30"), "2026-01-31T06:30:00.000Z");
  EXPECT_EQ(again("2026-01-31T23:30:00-01:00"), "2026-02-01T00:30:00.000Z");
  EXPECT_EQ(again("2026-01-31T12:00:00-00:00"), "2026-01-31T12:00:00.000Z");
  EXPECT_EQ(again("2026-01-31T12:00:00+23:59"), "2026-01-30T12:01:00.000Z");
}

TEST(ParseRfc3339, AnyFraction) {
  EXPECT_EQ(again("2026-01-31T12:00:00.5Z"), "2026-01-31T12:00:00.500Z");
  EXPECT_EQ(again("2026-01-31T12:00:00.123456789123456789Z"), "2026-01-31T12:00:00.123Z");
  EXPECT_EQ(parse_rfc3339("2026-01-31T12:00:00.000000001Z").value() -
                parse_rfc3339("2026-01-31T12:00:00Z").value(),
            nanoseconds{1});
}

TEST(ParseRfc3339, LeapDaysOnlyInLeapYearsAndLeapSeconds) {
  EXPECT_EQ(again("2024-02-29T00:00:00Z"), "2024-02-29T00:00:00.000Z");
  EXPECT_EQ(again("2000-02-29T00:00:00Z"), "2000-02-29T00:00:00.000Z");
  EXPECT_EQ(again("2023-02-29T00:00:00Z"), "nothing");
  EXPECT_EQ(again("2100-02-29T00:00:00Z"), "nothing");
  EXPECT_EQ(again("2016-12-31T23:59:60Z"), "2017-01-01T00:00:00.000Z");
}

TEST(ParseRfc3339, OnlyWhatAClockValueHolds) {
  EXPECT_EQ(again("1970-01-01T00:00:00Z"), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(again("2100-01-01T00:00:00Z"), "2100-01-01T00:00:00.000Z");
  EXPECT_EQ(again("2261-12-31T23:59:59.999-23:59"), "2262-01-01T23:58:59.999Z");
  EXPECT_EQ(again("2262-01-01T00:00:00Z"), "nothing");
  EXPECT_EQ(again("9999-12-31T23:59:59Z"), "nothing");
  EXPECT_EQ(again("1969-12-31T23:59:59Z"), "nothing");
  EXPECT_EQ(again("1970-01-01T00:00:00+00:01"), "nothing");
}

TEST(ParseRfc3339, RefusesJunk) {
  for (const char* text : {"",
                           "now",
                           "2026",
                           "2026-01-31",
                           "2026-01-31T12:00Z",
                           "2026-01-31T12:00:00",
                           "2026-13-01T00:00:00Z",
                           "2026-00-01T00:00:00Z",
                           "2026-01-00T00:00:00Z",
                           "2026-01-32T00:00:00Z",
                           "2026-01-31T24:00:00Z",
                           "2026-01-31T12:60:00Z",
                           "2026-01-31T12:00:61Z",
                           "2026-01-31T12:00:00.Z",
                           "2026-01-31T12:00:00+1:00",
                           "2026-01-31T12:00:00+0100",
                           "2026-01-31T12:00:00+24:00",
                           "2026-01-31T12:00:00+01:60",
                           "2026-01-31T12:00:00Zz",
                           " 2026-01-31T12:00:00Z",
                           "2026-01-31T12:00:00Z ",
                           "+026-01-31T12:00:00Z",
                           "2026/01/31T12:00:00Z",
                           "2026-01-31T-1:00:00Z",
                           "2026-01-31X12:00:00Z",
                           "20260131T120000Z"}) {
    EXPECT_EQ(again(text), "nothing") << text;
  }
}

TEST(FromUnixSeconds, KeepsMicroseconds) {
  EXPECT_EQ(from_unix_seconds(0), SystemTime{});
  EXPECT_EQ(from_unix_seconds(1769860800.123456),
            SystemTime(std::chrono::microseconds{1'769'860'800'123'456}));
}

TEST(FromUnixSeconds, RefusesWhatIsNoTime) {
  for (const double value :
       {-1.0, -0.001, 9'214'646'400.0, 253'402'300'800.0, 1e18, 1e300,
        std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_FALSE(from_unix_seconds(value)) << value;
  }
  EXPECT_EQ(to_rfc3339(*from_unix_seconds(9'214'646'399.0)), "2261-12-31T23:59:59.000Z");
}

TEST(UnixMs, BothWaysRoundedDown) {
  EXPECT_EQ(to_unix_ms(from_unix_ms(1'769'860'800'123)), 1'769'860'800'123);
  EXPECT_EQ(to_unix_ms(SystemTime(nanoseconds{1'999'999})), 1);
  EXPECT_EQ(to_unix_ms(SystemTime(nanoseconds{-1})), -1);
}

TEST(HttpDate, ExampleOfTheRfcBothWays) {
  const SystemTime time(seconds{784'111'777});
  EXPECT_EQ(to_http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), time);
}

TEST(HttpDate, EveryMonthAndDayComesBack) {
  for (int day = 0; day < 366; ++day) {
    const SystemTime time(std::chrono::hours{24 * day} + seconds{86'399});
    EXPECT_EQ(parse_http_date(to_http_date(time)), time);
  }
}

TEST(HttpDate, RefusesJunk) {
  for (const char* text :
       {"", "0", "tomorrow", "Xyz, 06 Nov 1994 08:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 1969 08:49:37 GMT", "Sun, 06 Nov 9999 08:49:37 GMT", "Sun", "Sun,"}) {
    EXPECT_FALSE(parse_http_date(text)) << text;
  }
}

TEST(HumanDuration, ReadsWellAtEverySize) {
  EXPECT_EQ(human_duration(milliseconds{0}), "0 ms");
  EXPECT_EQ(human_duration(milliseconds{340}), "340 ms");
  EXPECT_EQ(human_duration(std::chrono::microseconds{999'600}), "1.0 s");
  EXPECT_EQ(human_duration(milliseconds{1'234}), "1.2 s");
  EXPECT_EQ(human_duration(milliseconds{119'960}), "2 m 0 s");
  EXPECT_EQ(human_duration(seconds{125}), "2 m 5 s");
  EXPECT_EQ(human_duration(nanoseconds::max()), "153722867 m 17 s");
}

}  // namespace
}  // namespace necrocode
