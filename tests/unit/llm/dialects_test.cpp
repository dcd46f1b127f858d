// What each dialect sends, and what it makes of a whole answer; without a network.
#include "necrocode/llm/dialect.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/llm/answer_stream.hpp"

namespace necrocode::llm {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

ChatRequest question() {
  ChatRequest request;
  request.messages = {{"system", "Be brief."}, {"user", "Two and two?"}};
  request.max_tokens = 100;
  request.temperature = 0.5;
  request.json_schema = Json::object({{"type", "object"}});
  return request;
}

// A conversation in which a tool was called.
ChatRequest conversation() {
  ChatRequest request;
  request.messages = {
      {"system", "Be brief."},
      {"user", "Weather in Rome and Oslo?"},
      {"assistant",
       "",
       {{"c1", "weather", R"({"city":"Rome"})"}, {"c2", "weather", R"({"city":"Oslo"})"}}},
      {"tool", "21", {}, "c1"},
      {"tool", "4", {}, "c2"}};
  request.max_tokens = 100;
  request.tools = {{"weather", "Tells it.", Json::object({{"type", "object"}})}};
  request.tool_choice = "weather";
  return request;
}

Json body(const Dialect& dialect, const ChatRequest& request, const Capabilities& capabilities = {},
          bool stream = false) {
  return Json::parse(dialect.request_body(request, "m", capabilities, stream));
}

TEST(OpenAiChat, RequestHoldsWhatTheEndpointCan) {
  EXPECT_EQ(
      openai_chat().request_body(question(), "gpt-4", {}, false),
      R"({"model":"gpt-4","messages":[{"role":"system","content":"Be brief."},)"
      R"({"role":"user","content":"Two and two?"}],"stream":false,)"
      R"("max_tokens":100,"temperature":0.5,)"
      R"("response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,)"
      R"("schema":{"type":"object"}}}})");
  Capabilities less{Format::kJsonObject, false, false};
  EXPECT_THAT(openai_chat().request_body(question(), "o", less, false),
              EndsWith(R"("stream":false,"max_completion_tokens":100,)"
                       R"("response_format":{"type":"json_object"}})"));
  less = {Format::kText, true, false};
  EXPECT_THAT(openai_chat().request_body(question(), "o", less, true),
              EndsWith(R"("stream":true,"stream_options":{"include_usage":true},)"
                       R"("max_tokens":100})"));
  less.stream_options = false;
  EXPECT_THAT(openai_chat().request_body(question(), "o", less, true),
              EndsWith(R"("stream":true,"max_tokens":100})"));
}

TEST(OpenAiChat, ToolsAndTheirCallsAreSent) {
  const Json sent = body(openai_chat(), conversation());
  EXPECT_EQ(sent["messages"].items()[2].dump(),
            R"({"role":"assistant","content":null,"tool_calls":[)"
            R"({"id":"c1","type":"function","function":{"name":"weather",)"
            R"("arguments":"{\"city\":\"Rome\"}"}},)"
            R"({"id":"c2","type":"function","function":{"name":"weather",)"
            R"("arguments":"{\"city\":\"Oslo\"}"}}]})");
  EXPECT_EQ(sent["messages"].items()[3].dump(),
            R"({"role":"tool","content":"21","tool_call_id":"c1"})");
  EXPECT_EQ(sent["tools"].dump(),
            R"([{"type":"function","function":{"name":"weather","description":"Tells it.",)"
            R"("parameters":{"type":"object"}}}])");
  EXPECT_EQ(sent["tool_choice"].dump(), R"({"type":"function","function":{"name":"weather"}})");
  ChatRequest required = conversation();
  required.tool_choice = "required";
  EXPECT_EQ(body(openai_chat(), required)["tool_choice"], Json("required"));
}

TEST(OpenAiResponses, RequestKeepsNothingAtTheService) {
  EXPECT_EQ(openai_responses().request_body(question(), "m", {}, true),
            R"({"model":"m","input":[{"role":"system","content":"Be brief."},)"
            R"({"role":"user","content":"Two and two?"}],"stream":true,"store":false,)"
            R"("max_output_tokens":100,"temperature":0.5,)"
            R"("text":{"format":{"type":"json_schema","name":"answer","strict":true,)"
            R"("schema":{"type":"object"}}}})");
  const Json sent = body(openai_responses(), conversation());
  EXPECT_EQ(sent["input"].items()[2].dump(),
            R"({"type":"function_call","call_id":"c1","name":"weather",)"
            R"("arguments":"{\"city\":\"Rome\"}"})");
  EXPECT_EQ(sent["input"].items()[4].dump(),
            R"({"type":"function_call_output","call_id":"c1","output":"21"})");
  EXPECT_EQ(sent["tools"].dump(),
            R"([{"type":"function","name":"weather","description":"Tells it.",)"
            R"("parameters":{"type":"object"},"strict":false}])");
  EXPECT_EQ(sent["tool_choice"].dump(), R"({"type":"function","name":"weather"})");
  EXPECT_EQ(body(openai_responses(), question(), {Format::kJsonObject})["text"].dump(),
            R"({"format":{"type":"json_object"}})");
}

TEST(Anthropic, RequestAlternatesItsTurnsAndForcesTheSchema) {
  const Json sent = body(anthropic(), question());
  EXPECT_EQ(sent["system"], Json("Be brief."));
  EXPECT_EQ(sent["messages"].dump(),
            R"([{"role":"user","content":[{"type":"text","text":"Two and two?"}]}])");
  EXPECT_EQ(sent["tools"].items()[0]["input_schema"].dump(), R"({"type":"object"})");
  EXPECT_EQ(sent["tool_choice"]["type"], Json("tool"));
  EXPECT_FALSE(body(anthropic(), question(), {Format::kJsonObject}).find("tools"));
  ChatRequest hot = question();
  hot.temperature = 1.7;
  EXPECT_EQ(body(anthropic(), hot)["temperature"].as_double(), 1.0);

  const Json talk = body(anthropic(), conversation());
  ASSERT_EQ(talk["messages"].size(), 3u);
  EXPECT_EQ(talk["messages"].items()[1].dump(),
            R"({"role":"assistant","content":[)"
            R"({"type":"tool_use","id":"c1","name":"weather","input":{"city":"Rome"}},)"
            R"({"type":"tool_use","id":"c2","name":"weather","input":{"city":"Oslo"}}]})");
  EXPECT_EQ(talk["messages"].items()[2].dump(),
            R"({"role":"user","content":[)"
            R"({"type":"tool_result","tool_use_id":"c1","content":"21"},)"
            R"({"type":"tool_result","tool_use_id":"c2","content":"4"}]})");
  EXPECT_EQ(talk["tool_choice"].dump(), R"({"type":"tool","name":"weather"})");
  ChatRequest any = conversation();
  any.tool_choice = "required";
  EXPECT_EQ(body(anthropic(), any)["tool_choice"].dump(), R"({"type":"any"})");
}

net::HttpResponse refusal(int status, std::string text) {
  net::HttpResponse response;
  response.status = status;
  response.body = std::move(text);
  return response;
}

std::string error_body(const std::string& message, const std::string& code = {},
                       const std::string& param = {}) {
  return Json::object(
             {{"error", Json::object({{"message", message}, {"code", code}, {"param", param}})}})
      .dump();
}

struct Lesson {
  std::string body;
  Capabilities learned;
};

Capabilities without_stream() {
  Capabilities less;
  less.stream = false;
  return less;
}

Capabilities without_stream_options() {
  Capabilities less;
  less.stream_options = false;
  return less;
}

TEST(Dialect, A400TeachesWhatTheEndpointRefuses) {
  const Capabilities all;
  const Capabilities object{Format::kJsonObject, true, true};
  const Capabilities other_limit{Format::kJsonSchema, false, true};
  const Capabilities no_temperature{Format::kJsonSchema, true, false};
  for (const Lesson& lesson : std::vector<Lesson>{
           {error_body(
                "Invalid parameter: 'response_format' of type 'json_schema' is not supported"),
            object},
           {error_body("bad request", "unknown_parameter", "response_format"), object},
           {"guided decoding: json_schema is off", object},
           {error_body("Unsupported parameter: 'text.format'", "unsupported_parameter"), object},
           {error_body("tool_choice: forcing a tool is not possible with thinking"), object},
           {error_body("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                       "'max_completion_tokens' instead.",
                       "unsupported_parameter", "max_tokens"),
            other_limit},
           {error_body("max_tokens is too large: 32000. This model supports at most 16384 "
                       "completion tokens",
                       "invalid_value", "max_tokens"),
            all},
           {error_body("Unsupported value: 'temperature' does not support 0.2 with this model.",
                       "unsupported_value", "temperature"),
            no_temperature},
           {error_body("`temperature` is deprecated for this model."), no_temperature},
           {error_body("temperature must be a number"), all},
           {error_body("Unrecognized request argument supplied: stream_options"),
            without_stream_options()},
           {error_body("Your organization must be verified to stream this model.",
                       "unsupported_value", "stream"),
            without_stream()},
           {error_body("this server does not stream; send \"stream\": false"), without_stream()},
           {error_body("the upstream service is not there"), all},
           {error_body("Your account is not active. Please check 'stream' billing"), all},
           {error_body("Your temperature is fine. See https://support.example.com"), all},
           {error_body("Invalid schema for response_format 'answer': 'x' is not a type",
                       "invalid_request_error", "response_format"),
            all},
           {R"({"object":"error","message":{"detail":[{"type":"extra_forbidden",
              "loc":["body","stream_options","include_usage"],
              "msg":"Extra inputs are not permitted"}]}})",
            without_stream_options()},
           {R"({"detail":[{"type":"extra_forbidden","loc":["body","temperature"],"msg":"no"}]})",
            no_temperature},
           {error_body("JSON schema conversion failed: Unrecognized schema"), object},
           {error_body("'messages' must contain the word 'json' to use 'response_format' of type "
                       "'json_object'",
                       "invalid_request_error", "messages"),
            object},
           {"Bad Request: " + std::string(400, 'x') + R"({"response_format":{}})", all},
           {error_body("Unsupported: temperature, response_format", "unsupported_value", "seed"),
            all},
           {error_body("This model's maximum context length is 8192 tokens; response_format counts",
                       "context_length_exceeded"),
            all},
           {error_body("the prompt is empty"), all},
           {"", all},
       }) {
    EXPECT_EQ(learn(refusal(400, lesson.body), question(), true, all), lesson.learned)
        << lesson.body;
    EXPECT_EQ(learn(refusal(422, lesson.body), question(), true, all), lesson.learned)
        << lesson.body;
    EXPECT_EQ(learn(refusal(500, lesson.body), question(), true, all), all) << lesson.body;
  }
  // What was not asked for was not refused.
  EXPECT_EQ(learn(refusal(400, error_body("x", "", "stream")), question(), false, all), all);
}

TEST(Dialect, LessonsGoDownStepByStepAndEnd) {
  const auto refused = refusal(400, error_body("response_format is not supported"));
  const Capabilities object = learn(refused, question(), false, {});
  const Capabilities text = learn(refused, question(), false, object);
  EXPECT_EQ(text.format, Format::kText);
  EXPECT_EQ(learn(refused, question(), false, text), text);
  ChatRequest plain = question();
  plain.json_schema = nullptr;
  EXPECT_EQ(learn(refused, plain, false, {}), Capabilities{});
}

TEST(Dialect, IsFoundByItsName) {
  EXPECT_EQ(find_dialect("openai-chat"), &openai_chat());
  EXPECT_EQ(find_dialect("openai-responses"), &openai_responses());
  EXPECT_EQ(find_dialect("anthropic"), &anthropic());
  EXPECT_EQ(find_dialect("OpenAI"), nullptr);
  EXPECT_EQ(known_dialects(), "openai-chat, openai-responses, anthropic");
}

// ---- whole answers ------------------------------------------------------------------------------

Usage usage_in(const std::string& usage) {
  return usage_of(read_whole(openai_chat(),
                             R"({"choices":[{"finish_reason":"stop",
    "message":{"content":"12345"}}])" +
                                 usage + "}",
                             200),
                  question());
}

TEST(OpenAiChat, UsageIsReadOrEstimated) {
  const Usage given =
      usage_in(R"(,"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,
    "prompt_tokens_details":{"cached_tokens":4},
    "completion_tokens_details":{"reasoning_tokens":2}})");
  EXPECT_EQ(given.to_json().dump(),
            R"({"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"cached_tokens":4,)"
            R"("cache_write_tokens":0,"reasoning_tokens":2,"estimated":false,"cost_usd":null})");
  // 4 + 6 + 9 + 12 bytes of roles and contents; 5 bytes of answer.
  for (const char* none :
       {"", R"(,"usage":null)", R"(,"usage":{})", R"(,"usage":[])", R"(,"usage":"x")",
        R"(,"usage":{"prompt_tokens":-1,"completion_tokens":1e300})",
        R"(,"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0})",
        R"(,"usage":{"prompt_tokens":9000000000000000000,"completion_tokens":null})"}) {
    const Usage estimate = usage_in(none);
    EXPECT_TRUE(estimate.estimated) << none;
    EXPECT_EQ(estimate.prompt_tokens, 8) << none;
    EXPECT_EQ(estimate.completion_tokens, 2) << none;
    EXPECT_EQ(estimate.total_tokens, 10) << none;
  }
}

TEST(OpenAiChat, ContentIsAStringOrParts) {
  const Completion answer =
      read_whole(openai_chat(), R"({"model":"m","choices":[{"finish_reason":"stop","message":
    {"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]})",
                 200);
  EXPECT_EQ(answer.content, "ab");
  EXPECT_EQ(answer.finish, Finish::kStop);
}

TEST(OpenAiChat, ReasoningAndToolCallsAreRead) {
  const Completion answer = read_whole(openai_chat(), R"({"choices":[{"finish_reason":"tool_calls",
    "message":{"content":null,"reasoning_content":"hm","tool_calls":[
      {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},
      {"id":"","type":"function","function":{"name":"g","arguments":{"b":2}}}]}}]})",
                                       200);
  EXPECT_EQ(answer.reasoning, "hm");
  ASSERT_EQ(answer.tool_calls.size(), 2u);
  EXPECT_EQ(answer.tool_calls[0].arguments, R"({"a":1})");
  EXPECT_EQ(answer.tool_calls[1].arguments, R"({"b":2})");
  ChatRequest request = conversation();
  EXPECT_EQ(to_response(answer, request).tool_calls[1].id, "call_1");
  // Calls that nobody asked for are no answer.
  EXPECT_THROW(to_response(answer, question()), ImplementationError);
}

TEST(OpenAiChat, WordsOfTheEndThatNobodyKnowsAreNoSuccess) {
  const auto end = [](const std::string& word) {
    return read_whole(
        openai_chat(),
        R"({"choices":[{"finish_reason":")" + word + R"(","message":{"content":"half"}}]})", 200);
  };
  for (const char* good : {"stop", "eos", "end_turn"}) {
    EXPECT_EQ(to_response(end(good), question()).content, "half") << good;
  }
  for (const char* bad : {"abort", "error", "RECITATION", "MALFORMED_FUNCTION_CALL"}) {
    EXPECT_THROW(to_response(end(bad), question()), InvalidResponse) << bad;
  }
  for (const char* cut : {"length", "content_filter"}) {
    EXPECT_THROW(to_response(end(cut), question()), ImplementationError) << cut;
  }
}

TEST(OpenAiChat, ArgumentsThatAreNoObjectAreNoArguments) {
  const Completion answer = read_whole(openai_chat(), R"({"choices":[{"finish_reason":"tool_calls",
    "message":{"tool_calls":[{"id":"c","function":{"name":"f","arguments":[1]}}]}}]})",
                                       200);
  EXPECT_THROW(to_response(answer, conversation()), ImplementationError);
}

TEST(OpenAiResponses, WholeAnswerIsRead) {
  const Completion answer = read_whole(openai_responses(), R"({"id":"r","status":"completed",
    "model":"gpt-5-2026","error":null,"output":[
      {"type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]},
      {"type":"message","role":"assistant","content":[{"type":"output_text","text":"four"}]},
      {"type":"function_call","call_id":"c1","name":"f","arguments":"{}"}],
    "usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":3},"output_tokens":4,
      "output_tokens_details":{"reasoning_tokens":2},"total_tokens":13}})",
                                       200);
  EXPECT_EQ(answer.content, "four");
  EXPECT_EQ(answer.reasoning, "hm");
  EXPECT_EQ(answer.model, "gpt-5-2026");
  EXPECT_EQ(answer.finish, Finish::kToolCalls);
  const Usage usage = usage_of(answer, question());
  EXPECT_EQ(usage.total_tokens, 13);
  EXPECT_EQ(usage.cached_tokens, 3);
  EXPECT_EQ(usage.reasoning_tokens, 2);
}

TEST(Anthropic, WholeAnswerIsReadAndItsCacheCounted) {
  const Completion answer = read_whole(anthropic(), R"({"type":"message","model":"claude",
    "content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"four"},
      {"type":"tool_use","id":"t1","name":"f","input":{"a":[1,2]}}],
    "stop_reason":"tool_use","usage":{"input_tokens":5,"cache_read_input_tokens":100,
      "cache_creation_input_tokens":20,"output_tokens":7}})",
                                       200);
  EXPECT_EQ(answer.content, "four");
  EXPECT_EQ(answer.reasoning, "hm");
  ASSERT_EQ(answer.tool_calls.size(), 1u);
  EXPECT_EQ(answer.tool_calls[0].arguments, R"({"a":[1,2]})");
  const Usage usage = usage_of(answer, question());
  EXPECT_EQ(usage.prompt_tokens, 125);
  EXPECT_EQ(usage.cached_tokens, 100);
  EXPECT_EQ(usage.cache_write_tokens, 20);
  EXPECT_EQ(usage.total_tokens, 132);
}

TEST(Anthropic, TheForcedToolsInputIsTheContent) {
  const Json sent = body(anthropic(), question());
  const std::string name = sent["tool_choice"]["name"].string_or("");
  const Completion answer =
      read_whole(anthropic(),
                 R"({"content":[{"type":"tool_use","id":"t","name":")" + name +
                     R"(","input":{"a":1}}],"stop_reason":"tool_use"})",
                 200);
  EXPECT_EQ(answer.content, R"({"a":1})");
  EXPECT_TRUE(answer.tool_calls.empty());
}

struct NoAnswer {
  const Dialect* dialect;
  const char* body;
  const char* reason;
};

TEST(Dialect, WhatIsNoCompletionSaysWhy) {
  for (const NoAnswer& bad : std::vector<NoAnswer>{
           {&openai_chat(), "<html>", "web page"},
           {&openai_chat(), "{", "not JSON"},
           {&openai_chat(), "\xff", "not JSON"},
           {&openai_chat(), R"({"choices":[{"message":{"content":"\ud800"}}]})", "not JSON"},
           {&openai_chat(), "[]", "no JSON object"},
           {&openai_chat(), R"({"error":{"message":"busy"}})", "error under a status of success"},
           {&openai_chat(), R"({"choices":[]})", "no choices"},
           {&openai_chat(), R"({"choices":{}})", "no choices"},
           {&openai_chat(), R"({"choices":[{}]})", "no message"},
           {&openai_chat(), R"({"choices":[{"message":{"content":"half of"}}]})", "why it ended"},
           {&openai_chat(), R"({"choices":[{"finish_reason":null,"message":{"content":"a"}}]})",
            "why it ended"},
           {&openai_responses(), R"({"choices":[]})", "no output"},
           {&openai_responses(), R"({"output":[],"status":"in_progress"})", "ended response"},
           {&anthropic(), R"({"choices":[]})", "no content"},
           {&anthropic(), R"({"content":[{"type":"text","text":"a"}]})", "no stop_reason"},
       }) {
    try {
      read_whole(*bad.dialect, bad.body, 200);
      ADD_FAILURE() << bad.body;
    } catch (const InvalidResponse& error) {
      EXPECT_THAT(error.summary(), HasSubstr(bad.reason)) << bad.body;
      EXPECT_EQ(error.info().end, CallEnd::kPermanent);
    }
  }
  std::string calls = R"({"choices":[{"finish_reason":"tool_calls","message":{"tool_calls":[)";
  for (std::size_t i = 0; i <= kToolCallsMax; ++i) calls += R"({"function":{"name":"f"}},)";
  calls.back() = ']';
  EXPECT_THROW(read_whole(openai_chat(), calls + "}}]}", 200), InvalidResponse);
  std::string values = "[0";
  for (std::size_t i = 0; i <= limits::kJsonValues; ++i) values += ",0";
  EXPECT_THROW(read_whole(openai_chat(), values + "]", 200), InvalidResponse);
  const std::string deep(200'000, '[');
  EXPECT_THROW(read_whole(openai_chat(), deep + std::string(200'000, ']'), 200), InvalidResponse);
}

}  // namespace
}  // namespace necrocode::llm
