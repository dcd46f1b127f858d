// Cassettes and the server that plays them, over real sockets.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/llm/replay.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::llm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> defects(std::string_view text) {
  try {
    Cassette::parse(text);
  } catch (const ConfigError& error) {
    std::vector<std::string> lines;
    for (const FieldError& field : error.info().fields)
      lines.push_back(field.pointer + ": " + field.message);
    if (lines.empty()) lines.push_back(error.what());
    return lines;
  }
  return {};
}

TEST(Cassette, AllFormsOfAnswersAreRead) {
  const Cassette cassette = Cassette::parse(R"({"version":1,"entries":[
    {"match":{"model":"m","contains":["a","b"],"not_contains":["c"]},"times":2,
     "answer":{"content":"hello","usage":{"prompt_tokens":3,"completion_tokens":4},
               "finish_reason":"length","model":"m2"}},
    {"answer":{"content":"x","usage":null},"times":0},
    {"answer":{"status":429,"headers":{"Retry-After":"1"},"body":{"error":{"message":"slow"}}}},
    {"answer":{"status":502,"body":"plain"}},
    {"answer":{"drill":"stall","seconds":2.5}},
    {"answer":{"drill":"reset"}},{"answer":{"drill":"cut"}},
    {"answer":{"drill":"garbage"}},{"answer":{"drill":"html"}}]})");
  ASSERT_EQ(cassette.entries.size(), 9u);
  const CassetteEntry& first = cassette.entries[0];
  EXPECT_EQ(first.match.model, "m");
  EXPECT_THAT(first.match.contains, ElementsAre("a", "b"));
  EXPECT_THAT(first.match.not_contains, ElementsAre("c"));
  EXPECT_EQ(first.times, 2);
  const auto& completion = std::get<CompletionAnswer>(first.answer);
  EXPECT_EQ(completion.finish_reason, "length");
  EXPECT_EQ(completion.model, "m2");
  EXPECT_EQ(cassette.entries[1].times, 0);
  EXPECT_TRUE(std::get<CompletionAnswer>(cassette.entries[1].answer).usage.value().is_null());
  EXPECT_EQ(cassette.entries[2].times, 1);
  const auto& raw = std::get<RawAnswer>(cassette.entries[2].answer);
  EXPECT_EQ(raw.headers.get("retry-after"), "1");
  EXPECT_EQ(raw.headers.get("content-type"), "application/json");
  EXPECT_EQ(raw.body, R"({"error":{"message":"slow"}})");
  EXPECT_EQ(std::get<RawAnswer>(cassette.entries[3].answer).body, "plain");
  EXPECT_EQ(std::get<DrillAnswer>(cassette.entries[4].answer).seconds, 2.5);
  EXPECT_EQ(std::get<DrillAnswer>(cassette.entries[8].answer).drill, Drill::kHtml);
}

TEST(Cassette, DefectsAreNamedAllAtOnce) {
  EXPECT_THAT(
      defects(R"({"version":2,"more":1,"entries":[
        {"match":{"contain":["x"],"contains":"y"},"answer":{"content":"x"}},
        {"answer":{}},{"times":-1,"answer":{"content":7}},{"answer":{"drill":"explode"}},
        {"answer":{"status":99,"headers":{"A":"b\r\nc"}}},{"answr":{}},7,
        {"answer":{"content":"x","status_code":1}},{"answer":{"drill":"cut","times":1}}]})"),
      ElementsAre("/version: must be between 1 and 1, is 2", "/more: unknown key",
                  "/entries/0/match/contains: must be an array, not a string",
                  "/entries/0/match/contain: unknown key",
                  "/entries/1/answer: must have content, status or drill",
                  "/entries/2/times: must be between 0 and 9223372036854775807, is -1",
                  "/entries/2/answer/content: must be a string, not an integer",
                  "/entries/3/answer/drill: must be stall, reset, cut, garbage or html",
                  "/entries/4/answer/status: must be between 200 and 599, is 99",
                  "/entries/4/answer/headers: \"A\" is not a header field with a string as value",
                  "/entries/5/answr: unknown key", "/entries/5/answer: must be an object, not null",
                  "/entries/6: must be an object, not an integer",
                  "/entries/7/answer/status_code: unknown key",
                  "/entries/8/answer/times: unknown key"));
  EXPECT_THAT(defects("{}"), ElementsAre("/version: is required", "/entries: is required"));
  EXPECT_THAT(defects("[]"), ElementsAre(HasSubstr("must be an object")));
  EXPECT_THAT(defects("{\"version\":1,"), ElementsAre(HasSubstr("cassette is not valid JSON")));
}

TEST(Cassette, FileIsLoadedAndAMissingOneIsAStorageError) {
  const TemporaryDirectory folder;
  write_file_atomic(folder.path() / "c.json", R"({"version":1,"entries":[]})");
  EXPECT_TRUE(Cassette::load(folder.path() / "c.json").entries.empty());
  EXPECT_THROW(Cassette::load(folder.path() / "none.json"), StorageError);
}

TEST(Cassette, TheDemosCassetteLoads) {
  const Cassette cassette = Cassette::load(NECROCODE_SOURCE_DIR "/demo/cassette.json");
  EXPECT_GE(cassette.entries.size(), 6u);
}

struct Replay {
  explicit Replay(std::string_view entries)
      : server(Cassette::parse(R"({"version":1,"entries":)" + std::string(entries) + "}")) {
    server.start();
  }
  net::HttpResponse ask(const std::string& content, const std::string& model = "gpt-4") {
    net::HttpRequest request;
    request.method = "POST";
    request.url = server.url() + "/chat/completions";
    request.headers.set("Content-Type", "application/json");
    const Json message = Json::object({{"role", "user"}, {"content", content}});
    request.body =
        Json::object({{"model", model}, {"messages", Json(Json::Array{message})}}).dump();
    return http->send(request, {});
  }
  std::string content(const std::string& question, const std::string& model = "gpt-4") {
    return Json::parse(ask(question, model).body)["choices"]
        .items()
        .at(0)["message"]["content"]
        .string_or("?");
  }
  net::HttpResponse send(const std::string& method, const std::string& path,
                         const std::string& body = {}) {
    net::HttpRequest request;
    request.method = method;
    request.url = server.url() + path;
    request.body = body;
    return http->send(request, {});
  }
  ReplayServer server;
  std::shared_ptr<net::HttpClient> http = net::make_curl_http_client();
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

TEST(ReplayServer, DrillsMisbehave) {
  Replay replay(R"([{"match":{"contains":["html"]},"answer":{"drill":"html"}},
    {"match":{"contains":["garbage"]},"answer":{"drill":"garbage"}},
    {"match":{"contains":["cut"]},"answer":{"drill":"cut"}},
    {"match":{"contains":["reset"]},"answer":{"drill":"reset"}},
    {"match":{"contains":["stall"]},"answer":{"drill":"stall","seconds":0.05}}])");
  EXPECT_THAT(replay.ask("html").body, HasSubstr("<!doctype html>"));
  EXPECT_FALSE(Json::try_parse(replay.ask("garbage").body));
  for (const char* drill : {"cut", "reset"}) {
    try {
      replay.ask(drill);
      ADD_FAILURE() << drill;
    } catch (const net::TransportError& error) {
      EXPECT_EQ(error.failure(), net::TransportFailure::kReset) << error.what();
    }
  }
  EXPECT_EQ(replay.ask("stall").status, 504);
}

TEST(ReplayServer, RequestsItCannotReadAreRefusedInOpenAisShape) {
  Replay replay(R"([{"answer":{"content":"x"}}])");
  for (const char* body :
       {"", "[]", "{\"messages\":[", "{}", R"({"messages":"x"})", R"({"messages":[]})",
        R"({"stream":true,"messages":[{"role":"user","content":"x"}]})"}) {
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
  const std::string url = replay.server.url();
  net::HttpRequest request;
  request.url = url.substr(0, url.size() - 3) + "/health";
  EXPECT_EQ(Json::parse(replay.http->send(request, {}).body)["status"], Json("ok"));
  EXPECT_EQ(Json::parse(Replay("[]").send("GET", "/models").body)["data"].items().at(0)["id"],
            Json("replay"));
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
