// Streams, fallbacks and caps of LLMClient against real sockets: each fault that the official
// clients were seen to get wrong (a cut stream taken for success, comments that hang for ever, an
// error under a status of success …), and what is told of a call.
#include <gmock/gmock.h>

#include <thread>

#include "necrocode/base/file.hpp"
#include "necrocode/llm/capabilities.hpp"
#include "necrocode/llm/client.hpp"
#include "necrocode/llm/model_metrics.hpp"
#include "necrocode/llm/prices.hpp"
#include "support/eventually.hpp"
#include "support/fake_clock.hpp"
#include "support/raw_server.hpp"

namespace necrocode {
namespace {

using std::chrono::milliseconds;
using test::answer;
using test::FakeClock;
using test::plays;
using test::RawConnection;
using test::RawServer;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

const std::string kKey = "sk-test-0123456789abcdefghij";
const std::string kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    "X-Request-Id: req-7\r\n\r\n";

std::string event(const std::string& json) {
  return "data: " + json + "\n\n";
}

std::string piece(const std::string& text) {
  const Json delta = Json::object({{"content", text}});
  return event(
      Json::object({{"choices", Json(Json::Array{Json::object({{"index", 0}, {"delta", delta}})})}})
          .dump());
}

const std::string kFinish =
    event(R"({"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]})") +
    event(R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}})") +
    "data: [DONE]\n\n";

const std::string kGoodStream = kStreamHead + piece("fo") + piece("ur") + kFinish;

std::string good_answer(const std::string& content) {
  const Json message = Json::object({{"role", "assistant"}, {"content", content}});
  const Json choice = Json::object({{"message", message}, {"finish_reason", "stop"}});
  return answer(200,
                Json::object({{"model", "gpt-4-0613"},
                              {"choices", Json(Json::Array{choice})},
                              {"usage", Json::object({{"prompt_tokens", 1000},
                                                      {"completion_tokens", 500},
                                                      {"total_tokens", 1500}})}})
                    .dump(),
                "Content-Type: application/json\r\n");
}

ChatRequest question(const std::string& text = "two and two?") {
  ChatRequest request;
  request.messages = {{"user", text}};
  return request;
}

LLMConfig config_for(const RawServer& server, const Clock& clock, int retries = 3) {
  LLMConfig config;
  config.api_key = Secret(kKey);
  config.endpoint = server.url("/v1");
  config.http = net::make_curl_http_client();
  config.retry.retries = retries;
  config.environment.clock = &clock;
  config.environment.random = [] { return 0.5; };
  return config;
}

// A service, a client that asks it, and what it is told on the way.
struct Stream {
  explicit Stream(RawServer::Script script, int retries = 3)
      : server(std::move(script)), config(config_for(server, clock, retries)) {}
  // One connection an answer: what ends by the connection's end ends it.
  explicit Stream(std::vector<std::string> answers, int retries = 3)
      : Stream(
            [answers = std::move(answers)](RawConnection& connection) {
              if (!connection.read_request()) return;
              connection.send(answers[std::min(connection.index(), answers.size() - 1)]);
            },
            retries) {}

  ChatResponse ask(const CallContext& context = {}) {
    LLMClient client(std::move(config));
    return client.stream(question(), on_delta, context);
  }
  template <class Error>
  ErrorInfo failure(const CallContext& context = {}) {
    try {
      ask(context);
    } catch (const Error& error) {
      EXPECT_EQ(typeid(error), typeid(Error)) << error.what();
      EXPECT_THAT(error.what(), Not(HasSubstr(kKey)));
      return error.info();
    } catch (const std::exception& error) {
      ADD_FAILURE() << "another error: " << error.what();
      return {};
    }
    ADD_FAILURE() << "no error";
    return {};
  }

  std::string told;
  llm::OnDelta on_delta = [this](const llm::ChatDelta& delta) {
    told += delta.kind == llm::ChatDelta::Kind::kRestart ? "|" : std::string(delta.text);
  };
  FakeClock clock;
  RawServer server;
  LLMConfig config;
};

TEST(LLMClientStream, PiecesAreToldAndTheAnswerIsWhole) {
  Stream stream({kGoodStream});
  const ChatResponse response = stream.ask();
  EXPECT_EQ(response.content, "four");
  EXPECT_EQ(stream.told, "four");
  EXPECT_EQ(response.usage.total_tokens, 10);
  EXPECT_FALSE(response.usage.estimated);
  EXPECT_EQ(response.request_id, "req-7");
  EXPECT_EQ(response.attempts, 1);
  EXPECT_FALSE(response.maybe_billed_twice);
}

// The official client reports success.
TEST(LLMClientStream, EndWithoutAFinishIsRetriedAndNeverSuccess) {
  for (const std::string& cut :
       {kStreamHead + piece("fo"), kStreamHead + piece("fo") + "data: [DONE]\n\n", kStreamHead,
        kStreamHead + piece("fo") + "data: {\"choi"}) {
    Stream once({cut, kGoodStream});
    const ChatResponse response = once.ask();
    EXPECT_EQ(response.content, "four") << cut;
    EXPECT_EQ(response.attempts, 2) << cut;
    EXPECT_TRUE(response.maybe_billed_twice) << cut;
    EXPECT_THAT(once.told, testing::AnyOf("fo|four", "four")) << cut;

    Stream always({cut}, 1);
    const ErrorInfo info = always.failure<Unavailable>();
    EXPECT_EQ(info.end, CallEnd::kExhausted) << cut;
    EXPECT_EQ(info.attempts, 2) << cut;
    EXPECT_TRUE(info.maybe_accepted) << cut;
    EXPECT_EQ(info.request_id, "req-7") << cut;
    EXPECT_EQ(info.partial, cut == kStreamHead ? "" : "fo") << cut;
  }
}

// The official client's error has no type, and it does not try again.
TEST(LLMClientStream, ConnectionCutInTheMiddleIsRetriedWhole) {
  Stream stream([](RawConnection& connection) {
    if (!connection.read_request()) return;
    const std::string chunked =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    if (connection.index() > 0) {
      connection.send(kGoodStream);
      return;
    }
    const std::string first = piece("fo");
    char size[16];
    std::snprintf(size, sizeof size, "%zx\r\n", first.size());
    connection.send(chunked + size + first + "\r\n");
    connection.close();
  });
  const ChatResponse response = stream.ask();
  EXPECT_EQ(response.content, "four");
  EXPECT_EQ(stream.told, "fo|four");
  EXPECT_TRUE(response.maybe_billed_twice);
}

// What attempts that broke off have used is counted, too.
TEST(LLMClientStream, SpendingCountsWhatBrokeOff) {
  Stream stream({kStreamHead + piece(std::string(400, 'x')), kGoodStream});
  llm::Spending spending;
  LLMClient client(std::move(stream.config));
  const ChatResponse response = client.stream(question(), {}, {}, &spending);
  EXPECT_EQ(response.usage.completion_tokens, 3);
  EXPECT_EQ(spending.usage().completion_tokens, 103);
  EXPECT_TRUE(spending.usage().estimated);
}

// The official client hangs for ever.
TEST(LLMClientStream, CommentsAreNoProgress) {
  Stream stream(
      [](RawConnection& connection) {
        if (!connection.read_request()) return;
        connection.send(kStreamHead + piece("fo"));
        while (connection.send(": keep-alive\n\n") && !connection.closed_within(milliseconds(5))) {
        }
      },
      0);
  stream.config.environment.clock = &real_clock();
  stream.config.progress_timeout_seconds = 0.1;
  const auto begin = std::chrono::steady_clock::now();
  const ErrorInfo info = stream.failure<TimeoutError>();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_EQ(info.partial, "fo");
  EXPECT_TRUE(info.maybe_accepted);
}

TEST(LLMClientStream, ProgressKeepsAStreamAliveBeyondTheTimeout) {
  Stream stream(
      [](RawConnection& connection) {
        if (!connection.read_request()) return;
        connection.send(kStreamHead);
        for (int i = 0; i < 8; ++i) {
          connection.send(piece("x"));
          if (connection.closed_within(milliseconds(50))) return;
        }
        connection.send(kFinish);
      },
      0);
  stream.config.environment.clock = &real_clock();
  stream.config.timeout_seconds = 0.3;
  EXPECT_EQ(stream.ask().content, "xxxxxxxx");
}

TEST(LLMClientStream, SilenceIsATimeoutBeforeAndAfterTheFirstByte) {
  for (const std::string& begun : {std::string(), kStreamHead, kStreamHead + piece("fo")}) {
    Stream stream(
        [&begun](RawConnection& connection) {
          if (!connection.read_request()) return;
          connection.send(begun);
          connection.wait_closed();
        },
        0);
    stream.config.environment.clock = &real_clock();
    stream.config.timeout_seconds = 0.1;
    const auto begin = std::chrono::steady_clock::now();
    stream.failure<TimeoutError>();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5)) << begun;
  }
}

// A head that came, and nothing after it, says nothing of the attempts to come.
TEST(LLMClientStream, SilenceAfterTheHeadLeavesTheNextAttemptItsTime) {
  Stream stream([](RawConnection& connection) {
    if (!connection.read_request()) return;
    if (connection.index() == 0) {
      connection.send(kStreamHead);
      connection.wait_closed();
    } else if (!connection.closed_within(milliseconds(50))) {
      connection.send(kGoodStream);
    }
  });
  stream.config.timeout_seconds = 0.3;
  const ChatResponse response = stream.ask();
  EXPECT_EQ(response.content, "four");
  EXPECT_EQ(response.attempts, 2);
  EXPECT_EQ(stream.server.requests().size(), 2u);
}

// It is whole, whatever becomes of its connection, and was billed once.
TEST(LLMClientStream, WholeAnswerCountsThoughTheConnectionStaysOpenOrBreaks) {
  for (const bool resets : {false, true}) {
    Stream stream([resets](RawConnection& connection) {
      if (!connection.read_request()) return;
      connection.send(
          "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
          "Content-Length: 100000\r\n\r\n" +
          piece("four") + kFinish);
      if (!resets) connection.wait_closed();
    });
    stream.config.timeout_seconds = 20;
    const auto begin = std::chrono::steady_clock::now();
    const ChatResponse response = stream.ask();
    EXPECT_EQ(response.content, "four");
    EXPECT_EQ(response.usage.total_tokens, 10);
    EXPECT_EQ(response.attempts, 1);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    EXPECT_EQ(stream.server.requests().size(), 1u);
  }
}

TEST(LLMClientStream, SpendingCountsEachAttemptThatBrokeOffHoweverTheCallEnds) {
  const std::string broken = kStreamHead + piece(std::string(400, 'x'));
  Stream always({broken}, 2);
  llm::Spending spending;
  LLMClient client(std::move(always.config));
  EXPECT_THROW(client.stream(question(), {}, {}, &spending), Unavailable);
  EXPECT_EQ(spending.usage().completion_tokens, 300);

  Stream then_down({broken, answer(503, "{}", "Connection: close\r\n")}, 1);
  llm::Spending after;
  LLMClient second(std::move(then_down.config));
  EXPECT_THROW(second.stream(question(), {}, {}, &after), Unavailable);
  EXPECT_EQ(after.usage().completion_tokens, 100);
}

TEST(LLMClientStream, CancelClosesTheConnection) {
  std::atomic<bool> closed{false};
  Stream stream([&closed](RawConnection& connection) {
    if (!connection.read_request()) return;
    connection.send(kStreamHead + piece("fo"));
    closed = connection.closed_within(std::chrono::seconds(30));
  });
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  stream.on_delta = [&stop](const llm::ChatDelta&) { stop.request_stop(); };
  EXPECT_EQ(stream.failure<TimeoutError>(context).end, CallEnd::kCancelled);
  EXPECT_TRUE(test::eventually([&] { return closed.load(); }));
}

TEST(LLMClientStream, WhatTheListenerThrowsEndsTheCall) {
  Stream stream({kGoodStream});
  stream.on_delta = [](const llm::ChatDelta&) { throw SecurityError("enough"); };
  EXPECT_THROW(stream.ask(), SecurityError);
  EXPECT_EQ(stream.server.requests().size(), 1u);
  // Also where a service's failure would be retried, or the next one asked.
  RawServer other(plays({good_answer("other")}));
  Stream again({kGoodStream});
  again.config.fallbacks.push_back(config_for(other, again.clock));
  int reports = 0;
  again.config.on_call = [&reports](const llm::ModelCallReport& report) {
    ++reports;
    EXPECT_GT(report.usage.prompt_tokens, 0);
  };
  again.on_delta = [](const llm::ChatDelta&) { throw InvalidResponse("not the service's"); };
  EXPECT_THROW(again.ask(), InvalidResponse);
  EXPECT_EQ(again.server.requests().size(), 1u);
  EXPECT_EQ(other.requests().size(), 0u);
  EXPECT_EQ(reports, 1);
}

// The official client takes them for completions.
TEST(LLMClientStream, ErrorUnderAStatusOfSuccessIsTyped) {
  Stream page({answer(200, "<html>log in</html>", "Content-Type: text/html\r\n")});
  EXPECT_THAT(page.failure<InvalidResponse>().detail, HasSubstr("log in"));
  Stream error({answer(200, R"({"error":{"message":"out of order"}})",
                       "Content-Type: application/json\r\n")});
  EXPECT_EQ(error.failure<InvalidResponse>().detail, "out of order");
  Stream quota({kStreamHead + event(R"({"error":{"code":"insufficient_quota","message":"pay"}})")});
  const ErrorInfo spent = quota.failure<RateLimited>();
  EXPECT_EQ(spent.end, CallEnd::kPermanent);
  EXPECT_EQ(spent.attempts, 1);
  EXPECT_EQ(spent.detail, "pay");
  Stream busy({kStreamHead + piece("fo") +
               event(R"({"error":{"type":"rate_limit_error","message":"slower )" + kKey + "\"}}")},
              2);
  const ErrorInfo limited = busy.failure<RateLimited>();
  EXPECT_EQ(limited.attempts, 3);
  EXPECT_EQ(limited.status, 429);
  EXPECT_EQ(limited.partial, "fo");
  EXPECT_THAT(limited.detail, AllOf(HasSubstr("slower"), Not(HasSubstr(kKey))));
  Stream malformed({kStreamHead + "data: {\n\n"});
  EXPECT_EQ(malformed.failure<InvalidResponse>().attempts, 1);
}

TEST(LLMClientStream, UnusableEndsAreErrorsWithWhatCame) {
  for (const char* reason : {"length", "content_filter"}) {
    Stream stream(
        {kStreamHead + piece("fo") +
         event(R"({"choices":[{"delta":{},"finish_reason":")" + std::string(reason) + "\"}]}")});
    const ErrorInfo info = stream.failure<ImplementationError>();
    EXPECT_EQ(info.partial, "fo") << reason;
    EXPECT_EQ(info.attempts, 1) << reason;
  }
}

TEST(LLMClientStream, KeysInWhatCameAreMasked) {
  Stream stream({kStreamHead + piece("the key is " + kKey)}, 0);
  EXPECT_THAT(stream.failure<Unavailable>().partial,
              AllOf(HasSubstr("the key is"), Not(HasSubstr(kKey))));
}

TEST(LLMClientStream, ServiceThatRefusesToStreamIsAskedForTheWhole) {
  Stream stream(plays({answer(400, R"({"error":{"message":"this model does not stream",
                                       "param":"stream"}})"),
                       good_answer("four"), good_answer("five")}));
  LLMClient client(std::move(stream.config));
  EXPECT_EQ(client.stream(question(), stream.on_delta).attempts, 1);
  EXPECT_EQ(stream.told, "four");
  client.stream(question(), stream.on_delta);
  const auto requests = stream.server.requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(Json::parse(requests[1].body)["stream"], Json(false));
  EXPECT_EQ(Json::parse(requests[2].body)["stream"], Json(false));
  EXPECT_EQ(client.capabilities()["stream"], Json(false));
}

TEST(LLMClient, WhatWasLearnedServesTheNextProcess) {
  const TemporaryDirectory folder("llm");
  FakeClock clock;
  RawServer server(plays({answer(400, R"({"error":{"message":"use max_completion_tokens"}})"),
                          good_answer("one"), good_answer("two")}));
  for (int process = 0; process < 2; ++process) {
    LLMConfig config = config_for(server, clock);
    config.capabilities =
        std::make_shared<llm::CapabilityTable>(folder.path() / "known.json", clock);
    LLMClient(std::move(config)).chat(question());
  }
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_TRUE(Json::parse(requests[2].body).find("max_completion_tokens"));
  EXPECT_THAT(read_file(folder.path() / "known.json", 10'000), Not(HasSubstr(kKey)));
}

// ---- dialects and addresses ---------------------------------------------------------------------

TEST(LLMClient, AnthropicIsAskedAsItAsksFor) {
  FakeClock clock;
  RawServer server(plays({answer(200, R"({"type":"message","model":"claude","content":[
      {"type":"text","text":"four"}],"stop_reason":"end_turn",
      "usage":{"input_tokens":5,"output_tokens":2}})",
                                 "Content-Type: application/json\r\nrequest-id: req_1\r\n")}));
  LLMConfig config = config_for(server, clock);
  config.provider = "anthropic";
  config.endpoint = server.url();
  const ChatResponse response = LLMClient(std::move(config)).chat(question());
  EXPECT_EQ(response.content, "four");
  EXPECT_EQ(response.request_id, "req_1");
  const auto sent = server.requests().at(0);
  EXPECT_EQ(sent.target, "/v1/messages");
  EXPECT_EQ(sent.headers.get("x-api-key"), kKey);
  EXPECT_EQ(sent.headers.get("anthropic-version"), "2023-06-01");
  EXPECT_FALSE(sent.headers.get("Authorization"));
}

TEST(LLMClient, AzuresAddressKeepsItsVersionBehindThePath) {
  FakeClock clock;
  RawServer server(plays({good_answer("four"), answer(200, R"({"data":[{"id":"a"}]})")}));
  LLMConfig config = config_for(server, clock);
  config.endpoint = server.url("/openai/deployments/gpt/?api-version=2024-10-21");
  LLMClient client(std::move(config));
  client.chat(question());
  EXPECT_THAT(client.models(), ElementsAre("a"));
  const auto requests = server.requests();
  EXPECT_EQ(requests.at(0).target,
            "/openai/deployments/gpt/chat/completions?api-version=2024-10-21");
  EXPECT_EQ(requests.at(0).headers.get("api-key"), kKey);
  EXPECT_FALSE(requests.at(0).headers.get("Authorization"));
  EXPECT_EQ(requests.at(1).target, "/openai/deployments/gpt/models?api-version=2024-10-21");
}

TEST(LLMClient, ModelsAreTypedErrorsOrTheirNames) {
  FakeClock clock;
  RawServer server(plays({answer(401, "{}"), answer(200, R"({"models":[]})"),
                          answer(200, R"({"data":[{"id":"a"},{"name":"b"},{"id":"c"}]})")}));
  LLMClient client(config_for(server, clock));
  EXPECT_THROW(client.models(), Unauthorized);
  EXPECT_THROW(client.models(), InvalidResponse);
  EXPECT_THAT(client.models(), ElementsAre("a", "c"));
}

TEST(LLMClient, WrongQuestionIsRefusedBeforeAnythingIsSent) {
  FakeClock clock;
  RawServer server(plays({good_answer("x")}));
  LLMClient client(config_for(server, clock));
  ChatRequest wrong;
  wrong.messages = {{"robot", "x"}, {"tool", "x"}, {"user", "x", {{"1", "f", "{}"}}}};
  wrong.temperature = 3;
  wrong.json_schema = "x";
  wrong.tools = {{"a b", "", Json::object()}, {"f", "", nullptr}, {"f", "", Json::object()}};
  wrong.tool_choice = "g";
  try {
    client.chat(wrong);
    FAIL();
  } catch (const TaskContextValidationError& error) {
    std::vector<std::string> pointers;
    for (const FieldError& field : error.info().fields) pointers.push_back(field.pointer);
    EXPECT_THAT(pointers,
                ElementsAre("/messages/0/role", "/messages/1/tool_call_id",
                            "/messages/2/tool_calls", "/tools/0/name", "/tools/1/parameters",
                            "/tools/2/name", "/tool_choice", "/temperature", "/json_schema"));
    EXPECT_EQ(error.info().service, "llm");
  }
  EXPECT_THROW(client.chat({}), TaskContextValidationError);
  EXPECT_THAT(server.requests(), IsEmpty());
}

// ---- fallbacks ----------------------------------------------------------------------------------

// Two services; the second is asked when the first cannot answer.
struct Fallback {
  explicit Fallback(std::vector<std::string> firsts)
      : first(plays(std::move(firsts))), second(plays({good_answer("second"), good_answer("2")})) {}
  LLMClient client() {
    LLMConfig config = config_for(first, clock, 0);
    config.fallbacks.push_back(config_for(second, clock, 0));
    config.fallbacks[0].model = "other";
    config.fallbacks[0].http = nullptr;
    return LLMClient(std::move(config));
  }
  FakeClock clock;
  RawServer first, second;
};

TEST(LLMClientFallback, TheNextIsAskedWhenThisOneCannotAnswer) {
  for (const std::string& failing :
       {answer(401, "{}"), answer(403, "{}"), answer(404, "{}"), answer(402, "{}"),
        answer(429, R"({"error":{"code":"insufficient_quota"}})"),
        answer(429, "{}", "Retry-After: 3600\r\n"), answer(500, "{}"),
        answer(400, R"({"error":{"code":"context_length_exceeded"}})"), answer(200, "<html>")}) {
    Fallback services({failing});
    const ChatResponse response = services.client().chat(question());
    EXPECT_EQ(response.content, "second") << failing;
    EXPECT_EQ(response.attempts, 2) << failing;
    EXPECT_EQ(response.endpoint, services.second.url("/v1")) << failing;
    EXPECT_EQ(Json::parse(services.second.requests().at(0).body)["model"], Json("other"));
  }
}

TEST(LLMClientFallback, WhatIsTheQuestionsOwnFaultEndsTheCall) {
  for (const std::string& refused :
       {answer(400, "{}"), answer(422, "{}"), answer(413, "{}"),
        answer(400, R"({"error":{"code":"content_filter"}})"), good_answer("")}) {
    Fallback services({refused});
    EXPECT_THROW(services.client().chat(question()), RunnerError) << refused;
    EXPECT_THAT(services.second.requests(), IsEmpty()) << refused;
  }
}

TEST(LLMClientFallback, TheLastOnesErrorIsToldWithItsName) {
  FakeClock clock;
  RawServer first(plays({answer(401, "{}")}));
  RawServer second(plays({answer(503, "{}")}));
  LLMConfig config = config_for(first, clock, 0);
  config.fallbacks.push_back(config_for(second, clock, 0));
  LLMClient client(std::move(config));
  try {
    client.chat(question());
    FAIL();
  } catch (const Unavailable& error) {
    EXPECT_EQ(error.info().status, 503);
    EXPECT_EQ(error.info().attempts, 2);
    EXPECT_THAT(error.info().target, HasSubstr(second.url("/v1")));
  }
}

TEST(LLMClientFallback, ListenerLearnsThatWhatBeganIsVoid) {
  FakeClock clock;
  RawServer first([](RawConnection& connection) {
    if (connection.read_request()) connection.send(kStreamHead + piece("fo"));
  });
  RawServer second([](RawConnection& connection) {
    if (connection.read_request()) connection.send(kGoodStream);
  });
  LLMConfig config = config_for(first, clock, 0);
  config.fallbacks.push_back(config_for(second, clock, 0));
  std::string told;
  const ChatResponse response =
      LLMClient(std::move(config)).stream(question(), [&](const llm::ChatDelta& delta) {
        told += delta.kind == llm::ChatDelta::Kind::kRestart ? "|" : std::string(delta.text);
      });
  EXPECT_EQ(response.content, "four");
  EXPECT_EQ(told, "fo|four");
}

TEST(LLMClientFallback, WhatIsToldIsTheLastOnesOwn) {
  FakeClock clock;
  RawServer first(plays({answer(404, "{}", "X-Request-Id: rid-404\r\n")}));
  const int nobody = RawServer([](RawConnection&) {}).port();
  LLMConfig config = config_for(first, clock, 0);
  config.fallbacks.push_back(config_for(first, clock, 0));
  config.fallbacks[0].endpoint = "http://127.0.0.1:" + std::to_string(nobody) + "/v1";
  LLMClient client(std::move(config));
  try {
    client.chat(question());
    FAIL();
  } catch (const Unavailable& error) {
    EXPECT_EQ(error.info().status, 0);
    EXPECT_EQ(error.info().request_id, "");
  }
}

TEST(LLMClientFallback, TimeToComeBackIsWorthMoreThanAFallbackOutOfReach) {
  FakeClock clock;
  RawServer first(plays({answer(429, "{}", "Retry-After: 400\r\n")}));
  const int nobody = RawServer([](RawConnection&) {}).port();
  LLMConfig config = config_for(first, clock, 0);
  config.fallbacks.push_back(config_for(first, clock, 0));
  config.fallbacks[0].endpoint = "http://127.0.0.1:" + std::to_string(nobody) + "/v1";
  LLMClient client(std::move(config));
  try {
    client.chat(question());
    FAIL();
  } catch (const RateLimited& error) {
    EXPECT_TRUE(error.info().retry_at);
    EXPECT_EQ(error.info().status, 429);
    EXPECT_THAT(error.info().target, HasSubstr(first.url("/v1")));
  }
}

// A service may be told another's key by what it is sent, or guess it.
TEST(LLMClientFallback, KeysOfAllAreMaskedInWhatAnyOfThemSays) {
  const std::string second_key = "sk-second-9876543210zyxwv";
  FakeClock clock;
  RawServer first(plays({answer(401, R"({"error":{"message":"no"}})")}));
  RawServer second(
      plays({answer(400, R"({"error":{"message":"I know )" + kKey + " and " + second_key + R"("}})",
                    "X-Request-Id: " + kKey + "\r\n")}));
  LLMConfig config = config_for(first, clock, 0);
  config.fallbacks.push_back(config_for(second, clock, 0));
  config.fallbacks[0].api_key = Secret(second_key);
  config.fallbacks[0].endpoint = second.url("/v1");
  LLMClient client(std::move(config));
  try {
    client.chat(question());
    FAIL();
  } catch (const ServiceError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("I know ***"), Not(HasSubstr(kKey)), Not(HasSubstr(second_key))));
    EXPECT_THAT(error.info().request_id, Not(HasSubstr(kKey)));
  }
}

TEST(LLMClient, LessonThatDidNotHelpIsNotKept) {
  FakeClock clock;
  const std::string refusal =
      answer(400, R"({"error":{"message":"Unsupported parameter: temperature"}})");
  RawServer server(plays({refusal, refusal, good_answer("four")}));
  LLMClient client(config_for(server, clock));
  EXPECT_THROW(client.chat(question()), ServiceError);
  EXPECT_EQ(client.capabilities()["temperature"], Json(true));
  client.chat(question());
  EXPECT_TRUE(Json::parse(server.requests().at(2).body).find("temperature"));
}

TEST(LLMClientFallback, DefectsOfAFallbackAreNamedWithItsPlace) {
  LLMConfig config;
  config.fallbacks.resize(2);
  config.fallbacks[1].endpoint = "ftp://x";
  config.fallbacks[1].provider = "gopher";
  config.requests_per_minute = -1;
  try {
    LLMClient client(std::move(config));
    FAIL();
  } catch (const ConfigError& error) {
    std::vector<std::string> names;
    for (const FieldError& field : error.info().fields) names.push_back(field.pointer);
    EXPECT_THAT(names, ElementsAre("llm.requests_per_minute", "llm.fallbacks.1.endpoint",
                                   "llm.fallbacks.1.provider"));
  }
}

// ---- rates, caps, reports -----------------------------------------------------------------------

TEST(LLMClient, A429DelaysEveryCallerOfTheKey) {
  FakeClock clock;
  RawServer server(plays({answer(429, "{}", "Retry-After: 30\r\n"), good_answer("late")}));
  LLMConfig config = config_for(server, clock, 0);
  LLMClient client(std::move(config));
  EXPECT_THROW(client.chat(question()), RateLimited);
  const SteadyTime before = clock.steady_now();
  EXPECT_EQ(client.chat(question()).content, "late");
  EXPECT_GE(clock.steady_now() - before, std::chrono::seconds(30));
}

TEST(LLMClient, RateBeyondTheDeadlineIsToldAtOnceAndNothingSent) {
  FakeClock clock;
  RawServer server(plays({good_answer("one"), good_answer("two")}));
  LLMConfig config = config_for(server, clock);
  config.requests_per_minute = 1;
  LLMClient client(std::move(config));
  client.chat(question());
  try {
    client.chat(question(), CallContext{}.within(std::chrono::seconds(10), clock));
    FAIL();
  } catch (const RateLimited& error) {
    EXPECT_EQ(error.info().end, CallEnd::kDeadline);
    EXPECT_TRUE(error.info().retry_at);
    EXPECT_EQ(error.info().attempts, 0);
  }
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST(LLMClient, CostIsKnownAndTheCapStopsTheNextCall) {
  FakeClock clock;
  RawServer server(plays({good_answer("one"), good_answer("two")}));
  LLMConfig config = config_for(server, clock);
  // 1,000 tokens at 2 and 500 at 10 dollars a million; the answer's dated name is of the family.
  config.prices =
      std::make_shared<llm::PriceTable>(Json::parse(R"({"gpt-4":{"input":2,"output":10}})"));
  LLMClient client(std::move(config));
  llm::Spending spending({0.005, 0});
  EXPECT_DOUBLE_EQ(client.chat(question(), {}, &spending).usage.cost_usd.value(), 0.007);
  try {
    client.chat(question(), {}, &spending);
    FAIL();
  } catch (const llm::SpendCapReached& error) {
    EXPECT_EQ(error.info().service, "llm");
    EXPECT_EQ(error.info().end, CallEnd::kPermanent);
  }
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST(LLMClient, EachCallIsOneReportAndASpan) {
  FakeClock clock;
  RawServer server(plays({good_answer("one"), answer(401, "{}")}));
  LLMConfig config = config_for(server, clock);
  std::vector<llm::ModelCallReport> reports;
  config.on_call = [&](const llm::ModelCallReport& report) { reports.push_back(report); };
  LLMClient client(std::move(config));
  CallContext context;
  context.traceparent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
  client.chat(question(), context);
  EXPECT_THROW(client.chat(question()), Unauthorized);
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[0].service, "llm");
  EXPECT_EQ(reports[0].operation, "chat");
  EXPECT_EQ(reports[0].usage.total_tokens, 1500);
  EXPECT_EQ(reports[0].end, CallEnd::kNone);
  EXPECT_EQ(reports[0].parent_span_id, "0123456789abcdef");
  EXPECT_EQ(server.requests().at(0).headers.get("traceparent"),
            "00-0123456789abcdef0123456789abcdef-" + reports[0].span_id + "-01");
  EXPECT_EQ(reports[1].status, 401);
  EXPECT_EQ(reports[1].end, CallEnd::kPermanent);
  EXPECT_TRUE(reports[1].span_id.empty());
}

}  // namespace
}  // namespace necrocode
