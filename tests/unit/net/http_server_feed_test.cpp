// Bodies whose pieces come when they come: they wait at no thread's cost, and end with their last
// piece or when somebody leaves.
#include <atomic>
#include <deque>

#include "support/eventually.hpp"
#include "unit/net/http_server_fixture.hpp"

namespace necrocode::net {
namespace {

// What is said here comes out of every feed that is open.
class FeedTest : public HttpServerTest {
 protected:
  struct Reader {
    std::size_t seen = 0;
    std::function<void()> news;
  };

  void serve(HttpServerOptions options = {}) {
    make(options).route("GET", "/feed", [this](const Request&) {
      auto reader = std::make_shared<Reader>();
      auto feed = std::make_shared<FeedBody>();
      feed->start = [this, reader](std::function<void()> news) {
        const std::lock_guard lock(mutex_);
        reader->news = std::move(news);
        readers_.push_back(reader);
      };
      feed->next = [this, reader] {
        const std::lock_guard lock(mutex_);
        ++asked_;
        if (broken_) throw StorageError("broken");
        FeedBody::Piece piece;
        if (reader->seen < said_.size()) piece.bytes = said_[reader->seen++];
        piece.more = reader->seen < said_.size();
        return piece;
      };
      Response response;
      response.headers.set("Content-Type", "text/plain");
      response.body = std::move(feed);
      return response;
    });
    server_->start();
  }
  void say(std::string text) {
    const std::lock_guard lock(mutex_);
    said_.push_back(std::move(text));
    tell();
  }
  void tell() {
    for (const auto& reader : readers_) {
      if (const auto alive = reader.lock()) alive->news();
    }
  }
  std::size_t open() {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(std::count_if(readers_.begin(), readers_.end(),
                                                  [](const auto& r) { return !r.expired(); }));
  }
  RawClient reading(std::string_view request = get("/feed")) {
    RawClient client = connect();
    client.send(request);
    return client;
  }

  std::mutex mutex_;
  std::deque<std::string> said_;
  std::vector<std::weak_ptr<Reader>> readers_;
  int asked_ = 0;
  bool broken_ = false;
};

TEST_F(FeedTest, NewsThenSentAsTheyCome) {
  serve();
  say("one,");
  RawClient client = reading();
  EXPECT_THAT(client.read_until("one,"), testing::HasSubstr("Transfer-Encoding: chunked"));
  say("two,");
  EXPECT_EQ(client.read_until("two,"), "\r\n4\r\ntwo,");
  say("three,");
  say("four,");
  EXPECT_THAT(client.read_until("four,"), testing::HasSubstr("three,"));
}

TEST_F(FeedTest, ManyOnOneThreadThenOthersAreServed) {
  HttpServerOptions options;
  options.handler_threads = 1;
  serve(options);
  std::vector<RawClient> clients;
  for (int i = 0; i < 100; ++i) clients.push_back(reading());
  for (int i = 0; i < 20; ++i) {
    say(std::to_string(i) + ",");
    RawClient other = connect();
    ASSERT_EQ(other.call(post("/echo", "x")).body, "x");
  }
  for (RawClient& client : clients) {
    const std::string read = client.read_until("19,");
    for (int i = 0; i < 20; ++i) ASSERT_THAT(read, testing::HasSubstr(std::to_string(i) + ","));
  }
}

TEST_F(FeedTest, NewsWithoutAnythingThenNothingIsSentAndTheFeedStays) {
  serve();
  RawClient client = reading();
  EXPECT_EQ(client.read_answer(true).status, 200);
  for (int i = 0; i < 10; ++i) {
    const std::lock_guard lock(mutex_);
    tell();
  }
  say("late");
  EXPECT_EQ(client.read_until("late"), "4\r\nlate");
}

TEST_F(FeedTest, ClientLeavesThenItIsLetGo) {
  serve();
  {
    RawClient client = reading();
    ASSERT_TRUE(test::eventually([&] { return open() == 1; }));
  }
  EXPECT_TRUE(test::eventually([&] { return open() == 0; }));
}

TEST_F(FeedTest, ServerStopsThenTheBodyEndsWhole) {
  serve();
  say("one");
  RawClient client = reading();
  ASSERT_FALSE(client.read_until("one").empty());
  server_->stop();
  EXPECT_EQ(client.read_until("nothing"), "\r\n0\r\n\r\n");
  EXPECT_EQ(open(), 0u);
}

TEST_F(FeedTest, ServerStopsWhileNobodyReadsThenWithinItsDrainTime) {
  HttpServerOptions options;
  options.drain_time = 200ms;
  serve(options);
  for (int i = 0; i < 64; ++i) say(std::string(1024 * 1024, 'x'));
  RawClient client = reading();
  ASSERT_TRUE(test::eventually([&] { return open() == 1; }));
  server_->stop();
  EXPECT_EQ(open(), 0u);
}

TEST_F(FeedTest, ClientThatReadsNothingThenNoMoreIsMade) {
  serve();
  for (int i = 0; i < 256; ++i) say(std::string(256 * 1024, 'x'));
  RawClient client = reading();
  ASSERT_TRUE(test::eventually([&] { return open() == 1; }));
  const auto asked = [&] {
    const std::lock_guard lock(mutex_);
    return asked_;
  };
  int before = -1;
  ASSERT_TRUE(test::eventually([&] { return std::exchange(before, asked()) == asked(); }));
  EXPECT_LT(asked(), 256) << "64 MiB do not fit between two loopback sockets";
  say("the end");
  EXPECT_THAT(client.read_until("the end"), testing::SizeIs(testing::Ge(256U * 256 * 1024)));
}

TEST_F(FeedTest, HeadThenNothingIsStarted) {
  serve();
  RawClient client = connect();
  client.send("HEAD /feed HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.read_answer(true).status, 200);
  EXPECT_EQ(client.call(post("/echo", "x")).body, "x");
  EXPECT_EQ(open(), 0u);
}

TEST_F(FeedTest, Http10ThenBareUntilTheEndOfTheConnection) {
  serve();
  say("one,");
  RawClient client = reading("GET /feed HTTP/1.0\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(client.read_until("one,").ends_with("\r\n\r\none,"));
  say("two,");
  EXPECT_EQ(client.read_until("two,"), "two,");
  server_->stop();
  EXPECT_TRUE(client.ends());
}

// A feed of three pieces: the second after a pause, at once for who asks, the third the last one.
Response three_pieces() {
  auto feed = std::make_shared<FeedBody>();
  feed->start = [](const std::function<void()>&) {};
  feed->next = [count = std::make_shared<int>(0)] {
    FeedBody::Piece piece;
    piece.bytes = std::to_string(++*count) + ",";
    if (*count == 1) piece.pause = std::chrono::milliseconds(1);
    if (*count == 2) piece.more = true;
    if (*count == 3) piece.last = true;
    return piece;
  };
  Response response;
  response.body = std::move(feed);
  return response;
}

TEST_F(FeedTest, LastPieceThenTheBodyIsWholeAndTheConnectionTakesAnotherRequest) {
  make().route("GET", "/three", [](const Request&) { return three_pieces(); });
  server_->start();
  RawClient client = connect();
  for (int i = 0; i < 2; ++i) {
    client.send(get("/three"));
    const auto answer = client.read_answer();
    EXPECT_TRUE(answer.whole);
    EXPECT_EQ(answer.body, "1,2,3,");
  }
}

TEST_F(FeedTest, LastPieceOfHttp10ThenTheConnectionEnds) {
  make().route("GET", "/three", [](const Request&) { return three_pieces(); });
  server_->start();
  RawClient client = connect();
  client.send("GET /three HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_TRUE(client.read_until("3,").ends_with("\r\n\r\n1,2,3,"));
  EXPECT_TRUE(client.ends());
}

TEST_F(FeedTest, BrokenThenTheBodyIsSeenToBeCut) {
  serve();
  say("one,");
  RawClient client = reading();
  client.read_until("one,");
  {
    const std::lock_guard lock(mutex_);
    broken_ = true;
  }
  say("two");
  EXPECT_EQ(client.read_until("0\r\n\r\n"), "\r\n") << "no last chunk";
  EXPECT_TRUE(test::eventually([&] { return open() == 0; }));
}

TEST_F(FeedTest, RequestBehindItThenKeptWithinBounds) {
  serve();
  RawClient client = reading();
  ASSERT_TRUE(test::eventually([&] { return open() == 1; }));
  std::size_t sent = 0;
  const std::string bytes(64 * 1024, 'x');
  while (sent < 64 * limits::kMiB) {
    const std::size_t count = client.send_some(bytes);
    if (count == 0) break;
    sent += count;
  }
  EXPECT_LT(sent, 64 * limits::kMiB) << "the server reads no more than a head";
  say("still here");
  EXPECT_THAT(client.read_until("still here"), testing::HasSubstr("still here"));
}

}  // namespace
}  // namespace necrocode::net
