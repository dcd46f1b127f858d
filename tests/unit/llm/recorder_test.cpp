// The recording proxy in front of replay servers and raw sockets; and what is recorded, replayed.
#include "necrocode/llm/recorder.hpp"

#include <future>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/llm/recorded_answer.hpp"
#include "support/eventually.hpp"
#include "support/raw_client.hpp"
#include "support/raw_server.hpp"
#include "unit/llm/replay_fixture.hpp"

namespace necrocode::llm {
namespace {

using test::ask;
using test::kModelPaths;
using test::RawConnection;
using test::RawServer;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kKey = "the-real-key-0123456789";

class RecorderTest : public testing::Test {
 protected:
  void record(const std::string& endpoint, const std::string& key = kKey,
              std::string_view known_secret = kKey) {
    const Secret secret(known_secret);
    RecorderOptions options;
    options.endpoint = endpoint;
    options.api_key = Secret(key);
    options.out = out();
    options.masker = std::make_shared<const Masker>(std::vector<const Secret*>{&secret});
    options.http = net::make_curl_http_client();
    recorder_ = std::make_unique<Recorder>(std::move(options));
    recorder_->start();
  }
  std::filesystem::path out() const { return folder_.path() / "recorded.json"; }
  std::string url(const std::string& path) const {
    const std::string endpoint = recorder_->url();
    return endpoint.substr(0, endpoint.size() - 3) + path;
  }
  net::HttpResponse post(const std::string& path, const std::string& text,
                         net::Headers headers = {{"Authorization", "Bearer dummy"}}) const {
    return test::send("POST", url(path), ask(path, text), std::move(headers));
  }
  Cassette recorded() const { return Cassette::load(out()); }
  std::string file() const { return read_file(out(), limits::kCassetteBytes); }

  TemporaryDirectory folder_;
  std::unique_ptr<Recorder> recorder_;
};

// Of a service's answer: its body without what is new each time.
std::string steady(std::string text) {
  for (const char* name : {"\"id\":\"", "item_id\":\""}) {
    std::size_t at = 0;
    while ((at = text.find(name, at)) != std::string::npos) {
      at += std::string_view(name).size();
      const std::string_view rest = std::string_view(text).substr(at);
      for (const char* prefix : {"chatcmpl-", "resp_", "msg_", "rs_", "fc_"}) {
        if (rest.starts_with(prefix)) text.erase(at, text.find('"', at) - at);
      }
    }
  }
  for (const char* name : {"\"created\":", "\"created_at\":"}) {
    std::size_t at = 0;
    while ((at = text.find(name, at)) != std::string::npos) {
      at += std::string_view(name).size();
      text.erase(at, text.find_first_of(",}", at) - at);
    }
  }
  return text;
}

constexpr std::string_view kService = R"([
  {"match":{"contains":["plain"]},"times":0,"answer":{"content":"Hello,\nworld","chunk":4,
   "usage":{"prompt_tokens":30,"completion_tokens":9,"cached_tokens":10}}},
  {"match":{"contains":["tools"]},"times":0,"answer":{"reasoning":"hm","content":"I look",
   "tool_calls":[{"id":"call_1","name":"look","arguments":"{\"at\":1}"},
                 {"id":"call_2","name":"go","arguments":"{}"}],
   "usage":{"prompt_tokens":3,"completion_tokens":4}}},
  {"match":{"contains":["long"]},"times":0,"answer":{"content":"cut o","finish_reason":"length",
   "usage":{"prompt_tokens":3,"completion_tokens":4}}},
  {"match":{"contains":["error"]},"times":0,"answer":{"status":429,"headers":{"Retry-After":"7",
   "Set-Cookie":"a=b"},"body":{"error":{"message":"slow down"}}}}])";

TEST_F(RecorderTest, AllDialectsWholeAndStreamedThenTheCassetteGivesTheSameAnswers) {
  const test::Replay service(kService);
  record(service.server.url());
  const auto ask_all = [&](const auto& base) {
    std::vector<std::string> answers;
    for (const std::string& path : kModelPaths) {
      for (const char* text : {"plain", "tools", "long", "error"}) {
        const net::HttpResponse whole = test::send("POST", base(path), ask(path, text));
        answers.push_back(std::to_string(whole.status) + steady(whole.body) +
                          whole.headers.get_or("Retry-After", ""));
        if (whole.status != 200) continue;
        Json request = Json::parse(ask(path, text, true));
        request.set("stream_options", Json::object({{"include_usage", true}}));
        answers.push_back(steady(test::read_stream(base(path), request.dump()).bytes));
      }
    }
    return answers;
  };
  const auto first = ask_all([&](const std::string& path) { return url(path); });
  EXPECT_EQ(recorder_->counts().recorded, 21);
  EXPECT_EQ(recorder_->counts().left_out, 0);
  Cassette cassette = recorded();
  ASSERT_EQ(cassette.entries.size(), 21u);
  for (CassetteEntry& entry : cassette.entries) {
    EXPECT_EQ(entry.times, 1);
    // How the texts were cut is not recorded.
    if (auto* answer = std::get_if<CompletionAnswer>(&entry.answer);
        answer != nullptr && answer->content.starts_with("Hello")) {
      answer->chunk = 4;
    }
  }
  ReplayServer replayed(std::move(cassette));
  replayed.start();
  const auto second = ask_all([&](const std::string& path) {
    return replayed.url().substr(0, replayed.url().size() - 3) + path;
  });
  ASSERT_EQ(first.size(), second.size());
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(first[i], second[i]) << i;
  EXPECT_THAT(file(), Not(HasSubstr("a=b")));
}

TEST_F(RecorderTest, EntryIsWrittenForReaders) {
  const test::Replay service(kService);
  record(service.server.url());
  post(kChat, "plain words");
  EXPECT_EQ(file(), R"({
  "version": 1,
  "entries": [
    {
      "match": {
        "model": "gpt-4",
        "contains": [
          "plain words"
        ]
      },
      "answer": {
        "content": [
          "Hello,",
          "world"
        ],
        "usage": {
          "prompt_tokens": 30,
          "completion_tokens": 9,
          "cached_tokens": 10
        }
      }
    }
  ]
}
)");
}

TEST_F(RecorderTest, SameQuestionTwiceThenTwoEntriesInOrder) {
  const test::Replay service(R"([{"answer":{"content":"first"}},{"answer":{"content":"second"}}])");
  record(service.server.url());
  post(kChat, "again");
  post(kChat, "again");
  const Cassette cassette = recorded();
  ASSERT_EQ(cassette.entries.size(), 2u);
  EXPECT_EQ(std::get<CompletionAnswer>(cassette.entries[0].answer).content, "first");
  EXPECT_EQ(std::get<CompletionAnswer>(cassette.entries[1].answer).content, "second");
}

TEST_F(RecorderTest, RequestGoesOnUnchangedWithTheRealKeyWhereTheClientPutItsOwn) {
  RawServer service([](RawConnection& connection) {
    while (connection.read_request()) {
      connection.send(
          "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nX-Own: kept\r\nContent-Length: 2\r\n\r\n{}");
    }
  });
  record(service.url("/base/v1"));
  const std::string odd = R"({ "model":"m",  "messages":[], "x":1.50 })";
  test::send("POST", url("/v1/chat/completions?a=b"), odd,
             {{"Authorization", "Bearer dummy"}, {"X-Own", "kept"}, {"Accept-Encoding", "gzip"}});
  test::send("POST", url("/v1/messages"), odd, {{"x-api-key", "dummy"}});
  test::send("POST", url("/openai/deployments/d/chat/completions?api-version=1"), odd,
             {{"api-key", "dummy"}});
  test::send("POST", url("/v1/messages"), odd);
  const net::HttpResponse models = test::send("GET", url("/v1/models"));
  EXPECT_EQ(models.headers.get("X-Own"), "kept");
  EXPECT_EQ(models.headers.get("X-Upstream-Request-Id"), "theirs");
  const auto requests = service.requests();
  ASSERT_EQ(requests.size(), 5u);
  EXPECT_EQ(requests[0].target, "/base/v1/chat/completions?a=b");
  EXPECT_EQ(requests[0].body, odd);
  EXPECT_EQ(requests[0].headers.get("Authorization"), "Bearer " + std::string(kKey));
  EXPECT_EQ(requests[0].headers.get("X-Own"), "kept");
  EXPECT_FALSE(requests[0].headers.get("Accept-Encoding"));
  EXPECT_EQ(requests[0].headers.get("Host"), "127.0.0.1:" + std::to_string(service.port()));
  EXPECT_EQ(requests[1].target, "/base/v1/messages");
  EXPECT_EQ(requests[1].headers.get("x-api-key"), kKey);
  EXPECT_FALSE(requests[1].headers.get("Authorization"));
  EXPECT_EQ(requests[2].target, "/base/openai/deployments/d/chat/completions?api-version=1");
  EXPECT_EQ(requests[2].headers.get("api-key"), kKey);
  EXPECT_EQ(requests[3].headers.get("x-api-key"), kKey) << "where the API wants it";
  EXPECT_EQ(requests[4].target, "/base/v1/models");
  EXPECT_EQ(requests[4].headers.get("Authorization"), "Bearer " + std::string(kKey));
  EXPECT_EQ(recorder_->counts().recorded, 4) << "the list of models is no entry";
}

TEST_F(RecorderTest, WithoutAKeyThenNoneIsSentAndTheClientsOwnGoesNoFurther) {
  RawServer service([](RawConnection& connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
  });
  record(service.url(""), "");
  post(kChat, "x");
  const auto requests = service.requests();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].target, kChat) << "an endpoint without a path has the client's";
  EXPECT_FALSE(requests[0].headers.get("Authorization"));
}

TEST_F(RecorderTest, SecretsThenNoneOfThemIsOnTheDisk) {
  const std::string token = "ghp_" + std::string(36, 'a');
  const std::string entries =
      R"([{"times":0,"match":{"contains":["say"]},"answer":{"content":"key )" + std::string(kKey) +
      R"(\ntoken )" + token +
      R"(","reasoning":"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----",
      "tool_calls":[{"id":"c","name":"n","arguments":"{\"k\":\")" +
      token + R"(\"}"}]}},
      {"answer":{"status":400,"headers":{"x-ratelimit-key":")" +
      token + R"("},"body":{"error":{"message":"bad key )" + kKey + R"("}}}}])";
  const test::Replay service(entries);
  record(service.server.url());
  const auto whole = post(kChat, "say it\nwith " + std::string(kKey) + "\nplease");
  EXPECT_THAT(whole.body, HasSubstr(token)) << "the client gets what the service says";
  post(kChat, "fail with " + token);
  EXPECT_EQ(recorder_->counts().recorded, 2);
  for (const std::string& secret : {std::string(kKey), token, std::string("MIIEvQIBADANBg")}) {
    EXPECT_THAT(file(), Not(HasSubstr(secret)));
  }
  const Cassette cassette = recorded();
  EXPECT_THAT(cassette.entries.at(0).match.contains, ElementsAre("say it", "please"));
  EXPECT_TRUE(cassette.entries.at(1).match.contains.empty());
  const auto& raw = std::get<RawAnswer>(cassette.entries.at(1).answer);
  EXPECT_EQ(Json::parse(raw.body)["error"]["message"], Json("bad key ***"));
}

TEST_F(RecorderTest, StreamThenItGoesOnAsItComes) {
  std::promise<void> client_saw;
  RawServer service([&](RawConnection& connection) {
    connection.read_request();
    connection.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"}}]}\n\n");
    client_saw.get_future().wait();
    connection.send(
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" two\"},"
        "\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
  });
  record(service.url("/v1"));
  net::HttpRequest request;
  request.method = "POST";
  request.url = url(kChat);
  request.body = ask(kChat, "x", true);
  std::string seen;
  bool told = false;
  request.on_body = [&](std::string_view piece) {
    seen.append(piece);
    if (!std::exchange(told, true)) client_saw.set_value();
    return true;
  };
  net::make_curl_http_client()->send(request, {});
  EXPECT_TRUE(seen.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(std::get<CompletionAnswer>(recorded().entries.at(0).answer).content, "one two");
}

TEST_F(RecorderTest, AnswerThatBreaksOffThenACutForTheClientAndInTheCassette) {
  const test::Replay service(R"([{"answer":{"drill":"cut"}},{"answer":{"drill":"cut"}}])");
  record(service.server.url());
  EXPECT_THROW(post(kChat, "x"), net::TransportError);
  EXPECT_NE(test::read_stream(url(kChat), ask(kChat, "y", true)).broken, "");
  ASSERT_TRUE(test::eventually([&] { return recorder_->counts().recorded == 2; }));
  for (const CassetteEntry& entry : recorded().entries) {
    EXPECT_EQ(std::get<DrillAnswer>(entry.answer).drill, Drill::kCut);
  }
}

TEST_F(RecorderTest, StreamWithoutItsFinishThenATruncateDrillWithWhatCame) {
  const test::Replay service(
      R"([{"times":0,"answer":{"drill":"truncate","content":"abcdefgh","chunk":2,"after":4}}])");
  record(service.server.url());
  EXPECT_EQ(test::read_stream(url(kChat), ask(kChat, "x", true)).broken, "");
  const auto drill = std::get<DrillAnswer>(recorded().entries.at(0).answer);
  EXPECT_EQ(drill.drill, Drill::kTruncate);
  EXPECT_EQ(drill.answer.value().content, "abcdef");
}

TEST_F(RecorderTest, ServiceThatCannotBeReachedThen502AndNoEntry) {
  int port = 0;
  {
    const RawServer gone([](RawConnection&) {});
    port = gone.port();
  }
  record("http://127.0.0.1:" + std::to_string(port) + "/v1");
  for (const std::string& path : kModelPaths) {
    const net::HttpResponse answer = post(path, "x");
    EXPECT_EQ(answer.status, 502);
    EXPECT_TRUE(Json::parse(answer.body)["error"]["message"].is_string()) << answer.body;
  }
  EXPECT_EQ(recorder_->counts().left_out, 3);
  EXPECT_TRUE(recorded().entries.empty());
}

TEST_F(RecorderTest, ClientLeavesThenTheServiceIsLeftTooAndNothingIsRecorded) {
  std::promise<void> closed;
  RawServer service([&](RawConnection& connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {}\n\n");
    connection.wait_closed();
    closed.set_value();
  });
  record(service.url("/v1"));
  net::HttpRequest request;
  request.method = "POST";
  request.url = url(kChat);
  request.body = ask(kChat, "x", true);
  request.on_body = [](std::string_view) { return false; };
  EXPECT_THROW(net::make_curl_http_client()->send(request, {}), net::TransportError);
  EXPECT_EQ(closed.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_TRUE(test::eventually([&] { return recorder_->counts().left_out == 1; }));
  EXPECT_TRUE(recorded().entries.empty());
}

TEST_F(RecorderTest, ClientLeavesAtDoneThenTheAnswerIsWholeAndRecorded) {
  RawServer service([&](RawConnection& connection) {
    connection.read_request();
    connection.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"},"
        "\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
    connection.wait_closed();
  });
  record(service.url("/v1"));
  net::HttpRequest request;
  request.method = "POST";
  request.url = url(kChat);
  request.body = ask(kChat, "x", true);
  std::string seen;
  request.on_body = [&](std::string_view piece) {
    return seen.append(piece).find("[DONE]") == std::string::npos;
  };
  EXPECT_THROW(net::make_curl_http_client()->send(request, {}), net::TransportError);
  ASSERT_TRUE(test::eventually([&] { return recorder_->counts().recorded == 1; }));
  EXPECT_EQ(std::get<CompletionAnswer>(recorded().entries.at(0).answer).content, "one");
}

TEST_F(RecorderTest, StopWhileTheServiceIsSilentThenItReturns) {
  RawServer service([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  record(service.url("/v1"));
  auto answer = std::async(std::launch::async, [&] { return post(kChat, "x").status; });
  service.wait_for_requests(1);
  recorder_->stop();
  EXPECT_EQ(answer.get(), 503);
}

TEST_F(RecorderTest, ClientThatDoesNotReadThenTheServiceWaitsAndAllArrives) {
  const std::size_t size = 4 * limits::kMiB;
  RawServer service([&](RawConnection& connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n" +
                    std::string(size, 'x'));
  });
  record(service.url("/v1"));
  EXPECT_EQ(post(kChat, "x").body.size(), size);
}

TEST_F(RecorderTest, AnswerLargerThanAnAnswerMayBeThenPassedOnAndLeftOut) {
  const std::size_t size = limits::kModelAnswerBytes + 1;
  RawServer service([&](RawConnection& connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n" +
                    std::string(size, 'x'));
  });
  record(service.url("/v1"));
  EXPECT_EQ(post(kChat, "x").body.size(), size);
  EXPECT_EQ(recorder_->counts().left_out, 1);
  EXPECT_TRUE(recorded().entries.empty());
}

TEST_F(RecorderTest, SecretThatOnlyTheWholeEntryHasThenLeftOut) {
  const test::Replay service(kService);
  record(service.server.url(), kKey, R"("call_1","name":"look")");
  EXPECT_EQ(post(kChat, "tools").status, 200);
  EXPECT_EQ(recorder_->counts().left_out, 1);
  EXPECT_TRUE(recorded().entries.empty());
}

TEST_F(RecorderTest, CassetteThatCannotBeWrittenAnyMoreThenTheClientStillHasItsAnswer) {
  const test::Replay service(kService);
  record(service.server.url());
  std::filesystem::remove_all(folder_.path());
  EXPECT_EQ(post(kChat, "plain").status, 200);
  EXPECT_EQ(recorder_->counts().left_out, 1);
}

TEST_F(RecorderTest, TooManyExchangesThenTheNextAreToldToComeAgain) {
  RawServer service([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  record(service.url("/v1"));
  const auto port = net::Url::parse(recorder_->url())->port;
  const std::string body = ask(kChat, "x");
  std::vector<test::RawClient> clients;
  std::vector<pollfd> waiting;
  for (int i = 0; i < 90; ++i) {  // 16 and 64, and some more
    test::RawClient& client = clients.emplace_back(static_cast<std::uint16_t>(port));
    client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n\r\n" + body);
    waiting.push_back({client.fd(), POLLIN, 0});
  }
  ASSERT_GT(::poll(waiting.data(), waiting.size(), 10'000), 0);
  for (std::size_t i = 0; i < clients.size(); ++i) {
    if (waiting[i].revents == 0) continue;
    const auto answer = clients[i].read_answer();
    EXPECT_EQ(answer.status, 503);
    EXPECT_EQ(answer.headers.get("Retry-After"), "1");
  }
}

TEST_F(RecorderTest, WebPageThenRefusedBeforeTheKeyIsUsed) {
  const test::Replay service(kService);
  record(service.server.url());
  EXPECT_EQ(post(kChat, "plain", {{"Origin", "https://evil.example"}}).status, 403);
  EXPECT_TRUE(service.server.served().empty());
}

TEST_F(RecorderTest, EndpointThatIsNoneOrUnsafeThenRefusedAtTheStart) {
  for (const char* bad : {"", "ftp://x", "https://u:p@x", "https://x/v1?a=b"}) {
    EXPECT_THROW(record(bad), ConfigError) << bad;
  }
  EXPECT_THROW(record("http://example.com/v1"), SecurityError);
}

// ---- reading answers ----

RecordedAnswer read(ModelApi api, const std::string& body, int status = 200) {
  net::HttpResponse answer;
  answer.status = status;
  const bool stream = body.starts_with("data:");
  answer.headers = {{"Content-Type", stream ? "text/event-stream" : "application/json"},
                    {"Set-Cookie", "a=b"},
                    {"x-ratelimit-remaining-tokens", "7"}};
  answer.body = body;
  return read_answer(api, answer);
}

TEST(ReadAnswer, WhatACassetteHasNoWordsForThenRaw) {
  const std::vector<std::pair<ModelApi, std::string>> bodies = {
      {ModelApi::kChat, R"({"choices":[{"message":{"content":null,"refusal":"no"}}]})"},
      {ModelApi::kChat, R"({"choices":[{"message":{}},{"message":{}}]})"},
      {ModelApi::kChat, R"({"choices":[{"message":{"content":"x","annotations":[{}]}}]})"},
      {ModelApi::kChat, R"({"error":{"message":"under 200"}})"},
      {ModelApi::kChat, "<html>"},
      {ModelApi::kChat, "data: {\"error\":{\"message\":\"mid-stream\"}}\n\n"},
      {ModelApi::kChat, "data: {]\n\n"},
      {ModelApi::kChat, "data: {\"choices\":[{\"index\":1,\"delta\":{}}]}\n\n"},
      {ModelApi::kChat, "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":9}]}}]}\n\n"},
      {ModelApi::kResponses, R"({"status":"failed","output":[]})"},
      {ModelApi::kResponses, R"({"status":"completed","output":[{"type":"web_search_call"}]})"},
      {ModelApi::kResponses, "data: {\"type\":\"response.failed\"}\n\n"},
      {ModelApi::kMessages, R"({"type":"message","content":[{"type":"server_tool_use"}]})"},
      {ModelApi::kMessages,
       R"({"type":"message","content":[{"type":"text","text":"x","citations":[{}]}]})"},
      {ModelApi::kMessages,
       "data: {\"type\":\"content_block_delta\",\"delta\":{\"citation\":{}}}\n\n"},
      {ModelApi::kMessages, "data: {\"type\":\"error\",\"error\":{}}\n\n"}};
  for (const auto& [api, body] : bodies) {
    const auto answer = read(api, body);
    const auto* raw = std::get_if<RawAnswer>(&answer);
    ASSERT_NE(raw, nullptr) << body;
    EXPECT_EQ(raw->status, 200);
    EXPECT_EQ(raw->body, body);
    EXPECT_FALSE(raw->headers.get("Set-Cookie"));
    EXPECT_EQ(raw->headers.get("x-ratelimit-remaining-tokens"), "7");
  }
}

TEST(ReadAnswer, ErrorThenRawWithItsBodyOnOneLine) {
  const auto raw = std::get<RawAnswer>(read(ModelApi::kChat, "{\n  \"error\": {}\n}\n", 500));
  EXPECT_EQ(raw.status, 500);
  EXPECT_EQ(raw.body, R"({"error":{}})");
  EXPECT_EQ(std::get<RawAnswer>(read(ModelApi::kChat, "\xff", 500)).body, "\xEF\xBF\xBD");
}

TEST(ReadAnswer, StreamsOfOtherServicesAreUnderstood) {
  // Usage in the last chunk that has a choice, names of reasoning, an index that is not told.
  const auto chat = std::get<CompletionAnswer>(
      read(ModelApi::kChat,
           "data: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\"}}],\"usage\":null}\n\n"
           "data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}],"
           "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":9}}\n\n"));
  EXPECT_EQ(chat.reasoning, "hm");
  EXPECT_EQ(chat.content, "x");
  EXPECT_EQ(chat.usage->dump(), R"({"prompt_tokens":1,"completion_tokens":2,"total_tokens":9})");
  const auto none = std::get<CompletionAnswer>(
      read(ModelApi::kChat, R"({"choices":[{"message":{"content":"x"}}],"usage":null})"));
  EXPECT_TRUE(none.usage.value().is_null());
  EXPECT_EQ(none.finish_reason, "");
}

TEST(ReadAnswer, ForgedCountsThenZero) {
  const auto forged = std::get<CompletionAnswer>(
      read(ModelApi::kMessages,
           R"({"type":"message","content":[],"usage":{"input_tokens":9223372036854775807,
               "cache_read_input_tokens":9223372036854775807,"output_tokens":-1}})"));
  EXPECT_EQ(forged.usage->dump(), R"({"prompt_tokens":0,"completion_tokens":0})");
}

// ---- the conditions ----

CassetteMatch match_of(const std::string& last) {
  Question question;
  question.model = "m";
  question.last = last;
  return recorded_match(question, Masker());
}

TEST(RecordedMatch, ShortTextThenTheWhole) {
  EXPECT_EQ(match_of("hello\nyou").model, "m");
  EXPECT_THAT(match_of("hello\nyou").contains, ElementsAre("hello\nyou"));
  EXPECT_TRUE(match_of("").contains.empty());
}

TEST(RecordedMatch, LongTextThenItsFirstLongestAndLastLine) {
  const std::string longest(150, 'b');
  const std::string text = "\n  first \n" + std::string(100, 'a') + "\n" + longest + "\nlast\n\n";
  EXPECT_THAT(match_of(text).contains, ElementsAre("first", longest, "last"));
  EXPECT_THAT(match_of(std::string(1000, 'a')).contains, ElementsAre(std::string(200, 'a')));
}

TEST(RecordedMatch, LongLineThenCutBetweenCharacters) {
  std::string text = "x";
  for (int i = 0; i < 200; ++i) text += "ü";
  const auto contains = match_of(text).contains;
  ASSERT_EQ(contains.size(), 1u);
  EXPECT_EQ(contains[0].size(), 199u);
  EXPECT_NE(text.find(contains[0]), std::string::npos);
}

TEST(RecordedMatch, NulOrSecretThenNoCondition) {
  EXPECT_TRUE(match_of(std::string("a\0b", 3)).contains.empty());
  EXPECT_TRUE(match_of("ghp_" + std::string(36, 'a')).contains.empty());
}

}  // namespace
}  // namespace necrocode::llm
