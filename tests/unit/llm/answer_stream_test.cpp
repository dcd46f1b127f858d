// Answers in pieces: each dialect's streams, however they are cut, and what may go wrong in them.
#include "necrocode/llm/answer_stream.hpp"

#include <gmock/gmock.h>

#include <random>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/llm/llm_config.hpp"

namespace necrocode::llm {
namespace {

ChatRequest question() {
  ChatRequest request;
  request.messages = {{"user", "Two and two?"}};
  return request;
}

// One in which tools may be called.
ChatRequest conversation() {
  ChatRequest request = question();
  request.tools = {{"f", "", Json::object()}, {"g", "", Json::object()}};
  return request;
}

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

std::string calls_of(const std::vector<std::string>& deltas) {
  Stream stream(openai_chat(), conversation());
  std::string bytes;
  for (const std::string& delta : deltas) {
    bytes += "data: {\"choices\":[{\"delta\":{\"tool_calls\":[" + delta + "]}}]}\n\n";
  }
  bytes += "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n";
  std::string told;
  for (const ToolCall& call : stream.whole(bytes).tool_calls) {
    told += call.id + " " + call.name + " " + call.arguments + ";";
  }
  return told;
}

// Seen of gateways before other dialects: each call counted as the first, or not at all.
TEST(OpenAiChat, ToolCallsAreToldApartByTheirIds) {
  EXPECT_EQ(calls_of({R"({"index":0,"id":"a","function":{"name":"read"}})",
                      R"({"index":0,"id":"b","function":{"name":"delete","arguments":"{\"p\":"}})",
                      R"({"index":0,"function":{"arguments":"1}"}})"}),
            "a read ;b delete {\"p\":1};");
  EXPECT_EQ(calls_of({R"({"id":"a","function":{"name":"read","arguments":"{}"}})",
                      R"({"id":"b","function":{"name":"delete","arguments":"{\"p\":"}})",
                      R"({"function":{"arguments":"1}"}})"}),
            "a read {};b delete {\"p\":1};");
  EXPECT_EQ(calls_of({R"({"function":{"name":"read","arguments":"{}"}})",
                      R"({"function":{"name":"read","arguments":"{}"}})"}),
            " read {}; read {};");
  // Older vLLM makes up an id for each piece.
  EXPECT_EQ(calls_of({R"({"index":0,"id":"a","function":{"name":"read"}})",
                      R"({"index":0,"id":"b","function":{"arguments":"{\"p\":"}})",
                      R"({"index":0,"id":"c","function":{"arguments":"1}"}})"}),
            "a read {\"p\":1};");
}

TEST(OpenAiChat, ToolCallsWithoutNumbersAreCallsOfTheirOwn) {
  Stream stream(openai_chat(), conversation());
  const Completion answer = stream.whole(
      R"(data: {"choices":[{"delta":{"tool_calls":[{"id":"c1","function":{"name":"f","arguments":"{}"}},{"id":"c2","function":{"name":"f","arguments":"{\"a\":2}"}}]},"finish_reason":"tool_calls"}]}

data: [DONE]

)");
  ASSERT_EQ(answer.tool_calls.size(), 2u);
  EXPECT_EQ(answer.tool_calls[1].arguments, R"({"a":2})");
}

TEST(OpenAiResponses, TheResponseAtTheEndCounts) {
  Stream stream(openai_responses(), conversation());
  const Completion answer =
      stream.whole(R"(data: {"type":"response.output_text.delta","output_index":0,"delta":"hel"}

data: {"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"c1","name":"f","arguments":""}}

data: {"type":"response.completed","response":{"status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"hello"}]},{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1}"}]}}

)");
  EXPECT_EQ(answer.content, "hello");
  ASSERT_EQ(answer.tool_calls.size(), 1u);
  EXPECT_EQ(answer.tool_calls[0].arguments, R"({"a":1})");
}

TEST(OpenAiResponses, ArgumentsAtTheirEndCountWhereTheResponseTellsNoOutput) {
  Stream stream(openai_responses(), conversation());
  const Completion answer = stream.whole(
      R"(data: {"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"c1","name":"f","arguments":""}}

data: {"type":"response.function_call_arguments.done","output_index":0,"arguments":"{\"a\":1}"}

data: {"type":"response.completed","response":{"status":"completed","output":[]}}

)");
  ASSERT_EQ(answer.tool_calls.size(), 1u);
  EXPECT_EQ(answer.tool_calls[0].arguments, R"({"a":1})");
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

TEST(Anthropic, InputThatComesWholeIsTaken) {
  Stream stream(anthropic(), conversation());
  const Completion answer = stream.whole(
      R"(data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t1","name":"f","input":{"a":1}}}

data: {"type":"message_delta","delta":{"stop_reason":"tool_use"}}

)");
  ASSERT_EQ(answer.tool_calls.size(), 1u);
  EXPECT_EQ(answer.tool_calls[0].arguments, R"({"a":1})");
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

std::string with_reason(const std::string& reason, const std::string& content = {}) {
  const Json delta = Json::object({{"content", content}});
  const Json choice = Json::object({{"finish_reason", reason}, {"delta", delta}});
  return "data: " + Json::object({{"choices", Json(Json::Array{choice})}}).dump() + "\n\n";
}
const std::string kDoneEvent = "data: [DONE]\n\n";

TEST(AnswerStream, NothingComesAfterABadEnd) {
  Stream goes_on(openai_chat());
  EXPECT_EQ(failure_of(goes_on, with_reason("length") + with_reason("stop", "more")),
            net::TransportFailure::kMalformed);
  for (const char* other : {"length", "stop"}) {
    Stream twice(openai_chat());
    EXPECT_EQ(twice.whole(with_reason("length") + with_reason(other)).finish, Finish::kLength);
  }
  Stream late(openai_chat());
  EXPECT_EQ(late.whole(with_reason("stop") + with_reason("length")).finish, Finish::kLength);
  Stream calls(openai_chat());
  EXPECT_EQ(calls.whole(with_reason("tool_calls") + with_reason("stop")).finish,
            Finish::kToolCalls);
  Stream done(openai_chat());
  EXPECT_EQ(done.whole(with_reason("stop") + kDoneEvent + with_reason("stop", "more")).content, "");
}

// Gateways before Gemini say so with each piece.
TEST(AnswerStream, EndThatComesWithContentHasToBeConfirmed) {
  Stream habit(openai_chat());
  EXPECT_EQ(habit.whole(with_reason("stop", "Hello ") + with_reason("stop", "world") + kDoneEvent)
                .content,
            "Hello world");
  Stream cut(openai_chat());
  cut.feed(with_reason("stop", "Hello "));
  EXPECT_TRUE(cut.answer.broke_off());
  EXPECT_FALSE(cut.answer.complete());
  Stream confirmed(openai_chat());
  EXPECT_EQ(confirmed.whole(with_reason("stop", "Hello") + with_reason("stop")).content, "Hello");
  EXPECT_TRUE(Stream(openai_chat()).answer.broke_off());
}

TEST(AnswerStream, EventsThatSayNothingArePassedOver) {
  Stream stream(openai_chat());
  EXPECT_EQ(stream
                .whole("data: \n\ndata:\n\n"
                       "data: {\"error\":\"\",\"choices\":[{\"delta\":{\"content\":\"x\","
                       "\"reasoning\":\"t\",\"reasoning_content\":\"t\"}}]}\n\n" +
                       with_reason("stop"))
                .reasoning,
            "t");
}

TEST(AnswerStream, WhatIsNoEventIsMalformed) {
  const std::string call = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[";
  const std::string long_name(2000, 'n');
  for (const std::string& bad :
       {std::string("data: {\n\n"), std::string("data: 1\n\n"), std::string("data: \xff\xfe\n\n"),
        std::string("data: {}x\n\n"), call + "{\"index\":500,\"id\":\"a\"}]}}]}\n\n",
        call + "{\"index\":-1,\"id\":\"a\"}]}}]}\n\n",
        call + "{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n",
        call + "{\"index\":0,\"id\":\"" + long_name + "\"}]}}]}\n\n"}) {
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
