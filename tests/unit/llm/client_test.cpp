// LLMClient against real sockets: a scripted server for what a service can do wrong, the replay
// server for what it does right. Waits are a fake clock's.
#include "necrocode/llm/client.hpp"

#include <gmock/gmock.h>

#include <set>
#include <thread>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/llm/replay.hpp"
#include "support/fake_clock.hpp"
#include "support/raw_server.hpp"

namespace necrocode {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::answer;
using test::FakeClock;
using test::plays;
using test::RawConnection;
using test::RawServer;
using testing::AllOf;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Le;
using testing::Not;

const std::string kKey = "sk-test-0123456789abcdefghij";
const std::string kChange =
    R"({"code_changes":[{"file_path":"a.txt","operation":"create","content":"hi\n"}],)"
    R"("explanation":"said hi"})";

std::string completion_body(const Json& content, const std::string& finish_reason = "stop") {
  const Json message = Json::object({{"role", "assistant"}, {"content", content}});
  const Json choice =
      Json::object({{"index", 0}, {"message", message}, {"finish_reason", finish_reason}});
  return Json::object({{"model", "gpt-4-0613"},
                       {"choices", Json(Json::Array{choice})},
                       {"usage", Json::object({{"prompt_tokens", 7},
                                               {"completion_tokens", 3},
                                               {"total_tokens", 10}})}})
      .dump();
}

std::string good(const std::string& content = kChange) {
  return answer(200, completion_body(content),
                "Content-Type: application/json\r\nX-Request-Id: req-1\r\n");
}

std::string error_body(const std::string& message, const std::string& code = {}) {
  return Json::object({{"error", Json::object({{"message", message}, {"code", code}})}}).dump();
}

// A service that plays `script`, and a client that asks it.
struct Service {
  explicit Service(RawServer::Script script, int retries = 3) : server(std::move(script)) {
    config.api_key = Secret(kKey);
    config.endpoint = server.url("/v1");
    config.http = net::make_curl_http_client();
    config.retry.retries = retries;
    config.environment.clock = &clock;
    config.environment.random = [] { return 0.5; };
  }
  explicit Service(std::vector<std::string> answers, int retries = 3)
      : Service(plays(std::move(answers)), retries) {}

  LLMClient& client() {
    if (!client_) client_.emplace(std::move(config));
    return *client_;
  }
  ChatResponse chat(const CallContext& context = {}) {
    ChatRequest request;
    request.messages = {{"user", "hello"}};
    return client().chat(request, context);
  }
  LLMResponse generate(const CallContext& context = {}) {
    return client().generate_code("Add a file.", "/tmp/workspace", 0, context);
  }
  /// The info of the Error that a chat brings.
  template <class Error>
  ErrorInfo failure(const CallContext& context = {}) {
    return caught<Error>([&] { chat(context); });
  }
  template <class Error, class Body>
  static ErrorInfo caught(Body body) {
    try {
      body();
    } catch (const Error& error) {
      EXPECT_EQ(typeid(error), typeid(Error)) << error.what();
      EXPECT_EQ(error.info().service, "llm");
      EXPECT_THAT(error.info().operation, Not(IsEmpty()));
      EXPECT_THAT(error.what(), Not(HasSubstr(kKey)));
      EXPECT_THAT(error.what(), Not(HasSubstr("\n")));
      EXPECT_LE(error.info().detail.size(), limits::kModelMessageBytes + 3);  // and the "…"
      return error.info();
    } catch (const std::exception& error) {
      ADD_FAILURE() << "another error: " << error.what();
      return {};
    }
    ADD_FAILURE() << "no error";
    return {};
  }

  FakeClock clock;
  RawServer server;
  LLMConfig config;

 private:
  std::optional<LLMClient> client_;
};

TEST(LLMClient, GenerateCodeAsksForTheSchemaAndReadsTheChanges) {
  Service service({good()});
  const LLMResponse response = service.generate();
  ASSERT_EQ(response.code_changes.size(), 1u);
  EXPECT_EQ(response.code_changes[0].file_path, "a.txt");
  EXPECT_EQ(response.explanation, "said hi");
  EXPECT_EQ(response.raw, kChange);
  EXPECT_EQ(response.model, "gpt-4-0613");
  EXPECT_EQ(response.usage.total_tokens, 10);
  EXPECT_FALSE(response.usage.estimated);
  EXPECT_EQ(response.attempts, 1);

  const auto requests = service.server.requests();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].method, "POST");
  EXPECT_EQ(requests[0].target, "/v1/chat/completions");
  EXPECT_EQ(requests[0].headers.get("Authorization"), "Bearer " + kKey);
  EXPECT_EQ(requests[0].headers.get("Content-Type"), "application/json");
  EXPECT_TRUE(requests[0].headers.get("Idempotency-Key"));
  const Json body = Json::parse(requests[0].body);
  EXPECT_EQ(body["model"], Json("gpt-4"));
  EXPECT_EQ(body["max_tokens"], Json(4000));
  EXPECT_EQ(body["temperature"], Json(0.2));
  EXPECT_EQ(body["stream"], Json(true));
  EXPECT_EQ(body["stream_options"]["include_usage"], Json(true));
  EXPECT_EQ(body["response_format"]["type"], Json("json_schema"));
  EXPECT_EQ(body["response_format"]["json_schema"]["schema"]["required"].dump(),
            R"(["code_changes","explanation"])");
  ASSERT_EQ(body["messages"].size(), 2u);
  const std::string system = body["messages"].items()[0]["content"].string_or("");
  EXPECT_LE(system.size(), 2048u);
  EXPECT_THAT(system, AllOf(HasSubstr("JSON"), HasSubstr("code_changes"), HasSubstr("search"),
                            HasSubstr(".git")));
  EXPECT_EQ(body["messages"].items()[1]["content"], Json("Add a file."));
}

TEST(LLMClient, ChatTakesItsOwnLimitsAndSendsNoSchemaAndNoEmptyKey) {
  Service service({good("four")});
  service.config.api_key = Secret();
  ChatRequest request;
  request.messages = {{"user", "2+2"}};
  request.max_tokens = 5;
  request.temperature = 0;
  const ChatResponse response = service.client().chat(request);
  EXPECT_EQ(response.content, "four");
  EXPECT_EQ(response.finish_reason, "stop");
  EXPECT_EQ(response.request_id, "req-1");
  const auto sent = service.server.requests().at(0);
  EXPECT_FALSE(sent.headers.get("Authorization"));
  const Json body = Json::parse(sent.body);
  EXPECT_EQ(body["max_tokens"], Json(5));
  EXPECT_EQ(body["temperature"].as_double(), 0.0);
  EXPECT_FALSE(body.find("response_format"));
}

TEST(LLMClient, RateLimitWithRetryAfterIsRetriedOnceNoSoonerThanAsked) {
  Service service(
      {answer(429, error_body("slow", "rate_limit_exceeded"), "Retry-After: 2\r\n"), good()});
  EXPECT_EQ(service.chat().attempts, 2);
  EXPECT_THAT(service.clock.sleeps(), ElementsAre(AllOf(Ge(2.0), Le(2.5))));
  const auto requests = service.server.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].headers.get("Idempotency-Key"), requests[1].headers.get("Idempotency-Key"));
}

TEST(LLMClient, UsedUpRateLimitHeadersAreAHint) {
  Service service(
      {answer(429, "{}",
              "x-ratelimit-remaining-requests: 5\r\nx-ratelimit-reset-requests: 9m\r\n"
              "x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1m2.5s\r\n"),
       good()});
  service.chat();
  EXPECT_THAT(service.clock.sleeps(), ElementsAre(AllOf(Ge(62.5), Le(69.0))));
}

TEST(LLMClient, HintBeyondTheDeadlineReturnsAtOnceWithRetryAt) {
  Service service({answer(429, error_body("slow"), "Retry-After: 90\r\n")});
  const auto info = service.failure<RateLimited>(CallContext{}.within(seconds(60), service.clock));
  EXPECT_EQ(info.status, 429);
  EXPECT_EQ(info.end, CallEnd::kDeadline);
  EXPECT_EQ(info.attempts, 1);
  ASSERT_TRUE(info.retry_at);
  EXPECT_EQ(to_rfc3339(*info.retry_at), to_rfc3339(service.clock.system_now() + seconds(90)));
  EXPECT_THAT(service.clock.sleeps(), IsEmpty());
  EXPECT_EQ(info.detail, "slow");
}

TEST(LLMClient, HintsThatMakeNoSenseAreBounded) {
  for (const std::string hint : {"-5", "1000000000", "soon", "Sun, 06 Nov 1994 08:49:37 GMT", ""}) {
    Service service({answer(429, "{}", "Retry-After: " + hint + "\r\n"), good()}, 1);
    try {
      EXPECT_EQ(service.chat().attempts, 2) << hint;
    } catch (const RateLimited& error) {
      EXPECT_EQ(hint, "1000000000");
      EXPECT_LE(*error.info().retry_at, service.clock.system_now() + std::chrono::hours(24));
    }
    for (const double sleep : service.clock.sleeps()) EXPECT_LE(sleep, 300) << hint;
  }
}

TEST(LLMClient, RateLimitForEverEndsAfterTheRetries) {
  Service service({answer(429, error_body("slow"))});
  const auto info = service.failure<RateLimited>();
  EXPECT_EQ(info.end, CallEnd::kExhausted);
  EXPECT_EQ(info.attempts, 4);
  EXPECT_EQ(service.server.requests().size(), 4u);
}

TEST(LLMClient, ExhaustedQuotaIsNotRetried) {
  for (const std::string& refusal :
       {answer(429, error_body("You exceeded your current quota", "insufficient_quota"),
               "Retry-After: 1\r\n"),
        answer(429, error_body("limit", "billing_hard_limit_reached")),
        answer(402, error_body("pay"))}) {
    Service service({refusal, good()});
    EXPECT_EQ(service.failure<RateLimited>().end, CallEnd::kPermanent);
    EXPECT_EQ(service.server.requests().size(), 1u);
  }
}

TEST(LLMClient, RefusedKeyIsUnauthorizedAndMasked) {
  for (const int status : {401, 403}) {
    Service service({answer(status, error_body("Incorrect API key provided: " + kKey),
                            "x-request-id: r-9\r\n")});
    const auto info = service.failure<Unauthorized>();
    EXPECT_EQ(info.status, status);
    EXPECT_EQ(info.request_id, "r-9");
    EXPECT_THAT(info.detail, HasSubstr("Incorrect API key"));
    EXPECT_EQ(service.server.requests().size(), 1u);
  }
}

TEST(LLMClient, RefusedRequestsAreTypedAndNotRetried) {
  for (const int status : {400, 413, 422, 418}) {
    Service service({answer(status, error_body("no"), "x-should-retry: maybe\r\n")});
    EXPECT_EQ(service.failure<ServiceError>().status, status);
    EXPECT_EQ(service.server.requests().size(), 1u);
  }
  Service missing({answer(404, error_body("The model `gpt-9` does not exist", "model_not_found"))});
  EXPECT_THAT(missing.failure<NotFound>().detail, HasSubstr("gpt-9"));
  Service filtered({answer(400, error_body("filtered", "content_filter"))});
  EXPECT_EQ(filtered.failure<ServiceError>().status, 400);
  Service too_long(
      {answer(400, error_body("maximum context length is 8192", "context_length_exceeded"))});
  EXPECT_EQ(too_long.failure<ContextLengthExceeded>().attempts, 1);
}

TEST(LLMClient, LongErrorPageIsShortened) {
  Service service({answer(400, std::string(100'000, 'x'))});
  EXPECT_GE(service.failure<ServiceError>().detail.size(), limits::kModelMessageBytes);
}

TEST(LLMClient, FailingServiceIsRetriedThenUnavailable) {
  Service recovering({answer(503, "{}"), answer(500, "oops"), good()});
  EXPECT_EQ(recovering.chat().attempts, 3);
  EXPECT_THAT(recovering.clock.sleeps(), ElementsAre(0.5, 1.0));
  Service down({answer(503, error_body("overloaded"))});
  const auto info = down.failure<Unavailable>();
  EXPECT_EQ(info.status, 503);
  EXPECT_EQ(info.attempts, 4);
  EXPECT_EQ(info.detail, "overloaded");
}

TEST(LLMClient, TwentyClientsDoNotComeBackInStep) {
  std::set<double> sleeps;
  RawServer server(plays({answer(503, "{}")}));
  for (int i = 0; i < 20; ++i) {
    FakeClock clock;
    LLMConfig config;
    config.endpoint = server.url("/v1");
    config.http = net::make_curl_http_client();
    config.retry.retries = 1;
    config.environment.clock = &clock;
    ChatRequest request;
    request.messages = {{"user", "x"}};
    LLMClient client(std::move(config));
    EXPECT_THROW(client.chat(request), Unavailable);
    for (const double sleep : clock.sleeps()) sleeps.insert(sleep);
  }
  EXPECT_GE(sleeps.size(), 15u);  // milliseconds out of 1000; all equal would be 1
}

TEST(LLMClient, AnswerResetMidBodyIsAskedForAgainWhole) {
  Service service([](RawConnection& connection) {
    if (!connection.read_request()) return;
    if (connection.index() == 0) {
      connection.send(good().substr(0, good().size() - 30));
      connection.reset();
    } else {
      connection.send(good());
    }
  });
  const LLMResponse response = service.generate();
  EXPECT_EQ(response.attempts, 2);
  EXPECT_EQ(response.raw, kChange);
}

TEST(LLMClient, ServiceThatAlwaysCutsIsUnavailableAndMaybeAccepted) {
  Service service([](RawConnection& connection) { connection.read_request(); }, 1);
  const auto info = service.failure<Unavailable>();
  EXPECT_EQ(info.end, CallEnd::kExhausted);
  EXPECT_TRUE(info.maybe_accepted);
  EXPECT_EQ(info.attempts, 2);
}

TEST(LLMClient, NobodyListeningIsUnavailable) {
  int port = 0;
  {
    port = RawServer([](RawConnection&) {}).port();
  }
  Service service({good()}, 1);
  service.config.endpoint = "http://127.0.0.1:" + std::to_string(port) + "/v1";
  const auto info = service.failure<Unavailable>();
  EXPECT_EQ(info.attempts, 2);
  EXPECT_FALSE(info.maybe_accepted);
}

TEST(LLMClient, SilenceEndsAtTheDeadline) {
  Service service([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  service.config.environment.clock = &real_clock();
  const auto begin = std::chrono::steady_clock::now();
  const auto info = service.failure<TimeoutError>(CallContext{}.within(milliseconds(150)));
  const auto took = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(info.end, CallEnd::kDeadline);
  EXPECT_TRUE(info.maybe_accepted);
  EXPECT_GE(took, milliseconds(135));
  EXPECT_LE(took,
            milliseconds(1'000));  // 10 % on a quiet machine; the bound here is for a loaded one
}

TEST(LLMClient, SilenceInEachAttemptIsATimeout) {
  Service service(
      [](RawConnection& connection) {
        connection.read_request();
        connection.wait_closed();
      },
      1);
  service.config.timeout_seconds = 0.05;
  const auto info = service.failure<TimeoutError>();
  EXPECT_EQ(info.attempts, 2);
  EXPECT_EQ(info.end, CallEnd::kExhausted);
}

TEST(LLMClient, CancelEndsTheCall) {
  Service service([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  std::jthread canceller([&] {
    service.server.wait_for_requests(1);
    stop.request_stop();
  });
  EXPECT_EQ(service.failure<TimeoutError>(context).end, CallEnd::kCancelled);
}

TEST(LLMClient, SuccessThatIsNoCompletionIsInvalidAndNotRetried) {
  const std::string deep =
      R"({"choices":)" + std::string(200'000, '[') + std::string(200'000, ']') + "}";
  for (const std::string& body :
       {std::string("<!doctype html><title>Login</title>"), std::string(),
        std::string("{\"choices\":[{\"mess"), std::string("[]"), std::string("{}"),
        error_body("model is loading"), std::string(R"({"choices":[]})"),
        std::string(R"({"choices":{}})"), std::string(R"({"choices":[{}]})"),
        std::string(R"({"choices":[{"finish_reason":"error","message":{"content":"x"}}]})"), deep,
        completion_body("x").substr(0, 40) + "\xff\xfe\"}"}) {
    Service service({answer(200, body)});
    EXPECT_EQ(service.failure<InvalidResponse>().status, 200) << body.substr(0, 100);
    EXPECT_EQ(service.server.requests().size(), 1u);
  }
}

TEST(LLMClient, UnusableCompletionsAreImplementationErrors) {
  const std::string refusal =
      R"({"choices":[{"finish_reason":"stop","message":{"content":null,"refusal":"I will not"}}]})";
  const std::string tools = R"({"choices":[{"finish_reason":"tool_calls",)"
                            R"("message":{"content":null,"tool_calls":[{}]}}]})";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {completion_body(nullptr), "its content is null"},
      {completion_body(""), "its content is empty"},
      {completion_body("partial", "length"), "cut off at the token limit"},
      {completion_body(kChange, "length"), "cut off at the token limit"},
      {completion_body(kChange, "model_length"), "cut off at the token limit"},
      {completion_body(kChange, "MAX_TOKENS"), "cut off at the token limit"},
      {completion_body("x", "content_filter"), "content filter"},
      {refusal, "the model refused"},
      {tools, "calls tools"}};
  for (const auto& [body, reason] : cases) {
    Service service({answer(200, body, "X-Request-Id: req-7\r\n")});
    try {
      service.chat();
      ADD_FAILURE() << body;
    } catch (const ImplementationError& error) {
      EXPECT_THAT(error.what(), HasSubstr(reason));
      EXPECT_EQ(error.info().request_id, "req-7");
      EXPECT_EQ(error.info().attempts, 1);
    }
    EXPECT_EQ(service.server.requests().size(), 1u);
  }
}

TEST(LLMClient, BadCodeChangesAreNotApplied) {
  const auto change = [](const std::string& path, const std::string& operation) {
    return Json::object({{"file_path", path}, {"operation", operation}, {"content", "x"}});
  };
  const auto given = [&](Json::Array list) {
    return good(Json::object({{"code_changes", Json(std::move(list))}}).dump());
  };
  Service prose({good("I cannot do that.")});
  EXPECT_EQ(Service::caught<ImplementationError>([&] { prose.generate(); }).detail,
            "I cannot do that.");
  Service twice({given({change("a", "create"), change("./a", "modify")})});
  EXPECT_THAT(Service::caught<ImplementationError>([&] { twice.generate(); }).fields.at(0).message,
              HasSubstr("named twice"));
  Service unknown({given({change("a", "create"), change("b", "chmod")})});
  EXPECT_EQ(Service::caught<ImplementationError>([&] { unknown.generate(); }).operation,
            "generate_code");
  Service outside({given({change("../a", "create")})});
  const auto info = Service::caught<SecurityError>([&] { outside.generate(); });
  EXPECT_EQ(info.fields.at(0).message, "\"../a\" leads upward");
  EXPECT_EQ(info.request_id, "req-1");
}

TEST(LLMClient, EndlessBodyEndsAtTheLimit) {
  Service service([](RawConnection& connection) {
    if (!connection.read_request()) return;
    connection.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n");
    const std::string spaces(1 << 16, ' ');
    while (connection.send(spaces)) {
    }
  });
  EXPECT_EQ(service.failure<InvalidResponse>().attempts, 1);
}

TEST(LLMClient, TwentyThousandHeadersAreRefused) {
  std::string fields;
  for (int i = 0; i < 20'000; ++i) fields += "X-" + std::to_string(i) + ": y\r\n";
  Service service({answer(200, completion_body("x"), fields)});
  EXPECT_EQ(service.failure<InvalidResponse>().attempts, 1);
}

TEST(LLMClient, RedirectIsNotFollowedAndTheKeyStaysHere) {
  RawServer elsewhere(plays({good()}));
  for (const int status : {301, 302, 307, 308}) {
    Service service(
        {answer(status, "", "Location: " + elsewhere.url("/v1/chat/completions") + "\r\n")});
    const auto info = service.failure<ServiceError>();
    EXPECT_EQ(info.status, status);
    EXPECT_EQ(info.end, CallEnd::kPermanent);
  }
  EXPECT_EQ(elsewhere.connections(), 0u);
}

TEST(LLMClient, MissingUsageIsEstimated) {
  Service service(
      {answer(200, R"({"choices":[{"message":{"content":"12345678"},"finish_reason":"stop"}],
    "usage":null})")});
  const ChatResponse response = service.chat();
  EXPECT_TRUE(response.usage.estimated);
  EXPECT_EQ(response.usage.completion_tokens, 2);
  EXPECT_EQ(response.model, "gpt-4");  // the one asked for, since none is named
}

TEST(LLMClient, WhatA400TeachesIsRememberedAndNotCounted) {
  Service service({answer(400, error_body("response_format 'json_schema' is not supported")),
                   answer(400, error_body("Use 'max_completion_tokens' instead of max_tokens")),
                   answer(400, error_body("response_format is unknown")),
                   answer(400, error_body("temperature is not supported")), good()});
  EXPECT_EQ(service.generate().attempts, 1);
  EXPECT_EQ(service.generate().attempts, 1);
  const auto requests = service.server.requests();
  ASSERT_EQ(requests.size(), 6u);
  const auto body = [&](std::size_t i) { return Json::parse(requests[i].body); };
  EXPECT_EQ(body(0)["response_format"]["type"], Json("json_schema"));
  EXPECT_EQ(body(1)["response_format"]["type"], Json("json_object"));
  EXPECT_TRUE(body(2).find("max_completion_tokens"));
  EXPECT_FALSE(body(2).find("max_tokens"));
  EXPECT_FALSE(body(3).find("response_format"));
  EXPECT_TRUE(body(3).find("temperature"));
  for (const std::size_t i : {std::size_t{4}, std::size_t{5}}) {
    EXPECT_FALSE(body(i).find("temperature"));
    EXPECT_FALSE(body(i).find("response_format"));
    EXPECT_EQ(body(i)["max_completion_tokens"], Json(4000));
  }
  EXPECT_THAT(service.clock.sleeps(), IsEmpty());
}

TEST(LLMClient, EndpointThatRefusesEverythingEnds) {
  Service service({answer(
      400, error_body("response_format, max_completion_tokens, temperature: not supported"))});
  EXPECT_EQ(Service::caught<ServiceError>([&] { service.generate(); }).status, 400);
  EXPECT_EQ(service.server.requests().size(), 5u);
}

TEST(LLMClient, BadConfigurationNamesAllDefects) {
  const auto defects = [](const std::function<void(LLMConfig&)>& change) {
    LLMConfig config;
    change(config);
    std::string names;
    try {
      const LLMClient client(std::move(config));
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), Not(HasSubstr("hunter2")));
      for (const FieldError& field : error.info().fields) names += field.pointer + " ";
    }
    return names;
  };
  EXPECT_EQ(defects([](LLMConfig&) {}), "");
  for (const char* key : {"hunter2-key\r\nX-Evil: 1", "hunter2-key\n", "hunter2 key", "hunter2\x7f",
                          "hunter2\xC3\xA9"}) {
    EXPECT_EQ(defects([&](LLMConfig& c) { c.api_key = Secret(key); }), "llm.api_key ") << key;
  }
  for (const char* url : {"", "ftp://x/v1", "api.openai.com", "https://u:hunter2@x/v1",
                          "https://x/v1?a=b", "https://x/v1#f"}) {
    EXPECT_EQ(defects([&](LLMConfig& c) { c.endpoint = url; }), "llm.endpoint ") << url;
  }
  const auto with_key = [&](const std::string& url) {
    return defects([&](LLMConfig& c) {
      c.endpoint = url;
      c.api_key = Secret("hunter2hunter2");
    });
  };
  EXPECT_EQ(with_key("http://example.com/v1"), "llm.endpoint ");
  EXPECT_EQ(with_key("http://127.0.0.1.example.com/v1"), "llm.endpoint ");
  EXPECT_EQ(with_key("http://localhost:1/v1"), "");
  EXPECT_EQ(with_key("https://example.com/v1"), "");
  EXPECT_EQ(defects([](LLMConfig& c) { c.endpoint = "http://example.com/v1"; }), "");
  EXPECT_EQ(defects([](LLMConfig& c) {
              c.provider = "carrier-pigeon";
              c.model = "";
              c.timeout_seconds = 0;
              c.max_tokens = 0;
              c.temperature = std::numeric_limits<double>::quiet_NaN();
            }),
            "llm.provider llm.model llm.timeout_seconds llm.max_tokens llm.temperature ");
}

TEST(LLMClient, EndpointLosesItsTrailingSlash) {
  Service service({good()});
  service.config.endpoint = service.server.url("/prefix/v1//");
  service.chat();
  EXPECT_EQ(service.server.requests().at(0).target, "/prefix/v1/chat/completions");
}

TEST(LLMClient, HealthCheckNeverThrowsAndAsksOnce) {
  for (const auto& [status, healthy] : std::vector<std::pair<int, bool>>{
           {200, true}, {404, true}, {429, true}, {401, false}, {403, false}, {503, false}}) {
    Service service({answer(status, "{}")});
    const net::HealthStatus health = service.client().health_check();
    EXPECT_EQ(health.healthy, healthy) << status;
    EXPECT_EQ(health.detail,
              healthy ? "ok" : "the model service answered " + std::to_string(status));
    ASSERT_EQ(service.server.requests().size(), 1u);
    EXPECT_EQ(service.server.requests()[0].method + " " + service.server.requests()[0].target,
              "GET /v1/models");
  }
  Service silent([](RawConnection& connection) { connection.read_request(); });
  const net::HealthStatus health = silent.client().health_check();
  EXPECT_FALSE(health.healthy);
  EXPECT_THAT(health.detail, Not(IsEmpty()));
}

// The replay server as the demo uses it.
struct Replayed {
  explicit Replayed(const std::string& entries)
      : server(llm::Cassette::parse(R"({"version":1,"entries":)" + entries + "}")) {
    server.start();
    LLMConfig config;
    config.endpoint = server.url();
    config.http = net::make_curl_http_client();
    config.environment.clock = &clock;
    client.emplace(std::move(config));
  }
  FakeClock clock;
  llm::ReplayServer server;
  std::optional<LLMClient> client;
};

TEST(LLMClientOnReplay, WrongAnswerThenRateLimitThenRepair) {
  Replayed replay(R"([
    {"match":{"contains":["Add a"],"not_contains":["FAILED"]},
     "answer":{"status":429,"headers":{"Retry-After":"1"},
               "body":{"error":{"message":"Rate limit reached","type":"rate_limit_exceeded"}}}},
    {"match":{"contains":["Add a"],"not_contains":["FAILED"]},
     "answer":{"content":"{\"code_changes\":[)"
                  R"({\"file_path\":\"a\",\"operation\":\"create\",\"content\":\"wrong\"}]}"}},
    {"match":{"contains":["FAILED"]},
     "answer":{"content":"```json\n{\"code_changes\":[{\"file_path\":\"a\",)"
                  R"(\"operation\":\"modify\",)"
                  R"(\"edits\":[{\"search\":\"wrong\",\"replace\":\"right\"}]}]}\n```",
               "usage":{"prompt_tokens":100,"completion_tokens":20}}}])");
  const LLMResponse first = replay.client->generate_code("Add a");
  EXPECT_EQ(first.code_changes.at(0).content, "wrong");
  EXPECT_EQ(first.attempts, 2);
  EXPECT_THAT(replay.clock.sleeps(), ElementsAre(AllOf(Ge(1.0), Le(1.1))));
  const LLMResponse second = replay.client->generate_code("Add a\nFAILED test_a");
  EXPECT_EQ(second.code_changes.at(0).edits.at(0).replace, "right");
  EXPECT_EQ(second.usage.total_tokens, 120);
  EXPECT_EQ(replay.server.served().size(), 3u);
  EXPECT_TRUE(replay.client->health_check().healthy);
  try {
    replay.client->generate_code("Something else");
    FAIL();
  } catch (const ServiceError& error) {
    EXPECT_THAT(error.info().detail,
                HasSubstr("no cassette entry answers this; the nearest is entry"));
  }
}

TEST(LLMClientOnReplay, DrillsAreSurvivedOrTyped) {
  Replayed replay(R"([{"match":{"contains":["cut"]},"answer":{"drill":"cut"}},
    {"match":{"contains":["cut"]},"answer":{"drill":"reset"}},
    {"match":{"contains":["cut"]},"answer":{"content":"whole"}},
    {"match":{"contains":["garbage"]},"answer":{"drill":"garbage"}},
    {"match":{"contains":["html"]},"answer":{"drill":"html"}}])");
  const auto ask = [&](const std::string& text) {
    ChatRequest request;
    request.messages = {{"user", text}};
    return replay.client->chat(request);
  };
  const ChatResponse response = ask("cut");
  EXPECT_EQ(response.content, "whole");
  EXPECT_EQ(response.attempts, 3);
  EXPECT_THROW(ask("garbage"), InvalidResponse);
  EXPECT_THROW(ask("html"), InvalidResponse);
}

TEST(LLMClientOnReplay, OneClientServesManyThreads) {
  Replayed replay(R"([{"times":0,"answer":{"content":"yes"}}])");
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10; ++n) {
        ChatRequest request;
        request.messages = {{"user", "x"}};
        EXPECT_EQ(replay.client->chat(request).content, "yes");
      }
    });
  }
  threads.clear();
  EXPECT_EQ(replay.server.served().size(), 80u);
}

}  // namespace
}  // namespace necrocode
