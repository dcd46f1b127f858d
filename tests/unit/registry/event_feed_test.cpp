// Feeds of events over real sockets: nothing left out, nothing twice, whoever stops in between.
#include <thread>

#include "necrocode/net/event_stream.hpp"
#include "necrocode/registry/client.hpp"
#include "necrocode/registry/service.hpp"
#include "store_fixture.hpp"
#include "support/eventually.hpp"
#include "support/raw_client.hpp"

namespace necrocode::registry {
namespace {

using namespace std::chrono_literals;
using test::RawAnswer;
using test::RawClient;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class EventFeedTest : public testing::Test {
 protected:
  EventFeedTest() { serve(0); }
  ~EventFeedTest() override { end(); }

  void serve(std::uint16_t port) {
    net::HttpServerOptions options;
    options.port = port;
    options.drain_time = 200ms;
    options.connections_max = net::connections_within_descriptors();
    server = std::make_unique<net::HttpServer>(options);
    service = std::make_unique<RegistryService>(
        std::make_unique<SqliteTaskStore>(folder.path() / "registry.db"));
    net::Api api(*server);
    service->add_routes(api);
    server->start();
  }
  void end() {
    server->stop();
    service.reset();
  }
  void restart() {
    const std::uint16_t port = server->port();
    end();
    serve(port);
  }

  TaskRegistryClient client(int retries = 5) const {
    net::ServiceOptions options;
    options.base_url = server->url();
    options.retry.retries = retries;
    options.retry.base = 20ms;
    options.http = net::make_curl_http_client();  // whose breaker is its own
    return TaskRegistryClient(std::move(options));
  }
  void submit(const std::string& spec, const std::string& number = "1") {
    client().submit(Json::object(
        {{"spec_name", spec},
         {"tasks", Json(Json::Array{Json::object({{"id", number}, {"title", "t"}})})}}));
  }
  static void note(TaskRegistryClient& to, const std::string& task, std::int64_t number) {
    to.add_event(task, "Note", Json::object({{"n", number}}));
  }
  RawClient feed(const std::string& target, const std::string& headers = {}) {
    RawClient raw(server->port());
    raw.send("GET " + target + " HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n" + headers +
             "\r\n");
    return raw;
  }

  TemporaryDirectory folder;
  std::unique_ptr<net::HttpServer> server;
  std::unique_ptr<RegistryService> service;
};

TEST_F(EventFeedTest, HistoryThenWhatComes) {
  submit("app");
  RawClient raw = feed("/events");
  const std::string history = raw.read_until("TaskCreated");
  EXPECT_THAT(history, HasSubstr("Content-Type: text/event-stream"));
  EXPECT_THAT(history, HasSubstr("retry: 1000\n\n"));
  EXPECT_THAT(history, HasSubstr("id: 1\ndata: {"));
  TaskRegistryClient registry = client();
  note(registry, "app:1", 7);
  EXPECT_THAT(raw.read_until("\"n\":7"), HasSubstr("\nid: 2\ndata: {"));
}

TEST_F(EventFeedTest, FiltersHoldForWhatComesToo) {
  submit("app");
  submit("lib");
  RawClient of_task = feed("/tasks/app:1/events?after=2");
  RawClient of_spec = feed("/events?spec=app&after=2");
  RawClient of_type = feed("/events?type=Odd&after=2");
  for (RawClient* raw : {&of_task, &of_spec, &of_type}) raw->read_until("retry: 1000\n\n");
  TaskRegistryClient registry = client();
  note(registry, "lib:1", 1);
  note(registry, "app:1", 2);
  registry.add_event("lib:1", "Odd", Json::object({{"n", 3}}));
  registry.add_event("app:1", "Odd", Json::object({{"n", 4}}));
  for (RawClient* raw : {&of_task, &of_spec}) {
    const std::string read = raw->read_until("\"n\":4");
    EXPECT_THAT(read, HasSubstr("\"n\":2"));
    EXPECT_THAT(read, Not(HasSubstr("lib:1")));
  }
  const std::string odd = of_type.read_until("\"n\":4");
  EXPECT_THAT(odd, HasSubstr("\"n\":3"));
  EXPECT_THAT(odd, Not(HasSubstr("Note")));
}

TEST_F(EventFeedTest, LastEventIdWinsOverTheAddress) {
  submit("app");
  TaskRegistryClient registry = client();
  for (int i = 1; i <= 3; ++i) note(registry, "app:1", i);
  RawClient raw = feed("/tasks/1/events?after=0", "Last-Event-ID: 3\r\n");
  const std::string read = raw.read_until("\"n\":3");
  EXPECT_THAT(read, Not(HasSubstr("\"n\":2")));
}

TEST_F(EventFeedTest, EventsOfHostileNamesThenTheStreamHolds) {
  submit("app");
  TaskRegistryClient registry = client();
  registry.add_event("app:1", "a\nid: 99\n\ndata: x", Json::object({{"t", "\r\n\r\ndata: y\n\n"}}));
  std::vector<std::string> types;
  EXPECT_TRUE(registry.watch({.task_id = "app:1"}, [&](const Event& event) {
    types.push_back(event.event_type);
    return types.size() < 2;
  }));
  EXPECT_EQ(types.back(), "a\nid: 99\n\ndata: x");
}

TEST_F(EventFeedTest, WhatCannotBeFedIsRefused) {
  submit("app");
  const auto status = [&](const std::string& target, const std::string& headers = {}) {
    return feed(target, headers).read_answer().status;
  };
  EXPECT_EQ(status("/events?limit=5"), 422);
  EXPECT_EQ(status("/events?until=5"), 422);
  EXPECT_EQ(status("/tasks/app:9/events"), 404);
  EXPECT_EQ(status("/events", "Last-Event-ID: x\r\n"), 400);
  EXPECT_EQ(status("/events", "Last-Event-ID: -1\r\n"), 400);
  RawClient anything(server->port());
  const RawAnswer page = anything.call("GET /events HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n");
  EXPECT_EQ(page.json()["items"].size(), 1u) << "a feed is for who names it";
}

TEST_F(EventFeedTest, TooManyThen503AndRoomAgainWhenTheyLeave) {
  submit("app");
  std::vector<RawClient> open;
  for (std::size_t i = 0; i < limits::kEventFeeds; ++i) {
    open.push_back(feed("/events"));
    ASSERT_THAT(open.back().read_until("retry"), HasSubstr("200 OK"));
  }
  const RawAnswer refused = feed("/events").read_answer();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.get_or("Retry-After", ""), "10");
  open.clear();
  EXPECT_TRUE(test::eventually(
      [&] { return feed("/events").read_until("retry").find("200 OK") != std::string::npos; }));
}

TEST_F(EventFeedTest, WatchOverRestartsThenEachEventOnceInOrder) {
  constexpr std::int64_t kNotes = 600;
  submit("app");
  std::jthread writing([this] {
    TaskRegistryClient registry = client(1000);
    for (std::int64_t i = 1; i <= kNotes; ++i) note(registry, "app:1", i);
  });
  std::vector<std::int64_t> numbers;
  std::int64_t last_id = 0;
  std::atomic<std::int64_t> seen{0};
  std::jthread restarting([&](const std::stop_token& stop) {
    for (int i = 1; i <= 3; ++i) {
      test::eventually([&] { return stop.stop_requested() || seen > i * kNotes / 5; });
      restart();
    }
  });
  TaskRegistryClient registry = client(1000);
  EXPECT_TRUE(registry.watch({.task_id = "app:1"}, [&](const Event& event) {
    EXPECT_GT(event.id, last_id);
    last_id = event.id;
    if (event.event_type == "Note") numbers.push_back(event.data["n"].as_int().value_or(0));
    seen = static_cast<std::int64_t>(numbers.size());
    return numbers.empty() || numbers.back() < kNotes;
  }));
  restarting.join();
  ASSERT_EQ(numbers.size(), static_cast<std::size_t>(kNotes));
  for (std::int64_t i = 0; i < kNotes; ++i) ASSERT_EQ(numbers[static_cast<std::size_t>(i)], i + 1);
}

TEST_F(EventFeedTest, WatcherSlowerThanTheFeedThenAllComeAtBoundedMemory) {
  constexpr std::int64_t kNotes = 40;  // 20 MB
  submit("app");
  TaskRegistryClient registry = client();
  const std::string text(500 * 1000, 'x');
  for (std::int64_t i = 1; i <= kNotes; ++i) {
    registry.add_event("app:1", "Note", Json::object({{"n", i}, {"text", text}}));
  }
  std::int64_t expected = 1;
  EXPECT_TRUE(registry.watch({.task_id = "app:1", .type = "Note"}, [&](const Event& event) {
    EXPECT_EQ(event.data["n"].as_int(), expected);
    // Each takes long enough that the rest would be there.
    test::eventually([] { return false; }, 5ms);
    return expected++ < kNotes;
  }));
}

TEST_F(EventFeedTest, HandlerMayCallTheClient) {
  submit("app");
  TaskRegistryClient registry = client();
  std::string title;
  EXPECT_TRUE(registry.watch({.spec = "app"}, [&](const Event& event) {
    title = registry.get_task(event.task_id).fields["title"].string_or("");
    return false;
  }));
  EXPECT_EQ(title, "t");
}

TEST_F(EventFeedTest, ContextEndsThenFalse) {
  submit("app");
  submit("app", "2");
  TaskRegistryClient registry = client();
  const auto more = [](const Event&) { return true; };
  EXPECT_FALSE(registry.watch({.spec = "app"}, more, CallContext{}.within(200ms)));
  std::stop_source stop;
  CallContext context;
  context.stop = stop.get_token();
  int heard = 0;
  EXPECT_FALSE(registry.watch(
      {.spec = "app"},
      [&](const Event&) {
        if (++heard == 2) stop.request_stop();
        return true;
      },
      context));
  EXPECT_EQ(heard, 2);
  // Also where more has come already than is handled.
  heard = 0;
  std::stop_source at_once;
  context.stop = at_once.get_token();
  EXPECT_FALSE(registry.watch(
      {.spec = "app"},
      [&](const Event&) {
        ++heard;
        test::eventually([] { return false; }, 50ms);
        at_once.request_stop();
        return true;
      },
      context));
  EXPECT_EQ(heard, 1);
}

TEST_F(EventFeedTest, StreamOfAnotherTypeOrWithoutAByteThenAnError) {
  net::HttpServer other;
  std::string type = "text/html";
  other.route("GET", "/events", [&](const net::Request&) {
    net::Response response = net::Response::text(200, type == "text/html" ? "<html>" : "");
    response.headers.set("Content-Type", type);
    return response;
  });
  other.start();
  net::ServiceOptions options;
  options.base_url = other.url();
  options.retry.retries = 2;
  TaskRegistryClient registry(std::move(options));
  const auto more = [](const Event&) { return true; };
  EXPECT_THROW(registry.watch({}, more), InvalidResponse);
  type = "text/event-stream; charset=utf-8";
  EXPECT_THROW(registry.watch({}, more), Unavailable);
}

TEST_F(EventFeedTest, WhatTheHandlerThrowsComesThrough) {
  submit("app");
  TaskRegistryClient registry = client();
  EXPECT_THROW(registry.watch({}, [](const Event&) -> bool { throw std::out_of_range("enough"); }),
               std::out_of_range);
}

TEST_F(EventFeedTest, UnknownTaskOrNoRegistryThenAnError) {
  TaskRegistryClient registry = client(1);
  const auto more = [](const Event&) { return true; };
  EXPECT_THROW(registry.watch({.task_id = "app:1"}, more), NotFound);
  submit("app");
  std::jthread ending;
  EXPECT_THROW(registry.watch({.task_id = "app:1"},
                              [&](const Event&) {
                                if (!ending.joinable()) ending = std::jthread([this] { end(); });
                                return true;
                              }),
               Unavailable);
  ending.join();
  serve(0);
}

}  // namespace
}  // namespace necrocode::registry
