// The server over real loopback sockets: framing, limits, handlers, load, stopping.
#include <fcntl.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <list>
#include <thread>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "unit/net/http_server_fixture.hpp"

namespace necrocode::net {
namespace {

// ---- requests and answers ----

TEST_F(HttpServerTest, RequestWithParametersThenHandlerSeesThemDecoded) {
  Request seen;
  make().route("PUT", "/tasks/{id}/status", [&](const Request& request) {
    seen = request;
    return Response::json(201, Json::object({{"id", request.param("id")}}));
  });
  server_->start();
  RawClient client = connect();
  const RawAnswer answer = client.call(
      "PUT /tasks/app%3A1.1/status?a=x%20y&a=2&b= HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n"
      "X-Thing: t\r\n\r\n{\"k\":1}");
  EXPECT_EQ(answer.status, 201);
  EXPECT_EQ(answer.json()["id"].string_or(""), "app:1.1");
  EXPECT_EQ(answer.headers.get_or("Content-Type", ""), "application/json");
  EXPECT_TRUE(answer.headers.get("Date"));
  EXPECT_EQ(seen.method, "PUT");
  EXPECT_EQ(seen.path, "/tasks/app%3A1.1/status");
  EXPECT_EQ(seen.query_value("a"), "x y");
  EXPECT_EQ(seen.query_count("a"), 2u);
  EXPECT_EQ(seen.query_value("b"), "");
  EXPECT_EQ(seen.query_value("c"), std::nullopt);
  EXPECT_EQ(seen.headers.get_or("x-thing", ""), "t");
  EXPECT_EQ(seen.json()["k"].as_int(), 1);
  EXPECT_EQ(seen.remote_address, "127.0.0.1");
}

TEST_F(HttpServerTest, SeveralRequestsOnOneConnectionThenAllAnswered) {
  start();
  RawClient client = connect();
  for (int i = 0; i < 100; ++i) {
    const RawAnswer answer = client.call(post("/echo", std::to_string(i)));
    ASSERT_EQ(answer.body, std::to_string(i));
  }
}

TEST_F(HttpServerTest, PipelinedRequestsThenAnsweredInOrder) {
  start();
  RawClient client = connect();
  std::string requests = "\r\n";  // an empty line before a request is passed over
  for (int i = 0; i < 200; ++i) {
    requests += post("/echo", std::to_string(i));
    requests +=
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n";
    requests += get("/nowhere");
  }
  client.send(requests);
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(client.read_answer().body, std::to_string(i));
    ASSERT_EQ(client.read_answer().body, "c");
    ASSERT_EQ(client.read_answer().status, 404);
  }
}

TEST_F(HttpServerTest, RequestSentByteByByteThenAnswered) {
  start();
  RawClient client = connect();
  for (const char c : post("/echo", "abc")) client.send(std::string(1, c));
  EXPECT_EQ(client.read_answer().body, "abc");
}

TEST_F(HttpServerTest, Http10ThenClosedUnlessKeepAliveIsAsked) {
  make().route("GET", "/stream", [](const Request&) {
    auto left = std::make_shared<int>(3);
    return Response{200, {}, BodyProducer([left] { return --*left > 0 ? "ab" : ""; })};
  });
  server_->start();
  RawClient client = connect();
  const RawAnswer kept = client.call("GET /hello HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
  EXPECT_EQ(kept.body, "hello");
  EXPECT_EQ(kept.headers.get_or("Connection", ""), "keep-alive");
  EXPECT_EQ(client.call("GET /hello HTTP/1.0\r\n\r\n").headers.get_or("Connection", ""), "close");
  EXPECT_TRUE(client.ends());
  RawClient streaming = connect();
  const RawAnswer streamed =
      streaming.call("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(streamed.headers.get("Transfer-Encoding"), std::nullopt);
  EXPECT_EQ(streamed.body, "abab");
}

TEST_F(HttpServerTest, ConnectionCloseThenClosed) {
  start();
  RawClient client = connect();
  EXPECT_EQ(client.call(get("/hello", "Connection: x, Close\r\n")).body, "hello");
  EXPECT_TRUE(client.ends());
}

TEST_F(HttpServerTest, HalfClosedClientThenStillAnswered) {
  start();
  RawClient client = connect();
  client.send(post("/echo", "x"));
  client.shutdown_write();
  EXPECT_EQ(client.read_answer().body, "x");
  EXPECT_TRUE(client.ends());
}

TEST_F(HttpServerTest, HeadThenHeadersOfGetAndNoBody) {
  start();
  RawClient client = connect();
  client.send("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\nHEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
  const RawAnswer answer = client.read_answer(true);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.get_or("Content-Length", ""), "5");
  EXPECT_EQ(client.read_answer(true).status, 404);
  EXPECT_EQ(client.call(get("/hello")).body, "hello");
}

TEST_F(HttpServerTest, StatusWithoutBodyThenNoLength) {
  make().route("GET", "/204", [](const Request&) { return Response::empty(204); });
  server_->route("GET", "/304", [](const Request&) { return Response::text(304, "left out"); });
  server_->start();
  RawClient client = connect();
  EXPECT_EQ(client.call(get("/204")).headers.get("Content-Length"), std::nullopt);
  EXPECT_EQ(client.call(get("/304")).status, 304);
  EXPECT_EQ(client.call(get("/hello")).body, "hello");
}

TEST_F(HttpServerTest, UnknownPathThen404Problem) {
  start();
  RawClient client = connect();
  const RawAnswer answer = client.call(get("/no%20where?x"));
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.headers.get_or("Content-Type", ""), "application/problem+json");
  const Json problem = answer.json();
  EXPECT_EQ(problem["type"].string_or(""), "about:blank");
  EXPECT_EQ(problem["title"].string_or(""), "Not Found");
  EXPECT_EQ(problem["status"].as_int(), 404);
  EXPECT_EQ(problem["instance"].string_or(""), "/no%20where");
}

TEST_F(HttpServerTest, OtherMethodThen405WithAllow) {
  make().route("PUT", "/hello", echo);
  server_->start();
  RawClient client = connect();
  const RawAnswer answer = client.call("DELETE /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.headers.get_or("Allow", ""), "GET, HEAD, PUT");
}

TEST_F(HttpServerTest, LiteralSegmentThenWinsOverParameter) {
  make();
  const auto named = [](std::string name) {
    return [name](const Request&) { return Response::text(200, name); };
  };
  server_->route("POST", "/tasks/{id}", named("parameter"));
  server_->route("POST", "/tasks/claim", named("literal"));
  server_->route("GET", "/tasks/{id}", named("get"));
  server_->route("GET", "/{a}/x/{b}", named("late literal"));
  server_->route("GET", "/a/{b}/{c}", named("early literal"));
  server_->start();
  RawClient client = connect();
  EXPECT_EQ(client.call(post("/tasks/claim", "")).body, "literal");
  EXPECT_EQ(client.call(post("/tasks/1", "")).body, "parameter");
  EXPECT_EQ(client.call(get("/tasks/claim")).body, "get");
  EXPECT_EQ(client.call(get("/a/x/1")).body, "early literal");
  EXPECT_EQ(client.call(get("/b/x/1")).body, "late literal");
  EXPECT_EQ(client.call(get("/tasks/")).status, 404);
  EXPECT_EQ(client.call(get("/tasks//")).status, 404);
}

TEST_F(HttpServerTest, RequestIdThenEchoedWhenSaneElseFresh) {
  start();
  RawClient client = connect();
  const auto id = [&](std::string_view sent) {
    const std::string field = sent.empty() ? "" : "X-Request-Id: " + std::string(sent) + "\r\n";
    return client.call(get("/hello", field)).headers.get_or("X-Request-Id", "");
  };
  EXPECT_EQ(id("Run-1.a_b"), "Run-1.a_b");
  EXPECT_EQ(id(std::string(128, 'x')), std::string(128, 'x'));
  EXPECT_EQ(id(std::string(129, 'x')).size(), 36u);
  EXPECT_EQ(id("a b").size(), 36u);
  EXPECT_NE(id(""), id(""));
}

TEST_F(HttpServerTest, AnswerThatCannotBeSentThen500) {
  make().route("GET", "/split", [](const Request&) {
    return Response{200, {{"X-A", "a\r\nX-B: b"}}, std::string("x")};
  });
  server_->route("GET", "/status", [](const Request&) { return Response::empty(100); });
  server_->route("GET", "/twice", [](const Request&) {
    return Response{200, {{"Content-Length", "9"}, {"Transfer-Encoding", "x"}}, std::string("ab")};
  });
  server_->start();
  RawClient client = connect();
  const RawAnswer answer = client.call(get("/split"));
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.headers.get("X-B"), std::nullopt);
  EXPECT_EQ(client.call(get("/status")).status, 500);
  const RawAnswer twice = client.call(get("/twice"));
  EXPECT_EQ(twice.body, "ab");
  EXPECT_EQ(twice.headers.get("Transfer-Encoding"), std::nullopt);
}

TEST_F(HttpServerTest, FinishedRequestThenOneAccessRecord) {
  std::promise<AccessRecord> promise;
  make().on_access([&](const AccessRecord& record) { promise.set_value(record); });
  server_->route("POST", "/a/{b}", echo);
  server_->start();
  RawClient client = connect();
  client.call(post("/a/1?x", "body", "X-Request-Id: r\r\n"));
  auto future = promise.get_future();
  ASSERT_EQ(future.wait_for(kPatience), std::future_status::ready);
  const AccessRecord record = future.get();
  EXPECT_EQ(record.method, "POST");
  EXPECT_EQ(record.route, "/a/{b}");
  EXPECT_EQ(record.target, "/a/1?x");
  EXPECT_EQ(record.request_id, "r");
  EXPECT_EQ(record.status, 200);
  EXPECT_EQ(record.bytes_in, post("/a/1?x", "body", "X-Request-Id: r\r\n").size());
  EXPECT_GT(record.bytes_out, 4u);
}

// ---- refusals ----

class Smuggling : public HttpServerTest,
                  public testing::WithParamInterface<std::pair<int, std::string>> {};

TEST_P(Smuggling, RefusedWithOneAnswerAndClosed) {
  const auto& [status, request] = GetParam();
  start();
  RawClient client = connect();
  // What would be the smuggled request follows at once: it must never be answered.
  client.send(request + get("/hello"));
  EXPECT_EQ(client.read_answer().status, status);
  EXPECT_TRUE(client.ends());
  RawClient other = connect();
  EXPECT_EQ(other.call(get("/hello")).status, 200);
}

INSTANTIATE_TEST_SUITE_P(
    Forms, Smuggling,
    testing::Values(
        std::pair(400, kPost + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        std::pair(400, kPost + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        std::pair(400, kPost + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        std::pair(400, kPost + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n"),
        std::pair(400, kPost + "X: a\r\n b\r\n\r\n"),
        std::pair(400, kPost + "X: a\nContent-Length: 5\r\n\r\n"),
        std::pair(400, kPost + std::string("X: \0\r\n\r\n", 8)),
        std::pair(400, kPost + "Content-Length : 5\r\n\r\nhello"),
        std::pair(400, kPost + "Host: b\r\n\r\n"),
        std::pair(400, std::string("GET /hello HTTP/1.1\r\n\r\n")),
        std::pair(400, std::string("GET /hello HTTP/1.1\nHost: a\n\n")),
        std::pair(400, std::string("GARBAGE\r\n\r\n")),
        std::pair(400, std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11)),
        std::pair(400, std::string("GET ") + "/hello" + " HTTP/1.1\r\nHost: a\r\nX: \r\r\n\r\n"),
        std::pair(400, kPost + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"),
        std::pair(400, kPost + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"),
        std::pair(431, kPost + "X: " + std::string(limits::kHttpHeaderBytes, 'a')),
        std::pair(414,
                  "GET /" + std::string(2 * limits::kHttpTargetBytes, 'a') + " HTTP/1.1\r\n")));

TEST_F(HttpServerTest, PathThatCouldMeanAnotherThen400) {
  start();
  RawClient client = connect();
  for (const std::string_view target :
       {"/a/../hello", "/%2e%2e/hello", "/x%2Fhello", "/x%5chello", "/hello%00", "/%zz",
        "/hello?a=%", "*", "hello", "/he\\llo"}) {
    EXPECT_EQ(client.call(get(target)).status, 400) << target;
  }
  EXPECT_EQ(client.call(get("http://somewhere/hello")).status, 200);
}

TEST_F(HttpServerTest, SlowHeadThen408) {
  HttpServerOptions options;
  options.header_time = 100ms;
  start(options);
  RawClient client = connect();
  client.send("GET /hello HTTP/1.1\r\nHo");
  EXPECT_EQ(client.read_answer().status, 408);
  EXPECT_TRUE(client.ends());
  RawClient silent = connect();
  EXPECT_TRUE(silent.ends());
}

TEST_F(HttpServerTest, DrippingHeadThenNoMoreTimeForEachByte) {
  HttpServerOptions options;
  options.header_time = 200ms;
  start(options);
  RawClient client = connect();
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\nX: ");
  const auto began = std::chrono::steady_clock::now();
  // One byte each 10 ms would hold a connection whose time begins anew with each byte.
  while (!client.readable(10ms) && std::chrono::steady_clock::now() - began < kPatience) {
    client.send("x");
  }
  EXPECT_EQ(client.read_answer().status, 408);
}

TEST_F(HttpServerTest, IdleConnectionThenClosedAfterItsTime) {
  HttpServerOptions options;
  options.keep_alive_idle = 50ms;
  start(options);
  RawClient client = connect();
  EXPECT_EQ(client.call(get("/hello")).status, 200);
  EXPECT_TRUE(client.ends());
}

TEST_F(HttpServerTest, SlowBodyThen408) {
  HttpServerOptions options;
  options.body_grace = 100ms;
  start(options);
  RawClient client = connect();
  client.send(kPost + "Content-Length: 100\r\n\r\nabc");
  EXPECT_EQ(client.read_answer().status, 408);
  EXPECT_TRUE(client.ends());
}

TEST_F(HttpServerTest, BodyCutOffThen400) {
  start();
  RawClient client = connect();
  client.send(kPost + "Content-Length: 100\r\n\r\nabc");
  client.shutdown_write();
  EXPECT_EQ(client.read_answer().status, 400);
}

TEST_F(HttpServerTest, LargeLengthThen413BeforeTheBody) {
  make().route("POST", "/small", echo, {.body_bytes_max = 10});
  server_->start();
  RawClient client = connect();
  const RawAnswer answer =
      client.call("POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n");
  EXPECT_EQ(answer.status, 413);
  EXPECT_TRUE(client.ends());
  RawClient waiting = connect();
  EXPECT_EQ(waiting
                .call("POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n"
                      "Expect: 100-continue\r\n\r\n")
                .status,
            413);
}

TEST_F(HttpServerTest, LargeChunkedBodyThen413) {
  make().route("POST", "/small", echo, {.body_bytes_max = 10});
  server_->start();
  RawClient client = connect();
  const std::string head = "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(client.call(head + "a\r\n0123456789\r\n0\r\n\r\n").body, "0123456789");
  EXPECT_EQ(client.call(head + "b\r\n01234567890\r\n0\r\n\r\n").status, 413);
}

TEST_F(HttpServerTest, ClientThatIsStillSendingThenGetsTheRefusal) {
  start();
  RawClient client = connect();
  client.send("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n");
  // Closed at once, the connection would be reset under the client's hands.
  EXPECT_TRUE(client.send(std::string(4'000'000, 'x')));
  EXPECT_EQ(client.read_answer().status, 404);
}

TEST_F(HttpServerTest, SmallBodyOfARefusedRequestThenConnectionKept) {
  start();
  RawClient client = connect();
  EXPECT_EQ(client.call(post("/nowhere", std::string(1000, 'x'))).status, 404);
  EXPECT_EQ(client.call(post("/hello", std::string(1000, 'x'))).status, 405);
  EXPECT_EQ(client.call(get("/hello")).status, 200);
}

TEST_F(HttpServerTest, Expect100ThenContinueBeforeTheBody) {
  start();
  RawClient client = connect();
  const std::string head = kPost + "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n";
  EXPECT_EQ(client.call(head).status, 100);
  EXPECT_EQ(client.call("abc").body, "abc");
  // A client that does not wait gets no interim answer.
  EXPECT_EQ(client.call(head + "def").body, "def");
}

// ---- errors of handlers ----

template <class Error>
std::pair<std::string, Handler> throws(const std::string& path, ErrorInfo info = {}) {
  return {path, [info](const Request&) -> Response { throw Error("secret words", info); }};
}

TEST_F(HttpServerTest, HandlerThrowsThenStatusOfTheTable) {
  make();
  ErrorInfo fields;
  fields.fields = {{"/a/0", "is missing"}};
  ErrorInfo later;
  later.retry_at = std::chrono::system_clock::now() + 90s;
  const auto add = [&](const std::pair<std::string, Handler>& route) {
    server_->route("GET", route.first, route.second);
  };
  add(throws<TaskContextValidationError>("/422", fields));
  add(throws<NotFound>("/404"));
  add(throws<Conflict>("/409"));
  add(throws<ResourceConflictError>("/409b"));
  add(throws<Unauthorized>("/403"));
  add(throws<RateLimited>("/429", later));
  add(throws<Unavailable>("/503"));
  add(throws<TimeoutError>("/503b"));
  add(throws<ResourceLimitError>("/413"));
  add(throws<StorageError>("/500"));
  add(throws<InvalidResponse>("/500b"));
  add({"/500c", [](const Request&) -> Response { throw std::runtime_error("secret words"); }});
  add({"/500d", [](const Request&) -> Response { throw 7; }});
  add({"/507", [](const Request&) -> Response {
         errno = ENOSPC;
         throw_errno("cannot write", "secret words");
       }});
  add({"/418", [](const Request&) -> Response {
         HttpError error(418, "tea", {{"/x", "y"}});
         error.headers.set("X-Tea", "green");
         throw error;
       }});
  add({"/599", [](const Request&) -> Response { throw HttpError(200, "not an error"); }});
  server_->start();
  RawClient client = connect();
  for (const std::string path : {"/422", "/404", "/409", "/409b", "/403", "/429", "/503", "/503b",
                                 "/413", "/500", "/500b", "/500c", "/500d", "/507", "/418"}) {
    const RawAnswer answer = client.call(get(path));
    EXPECT_EQ(answer.status, std::atoi(path.c_str() + 1)) << path;
    EXPECT_EQ(answer.headers.get_or("Content-Type", ""), "application/problem+json");
    const bool told = answer.body.find("secret words") != std::string::npos;
    EXPECT_EQ(told, answer.status < 500 && answer.status != 418 ? true : answer.status == 503)
        << path;
  }
  EXPECT_EQ(client.call(get("/599")).status, 500);
  const RawAnswer invalid = client.call(get("/422"));
  EXPECT_EQ(invalid.json()["errors"].items().at(0)["pointer"].string_or(""), "/a/0");
  EXPECT_EQ(invalid.json()["errors"].items().at(0)["message"].string_or(""), "is missing");
  const std::string wait = client.call(get("/429")).headers.get_or("Retry-After", "");
  EXPECT_TRUE(wait == "90" || wait == "89") << wait;
  EXPECT_EQ(client.call(get("/503")).headers.get_or("Retry-After", ""), "1");
  EXPECT_EQ(client.call(get("/418")).headers.get_or("X-Tea", ""), "green");
}

TEST_F(HttpServerTest, BodyThatIsNoJsonObjectThen400Or422) {
  make().route("POST", "/json",
               [](const Request& request) { return Response::json(200, request.json()); });
  server_->start();
  RawClient client = connect();
  EXPECT_EQ(client.call(post("/json", "")).body, "{}");
  EXPECT_EQ(client.call(post("/json", " {\"a\":[1]}\n")).body, "{\"a\":[1]}");
  EXPECT_EQ(client.call(post("/json", "[]")).status, 422);
  const RawAnswer answer = client.call(post("/json", "{\"a\":}"));
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.json()["detail"].string_or(""), testing::HasSubstr("byte"));
  EXPECT_EQ(client.call(post("/json", std::string(100'000, '['))).status, 400);
}

// ---- load ----

TEST_F(HttpServerTest, FullQueueThen503WhileHealthStillAnswers) {
  HttpServerOptions options;
  options.handler_threads = 2;
  options.handler_queue = 3;
  Gate release;
  std::atomic<int> running = 0;
  Gate both_running;
  make(options).route("GET", "/block", [&](const Request&) {
    if (++running == 2) both_running.open();
    release.wait();
    return Response::text(200, "done");
  });
  server_->route("GET", "/health", [](const Request&) { return Response::text(200, "ok"); },
                 {.priority = true});
  server_->start();
  std::list<RawClient> blocked;
  for (int i = 0; i < 2; ++i) blocked.emplace_back(server_->port()).send(get("/block"));
  ASSERT_TRUE(both_running.wait());
  // Of these, three wait in the queue; each other gets its answer at once.
  std::list<RawClient> more;
  int refused = 0;
  for (int i = 0; i < 10; ++i) more.emplace_back(server_->port()).send(get("/block"));
  for (const auto began = std::chrono::steady_clock::now();
       refused < 7 && std::chrono::steady_clock::now() - began < kPatience;) {
    refused = static_cast<int>(std::count_if(
        more.begin(), more.end(), [](const RawClient& client) { return client.readable(0ms); }));
  }
  EXPECT_EQ(refused, 7);
  RawClient health = connect();
  EXPECT_EQ(health.call(get("/health")).body, "ok");
  int unavailable = 0;
  release.open();
  for (RawClient& client : more) {
    const RawAnswer answer = client.read_answer();
    if (answer.status != 503) continue;
    ++unavailable;
    EXPECT_EQ(answer.headers.get_or("Retry-After", ""), "1");
  }
  EXPECT_EQ(unavailable, 7);
  for (RawClient& client : blocked) EXPECT_EQ(client.read_answer().body, "done");
}

TEST_F(HttpServerTest, ThousandIdleConnectionsThenSmallAndServed) {
  start();
  RawClient warm = connect();
  warm.call(get("/hello"));
  const std::size_t before = resident_bytes();
  std::list<RawClient> clients;
  for (int i = 0; i < 1000; ++i) {
    clients.emplace_back(server_->port());
    ASSERT_EQ(clients.back().call(get("/hello")).status, 200);
  }
  const std::size_t used = resident_bytes() - before;
  RecordProperty("bytes_per_connection", std::to_string(used / 1000));
  std::printf("1,000 idle connections: %zu KiB\n", used / 1024);
  if (kMemoryCounts) {
    EXPECT_LT(used, 16 * limits::kMiB);
  }
  for (RawClient& client : clients) ASSERT_EQ(client.call(get("/hello")).status, 200);
}

TEST_F(HttpServerTest, ManySlowClientsThenHealthAnswers) {
  make().route("GET", "/health", [](const Request&) { return Response::text(200, "ok"); },
               {.priority = true});
  server_->route("POST", "/upload",
                 [](const Request& request) {
                   while (!request.stream->read().empty()) {
                   }
                   return Response::empty(204);
                 },
                 {.streaming = true});
  server_->start();
  std::list<RawClient> slow;
  for (int i = 0; i < 80; ++i) {
    slow.emplace_back(server_->port()).send("GET /hello HT");
    slow.emplace_back(server_->port()).send(kPost + "Content-Length: 100\r\n\r\nx");
    slow.emplace_back(server_->port())
        .send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx");
  }
  RawClient client = connect();
  EXPECT_EQ(client.call(get("/health")).body, "ok");
  EXPECT_EQ(client.call(get("/hello")).body, "hello");
}

TEST_F(HttpServerTest, MoreConnectionsThanAllowedThenTheOldestIdleOneCloses) {
  HttpServerOptions options;
  options.connections_max = 2;
  Gate release;
  make(options).route("GET", "/block", [&](const Request&) {
    release.wait();
    return Response::text(200, "done");
  });
  server_->start();
  RawClient oldest = connect();
  ASSERT_EQ(oldest.call(get("/hello")).status, 200);
  RawClient busy = connect();
  busy.send(get("/block"));
  RawClient third = connect();
  EXPECT_EQ(third.call(get("/hello")).status, 200);
  EXPECT_TRUE(oldest.ends());
  release.open();
  EXPECT_EQ(busy.read_answer().body, "done");
}

TEST_F(HttpServerTest, MoreConnectionsThanAllowedAllBusyThenTheNewOneGets503) {
  HttpServerOptions options;
  options.connections_max = 1;
  Gate release;
  Gate running;
  make(options).route("GET", "/block", [&](const Request&) {
    running.open();
    release.wait();
    return Response::text(200, "done");
  });
  server_->start();
  RawClient busy = connect();
  busy.send(get("/block"));
  ASSERT_TRUE(running.wait());
  RawClient refused = connect();
  const RawAnswer answer = refused.read_answer();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.get_or("Retry-After", ""), "1");
  EXPECT_EQ(answer.headers.get_or("Connection", ""), "close");
  EXPECT_TRUE(refused.ends());
  release.open();
  EXPECT_EQ(busy.read_answer().body, "done");
}

// ---- starting and stopping ----

TEST_F(HttpServerTest, StopWhileARequestIsUnderWayThenItIsFinished) {
  Gate running;
  Gate release;
  make().route("GET", "/work", [&](const Request&) {
    running.open();
    release.wait();
    return Response::text(200, "finished");
  });
  server_->start();
  RawClient idle = connect();
  idle.call(get("/hello"));
  RawClient client = connect();
  client.send(get("/work"));
  ASSERT_TRUE(running.wait());
  std::thread stopper([&] { server_->stop(); });
  EXPECT_TRUE(idle.ends());  // so the stop has begun
  EXPECT_FALSE(RawClient(server_->port()).connected());
  release.open();
  const RawAnswer answer = client.read_answer();
  EXPECT_EQ(answer.body, "finished");
  EXPECT_EQ(answer.headers.get_or("Connection", ""), "close");
  stopper.join();
  server_->stop();
}

TEST_F(HttpServerTest, DrainTimePassesThenUploadAndAnswerAreCut) {
  HttpServerOptions options;
  options.drain_time = 50ms;
  Gate reading;
  int status = 0;
  make(options).route("POST", "/upload",
                      [&](const Request& request) {
                        try {
                          for (std::string piece; !(piece = request.stream->read()).empty();)
                            reading.open();
                        } catch (const HttpError& error) {
                          status = error.status();
                          throw;
                        }
                        return Response::empty(204);
                      },
                      {.streaming = true});
  server_->start();
  RawClient client = connect();
  client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\n" +
              std::string(400'000, 'x'));
  ASSERT_TRUE(reading.wait());
  server_->stop();
  EXPECT_EQ(client.read_answer().status, 0);
  EXPECT_EQ(status, 400);
}

TEST_F(HttpServerTest, StoppedWithoutStartOrTwiceThenFine) {
  make().stop();
  start();
  std::thread other([&] { server_->stop(); });
  server_->stop();
  other.join();
}

TEST_F(HttpServerTest, AddressThatCannotBeBoundThenConfigError) {
  start();
  HttpServerOptions options;
  options.port = server_->port();
  HttpServer second(options);
  try {
    second.start();
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.summary(), "cannot listen on 127.0.0.1:" + std::to_string(options.port) +
                                   ": Address already in use; port 0 takes a free one, as in "
                                   "--listen 127.0.0.1:0");
  }
  options.address = "not an address";
  HttpServer third(options);
  EXPECT_THROW(third.start(), ConfigError);
}

TEST_F(HttpServerTest, Ipv6LiteralThenServed) {
  for (const std::string address : {"::1", "[::1]"}) {
    HttpServerOptions options;
    options.address = address;
    start(options);
    EXPECT_EQ(server_->url(), "http://[::1]:" + std::to_string(server_->port()));
    const FileDescriptor socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in6 to{};
    to.sin6_family = AF_INET6;
    to.sin6_port = htons(server_->port());
    to.sin6_addr = in6addr_loopback;
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  }
}

}  // namespace
}  // namespace necrocode::net
