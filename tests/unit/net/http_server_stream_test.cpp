// The server over real loopback sockets: streamed bodies both ways, files, and parked answers.
#include <fcntl.h>
#include <gmock/gmock.h>

#include <atomic>
#include <list>
#include <thread>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/limits.hpp"
#include "unit/net/http_server_fixture.hpp"

namespace necrocode::net {
namespace {

// ---- streams ----

TEST_F(HttpServerTest, LargeUploadThenBackpressureAndFlatMemory) {
  constexpr std::size_t kTotal = 64 * limits::kMiB;
  Gate release;
  make().route("PUT", "/blob",
               [&](const Request& request) {
                 EXPECT_EQ(request.stream->declared_size(), kTotal);
                 release.wait();
                 Sha256 digest;
                 std::size_t size = 0;
                 for (std::string piece; !(piece = request.stream->read()).empty();) {
                   EXPECT_LE(piece.size(), limits::kHttpStreamChunkBytes);
                   digest.update(piece);
                   size += piece.size();
                 }
                 return Response::text(200, std::to_string(size) + " " + digest.finish_hex());
               },
               {.body_bytes_max = kTotal, .streaming = true});
  server_->start();
  RawClient client(server_->port(), 64 * 1024);
  const std::string block(limits::kMiB, 'x');
  client.send("PUT /blob HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(kTotal) +
              "\r\n\r\n");
  const std::size_t before = resident_bytes();
  // While the handler does not read, the server stops reading too: what fits into the buffers of
  // the kernel and ours is far less than the whole.
  std::size_t sent = 0;
  const auto began = std::chrono::steady_clock::now();
  auto last = began;
  while (sent < kTotal && std::chrono::steady_clock::now() - last < 200ms) {
    const std::size_t count = client.send_some(std::string_view(block).substr(0, 64 * 1024));
    if (count > 0) last = std::chrono::steady_clock::now();
    sent += count;
  }
  EXPECT_LT(sent, kTotal / 2);
  release.open();
  while (sent < kTotal) {
    const std::size_t count = std::min(block.size(), kTotal - sent);
    ASSERT_TRUE(client.send(std::string_view(block).substr(0, count)));
    sent += count;
  }
  const RawAnswer answer = client.read_answer();
  Sha256 expected;
  for (std::size_t i = 0; i < kTotal / block.size(); ++i) expected.update(block);
  EXPECT_EQ(answer.body, std::to_string(kTotal) + " " + expected.finish_hex());
  if (kMemoryCounts) {
    EXPECT_LT(resident_bytes(), before + 8 * limits::kMiB);
  }
  EXPECT_EQ(client.call(get("/hello")).body, "hello");
}

class StreamTest : public HttpServerTest {
 protected:
  // Answers with the body, or the status of the error that reading it threw.
  void start_stream(HttpServerOptions options = {}, std::uint64_t bytes_max = limits::kMiB) {
    make(options).route("POST", "/stream",
                        [](const Request& request) {
                          std::string all;
                          for (std::string piece; !(piece = request.stream->read()).empty();)
                            all += piece;
                          return Response::text(200, all);
                        },
                        {.body_bytes_max = bytes_max, .streaming = true});
    server_->route("POST", "/early", [](const Request&) { return Response::text(401, "no"); },
                   {.streaming = true});
    server_->start();
  }
};

TEST_F(StreamTest, ChunkedOrEmptyBodyThenReadToItsEnd) {
  start_stream();
  RawClient client = connect();
  EXPECT_EQ(client
                .call("POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                      "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n")
                .body,
            "abcde");
  EXPECT_EQ(client.call(post("/stream", "")).body, "");
  EXPECT_EQ(client.call("POST /stream HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
  EXPECT_EQ(client.call(get("/hello")).body, "hello");
}

TEST_F(StreamTest, TooLargeThen413) {
  start_stream({}, 4 * limits::kMiB);
  RawClient client = connect();
  client.send("POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "100000\r\n" + std::string(0x100000, 'x') + "\r\n";
  for (int i = 0; i < 6; ++i) client.send(chunk);
  EXPECT_EQ(client.read_answer().status, 413);
  RawClient small = connect();
  EXPECT_EQ(
      small.call("POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n").status,
      413);
}

TEST_F(StreamTest, SlowAfterTheHandlerBeganThen408FromRead) {
  HttpServerOptions options;
  options.body_grace = 100ms;
  start_stream(options);
  RawClient client = connect();
  client.send("POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\n");
  client.send(std::string(500'000, 'x'));  // more than the buffer: the handler runs
  EXPECT_EQ(client.read_answer().status, 408);
  RawClient before = connect();
  before.send("POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\nxx");
  EXPECT_EQ(before.read_answer().status, 408);
}

TEST_F(HttpServerTest, HandlerSlowerThanTheClientThenItsPauseIsNotTheClients) {
  HttpServerOptions options;
  options.body_grace = 400ms;
  Gate release;
  make(options).route("POST", "/stream",
                      [&](const Request& request) {
                        release.wait();
                        std::size_t size = 0;
                        for (std::string piece; !(piece = request.stream->read()).empty();)
                          size += piece.size();
                        return Response::text(200, std::to_string(size));
                      },
                      {.streaming = true});
  server_->start();
  RawClient client = connect();
  client.send("POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
  // Exactly the buffer: nothing is left in the socket that could prove the client's zeal later.
  client.send(std::string(limits::kHttpStreamBufferBytes, 'x'));
  EXPECT_FALSE(client.readable(600ms));
  release.open();
  EXPECT_FALSE(client.readable(100ms));
  client.send(std::string(300'000 - limits::kHttpStreamBufferBytes, 'x'));
  EXPECT_EQ(client.read_answer().body, "300000");
}

TEST_F(StreamTest, CutOffThen400) {
  start_stream();
  for (const std::size_t size : {10u, 500'000u}) {
    RawClient client = connect();
    client.send("POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\n");
    client.send(std::string(size, 'x'));
    client.shutdown_write();
    EXPECT_EQ(client.read_answer().status, 400) << size;
  }
}

TEST_F(StreamTest, HandlerThatDoesNotReadThenAnswerArrivesAndConnectionCloses) {
  start_stream();
  RawClient client = connect();
  client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 6000000\r\n\r\n");
  client.send(std::string(2'000'000, 'x'));
  EXPECT_EQ(client.read_answer().status, 401);
}

TEST_F(HttpServerTest, SlowUploadsThenOtherRoutesAreServed) {
  std::atomic<std::size_t> begun = 0;
  Gate all;
  make().route("PUT", "/slow",
               [&](const Request& request) {
                 if (++begun == limits::kHttpHandlerThreads) all.open();
                 while (!request.stream->read().empty()) {
                 }
                 return Response::empty(204);
               },
               {.streaming = true});
  server_->start();
  const std::string head = "PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n";
  std::list<RawClient> clients;
  for (std::size_t i = 0; i < limits::kHttpHandlerThreads; ++i) {
    clients.emplace_back(server_->port()).send(head + "\r\n" + std::string(300'000, 'x'));
  }
  ASSERT_TRUE(all.wait());
  EXPECT_EQ(connect().call(get("/hello")).body, "hello");
  // Nor does a client that was told to continue, and does not.
  for (std::size_t i = 0; i < limits::kHttpStreamThreads; ++i) {
    EXPECT_EQ(
        clients.emplace_back(server_->port()).call(head + "Expect: 100-continue\r\n\r\n").status,
        100);
  }
  EXPECT_EQ(begun, limits::kHttpHandlerThreads);
  EXPECT_EQ(connect().call("PUT /slow HTTP/1.1\r\nHost: a\r\n\r\n").status, 204);
  clients.clear();
  server_->stop();
}

TEST_F(HttpServerTest, TooManyUploadsThen503WithRetryAfter) {
  Gate begun;
  Gate release;
  HttpServerOptions options;
  options.stream_threads = 1;
  options.stream_queue = 1;
  make(options).route("PUT", "/slow",
                      [&](const Request&) {
                        begun.open();
                        release.wait();
                        return Response::empty(204);
                      },
                      {.streaming = true});
  server_->start();
  const std::string upload = "PUT /slow HTTP/1.1\r\nHost: a\r\n\r\n";
  RawClient served = connect();
  served.send(upload);
  ASSERT_TRUE(begun.wait());
  std::list<RawClient> clients;
  pollfd waiting[2];
  for (pollfd& each : waiting) {
    clients.emplace_back(server_->port()).send(upload);
    each = {clients.back().fd(), POLLIN, 0};
  }
  ASSERT_EQ(::poll(waiting, 2, 10'000), 1);  // one waits, the other is refused
  RawClient& refused = waiting[0].revents != 0 ? clients.front() : clients.back();
  const RawAnswer answer = refused.read_answer();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.get_or("Retry-After", ""), "1");
  release.open();
  EXPECT_EQ(served.read_answer().status, 204);
  server_->stop();  // the one that waited uses the gates, too
}

TEST_F(StreamTest, Expect100ThenContinueUnlessRefusedByTheHead) {
  start_stream();
  RawClient client = connect();
  EXPECT_EQ(client
                .call("POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                      "Expect: 100-continue\r\n\r\n")
                .status,
            100);
  EXPECT_EQ(client.call("abc").body, "abc");
  EXPECT_EQ(client
                .call("POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n"
                      "Expect: 100-continue\r\n\r\n")
                .status,
            413);
}

TEST_F(HttpServerTest, FileThenItsBytesFromTheOffset) {
  const TemporaryDirectory folder;
  std::string content;
  for (int i = 0; content.size() < 5 * limits::kMiB; ++i) content += std::to_string(i);
  write_file_atomic(folder.path() / "f", content);
  const auto body = [&](std::uint64_t offset, std::uint64_t size) {
    auto file = std::make_shared<FileBody>();
    file->fd = FileDescriptor(::open((folder.path() / "f").c_str(), O_RDONLY | O_CLOEXEC));
    file->offset = offset;
    file->size = size;
    return Response{200, {}, std::move(file)};
  };
  make().route("GET", "/all", [&](const Request&) { return body(0, content.size()); });
  server_->route("GET", "/part", [&](const Request&) { return body(1000, 70'000); });
  server_->route("GET", "/none", [&](const Request&) { return body(5, 0); });
  server_->route("GET", "/short", [&](const Request&) { return body(1, content.size()); });
  server_->start();
  RawClient client = connect();
  EXPECT_EQ(client.call(get("/all")).body, content);
  EXPECT_EQ(client.call(get("/part")).body, content.substr(1000, 70'000));
  EXPECT_EQ(client.call(get("/none")).body, "");
  client.send("HEAD /all HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.read_answer(true).headers.get_or("Content-Length", ""),
            std::to_string(content.size()));
  const RawAnswer cut = client.call(get("/short"));
  EXPECT_EQ(cut.status, 200);
  EXPECT_FALSE(cut.whole);
}

TEST_F(HttpServerTest, ProducerThenChunksUntilItsEnd) {
  make().route("GET", "/count", [](const Request&) {
    auto next = std::make_shared<int>(0);
    return Response{200, {}, BodyProducer([next] {
                      return *next < 50 ? std::string(10'000, 'a') + std::to_string((*next)++) : "";
                    })};
  });
  server_->start();
  RawClient client = connect();
  const RawAnswer answer = client.call(get("/count"));
  EXPECT_EQ(answer.headers.get_or("Transfer-Encoding", ""), "chunked");
  EXPECT_TRUE(answer.whole);
  EXPECT_EQ(answer.body.size(), 50 * 10'000 + 10 + 40 * 2u);
  EXPECT_EQ(client.call(get("/hello")).body, "hello");
}

TEST_F(HttpServerTest, ProducerThrowsThenTheBodyIsSeenToBeCut) {
  make().route("GET", "/count", [](const Request&) {
    auto next = std::make_shared<int>(0);
    return Response{200, {}, BodyProducer([next]() -> std::string {
                      if (++*next == 3) throw std::runtime_error("broken");
                      return "abc";
                    })};
  });
  server_->start();
  RawClient client = connect();
  const RawAnswer answer = client.call(get("/count"));
  EXPECT_EQ(answer.body, "abcabc");
  EXPECT_FALSE(answer.whole);
}

TEST_F(HttpServerTest, ClientLeavesAProducerThenItIsLetGo) {
  const auto kept = std::make_shared<int>(0);
  Gate called;
  make().route("GET", "/endless", [&, weak = std::weak_ptr(kept)](const Request&) {
    return Response{200, {}, BodyProducer([&, held = weak.lock()] {
                      called.open();
                      return std::string(100'000, 'x');
                    })};
  });
  server_->start();
  RawClient client = connect();
  client.send(get("/endless"));
  ASSERT_TRUE(called.wait());
  client.close();
  const auto began = std::chrono::steady_clock::now();
  while (kept.use_count() > 1 && std::chrono::steady_clock::now() - began < kPatience) {
    std::this_thread::yield();
  }
  EXPECT_EQ(kept.use_count(), 1);
  server_->stop();  // before what the producer refers to goes
}

// ---- parked answers ----

class ParkedTest : public HttpServerTest {
 protected:
  void start_parking(std::chrono::milliseconds timeout, HttpServerOptions options = {}) {
    make(options).route("GET", "/wait", [this, timeout](const Request&) {
      return Response::park({timeout,
                             [this](std::shared_ptr<Parked> parked) {
                               parked_ = std::move(parked);
                               started_.open();
                             },
                             [this] {
                               ++timeouts_;
                               return Response::text(200, "timeout");
                             },
                             [this] {
                               ++gones_;
                               gone_.open();
                             }});
    });
    server_->start();
  }
  std::shared_ptr<Parked> parked_;
  Gate started_;
  Gate gone_;
  std::atomic<int> timeouts_ = 0;
  std::atomic<int> gones_ = 0;
};

TEST_F(ParkedTest, CompletedFromAnotherThreadThenThatAnswerOnce) {
  start_parking(10s);
  RawClient client = connect();
  client.send(get("/wait"));
  ASSERT_TRUE(started_.wait());
  EXPECT_TRUE(parked_->waiting());
  EXPECT_TRUE(parked_->complete(Response::text(200, "news")));
  EXPECT_FALSE(parked_->complete(Response::text(200, "again")));
  EXPECT_FALSE(parked_->waiting());
  EXPECT_EQ(client.read_answer().body, "news");
  EXPECT_EQ(client.call(get("/hello")).body, "hello");
  server_->stop();
  EXPECT_EQ(timeouts_ + gones_, 0);
}

TEST_F(ParkedTest, ManyAtOnceThenNoThreadIsHeld) {
  std::mutex mutex;
  std::vector<std::shared_ptr<Parked>> all;
  Gate complete;
  HttpServerOptions options;
  options.handler_threads = 1;
  make(options).route("GET", "/wait", [&](const Request&) {
    return Response::park({10s,
                           [&](std::shared_ptr<Parked> parked) {
                             const std::lock_guard lock(mutex);
                             all.push_back(std::move(parked));
                             if (all.size() == 50) complete.open();
                           },
                           nullptr, nullptr});
  });
  server_->start();
  std::list<RawClient> clients;
  for (int i = 0; i < 50; ++i) clients.emplace_back(server_->port()).send(get("/wait"));
  ASSERT_TRUE(complete.wait());
  RawClient other = connect();
  EXPECT_EQ(other.call(get("/hello")).body, "hello");
  for (const auto& parked : all) EXPECT_TRUE(parked->complete(Response::text(200, "x")));
  for (RawClient& client : clients) EXPECT_EQ(client.read_answer().body, "x");
}

TEST_F(ParkedTest, TimeoutThenItsAnswerAndCompleteSaysFalse) {
  start_parking(50ms);
  RawClient client = connect();
  EXPECT_EQ(client.call(get("/wait")).body, "timeout");
  EXPECT_FALSE(parked_->complete(Response::text(200, "late")));
  EXPECT_EQ(timeouts_, 1);
  EXPECT_EQ(client.call(get("/hello")).body, "hello");
}

TEST_F(ParkedTest, ClientLeavesThenGoneAndCompleteSaysFalse) {
  start_parking(10s);
  RawClient client = connect();
  client.send(get("/wait"));
  ASSERT_TRUE(started_.wait());
  client.close();
  ASSERT_TRUE(gone_.wait());
  EXPECT_FALSE(parked_->complete(Response::text(200, "late")));
  server_->stop();
  EXPECT_EQ(gones_, 1);
  EXPECT_EQ(timeouts_, 0);
}

TEST_F(ParkedTest, PipelinedRequestBehindItThenAnsweredAfterwards) {
  start_parking(10s);
  RawClient client = connect();
  client.send(get("/wait") + get("/hello"));
  ASSERT_TRUE(started_.wait());
  client.send(post("/echo", "third"));
  EXPECT_TRUE(parked_->complete(Response::text(200, "first")));
  EXPECT_EQ(client.read_answer().body, "first");
  EXPECT_EQ(client.read_answer().body, "hello");
  EXPECT_EQ(client.read_answer().body, "third");
}

TEST_F(ParkedTest, ServerStopsThen503) {
  start_parking(10s);
  RawClient client = connect();
  client.send(get("/wait"));
  ASSERT_TRUE(started_.wait());
  server_->stop();
  EXPECT_EQ(client.read_answer().status, 503);
  EXPECT_FALSE(parked_->complete(Response::text(200, "late")));
  server_.reset();
  EXPECT_FALSE(parked_->waiting());
}

TEST_F(ParkedTest, CompletedWhileStartingThenAnsweredAtOnce) {
  make().route("GET", "/now", [](const Request&) {
    return Response::park({10s,
                           [](std::shared_ptr<Parked> parked) {
                             EXPECT_TRUE(parked->complete(Response::text(200, "now")));
                           },
                           nullptr, nullptr});
  });
  server_->route("GET", "/throw", [](const Request&) {
    return Response::park(
        {10s, [](std::shared_ptr<Parked>) { throw HttpError(409, "no"); }, nullptr, nullptr});
  });
  const ParkRequest of_nobody{1ms, nullptr, nullptr, nullptr};
  server_->route("GET", "/none", [=](const Request&) { return Response::park(of_nobody); });
  server_->route("GET", "/again", [](const Request&) {
    return Response::park({1ms, nullptr, [] { return Response::park({}); }, nullptr});
  });
  server_->start();
  RawClient client = connect();
  EXPECT_EQ(client.call(get("/now")).body, "now");
  EXPECT_EQ(client.call(get("/throw")).status, 409);
  EXPECT_EQ(client.call(get("/none")).status, 503);
  EXPECT_EQ(client.call(get("/again")).status, 500);
}

TEST_F(ParkedTest, CompleteTimeoutAndLeavingRaceThenExactlyOneEnd) {
  std::atomic<int> ends = 0;
  std::atomic<int> completed = 0;
  constexpr int kRounds = 300;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::shared_ptr<Parked>> fresh;
  make().route("GET", "/wait", [&](const Request&) {
    return Response::park({1ms,
                           [&](std::shared_ptr<Parked> parked) {
                             const std::lock_guard lock(mutex);
                             fresh.push_back(std::move(parked));
                             changed.notify_all();
                           },
                           [&] {
                             ++ends;
                             return Response::empty(204);
                           },
                           [&] { ++ends; }});
  });
  server_->start();
  std::thread completer([&] {
    for (int done = 0; done < kRounds;) {
      std::unique_lock lock(mutex);
      if (!changed.wait_for(lock, kPatience, [&] { return !fresh.empty(); })) return;
      const auto parked = std::move(fresh.back());
      fresh.pop_back();
      lock.unlock();
      if (done % 3 != 0) std::this_thread::yield();
      if (parked->complete(Response::text(200, "x"))) {
        ++ends;
        ++completed;
      }
      ++done;
    }
  });
  for (int i = 0; i < kRounds; ++i) {
    RawClient client = connect();
    client.send(get("/wait"));
    if (i % 3 == 0) {
      client.close();
    } else {
      const int status = client.read_answer().status;
      EXPECT_TRUE(status == 200 || status == 204);
    }
  }
  completer.join();
  server_->stop();
  EXPECT_EQ(ends, kRounds);
}

}  // namespace
}  // namespace necrocode::net
