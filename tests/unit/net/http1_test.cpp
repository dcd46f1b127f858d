// The request grammar: what is refused, byte by byte, and that no split of the input changes it.
#include "necrocode/net/http1.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/limits.hpp"

namespace necrocode::net {
namespace {

// The status of the refusal, or 0.
int scan_status(std::string_view head) {
  HeadScanner scanner;
  // Byte by byte, as the slowest client would send it.
  for (std::size_t size = 0; size <= head.size(); ++size) {
    const auto found = scanner.scan(head.substr(0, size));
    if (const auto* refusal = std::get_if<Refusal>(&found)) return refusal->status;
    if (const auto* end = std::get_if<std::size_t>(&found)) {
      const auto parsed = parse_request_head(head.substr(0, *end));
      const auto* refusal = std::get_if<Refusal>(&parsed);
      return refusal != nullptr ? refusal->status : 0;
    }
  }
  return -1;  // not whole
}

std::string get_with(std::string_view fields) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}

TEST(RequestHead, PlainRequestThenItsFields) {
  const std::string text =
      "POST /a?b=1 HTTP/1.1\r\nHost: example:80\r\nX-A:  one two \r\nContent-Length: 5\r\n"
      "Expect: 100-Continue\r\n\r\nhello";
  HeadScanner scanner;
  const auto found = scanner.scan(text);
  ASSERT_TRUE(std::holds_alternative<std::size_t>(found));
  EXPECT_EQ(std::get<std::size_t>(found), text.size() - 5);
  const auto parsed = parse_request_head(std::string_view(text).substr(0, text.size() - 5));
  ASSERT_TRUE(std::holds_alternative<RequestHead>(parsed));
  const auto& head = std::get<RequestHead>(parsed);
  EXPECT_EQ(head.method, "POST");
  EXPECT_EQ(head.target, "/a?b=1");
  EXPECT_EQ(head.headers.get_or("x-a", ""), "one two");
  EXPECT_EQ(head.content_length, 5u);
  EXPECT_TRUE(head.expects_continue);
  EXPECT_TRUE(head.keep_alive);
  EXPECT_FALSE(head.chunked);
}

TEST(HeadReader, EmptyLineThenPassedOverOnceAndTheRestStays) {
  HeadReader reader;
  std::string buffer;
  for (const char c : "\r\n" + get_with("")) {
    EXPECT_TRUE(std::holds_alternative<std::monostate>(reader.take(buffer)));
    buffer += c;
  }
  buffer += "body";
  EXPECT_TRUE(std::holds_alternative<RequestHead>(reader.take(buffer)));
  EXPECT_EQ(buffer, "body");

  HeadReader other;
  buffer = "\r\n\r\n" + get_with("");
  EXPECT_TRUE(std::holds_alternative<Refusal>(other.take(buffer)));
}

TEST(RequestHead, SoundFormsThenAccepted) {
  EXPECT_EQ(scan_status(get_with("")), 0);
  EXPECT_EQ(scan_status(get_with("X: a\tb \xC3\xA4\r\n")), 0);
  EXPECT_EQ(scan_status(get_with("Empty:\r\n")), 0);
  EXPECT_EQ(scan_status(get_with("Content-Length: 5\r\nContent-Length: 5\r\n")), 0);
  EXPECT_EQ(scan_status(get_with("Transfer-Encoding: Chunked\r\n")), 0);
  EXPECT_EQ(scan_status("GET / HTTP/1.0\r\n\r\n"), 0);
}

TEST(RequestHead, FormsThatTwoParsersReadInTwoWaysThen400) {
  const std::string_view fields[] = {
      "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
      "Content-Length: 5\r\nContent-Length: 6\r\n",
      "Content-Length: 5, 5\r\n",
      "Content-Length: +5\r\n",
      "Content-Length: -1\r\n",
      "Content-Length: 0x5\r\n",
      "Content-Length: 5 5\r\n",
      "Content-Length:\r\n",
      "Content-Length: 18446744073709551616\r\n",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: gzip, chunked\r\n",
      "Transfer-Encoding: chunked, identity\r\n",
      "Transfer-Encoding: identity\r\n",
      "Transfer-Encoding: \"chunked\"\r\n",
      "Transfer-Encoding : chunked\r\n",
      " Folded: x\r\n",
      "X: a\r\n folded\r\n",
      "X: a\r\n\tfolded\r\n",
      "X: a\nY: b\r\n",
      "X: a\rb\r\n",
      "X: a\r\r\n",
      "no colon\r\n",
      ": no name\r\n",
      "X y: space in the name\r\n",
      "X\x7f: control\r\n",
      "X: control \x01\r\n",
      "Host: b\r\n",
      "host: a\r\n",
  };
  for (const std::string_view field : fields) EXPECT_EQ(scan_status(get_with(field)), 400) << field;
  EXPECT_EQ(scan_status(get_with(std::string_view("X: a\0b\r\n", 8))), 400);
}

TEST(RequestHead, MalformedRequestLineThen400) {
  const std::string_view lines[] = {
      "GET / HTTP/1.1\n",           "GET /\r\n",
      "GET  HTTP/1.1\r\n",          "GET /a b HTTP/1.1\r\n",
      "GET\t/\tHTTP/1.1\r\n",       " GET / HTTP/1.1\r\n",
      "GET / HTTP/2.0\r\n",         "GET / HTTP/1.2\r\n",
      "GET / http/1.1\r\n",         "GET / HTTP/1.1 \r\n",
      "PRI * HTTP/2.0\r\n",         "G(T / HTTP/1.1\r\n",
      "GET /\xC3\xA4 HTTP/1.1\r\n", "\x16\x03\x01\r\n",
  };
  for (const std::string_view line : lines) {
    EXPECT_EQ(scan_status(std::string(line) + "Host: a\r\n\r\n"), 400) << line;
  }
}

TEST(RequestHead, HostMissingOrMalformedThen400) {
  EXPECT_EQ(scan_status("GET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(scan_status("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
  EXPECT_EQ(scan_status("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n"), 400);
  EXPECT_EQ(scan_status("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400);
  EXPECT_EQ(scan_status("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
}

TEST(RequestHead, TooMuchThen414Or431) {
  const std::string path(limits::kHttpTargetBytes, 'a');
  EXPECT_EQ(scan_status("GET /" + path + " HTTP/1.1\r\nHost: a\r\n\r\n"), 414);
  EXPECT_EQ(scan_status("GET /" + path.substr(1) + " HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
  EXPECT_EQ(scan_status("GET /" + path + path), 414);
  std::string fields;
  for (std::size_t i = 0; i + 1 < limits::kHttpHeaderCount; ++i) fields += "X: y\r\n";
  EXPECT_EQ(scan_status(get_with(fields)), 0);
  EXPECT_EQ(scan_status(get_with(fields + "X: y\r\n")), 431);
  EXPECT_EQ(scan_status(get_with("X: " + std::string(limits::kHttpHeaderBytes, 'y'))), 431);
}

TEST(RequestHead, UnknownExpectationThen417) {
  EXPECT_EQ(scan_status(get_with("Expect: tea\r\n")), 417);
}

int target_status(std::string_view text) {
  const auto parsed = parse_target(text);
  const auto* refusal = std::get_if<Refusal>(&parsed);
  return refusal != nullptr ? refusal->status : 0;
}

TEST(RequestTarget, PathAndQueryThenDecoded) {
  const auto parsed = parse_target("/tasks/chat%3A1.1/x%20y?a=1&b=%2F+z&a=2&empty&=");
  ASSERT_TRUE(std::holds_alternative<Target>(parsed));
  const auto& target = std::get<Target>(parsed);
  EXPECT_EQ(target.path, "/tasks/chat%3A1.1/x%20y");
  EXPECT_THAT(target.segments, testing::ElementsAre("tasks", "chat:1.1", "x y"));
  using P = std::pair<std::string, std::string>;
  EXPECT_THAT(target.query, testing::ElementsAre(P("a", "1"), P("b", "/ z"), P("a", "2"),
                                                 P("empty", ""), P("", "")));
}

TEST(RequestTarget, AbsoluteFormThenItsPath) {
  const auto parsed = parse_target("HTTP://other:80/a?b=c");
  ASSERT_TRUE(std::holds_alternative<Target>(parsed));
  EXPECT_EQ(std::get<Target>(parsed).path, "/a");
  EXPECT_EQ(target_status("http://other"), 0);
}

TEST(RequestTarget, PathsThatCouldMeanAnotherFileThen400) {
  const std::string_view targets[] = {
      "/a/../b", "/..",      "/.",        "/a/./b",       "/a/%2e%2e/b", "/a/.%2E/b", "/%2e",
      "/a%2Fb",  "/a%2fb",   "/..%2f",    "/a\\b",        "/a%5Cb",      "/a%00b",    "/%",
      "/a%2",    "/a%zz",    "/a#b",      "/%ff",         "*",           "a",         "http:///a",
      "http:a",  "ftp://a/", "http://a?", "//host:1@%2f", "/a?b=%zz",    "/a?b=%00",  "/a?%ff",
  };
  for (const std::string_view target : targets) EXPECT_EQ(target_status(target), 400) << target;
}

std::string decode_in_pieces(std::string_view input, std::size_t piece, std::size_t out_max) {
  ChunkDecoder decoder;
  std::string body;
  std::string pending;
  while (!decoder.done()) {
    if (input.empty() && pending.empty()) return body + "<more>";
    pending.append(input.substr(0, piece));
    input.remove_prefix(std::min(piece, input.size()));
    std::string out;
    const auto used = decoder.decode(pending, out, out_max);
    if (std::holds_alternative<Refusal>(used)) return "<refused>";
    pending.erase(0, std::get<std::size_t>(used));
    EXPECT_LE(out.size(), out_max);
    body += out;
  }
  return body + "|" + pending + std::string(input);
}

TEST(ChunkDecoder, AnySplitThenTheSameBody) {
  const std::string_view text =
      "5\r\nhello\r\n00a;name=\"v\";x\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nnext";
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    for (const std::size_t out_max : {1, 3, 4096}) {
      EXPECT_EQ(decode_in_pieces(text, piece, out_max), "hello0123456789|next");
    }
  }
}

TEST(ChunkDecoder, MalformedFramingThenRefused) {
  const std::string_view texts[] = {
      "x\r\n",     "\r\n",        "-1\r\n",     "+1\r\na\r\n",          "0x1\r\na\r\n",
      " 1\r\na",   "1 \r\na\r\n", "1\na\r\n",   "1\r\nab\r\n",          "1\r\na\n",
      "1\r\na\rb", "1\rx",        "1;\n\r\na",  "1;a\x01\r\n",          "0\r\n x\r\n\r\n",
      "0\r\n\n",   "0\r\n:\r\n",  "0\r\nA: \n", "1000000000000000\r\n", "ffffffffffffffff1\r\n",
  };
  for (const std::string_view text : texts) {
    EXPECT_EQ(decode_in_pieces(text, 1, 4096), "<refused>") << text;
  }
}

TEST(ChunkDecoder, EndlessExtensionOrTrailersThenRefused) {
  EXPECT_EQ(decode_in_pieces("1;" + std::string(8192, 'a'), 512, 4096), "<refused>");
  std::string trailers = "0\r\n";
  for (int i = 0; i < 2000; ++i) trailers += "A: b\r\n";
  EXPECT_EQ(decode_in_pieces(trailers, 512, 4096), "<refused>");
}

}  // namespace
}  // namespace necrocode::net
