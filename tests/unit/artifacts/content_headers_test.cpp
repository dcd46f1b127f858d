#include "necrocode/artifacts/content_headers.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/digest.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::artifacts {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using Kind = ByteRange::Kind;

std::string range_text(std::string_view field, std::uint64_t size) {
  const ByteRange range = parse_range(field, size);
  return range.kind == Kind::kWhole ? "whole" : content_range(range, size);
}

TEST(ParseRange, SingleRangesAreCutToTheSize) {
  EXPECT_EQ(range_text("bytes=0-0", 10), "bytes 0-0/10");
  EXPECT_EQ(range_text("bytes=2-5", 10), "bytes 2-5/10");
  EXPECT_EQ(range_text("bytes=5-", 10), "bytes 5-9/10");
  EXPECT_EQ(range_text("bytes=5-500", 10), "bytes 5-9/10");
  EXPECT_EQ(range_text("bytes=-3", 10), "bytes 7-9/10");
  EXPECT_EQ(range_text("bytes=-300", 10), "bytes 0-9/10");
  EXPECT_EQ(range_text("Bytes= 0-1 ", 10), "bytes 0-1/10");
  EXPECT_EQ(range_text("bytes=0-99999999999999999999999", 10), "bytes 0-9/10");
}

TEST(ParseRange, RangesBehindTheEndAreUnsatisfiable) {
  EXPECT_EQ(range_text("bytes=10-", 10), "bytes */10");
  EXPECT_EQ(range_text("bytes=-0", 10), "bytes */10");
  EXPECT_EQ(range_text("bytes=0-", 0), "bytes */0");
  EXPECT_EQ(range_text("bytes=-5", 0), "bytes */0");
  EXPECT_EQ(range_text("bytes=99999999999999999999999-", 10), "bytes */10");
}

TEST(ParseRange, WhatIsNotOneByteRangeIsIgnored) {
  for (const char* field :
       {"", "bytes", "bytes=", "bytes=-", "bytes=5", "bytes=5-2", "bytes=a-b", "bytes=0-1,3-4",
        "bytes=0--1", "bytes=+1-2", "items=0-1", "bytes=1 -2"}) {
    EXPECT_EQ(range_text(field, 10), "whole") << field;
  }
}

TEST(IsMediaType, TokensWithASlashOnly) {
  EXPECT_TRUE(is_media_type("text/plain"));
  EXPECT_TRUE(is_media_type("text/plain; charset=utf-8"));
  EXPECT_TRUE(is_media_type("application/vnd.api+json"));
  for (const char* text : {"", "text", "/plain", "text/", "te xt/plain", "text/pl ain", "a/b/c",
                           "text/html\r\nX: y"}) {
    EXPECT_FALSE(is_media_type(text)) << text;
  }
}

std::string disposition(std::string_view type) {
  net::Headers headers;
  add_safe_content_headers(headers, type, "name");
  EXPECT_EQ(headers.get_or("X-Content-Type-Options", ""), "nosniff");
  EXPECT_THAT(headers.get_or("Content-Security-Policy", ""), HasSubstr("sandbox"));
  return headers.get_or("Content-Disposition", "");
}

TEST(SafeContentHeaders, WhateverABrowserMightRunIsAnAttachment) {
  for (const char* type :
       {"text/html", "TEXT/HTML; charset=utf-8", "image/svg+xml", "application/xml", "text/xml",
        "application/xhtml+xml", "application/pdf", "text/javascript", "", "junk",
        "application/octet-stream", "text/html;text/plain"}) {
    EXPECT_THAT(disposition(type), StartsWith("attachment;")) << type;
  }
  for (const char* type : {"text/plain", "text/x-diff", "Image/PNG", "application/json"}) {
    EXPECT_THAT(disposition(type), StartsWith("inline;")) << type;
  }
}

TEST(SafeContentHeaders, TypeThatCannotStandInAHeaderIsPlainBytes) {
  net::Headers headers;
  add_safe_content_headers(headers, "text/plain\r\nSet-Cookie: a=b", "n");
  EXPECT_EQ(headers.get_or("Content-Type", ""), "application/octet-stream");
}

TEST(SafeContentHeaders, NameIsEscapedAndHasNoFolders) {
  net::Headers headers;
  add_safe_content_headers(headers, "text/plain", "../a\\b \"\r\nü");
  EXPECT_EQ(headers.get_or("Content-Disposition", ""),
            "inline; filename*=UTF-8''.._a_b%20%22%0D%0A%C3%BC");
}

TEST(AnnouncedDigest, ComparesOnlyWhatWasAnnounced) {
  const std::string digest = sha256_hex("x");
  EXPECT_TRUE(AnnouncedDigest({}).matches(digest));
  EXPECT_FALSE(AnnouncedDigest({}).present());
  const AnnouncedDigest other_algorithm({{"Content-Digest", "sha-512=:AAAA:"}});
  EXPECT_FALSE(other_algorithm.present());
  const AnnouncedDigest announced(
      {{"Repr-Digest", "sha-512=:AAAA:, " + content_digest_header(digest)}});
  EXPECT_TRUE(announced.present());
  EXPECT_TRUE(announced.matches(digest));
  EXPECT_FALSE(announced.matches(sha256_hex("y")));
}

TEST(AnnouncedDigest, MalformedOrContradictingIsRefused) {
  EXPECT_THROW(AnnouncedDigest({{"Content-Digest", "sha-256=:AAAA:"}}), net::HttpError);
  EXPECT_THROW(AnnouncedDigest({{"Content-Digest", "sha-256=abc"}}), net::HttpError);
  EXPECT_THROW(AnnouncedDigest({{"Content-Digest", content_digest_header(sha256_hex("x"))},
                                {"Repr-Digest", content_digest_header(sha256_hex("y"))}}),
               net::HttpError);
}

}  // namespace
}  // namespace necrocode::artifacts
