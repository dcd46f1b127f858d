// LLMClient's streams against real sockets: each fault that the official clients were seen to get
// wrong (a cut stream taken for success, comments that hang for ever, an error under a status of
// success …).
#include <gmock/gmock.h>

#include <thread>

#include "client_fixture.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/llm/capabilities.hpp"
#include "necrocode/llm/model_metrics.hpp"
#include "support/eventually.hpp"

namespace necrocode {
namespace {

using namespace test;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// A service, a client that asks it, and what it is told on the way.
struct Stream {
  explicit Stream(RawServer::Script script, int retries = 3)
      : server(std::move(script)), config(config_for(server, clock, retries)) {}
  // One connection an answer: what ends by the connection's end ends it.
  explicit Stream(std::vector<std::string> answers, int retries = 3)
      : Stream(
            [answers = std::move(answers)](RawConnection& connection) {
              if (!connection.read_request()) return;
              connection.send(answers[std::min(connection.index(), answers.size() - 1)]);
            },
            retries) {}

  ChatResponse ask(const CallContext& context = {}) {
    LLMClient client(std::move(config));
    return client.stream(question(), on_delta, context);
  }
  template <class Error>
  ErrorInfo failure(const CallContext& context = {}) {
    try {
      ask(context);
    } catch (const Error& error) {
      EXPECT_EQ(typeid(error), typeid(Error)) << error.what();
      EXPECT_THAT(error.what(), Not(HasSubstr(kKey)));
      return error.info();
    } catch (const std::exception& error) {
      ADD_FAILURE() << "another error: " << error.what();
      return {};
    }
    ADD_FAILURE() << "no error";
    return {};
  }

  std::string told;
  llm::OnDelta on_delta = [this](const llm::ChatDelta& delta) {
    told += delta.kind == llm::ChatDelta::Kind::kRestart ? "|" : std::string(delta.text);
  };
  FakeClock clock;
  RawServer server;
  LLMConfig config;
};

TEST(LLMClientStream, PiecesAreToldAndTheAnswerIsWhole) {
  Stream stream({kGoodStream});
  const ChatResponse response = stream.ask();
  EXPECT_EQ(response.content, "four");
  EXPECT_EQ(stream.told, "four");
  EXPECT_EQ(response.usage.total_tokens, 10);
  EXPECT_FALSE(response.usage.estimated);
  EXPECT_EQ(response.request_id, "req-7");
  EXPECT_EQ(response.attempts, 1);
  EXPECT_FALSE(response.maybe_billed_twice);
}

// The official client reports success.
TEST(LLMClientStream, EndWithoutAFinishIsRetriedAndNeverSuccess) {
  for (const std::string& cut :
       {kStreamHead + piece("fo"), kStreamHead + piece("fo") + "data: [DONE]\n\n", kStreamHead,
        kStreamHead + piece("fo") + "data: {\"choi"}) {
    Stream once({cut, kGoodStream});
    const ChatResponse response = once.ask();
    EXPECT_EQ(response.content, "four") << cut;
    EXPECT_EQ(response.attempts, 2) << cut;
    EXPECT_TRUE(response.maybe_billed_twice) << cut;
    EXPECT_THAT(once.told, testing::AnyOf("fo|four", "four")) << cut;

    Stream always({cut}, 1);
    const ErrorInfo info = always.failure<Unavailable>();
    EXPECT_EQ(info.end, CallEnd::kExhausted) << cut;
    EXPECT_EQ(info.attempts, 2) << cut;
    EXPECT_TRUE(info.maybe_accepted) << cut;
    EXPECT_EQ(info.request_id, "req-7") << cut;
    EXPECT_EQ(info.partial, cut == kStreamHead ? "" : "fo") << cut;
  }
}

// The official client's error has no type, and it does not try again.
TEST(LLMClientStream, ConnectionCutInTheMiddleIsRetriedWhole) {
  Stream stream([](RawConnection& connection) {
    if (!connection.read_request()) return;
    const std::string chunked =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    if (connection.index() > 0) {
      connection.send(kGoodStream);
      return;
    }
    const std::string first = piece("fo");
    char size[16];
    std::snprintf(size, sizeof size, "%zx\r\n", first.size());
    connection.send(chunked + size + first + "\r\n");
    connection.close();
  });
  const ChatResponse response = stream.ask();
  EXPECT_EQ(response.content, "four");
  EXPECT_EQ(stream.told, "fo|four");
  EXPECT_TRUE(response.maybe_billed_twice);
}

// What attempts that broke off have used is counted, too.
TEST(LLMClientStream, SpendingCountsWhatBrokeOff) {
  Stream stream({kStreamHead + piece(std::string(400, 'x')), kGoodStream});
  llm::Spending spending;
  LLMClient client(std::move(stream.config));
  const ChatResponse response = client.stream(question(), {}, {}, &spending);
  EXPECT_EQ(response.usage.completion_tokens, 3);
  EXPECT_EQ(spending.usage().completion_tokens, 103);
  EXPECT_TRUE(spending.usage().estimated);
}

// The official client hangs for ever.
TEST(LLMClientStream, CommentsAreNoProgress) {
  Stream stream(
      [](RawConnection& connection) {
        if (!connection.read_request()) return;
        connection.send(kStreamHead + piece("fo"));
        while (connection.send(": keep-alive\n\n") && !connection.closed_within(milliseconds(5))) {
        }
      },
      0);
  stream.config.environment.clock = &real_clock();
  stream.config.progress_timeout_seconds = 0.1;
  const auto begin = std::chrono::steady_clock::now();
  const ErrorInfo info = stream.failure<TimeoutError>();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_EQ(info.partial, "fo");
  EXPECT_TRUE(info.maybe_accepted);
}

TEST(LLMClientStream, ProgressKeepsAStreamAliveBeyondTheTimeout) {
  Stream stream(
      [](RawConnection& connection) {
        if (!connection.read_request()) return;
        connection.send(kStreamHead);
        for (int i = 0; i < 8; ++i) {
          connection.send(piece("x"));
          if (connection.closed_within(milliseconds(50))) return;
        }
        connection.send(kFinish);
      },
      0);
  stream.config.environment.clock = &real_clock();
  stream.config.timeout_seconds = 0.3;
  EXPECT_EQ(stream.ask().content, "xxxxxxxx");
}

TEST(LLMClientStream, SilenceIsATimeoutBeforeAndAfterTheFirstByte) {
  for (const std::string& begun : {std::string(), kStreamHead, kStreamHead + piece("fo")}) {
    Stream stream(
        [&begun](RawConnection& connection) {
          if (!connection.read_request()) return;
          connection.send(begun);
          connection.wait_closed();
        },
        0);
    stream.config.environment.clock = &real_clock();
    stream.config.timeout_seconds = 0.1;
    const auto begin = std::chrono::steady_clock::now();
    stream.failure<TimeoutError>();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5)) << begun;
  }
}

// A head that came, and nothing after it, says nothing of the attempts to come.
TEST(LLMClientStream, SilenceAfterTheHeadLeavesTheNextAttemptItsTime) {
  Stream stream([](RawConnection& connection) {
    if (!connection.read_request()) return;
    if (connection.index() == 0) {
      connection.send(kStreamHead);
      connection.wait_closed();
    } else if (!connection.closed_within(milliseconds(50))) {
      connection.send(kGoodStream);
    }
  });
  stream.config.timeout_seconds = 0.3;
  const ChatResponse response = stream.ask();
  EXPECT_EQ(response.content, "four");
  EXPECT_EQ(response.attempts, 2);
  EXPECT_EQ(stream.server.requests().size(), 2u);
}

// It is whole, whatever becomes of its connection, and was billed once.
TEST(LLMClientStream, WholeAnswerCountsThoughTheConnectionStaysOpenOrBreaks) {
  for (const bool resets : {false, true}) {
    Stream stream([resets](RawConnection& connection) {
      if (!connection.read_request()) return;
      connection.send(
          "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
          "Content-Length: 100000\r\n\r\n" +
          piece("four") + kFinish);
      if (!resets) connection.wait_closed();
    });
    stream.config.timeout_seconds = 20;
    const auto begin = std::chrono::steady_clock::now();
    const ChatResponse response = stream.ask();
    EXPECT_EQ(response.content, "four");
    EXPECT_EQ(response.usage.total_tokens, 10);
    EXPECT_EQ(response.attempts, 1);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    EXPECT_EQ(stream.server.requests().size(), 1u);
  }
}

TEST(LLMClientStream, SpendingCountsEachAttemptThatBrokeOffHoweverTheCallEnds) {
  const std::string broken = kStreamHead + piece(std::string(400, 'x'));
  Stream always({broken}, 2);
  llm::Spending spending;
  LLMClient client(std::move(always.config));
  EXPECT_THROW(client.stream(question(), {}, {}, &spending), Unavailable);
  EXPECT_EQ(spending.usage().completion_tokens, 300);

  Stream then_down({broken, answer(503, "{}", "Connection: close\r\n")}, 1);
  llm::Spending after;
  LLMClient second(std::move(then_down.config));
  EXPECT_THROW(second.stream(question(), {}, {}, &after), Unavailable);
  EXPECT_EQ(after.usage().completion_tokens, 100);
}

TEST(LLMClientStream, CancelClosesTheConnection) {
  std::atomic<bool> closed{false};
  Stream stream([&closed](RawConnection& connection) {
    if (!connection.read_request()) return;
    connection.send(kStreamHead + piece("fo"));
    closed = connection.closed_within(std::chrono::seconds(30));
  });
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  stream.on_delta = [&stop](const llm::ChatDelta&) { stop.request_stop(); };
  EXPECT_EQ(stream.failure<TimeoutError>(context).end, CallEnd::kCancelled);
  EXPECT_TRUE(test::eventually([&] { return closed.load(); }));
}

TEST(LLMClientStream, WhatTheListenerThrowsEndsTheCall) {
  Stream stream({kGoodStream});
  stream.on_delta = [](const llm::ChatDelta&) { throw SecurityError("enough"); };
  EXPECT_THROW(stream.ask(), SecurityError);
  EXPECT_EQ(stream.server.requests().size(), 1u);
  // Also where a service's failure would be retried, or the next one asked.
  RawServer other(plays({good_answer("other")}));
  Stream again({kGoodStream});
  again.config.fallbacks.push_back(config_for(other, again.clock));
  int reports = 0;
  again.config.on_call = [&reports](const llm::ModelCallReport& report) {
    ++reports;
    EXPECT_GT(report.usage.prompt_tokens, 0);
  };
  again.on_delta = [](const llm::ChatDelta&) { throw InvalidResponse("not the service's"); };
  EXPECT_THROW(again.ask(), InvalidResponse);
  EXPECT_EQ(again.server.requests().size(), 1u);
  EXPECT_EQ(other.requests().size(), 0u);
  EXPECT_EQ(reports, 1);
}

// The official client takes them for completions.
TEST(LLMClientStream, ErrorUnderAStatusOfSuccessIsTyped) {
  Stream page({answer(200, "<html>log in</html>", "Content-Type: text/html\r\n")});
  EXPECT_THAT(page.failure<InvalidResponse>().detail, HasSubstr("log in"));
  Stream error({answer(200, R"({"error":{"message":"out of order"}})",
                       "Content-Type: application/json\r\n")});
  EXPECT_EQ(error.failure<InvalidResponse>().detail, "out of order");
  Stream quota({kStreamHead + event(R"({"error":{"code":"insufficient_quota","message":"pay"}})")});
  const ErrorInfo spent = quota.failure<RateLimited>();
  EXPECT_EQ(spent.end, CallEnd::kPermanent);
  EXPECT_EQ(spent.attempts, 1);
  EXPECT_EQ(spent.detail, "pay");
  Stream busy({kStreamHead + piece("fo") +
               event(R"({"error":{"type":"rate_limit_error","message":"slower )" + kKey + "\"}}")},
              2);
  const ErrorInfo limited = busy.failure<RateLimited>();
  EXPECT_EQ(limited.attempts, 3);
  EXPECT_EQ(limited.status, 429);
  EXPECT_EQ(limited.partial, "fo");
  EXPECT_THAT(limited.detail, AllOf(HasSubstr("slower"), Not(HasSubstr(kKey))));
  Stream malformed({kStreamHead + "data: {\n\n"});
  EXPECT_EQ(malformed.failure<InvalidResponse>().attempts, 1);
}

TEST(LLMClientStream, UnusableEndsAreErrorsWithWhatCame) {
  for (const char* reason : {"length", "content_filter"}) {
    Stream stream(
        {kStreamHead + piece("fo") +
         event(R"({"choices":[{"delta":{},"finish_reason":")" + std::string(reason) + "\"}]}")});
    const ErrorInfo info = stream.failure<ImplementationError>();
    EXPECT_EQ(info.partial, "fo") << reason;
    EXPECT_EQ(info.attempts, 1) << reason;
  }
}

TEST(LLMClientStream, KeysInWhatCameAreMasked) {
  Stream stream({kStreamHead + piece("the key is " + kKey)}, 0);
  EXPECT_THAT(stream.failure<Unavailable>().partial,
              AllOf(HasSubstr("the key is"), Not(HasSubstr(kKey))));
}

TEST(LLMClientStream, ServiceThatRefusesToStreamIsAskedForTheWhole) {
  Stream stream(plays({answer(400, R"({"error":{"message":"this model does not stream",
                                       "param":"stream"}})"),
                       good_answer("four"), good_answer("five")}));
  LLMClient client(std::move(stream.config));
  EXPECT_EQ(client.stream(question(), stream.on_delta).attempts, 1);
  EXPECT_EQ(stream.told, "four");
  client.stream(question(), stream.on_delta);
  const auto requests = stream.server.requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(Json::parse(requests[1].body)["stream"], Json(false));
  EXPECT_EQ(Json::parse(requests[2].body)["stream"], Json(false));
  EXPECT_EQ(client.capabilities()["stream"], Json(false));
}

TEST(LLMClient, WhatWasLearnedServesTheNextProcess) {
  const TemporaryDirectory folder("llm");
  FakeClock clock;
  RawServer server(plays({answer(400, R"({"error":{"message":"use max_completion_tokens"}})"),
                          good_answer("one"), good_answer("two")}));
  for (int process = 0; process < 2; ++process) {
    LLMConfig config = config_for(server, clock);
    config.capabilities =
        std::make_shared<llm::CapabilityTable>(folder.path() / "known.json", clock);
    LLMClient(std::move(config)).chat(question());
  }
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_TRUE(Json::parse(requests[2].body).find("max_completion_tokens"));
  EXPECT_THAT(read_file(folder.path() / "known.json", 10'000), Not(HasSubstr(kKey)));
}

}  // namespace
}  // namespace necrocode
