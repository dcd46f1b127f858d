// The metering proxy between real clients and replay servers or raw sockets: what passes, what it
// comes to, and how it is classed.
#include <deque>

#include "unit/llm/metering_fixture.hpp"

namespace necrocode::llm {
namespace {

constexpr std::string_view kService = R"([
  {"match":{"contains":["good"]},"times":0,"answer":{"content":"Hello, wörld","reasoning":"hm",
   "chunk":3,"usage":{"prompt_tokens":3000,"completion_tokens":900,"cached_tokens":1000}}},
  {"match":{"contains":["uncounted"]},"times":0,"answer":{"content":"12345678","usage":null}},
  {"match":{"contains":["cut"]},"times":0,"answer":{"drill":"cut","after":2}},
  {"match":{"contains":["truncated"]},"times":0,"answer":{"drill":"truncate"}},
  {"match":{"contains":["reset"]},"times":0,"answer":{"drill":"reset"}},
  {"match":{"contains":["silent"]},"times":0,"answer":{"drill":"stall","seconds":30}},
  {"match":{"contains":["pauses"]},"times":0,"answer":{"drill":"stall","seconds":30,"after":2}},
  {"match":{"contains":["page"]},"times":0,"answer":{"drill":"html"}},
  {"match":{"contains":["garbage"]},"times":0,"answer":{"drill":"garbage"}},
  {"match":{"contains":["breaks"]},"times":0,"answer":{"drill":"error","status":529,"after":2}},
  {"match":{"contains":["key"]},"times":0,"answer":{"status":401,"body":{"error":{"message":
   "Incorrect API key the-real-key-0123456789"}}}},
  {"match":{"contains":["money"]},"times":0,"answer":{"status":402,"body":{}}},
  {"match":{"contains":["quota"]},"times":0,"answer":{"status":429,"body":{"error":{"message":
   "You exceeded it","code":"insufficient_quota"}}}},
  {"match":{"contains":["rate"]},"times":0,"answer":{"status":429,"headers":{"Retry-After":"0"},
   "body":{"error":{"message":"slow down"}}}},
  {"match":{"contains":["long"]},"times":0,"answer":{"status":400,"body":{"error":{"message":
   "maximum context length is 8192","code":"context_length_exceeded"}}}},
  {"match":{"contains":["odd"]},"times":0,"answer":{"status":422,"body":{"detail":"no"}}},
  {"match":{"contains":["broken"]},"times":0,"answer":{"status":500,"body":"oops"}}])";

class MeteringClasses : public MeteringProxyTest {
 protected:
  void restart(const std::string& endpoint) {
    run_.reset();
    proxy_.reset();
    reports_.clear();
    options_ = {};
    options_.first_byte_timeout = options_.idle_timeout = 300ms;
    start(endpoint);
  }
};

struct Expected {
  const char* text;
  ExchangeClass whole;
  ExchangeClass streamed;
  int status;  // of the whole one
};

TEST_F(MeteringClasses, EachDialectWholeAndStreamedThenItsClass) {
  const test::Replay service(kService);
  using enum ExchangeClass;
  for (const Expected& expected :
       std::vector<Expected>{{"good", kOk, kOk, 200},
                             {"uncounted", kOk, kOk, 200},
                             {"cut", kUnavailable, kUnavailable, 200},
                             {"truncated", kProtocol, kUnavailable, 200},
                             {"reset", kUnavailable, kUnavailable, 0},
                             {"silent", kUnavailable, kUnavailable, 504},
                             {"pauses", kUnavailable, kUnavailable, 200},
                             {"page", kProtocol, kProtocol, 200},
                             {"garbage", kProtocol, kProtocol, 200},
                             {"breaks", kUnavailable, kUnavailable, 0},
                             {"key", kAuth, kAuth, 401},
                             {"money", kQuota, kQuota, 402},
                             {"quota", kQuota, kQuota, 429},
                             {"rate", kRate, kRate, 429},
                             {"long", kContext, kContext, 400},
                             {"odd", kRequest, kRequest, 422},
                             {"broken", kUnavailable, kUnavailable, 500}}) {
    restart(service.server.url());  // that the service fails is remembered
    std::size_t asked = 0;
    for (const std::string& path : kModelPaths) {
      for (const bool stream : {false, true}) {
        SCOPED_TRACE(std::string(expected.text) + path + (stream ? " streamed" : ""));
        const Got got = get(path, ask(path, expected.text, stream));
        const ExchangeReport report = reports(++asked).back();
        EXPECT_EQ(report.how, stream ? expected.streamed : expected.whole) << report.detail;
        EXPECT_EQ(report.model, "gpt-4");
        EXPECT_EQ(report.path, path);
        EXPECT_EQ(report.streamed, stream);
        EXPECT_EQ(report.detail.empty(), report.how == kOk) << report.detail;
        if (!stream && expected.status != 0) {
          EXPECT_EQ(got.status, expected.status);
          EXPECT_EQ(report.status, expected.status);
        }
        EXPECT_THAT(report.to_json().dump(), Not(HasSubstr(kRealKey)));
        EXPECT_EQ(run_->so_far().failure.has_value(), report.how != kOk);
      }
    }
  }
}

TEST_F(MeteringProxyTest, UsageAndCostThenAsTheServiceCountsThem) {
  const test::Replay service(kService);
  options_.prices = prices();
  start(service.server.url());
  for (const std::string& path : kModelPaths) {
    get(path, ask(path, "good"));
    get(path, ask(path, "good", true));
  }
  for (const ExchangeReport& report : reports(6)) {
    EXPECT_EQ(report.usage.prompt_tokens, 3000);
    EXPECT_EQ(report.usage.completion_tokens, 900);
    EXPECT_EQ(report.usage.cached_tokens, 1000);
    EXPECT_FALSE(report.usage.estimated);
    EXPECT_NEAR(report.usage.cost_usd.value_or(0), 0.0048, 1e-12);
  }
  const Metered metered = run_->end();
  EXPECT_EQ(metered.calls, 6);
  EXPECT_NEAR(metered.usage.cost_usd.value_or(0), 6 * 0.0048, 1e-12);
}

// What the client sees, without what is new in each answer, and what OpenAI's chunks have beside
// the usage chunk when usage is asked for.
std::string steady(std::string text) {
  constexpr std::string_view kNone = ",\"usage\":null";
  for (std::size_t at = 0; (at = text.find(kNone, at)) != std::string::npos;) {
    text.erase(at, kNone.size());
  }
  for (const char* name : {"id\":\"", "created\":", "created_at\":"}) {
    std::size_t at = 0;
    while ((at = text.find(name, at)) != std::string::npos) {
      at += std::string_view(name).size();
      text.erase(at, text.find_first_of(",}", at) - at);
    }
  }
  return text;
}

TEST_F(MeteringProxyTest, AnswersThenTheSameAsWithoutIt) {
  const test::Replay service(kService);
  start(service.server.url());
  for (const std::string& path : kModelPaths) {
    for (const bool stream : {false, true}) {
      const std::string body = ask(path, "good", stream);
      EXPECT_EQ(steady(get(path, body).bytes),
                steady(test::send("POST", service.url(path), body).body))
          << path;
    }
  }
}

TEST_F(MeteringProxyTest, RequestAndAnswerThenUnchangedAndEachKeyOnItsSide) {
  const std::string odd = "{ \"model\":\"gpt-4\",\r\n\"x\":\"\xc3\xa4\\u0000\" ,\"stream\":false}";
  const std::string answer = "{\"choices\": [ ],\n \"x\":\"\xe2\x82\xac\"}\r\n";
  RawServer service([&](RawConnection& connection) {
    while (connection.read_request()) {
      connection.send(http(answer, "application/json; odd=1", 200,
                           "X-Request-Id: theirs\r\nX-Odd: a  b\r\nOpenAI-Version: 1\r\n"));
    }
  });
  start(service.url("/v1"));
  net::Headers headers = bearer();
  headers.add("OpenAI-Beta", "x=1");
  headers.add("Accept-Encoding", "gzip");
  headers.add("Cookie", "a=b");
  const net::HttpResponse got =
      test::send("POST", url("/v1/chat/completions?beta=true"), odd, headers);
  EXPECT_EQ(got.body, answer);
  EXPECT_EQ(got.headers.get_or("X-Odd", ""), "a  b");
  EXPECT_EQ(got.headers.get_or("X-Upstream-Request-Id", ""), "theirs");
  EXPECT_EQ(got.headers.get_or("Content-Type", ""), "application/json; odd=1");
  const auto seen = service.requests().front();
  EXPECT_EQ(seen.target, "/v1/chat/completions?beta=true");
  EXPECT_EQ(seen.body, odd);
  EXPECT_EQ(seen.headers.get_or("Authorization", ""), std::string("Bearer ") + kRealKey);
  EXPECT_EQ(seen.headers.get_or("OpenAI-Beta", ""), "x=1");
  EXPECT_FALSE(seen.headers.get("Accept-Encoding") || seen.headers.get("Cookie"));
  for (const auto& [name, value] : seen.headers) EXPECT_THAT(value, Not(HasSubstr(run_->key())));
}

TEST_F(MeteringProxyTest, KeysOfAllUsualHeadersThenTheRealOneInTheSame) {
  RawServer service([&](RawConnection& connection) {
    while (connection.read_request()) connection.send(http(chat_answer(1, 1)));
  });
  start(service.url("/v1"));
  for (const char* name : {"x-api-key", "api-key"}) {
    test::send("POST", url(kMessages), ask(kMessages, "x"), {{name, run_->key()}});
    EXPECT_EQ(service.requests().back().headers.get_or(name, ""), kRealKey);
    EXPECT_FALSE(service.requests().back().headers.get("Authorization"));
  }
  // The other one may be anything.
  test::send("POST", url(kMessages), ask(kMessages, "x"),
             {{"Authorization", "Bearer none"}, {"x-api-key", run_->key()}});
  EXPECT_EQ(service.requests().size(), 3u);
}

TEST_F(MeteringProxyTest, KeyThatIsNoRunsThen401AndNothingIsAsked) {
  RawServer service([](RawConnection& connection) { connection.wait_closed(); });
  start(service.url("/v1"));
  EXPECT_TRUE(run_->key().starts_with("sk-necrocode-"));
  EXPECT_GE(run_->key().size(), 40u);
  for (const net::Headers& headers :
       {net::Headers{}, net::Headers{{"Authorization", "Bearer sk-necrocode-0"}},
        net::Headers{{"Authorization", "Bearer"}}, net::Headers{{"x-api-key", ""}}}) {
    const auto answer = test::send("POST", url(kChat), ask(kChat, "x"), headers);
    EXPECT_EQ(answer.status, 401);
    EXPECT_EQ(Json::parse(answer.body)["error"]["code"], Json("invalid_api_key"));
  }
  const std::string ended = run_->key();
  run_->end();
  EXPECT_EQ(test::send("POST", url(kChat), ask(kChat, "x"), {{"api-key", ended}}).status, 401);
  EXPECT_EQ(service.connections(), 0u);
}

TEST_F(MeteringProxyTest, PathsThenTheirProviders) {
  const auto server = [] {
    return std::make_unique<RawServer>([](RawConnection& connection) {
      while (connection.read_request()) connection.send(http("{}"));
    });
  };
  const auto first = server(), second = server(), third = server();
  options_.providers.clear();
  MeteringProxyOptions options;
  options.providers.push_back({"openai", first->url("/v1"), Secret()});
  options.providers.push_back({"anthropic", second->url("/anthropic"), Secret()});
  options.providers.push_back({"other-1", third->url("/api/v1/"), Secret()});
  proxy_ = std::make_unique<MeteringProxy>(std::move(options));
  proxy_->start();
  open();
  const auto targets = [&](RawServer& at, const std::string& method,
                           std::vector<std::string> paths) {
    std::vector<std::string> seen;
    for (const std::string& path : paths) {
      EXPECT_EQ(
          test::send(method, url(path), method == "GET" ? "" : ask(path, "x"), bearer()).status,
          200)
          << path;
      seen.push_back(at.requests().back().target);
    }
    return seen;
  };
  EXPECT_THAT(targets(*first, "POST",
                      {"/v1/chat/completions", "/responses", "/openai/v1/responses?a=b",
                       "/openai/deployments/d/chat/completions"}),
              ElementsAre("/v1/chat/completions", "/v1/responses", "/v1/responses?a=b",
                          "/openai/deployments/d/chat/completions"));
  EXPECT_THAT(targets(*second, "POST",
                      {"/v1/messages?beta=true", "/v1/v1/messages", "/anthropic/v1/messages",
                       "/v1/messages/count_tokens"}),
              ElementsAre("/anthropic/v1/messages?beta=true", "/anthropic/v1/messages",
                          "/anthropic/v1/messages", "/anthropic/v1/messages/count_tokens"));
  EXPECT_THAT(targets(*third, "POST", {"/other-1/v1/chat/completions", "/other-1/v1/messages"}),
              ElementsAre("/api/v1/chat/completions", "/api/v1/messages"));
  EXPECT_THAT(targets(*first, "GET", {"/v1/models", "/v1/models/m"}),
              ElementsAre("/v1/models", "/v1/models/m"));
  EXPECT_THAT(targets(*third, "GET", {"/other-1/v1/models"}), ElementsAre("/api/v1/models"));
  EXPECT_EQ(run_->so_far().calls, 9);  // without the lists and counts
  const auto unknown = test::send("POST", url("/v1/embeddings"), "{}", bearer());
  EXPECT_EQ(unknown.status, 404);
  EXPECT_THAT(unknown.body, HasSubstr("/v1/chat/completions"));
  EXPECT_EQ(
      test::send("POST", url(kChat), "x", {{"api-key", run_->key()}, {"Content-Encoding", "zstd"}})
          .status,
      415);
}

TEST_F(MeteringProxyTest, TargetWithAHostThenOnlyItsPathGoesOn) {
  RawServer service([](RawConnection& connection) {
    while (connection.read_request()) connection.send(http(chat_answer(1, 1)));
  });
  start(service.url("/v1"));
  for (const char* prefix : {"", "/openai"}) {
    test::RawClient client(port());
    const std::string body = ask(kChat, "x");
    const test::RawAnswer answer = client.call(
        "POST http://a.example:1" + std::string(prefix) + "/v1/chat/completions?a=b HTTP/1.1\r\n" +
        "Host: a.example\r\napi-key: " + run_->key() +
        "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(service.requests().back().target, "/v1/chat/completions?a=b");
  }
}

TEST_F(MeteringProxyTest, AnyEncodingOfTheBodyThenRefused) {
  start("http://127.0.0.1:1/v1");
  net::Headers headers = bearer();
  headers.add("Content-Encoding", "identity");
  headers.add("Content-Encoding", "gzip");
  EXPECT_EQ(test::send("POST", url(kChat), "x", headers).status, 415);
}

TEST_F(MeteringProxyTest, WrongOptionsThenRefused) {
  const auto make = [](std::vector<std::pair<std::string, std::string>> providers) {
    MeteringProxyOptions options;
    for (auto& [name, endpoint] : providers) {
      options.providers.push_back({name, endpoint, Secret("some-key-123")});
    }
    const MeteringProxy proxy(std::move(options));
  };
  EXPECT_THROW(make({}), ConfigError);
  EXPECT_THROW(make({{"a", "no url"}}), ConfigError);
  EXPECT_THROW(make({{"A b", "https://x"}}), ConfigError);
  EXPECT_THROW(make({{"a", "https://x"}, {"a", "https://y"}}), ConfigError);
  EXPECT_THROW(make({{"a", "http://example.com/v1"}}), SecurityError);
  EXPECT_NO_THROW(make({{"a", "https://x"}, {"b", "http://127.0.0.1:1/v1"}}));
}

// ---- streams ----

TEST_F(MeteringProxyTest, StreamOfOddBytesThenEachPieceAtOnceAndUnchanged) {
  const std::vector<std::string> pieces = {
      ": hello\r\n\r\n", "data: {\"choices\":[{\"delta\":{\"content\":\"\xe2\x82",
      "\xac\"}}]}\r\n\r\n",
      "event: x\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\ndata: "
      "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6}}\n\n",
      "data: [DONE]\n\n"};
  std::vector<std::promise<void>> seen(pieces.size());
  RawServer service([&](RawConnection& connection) {
    connection.read_request();
    connection.send(kStreamHead);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      connection.send(chunk(pieces[i]));
      // The next one only when the client has this one.
      if (seen[i].get_future().wait_for(10s) != std::future_status::ready) return;
    }
    connection.send(chunk(""));
  });
  start(service.url("/v1"));
  test::RawClient client(port());
  // That usage was asked for: not a byte is held back.
  Json body = Json::parse(ask(kChat, "x", true));
  body.set("stream_options", Json::object({{"include_usage", true}}));
  client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: bearer " +
              run_->key() + "\r\nContent-Length: " + std::to_string(body.dump().size()) +
              "\r\n\r\n" + body.dump());
  EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("text/event-stream"));
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_THAT(client.read_until(pieces[i] + "\r\n"), HasSubstr(chunk(pieces[i])));
    seen[i].set_value();
  }
  EXPECT_EQ(client.read_until("0\r\n\r\n"), "0\r\n\r\n");
  const ExchangeReport report = only_report();
  EXPECT_EQ(report.how, ExchangeClass::kOk) << report.detail;
  EXPECT_EQ(report.usage.completion_tokens, 6);
}

TEST_F(MeteringProxyTest, StreamThatDidNotAskForUsageThenTheProxyDoesAndTakesItOut) {
  const std::string before =
      "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n";
  const std::string usage =
      "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":8}}\n\n";
  const std::string done = "data: [DONE]\n\n";
  RawServer service([&](RawConnection& connection) {
    while (connection.read_request()) {
      connection.send(kStreamHead);
      connection.send(chunk(before) + chunk(usage) + chunk(done) + chunk(""));
    }
  });
  start(service.url("/v1"));
  const std::string body = ask(kChat, "x", true);
  EXPECT_EQ(get(kChat, body).bytes, before + done);
  EXPECT_EQ(service.requests().back().body,
            "{\"stream_options\":{\"include_usage\":true}," + body.substr(1));
  EXPECT_EQ(only_report().usage.completion_tokens, 8);
  // Asked for by the program: it gets it.
  Json asking = Json::parse(body);
  asking.set("stream_options", Json::object({{"include_usage", true}}));
  EXPECT_EQ(get(kChat, asking.dump()).bytes, before + usage + done);
  EXPECT_EQ(service.requests().back().body, asking.dump());
}

TEST_F(MeteringProxyTest, ServiceRefusesStreamOptionsThenAskedWithoutAndRemembered) {
  const std::string events =
      "data: {\"choices\":[{\"delta\":{\"content\":\"12345678\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
  RawServer service([&](RawConnection& connection) {
    while (const auto request = connection.read_request()) {
      if (request->body.find("stream_options") != std::string::npos) {
        connection.send(http(R"({"error":{"message":"Unknown parameter: 'stream_options'"}})",
                             "application/json", 400));
      } else {
        connection.send(std::string(kStreamHead) + chunk(events) + chunk(""));
      }
    }
  });
  start(service.url("/v1"));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(get(kChat, ask(kChat, "x", true)).bytes, events);
  EXPECT_EQ(service.requests().size(), 3u);
  EXPECT_EQ(run_->so_far().calls, 2);
  EXPECT_TRUE(run_->so_far().usage.estimated);
  EXPECT_EQ(run_->so_far().usage.completion_tokens, 4);
  // A request that asks itself gets the refusal.
  Json asking = Json::parse(ask(kChat, "x", true));
  asking.set("stream_options", Json::object({{"include_usage", true}}));
  EXPECT_EQ(get(kChat, asking.dump()).status, 400);
}

TEST_F(MeteringProxyTest, ProgramGoesThenTheServiceIsLeftAndWhatCameIsCounted) {
  RawServer service([](RawConnection& connection) {
    connection.read_request();
    connection.send(kStreamHead);
    connection.send(chunk("data: {\"choices\":[{\"delta\":{\"content\":\"12345678\"}}]}\n\n"));
    connection.wait_closed();
  });
  options_.prices = prices();
  start(service.url("/v1"));
  {
    test::RawClient client(port());
    const std::string body = ask(kChat, "x", true);
    client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: " + run_->key() +
                "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    client.read_until("12345678");
  }
  service.wait_for_ended(1);
  const ExchangeReport report = only_report();
  EXPECT_EQ(report.how, ExchangeClass::kGone);
  EXPECT_EQ(report.usage.completion_tokens, 2);
  EXPECT_TRUE(report.usage.estimated);
  EXPECT_GT(report.usage.cost_usd.value_or(0), 0);
  EXPECT_FALSE(run_->so_far().failure);
}

TEST_F(MeteringProxyTest, RunEndsThenItsExchangesAreBrokenOffAtOnceAndCounted) {
  RawServer service([](RawConnection& connection) {
    const auto request = connection.read_request();
    if (request && request->body.find("stream") != std::string::npos) {
      connection.send(kStreamHead);
      connection.send(chunk("data: {\"choices\":[{\"delta\":{\"content\":\"1234\"}}]}\n\n"));
    }
    connection.wait_closed();
  });
  start(service.url("/v1"));
  const auto other = proxy_->open({});
  test::RawClient streamed(port());
  const std::string body = ask(kChat, "x", true);
  streamed.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: " + run_->key() +
                "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  streamed.read_until("1234");
  auto whole = std::async([&] { return get(kChat, ask(kChat, "x")); });
  auto listed = std::async([&] { return test::send("GET", url("/v1/models"), "", bearer()); });
  service.wait_for_requests(3);
  const auto began = std::chrono::steady_clock::now();
  const Metered metered = run_->end();
  EXPECT_LT(std::chrono::steady_clock::now() - began, 2s);
  EXPECT_EQ(metered.calls, 2);
  EXPECT_EQ(metered.last->how, ExchangeClass::kGone);
  EXPECT_THAT(streamed.read_until("\r\n0\r\n\r\n"), Not(HasSubstr("\r\n0\r\n\r\n")));
  EXPECT_EQ(whole.get().status, 503);
  EXPECT_EQ(listed.get().status, 502);
  service.wait_for_ended(3);
}

TEST_F(MeteringProxyTest, OwnListenerThenItsConnectionsEndWithTheRun) {
  const test::Replay service(kService);
  start(service.server.url());
  FileDescriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(::bind(listener.get(), generic, size), 0);
  ASSERT_EQ(::listen(listener.get(), 8), 0);
  ASSERT_EQ(::getsockname(listener.get(), generic, &size), 0);
  run_->accept_on(std::move(listener));
  test::RawClient client(ntohs(address.sin_port));
  const std::string body = ask(kChat, "good");
  const test::RawAnswer answer =
      client.call("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\napi-key: " + run_->key() +
                  "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  EXPECT_EQ(answer.status, 200);
  run_.reset();
  EXPECT_TRUE(client.ends());
  EXPECT_FALSE(test::RawClient(ntohs(address.sin_port)).connected());
}

TEST_F(MeteringProxyTest, ServiceIsSilentThenSoFarSaysSoWhileItIs) {
  RawServer service([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  start(service.url("/v1"));
  auto asked = std::async([&] { return get(kChat, ask(kChat, "x")); });
  service.wait_for_requests(1);
  EXPECT_FALSE(run_->so_far().failure);
  EXPECT_FALSE(run_->so_far(1h).failure);
  const Metered metered = run_->so_far(0ns);
  ASSERT_TRUE(metered.failure);
  EXPECT_EQ(metered.failure->how, ExchangeClass::kUnavailable);
  EXPECT_THAT(metered.failure->detail, HasSubstr("silent"));
  EXPECT_EQ(metered.last->how, ExchangeClass::kUnavailable);
  run_->end();
  EXPECT_EQ(asked.get().status, 503);
}

TEST_F(MeteringProxyTest, FailureThenForgottenByAnAnswerOnly) {
  const test::Replay service(kService);
  start(service.server.url());
  EXPECT_EQ(question(kChat, "broken").status, 500);
  EXPECT_EQ(run_->so_far().failure->how, ExchangeClass::kUnavailable);
  EXPECT_EQ(question(kChat, "long").status, 400);
  EXPECT_EQ(run_->so_far().failure->how, ExchangeClass::kContext);
  EXPECT_EQ(question(kChat, "good").status, 200);
  EXPECT_FALSE(run_->so_far().failure);
  EXPECT_EQ(run_->so_far().last->how, ExchangeClass::kOk);
}

TEST_F(MeteringProxyTest, NobodyListensThenA502InTheApisShape) {
  start("http://127.0.0.1:1/v1");
  const net::HttpResponse answer = question(kMessages, "x");
  EXPECT_EQ(answer.status, 502);
  EXPECT_EQ(Json::parse(answer.body)["type"], Json("error"));
  EXPECT_EQ(only_report().how, ExchangeClass::kUnavailable);
  EXPECT_TRUE(only_report().usage.empty());
}

TEST_F(MeteringProxyTest, MoreThanItsThreadsAndAsManyThatWaitThenOneMoreGets503) {
  RawServer service([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  start(service.url("/v1"));
  const std::string body = ask(kChat, "x");
  std::deque<test::RawClient> clients;
  const auto ask_by = [&](std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      clients.emplace_back(port());
      clients.back().send(
          "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: " + run_->key() +
          "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    }
  };
  ask_by(limits::kProxyExchanges);
  service.wait_for_requests(limits::kProxyExchanges);  // each thread has its own
  ask_by(limits::kProxyExchanges + 1);
  const auto answered = [&] {
    return std::find_if(clients.begin(), clients.end(),
                        [](const test::RawClient& client) { return client.readable(0ms); });
  };
  ASSERT_TRUE(test::eventually([&] { return answered() != clients.end(); }));
  const test::RawAnswer answer = answered()->read_answer();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.get_or("Retry-After", ""), "1");
  EXPECT_EQ(answered(), clients.end());
  EXPECT_EQ(run_->end().calls, static_cast<int>(limits::kProxyExchanges));
}

TEST_F(MeteringProxyTest, StaleConnectionThenTheProgramDoesNotSeeIt) {
  RawServer service([](RawConnection& connection) {
    connection.read_request();
    connection.send(http(chat_answer(1, 1)));
    if (connection.index() == 0) {
      connection.read_head();  // and closes without an answer
    }
  });
  start(service.url("/v1"));
  EXPECT_EQ(question(kChat, "x").status, 200);
  EXPECT_EQ(question(kChat, "x").status, 200);
  EXPECT_EQ(run_->so_far().last->how, ExchangeClass::kOk);
}

// ---- the recording ----

TEST_F(MeteringProxyTest, RecordingThenEachExchangeWithoutSecrets) {
  const std::string pieces =
      "data: {\"choices\":[{\"delta\":{\"content\":\"the-real-key-\"}}]}\n\n"
      "data: "
      "{\"choices\":[{\"delta\":{\"content\":\"0123456789\"},\"finish_reason\":\"stop\"}]}\n\n"
      "data: [DONE]\n\n";
  RawServer service([&](RawConnection& connection) {
    while (const auto request = connection.read_request()) {
      if (request->body.find("pieces") != std::string::npos) {
        connection.send(std::string(kStreamHead) + chunk(pieces) + chunk(""));
      } else {
        connection.send(
            http(R"({"choices":[{"message":{"content":"it is the-real-key-0123456789"},)"
                 R"("finish_reason":"stop"}]})"));
      }
    }
  });
  run_options_.recording = folder_.path() / "exchanges.jsonl";
  start(service.url("/v1"));
  question(kChat, "what is the-real-key-0123456789");
  EXPECT_EQ(get(kChat, ask(kChat, "pieces", true)).bytes, pieces);
  run_->end();
  const std::string text = read_file(run_options_.recording, limits::kMiB);
  std::vector<Json> lines;
  for (const std::string_view line : split(text, '\n')) {
    if (!line.empty()) lines.push_back(Json::parse(line));
  }
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["request"]["messages"].items().front()["content"], Json("what is ***"));
  EXPECT_THAT(lines[0]["answer"].dump(), HasSubstr("it is ***"));
  EXPECT_EQ(lines[0]["class"], Json("ok"));
  EXPECT_EQ(lines[1]["left_out"], Json("a secret is spread over it"));
  EXPECT_TRUE(lines[1]["answer"].is_null());
  EXPECT_THAT(lines[1]["request"].dump(), HasSubstr("pieces"));
  for (const char* part : {kRealKey, "the-real-key-"}) EXPECT_THAT(text, Not(HasSubstr(part)));
}

}  // namespace
}  // namespace necrocode::llm
