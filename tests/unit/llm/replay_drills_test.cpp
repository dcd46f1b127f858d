// How answers go wrong in drills, whole and streamed, in each dialect.
#include "unit/llm/replay_fixture.hpp"

namespace necrocode::llm {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kChat = "/v1/chat/completions";

// A server whose every answer of "abcdef" goes wrong in this way.
test::Replay drilled(const std::string& rule) {
  return test::Replay(R"([{"times":0,"answer":{"content":"abcdef","chunk":1}}])",
                      "[{" + rule + "}]");
}

net::TransportFailure failure_of(const test::Replay& replay, const std::string& path) {
  try {
    ADD_FAILURE() << path << ": " << replay.post(path, "x").body;
  } catch (const net::TransportError& error) {
    return error.failure();
  }
  return net::TransportFailure::kInvalid;
}

TEST(Drill, OfAnEntryThenMisbehavesAsBefore) {
  test::Replay replay(R"([{"match":{"contains":["html"]},"answer":{"drill":"html"}},
    {"match":{"contains":["garbage"]},"answer":{"drill":"garbage"}},
    {"match":{"contains":["cut"]},"times":0,"answer":{"drill":"cut"}},
    {"match":{"contains":["stall"]},"answer":{"drill":"stall","seconds":0.05}}])");
  EXPECT_THAT(replay.post(kChat, "html").body, HasSubstr("<!doctype html>"));
  EXPECT_FALSE(Json::try_parse(replay.post(kChat, "garbage").body));
  EXPECT_EQ(replay.post(kChat, "stall").status, 504);
  EXPECT_THROW(replay.post(kChat, "cut"), net::TransportError);
  const auto stream = replay.stream(kChat, "cut");
  EXPECT_NE(stream.broken, "");
  EXPECT_GT(stream.data.size(), 1u) << "a drill without an answer has one of its own to break";
}

TEST(Drill, CutAndResetThenTheConnectionClosesInEachDialect) {
  const test::Replay cut = drilled(R"("drill":"cut")");
  const test::Replay reset = drilled(R"("drill":"reset")");
  for (const std::string& path : test::kModelPaths) {
    EXPECT_EQ(failure_of(cut, path), net::TransportFailure::kReset);
    EXPECT_EQ(failure_of(reset, path), net::TransportFailure::kReset);
    const auto stream = cut.stream(path, "x");
    EXPECT_NE(stream.broken, "");
    EXPECT_GE(stream.data.size(), 3u);
    EXPECT_NE(stream.bytes.substr(stream.bytes.size() - 2), "\n\n") << "in the middle of an event";
    const auto nothing = reset.stream(path, "x");
    EXPECT_NE(nothing.broken, "");
    EXPECT_EQ(nothing.bytes, "");
  }
}

TEST(Drill, AfterSoManyPiecesThenThereItHappens) {
  const auto cut = drilled(R"("drill":"cut","after":3)").stream(kChat, "x");
  EXPECT_EQ(cut.data.size(), 3u);
  EXPECT_EQ(drilled(R"("drill":"reset","after":2)").stream(kChat, "x").data.size(), 2u);
  const auto beyond = drilled(R"("drill":"cut","after":1000)").stream(kChat, "x");
  EXPECT_EQ(beyond.data.back(), Json("[DONE]"));
  EXPECT_NE(beyond.broken, "");
}

TEST(Drill, TruncateThenTheEndIsCleanButNotTheAnswers) {
  const test::Replay replay = drilled(R"("drill":"truncate")");
  for (const std::string& path : test::kModelPaths) {
    const auto stream = replay.stream(path, "x");
    EXPECT_EQ(stream.broken, "");
    EXPECT_GE(stream.data.size(), 3u);
    for (const char* end : {"[DONE]", "finish_reason\":\"", "response.completed", "message_stop"}) {
      EXPECT_THAT(stream.bytes, Not(HasSubstr(end)));
    }
    const net::HttpResponse whole = replay.post(path, "x");
    EXPECT_EQ(whole.status, 200);
    EXPECT_FALSE(whole.body.empty());
    EXPECT_FALSE(Json::try_parse(whole.body));
  }
}

TEST(Drill, StallInTheMiddleThenSilenceAndThenTheRest) {
  const test::Replay replay = drilled(R"("drill":"stall","after":2,"seconds":0.05)");
  for (const std::string& path : test::kModelPaths) {
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(replay.stream(path, "x").broken, "");
    EXPECT_TRUE(Json::try_parse(replay.post(path, "x").body));
    EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(100));
  }
}

TEST(Drill, GarbageInTheMiddleThenAnEventThatIsNoJson) {
  const test::Replay replay = drilled(R"("drill":"garbage","after":2)");
  for (const std::string& path : test::kModelPaths) {
    const auto stream = replay.stream(path, "x");
    EXPECT_EQ(stream.broken, "");
    EXPECT_THAT(stream.data.at(2).string_or(""), testing::StartsWith("{]garbage"));
    EXPECT_FALSE(Json::try_parse(replay.post(path, "x").body));
  }
}

TEST(Drill, RateLimitThenA429InTheDialectsShapeWithItsHint) {
  const test::Replay replay = drilled(R"("drill":"rate_limit","retry_after":1.5)");
  for (const std::string& path : test::kModelPaths) {
    const net::HttpResponse answer = replay.post(path, "x");
    EXPECT_EQ(answer.status, 429);
    EXPECT_EQ(answer.headers.get("Retry-After"), "2");
    EXPECT_EQ(answer.headers.get("retry-after-ms"), "1500");
    EXPECT_EQ(Json::parse(answer.body)["error"]["type"], Json("rate_limit_error"));
  }
  const auto whole = drilled(R"("drill":"rate_limit","retry_after":2)").post(kChat, "x");
  EXPECT_EQ(whole.headers.get("Retry-After"), "2");
  EXPECT_FALSE(whole.headers.get("retry-after-ms"));
}

TEST(Drill, ErrorThenItsStatusOrAnEventInTheMiddle) {
  for (const std::string& path : test::kModelPaths) {
    const auto answer = drilled(R"("drill":"error","status":529)").post(path, "x");
    EXPECT_EQ(answer.status, 529);
    EXPECT_EQ(Json::parse(answer.body)["error"]["type"],
              Json(path == "/v1/messages" ? "overloaded_error" : "server_error"));
    EXPECT_EQ(drilled(R"("drill":"error")").post(path, "x").status, 500);
    const auto stream = drilled(R"("drill":"error","after":3)").stream(path, "x");
    EXPECT_EQ(stream.broken, "");
    ASSERT_EQ(stream.data.size(), 4u);
    const Json& last = stream.data.back();
    EXPECT_EQ(stream.names.back(), path == kChat ? "" : "error");
    EXPECT_THAT(last.dump(), HasSubstr("replay drill: an error"));
    EXPECT_EQ(last["error"].is_object(), path != "/v1/responses");
  }
}

TEST(Drill, KeepAliveThenSignsOfLifeAndNoProgress) {
  const test::Replay replay = drilled(R"("drill":"keepalive","seconds":0.25)");
  for (const std::string& path : test::kModelPaths) {
    const auto stream = replay.stream(path, "x");
    EXPECT_NE(stream.broken, "");
    EXPECT_FALSE(stream.bytes.empty());
    for (const std::string& name : stream.names) EXPECT_EQ(name, "ping");
    EXPECT_EQ(failure_of(replay, path), net::TransportFailure::kReset);
  }
}

}  // namespace
}  // namespace necrocode::llm
