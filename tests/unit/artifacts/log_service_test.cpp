// Logs over real HTTP: begun, appended to, followed and sealed.
#include <gmock/gmock.h>
#include <sys/socket.h>

#include <fstream>

#include "necrocode/artifacts/log_feeds.hpp"
#include "necrocode/base/digest.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "support/eventually.hpp"
#include "support/memory_counts.hpp"
#include "support/raw_client.hpp"
#include "unit/artifacts/running_service.hpp"

namespace necrocode::artifacts {
namespace {

using namespace std::chrono_literals;
using test::RawClient;
using testing::HasSubstr;
using testing::Not;

constexpr std::string_view kEnd = "0\r\n\r\n";  // of a chunked body

Json json(const net::HttpResponse& response) {
  return Json::try_parse(response.body).value_or(Json());
}

class LogService : public testing::Test {
 protected:
  std::string open(const std::string& more = "") {
    const auto answer = service_.send("POST", "/artifacts/logs", {},
                                      R"({"type":"log","metadata":{"task_id":"a:1","name":"l",)"
                                      R"("mime_type":"text/plain"})" +
                                          more + "}");
    EXPECT_EQ(answer.status, 201) << answer.body;
    return "/artifacts/" + json(answer)["id"].string_or("");
  }
  net::HttpResponse append(const std::string& log, const std::string& offset,
                           const std::string& bytes, const std::string& step = "append") {
    return service_.send("POST", log + "/" + step + "?offset=" + offset, {}, bytes);
  }
  RawClient follow(const std::string& log, const std::string& more = "") {
    RawClient client(service_.port());
    client.send("GET " + log + "?follow=1" + more + " HTTP/1.1\r\nHost: a\r\n\r\n");
    return client;
  }

  RunningService service_;
};

TEST_F(LogService, GrowsUnderItsUriAndIsAnArtifactOnceSealed) {
  const auto made = service_.send("POST", "/artifacts/logs", {}, R"({"type":"log"})");
  ASSERT_EQ(made.status, 201) << made.body;
  EXPECT_EQ(json(made)["sealed"], Json(false));
  EXPECT_EQ(json(made)["size_bytes"], Json(0));
  EXPECT_FALSE(json(made).find("sha256"));
  const std::string uri = json(made)["uri"].string_or("");
  EXPECT_EQ(made.headers.get_or("Location", ""), uri);
  const std::string log = uri.substr(service_.url().size());

  EXPECT_EQ(append(log, "0", "hello ").body, R"({"size_bytes":6})");
  EXPECT_EQ(append(log, "6", "world").body, R"({"size_bytes":11})");
  const auto growing = service_.send("GET", uri);
  EXPECT_EQ(growing.status, 200);
  EXPECT_EQ(growing.body, "hello world");
  EXPECT_EQ(growing.headers.get_or("Content-Length", ""), "11");
  EXPECT_EQ(growing.headers.get_or("Cache-Control", ""), "no-store");
  for (const char* name : {"ETag", "Repr-Digest", "Content-Digest"}) {
    EXPECT_FALSE(growing.headers.get(name)) << name;
  }
  EXPECT_EQ(service_.send("GET", uri, {{"If-None-Match", "*"}}).status, 200);
  const auto part = service_.send("GET", uri, {{"Range", "bytes=6-8"}});
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, "wor");
  EXPECT_EQ(part.headers.get_or("Content-Range", ""), "bytes 6-8/11");
  EXPECT_EQ(json(service_.send("GET", "/artifacts"))["items"].items().front()["size_bytes"],
            Json(11));

  const auto sealed = append(log, "11", "!", "seal");
  EXPECT_EQ(sealed.status, 200);
  EXPECT_EQ(json(sealed)["sealed"], Json(true));
  EXPECT_EQ(json(sealed)["uri"], Json(uri));
  EXPECT_EQ(json(sealed)["sha256"], Json(sha256_hex("hello world!")));
  const auto whole = service_.send("GET", uri);
  EXPECT_EQ(whole.body, "hello world!");
  EXPECT_EQ(whole.headers.get_or("ETag", ""), "\"" + sha256_hex("hello world!") + "\"");
  EXPECT_EQ(append(log, "11", "!", "seal").body, sealed.body) << "told again";
  EXPECT_EQ(service_.send("GET", "/artifacts/metadata?uri=" + percent_encode(uri)).body,
            sealed.body);
}

TEST_F(LogService, WhatCannotBeAppendedIsRefused) {
  const std::string log = open();
  append(log, "0", "hello");
  for (const char* offset : {"-1", "", "x", "1.5", "9223372036854775808", "0x1"}) {
    EXPECT_EQ(append(log, offset, "x").status, 422) << offset;
    EXPECT_EQ(append(log, offset, "x", "seal").status, 422) << offset;
  }
  EXPECT_EQ(service_.send("POST", log + "/append", {}, "x").status, 422);
  for (const char* step : {"append", "seal"}) {
    const auto gap = append(log, "9223372036854775807", "x", step);
    EXPECT_EQ(gap.status, 409);
    EXPECT_THAT(gap.body, HasSubstr("the log has 5 bytes"));
    EXPECT_EQ(append(log, "0", "HELLO", step).status, 409);
    EXPECT_EQ(append("/artifacts/nothing", "0", "x", step).status, 404);
    EXPECT_EQ(
        service_.send("POST", log + "/" + step + "?offset=5", {{"Content-Encoding", "gzip"}}, "x")
            .status,
        415);
  }
  EXPECT_EQ(append(log, "5", std::string(limits::kHttpRequestBodyBytes + 1, 'x')).status, 413);
  EXPECT_EQ(service_.send("GET", log).body, "hello");
  EXPECT_EQ(append(log, "5", "", "seal").status, 200);
  const auto late = append(log, "5", "x");
  EXPECT_EQ(late.status, 409);
  EXPECT_THAT(late.body, HasSubstr("sealed, with 5 bytes"));
}

TEST_F(LogService, WhatCannotBeBegunIsRefused) {
  for (const char* body :
       {R"({})", R"({"type":"../x"})", R"({"type":"log","lease_seconds":0})",
        R"({"type":"log","lease_seconds":3601})", R"({"type":"log","metadata":[]})",
        R"({"type":"log","metadata":{"tags":[""]}})"}) {
    EXPECT_EQ(service_.send("POST", "/artifacts/logs", {}, body).status, 422) << body;
  }
  EXPECT_EQ(service_.send("POST", "/artifacts/logs", {}, "{").status, 400);
  const net::Headers key{{"Idempotency-Key", "k"}};
  const auto first = service_.send("POST", "/artifacts/logs", key, R"({"type":"log"})");
  EXPECT_EQ(service_.send("POST", "/artifacts/logs", key, R"({"type":"log"})").body, first.body);
  EXPECT_EQ(service_.send("POST", "/artifacts/logs", key, R"({"type":"diff"})").status, 422);
}

TEST_F(LogService, FollowedThenWhatIsAppendedComesUntilTheSeal) {
  const std::string log = open();
  append(log, "0", "one ");
  RawClient client = follow(log);
  EXPECT_THAT(client.read_until("one "), HasSubstr("Content-Type: text/plain"));
  append(log, "4", "two ");
  EXPECT_THAT(client.read_until("two "), Not(HasSubstr(kEnd)));
  append(log, "8", "three", "seal");
  EXPECT_EQ(client.read_until(kEnd), "\r\n5\r\nthree\r\n" + std::string(kEnd));
  EXPECT_EQ(client.call("GET " + log + " HTTP/1.1\r\nHost: a\r\n\r\n").body, "one two three")
      << "the connection goes on";
}

TEST_F(LogService, FollowedFromAnOffsetThenOnlyTheRestAlsoOfWhatIsSealed) {
  const std::string log = open();
  append(log, "0", "hello");
  EXPECT_EQ(service_.send("GET", log + "?follow=1&offset=6").status, 416);
  RawClient waiting = follow(log, "&offset=5");
  append(log, "5", " world", "seal");
  EXPECT_EQ(waiting.read_answer().body, " world");
  const auto rest = service_.send("GET", log + "?follow=1&offset=6");
  EXPECT_EQ(rest.body, "world");
  EXPECT_FALSE(rest.headers.get("ETag"));
  EXPECT_EQ(service_.send("GET", log + "?follow=1&offset=11").body, "");
  EXPECT_EQ(service_.send("GET", log + "?follow=2").status, 422);
  EXPECT_EQ(service_.send("GET", log + "?follow=1&wait_seconds=301").status, 422);
}

TEST_F(LogService, FollowedThroughSilenceThenTheAnswerEndsAfterTheWait) {
  const std::string log = open();
  append(log, "0", "hello");
  const auto answer = service_.send("GET", log + "?follow=1&wait_seconds=1");
  EXPECT_EQ(answer.body, "hello");
}

TEST_F(LogService, RemovedOrReplacedWhileFollowedThenTheAnswerIsCutOff) {
  const auto remove = [&](const std::string& log) { service_.send("DELETE", log); };
  const auto replace = [&](const std::string&) {
    service_.send("PUT", "/artifacts/a/1/log/l", {}, "whole");
  };
  for (const auto& end : {std::function<void(const std::string&)>(remove),
                          std::function<void(const std::string&)>(replace)}) {
    const std::string log = open();
    RawClient client = follow(log);
    append(log, "0", "hello");
    client.read_until("hello");
    end(log);
    EXPECT_EQ(client.read_until("never"), "\r\n") << "no end of the body";
  }
}

TEST_F(LogService, NobodyAppendsForItsLeaseThenItIsSealedByItself) {
  const std::string log = open(R"(,"lease_seconds":1)");
  append(log, "0", "hello");
  RawClient client = follow(log);
  const auto answer = client.read_answer();
  EXPECT_TRUE(answer.whole);
  EXPECT_EQ(answer.body, "hello");
  EXPECT_EQ(append(log, "5", "x").status, 409);
}

// The size of the rest of the connection, which is not kept.
std::size_t drain(const RawClient& client) {
  std::string piece(limits::kMiB, '\0');
  std::size_t size = 0;
  for (ssize_t got = 0; (got = ::recv(client.fd(), piece.data(), piece.size(), 0)) > 0;) {
    size += static_cast<std::size_t>(got);
  }
  return size;
}

std::uint64_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::uint64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * limits::kKiB;
  }
  return 0;
}

// All are slow until they read; one never does.
TEST_F(LogService, FiftyFollowersOneStalledThenTheOthersGetAllAtFlatMemory) {
  constexpr std::size_t kPiece = 512 * limits::kKiB;
  constexpr std::size_t kPieces = 24;
  const std::string log = open();
  std::vector<RawClient> followers;
  for (int n = 0; n < 50; ++n) {
    followers.emplace_back(service_.port());
    followers.back().send("GET " + log +
                          "?follow=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  }
  for (RawClient& follower : followers) follower.read_until("\r\n\r\n");
  const std::string piece(kPiece, 'x');
  append(log, "0", piece);
  std::ofstream("/proc/self/clear_refs") << "5";  // forgets the peak
  const std::uint64_t before = peak_memory();
  for (std::size_t n = 1; n < kPieces; ++n) {
    EXPECT_EQ(append(log, std::to_string(n * kPiece), piece).status, 200);
  }
  append(log, std::to_string(kPieces * kPiece), "", "seal");
  for (std::size_t n = 1; n < followers.size(); ++n) {
    EXPECT_GE(drain(followers[n]), kPieces * kPiece);
  }
  // Of 600 MiB that are sent. What is on its way at once depends on the threads' turns: a piece of
  // 64 KiB for each of 50 followers, an append of 512 for each of 8 handlers, and as much again in
  // the allocator. Held for every follower, the log alone would be ten times the limit.
  const std::uint64_t growth = peak_memory() - before;
  EXPECT_TRUE(!test::kMemoryCounts || growth < 60 * limits::kMiB) << growth;
}

TEST(LogFeeds, TooManyThenRefusedUntilOneEnds) {
  const TemporaryDirectory folder;
  FilesystemArtifactStore store(folder.path() / "artifacts");
  LogFeeds feeds(store);
  ArtifactDraft draft;
  draft.type = "log";
  const ArtifactId id = store.open_log(draft, kLogLease).id;
  std::vector<std::shared_ptr<net::FeedBody>> open;
  for (std::size_t n = 0; n < kLogFeeds; ++n) open.push_back(feeds.open(id, 0, std::nullopt));
  EXPECT_THROW(feeds.open(id, 0, std::nullopt), net::HttpError);
  open.pop_back();
  EXPECT_NO_THROW(feeds.open(id, 0, std::nullopt));
}

}  // namespace
}  // namespace necrocode::artifacts
