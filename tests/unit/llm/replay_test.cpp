// The replay server's choice of answers, as Chat Completions, over real sockets.
#include <atomic>
#include <thread>

#include "unit/llm/replay_fixture.hpp"

namespace necrocode::llm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Replay : test::Replay {
  using test::Replay::Replay;
  net::HttpResponse ask(const std::string& content, const std::string& model = "gpt-4") const {
    return post("/v1/chat/completions", content, model);
  }
  std::string content(const std::string& question, const std::string& model = "gpt-4") const {
    return Json::parse(ask(question, model).body)["choices"]
        .items()
        .at(0)["message"]["content"]
        .string_or("?");
  }
  net::HttpResponse send(const std::string& method, const std::string& path,
                         const std::string& body = {}) const {
    return test::send(method, server.url() + path, body);
  }
};

TEST(ReplayServer, AnswersInTheShapeOfOpenAi) {
  Replay replay(R"([{"answer":{"content":"hello"}}])");
  const net::HttpResponse answer = replay.ask("four");
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.headers.get_or("Content-Type", ""), HasSubstr("application/json"));
  const Json body = Json::parse(answer.body);
  EXPECT_EQ(body["object"], Json("chat.completion"));
  EXPECT_THAT(body["id"].string_or(""), testing::StartsWith("chatcmpl-"));
  EXPECT_TRUE(body["created"].is_int());
  EXPECT_EQ(body["model"], Json("gpt-4"));
  EXPECT_EQ(body["choices"].dump(),
            R"([{"index":0,"message":{"role":"assistant","content":"hello","refusal":null},)"
            R"("logprobs":null,"finish_reason":"stop"}])");
  EXPECT_EQ(body["usage"].dump(), R"({"prompt_tokens":1,"completion_tokens":2,"total_tokens":3})");
}

TEST(ReplayServer, FirstUnexhaustedMatchInFileOrderAnswers) {
  Replay replay(R"([
    {"match":{"contains":["tree"],"not_contains":["failed"]},"times":2,
     "answer":{"content":"first"}},
    {"match":{"contains":["tree"]},"answer":{"content":"second"}},
    {"match":{"model":"m2"},"times":0,"answer":{"content":"third","model":"m2-0613"}}])");
  EXPECT_EQ(replay.content("a tree"), "first");
  EXPECT_EQ(replay.content("a tree failed"), "second");
  EXPECT_EQ(replay.content("a tree"), "first");
  EXPECT_EQ(replay.ask("a tree").status, 400);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(replay.content("a tree", "m2"), "third");
  std::vector<std::string> served;
  for (const ReplayRecord& record : replay.server.served()) {
    served.push_back(std::to_string(record.entry) + " " + record.model + " " +
                     std::to_string(record.time));
  }
  EXPECT_THAT(served,
              ElementsAre("0 gpt-4 1", "1 gpt-4 1", "0 gpt-4 2", "2 m2 1", "2 m2 2", "2 m2 3"));
}

TEST(ReplayServer, NoMatchNamesTheNearestEntryAndWhatItLacks) {
  Replay replay(R"([
    {"match":{"contains":["one","two","three"]},"answer":{"content":"x"}},
    {"match":{"model":"other"},"answer":{"content":"x"}},
    {"match":{"contains":["gone"]},"answer":{"content":"x"}}])");
  const net::HttpResponse answer = replay.ask("one two");
  EXPECT_EQ(answer.status, 400);
  const Json error = Json::parse(answer.body)["error"];
  EXPECT_EQ(error["type"], Json("invalid_request_error"));
  EXPECT_THAT(error["message"].string_or(""),
              HasSubstr("the nearest is entry 0: the messages lack \"three\""));
  EXPECT_EQ(replay.content("gone"), "x");
  EXPECT_THAT(replay.ask("gone").body,
              HasSubstr("entry 2: it matches, but has given its 1 answer(s)"));
  EXPECT_THAT(Replay("[]").ask("x").body, HasSubstr("the cassette is empty"));
}

TEST(ReplayServer, RawAnswersGoOutAsTheyAre) {
  Replay replay(
      R"([{"answer":{"status":429,"headers":{"Retry-After":"7"},"body":{"error":{"code":"x"}}}}])");
  const net::HttpResponse answer = replay.ask("x");
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(answer.headers.get("Retry-After"), "7");
  EXPECT_EQ(answer.body, R"({"error":{"code":"x"}})");
}

TEST(ReplayServer, RequestsItCannotReadAreRefusedInOpenAisShape) {
  Replay replay(R"([{"answer":{"content":"x"}}])");
  for (const char* body :
       {"", "[]", "{\"messages\":[", "{}", R"({"messages":"x"})", R"({"messages":[]})"}) {
    const net::HttpResponse answer = replay.send("POST", "/chat/completions", body);
    EXPECT_EQ(answer.status, 400) << body;
    EXPECT_TRUE(Json::parse(answer.body)["error"]["message"].is_string()) << answer.body;
  }
  EXPECT_TRUE(replay.server.served().empty());
  // Content as a list of parts is read.
  EXPECT_EQ(replay
                .send("POST", "/chat/completions",
                      R"({"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]})")
                .status,
            200);
}

TEST(ReplayServer, ModelsAndHealthAreAnswered) {
  Replay replay(
      R"([{"match":{"model":"b"},"answer":{"content":"x"}},
          {"match":{"model":"a"},"answer":{"content":"x"}}])");
  const Json models = Json::parse(replay.send("GET", "/models").body);
  ASSERT_EQ(models["data"].size(), 2u);
  EXPECT_EQ(models["data"].items()[0]["id"], Json("a"));
  const std::string health = test::send("GET", replay.url("/health")).body;
  EXPECT_EQ(Json::parse(health)["status"], Json("ok"));
  EXPECT_EQ(Json::parse(Replay("[]").send("GET", "/models").body)["data"].items().at(0)["id"],
            Json("replay"));
}

TEST(ReplayServer, RuleThatIsDueThenTakesTheEntrysPlaceAndUsesUpNothing) {
  Replay replay(R"([{"match":{"contains":["tree"]},"times":2,"answer":{"content":"leaf"}}])",
                R"([{"match":{"contains":["tree"]},"every":2,"drill":"rate_limit"}])");
  EXPECT_EQ(replay.content("a tree"), "leaf");
  EXPECT_EQ(replay.ask("a tree").status, 429);
  EXPECT_EQ(replay.content("a tree"), "leaf");
  EXPECT_EQ(replay.ask("a tree").status, 400) << "used up: no rule helps";
  std::vector<std::string> served;
  for (const ReplayRecord& record : replay.server.served()) {
    served.push_back(record.drill + std::to_string(record.time));
  }
  EXPECT_THAT(served, ElementsAre("1", "rate_limit0", "2"));
}

TEST(ReplayServer, RuleWithTimesThenNoMoreThanThose) {
  Replay replay(R"([{"times":0,"answer":{"content":"x"}}])",
                R"([{"drill":"error","status":503,"times":2},{"drill":"rate_limit","every":4}])");
  std::vector<int> statuses;
  for (int i = 0; i < 8; ++i) statuses.push_back(replay.ask("x").status);
  EXPECT_THAT(statuses, ElementsAre(503, 503, 200, 429, 200, 200, 200, 429));
}

TEST(ReplayServer, TimesHoldUnderManyThreads) {
  Replay replay(R"([{"times":20,"answer":{"content":"x"}}])");
  std::atomic<int> answered = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        for (int n = 0; n < 5; ++n) answered += replay.ask("x").status == 200 ? 1 : 0;
      });
    }
  }
  EXPECT_EQ(answered, 20);
  EXPECT_EQ(replay.server.served().size(), 20u);
}

}  // namespace
}  // namespace necrocode::llm
