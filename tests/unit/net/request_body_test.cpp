// RequestBody: the framing taken off, the limit, and the time that bytes buy.
#include "necrocode/net/request_body.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/limits.hpp"

namespace necrocode::net {
namespace {

using namespace std::chrono_literals;

constexpr SteadyTime kStart{1h};

RequestBody with_length(std::uint64_t size) {
  RequestHead head;
  head.content_length = size;
  return {head, 10s, kStart};
}

RequestBody with_chunks() {
  RequestHead head;
  head.chunked = true;
  return {head, 10s, kStart};
}

TEST(RequestBody, NoneAnnouncedThenDone) {
  EXPECT_TRUE(RequestBody().done());
  EXPECT_TRUE(RequestBody(RequestHead(), 10s, kStart).done());
}

TEST(RequestBody, LengthThenTheNextRequestStaysInTheBuffer) {
  RequestBody body = with_length(5);
  std::string buffer = "abc";
  EXPECT_EQ(body.take(buffer, kStart).bytes, "abc");
  EXPECT_EQ(body.left(), 2u);
  EXPECT_FALSE(body.done());
  buffer = "deGET / HTTP/1.1";
  EXPECT_EQ(body.take(buffer, kStart).bytes, "de");
  EXPECT_EQ(buffer, "GET / HTTP/1.1");
  EXPECT_TRUE(body.done());
}

TEST(RequestBody, BytesThatLieElsewhereThenCountedWithoutACopy) {
  RequestBody body = with_length(3);
  const std::string_view bytes = "abc";
  EXPECT_EQ(body.count(bytes, kStart).bytes.data(), bytes.data());
  EXPECT_TRUE(body.done());
}

TEST(RequestBody, ChunksThenTheirContentAndTheRestStays) {
  RequestBody body = with_chunks();
  std::string buffer = "3\r\nabc\r\n2;x=y\r\nd";
  EXPECT_EQ(body.take(buffer, kStart).bytes, "abcd");
  EXPECT_EQ(buffer, "");
  buffer = "e\r\n0\r\n\r\nGET";
  EXPECT_EQ(body.take(buffer, kStart).bytes, "e");
  EXPECT_TRUE(body.done());
  EXPECT_EQ(buffer, "GET");
}

TEST(RequestBody, MalformedChunkThen400) {
  RequestBody body = with_chunks();
  std::string buffer = "x\r\n";
  const BodyPiece piece = body.take(buffer, kStart);
  ASSERT_TRUE(piece.refusal);
  EXPECT_EQ(piece.refusal->status, 400);
}

TEST(RequestBody, PieceAboveTheLimitThen413) {
  RequestBody body = with_chunks();
  body.set_limit(4);
  std::string buffer = "4\r\nabcd\r\n";
  EXPECT_FALSE(body.take(buffer, kStart).refusal);
  buffer = "1\r\ne\r\n";
  const BodyPiece piece = body.take(buffer, kStart);
  ASSERT_TRUE(piece.refusal);
  EXPECT_EQ(piece.refusal->status, 413);
  EXPECT_THAT(piece.refusal->detail, testing::HasSubstr("4 bytes"));
}

TEST(RequestBody, BytesBuyTimeAtTheLeastRateAndNotMoreThanTheGrace) {
  RequestBody body = with_length(1'000'000);
  EXPECT_EQ(body.deadline(), kStart + 10s);
  std::string buffer(limits::kHttpBodyBytesPerSecond, 'x');
  body.take(buffer, kStart + 4s);
  EXPECT_EQ(body.deadline(), kStart + 11s);
  buffer.assign(60 * limits::kHttpBodyBytesPerSecond, 'x');
  body.take(buffer, kStart + 4s);
  EXPECT_EQ(body.deadline(), kStart + 14s);
}

TEST(RequestBody, PausedThenThatTimeIsNotTheClients) {
  RequestBody body = with_length(9);
  body.resume(kStart + 1s);
  EXPECT_EQ(body.deadline(), kStart + 10s);
  body.pause(kStart + 2s);
  body.pause(kStart + 3s);  // the first one counts
  body.resume(kStart + 7s);
  EXPECT_EQ(body.deadline(), kStart + 15s);
  body.restart(kStart + 20s);
  EXPECT_EQ(body.deadline(), kStart + 30s);
}

}  // namespace
}  // namespace necrocode::net
