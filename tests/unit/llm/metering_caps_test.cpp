// The metering proxy's caps and rates: what is never forwarded, and what waits.
#include <atomic>
#include <thread>

#include "necrocode/llm/shared_state.hpp"

#include "unit/llm/metering_fixture.hpp"

namespace necrocode::llm {
namespace {

/// A chat request whose answer takes at most so many tokens.
std::string limited(std::int64_t max_tokens, const std::string& model = "gpt-4") {
  Json body = Json::parse(ask(kChat, "x", false, model));
  return body.set("max_tokens", max_tokens).dump();
}

class MeteringCaps : public MeteringProxyTest {
 protected:
  /// A service that answers each call with that usage.
  static std::unique_ptr<RawServer> service(int prompt_tokens, int completion_tokens) {
    return std::make_unique<RawServer>([=](RawConnection& connection) {
      while (const auto request = connection.read_request()) {
        const std::string model = Json::parse(request->body)["model"].string_or("");
        connection.send(http(chat_answer(prompt_tokens, completion_tokens, model)));
      }
    });
  }
};

TEST_F(MeteringCaps, ProgramThatKeepsCallingThenStoppedBeforeTheCallThatWouldPass) {
  const auto model = service(100, 4'000);
  options_.prices = prices();
  run_options_.caps.run_usd = 0.1;
  start(model->url("/v1"));
  net::HttpResponse answer;
  int answered = 0;
  do {
    answer = post(kChat, limited(5'000));
    answered += answer.status == 200;
  } while (answer.status == 200);
  EXPECT_EQ(answer.status, 402);
  EXPECT_EQ(answer.headers.get_or("x-should-retry", ""), "false");
  EXPECT_THAT(answer.body, HasSubstr("spend cap of this run"));
  EXPECT_THAT(answer.body, HasSubstr("5000 of answer"));
  // 0.0081 each, and the last one may take 0.010 and its prompt.
  EXPECT_EQ(answered, 11);
  EXPECT_EQ(model->requests().size(), 11u);
  const Metered metered = run_->end();
  EXPECT_EQ(metered.calls, 11);
  EXPECT_EQ(metered.refused, 1);
  EXPECT_EQ(metered.failure->how, ExchangeClass::kCap);
  EXPECT_NEAR(metered.usage.cost_usd.value_or(0), 11 * 0.0081, 1e-9);
}

TEST_F(MeteringCaps, NoTokenLimitThenTheModelsMaximumTimesTheChoices) {
  const auto model = service(1, 1);
  options_.prices = prices(1'000'000);
  run_options_.caps.run_usd = 5;
  start(model->url("/v1"));
  EXPECT_EQ(post(kChat, ask(kChat, "x")).status, 200);  // two dollars at most
  Json twice = Json::parse(ask(kChat, "x"));
  EXPECT_EQ(post(kChat, twice.set("n", 2).dump()).status, 200);
  EXPECT_EQ(post(kChat, twice.set("n", 3).dump()).status, 402);
  EXPECT_EQ(post(kChat, twice.set("max_completion_tokens", 10).dump()).status, 200);
  EXPECT_EQ(model->requests().size(), 3u);
}

TEST_F(MeteringCaps, NoPriceUnderACapThenRefusedAndNotForwarded) {
  const auto model = service(1, 1);
  options_.prices = prices();
  run_options_.caps.daily_usd = 1;
  start(model->url("/v1"));
  const net::HttpResponse answer = post(kChat, limited(10, "gpt-9"));
  EXPECT_EQ(answer.status, 402);
  EXPECT_THAT(answer.body, HasSubstr("gpt-9"));
  EXPECT_THAT(answer.body, HasSubstr("--prices"));
  EXPECT_EQ(only_report().how, ExchangeClass::kCap);
  EXPECT_EQ(post(kChat, "{}").status, 400);
  EXPECT_EQ(post(kChat, R"({"model":"gpt-4","model":"gpt-9"})").status, 400);
  EXPECT_EQ(model->connections(), 0u);
  // A dated name has its family's price.
  EXPECT_EQ(post(kChat, limited(10, "gpt-4-0613")).status, 200);
}

TEST_F(MeteringCaps, NoCapThenUnpricedModelsPassAndPricedOnesAreInTheLedger) {
  const auto model = service(1'000'000, 1);
  options_.prices = prices();
  options_.shared_state = folder_.path() / "shared.db";
  start(model->url("/v1"));
  EXPECT_EQ(post(kChat, limited(10, "gpt-9")).status, 200);
  EXPECT_FALSE(run_->so_far().usage.cost_usd);
  EXPECT_EQ(post(kChat, limited(10)).status, 200);
  run_options_.caps.daily_usd = 1;  // another run, later
  open();
  EXPECT_EQ(post(kChat, limited(10)).status, 402);
}

TEST_F(MeteringCaps, WhatIsElsewhereThenAWholeContextIsReserved) {
  const auto model = service(1, 1);
  options_.prices = prices();
  run_options_.caps.run_usd = 1;
  start(model->url("/v1"));
  EXPECT_EQ(
      post("/v1/responses", R"({"model":"gpt-4","max_output_tokens":1,"previous_response_id":"r"})")
          .status,
      402);
  EXPECT_EQ(post("/v1/responses", R"({"model":"gpt-4","max_output_tokens":1})").status, 200);
}

TEST_F(MeteringCaps, WhatHasNoPriceThenRefusedUnderACapOnly) {
  const auto model = service(1, 1);
  options_.prices = prices();
  start(model->url("/v1"));
  const std::string body = R"({"model":"gpt-4","max_output_tokens":1,"background":true})";
  EXPECT_EQ(post("/v1/responses", body).status, 200);
  run_options_.caps.run_usd = 1;
  open();
  const net::HttpResponse refused = post("/v1/responses", body);
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(Json::parse(refused.body)["error"]["code"], Json("unpriced_request"));
  EXPECT_EQ(refused.headers.get_or("x-should-retry", ""), "false");
  EXPECT_EQ(run_->so_far().failure->how, ExchangeClass::kCap);
  EXPECT_EQ(model->requests().size(), 1u);
}

TEST_F(MeteringCaps, AnotherApisLimitThenNone) {
  const auto model = service(1, 1);
  options_.prices = prices(1'000'000);  // two dollars
  run_options_.caps.run_usd = 1;
  start(model->url("/v1"));
  EXPECT_EQ(post("/v1/responses", R"({"model":"gpt-4","max_tokens":1})").status, 402);
  EXPECT_EQ(post("/v1/responses", R"({"model":"gpt-4","max_output_tokens":1})").status, 200);
}

TEST_F(MeteringCaps, DeploymentThenThePriceOfTheDearerName) {
  const auto model = service(1, 1);
  const auto dollars = [](int input) { return Json::object({{"input", input}, {"output", 1}}); };
  options_.prices = std::make_shared<const PriceTable>(
      Json::object({{"cheap", dollars(1)}, {"dear", dollars(1'000)}}));
  run_options_.caps.run_usd = 0.1;  // a prompt's thousand tokens are a dollar, or a tenth of a cent
  start(model->url("/base/v1"));
  const auto asked = [&](const std::string& deployment, const std::string& name) {
    return post("/openai/deployments/" + deployment + "/chat/completions", limited(1, name)).status;
  };
  EXPECT_EQ(asked("cheap", "cheap"), 200);
  EXPECT_EQ(model->requests().back().target, "/base/openai/deployments/cheap/chat/completions");
  EXPECT_EQ(asked("dear", "cheap"), 402);
  EXPECT_EQ(asked("cheap", "dear"), 402);
  EXPECT_EQ(asked("unknown", "cheap"), 402);
  EXPECT_EQ(model->requests().size(), 1u);
}

constexpr std::string_view kPiece = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";

/// How a call ends of which nobody says what it did cost.
class MeteringUnknownCost : public MeteringCaps {
 protected:
  /// One call has room, and a second one only if the first was cheap.
  void begin(const std::string& endpoint) {
    options_.prices = prices();
    run_options_.caps.run_usd = 0.015;
    start(endpoint);
  }
  void expect_reserved_for_good() {
    const Metered metered = run_->so_far();
    EXPECT_TRUE(metered.usage.estimated);
    EXPECT_LT(metered.usage.cost_usd.value_or(0), 0.001);
    EXPECT_EQ(post(kChat, limited(5'000)).status, 402);
  }
  /// Asks, and goes once `text` has come; empty: once the service has the request.
  void ask_and_go(RawServer& service, const std::string& body, const std::string& text) {
    test::RawClient client(port());
    client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: " + run_->key() +
                "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    service.wait_for_requests(1);
    if (!text.empty()) client.read_until(text);
  }
  static std::string streaming() { return Json::parse(limited(5'000)).set("stream", true).dump(); }
};

TEST_F(MeteringUnknownCost, ProgramGoesBeforeTheAnswerThenAllThatWasReserved) {
  RawServer model([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  begin(model.url("/v1"));
  ask_and_go(model, limited(5'000), "");
  EXPECT_EQ(only_report().how, ExchangeClass::kGone);
  expect_reserved_for_good();
}

TEST_F(MeteringUnknownCost, ServiceIsSilentThenAllThatWasReserved) {
  RawServer model([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  options_.first_byte_timeout = 200ms;
  begin(model.url("/v1"));
  EXPECT_EQ(post(kChat, limited(5'000)).status, 504);
  expect_reserved_for_good();
}

TEST_F(MeteringUnknownCost, ProgramGoesWithinAStreamThenAllThatWasReserved) {
  // Also after its last word, before its usage.
  for (const char* finish : {"null", "\"stop\""}) {
    RawServer model([&](RawConnection& connection) {
      connection.read_request();
      connection.send(std::string(kStreamHead) + chunk(kPiece) +
                      chunk(R"(data: {"choices":[{"delta":{},"finish_reason":)" +
                            std::string(finish) + "}]}\n\n"));
      connection.wait_closed();
    });
    run_.reset();
    proxy_.reset();
    options_ = {};
    reports_.clear();
    begin(model.url("/v1"));
    ask_and_go(model, streaming(), "finish_reason");
    model.wait_for_ended(1);
    only_report();
    expect_reserved_for_good();
  }
}

TEST_F(MeteringUnknownCost, StreamHasToldItsUsageThenThat) {
  RawServer model([](RawConnection& connection) {
    connection.read_request();
    connection.send(std::string(kStreamHead) + chunk(kPiece) +
                    chunk("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],"
                          "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n"));
    if (connection.index() == 0) connection.wait_closed();
  });
  begin(model.url("/v1"));
  ask_and_go(model, streaming(), "usage");
  EXPECT_FALSE(only_report().usage.estimated);
  get(kChat, streaming());
  EXPECT_EQ(model.requests().size(), 2u);
}

TEST_F(MeteringUnknownCost, WebPageThenNothingSinceNoServiceAnswered) {
  const std::string page = "<html>hi</html>";
  RawServer model([&](RawConnection& connection) {
    connection.read_request();
    connection.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n"
        "Content-Length: " +
        std::to_string(page.size()) + "\r\n\r\n" + page);
  });
  begin(model.url("/v1"));
  for (int n = 0; n < 5; ++n) EXPECT_EQ(post(kChat, limited(5'000)).status, 200) << n;
  EXPECT_EQ(run_->so_far().refused, 0);
  EXPECT_EQ(run_->so_far().failure->how, ExchangeClass::kProtocol);
}

TEST_F(MeteringUnknownCost, AnswerWithoutACountThenAllThatWasReserved) {
  RawServer model([](RawConnection& connection) {
    while (connection.read_request()) connection.send(http(R"({"id":"r","status":"queued"})"));
  });
  begin(model.url("/v1"));
  EXPECT_EQ(post("/v1/responses", R"({"model":"gpt-4","max_output_tokens":5000})").status, 200);
  EXPECT_TRUE(only_report().usage.estimated);
  expect_reserved_for_good();
}

TEST_F(MeteringUnknownCost, AnsweredByAModelWithoutAPriceThenAllThatWasReserved) {
  RawServer model([](RawConnection& connection) {
    while (connection.read_request()) connection.send(http(chat_answer(1, 1, "gpt-9")));
  });
  begin(model.url("/v1"));
  EXPECT_EQ(post(kChat, limited(5'000)).status, 200);
  EXPECT_FALSE(only_report().usage.estimated);
  EXPECT_EQ(post(kChat, limited(5'000)).status, 402);
}

TEST_F(MeteringUnknownCost, ServiceSaysThatItFailedThenNoMoreThanWhatCame) {
  RawServer model([](RawConnection& connection) {
    connection.read_request();
    connection.send(
        std::string(kStreamHead) +
        chunk("data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}\n\n") +
        chunk(""));
  });
  begin(model.url("/v1"));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(get(kChat, streaming()).status, 200);
}

TEST_F(MeteringCaps, LongConversationThenWhatWasCountedIsNotCountedByBytesAgain) {
  const auto model = service(10'000, 1);
  options_.prices = prices();
  run_options_.caps.run_usd = 0.1;
  start(model->url("/v1"));
  const std::string text(80'000, 'a');  // $0.08 by bytes, $0.01 as it was counted
  EXPECT_EQ(question(kChat, text).status, 200);
  EXPECT_EQ(question(kChat, text + "and so on").status, 200);
  EXPECT_EQ(question(kChat, text + "and on").status, 200);
  EXPECT_EQ(question(kChat, std::string(80'000, 'b')).status, 402);
}

TEST_F(MeteringCaps, StreamsEndThenSettledBeforeTheProgramSeesIt) {
  const std::string events =
      "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],"
      "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n";
  std::promise<void> asked_again;
  RawServer model([&](RawConnection& connection) {
    connection.read_request();
    connection.send(std::string(kStreamHead) + chunk(events));
    if (connection.index() == 0) asked_again.get_future().wait_for(10s);
    connection.send(chunk(""));
  });
  options_.prices = prices();
  run_options_.caps.run_usd = 0.015;  // room for one call's worst
  start(model.url("/v1"));
  Json body = Json::parse(limited(5'000));
  const std::string text = body.set("stream", true).dump();
  test::RawClient client(port());
  client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: " + run_->key() +
              "\r\nContent-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text);
  client.read_until("[DONE]\n\n");  // its connection is still open
  EXPECT_EQ(get(kChat, text).status, 200);
  asked_again.set_value();
}

TEST_F(MeteringCaps, TenThreadsOfTenRunsThenTheyNeverPassADailyCapTogether) {
  const auto model = service(100, 4'000);  // $0.0081
  options_.prices = prices();
  run_options_.caps.daily_usd = 0.2;
  start(model->url("/v1"));
  std::atomic<int> refused = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 10; ++i) {
    threads.emplace_back([&, i] {
      MeteredRunOptions own;
      own.caps.daily_usd = 0.2;
      own.account.run = "run-" + std::to_string(i);
      const auto run = proxy_->open(std::move(own));
      for (int n = 0; n < 10; ++n) {
        const auto answer =
            test::send("POST", url(kChat), limited(5'000), {{"api-key", run->key()}});
        refused += answer.status == 402;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(static_cast<double>(model->requests().size()) * 0.0081, 0.2);
  EXPECT_GE(model->requests().size(), 10u);
  EXPECT_EQ(model->requests().size() + static_cast<std::size_t>(refused), 100u);
}

TEST_F(MeteringCaps, LedgerIsBrokenThenNothingIsForwarded) {
  const auto model = service(1, 1);
  options_.prices = prices();
  options_.shared_state = folder_.path() / "shared.db";
  start(model->url("/v1"));
  SharedState other(folder_.path() / "shared.db");
  other.database.execute("DROP TABLE spent");
  EXPECT_EQ(post(kChat, limited(1)).status, 503);
  EXPECT_EQ(only_report().how, ExchangeClass::kUnavailable);
  EXPECT_EQ(model->connections(), 0u);
}

// ---- rates ----

TEST_F(MeteringCaps, HeldBeyondTheRunsDeadlineThen429AtOnce) {
  RawServer model([](RawConnection& connection) {
    while (connection.read_request()) {
      connection.send(http("{}", "application/json", 429, "Retry-After: 60\r\n"));
    }
  });
  run_options_.deadline = std::chrono::steady_clock::now() + 30s;
  start(model.url("/v1"));
  EXPECT_EQ(question(kChat, "x").status, 429);
  const net::HttpResponse held = question(kMessages, "x");
  EXPECT_EQ(held.status, 429);
  EXPECT_EQ(Json::parse(held.body)["error"]["type"], Json("rate_limit_error"));
  EXPECT_THAT(held.headers.get_or("Retry-After", ""), testing::AnyOf("59", "60"));
  EXPECT_EQ(model.requests().size(), 1u);
  EXPECT_EQ(run_->so_far().failure->how, ExchangeClass::kRate);
  EXPECT_EQ(run_->so_far().calls, 1);
}

TEST_F(MeteringCaps, HintOfTwoSecondsThenTheOtherProcessWaitsForItToo) {
  std::vector<std::chrono::steady_clock::time_point> times;
  RawServer model([&](RawConnection& connection) {
    while (connection.read_request()) {
      times.push_back(std::chrono::steady_clock::now());
      connection.send(times.size() == 1 ? http("{}", "application/json", 429, "Retry-After: 2\r\n")
                                        : http(chat_answer(1, 1)));
    }
  });
  options_.shared_state = folder_.path() / "shared.db";
  start(model.url("/v1"));
  EXPECT_EQ(question(kChat, "x").status, 429);
  // As another process would: with a state, a governor and a client of its own.
  run_.reset();
  proxy_.reset();
  options_ = {};
  options_.shared_state = folder_.path() / "shared.db";
  start(model.url("/v1"));
  EXPECT_EQ(question(kChat, "x").status, 200);
  ASSERT_EQ(times.size(), 2u);
  EXPECT_GE(times[1] - times[0], 1900ms);
  EXPECT_LE(times[1] - times[0], 4s);
}

TEST_F(MeteringCaps, HeldThenSoFarSaysRate) {
  RawServer model([](RawConnection& connection) {
    while (connection.read_request()) {
      connection.send(http("{}", "application/json", 429, "Retry-After: 200\r\n"));
    }
  });
  start(model.url("/v1"));
  EXPECT_EQ(question(kChat, "x").status, 429);
  auto held = std::async([&] { return question(kChat, "x"); });
  EXPECT_TRUE(
      test::eventually([&] { return run_->so_far(0ns).last->detail.starts_with("held back"); }));
  EXPECT_EQ(run_->so_far(0ns).failure->how, ExchangeClass::kRate);
  run_->end();
  EXPECT_EQ(held.get().status, 503);
  EXPECT_EQ(model.requests().size(), 1u);
}

TEST_F(MeteringCaps, BreakerOpenedByAnotherProcessThen503AndNothingIsAsked) {
  const auto model = service(1, 1);
  options_.shared_state = folder_.path() / "shared.db";
  start(model->url("/v1"));
  SharedState other(folder_.path() / "shared.db");
  const auto in_a_minute = std::chrono::duration_cast<std::chrono::microseconds>(
      (std::chrono::system_clock::now() + 60s).time_since_epoch());
  other.database
      .prepare("INSERT INTO breakers(origin, failures, first_failure, open_until) VALUES(?,10,0,?)")
      .bind(net::Url::parse(model->url())->origin())
      .bind(static_cast<std::int64_t>(in_a_minute.count()))
      .run();
  const net::HttpResponse answer = question(kChat, "x");
  EXPECT_EQ(answer.status, 503);
  EXPECT_THAT(answer.headers.get_or("Retry-After", ""), testing::AnyOf("59", "60"));
  EXPECT_EQ(only_report().how, ExchangeClass::kUnavailable);
  EXPECT_EQ(model->connections(), 0u);
}

TEST_F(MeteringCaps, OwnRateOfRequestsThenTheNextOneWaits) {
  const auto model = service(1, 1);
  options_.rates.requests_per_minute = 60;
  run_options_.deadline = std::chrono::steady_clock::now() + 500ms;
  start(model->url("/v1"));
  int answered = 0;
  while (answered < 100 && question(kChat, "x").status == 200) ++answered;
  // A minute's worth at once, and then one a second, which is after the deadline.
  EXPECT_GE(answered, 55);
  EXPECT_LE(answered, 61);
  EXPECT_EQ(run_->so_far().failure->how, ExchangeClass::kRate);
}

}  // namespace
}  // namespace necrocode::llm
