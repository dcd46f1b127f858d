#include "necrocode/net/service_caller.hpp"

#include <gmock/gmock.h>

#include <mutex>
#include <set>
#include <thread>

#include "necrocode/base/text.hpp"
#include "necrocode/base/trace_context.hpp"
#include "necrocode/net/body_sources.hpp"
#include "necrocode/observe/log.hpp"
#include "support/fake_clock.hpp"
#include "support/raw_server.hpp"

namespace necrocode::net {
namespace {

using namespace std::chrono_literals;
using test::answer;
using test::FakeClock;
using test::plays;
using test::RawConnection;
using test::RawServer;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

class ServiceCallerTest : public testing::Test {
 protected:
  ServiceOptions options(const std::string& base_url) {
    ServiceOptions options;
    options.base_url = base_url;
    options.environment.clock = &clock_;
    return options;
  }
  ServiceCaller caller(const std::string& base_url) { return {"task-registry", options(base_url)}; }

  template <class Error>
  Error error_of(const std::vector<std::string>& answers, const ServiceCall& call = get_call()) {
    RawServer server(plays(answers));
    try {
      caller(server.url("")).call(call, {});
    } catch (const Error& error) {
      return error;
    } catch (const std::exception& error) {
      ADD_FAILURE() << "another error: " << error.what();
    }
    ADD_FAILURE() << "no error of that type";
    return Error("none");
  }
  static ServiceCall get_call() {
    ServiceCall call;
    call.operation = "get_task";
    call.target = "app:1.1";
    call.path = "/tasks/app%3A1.1";
    return call;
  }
  static ServiceCall post_call() {
    ServiceCall call = get_call();
    call.operation = "add_event";
    call.method = "POST";
    call.path = "/tasks/app%3A1.1/events";
    call.body = Json::object({{"event_type", "X"}});
    return call;
  }
  FakeClock clock_;
};

std::string problem(int status, const std::string& json, const std::string& fields = "") {
  return answer(status, json,
                "Content-Type: application/problem+json\r\nX-Request-Id: req-7\r\n" + fields);
}

// ---- what is sent
// ----------------------------------------------------------------------------------

TEST_F(ServiceCallerTest, SendsJsonWithTokenAndKey) {
  RawServer server(plays({answer(201, "{\"id\":7}")}));
  ServiceOptions with_token = options(server.url("/prefix/"));
  with_token.token = Secret("token-12345678");
  const ServiceCaller caller("task-registry", std::move(with_token));
  CallContext context;
  context.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  EXPECT_EQ(caller.call_json(post_call(), context)["id"].as_int(), 7);

  const auto seen = server.requests().at(0);
  EXPECT_EQ(seen.target, "/prefix/tasks/app%3A1.1/events");
  EXPECT_EQ(seen.body, "{\"event_type\":\"X\"}");
  EXPECT_EQ(seen.headers.get("Content-Type"), "application/json");
  EXPECT_EQ(seen.headers.get("Accept"), "application/json");
  EXPECT_EQ(seen.headers.get("Authorization"), "Bearer token-12345678");
  const auto trace = TraceContext::parse(seen.headers.get_or("traceparent", ""));
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->trace_id, "0af7651916cd43dd8448eb211c80319c");
  EXPECT_NE(trace->span_id, "b7ad6b7169203331") << "the call is a span of its own";
  EXPECT_THAT(seen.headers.get_or("Idempotency-Key", ""), SizeIs(36));
}

TEST_F(ServiceCallerTest, ReportsEachCallOnceHoweverItEnds) {
  RawServer server(
      plays({answer(503, "later"), answer(200, "{}"), answer(404, "none"), answer(200, "piece")}));
  std::vector<CallReport> reports;
  ServiceOptions reporting = options(server.url(""));
  reporting.retry.base = 0ms;
  reporting.on_call = [&](const CallReport& report) { reports.push_back(report); };
  const ServiceCaller caller("task-registry", std::move(reporting));
  CallContext context;
  context.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  caller.call(get_call(), context);
  context.traceparent = "nonsense";
  EXPECT_THROW(caller.call(get_call(), context), NotFound);
  CallContext cancelled;
  std::stop_source stop;
  stop.request_stop();
  cancelled.stop = stop.get_token();
  EXPECT_THROW(caller.call(get_call(), cancelled), TimeoutError);

  ServiceCall stream = get_call();
  stream.on_body = [](std::string_view) -> bool { throw StorageError("disk full"); };
  EXPECT_THROW(caller.call(stream, {}), StorageError);

  ASSERT_EQ(reports.size(), 4u);
  EXPECT_EQ(reports[0].service, "task-registry");
  EXPECT_EQ(reports[0].operation, get_call().operation);
  EXPECT_EQ(reports[0].method, "GET");
  EXPECT_EQ(reports[0].status, 200);
  EXPECT_EQ(reports[0].attempts, 2);
  EXPECT_EQ(reports[0].end, CallEnd::kNone);
  EXPECT_EQ(reports[0].bytes, 2u);
  EXPECT_EQ(reports[0].trace_id, "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(reports[0].parent_span_id, "b7ad6b7169203331");
  EXPECT_EQ(reports[1].status, 404);
  EXPECT_EQ(reports[1].end, CallEnd::kPermanent);
  EXPECT_EQ(reports[1].trace_id, "") << "what is no trace is not handed on";
  EXPECT_FALSE(server.requests().at(2).headers.get("traceparent"));
  EXPECT_EQ(reports[2].status, 0);
  EXPECT_EQ(reports[2].end, CallEnd::kCancelled);
  EXPECT_EQ(reports[3].end, CallEnd::kPermanent) << "a receiver that failed is no success";
}

TEST_F(ServiceCallerTest, SendsNeitherKeyNorTokenWhereNoneIsDue) {
  RawServer server(plays({answer(200, "{}")}));
  caller(server.url()).call(get_call(), {});
  const auto seen = server.requests().at(0);
  EXPECT_EQ(seen.headers.count("Idempotency-Key"), 0u);
  EXPECT_EQ(seen.headers.count("Authorization"), 0u);
  EXPECT_EQ(seen.headers.count("Content-Type"), 0u);
}

TEST_F(ServiceCallerTest, KeepsTheKeyOverRetriesAndChangesItWithTheCall) {
  // A lost reply: the request was read, then the connection is gone.
  auto count = std::make_shared<std::atomic<int>>(0);
  RawServer server([count](RawConnection& connection) {
    while (connection.read_request()) {
      if ((*count)++ < 3) return connection.reset();
      connection.send(answer(201, "{}"));
    }
  });
  const ServiceCaller caller = this->caller(server.url());
  caller.call(post_call(), {});
  caller.call(post_call(), {});
  const auto seen = server.requests();
  ASSERT_THAT(seen, SizeIs(5));
  std::set<std::string> keys;
  for (std::size_t i = 0; i < 4; ++i) keys.insert(seen[i].headers.get_or("Idempotency-Key", ""));
  EXPECT_THAT(keys, SizeIs(1));
  EXPECT_NE(seen[4].headers.get("Idempotency-Key"), seen[3].headers.get("Idempotency-Key"));
}

TEST_F(ServiceCallerTest, RemovalWhoseAnswerWasLostHasSucceeded) {
  auto count = std::make_shared<std::atomic<int>>(0);
  RawServer server([count](RawConnection& connection) {
    while (connection.read_request()) {
      if ((*count)++ == 0) return connection.reset();
      connection.send(answer(404, "{}"));
    }
  });
  ServiceCall removal = get_call();
  removal.method = "DELETE";
  EXPECT_EQ(caller(server.url()).call(removal, {}).status, 404);
  EXPECT_THROW(caller(server.url()).call(removal, {}), NotFound) << "there was no earlier attempt";
  *count = 0;
  EXPECT_THROW(caller(server.url()).call(get_call(), {}), NotFound) << "only of a removal";
}

TEST_F(ServiceCallerTest, EveryMutatingMethodHasAKeyAndTheCallersWins) {
  RawServer server(plays({answer(200, "{}")}));
  const ServiceCaller caller = this->caller(server.url());
  for (const char* method : {"POST", "PUT", "PATCH", "DELETE"}) {
    ServiceCall call = get_call();
    call.method = method;
    caller.call(call, {});
    call.idempotency_key = "mine";
    caller.call(call, {});
  }
  const auto seen = server.requests();
  for (std::size_t i = 0; i < seen.size(); i += 2) {
    EXPECT_THAT(seen.at(i).headers.get_or("Idempotency-Key", ""), SizeIs(36));
    EXPECT_EQ(seen.at(i + 1).headers.get("Idempotency-Key"), "mine");
  }
}

TEST_F(ServiceCallerTest, StreamsBodiesBothWays) {
  RawServer server(plays({answer(200, "abcdef")}));
  ServiceCall call = get_call();
  call.method = "PUT";
  call.headers.set("Content-Type", "text/plain");
  call.body_source = memory_body("upload");
  std::string got;
  call.on_body = [&](std::string_view piece) {
    got += piece;
    return true;
  };
  caller(server.url()).call(call, {});
  EXPECT_EQ(got, "abcdef");
  EXPECT_EQ(server.requests().at(0).body, "upload");
  EXPECT_EQ(server.requests().at(0).headers.get("Content-Type"), "text/plain");
}

TEST_F(ServiceCallerTest, WaitsAsLongAsTheServerMay) {
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.closed_within(120ms);
    connection.send(answer(200, "{}"));
  });
  ServiceOptions impatient = options(server.url());
  impatient.timeout = 50ms;
  impatient.retry.retries = 0;
  const ServiceCaller caller("repo-pool", std::move(impatient));
  EXPECT_THROW(caller.call(get_call(), {}), Unavailable);
  ServiceCall patient = get_call();
  patient.extra_time = 10s;
  EXPECT_EQ(caller.call(patient, {}).status, 200);
}

// ---- configuration
// -----------------------------------------------------------------------------------

TEST_F(ServiceCallerTest, OneCallMayHaveItsOwnTimeAndRetries) {
  RawServer server(plays({answer(503, "{}")}));
  const ServiceCaller own = caller(server.url(""));
  CallContext once;
  once.retries = 0;
  EXPECT_THROW(own.call(get_call(), once), Unavailable);
  EXPECT_THAT(server.requests(), SizeIs(1));
  CallContext twice;
  twice.retries = 1;
  EXPECT_THROW(own.call(get_call(), twice), Unavailable);
  EXPECT_THAT(server.requests(), SizeIs(3));
  EXPECT_THROW(own.call(get_call(), {}), Unavailable);  // the client's own: 1 + 3
  EXPECT_THAT(server.requests(), SizeIs(7));

  RawServer silent([](RawConnection& connection) { connection.wait_closed(); });
  CallContext hurried;
  hurried.retries = 0;
  hurried.attempt_timeout = std::chrono::milliseconds(30);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_THROW(caller(silent.url("")).call(get_call(), hurried), Unavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));  // of 30
}

TEST_F(ServiceCallerTest, RefusesBaseUrlsThatCannotBeUsed) {
  for (const char* url : {"", "localhost:8000", "ftp://h/", "http://user:hunter22@h/",
                          "http://h\r\nX: y/", "http://h/?q=1", "http://h/#f"}) {
    try {
      caller(url);
      ADD_FAILURE() << url;
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.info().fields.at(0).pointer, "base_url");
      EXPECT_THAT(error.what(), Not(HasSubstr("hunter22")));
    }
  }
}

TEST_F(ServiceCallerTest, RefusesTokensThatCannotBeSentOrMasked) {
  for (const char* token :
       {"abc\r\nX-Evil: 1", "two words here", "abcdefgh\n", "short", "tab\tinside"}) {
    ServiceOptions bad = options("http://127.0.0.1:1");
    bad.token = Secret(token);
    try {
      const ServiceCaller caller("task-registry", std::move(bad));
      ADD_FAILURE() << token;
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.info().fields.at(0).pointer, "token");
      EXPECT_THAT(error.what(), Not(HasSubstr(token)));
    }
  }
}

TEST_F(ServiceCallerTest, SendsATokenOverPlainHttpOnlyToLoopback) {
  const auto make = [&](const std::string& url) {
    ServiceOptions secured = options(url);
    secured.token = Secret("token-12345678");
    const ServiceCaller made("task-registry", std::move(secured));
  };
  EXPECT_THROW(make("http://registry.example:8000"), ConfigError);
  EXPECT_THROW(make("http://10.0.0.1"), ConfigError);
  EXPECT_THROW(make("http://localhost.example"), ConfigError);
  EXPECT_NO_THROW(make("https://registry.example"));
  EXPECT_NO_THROW(make("http://localhost:8000"));
  EXPECT_NO_THROW(make("http://[::1]:8000"));
}

TEST_F(ServiceCallerTest, DropsTheSlashAtTheEndOfTheBaseUrl) {
  EXPECT_EQ(caller("http://H:80/a//").base_url(), "http://h:80/a");
}

// ---- answers
// -------------------------------------------------------------------------------------------

TEST_F(ServiceCallerTest, MapsStatusesToErrors) {
  EXPECT_EQ(error_of<TaskContextValidationError>({problem(400, "{}")}).info().status, 400);
  EXPECT_EQ(error_of<TaskContextValidationError>({problem(413, "{}")}).info().status, 413);
  EXPECT_EQ(error_of<TaskContextValidationError>({problem(422, "{}")}).info().status, 422);
  EXPECT_EQ(error_of<Unauthorized>({problem(401, "{}")}).info().status, 401);
  EXPECT_EQ(error_of<Unauthorized>({problem(403, "{}")}).info().status, 403);
  EXPECT_EQ(error_of<NotFound>({problem(404, "{}")}).info().status, 404);
  EXPECT_EQ(error_of<Conflict>({problem(409, "{}")}).info().status, 409);
  EXPECT_EQ(error_of<Conflict>({problem(412, "{}")}).info().status, 412);
  EXPECT_EQ(error_of<ServiceError>({problem(418, "{}")}).info().status, 418);
  EXPECT_EQ(error_of<ServiceError>({answer(302, "", "Location: http://h/\r\n")}).info().status,
            302);
}

TEST_F(ServiceCallerTest, RetriesAndThenMapsWhatMayPass) {
  for (const int status : {500, 502, 503, 504, 408, 425}) {
    const auto error = error_of<Unavailable>({problem(status, "{}")});
    EXPECT_EQ(error.info().attempts, 4) << status;
    EXPECT_EQ(error.info().end, CallEnd::kExhausted);
  }
  const auto unknown = error_of<Unavailable>({problem(501, "{}")});
  EXPECT_EQ(unknown.info().attempts, 1);
  EXPECT_EQ(unknown.info().end, CallEnd::kPermanent);
}

TEST_F(ServiceCallerTest, TellsWhenARateLimitEnds) {
  const auto error = error_of<RateLimited>({problem(429, "{}", "Retry-After: 3600\r\n")});
  EXPECT_EQ(error.info().attempts, 1);
  EXPECT_EQ(error.info().retry_at, clock_.system_now() + 1h);
}

TEST_F(ServiceCallerTest, TellsWhatTheServiceSaid) {
  const auto error = error_of<TaskContextValidationError>(
      {problem(422, R"({"title":"Unprocessable","detail":"two things are wrong","errors":[
        {"pointer":"/status","message":"unknown"},{"pointer":"/x","detail":"too long"},7]})")},
      post_call());
  EXPECT_EQ(error.info().service, "task-registry");
  EXPECT_EQ(error.info().operation, "add_event");
  EXPECT_EQ(error.info().target, "app:1.1");
  EXPECT_EQ(error.info().status, 422);
  EXPECT_EQ(error.info().request_id, "req-7");
  EXPECT_EQ(error.info().detail, "two things are wrong");
  ASSERT_THAT(error.info().fields, SizeIs(3));
  EXPECT_EQ(error.info().fields[0].pointer, "/status");
  EXPECT_EQ(error.info().fields[0].message, "unknown");
  EXPECT_EQ(error.info().fields[1].message, "too long");
  EXPECT_THAT(error.what(), HasSubstr("two things are wrong"));
}

TEST_F(ServiceCallerTest, ReadsTheWordsOfOtherFrameworks) {
  const std::string json = "Content-Type: application/json\r\n";
  EXPECT_EQ(error_of<NotFound>({answer(404, R"({"detail":"gone"})", json)}).info().detail, "gone");
  EXPECT_EQ(
      error_of<NotFound>({answer(404, R"({"error":{"message":"none"}})", json)}).info().detail,
      "none");
  EXPECT_EQ(error_of<NotFound>({answer(404, "<h1>no\npage</h1>")}).info().detail.find('\n'),
            std::string::npos);
  EXPECT_THAT(error_of<NotFound>({answer(404, "{broken", json)}).info().detail,
              HasSubstr("broken"));
}

TEST_F(ServiceCallerTest, BoundsAndMasksWhatTheServiceSays) {
  const std::string token = "token-that-is-secret-1";
  RawServer server(
      plays({answer(404, "you sent " + token + " \x1b]52;c;\a" + std::string(100'000, 'x'))}));
  ServiceOptions secured = options(server.url());
  secured.token = Secret(token);
  const ServiceCaller caller("task-registry", std::move(secured));
  try {
    caller.call(get_call(), {});
    FAIL();
  } catch (const NotFound& error) {
    EXPECT_LE(error.info().detail.size(), 500u);
    EXPECT_THAT(error.what(), Not(HasSubstr(token)));
    EXPECT_THAT(error.what(), Not(HasSubstr("\x1b")));
    EXPECT_THAT(error.info().detail, HasSubstr("you sent ***"));
  }
}

TEST_F(ServiceCallerTest, SurvivesHostileProblems) {
  const std::string deep = std::string(200'000, '[');
  std::string many = R"({"errors":[)";
  for (int i = 0; i < 10'000; ++i) many += R"({"pointer":"/a"},)";
  many += "{}]}";
  EXPECT_LE(error_of<NotFound>({problem(404, deep)}).info().detail.size(), 500u);
  EXPECT_LE(error_of<TaskContextValidationError>({problem(422, many)}).info().fields.size(), 100u);
  error_of<TaskContextValidationError>({problem(422, R"({"detail":7,"errors":"x"})")});
  error_of<TaskContextValidationError>({problem(422, "[1]")});
}

TEST_F(ServiceCallerTest, FillsInTheCallWhenNoAnswerCame) {
  std::string url;
  {
    RawServer server(plays({answer(200, "")}));
    url = server.url();
  }
  try {
    caller(url).call(get_call(), {});
    FAIL();
  } catch (const Unavailable& error) {
    EXPECT_EQ(error.info().service, "task-registry");
    EXPECT_EQ(error.info().operation, "get_task");
    EXPECT_EQ(error.info().target, "app:1.1");
    EXPECT_EQ(error.info().attempts, 4);
    EXPECT_EQ(error.info().end, CallEnd::kExhausted);
    EXPECT_FALSE(error.info().maybe_accepted);
  }
  try {
    caller(url).call(get_call(), CallContext{}.within(0s, clock_));
    FAIL();
  } catch (const TimeoutError& error) {
    EXPECT_EQ(error.info().operation, "get_task");
  }
}

TEST_F(ServiceCallerTest, TakesAnEmptyAnswerAsNull) {
  RawServer server(plays({"HTTP/1.1 204 No Content\r\n\r\n"}));
  EXPECT_TRUE(caller(server.url()).call_json(post_call(), {}).is_null());
}

TEST_F(ServiceCallerTest, AnAnswerThatIsNotJsonIsAnError) {
  for (const std::string& body : {std::string("<html>proxy</html>"), std::string(""),
                                  std::string(200'000, '['), std::string("{\"a\":\"\xff\"}")}) {
    RawServer server(plays({answer(200, body, "X-Request-Id: req-9\r\n")}));
    try {
      caller(server.url()).call_json(get_call(), {});
      FAIL() << body.substr(0, 20);
    } catch (const InvalidResponse& error) {
      EXPECT_EQ(error.info().operation, "get_task");
      EXPECT_EQ(error.info().status, 200);
      EXPECT_EQ(error.info().request_id, "req-9");
      EXPECT_LE(error.info().detail.size(), 500u);
    }
  }
}

TEST_F(ServiceCallerTest, AnAnswerAboveTheLimitIsAnError) {
  RawServer server(plays({answer(200, std::string(1001, ' '))}));
  ServiceCall call = get_call();
  call.response_bytes_max = 1000;
  EXPECT_THROW(caller(server.url()).call_json(call, {}), InvalidResponse);
}

TEST_F(ServiceCallerTest, ManyThreadsShareOneCaller) {
  RawServer server(plays({answer(200, "{}")}));
  const ServiceCaller caller = this->caller(server.url());
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 16; ++i) {
      threads.emplace_back([&] {
        for (int j = 0; j < 20; ++j) caller.call_json(post_call(), {});
      });
    }
  }
  std::set<std::string> keys;
  for (const auto& seen : server.requests())
    keys.insert(seen.headers.get_or("Idempotency-Key", ""));
  EXPECT_THAT(keys, SizeIs(320));
}

TEST_F(ServiceCallerTest, WritesOneRecordACallWithoutSecretOrBody) {
  RawServer server(
      plays({answer(503, ""), answer(201, "{\"answer-body\":1}"), problem(404, "{}")}));
  ServiceOptions with_token = options(server.url());
  with_token.token = Secret("token-12345678");
  const ServiceCaller caller("task-registry", std::move(with_token));
  log::configure(log::Level::kDebug, log::Format::kJson);
  testing::internal::CaptureStderr();
  caller.call(post_call(), {});
  EXPECT_THROW(caller.call(get_call(), {}), NotFound);
  const std::string text = testing::internal::GetCapturedStderr();
  log::configure(log::Level::kWarn, log::Format::kJson);

  const auto lines = split(trim(text), '\n');
  ASSERT_THAT(lines, SizeIs(2)) << text;
  const Json first = Json::parse(lines[0]);
  EXPECT_EQ(first["service"].as_string(), "task-registry");
  EXPECT_EQ(first["operation"].as_string(), "add_event");
  EXPECT_EQ(first["method"].as_string(), "POST");
  EXPECT_EQ(first["status"].as_int(), 201);
  EXPECT_EQ(first["attempts"].as_int(), 2);
  EXPECT_TRUE(first["duration_ms"].is_number());
  EXPECT_TRUE(first["bytes"].is_int());
  EXPECT_EQ(Json::parse(lines[1])["status"].as_int(), 404);
  for (const char* hidden : {"token-12345678", "event_type", "answer-body"}) {
    EXPECT_THAT(text, Not(HasSubstr(hidden)));
  }
}

// ---- health
// ----------------------------------------------------------------------------------------------

TEST_F(ServiceCallerTest, HealthIsToldAndNeverThrown) {
  RawServer good(plays({answer(200, "{\"status\":\"ok\"}")}));
  const HealthStatus healthy = caller(good.url()).health_check("registry");
  EXPECT_TRUE(healthy.healthy);
  EXPECT_EQ(healthy.detail, "ok");
  EXPECT_EQ(good.requests().at(0).target, "/health");

  RawServer bad(plays({problem(503, "{\"detail\":\"the database is away\"}")}));
  const HealthStatus ill = caller(bad.url()).health_check("registry");
  EXPECT_FALSE(ill.healthy);
  EXPECT_THAT(ill.detail, HasSubstr("the database is away"));
  EXPECT_EQ(bad.requests().size(), 1u);

  RawServer garbage(plays({"garbage\r\n\r\n"}));
  EXPECT_FALSE(caller(garbage.url()).health_check("registry").healthy);
}

TEST_F(ServiceCallerTest, HealthIsThatOfTheComponent) {
  const auto health_of = [this](int status, const std::string& components) {
    RawServer server(plays({answer(status, R"({"status":"?","components":)" + components + "}")}));
    return caller(server.url()).health_check("registry");
  };
  EXPECT_TRUE(health_of(200, R"({"registry":"ok","pool":"ok"})").healthy);
  EXPECT_TRUE(health_of(503, R"({"registry":"ok","pool":"its disk is full"})").healthy);

  const HealthStatus ill = health_of(503, R"({"registry":"the database is away","pool":"ok"})");
  EXPECT_FALSE(ill.healthy);
  EXPECT_EQ(ill.detail, "the database is away");
  const HealthStatus another = health_of(200, R"({"pool":"ok","artifacts":"ok"})");
  EXPECT_FALSE(another.healthy);
  EXPECT_EQ(another.detail, "no registry at this address, which serves pool, artifacts");
  EXPECT_FALSE(health_of(200, "{}").healthy);
  EXPECT_FALSE(health_of(200, R"({"registry":{"a":1}})").healthy);
}

TEST_F(ServiceCallerTest, HealthOfASilentServiceEndsInTime) {
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  ServiceOptions impatient = options(server.url());
  impatient.health_timeout = 50ms;
  const HealthStatus status =
      ServiceCaller("task-registry", std::move(impatient)).health_check("registry");
  EXPECT_FALSE(status.healthy);
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST_F(ServiceCallerTest, RedirectIsFollowedWithinTheOriginAsOftenAsTheCallAllows) {
  RawServer server(plays({answer(302, "", "Location: /b\r\n"), answer(200, "x")}));
  ServiceCall call = get_call();
  call.redirects_max = 1;
  EXPECT_EQ(caller(server.url("")).call(call, {}).body, "x");
  ASSERT_THAT(server.requests(), SizeIs(2));
  EXPECT_EQ(server.requests()[1].target, "/b");
}

TEST_F(ServiceCallerTest, RedirectThatIsNotFollowedSaysWhereToWithoutSecrets) {
  const ServiceError error = error_of<ServiceError>(
      {answer(302, "", "Location: http://me:password@example.com/x?signature=abcdef\r\n")});
  EXPECT_EQ(error.info().detail, "http://example.com:80/x");
  EXPECT_THAT(error.what(), HasSubstr("redirects"));
}

TEST(ServiceOptions, HaveTheDocumentedDefaults) {
  const ServiceOptions options;
  EXPECT_FALSE(options.timeout);
  EXPECT_EQ(ServiceCaller::kDefaultTimeout, 30s);
  EXPECT_EQ(options.health_timeout, 5s);
  EXPECT_EQ(options.retry.retries, 3);
  EXPECT_EQ(options.retry.base, 1s);
  EXPECT_EQ(options.retry.factor, 2.0);
  EXPECT_EQ(options.retry.cap, 60s);
}

}  // namespace
}  // namespace necrocode::net
