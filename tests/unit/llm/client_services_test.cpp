// LLMClient and the services it may ask: dialects and addresses, fallbacks, rates, caps, and what
// is told of a call.
#include <gmock/gmock.h>

#include <thread>

#include "client_fixture.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/llm/capabilities.hpp"
#include "necrocode/llm/model_metrics.hpp"
#include "necrocode/llm/prices.hpp"

namespace necrocode {
namespace {

using namespace test;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

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

// Where nobody listens any more.
std::string nobodys_endpoint() {
  return RawServer([](RawConnection&) {}).url("/v1");
}

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
  LLMConfig config = config_for(first, clock, 0);
  config.fallbacks.push_back(config_for(first, clock, 0));
  config.fallbacks[0].endpoint = nobodys_endpoint();
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
  LLMConfig config = config_for(first, clock, 0);
  config.fallbacks.push_back(config_for(first, clock, 0));
  config.fallbacks[0].endpoint = nobodys_endpoint();
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
