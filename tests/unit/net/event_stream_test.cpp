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

}  // namespace
}  // namespace necrocode::net
