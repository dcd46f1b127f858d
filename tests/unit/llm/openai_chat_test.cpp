// The dialect's translation, without a network.
#include "necrocode/llm/openai_chat.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"

namespace necrocode::llm::openai_chat {
namespace {

using testing::HasSubstr;

ChatRequest question() {
  ChatRequest request;
  request.messages = {{"system", "Be brief."}, {"user", "Two and two?"}};
  request.max_tokens = 100;
  request.temperature = 0.5;
  request.json_schema = Json::object({{"type", "object"}});
  return request;
}

net::HttpResponse answer(int status, std::string body, net::Headers headers = {}) {
  net::HttpResponse response;
  response.status = status;
  response.headers = std::move(headers);
  response.body = std::move(body);
  return response;
}

std::string error_body(const std::string& message, const std::string& code = {},
                       const std::string& param = {}) {
  return Json::object(
             {{"error", Json::object({{"message", message}, {"code", code}, {"param", param}})}})
      .dump();
}

TEST(OpenAiChat, RequestHoldsWhatTheEndpointCan) {
  EXPECT_EQ(
      request_body(question(), "gpt-4", {}),
      R"({"model":"gpt-4","messages":[{"role":"system","content":"Be brief."},)"
      R"({"role":"user","content":"Two and two?"}],"stream":false,)"
      R"("max_tokens":100,"temperature":0.5,)"
      R"("response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,)"
      R"("schema":{"type":"object"}}}})");
  EXPECT_THAT(request_body(question(), "o", {Format::kJsonObject, false, false}),
              testing::EndsWith(R"("stream":false,"max_completion_tokens":100,)"
                                R"("response_format":{"type":"json_object"}})"));
  EXPECT_THAT(request_body(question(), "o", {Format::kText, true, false}),
              testing::EndsWith(R"("stream":false,"max_tokens":100})"));
}

struct Lesson {
  std::string body;
  Capabilities learned;
};

TEST(OpenAiChat, A400TeachesWhatTheEndpointRefuses) {
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
           {error_body("temperature must be a number"), all},
           {error_body("This model's maximum context length is 8192 tokens; response_format counts",
                       "context_length_exceeded"),
            all},
           {error_body("the prompt is empty"), all},
           {"", all},
       }) {
    EXPECT_EQ(learn(answer(400, lesson.body), question(), all), lesson.learned) << lesson.body;
    EXPECT_EQ(learn(answer(500, lesson.body), question(), all), all) << lesson.body;
  }
}

TEST(OpenAiChat, LessonsGoDownStepByStepAndEnd) {
  const auto refused = answer(400, error_body("response_format is not supported"));
  const Capabilities object = learn(refused, question(), {});
  const Capabilities text = learn(refused, question(), object);
  EXPECT_EQ(text.format, Format::kText);
  EXPECT_EQ(learn(refused, question(), text), text);
  ChatRequest plain = question();
  plain.json_schema = nullptr;
  EXPECT_EQ(learn(refused, plain, {}), Capabilities{});
  EXPECT_EQ(common({Format::kText, true, false}, {Format::kJsonObject, false, true}),
            (Capabilities{Format::kText, false, false}));
}

TEST(OpenAiChat, ErrorWordsAreFoundInEachShape) {
  EXPECT_EQ(read_error(R"({"error":{"message":"m","type":"t","code":"c","param":"p"}})").code, "c");
  EXPECT_EQ(read_error(R"({"error":{"message":"m","type":"t","code":null}})").code, "t");
  EXPECT_EQ(read_error(R"({"error":{"message":"m","code":429}})").code, "429");
  EXPECT_EQ(read_error(R"([{"error":{"message":"gemini"}}])").message, "gemini");
  EXPECT_EQ(read_error(R"({"error":"ollama"})").message, "ollama");
  EXPECT_EQ(read_error(R"({"object":"error","message":"vllm","code":400})").message, "vllm");
  EXPECT_EQ(read_error(R"({"detail":"proxy"})").message, "proxy");
  EXPECT_EQ(read_error("<html>").message, "");
  EXPECT_EQ(read_error("[]").message, "");
}

TEST(OpenAiChat, OnlyWhatMayPassIsWorthRetrying) {
  for (const int status : {408, 425, 429, 500, 502, 503, 504, 529}) {
    EXPECT_TRUE(worth_retrying(answer(status, "{}"))) << status;
    EXPECT_FALSE(worth_retrying(answer(status, "{}", {{"x-should-retry", "false"}}))) << status;
  }
  for (const int status : {200, 302, 400, 401, 403, 404, 413, 422, 501, 505}) {
    EXPECT_FALSE(worth_retrying(answer(status, "{}"))) << status;
    EXPECT_FALSE(worth_retrying(answer(status, "{}", {{"x-should-retry", "true"}}))) << status;
  }
  EXPECT_FALSE(worth_retrying(answer(409, "{}")));
  EXPECT_TRUE(worth_retrying(answer(409, "{}", {{"x-should-retry", "true"}})));
  EXPECT_TRUE(worth_retrying(answer(429, error_body("slow down", "rate_limit_exceeded"))));
  for (const char* code : {"insufficient_quota", "billing_hard_limit_reached",
                           "context_length_exceeded", "content_filter"}) {
    EXPECT_FALSE(worth_retrying(answer(429, error_body("no", code)))) << code;
    EXPECT_FALSE(worth_retrying(answer(500, error_body("no", code), {{"x-should-retry", "true"}})))
        << code;
  }
}

TEST(OpenAiChat, RefusalsAreClassed) {
  EXPECT_EQ(classify(402, {}), Refusal::kQuota);
  EXPECT_EQ(classify(429, read_error(R"({"error":{"type":"insufficient_quota","code":"other"}})")),
            Refusal::kQuota);
  EXPECT_EQ(classify(429, read_error(error_body("You exceeded your current quota: 5 a minute"))),
            Refusal::kOther);
  EXPECT_EQ(
      classify(400, read_error(error_body("This model's maximum context length is 4096 tokens"))),
      Refusal::kContextLength);
  EXPECT_EQ(classify(400, read_error(error_body("x", "content_filter"))), Refusal::kContentFilter);
}

Usage usage_of(const std::string& usage) {
  Usage spent;
  read_completion(answer(200, R"({"choices":[{"message":{"content":"12345"}}])" + usage + "}"),
                  question(), spent);
  return spent;
}

TEST(OpenAiChat, AnswerThatCannotBeUsedThenItsUsageIsToldAllTheSame) {
  Usage spent;
  EXPECT_THROW(read_completion(answer(200, R"({"choices":[{"finish_reason":"length",
    "message":{"content":"12345"}}],"usage":{"prompt_tokens":10,"completion_tokens":5}})"),
                               question(), spent),
               ImplementationError);
  EXPECT_EQ(spent.total_tokens, 15);
}

TEST(OpenAiChat, UsageIsReadOrEstimated) {
  const Usage given =
      usage_of(R"(,"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,
    "prompt_tokens_details":{"cached_tokens":4},
    "completion_tokens_details":{"reasoning_tokens":2}})");
  EXPECT_EQ(given.to_json().dump(),
            R"({"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"cached_tokens":4,)"
            R"("reasoning_tokens":2,"estimated":false})");
  // 4 + 6 + 9 + 12 bytes of roles and contents; 5 bytes of answer.
  for (const char* none :
       {"", R"(,"usage":null)", R"(,"usage":{})", R"(,"usage":[])", R"(,"usage":"x")",
        R"(,"usage":{"prompt_tokens":-1,"completion_tokens":1e300})",
        R"(,"usage":{"prompt_tokens":9000000000000000000,"completion_tokens":null})"}) {
    const Usage estimate = usage_of(none);
    EXPECT_TRUE(estimate.estimated) << none;
    EXPECT_EQ(estimate.prompt_tokens, 8) << none;
    EXPECT_EQ(estimate.completion_tokens, 2) << none;
    EXPECT_EQ(estimate.total_tokens, 10) << none;
  }
}

TEST(OpenAiChat, ContentIsAStringOrParts) {
  Usage spent;
  EXPECT_EQ(
      read_completion(answer(200, R"({"model":"m","choices":[{"finish_reason":"stop","message":
    {"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]})"),
                      question(), spent)
          .content,
      "ab");
}

}  // namespace
}  // namespace necrocode::llm::openai_chat
