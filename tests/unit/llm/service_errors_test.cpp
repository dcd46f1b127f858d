// What a model service's refusals mean, without a network.
#include "necrocode/llm/service_errors.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/json.hpp"
#include "necrocode/llm/llm_config.hpp"

namespace necrocode::llm {
namespace {

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

TEST(ServiceErrors, ErrorWordsAreFoundInEachShape) {
  EXPECT_EQ(read_error(R"({"error":{"message":"m","type":"t","code":"c","param":"p"}})").code, "c");
  EXPECT_EQ(read_error(R"({"error":{"message":"m","type":"t","code":null}})").code, "t");
  EXPECT_EQ(read_error(R"({"error":{"message":"m","code":429}})").code, "429");
  EXPECT_EQ(read_error(R"([{"error":{"message":"gemini"}}])").message, "gemini");
  EXPECT_EQ(read_error(R"({"error":"ollama"})").message, "ollama");
  EXPECT_EQ(read_error(R"({"object":"error","message":"vllm","code":400})").message, "vllm");
  EXPECT_EQ(read_error(R"({"detail":"proxy"})").message, "proxy");
  EXPECT_EQ(
      read_error(R"({"type":"error","error":{"type":"overloaded_error","message":"busy"}})").code,
      "overloaded_error");
  EXPECT_EQ(read_error(R"({"type":"response.failed","response":{"error":{"code":"server_error",
    "message":"failed"}}})")
                .message,
            "failed");
  EXPECT_EQ(read_error("<html>").message, "");
  EXPECT_EQ(read_error("[]").message, "");
}

TEST(ServiceErrors, OnlyWhatMayPassIsWorthRetrying) {
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

TEST(ServiceErrors, RefusalsAreClassed) {
  EXPECT_EQ(classify(402, {}), Refusal::kQuota);
  EXPECT_EQ(classify(429, read_error(R"({"error":{"type":"insufficient_quota","code":"other"}})")),
            Refusal::kQuota);
  EXPECT_EQ(classify(429, read_error(error_body("You exceeded your current quota: 5 a minute"))),
            Refusal::kOther);
  EXPECT_EQ(
      classify(400, read_error(error_body("This model's maximum context length is 4096 tokens"))),
      Refusal::kContextLength);
  EXPECT_EQ(classify(400, read_error(error_body("x", "content_filter"))), Refusal::kContentFilter);
  // Anthropic tells both by its sentences.
  EXPECT_EQ(classify(400, read_error(error_body("prompt is too long: 209314 tokens > 200000",
                                                "invalid_request_error"))),
            Refusal::kContextLength);
  EXPECT_EQ(classify(400, read_error(error_body("Your credit balance is too low to access the API",
                                                "invalid_request_error"))),
            Refusal::kQuota);
}

struct Meaning {
  const char* body;
  int status;
  bool retried;
};

// A refusal in the middle of a stream, under a status of success.
TEST(ServiceErrors, WordsAloneTellTheStatus) {
  for (const Meaning& meaning : std::vector<Meaning>{
           {R"({"error":{"type":"overloaded_error"}})", 529, true},
           {R"({"error":{"type":"rate_limit_error"}})", 429, true},
           {R"({"error":{"code":"rate_limit_exceeded"}})", 429, true},
           {R"({"error":{"type":"api_error"}})", 500, true},
           {R"({"error":{"code":"server_error"}})", 500, true},
           {R"({"error":{"code":502,"message":"upstream"}})", 502, true},
           {R"({"error":{"code":99}})", 500, true},
           {R"({"error":"model runner has stopped"})", 500, true},
           {R"({"error":{"type":"invalid_request_error"}})", 400, false},
           {R"({"error":{"type":"authentication_error"}})", 401, false},
           {R"({"error":{"type":"insufficient_quota"}})", 402, false},
           {R"({"error":{"code":"context_length_exceeded"}})", 400, false},
           {R"({"error":{"code":404}})", 404, false},
       }) {
    const ErrorWords words = read_error(meaning.body);
    EXPECT_EQ(status_of(words), meaning.status) << meaning.body;
    EXPECT_EQ(worth_retrying(words), meaning.retried) << meaning.body;
  }
}

template <class Error>
ErrorInfo thrown(int status, const std::string& body) {
  ErrorInfo info;
  info.end = CallEnd::kExhausted;
  try {
    throw_refusal(status, read_error(body), std::move(info));
  } catch (const Error& error) {
    EXPECT_EQ(typeid(error), typeid(Error)) << error.what();
    return error.info();
  }
}

TEST(ServiceErrors, EachRefusalIsAnErrorOfItsOwn) {
  EXPECT_EQ(thrown<Unauthorized>(401, "{}").status, 401);
  EXPECT_EQ(thrown<Unauthorized>(403, "{}").status, 403);
  EXPECT_EQ(thrown<NotFound>(404, error_body("no such model")).detail, "no such model");
  EXPECT_EQ(thrown<RateLimited>(429, error_body("slower")).end, CallEnd::kExhausted);
  EXPECT_EQ(thrown<RateLimited>(429, error_body("x", "insufficient_quota")).end,
            CallEnd::kPermanent);
  EXPECT_EQ(thrown<ContextLengthExceeded>(400, error_body("x", "context_length_exceeded")).status,
            400);
  EXPECT_EQ(thrown<ServiceError>(400, error_body("x", "content_filter")).status, 400);
  EXPECT_EQ(thrown<ServiceError>(422, "{}").status, 422);
  EXPECT_EQ(thrown<Unavailable>(503, "{}").status, 503);
  EXPECT_EQ(thrown<Unavailable>(408, "{}").status, 408);
}

}  // namespace
}  // namespace necrocode::llm
