#include "necrocode/net/http.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/limits.hpp"

namespace necrocode::net {
namespace {

TEST(Headers, CompareNamesWithoutCaseAndKeepOrder) {
  Headers headers{{"Set-Cookie", "a"}, {"set-cookie", "b"}};
  EXPECT_EQ(headers.get("SET-COOKIE"), "a");
  EXPECT_EQ(headers.count("Set-cookie"), 2u);
  headers.set("SET-COOKIE", "c");
  EXPECT_EQ(headers.size(), 1u);
  EXPECT_EQ(headers.get("set-cookie"), "c");
  headers.erase("Set-Cookie");
  EXPECT_EQ(headers.get("set-cookie"), std::nullopt);
  EXPECT_EQ(headers.get_or("set-cookie", "none"), "none");
}

TEST(IsValidHeader, RefusesWhatWouldStartAnotherField) {
  EXPECT_TRUE(is_valid_header("X-Y", "some text, \"quoted\""));
  EXPECT_TRUE(is_valid_header("X-Y", ""));
  EXPECT_FALSE(is_valid_header("X-Y", "a\r\nX-Z: b"));
  EXPECT_FALSE(is_valid_header("X-Y", "a\nb"));
  EXPECT_FALSE(is_valid_header("X-Y", std::string_view("a\0b", 3)));
  EXPECT_FALSE(is_valid_header("", "a"));
  EXPECT_FALSE(is_valid_header("X Y", "a"));
  EXPECT_FALSE(is_valid_header("X:", "a"));
  EXPECT_FALSE(is_valid_header("X\r\n", "a"));
}

TEST(EtagMatches, ListsWeakTagsAndTheStar) {
  EXPECT_TRUE(etag_matches("\"a\"", "\"a\""));
  EXPECT_TRUE(etag_matches("\"b\", W/\"a\"", "\"a\""));
  EXPECT_TRUE(etag_matches("*", "\"a\""));
  EXPECT_FALSE(etag_matches("", "\"a\""));
  EXPECT_FALSE(etag_matches("\"ab\", a", "\"a\""));
}

TEST(EtagMatches, WeakTagGuardsNoWrite) {
  EXPECT_TRUE(etag_matches_strongly("\"b\", \"a\"", "\"a\""));
  EXPECT_TRUE(etag_matches_strongly(" * ", "\"a\""));
  EXPECT_FALSE(etag_matches_strongly("W/\"a\"", "\"a\""));
  EXPECT_FALSE(etag_matches_strongly("\"b,a\"", "\"a\""));
}

TEST(Url, ReadsEachPart) {
  const auto url = Url::parse("HTTPS://Example.COM:8443/a/b?c=d#e");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->scheme, "https");
  EXPECT_EQ(url->host, "example.com");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->path, "/a/b?c=d");
  EXPECT_EQ(url->origin(), "https://example.com:8443");
}

TEST(Url, FillsInPortAndPath) {
  EXPECT_EQ(Url::parse("http://h")->port, 80);
  EXPECT_EQ(Url::parse("https://h")->port, 443);
  EXPECT_EQ(Url::parse("http://h")->path, "/");
  EXPECT_EQ(Url::parse("http://h?q")->path, "/?q");
  EXPECT_EQ(Url::parse("http://h:/")->port, 80);
}

TEST(Url, ReadsIpv6Literals) {
  const auto url = Url::parse("http://[::1]:81/x");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->origin(), "http://[::1]:81");
  EXPECT_TRUE(url->is_loopback());
}

TEST(Url, TellsCredentialsApartFromTheHost) {
  const auto url = Url::parse("http://127.0.0.1:80@evil.example/");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host, "evil.example");
  EXPECT_EQ(url->user_info, "127.0.0.1:80");
}

class RefusedUrl : public testing::TestWithParam<std::string> {};
TEST_P(RefusedUrl, IsNothing) {
  EXPECT_FALSE(Url::parse(GetParam()));
}
INSTANTIATE_TEST_SUITE_P(
    Url, RefusedUrl,
    testing::Values("", "h", "/x", "//h/x", "ftp://h/", "file:///etc/passwd", "javascript://h/",
                    "http:/h", "http://", "http:///x", "http://:80/", "http://h:0/",
                    "http://h:65536/", "http://h:-1/", "http://h:8o/", "http://a b/",
                    "http://a/b c", "http://a\r\nb/", "http://h/\x7f", "http://h\\@g/",
                    "http://a@b@c/", "http://[::1/", "http://[x]/", "http://[::1]x/",
                    "http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://1.2.3.4.5/",
                    "http://-h/", "http://.h/", "http://h%2f/", "http://h\xc3\xa9/"));

TEST(Url, KnowsLoopback) {
  for (const char* text :
       {"http://localhost/", "http://127.0.0.1/", "http://127.8.8.8/", "http://LOCALHOST"}) {
    EXPECT_TRUE(Url::parse(text)->is_loopback()) << text;
  }
  for (const char* text : {"http://localhost.example/", "http://128.0.0.1/", "http://10.0.0.1/",
                           "http://127.0.0.1.example/", "http://[::2]/"}) {
    EXPECT_FALSE(Url::parse(text)->is_loopback()) << text;
  }
}

TEST(ReasonPhrase, IsNeverEmpty) {
  for (int status = 100; status < 600; ++status) EXPECT_FALSE(reason_phrase(status).empty());
  EXPECT_EQ(reason_phrase(413), "Content Too Large");
}

}  // namespace
}  // namespace necrocode::net
