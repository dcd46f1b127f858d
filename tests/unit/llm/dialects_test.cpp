// What each dialect sends, and what it makes of an answer, whole and in pieces; without a network.
#include "necrocode/llm/dialect.hpp"

#include <gmock/gmock.h>

#include <random>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/llm/answer_stream.hpp"
#include "necrocode/llm/llm_config.hpp"

namespace necrocode::llm {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

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
           {error_body("This model's maximum context length is 8192 tokens; response_format counts",
                       "context_length_exceeded"),
            all},
           {error_body("the prompt is empty"), all},
           {"", all},
       }) {
    EXPECT_EQ(learn(refusal(400, lesson.body), question(), true, all), lesson.learned)
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
                             R"({"choices":[{"message":{"content":"12345"}}])" + usage + "}", 200),
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
  const std::string deep(200'000, '[');
  EXPECT_THROW(read_whole(openai_chat(), deep + std::string(200'000, ']'), 200), InvalidResponse);
}

// ---- answers in pieces --------------------------------------------------------------------------

// An answer's bytes in pieces of random lengths, as a connection would bring them.
struct Stream {
  Stream(const Dialect& dialect, const ChatRequest& request = question())
      : asked(request), answer(dialect, asked, on_delta, std::chrono::seconds(60)) {
    answer.receive(http);
    begin("text/event-stream");
  }
  void begin(const std::string& type) {
    net::HttpResponse head;
    head.status = 200;
    head.headers.set("Content-Type", type);
    http.on_head(head);
  }
  void feed(std::string_view bytes, unsigned seed = 0) {
    std::minstd_rand random(seed + 1);
    while (!bytes.empty()) {
      const std::size_t size =
          seed == 0 ? bytes.size() : std::min<std::size_t>(bytes.size(), random() % 40 + 1);
      http.on_body(bytes.substr(0, size));
      bytes.remove_prefix(size);
    }
  }
  Completion whole(std::string_view bytes, unsigned seed = 0) {
    feed(bytes, seed);
    EXPECT_FALSE(answer.broke_off());
    return answer.finish();
  }

  ChatRequest asked;
  std::string told;  // text; <reasoning>; [call n: arguments]; |restart|
  OnDelta on_delta = [this](const ChatDelta& delta) {
    const std::string text(delta.text);
    if (delta.kind == ChatDelta::Kind::kText) told += text;
    if (delta.kind == ChatDelta::Kind::kReasoning) told += "<" + text + ">";
    if (delta.kind == ChatDelta::Kind::kToolCall)
      told += "[" + std::to_string(delta.tool_call) + ":" + text + "]";
    if (delta.kind == ChatDelta::Kind::kRestart) told += "|restart|";
  };
  net::HttpRequest http;
  AnswerStream answer;
};

constexpr const char* kChatStream = R"(: OPENROUTER PROCESSING

data: {"id":"1","model":"gpt-4-0613","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}

data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}

data: {"choices":[{"index":0,"delta":{"content":"Größe "}}]}

data: {"choices":[{"index":0,"delta":{"content":"4\n"}}]}

data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}

data: [DONE]

)";

TEST(OpenAiChat, StreamIsReadHoweverItIsCut) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    Stream stream(openai_chat());
    const Completion answer = stream.whole(kChatStream, seed);
    EXPECT_EQ(answer.content, "Größe 4\n");
    EXPECT_EQ(answer.reasoning, "hm");
    EXPECT_EQ(answer.model, "gpt-4-0613");
    EXPECT_EQ(answer.finish_reason, "stop");
    EXPECT_EQ(usage_of(answer, question()).total_tokens, 10);
    EXPECT_EQ(stream.told, "<hm>Größe 4\n");
  }
}

TEST(OpenAiChat, ToolCallsInPiecesAreJoinedByTheirNumbers) {
  Stream stream(openai_chat(), conversation());
  const Completion answer = stream.whole(
      R"(data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":""}}]}}]}

data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}},{"index":1,"id":"c2","function":{"name":"g","arguments":"{}"}}]}}]}

data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":":1}"}}]}}]}

data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}

)");
  const ChatResponse response = to_response(answer, conversation());
  ASSERT_EQ(response.tool_calls.size(), 2u);
  EXPECT_EQ(response.tool_calls[0].name, "f");
  EXPECT_EQ(response.tool_calls[0].arguments, R"({"a":1})");
  EXPECT_EQ(response.tool_calls[1].id, "c2");
  EXPECT_EQ(stream.told, R"([0:][0:{"a"][1:{}][0::1}])");
}

TEST(OpenAiChat, ToolCallsWithoutNumbersAreCallsOfTheirOwn) {
  Stream stream(openai_chat(), conversation());
  const Completion answer = stream.whole(
      R"(data: {"choices":[{"delta":{"tool_calls":[{"id":"c1","function":{"name":"f","arguments":"{}"}},{"id":"c2","function":{"name":"f","arguments":"{\"a\":2}"}}]},"finish_reason":"tool_calls"}]}

)");
  ASSERT_EQ(answer.tool_calls.size(), 2u);
  EXPECT_EQ(answer.tool_calls[1].arguments, R"({"a":2})");
}

constexpr const char* kResponsesStream = R"(event: response.created
data: {"type":"response.created","response":{"id":"r","status":"in_progress","error":null,"output":[]}}

event: response.output_item.added
data: {"type":"response.output_item.added","output_index":0,"item":{"type":"message","content":[]}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"fo"}

event: response.output_text.delta
data: {"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"ur"}

event: response.output_item.added
data: {"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"c1","name":"f","arguments":""}}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","output_index":1,"delta":"{\"a\":1}"}

event: response.completed
data: {"type":"response.completed","response":{"status":"completed","model":"gpt-5","output":[{"type":"message","content":[{"type":"output_text","text":"four"}]}],"usage":{"input_tokens":9,"output_tokens":4,"total_tokens":13}}}

)";

TEST(OpenAiResponses, StreamIsReadHoweverItIsCut) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    Stream stream(openai_responses(), conversation());
    const Completion answer = stream.whole(kResponsesStream, seed);
    EXPECT_EQ(answer.content, "four");
    ASSERT_EQ(answer.tool_calls.size(), 1u);
    EXPECT_EQ(answer.tool_calls[0].arguments, R"({"a":1})");
    EXPECT_EQ(answer.finish, Finish::kToolCalls);
    EXPECT_EQ(answer.counts.total, 13);
    EXPECT_EQ(stream.told, R"(four[0:][0:{"a":1}])");
  }
}

TEST(OpenAiResponses, OutputOfTheLastEventCountsWhereNoOtherCame) {
  Stream stream(openai_responses());
  const Completion answer = stream.whole(
      R"(data: {"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[{"type":"message","content":[{"type":"output_text","text":"fou"}]}]}}

)");
  EXPECT_EQ(answer.content, "fou");
  EXPECT_EQ(answer.finish, Finish::kLength);
  EXPECT_EQ(stream.told, "fou");
}

TEST(Anthropic, CountsAtTheEndReplaceThoseThatTheyName) {
  Stream stream(anthropic());
  const Completion answer = stream.whole(
      "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,"
      "\"cache_read_input_tokens\":100}}}\n\n"
      "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{"
      "\"cache_creation_input_tokens\":20,\"output_tokens\":7}}\n\n");
  EXPECT_EQ(answer.counts.prompt, 125);
  EXPECT_EQ(answer.counts.cached, 100);
  EXPECT_EQ(answer.counts.completion, 7);
}

constexpr const char* kAnthropicStream = R"(event: message_start
data: {"type":"message_start","message":{"id":"m","model":"claude","content":[],"usage":{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"four"}}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t1","name":"f","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"1}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}

event: message_stop
data: {"type":"message_stop"}

)";

TEST(Anthropic, StreamIsReadHoweverItIsCut) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    Stream stream(anthropic(), conversation());
    const Completion answer = stream.whole(kAnthropicStream, seed);
    EXPECT_EQ(answer.content, "four");
    EXPECT_EQ(answer.reasoning, "hm");
    ASSERT_EQ(answer.tool_calls.size(), 1u);
    EXPECT_EQ(answer.tool_calls[0].id, "t1");
    EXPECT_EQ(answer.tool_calls[0].arguments, R"({"a":1})");
    EXPECT_EQ(answer.finish_reason, "tool_use");
    EXPECT_EQ(usage_of(answer, question()).prompt_tokens, 7);
    EXPECT_EQ(usage_of(answer, question()).completion_tokens, 9);
    EXPECT_EQ(stream.told, R"(<hm>four[0:][0:{"a":][0:1}])");
  }
}

TEST(AnswerStream, EndWithoutAFinishBrokeOff) {
  for (const Dialect* dialect : {&openai_chat(), &openai_responses(), &anthropic()}) {
    Stream stream(*dialect);
    EXPECT_TRUE(stream.answer.broke_off());
  }
  Stream stream(openai_chat());
  stream.feed("data: {\"choices\":[{\"delta\":{\"content\":\"fo\"}}]}\n\ndata: [DONE]\n\n");
  EXPECT_TRUE(stream.answer.broke_off());
  EXPECT_EQ(stream.answer.so_far().content, "fo");
  EXPECT_EQ(stream.answer.spent().completion_tokens, 1);
  EXPECT_TRUE(stream.answer.spent().estimated);
}

TEST(AnswerStream, AnotherAttemptBeginsAnew) {
  Stream stream(openai_chat());
  stream.feed("data: {\"choices\":[{\"delta\":{\"content\":\"fo\"}}]}\n\ndata: {\"cho");
  net::Headers headers;
  stream.http.on_restart(headers);
  stream.begin("text/event-stream");
  const Completion answer = stream.whole(kChatStream);
  EXPECT_EQ(answer.content, "Größe 4\n");
  EXPECT_EQ(stream.told, "fo|restart|<hm>Größe 4\n");
  EXPECT_EQ(stream.answer.lost().completion_tokens, 1);
}

TEST(AnswerStream, ServiceThatDoesNotStreamIsReadWhole) {
  Stream stream(openai_chat());
  stream.begin("application/json");
  const Completion answer =
      stream.whole(R"({"choices":[{"message":{"content":"four"},"finish_reason":"stop"}]})", 3);
  EXPECT_EQ(answer.content, "four");
  EXPECT_EQ(stream.told, "four");
  // Events that are not called so.
  Stream unnamed(openai_chat());
  unnamed.begin("text/plain");
  EXPECT_EQ(unnamed.whole(kChatStream).content, "Größe 4\n");
  // A page instead of an answer.
  Stream page(openai_chat());
  page.begin("text/html");
  page.feed("<!doctype html>");
  EXPECT_FALSE(page.answer.broke_off());
  EXPECT_THROW(page.answer.finish(), InvalidResponse);
}

// What an attempt fails with, as the transport would.
net::TransportFailure failure_of(Stream& stream, std::string_view bytes) {
  try {
    stream.feed(bytes);
  } catch (const net::TransportError& error) {
    EXPECT_EQ(error.delivery(), net::Delivery::kResponseStarted);
    return error.failure();
  }
  ADD_FAILURE() << "it did not fail";
  return net::TransportFailure::kInvalid;
}

TEST(AnswerStream, FailureInTheMiddleIsRetriedOrTyped) {
  Stream busy(anthropic());
  EXPECT_EQ(failure_of(busy,
                       "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":"
                       "\"overloaded_error\",\"message\":\"busy\"}}\n\n"),
            net::TransportFailure::kReset);
  ASSERT_TRUE(busy.answer.failure());
  EXPECT_EQ(busy.answer.failure()->message, "busy");
  Stream provider(openai_chat());
  EXPECT_EQ(
      failure_of(provider, "data: {\"choices\":[{\"delta\":{},\"error\":{\"code\":502}}]}\n\n"),
      net::TransportFailure::kReset);
  Stream vllm(openai_chat());
  EXPECT_THROW(vllm.feed("data: {\"object\":\"error\",\"message\":\"no\",\"code\":400}\n\n"),
               ServiceError);
  Stream failed(openai_responses());
  EXPECT_EQ(failure_of(failed,
                       "data: {\"type\":\"response.failed\",\"response\":{\"status\":"
                       "\"failed\",\"error\":{\"code\":\"server_error\"}}}\n\n"),
            net::TransportFailure::kReset);
  Stream refused(openai_chat());
  EXPECT_THROW(refused.feed("data: {\"error\":{\"code\":\"context_length_exceeded\"}}\n\n"),
               ContextLengthExceeded);
}

TEST(AnswerStream, WhatIsNoEventIsMalformed) {
  for (const char* bad : {"data: {\n\n", "data: 1\n\n", "data: \xff\xfe\n\n", "data: {}x\n\n"}) {
    Stream stream(openai_chat());
    EXPECT_EQ(failure_of(stream, bad), net::TransportFailure::kMalformed) << bad;
  }
}

TEST(AnswerStream, EndlessAnswerEndsAtTheLimit) {
  Stream stream(openai_chat());
  const std::string piece =
      "data: {\"choices\":[{\"delta\":{\"content\":\"" + std::string(1 << 20, 'x') + "\"}}]}\n\n";
  for (int i = 0; i < 16; ++i) stream.feed(piece);
  EXPECT_EQ(failure_of(stream, piece), net::TransportFailure::kTooLarge);
  Stream calls(openai_chat());
  for (std::size_t i = 0; i < kToolCallsMax; ++i) {
    calls.feed("data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":" + std::to_string(i) +
               ",\"id\":\"c\",\"function\":{\"name\":\"f\"}}]}}]}\n\n");
  }
  Stream whole(openai_chat());
  whole.begin("application/json");
  whole.feed(std::string(limits::kModelAnswerBytes, ' '));
  EXPECT_EQ(failure_of(whole, " "), net::TransportFailure::kTooLarge);
}

TEST(AnswerStream, OnlyContentIsProgress) {
  Stream stream(openai_chat());
  const SteadyTime begun = *stream.http.progress_deadline;
  stream.feed(": still here\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n\n");
  EXPECT_EQ(*stream.http.progress_deadline, begun);
  stream.feed("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n");
  EXPECT_GT(*stream.http.progress_deadline, begun);
}

}  // namespace
}  // namespace necrocode::llm
