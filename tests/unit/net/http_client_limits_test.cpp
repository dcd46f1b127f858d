// What ends a request before its answer is whole: timers, cancelling, the client's own end, limits,
// and answers that are no HTTP. All else: http_client_test.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <future>
#include <thread>
#include <vector>

#include "http_client_fixture.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/net/body_sources.hpp"
#include "support/eventually.hpp"

namespace necrocode::net {
namespace {

// True when that thread of ours has nothing to do.
bool is_waiting(pid_t thread) {
  if (thread == 0) return false;
  const std::string stat =
      read_file("/proc/self/task/" + std::to_string(thread) + "/stat", limits::kMiB);
  return stat.compare(stat.rfind(')'), 3, ") S") == 0;
}

// ---- timers and cancelling ----------------------------------------------------------------------

TEST_F(HttpClientTest, FirstByteTimerEndsASilentAnswer) {
  RawServer server(stalls_after(""));
  HttpRequest request = get(server.url());
  request.timeouts.first_byte = 50ms;
  EXPECT_FAILURE(failure(request), TransportFailure::kTimeout, Delivery::kMaybeAccepted);
  server.wait_for_ended(1);  // the connection was closed
}

TEST_F(HttpClientTest, FirstByteTimerEndsAnUploadThatNobodyReads) {
  RawServer server([](RawConnection& connection) {
    connection.read_head();
    char byte = 0;  // waits without taking anything off
    while (::recv(connection.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno == EAGAIN) {
      std::this_thread::yield();
      if (::send(connection.fd(), "", 0, MSG_NOSIGNAL) < 0) return;
      tcp_info info{};
      socklen_t size = sizeof info;
      ::getsockopt(connection.fd(), IPPROTO_TCP, TCP_INFO, &info, &size);
      if (info.tcpi_state != TCP_ESTABLISHED) return;
    }
  });
  HttpRequest request = get(server.url());
  request.method = "PUT";
  request.body_source = memory_body(std::string(32 * limits::kMiB, 'x'));
  request.timeouts.total = 0ms;
  request.timeouts.first_byte = 100ms;
  EXPECT_FAILURE(failure(request), TransportFailure::kTimeout, Delivery::kMaybeAccepted);
}

TEST_F(HttpClientTest, IdleTimerEndsAnAnswerThatStandsStill) {
  RawServer server(stalls_after("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"));
  HttpRequest request = get(server.url());
  request.timeouts.idle = 50ms;
  EXPECT_FAILURE(failure(request), TransportFailure::kTimeout, Delivery::kResponseStarted);
  server.wait_for_ended(1);
}

TEST_F(HttpClientTest, IdleTimerLetsAnAnswerThatMovesLive) {
  // Ten pieces, each a third of the timer after the last: together three times as long as the
  // timer.
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    for (int i = 0; i < 10 && connection.send("x"); ++i) {
      if (connection.closed_within(20ms)) return;
    }
  });
  HttpRequest request = get(server.url());
  request.timeouts.idle = 150ms;
  EXPECT_EQ(send(request).body, "xxxxxxxxxx");
}

TEST_F(HttpClientTest, TotalTimerEndsAnAnswerThatDrips) {
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
    while (connection.send("x") && !connection.closed_within(5ms)) {
    }
  });
  HttpRequest request = get(server.url());
  request.timeouts.idle = 10s;
  request.timeouts.total = 60ms;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_FAILURE(failure(request), TransportFailure::kTimeout, Delivery::kResponseStarted);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  server.wait_for_ended(1);
}

TEST_F(HttpClientTest, TheContextsDeadlineCountsWhenItIsSooner) {
  RawServer server(stalls_after(""));
  EXPECT_FAILURE(failure(get(server.url()), CallContext{}.within(50ms)), TransportFailure::kTimeout,
                 Delivery::kMaybeAccepted);
}

TEST_F(HttpClientTest, APassedDeadlineSendsNothing) {
  RawServer server(plays({answer(200, "")}));
  EXPECT_FAILURE(failure(get(server.url()), CallContext{}.within(0ms)), TransportFailure::kTimeout,
                 Delivery::kNotSent);
  EXPECT_EQ(server.connections(), 0u);
}

TEST_F(HttpClientTest, AConnectionThatTimedOutIsNotUsedAgain) {
  std::atomic<int> count = 0;
  RawServer server([&](RawConnection& connection) {
    connection.read_request();
    if (count++ == 0) {
      connection.wait_closed();
    } else {
      connection.send(answer(200, "mine"));
      connection.wait_closed();
    }
  });
  HttpRequest request = get(server.url());
  request.timeouts.total = 50ms;
  EXPECT_FAILURE(failure(request), TransportFailure::kTimeout, Delivery::kMaybeAccepted);
  EXPECT_EQ(send(get(server.url())).body, "mine");
  EXPECT_EQ(server.connections(), 2u);
}

TEST_F(HttpClientTest, CancellingWakesWithin50MsAndCloses) {
  RawServer server(stalls_after("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"));
  // The best of five: the machine may be busy with other things, the client may not be slow.
  auto best = 10'000ms;
  for (std::size_t i = 0; i < 5; ++i) {
    std::stop_source stop;
    CallContext context;
    context.stop = stop.get_token();
    SteadyTime end;
    std::promise<void> answer_begun;
    std::jthread caller([&] {
      HttpRequest request = get(server.url());
      request.on_body = [&](std::string_view) {
        answer_begun.set_value();
        return true;
      };
      EXPECT_FAILURE(failure(request, context), TransportFailure::kCancelled,
                     Delivery::kResponseStarted);
      end = std::chrono::steady_clock::now();
    });
    answer_begun.get_future().wait();
    const auto begin = std::chrono::steady_clock::now();
    stop.request_stop();
    caller.join();
    best = std::min(best, std::chrono::duration_cast<std::chrono::milliseconds>(end - begin));
  }
  EXPECT_LT(best, 50ms);
  server.wait_for_ended(5);
}

TEST_F(HttpClientTest, CancellingManyWakesAll) {
  RawServer server(stalls_after(""));
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  std::atomic<int> cancelled = 0;
  std::vector<std::jthread> callers;
  for (int i = 0; i < 32; ++i) {
    callers.emplace_back([&] {
      cancelled += failure(get(server.url()), context).failure() == TransportFailure::kCancelled;
    });
  }
  server.wait_for_requests(32);
  stop.request_stop();
  callers.clear();
  EXPECT_EQ(cancelled, 32);
}

TEST_F(HttpClientTest, ACancelledContextSendsNothing) {
  RawServer server(plays({answer(200, "")}));
  std::stop_source stop;
  stop.request_stop();
  CallContext context;
  context.stop = stop.get_token();
  EXPECT_FAILURE(failure(get(server.url()), context), TransportFailure::kCancelled,
                 Delivery::kNotSent);
  EXPECT_EQ(server.connections(), 0u);
}

TEST(HttpClientEnd, DestructionFailsWhatIsUnderWay) {
  RawServer server(stalls_after(""));
  HttpClientOptions options;
  options.connections_per_host = 2;
  auto client = make_curl_http_client(options);
  std::atomic<int> failed = 0;
  std::array<std::atomic<pid_t>, 4> threads{};
  std::vector<std::jthread> callers;
  for (auto& thread : threads) {  // two of them still wait for a connection
    callers.emplace_back([&failed, &server, &thread, raw = client.get()] {
      try {
        thread = ::gettid();
        raw->send(get(server.url()), {});
      } catch (const TransportError& error) {
        failed += error.failure() == TransportFailure::kCancelled;
      }
    });
  }
  server.wait_for_requests(2);
  // Only threads that are inside send() are promised anything: there, and nowhere before, they
  // wait.
  EXPECT_TRUE(
      test::eventually([&] { return std::all_of(threads.begin(), threads.end(), is_waiting); }));
  client.reset();
  callers.clear();
  EXPECT_EQ(failed, 4);
}

// ---- limits ------------------------------------------------------------------------------------

TEST_F(HttpClientTest, RefusesABodyAboveTheLimitByItsLength) {
  RawServer server(stalls_after("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n"));
  HttpRequest request = get(server.url());
  request.response_bytes_max = 100;
  EXPECT_FAILURE(failure(request), TransportFailure::kTooLarge, Delivery::kResponseStarted);
}

TEST_F(HttpClientTest, RefusesAnEndlessBodyAtTheLimit) {
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    const std::string piece = "10000\r\n" + std::string(0x10000, 'x') + "\r\n";
    while (connection.send(piece)) {
    }
  });
  HttpRequest request = get(server.url());
  request.response_bytes_max = limits::kMiB;
  EXPECT_FAILURE(failure(request), TransportFailure::kTooLarge, Delivery::kResponseStarted);
  server.wait_for_ended(1);
}

TEST_F(HttpClientTest, TakesABodyOfExactlyTheLimit) {
  RawServer server(plays({answer(200, std::string(100, 'x'))}));
  HttpRequest request = get(server.url());
  request.response_bytes_max = 100;
  EXPECT_EQ(send(request).body.size(), 100u);
}

TEST_F(HttpClientTest, RefusesTooManyOrTooLongHeaders) {
  std::string many;
  for (int i = 0; i < 20'000; ++i) many += "X: y\r\n";
  const std::string one_line = "X: " + std::string(2 * limits::kHttpHeaderBytes, 'y') + "\r\n";
  std::string interim;
  for (int i = 0; i < 20'000; ++i) interim += "HTTP/1.1 103 Early Hints\r\n\r\n";
  for (const std::string& bytes : {answer(200, "", many), answer(200, "", one_line), interim}) {
    RawServer server(stalls_after(bytes));
    EXPECT_FAILURE(failure(get(server.url())), TransportFailure::kTooLarge,
                   Delivery::kResponseStarted);
  }
}

TEST_F(HttpClientTest, RefusesAHeaderLineWithoutEnd) {
  RawServer server(stalls_after("HTTP/1.1 200 OK\r\nX: " + std::string(limits::kMiB, 'y')));
  EXPECT_FAILURE(failure(get(server.url())), TransportFailure::kTooLarge,
                 Delivery::kResponseStarted);
}

TEST_F(HttpClientTest, RefusesEndlessTrailers) {
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
    while (connection.send("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")) {
    }
  });
  EXPECT_FAILURE(failure(get(server.url())), TransportFailure::kTooLarge,
                 Delivery::kResponseStarted);
}

class MalformedAnswer : public HttpClientTest, public testing::WithParamInterface<std::string> {};
TEST_P(MalformedAnswer, IsAFailure) {
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.send(GetParam());
  });
  EXPECT_EQ(static_cast<int>(failure(get(server.url())).failure()),
            static_cast<int>(TransportFailure::kMalformed));
}
INSTANTIATE_TEST_SUITE_P(
    HttpClient, MalformedAnswer,
    testing::Values("SSH-2.0-OpenSSH_9\r\n\r\n", "<html>hello</html>\r\n\r\n",
                    std::string("\0\1\2\3\4\5\6\7\r\n\r\n", 12),
                    "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
                    "HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
                    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"));

}  // namespace
}  // namespace necrocode::net
