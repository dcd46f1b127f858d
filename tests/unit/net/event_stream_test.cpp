// Server-sent events: the grammar of WHATWG HTML section 9.2, whatever pieces its bytes come in.
#include "necrocode/net/event_stream.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"

namespace necrocode::net {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> read(std::string_view text, std::size_t piece = std::string::npos) {
  EventStreamReader reader;
  std::vector<std::string> events;
  for (std::size_t at = 0; at < text.size(); at += std::min(piece, text.size())) {
    reader.take(text.substr(at, piece), [&](const StreamEvent& event) {
      events.push_back(event.id + "|" + event.name + "|" + event.data);
    });
  }
  return events;
}

TEST(EventStream, EventsOfEveryForm) {
  EXPECT_THAT(read("data: a\n\n"), ElementsAre("||a"));
  EXPECT_THAT(read("id: 1\nevent: e\ndata: a\ndata: b\n\n"), ElementsAre("1|e|a\nb"));
  EXPECT_THAT(read("data:a\n\ndata:  b\n\n"), ElementsAre("||a", "|| b")) << "one space is dropped";
  EXPECT_THAT(read("data\n\n"), ElementsAre("||")) << "a field without a colon is empty";
  EXPECT_THAT(read("data: a:b\n\n"), ElementsAre("||a:b"));
  EXPECT_THAT(read(": hello\n\n:\n\ndata: a\n\n"), ElementsAre("||a")) << "comments";
  EXPECT_THAT(read("colour: red\ndata: a\n\n"), ElementsAre("||a")) << "unknown fields";
  EXPECT_THAT(read("event: e\n\ndata: a\n\n"), ElementsAre("||a")) << "no data is no event";
  EXPECT_THAT(read("data: \n\n"), ElementsAre("||"));
  EXPECT_THAT(read("\xEF\xBB\xBF"
                   "data: a\n\n\xEF\xBB\xBF"
                   "data: b\n\n"),
              ElementsAre("||a"))
      << "a byte order mark stands at the start only";
}

TEST(EventStream, IdIsKeptUntilTheNextOne) {
  EXPECT_THAT(read("id: 7\ndata: a\n\ndata: b\n\nid\ndata: c\n\n"),
              ElementsAre("7||a", "7||b", "||c"));
  EXPECT_THAT(read(std::string_view("id: 1\0\ndata: a\n\n", 16)), ElementsAre("||a"));
}

TEST(EventStream, UnfinishedIsNoEvent) {
  EXPECT_THAT(read("data: a"), IsEmpty());
  EXPECT_THAT(read("data: a\n"), IsEmpty());
  EXPECT_THAT(read("data: a\r\n"), IsEmpty());
}

TEST(EventStream, AnyLineEndInAnyPiecesIsTheSame) {
  for (const std::string end : {"\n", "\r", "\r\n"}) {
    const std::string text = "id: 1" + end + "data: \xC3\xA9" + end + "data: z" + end + end + ":" +
                             end + "event: last" + end + "data: y" + end + end;
    for (std::size_t piece = 1; piece <= text.size(); ++piece) {
      ASSERT_THAT(read(text, piece), ElementsAre("1||\xC3\xA9\nz", "1|last|y")) << piece;
    }
  }
}

TEST(EventStream, RetryIsReadAndBounded) {
  EventStreamReader reader;
  const auto nothing = [](const StreamEvent&) {};
  reader.take("retry: x\n\n", nothing);
  EXPECT_FALSE(reader.retry());
  reader.take("retry: 250\n\n", nothing);
  EXPECT_EQ(reader.retry(), std::chrono::milliseconds(250));
  reader.take("retry: 999999999999\n\n", nothing);
  EXPECT_EQ(reader.retry(), std::chrono::minutes(1));
  reader.take("retry: 250\n\nretry\nretry: -1\nretry: +1\nretry: 1.5\nretry: 1 \n\n", nothing);
  EXPECT_EQ(reader.retry(), std::chrono::milliseconds(250)) << "digits only";
  for (const std::string larger : {"9223372036854775808", "18446744073709551616"}) {
    reader.take("retry: 250\n\n", nothing);
    reader.take("retry: " + larger + "\n\n", nothing);
    EXPECT_EQ(reader.retry(), std::chrono::minutes(1)) << larger;
  }
}

TEST(EventStream, EventMovedAwayOrLeftThenTheNextIsWhole) {
  EventStreamReader reader;
  std::vector<StreamEvent> moved;
  reader.take("id: 7\nevent: e\ndata: first\n\ndata: b\n\n",
              [&](StreamEvent event) { moved.push_back(std::move(event)); });
  reader.take("data: c\ndata: d\n\n", [&](const StreamEvent& event) { moved.push_back(event); });
  reader.take("data: e\n\n", [&](StreamEvent&& event) { moved.push_back(std::move(event)); });
  std::vector<std::string> seen;
  for (const StreamEvent& event : moved) seen.push_back(event.id + event.name + event.data);
  EXPECT_THAT(seen, ElementsAre("7efirst", "7b", "7c\nd", "7e"));
}

TEST(EventStream, NothingBetweenCrAndLfThenOneLineEnd) {
  EventStreamReader reader;
  int events = 0;
  const auto count = [&](const StreamEvent&) { ++events; };
  for (const std::string_view piece : {"data: a\r", "", "\n", "data: b\r", "\r", "\n"}) {
    reader.take(piece, count);
  }
  EXPECT_EQ(events, 1);
}

TEST(EventStream, LargeIdOrNameThenRefused) {
  const auto nothing = [](const StreamEvent&) {};
  for (const std::string field : {"id", "event"}) {
    EventStreamReader reader;
    reader.take(field + ": " + std::string(limits::kEventStreamNameBytes, 'x') + "\n", nothing);
    EXPECT_THROW(
        reader.take(field + ": " + std::string(limits::kEventStreamNameBytes + 1, 'x') + "\n",
                    nothing),
        InvalidResponse);
  }
}

TEST(EventStream, LargerThanItsLimitThenRefused) {
  const auto nothing = [](const StreamEvent&) {};
  EventStreamReader line(100);
  EXPECT_THROW(line.take("data: " + std::string(101, 'x'), nothing), InvalidResponse);
  EventStreamReader lines(100);
  EXPECT_THROW(
      {
        for (int i = 0; i < 100; ++i) lines.take("data: 0123456789\n", nothing);
      },
      InvalidResponse);
  EventStreamReader many(100);
  for (int i = 0; i < 100; ++i) many.take("data: 0123456789\n\n", nothing);
}

// Where the pieces end must not decide what is too large.
TEST(EventStream, AtItsLimitInAnyPiecesIsTheSame) {
  for (const std::size_t size : {100, 101}) {
    const std::string text = "data: " + std::string(size - 6, 'x') + "\n\n";
    for (std::size_t piece = 1; piece <= text.size(); ++piece) {
      EventStreamReader reader(100);
      int events = 0;
      const auto feed = [&] {
        for (std::size_t at = 0; at < text.size(); at += piece) {
          reader.take(std::string_view(text).substr(at, piece),
                      [&](const StreamEvent&) { ++events; });
        }
      };
      if (size > 100) {
        EXPECT_THROW(feed(), InvalidResponse) << piece;
      } else {
        feed();
      }
      EXPECT_EQ(events, size > 100 ? 0 : 1) << piece;
    }
  }
}

}  // namespace
}  // namespace necrocode::net
