#include "necrocode/net/retry.hpp"

#include <gmock/gmock.h>

#include <deque>
#include <variant>

#include "necrocode/base/time_format.hpp"
#include "necrocode/net/body_sources.hpp"
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
using testing::AllOf;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Le;
using testing::SizeIs;

// ---- hints
// ---------------------------------------------------------------------------------------

const SystemTime kNow = *parse_rfc3339("2026-01-31T12:00:00Z");

std::optional<std::chrono::milliseconds> delay_of(const Headers& headers) {
  return read_retry_hint(headers, kNow).delay;
}

TEST(RetryHint, ReadsSecondsDatesAndMilliseconds) {
  EXPECT_EQ(delay_of({{"Retry-After", "2"}}), 2s);
  EXPECT_EQ(delay_of({{"Retry-After", " 0 "}}), 0s);
  EXPECT_EQ(delay_of({{"Retry-After", "1.5"}}), 1500ms);
  EXPECT_EQ(delay_of({{"Retry-After", to_http_date(kNow + 90s)}}), 90s);
  EXPECT_EQ(delay_of({{"Retry-After", to_http_date(kNow - 90s)}}), 0s);
  EXPECT_EQ(delay_of({{"Retry-After", "9"}, {"Retry-After-Ms", "250"}}), 250ms);
  EXPECT_EQ(delay_of({{"Retry-After", "9"}, {"Retry-After-Ms", "junk"}}), 9s);
}

TEST(RetryHint, IsBoundedAndIgnoresJunk) {
  EXPECT_EQ(delay_of({{"Retry-After", "1e9"}}), 24h);
  EXPECT_EQ(delay_of({{"Retry-After", "1000000000"}}), 24h);
  EXPECT_EQ(delay_of({{"Retry-After-Ms", "99999999999999999999"}}), 24h);
  EXPECT_EQ(delay_of({{"Retry-After", to_http_date(kNow + 8760h)}}), 24h);
  for (const char* junk :
       {"", "-5", "soon", "NaN", "inf", "1 2", "0x10", "Sun, 99 Nov 1994 08:49:37 GMT"}) {
    EXPECT_EQ(delay_of({{"Retry-After", junk}}), std::nullopt) << junk;
  }
  EXPECT_EQ(delay_of({}), std::nullopt);
}

TEST(RetryHint, ReadsUsedUpRateLimits) {
  EXPECT_EQ(
      delay_of({{"x-ratelimit-remaining-requests", "0"}, {"x-ratelimit-reset-requests", "12ms"}}),
      12ms);
  EXPECT_EQ(delay_of({{"x-ratelimit-remaining-tokens", "0"}, {"x-ratelimit-reset-tokens", "6m0s"}}),
            6min);
  EXPECT_EQ(delay_of({{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", "7"}}), 7s);
  EXPECT_EQ(delay_of({{"x-ratelimit-remaining", "0"},
                      {"x-ratelimit-reset", std::to_string(to_unix_ms(kNow + 30s) / 1000)}}),
            30s);
  EXPECT_EQ(delay_of({{"x-ratelimit-remaining", "0"},
                      {"x-ratelimit-reset", std::to_string(to_unix_ms(kNow + 30s))}}),
            30s);
  EXPECT_EQ(
      delay_of({{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", to_rfc3339(kNow + 5s)}}), 5s);
  EXPECT_EQ(delay_of({{"x-ratelimit-remaining-requests", "0"},
                      {"x-ratelimit-reset-requests", "1s"},
                      {"x-ratelimit-remaining-tokens", "0"},
                      {"x-ratelimit-reset-tokens", "1h2m3.5s"}}),
            1h + 2min + 3500ms);
  EXPECT_EQ(
      delay_of({{"x-ratelimit-remaining-requests", "5"}, {"x-ratelimit-reset-requests", "1s"}}),
      std::nullopt);
  EXPECT_EQ(delay_of({{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", "3 parsecs"}}),
            std::nullopt);
  EXPECT_EQ(
      delay_of({{"Retry-After", "2"}, {"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", "9"}}),
      2s);
}

TEST(RetryHint, ReadsShouldRetry) {
  EXPECT_EQ(read_retry_hint({{"X-Should-Retry", "true"}}, kNow).should_retry, true);
  EXPECT_EQ(read_retry_hint({{"x-should-retry", "False"}}, kNow).should_retry, false);
  EXPECT_EQ(read_retry_hint({{"x-should-retry", "maybe"}}, kNow).should_retry, std::nullopt);
}

// ---- the loop, against a scripted client
// -----------------------------------------------------------

struct Fault {
  TransportFailure failure;
  Delivery delivery = Delivery::kMaybeAccepted;
  bool reused = false;
};
using Step = std::variant<HttpResponse, Fault>;

/// Plays steps; the last one repeats.
class ScriptedClient final : public HttpClient {
 public:
  explicit ScriptedClient(std::deque<Step> steps) : steps_(std::move(steps)) {}
  HttpResponse send(const HttpRequest& request, const CallContext&) override {
    requests.push_back(request);
    const Step step = steps_.front();
    if (steps_.size() > 1) steps_.pop_front();
    if (on_send) on_send();
    if (const auto* fault = std::get_if<Fault>(&step)) {
      throw TransportError(fault->failure, fault->delivery, fault->reused, "scripted");
    }
    return std::get<HttpResponse>(step);
  }
  void plays(std::deque<Step> steps) { steps_ = std::move(steps); }
  std::vector<HttpRequest> requests;
  std::function<void()> on_send;

 private:
  std::deque<Step> steps_;
};

HttpResponse status(int code, Headers headers = {}) {
  return {code, std::move(headers), ""};
}

class RetryLoopTest : public testing::Test {
 protected:
  RetryOutcome run(ScriptedClient& client, const CallContext& context = {}) {
    return send_with_retries(client, request_, policy_, context,
                             {&clock_, [this] { return random_; }});
  }
  template <class Error>
  Error error_of(ScriptedClient& client, const CallContext& context = {}) {
    try {
      run(client, context);
    } catch (const Error& error) {
      return error;
    } catch (const std::exception& error) {
      ADD_FAILURE() << "another error: " << error.what();
    }
    ADD_FAILURE() << "no error of that type";
    return Error("none");
  }
  FakeClock clock_;
  HttpRequest request_;
  RetryPolicy policy_;
  double random_ = 0.5;
};

TEST_F(RetryLoopTest, LeavesAGoodAnswerAlone) {
  ScriptedClient client({status(200)});
  const RetryOutcome outcome = run(client);
  EXPECT_EQ(outcome.attempts, 1);
  EXPECT_EQ(outcome.end, CallEnd::kNone);
  EXPECT_THAT(clock_.sleeps(), IsEmpty());
}

TEST_F(RetryLoopTest, WaitsWithFullJitterOfAnExponentialCeiling) {
  policy_.retries = 8;
  ScriptedClient client({status(503)});
  random_ = 0.5;
  const RetryOutcome outcome = run(client);
  EXPECT_EQ(outcome.response.status, 503);
  EXPECT_EQ(outcome.attempts, 9);
  EXPECT_EQ(outcome.end, CallEnd::kExhausted);
  EXPECT_THAT(clock_.sleeps(), ElementsAre(0.5, 1, 2, 4, 8, 16, 30, 30));
}

TEST_F(RetryLoopTest, SpreadsClientsOverTheWholeCeiling) {
  policy_.retries = 1;
  std::vector<double> delays;
  for (int i = 0; i < 20; ++i) {
    FakeClock clock;
    ScriptedClient client({status(503), status(200)});
    send_with_retries(client, request_, policy_, {}, {&clock, {}});
    delays.push_back(clock.sleeps().empty() ? 0 : clock.sleeps().at(0));
  }
  const auto [low, high] = std::minmax_element(delays.begin(), delays.end());
  EXPECT_GE(*low, 0.0);
  EXPECT_LE(*high, 1.0);
  EXPECT_GT(*high - *low, 0.3);  // missed by chance once in 10^9 runs
}

TEST_F(RetryLoopTest, TakesAHintAsTheLowerBoundPlusTenPercent) {
  for (const double random : {0.0, 0.5, 0.999}) {
    FakeClock clock;
    ScriptedClient client({status(429, {{"Retry-After", "2"}}), status(200)});
    EXPECT_EQ(
        send_with_retries(client, request_, policy_, {}, {&clock, [&] { return random; }}).attempts,
        2);
    EXPECT_THAT(clock.sleeps(), ElementsAre(AllOf(Ge(2.0), Le(2.2))));
  }
}

TEST_F(RetryLoopTest, ReadsEachAttemptsOwnHint) {
  ScriptedClient client({status(429, {{"Retry-After", "10"}}), status(503), status(200)});
  random_ = 0;
  run(client);
  EXPECT_THAT(clock_.sleeps(), ElementsAre(10.0));  // the second delay is 0: not slept
}

TEST_F(RetryLoopTest, RetriesExactlyTheseStatuses) {
  for (int code = 400; code < 600; ++code) {
    FakeClock clock;
    ScriptedClient client({status(code), status(200)});
    const auto outcome = send_with_retries(client, request_, policy_, {}, {&clock, {}});
    const bool retried = code == 408 || code == 425 || code == 429 || code == 500 || code == 502 ||
                         code == 503 || code == 504;
    EXPECT_EQ(outcome.attempts, retried ? 2 : 1) << code;
    EXPECT_EQ(outcome.end, retried ? CallEnd::kNone : CallEnd::kPermanent) << code;
  }
}

TEST_F(RetryLoopTest, ObeysShouldRetry) {
  ScriptedClient no({status(503, {{"x-should-retry", "false"}}), status(200)});
  EXPECT_EQ(run(no).attempts, 1);
  ScriptedClient yes({status(409, {{"x-should-retry", "true"}}), status(200)});
  EXPECT_EQ(run(yes).attempts, 2);
  ScriptedClient never({status(400, {{"x-should-retry", "true"}}), status(200)});
  EXPECT_EQ(run(never).attempts, 1);
  ScriptedClient good({status(200, {{"x-should-retry", "true"}})});
  EXPECT_EQ(run(good).attempts, 1);
}

TEST_F(RetryLoopTest, AsksTheCallersDecision) {
  ScriptedClient client({status(200), status(404)});
  const auto outcome =
      send_with_retries(client, request_, policy_, {}, {&clock_, {}},
                        [](const HttpResponse& response) { return response.status == 200; });
  EXPECT_EQ(outcome.attempts, 2);
  EXPECT_EQ(outcome.response.status, 404);
}

TEST_F(RetryLoopTest, ReturnsTheAnswerWhenItsHintLiesBeyondTheDeadline) {
  ScriptedClient client({status(429, {{"Retry-After", "90"}}), status(200)});
  const RetryOutcome outcome = run(client, CallContext{}.within(30s, clock_));
  EXPECT_EQ(outcome.response.status, 429);
  EXPECT_EQ(outcome.attempts, 1);
  EXPECT_EQ(outcome.end, CallEnd::kDeadline);
  EXPECT_EQ(outcome.retry_at, clock_.system_now() + 90s);
  EXPECT_THAT(clock_.sleeps(), IsEmpty());
}

TEST_F(RetryLoopTest, DoesNotSleepForADayWithoutADeadline) {
  ScriptedClient client({status(429, {{"Retry-After", "1000000000"}}), status(200)});
  const RetryOutcome outcome = run(client);
  EXPECT_EQ(outcome.attempts, 1);
  EXPECT_EQ(outcome.end, CallEnd::kDeadline);
  EXPECT_EQ(outcome.retry_at, clock_.system_now() + 24h);
}

TEST_F(RetryLoopTest, EndsWithTheDeadlineWhenNoAnswerCame) {
  policy_.retries = 100;
  ScriptedClient client({Fault{TransportFailure::kConnect, Delivery::kNotSent}});
  const auto begin = clock_.steady_now();
  const auto error = error_of<TimeoutError>(client, CallContext{}.within(10s, clock_));
  EXPECT_EQ(error.info().end, CallEnd::kDeadline);
  EXPECT_LT(clock_.steady_now() - begin, 10s);
  EXPECT_FALSE(error.info().maybe_accepted);
  EXPECT_EQ(error.info().attempts, 5);  // 0.5 + 1 + 2 + 4 s; the next 8 s would not fit
}

TEST_F(RetryLoopTest, EndsWithTheDeadlineWhenAnAttemptUsedItUp) {
  ScriptedClient client({Fault{TransportFailure::kTimeout}});
  client.on_send = [&] { clock_.advance(10s); };
  const auto error = error_of<TimeoutError>(client, CallContext{}.within(10s, clock_));
  EXPECT_EQ(error.info().end, CallEnd::kDeadline);
  EXPECT_TRUE(error.info().maybe_accepted);
  EXPECT_THAT(client.requests, SizeIs(1));
}

TEST_F(RetryLoopTest, SendsNothingAfterTheDeadline) {
  ScriptedClient client({status(200)});
  EXPECT_EQ(error_of<TimeoutError>(client, CallContext{}.within(0s, clock_)).info().end,
            CallEnd::kDeadline);
  EXPECT_THAT(client.requests, IsEmpty());
}

TEST_F(RetryLoopTest, RetriesWithoutAnswerUntilExhausted) {
  for (const auto failure :
       {TransportFailure::kConnect, TransportFailure::kReset, TransportFailure::kTimeout}) {
    ScriptedClient client({Fault{failure}});
    const auto error = error_of<Unavailable>(client);
    EXPECT_EQ(error.info().end, CallEnd::kExhausted);
    EXPECT_EQ(error.info().attempts, 4);
    EXPECT_TRUE(error.info().maybe_accepted);
    EXPECT_THAT(error.what(), HasSubstr("scripted"));
    EXPECT_THROW(std::rethrow_exception(error.info().cause), TransportError);
  }
}

TEST_F(RetryLoopTest, RemembersThatAnEarlierAttemptMayHaveBeenAccepted) {
  ScriptedClient client({Fault{TransportFailure::kReset, Delivery::kMaybeAccepted},
                         Fault{TransportFailure::kConnect, Delivery::kNotSent}});
  EXPECT_TRUE(error_of<Unavailable>(client).info().maybe_accepted);
  ScriptedClient answered({Fault{TransportFailure::kReset, Delivery::kMaybeAccepted}, status(409)});
  EXPECT_TRUE(run(answered).maybe_accepted);
}

TEST_F(RetryLoopTest, DoesNotRepeatWhatCannotHelp) {
  for (const auto failure :
       {TransportFailure::kTls, TransportFailure::kInvalid, TransportFailure::kAborted}) {
    ScriptedClient client({Fault{failure}});
    EXPECT_EQ(error_of<Unavailable>(client).info().end, CallEnd::kPermanent);
    EXPECT_THAT(client.requests, SizeIs(1));
  }
  for (const auto failure : {TransportFailure::kTooLarge, TransportFailure::kMalformed}) {
    ScriptedClient client({Fault{failure}});
    EXPECT_EQ(error_of<InvalidResponse>(client).info().end, CallEnd::kPermanent);
    EXPECT_THAT(client.requests, SizeIs(1));
  }
}

TEST_F(RetryLoopTest, StopsRetryingWhenTheHostsBudgetIsSpent) {
  ScriptedClient client({Fault{TransportFailure::kConnect, Delivery::kNotSent}});
  random_ = 0;  // no delay, so that no time brings tokens back
  const int calls = 100;
  for (int call = 0; call < calls; ++call) error_of<Unavailable>(client);
  EXPECT_THAT(client.requests.size(), Le(calls * 1.2 + limits::kRetryBudgetTokens));
  const auto error = error_of<Unavailable>(client);
  EXPECT_EQ(error.info().end, CallEnd::kExhausted);
  EXPECT_EQ(error.info().attempts, 1);
  EXPECT_THAT(error.what(), HasSubstr("too many calls to this host are being retried"));

  ScriptedClient answering({status(503)});
  for (int call = 0; call < calls; ++call) run(answering);
  const RetryOutcome outcome = run(answering);
  EXPECT_EQ(outcome.end, CallEnd::kExhausted);
  EXPECT_EQ(outcome.attempts, 1);
}

TEST_F(RetryLoopTest, FailsWithoutSendingWhileTheBreakerIsOpen) {
  policy_.retries = 0;
  ScriptedClient client({Fault{TransportFailure::kTimeout}});
  client.on_send = [&] { clock_.advance(1s); };
  while (error_of<Unavailable>(client).info().end != CallEnd::kBreakerOpen) {
    ASSERT_THAT(client.requests.size(), Le(limits::kBreakerFailures));
  }
  const std::size_t sent = client.requests.size();
  const auto error = error_of<Unavailable>(client);
  EXPECT_THAT(client.requests, SizeIs(sent));
  EXPECT_EQ(error.info().end, CallEnd::kBreakerOpen);
  EXPECT_EQ(error.info().attempts, 0);
  EXPECT_FALSE(error.info().maybe_accepted);
  EXPECT_GT(error.info().retry_at, clock_.system_now());
}

TEST_F(RetryLoopTest, WaitsForTheBreakerAndIsItsProbe) {
  policy_.retries = 0;
  ScriptedClient client({Fault{TransportFailure::kTimeout}});
  client.on_send = [&] { clock_.advance(1s); };
  while (error_of<Unavailable>(client).info().end != CallEnd::kBreakerOpen) {
  }
  client.plays({status(200)});
  policy_.retries = 1;
  const RetryOutcome outcome = run(client);
  EXPECT_EQ(outcome.response.status, 200);
  EXPECT_EQ(outcome.attempts, 1);
  EXPECT_EQ(client.hosts().of("")->breaker.state(clock_.steady_now()), BreakerState::kClosed);
}

TEST_F(RetryLoopTest, DoesNotWaitForTheBreakerBeyondTheDeadline) {
  policy_.retries = 0;
  ScriptedClient client({Fault{TransportFailure::kTimeout}});
  client.on_send = [&] { clock_.advance(1s); };
  while (error_of<Unavailable>(client).info().end != CallEnd::kBreakerOpen) {
  }
  policy_.retries = 3;
  const auto error = error_of<Unavailable>(client, CallContext{}.within(100ms, clock_));
  EXPECT_EQ(error.info().end, CallEnd::kBreakerOpen);
}

TEST_F(RetryLoopTest, OpensNoBreakerForAHostThatAnswersOrSteers) {
  policy_.retries = 0;
  for (const auto& answer :
       {status(429), status(404), status(401), status(409), status(503, {{"Retry-After", "1"}})}) {
    ScriptedClient client({answer});
    client.on_send = [&] { clock_.advance(1s); };
    for (int call = 0; call < 50; ++call) EXPECT_EQ(run(client).attempts, 1) << answer.status;
  }
  for (const auto failure : {TransportFailure::kTls, TransportFailure::kInvalid}) {
    ScriptedClient client({Fault{failure}});
    client.on_send = [&] { clock_.advance(1s); };
    for (int call = 0; call < 50; ++call)
      EXPECT_EQ(error_of<Unavailable>(client).info().end, CallEnd::kPermanent);
  }
}

TEST_F(RetryLoopTest, OpensNoBreakerForACallerInAHurry) {
  policy_.retries = 0;
  ScriptedClient client({Fault{TransportFailure::kTimeout}});
  client.on_send = [&] { clock_.advance(1s); };
  for (int call = 0; call < 50; ++call) {
    const auto error = error_of<TimeoutError>(client, CallContext{}.within(1s, clock_));
    EXPECT_EQ(error.info().end, CallEnd::kDeadline);
  }
  EXPECT_THAT(client.requests, SizeIs(50));
}

TEST_F(RetryLoopTest, GivesTheProbeBackWhateverEndsIt) {
  policy_.retries = 0;
  ScriptedClient client({Fault{TransportFailure::kTimeout}});
  client.on_send = [&] { clock_.advance(1s); };
  while (error_of<Unavailable>(client).info().end != CallEnd::kBreakerOpen) {
  }
  clock_.advance(limits::kBreakerOpenMax);
  client.on_send = [] { throw std::bad_alloc(); };
  EXPECT_THROW(run(client), std::bad_alloc);
  client.on_send = nullptr;
  client.plays({status(200)});
  EXPECT_EQ(run(client).attempts, 1);
}

TEST_F(RetryLoopTest, GivesOneFreeRetryToAStaleConnection) {
  policy_.retries = 0;
  const Fault stale{TransportFailure::kReset, Delivery::kMaybeAccepted, true};
  ScriptedClient once({stale, status(200)});
  const RetryOutcome outcome = run(once);
  EXPECT_EQ(outcome.attempts, 2);
  EXPECT_THAT(clock_.sleeps(), IsEmpty());
  EXPECT_FALSE(once.requests.at(0).fresh_connection);
  EXPECT_TRUE(once.requests.at(1).fresh_connection);

  ScriptedClient twice({stale, stale, status(200)});
  EXPECT_EQ(error_of<Unavailable>(twice).info().attempts, 2);

  const Fault begun{TransportFailure::kReset, Delivery::kResponseStarted, true};
  ScriptedClient started({begun, status(200)});
  EXPECT_EQ(error_of<Unavailable>(started).info().attempts, 1);
}

TEST_F(RetryLoopTest, EndsWhenCancelled) {
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  ScriptedClient client({status(503)});
  client.on_send = [&] { stop.request_stop(); };
  EXPECT_EQ(error_of<TimeoutError>(client, context).info().end, CallEnd::kCancelled);
  EXPECT_THAT(client.requests, SizeIs(1));
  EXPECT_EQ(error_of<TimeoutError>(client, context).info().end, CallEnd::kCancelled);
  EXPECT_THAT(client.requests, SizeIs(1));
  ScriptedClient closing({Fault{TransportFailure::kCancelled}});
  EXPECT_EQ(error_of<TimeoutError>(closing).info().end, CallEnd::kCancelled);
}

TEST_F(RetryLoopTest, AnErrorAfterAnAnswerDoesNotSpeakOfThatAnswer) {
  policy_.retries = 1;
  ScriptedClient client({status(503), Fault{TransportFailure::kConnect, Delivery::kNotSent}});
  EXPECT_EQ(error_of<Unavailable>(client).info().status, 0);
}

// ---- the loop, over sockets
// --------------------------------------------------------------------------

class RetryOverSockets : public testing::Test {
 protected:
  RetryOutcome run(const HttpRequest& request, const CallContext& context = {}) {
    return send_with_retries(*client_, request, {}, context, {&clock_, {}});
  }
  FakeClock clock_;
  std::shared_ptr<HttpClient> client_ = make_curl_http_client();
};

TEST_F(RetryOverSockets, WaitsAsA429Asks) {
  RawServer server(plays({answer(429, "", "Retry-After: 2\r\n"), answer(200, "ok")}));
  HttpRequest request;
  request.url = server.url();
  EXPECT_EQ(run(request).response.body, "ok");
  EXPECT_THAT(clock_.sleeps(), ElementsAre(AllOf(Ge(2.0), Le(2.2))));
}

TEST_F(RetryOverSockets, AStaleConnectionCostsOneSilentAttempt) {
  RawServer server([](RawConnection& connection) {
    if (!connection.read_request()) return;
    connection.send(answer(200, "ok"));
    if (connection.read_request()) connection.reset();
  });
  HttpRequest request;
  request.url = server.url();
  request.method = "POST";
  request.body = "x";
  EXPECT_EQ(run(request).attempts, 1);
  EXPECT_EQ(run(request).attempts, 2);
  EXPECT_THAT(clock_.sleeps(), IsEmpty());
  EXPECT_EQ(server.requests().size(), 3u);
  EXPECT_EQ(server.connections(), 2u);
}

TEST_F(RetryOverSockets, SendsAStreamedBodyWholeAgain) {
  RawServer server(plays({answer(503, ""), answer(503, ""), answer(201, "")}));
  HttpRequest request;
  request.url = server.url();
  request.method = "PUT";
  request.body_source = memory_body(std::string(200'000, 'x') + "end");
  EXPECT_EQ(run(request).attempts, 3);
  for (const auto& seen : server.requests())
    EXPECT_EQ(seen.body, std::string(200'000, 'x') + "end");
}

/// The first answer breaks off in its body.
RawServer::Script breaks_off_once() {
  auto count = std::make_shared<std::atomic<int>>(0);
  return [count](RawConnection& connection) {
    connection.read_request();
    connection.send((*count)++ == 0 ? "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"
                                    : answer(200, "abcdef"));
  };
}

TEST_F(RetryOverSockets, ReadsAnAnswerThatBrokeOffAgain) {
  RawServer server(breaks_off_once());
  HttpRequest request;
  request.url = server.url();
  const RetryOutcome outcome = run(request);
  EXPECT_EQ(outcome.response.body, "abcdef");
  EXPECT_EQ(outcome.attempts, 2);
}

TEST_F(RetryOverSockets, DoesNotGiveASinkTheSameBytesTwice) {
  RawServer server(breaks_off_once());
  HttpRequest request;
  request.url = server.url();
  std::string got;
  request.on_body = [&](std::string_view piece) {
    got += piece;
    return true;
  };
  EXPECT_THROW(run(request), Unavailable);
  EXPECT_EQ(got, "abc");
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST_F(RetryOverSockets, TellsASinkToStartAnew) {
  RawServer server(breaks_off_once());
  HttpRequest request;
  request.url = server.url();
  std::string got;
  request.on_body = [&](std::string_view piece) {
    got += piece;
    return true;
  };
  request.on_restart = [&](Headers&) { got.clear(); };
  EXPECT_EQ(run(request).attempts, 2);
  EXPECT_EQ(got, "abcdef");
}

TEST_F(RetryOverSockets, StreamThatHasBegunIsGoodNewsOfItsHost) {
  RawServer server(plays({answer(200, "abc")}));
  const auto client = make_curl_http_client();
  CircuitBreaker& breaker = client->hosts().of(server.url())->breaker;
  SteadyTime past = real_clock().steady_now() - 1h;
  for (std::size_t i = 0; i < limits::kBreakerFailures; ++i) {
    breaker.admit(past += 1s).attempt->failed(past);
  }
  ASSERT_EQ(breaker.state(real_clock().steady_now()), BreakerState::kHalfOpen);
  HttpRequest request;
  request.url = server.url();
  std::optional<BreakerState> meanwhile;
  request.on_body = [&](std::string_view) {
    meanwhile = breaker.state(real_clock().steady_now());
    return true;
  };
  send_with_retries(*client, request, {}, {});
  EXPECT_EQ(meanwhile, BreakerState::kClosed) << "others need not wait for the stream's end";
}

TEST_F(RetryOverSockets, LetsTheSinksOwnErrorThrough) {
  RawServer server(plays({answer(200, "abc")}));
  HttpRequest request;
  request.url = server.url();
  request.on_body = [](std::string_view) -> bool { throw StorageError("disk full"); };
  EXPECT_THROW(run(request), StorageError);
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST_F(RetryOverSockets, CancellingEndsAnAttemptUnderWay) {
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  HttpRequest request;
  request.url = server.url();
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  std::jthread canceller([&] {
    server.wait_for_requests(1);
    stop.request_stop();
  });
  try {
    run(request, context);
    FAIL();
  } catch (const TimeoutError& error) {
    EXPECT_EQ(error.info().end, CallEnd::kCancelled);
    EXPECT_TRUE(error.info().maybe_accepted);
  }
}

}  // namespace
}  // namespace necrocode::net
