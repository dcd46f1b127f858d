// What is counted of requests and answers, without sockets.
#include "necrocode/llm/metering.hpp"

#include <gmock/gmock.h>

#include "necrocode/llm/prompt_bound.hpp"

namespace necrocode::llm {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr ModelApi kApis[] = {ModelApi::kChat, ModelApi::kResponses, ModelApi::kMessages};

// ---- requests ----

TEST(MeteredRequest, EachDialectThenWhatCounts) {
  const auto chat = read_metered_request(
      ModelApi::kChat,
      R"({"model":"m","max_completion_tokens":50,"max_tokens":70,"n":3,"stream":true})");
  EXPECT_EQ(chat.model, "m");
  EXPECT_EQ(chat.token_limit, 70);
  EXPECT_EQ(chat.choices, 3);
  EXPECT_TRUE(chat.stream);
  EXPECT_FALSE(chat.asks_usage);
  EXPECT_EQ(chat.defect, "");
  EXPECT_TRUE(read_metered_request(ModelApi::kChat,
                                   R"({"model":"m","stream_options":{"include_usage":true}})")
                  .asks_usage);
  const auto responses =
      read_metered_request(ModelApi::kResponses, R"({"model":"m","max_output_tokens":9,"n":4})");
  EXPECT_EQ(responses.token_limit, 9);
  EXPECT_EQ(responses.choices, 1);
  EXPECT_TRUE(responses.asks_usage);
  EXPECT_EQ(read_metered_request(ModelApi::kMessages, R"({"model":"m"})").token_limit,
            std::nullopt);
  // Other APIs' names for it limit nothing.
  for (const auto& [api, limit] : std::vector<std::pair<ModelApi, const char*>>{
           {ModelApi::kChat, "max_output_tokens"},
           {ModelApi::kResponses, "max_tokens"},
           {ModelApi::kResponses, "max_completion_tokens"},
           {ModelApi::kMessages, "max_completion_tokens"},
           {ModelApi::kMessages, "max_output_tokens"}}) {
    const std::string body = std::string(R"({"model":"m",")") + limit + R"(":1})";
    EXPECT_EQ(read_metered_request(api, body).token_limit, std::nullopt) << limit;
  }
  // What is no count is as much as there can be.
  EXPECT_GT(read_metered_request(ModelApi::kChat, R"({"model":"m","max_tokens":-1})").token_limit,
            1'000'000);
}

TEST(MeteredRequest, WhatCannotBeCountedThenADefect) {
  for (const auto& [body, words] : std::vector<std::pair<const char*, const char*>>{
           {"nothing", "no JSON object"},
           {"[]", "no JSON object"},
           {R"({"messages":[]})", "names no model"},
           {R"({"model":"cheap","model":"dear"})", "\"model\" stands twice"},
           {R"({"model":"m","stream":false,"stream":true})", "\"stream\" stands twice"}}) {
    EXPECT_THAT(read_metered_request(ModelApi::kChat, body).defect, HasSubstr(words)) << body;
  }
}

TEST(MeteredRequest, WhatIsElsewhereThenSeen) {
  const auto refers = [](const std::string& members) {
    return read_metered_request(ModelApi::kResponses, R"({"model":"m",)" + members + "}")
        .refers_outside;
  };
  EXPECT_TRUE(refers(R"("previous_response_id":"resp_1")"));
  EXPECT_TRUE(refers(R"("conversation":{"id":"c"})"));
  EXPECT_TRUE(refers(R"("input":[{"type":"item_reference","id":"x"}])"));
  EXPECT_TRUE(refers(R"("input":[{"content":[{"type":"input_file","file_id":"f"}]}])"));
  EXPECT_TRUE(refers(R"("messages":[{"content":[{"image_url":{"url":"https://a/b.png"}}]}])"));
  EXPECT_TRUE(refers(R"("input":[{"content":[{"image_url":"http:\/\/a\/b.png"}]}])"));
  EXPECT_FALSE(refers(R"("previous_response_id":null)"));
  EXPECT_FALSE(
      refers(R"("messages":[{"content":[{"image_url":{"url":"data:image/png;base64,"}}]}])"));
  EXPECT_FALSE(refers(R"("tools":[{"parameters":{"properties":{"url":{"type":"string"}}}}])"));
}

TEST(MeteredRequest, WhatHasNoPriceThenSaid) {
  const auto unpriced = [](ModelApi api, const std::string& members) {
    return read_metered_request(api, R"({"model":"m",)" + members + "}").unpriced;
  };
  EXPECT_THAT(unpriced(ModelApi::kResponses, R"("background":true)"), HasSubstr("background"));
  for (const char* members :
       {R"("service_tier":"priority")", R"("service_tier":1)", R"("speed":"fast")",
        R"("service_tier":"priority","service_tier":"auto")", R"("inference_geo":"us")"}) {
    EXPECT_THAT(unpriced(ModelApi::kMessages, members), HasSubstr("changes the price")) << members;
  }
  EXPECT_EQ(
      unpriced(ModelApi::kResponses, R"("background":false,"service_tier":"flex","speed":null)"),
      "");
}

TEST(MeteredRequest, AddressNamesADeploymentThenItIsTheModelWhereTheBodyNamesNone) {
  EXPECT_EQ(read_metered_request(ModelApi::kChat, "{}", "d").model, "d");
  EXPECT_EQ(read_metered_request(ModelApi::kChat, "{}", "d").defect, "");
  EXPECT_EQ(read_metered_request(ModelApi::kChat, R"({"model":"m"})", "d").model, "m");
}

TEST(MeteredRequest, CacheForAnHourThenSeen) {
  const std::string before = R"({"model":"m","system":[{"cache_control":{"type":"ephemeral")";
  EXPECT_TRUE(
      read_metered_request(ModelApi::kMessages, before + R"(,"ttl":"1h"}}]})").caches_for_an_hour);
  EXPECT_FALSE(
      read_metered_request(ModelApi::kMessages, before + R"(,"ttl":"5m"}}]})").caches_for_an_hour);
}

TEST(WithUsageAsked, AllElseThenByteForByte) {
  const auto asked = [](std::string_view body) { return with_usage_asked(body); };
  EXPECT_EQ(
      asked("\n{ \"model\" : \"\\u006d\",\t\"n\":1.0}\n"),
      "\n{\"stream_options\":{\"include_usage\":true}, \"model\" : \"\\u006d\",\t\"n\":1.0}\n");
  // Within others it is somebody else's, and of one that is there the rest stays.
  EXPECT_EQ(
      asked(R"({"a":{"stream_options":1},"b":"\"}{,","stream_options": {"x":[1]} ,"c":[{}]})"),
      R"({"a":{"stream_options":1},"b":"\"}{,","stream_options": )"
      R"({"x":[1],"include_usage":true},"c":[{}]})");
  EXPECT_EQ(asked(R"({"stream\u005foptions":{"include_usage":false}})"),
            R"({"stream\u005foptions":{"include_usage":true}})");
  EXPECT_EQ(asked(R"({"stream_options":null})"), R"({"stream_options":{"include_usage":true}})");
}

TEST(WithUsageAsked, WhateverTheFormThenTheServiceReadsIt) {
  for (const char* body :
       {R"({"model":"m"})", R"({"stream_options":{},"model":"m"})",
        R"({"x":[[{"a":"]}"}],"\\"],"stream_options":{"include_usage":false,"o":{"p":"}"}},"y":1})",
        R"({"n":-1.5e3,"t":true,"stream_options":null , "z":null})"}) {
    const std::string asked = with_usage_asked(body);
    Json expected = Json::parse(body);
    Json options = expected["stream_options"];
    options.set("include_usage", true);
    expected.set("stream_options", options);
    Json got = Json::parse(asked);
    for (const auto& [name, value] : expected.members()) EXPECT_EQ(got[name], value) << asked;
    EXPECT_EQ(got.size(), expected.size());
  }
}

// ---- the usage chunk ----

constexpr std::string_view kUsageChunk =
    R"(data: {"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}})";

std::string filtered(std::string_view bytes, std::size_t first, std::size_t step) {
  UsageChunkFilter filter;
  std::string out(filter.take(bytes.substr(0, first)));
  for (bytes.remove_prefix(first); !bytes.empty();
       bytes.remove_prefix(std::min(step, bytes.size()))) {
    out += filter.take(bytes.substr(0, step));
  }
  return out += filter.finish();
}

TEST(UsageChunkFilter, AtEverySplitThenOnlyTheChunkIsTakenOut) {
  for (const std::string end : {"\n", "\r\n", "\r"}) {
    const auto event = [&](std::string_view text) { return std::string(text) + end + end; };
    const std::string before = ": a comment" + end + end +
                               event(
                                   "data: {\"choices\":[{\"delta\":{"
                                   "\"content\":\"usage \xc3\xa4\"}}],\"usage\":null}") +
                               event("data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"a\":1}}");
    const std::string after = event("data: [DONE]") + "data: unfinished";
    const std::string all = before + event(kUsageChunk) + after;
    for (std::size_t first = 0; first <= all.size(); ++first) {
      ASSERT_EQ(filtered(all, first, all.size()), before + after) << first;
    }
    EXPECT_EQ(filtered(all, 0, 1), before + after);
  }
}

TEST(UsageChunkFilter, EventIsWholeThenItGoesOnAtOnce) {
  UsageChunkFilter filter;
  EXPECT_EQ(filter.take("data: {\"choices\":[1]}\n"), "");
  EXPECT_EQ(filter.take("\n"), "data: {\"choices\":[1]}\n\n");
  EXPECT_EQ(filter.take(std::string(kUsageChunk) + "\n\n"), "");
  EXPECT_EQ(filter.take(": ping\n\n"), ": ping\n\n");
}

TEST(UsageChunkFilter, LongEventThenItIsNotHeld) {
  UsageChunkFilter filter;
  const std::string text(1 << 20, 'u');
  const std::string event = "data: {\"choices\":[],\"usage\":{\"x\":\"" + text + "\"}}\n\n";
  std::string out;
  std::size_t held = 0;
  for (std::size_t at = 0; at < event.size(); at += 1000) {
    out += filter.take(std::string_view(event).substr(at, 1000));
    held = std::max(held, std::min(at + 1000, event.size()) - out.size());
  }
  EXPECT_EQ(out, event);
  EXPECT_LE(held, 16u * 1024 + 1000);
  EXPECT_EQ(filter.take(std::string(kUsageChunk) + "\n\n"), "");
}

// ---- answers ----

net::HttpResponse head(const char* type) {
  return {200, {{"Content-Type", type}}, {}};
}

CompletionAnswer an_answer() {
  CompletionAnswer answer;
  answer.content = "Hello, wörld";
  answer.reasoning = "hm";
  answer.tool_calls = {{"call_1", "look", R"({"at":1})"}};
  answer.finish_reason = "tool_calls";
  answer.chunk = 4;
  answer.usage = Json::object({{"prompt_tokens", 30},
                               {"completion_tokens", 9},
                               {"total_tokens", 39},
                               {"cached_tokens", 10},
                               {"reasoning_tokens", 2}});
  return answer;
}

std::string streamed(ModelApi api, const CompletionAnswer& answer) {
  Question question;
  question.model = "m-1";
  question.stream = question.stream_usage = true;
  std::string bytes;
  for (const std::string& event : streamed_answer(api, answer, question)) bytes += event;
  return bytes;
}

struct Read {
  Verdict verdict;
  Usage usage;
  std::string model;
  bool ended = false;
};

Read read(ModelApi api, const char* type, std::string_view bytes, std::size_t first = 0,
          bool whole = true) {
  AnswerMeter meter(api);
  meter.begin(head(type));
  if (first > 0) meter.take(bytes.substr(0, first));
  if (first < bytes.size()) meter.take(bytes.substr(first));
  Read read;
  read.ended = meter.ended();
  read.verdict = meter.verdict(whole);
  read.usage = meter.usage(1000);
  read.model = meter.model();
  return read;
}

TEST(AnswerMeter, WholeAndStreamedAtEverySplitThenTheServicesOwnCounts) {
  for (const ModelApi api : kApis) {
    const auto check = [&](const Read& got, std::size_t split) {
      ASSERT_EQ(got.verdict.how, ExchangeClass::kOk) << got.verdict.detail << split;
      EXPECT_EQ(got.model, "m-1");
      EXPECT_EQ(got.usage.prompt_tokens, 30);
      EXPECT_EQ(got.usage.completion_tokens, 9);
      EXPECT_EQ(got.usage.cached_tokens, 10);
      EXPECT_FALSE(got.usage.estimated);
    };
    Question question;
    question.model = "m-1";
    check(read(api, "application/json", whole_answer(api, an_answer(), question).dump()), 0);
    const std::string bytes = streamed(api, an_answer());
    for (std::size_t split = 0; split < bytes.size(); ++split) {
      const Read got = read(api, "text/event-stream; charset=utf-8", bytes, split);
      check(got, split);
      EXPECT_TRUE(got.ended);
    }
  }
}

TEST(AnswerMeter, NoUsageThenEstimatedAndMarked) {
  CompletionAnswer answer = an_answer();
  answer.usage = Json();
  for (const ModelApi api : kApis) {
    const Read got = read(api, "text/event-stream", streamed(api, answer));
    EXPECT_EQ(got.verdict.how, ExchangeClass::kOk) << got.verdict.detail;
    EXPECT_TRUE(got.usage.estimated);
    EXPECT_EQ(got.usage.prompt_tokens, 1000);
    // "Hello, wörld", "hm", the arguments and, where the stream tells it, the tool's name.
    EXPECT_GE(got.usage.completion_tokens, 6);
    EXPECT_LE(got.usage.completion_tokens, 7);
  }
}

TEST(AnswerMeter, CutAnywhereThenUnavailableAndWhatCameIsCounted) {
  for (const ModelApi api : kApis) {
    const std::string bytes = streamed(api, an_answer());
    const std::size_t end = bytes.find("finish_reason\":\"tool");
    const std::size_t most =
        std::min({end, bytes.find("response.completed"), bytes.find("message_delta")});
    for (std::size_t cut = 1; cut < most; ++cut) {
      for (const bool cleanly : {true, false}) {
        AnswerMeter meter(api);
        meter.begin(head("text/event-stream"));
        meter.take(std::string_view(bytes).substr(0, cut));
        EXPECT_EQ(meter.verdict(cleanly).how, ExchangeClass::kUnavailable) << cut;
        const Usage usage = meter.usage(1000);
        EXPECT_TRUE(usage.estimated);
        EXPECT_GE(usage.prompt_tokens, 30);
      }
    }
  }
}

TEST(AnswerMeter, AnthropicsCumulativeCountsThenTheLastOne) {
  const std::string start =
      "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"c\","
      "\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":100,"
      "\"cache_creation_input_tokens\":20,\"output_tokens\":1}}}\n\n";
  const auto delta = [](int tokens) {
    return "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{"
           "\"output_tokens\":" +
           std::to_string(tokens) + "}}\n\n";
  };
  const std::string stop = "data: {\"type\":\"message_stop\"}\n\n";
  const Read got =
      read(ModelApi::kMessages, "text/event-stream", start + delta(40) + delta(70) + stop);
  EXPECT_EQ(got.verdict.how, ExchangeClass::kOk);
  EXPECT_EQ(got.usage.completion_tokens, 70);
  EXPECT_EQ(got.usage.prompt_tokens, 125);
  EXPECT_EQ(got.usage.cached_tokens, 100);
  EXPECT_EQ(got.usage.cache_write_tokens, 20);
  EXPECT_FALSE(got.usage.estimated);
}

TEST(AnswerMeter, WrittenToACacheForAnHourThenCounted) {
  AnswerMeter meter(ModelApi::kMessages);
  meter.begin(head("application/json"));
  meter.take(
      R"({"model":"c","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn","usage":)"
      R"({"input_tokens":5,"cache_creation_input_tokens":20,"output_tokens":1,)"
      R"("cache_creation":{"ephemeral_5m_input_tokens":8,"ephemeral_1h_input_tokens":12}}})");
  EXPECT_EQ(meter.verdict(true).how, ExchangeClass::kOk);
  EXPECT_EQ(meter.usage(1).cache_write_tokens, 20);
  EXPECT_EQ(meter.hour_cache_tokens(), 12);
}

TEST(AnswerMeter, ResponsesEndHoweverThenItsUsage) {
  for (const char* status : {"completed", "incomplete", "failed"}) {
    const std::string event =
        std::string("data: {\"type\":\"response.") + status +
        "\",\"response\":{\"model\":\"r\",\"status\":\"" + status + "\",\"output\":[],\"error\":" +
        (std::string_view(status) == "failed" ? R"({"code":"server_error","message":"oops"})"
                                              : "null") +
        ",\"usage\":{\"input_tokens\":11,\"output_tokens\":7,\"total_tokens\":18}}}\n\n";
    const Read got = read(ModelApi::kResponses, "text/event-stream", event);
    const bool failed = std::string_view(status) == "failed";
    EXPECT_EQ(got.verdict.how, failed ? ExchangeClass::kUnavailable : ExchangeClass::kOk) << status;
    EXPECT_EQ(got.usage.prompt_tokens, 11) << status;
    EXPECT_EQ(got.usage.completion_tokens, 7) << status;
  }
}

TEST(AnswerMeter, WhatIsNoAnswerThenProtocolAndNothingSpent) {
  for (const ModelApi api : kApis) {
    for (const char* body : {"<html>hi</html>", "", "hello", "{}", "[1]", "{\"error\":\"no\"}",
                             "{\"error\":{\"message\":\"no\"}}"}) {
      const Read got = read(api, "application/json", body);
      EXPECT_EQ(got.verdict.how, ExchangeClass::kProtocol) << body;
      EXPECT_TRUE(got.usage.empty()) << body;
    }
    EXPECT_EQ(read(api, "text/html", "<html>hi</html>").verdict.how, ExchangeClass::kProtocol);
    EXPECT_EQ(read(api, "text/event-stream", "data: garbage\n\n").verdict.how,
              ExchangeClass::kProtocol);
  }
}

TEST(AnswerMeter, ErrorEventThenByItsWords) {
  for (const ModelApi api : kApis) {
    const std::string bytes = streamed(api, an_answer());
    const std::string half = bytes.substr(0, bytes.find("\n\n", bytes.size() / 3) + 2);
    for (const auto& [error, how] : std::vector<std::pair<SpokenError, ExchangeClass>>{
             {{500, "broken"}, ExchangeClass::kUnavailable},
             {{429, "slow down", "rate_limit_exceeded"}, ExchangeClass::kRate},
             {{402, "credit balance is too low", "insufficient_quota"}, ExchangeClass::kQuota},
             {{401, "who", "invalid_api_key"}, ExchangeClass::kAuth}}) {
      const Read got =
          read(api, "text/event-stream", half + error_event(api, error) + "data: [DONE]\n\n");
      EXPECT_EQ(got.verdict.how, how) << error.message << " " << static_cast<int>(api);
      EXPECT_THAT(got.verdict.detail, HasSubstr(error.message));
      EXPECT_TRUE(got.usage.estimated);
    }
  }
}

TEST(AnswerMeter, EndlessStreamThenNothingOfItIsKept) {
  AnswerMeter meter(ModelApi::kChat);
  meter.begin(head("text/event-stream"));
  const std::string piece =
      "data: {\"choices\":[{\"delta\":{\"content\":\"" + std::string(64 * 1024, 'x') + "\"}}]}\n\n";
  constexpr int kPieces = 1'000;  // 64 MiB, four times what an answer may be
  for (int i = 0; i < kPieces; ++i) meter.take(piece);
  meter.take("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
  EXPECT_EQ(meter.verdict(true).how, ExchangeClass::kOk);
  EXPECT_EQ(meter.usage(1).completion_tokens, kPieces * 16 * 1024);
}

TEST(Judge, EachRefusalThenItsClass) {
  struct Case {
    int status;
    const char* body;
    ExchangeClass how;
  };
  for (const auto& [status, body, how] : std::vector<Case>{
           {401, "", ExchangeClass::kAuth},
           {403, "<html>no</html>", ExchangeClass::kAuth},
           {402, "", ExchangeClass::kQuota},
           {429, R"({"error":{"code":"insufficient_quota","message":"x"}})", ExchangeClass::kQuota},
           {429, R"({"error":{"message":"slow"}})", ExchangeClass::kRate},
           {400, R"({"error":{"code":"context_length_exceeded"}})", ExchangeClass::kContext},
           {400,
            R"({"type":"error","error":{"type":"invalid_request_error","message":)"
            R"("prompt is too long: 1 > 0"}})",
            ExchangeClass::kContext},
           {400, "{}", ExchangeClass::kRequest},
           {404, "", ExchangeClass::kRequest},
           {302, "", ExchangeClass::kProtocol},
           {408, "", ExchangeClass::kUnavailable},
           {500, "<html>", ExchangeClass::kUnavailable},
           {529, "", ExchangeClass::kUnavailable}}) {
    EXPECT_EQ(judge(status, body).how, how) << status << body;
  }
}

// ---- prompts ----

TEST(PromptBound, NothingAnsweredThenAByteIsAToken) {
  PromptBound prompts;
  EXPECT_EQ(prompts.tokens_max("m", std::string(5000, 'x'), false), 6000);
  EXPECT_EQ(prompts.estimate("m", std::string(5000, 'x')), 1250);
  EXPECT_GT(prompts.tokens_max("m", "x", true), 1'000'000);
}

TEST(PromptBound, ConversationGoesOnThenOnlyWhatIsNewCountsByBytes) {
  PromptBound prompts;
  const std::string before = R"({"messages":[)" + std::string(50'000, 'a') + R"(],"stream":true})";
  prompts.counted("m", before, 12'000);
  std::string after = before;
  after.insert(40'000, std::string(300, 'b'));
  EXPECT_EQ(prompts.tokens_max("m", after, false), 12'000 + 300 + 1000);
  EXPECT_EQ(prompts.tokens_max("m", before, false), 12'000 + 1000);
  EXPECT_NEAR(static_cast<double>(prompts.estimate("m", after)), 12'072, 10);
  // Another model counts otherwise; and what is all new counts as before.
  EXPECT_EQ(prompts.tokens_max("n", before, false),
            static_cast<std::int64_t>(before.size()) + 1000);
  EXPECT_EQ(prompts.tokens_max("m", std::string(2000, 'z'), false), 3000);
}

TEST(PromptBound, ServiceDidNotReadItThenItCountsAllTheSame) {
  PromptBound prompts;
  const std::string text(80'000, 'a');
  prompts.counted("m", "{\"ignored\":\"" + text + "\"}", 10);
  EXPECT_GE(prompts.tokens_max("m", "{\"content\":\"" + text + "\"}", false), 10'000);
}

TEST(PromptBound, TextRepeatsItselfThenNoByteIsLeftOut) {
  PromptBound prompts;
  prompts.counted("m", std::string(100, 'a'), 100);
  // Beginning and end in common must not be the same bytes of the earlier body.
  EXPECT_EQ(prompts.tokens_max("m", std::string(150, 'a'), false), 150 + 1000);
}

}  // namespace
}  // namespace necrocode::llm
