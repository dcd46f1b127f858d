// Listeners that a server is handed beside its own address.
#include <fcntl.h>

#include <future>

#include "unit/net/http_server_fixture.hpp"

namespace necrocode::net {
namespace {

class HttpServerListeners : public HttpServerTest {
 protected:
  struct Listener {
    FileDescriptor socket;
    std::uint16_t port = 0;
  };
  static Listener listen() {
    Listener made;
    made.socket = FileDescriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(made.socket.get(), generic, size), 0);
    EXPECT_EQ(::listen(made.socket.get(), 8), 0);
    EXPECT_EQ(::getsockname(made.socket.get(), generic, &size), 0);
    made.port = ntohs(address.sin_port);
    return made;
  }
};

TEST_F(HttpServerListeners, AddedThenServedBesideTheOwnAddressAndForgotten) {
  HttpServer& server = start();
  Listener one = listen();
  Listener two = listen();
  const std::uint64_t first = server.add_listener(std::move(one.socket));
  const std::uint64_t second = server.add_listener(std::move(two.socket));
  EXPECT_NE(first, second);
  RawClient of_first(one.port), of_second(two.port), own = connect();
  for (RawClient* client : {&of_first, &of_second, &own}) {
    EXPECT_EQ(client->call(get("/hello")).body, "hello");
  }
  server.forget_listener(first);
  EXPECT_TRUE(of_first.ends());
  EXPECT_FALSE(RawClient(one.port).connected());
  for (RawClient* client : {&of_second, &own}) {
    EXPECT_EQ(client->call(get("/hello")).body, "hello");
  }
  server.forget_listener(first);  // again, and one that never was
  server.forget_listener(1234);
  server.forget_listener(second);
  EXPECT_TRUE(of_second.ends());
}

TEST_F(HttpServerListeners, ForgottenThenRequestsUnderWayEndToo) {
  make();
  Gate parked, streaming;
  server_->route("GET", "/parked", [&](const Request&) {
    ParkRequest park;
    park.timeout = kPatience;
    park.start = [&](std::shared_ptr<Parked>) { parked.open(); };
    return Response::park(std::move(park));
  });
  std::promise<void> let_go;
  server_->route("GET", "/feed", [&](const Request&) {
    Response response;
    auto feed = std::make_shared<FeedBody>();
    auto held = std::shared_ptr<void>(nullptr, [&](void*) { let_go.set_value(); });
    feed->start = [&, held](std::function<void()>) { streaming.open(); };
    feed->next = [] { return FeedBody::Piece{}; };
    response.body = std::move(feed);
    return response;
  });
  server_->start();
  Listener listener = listen();
  const std::uint64_t number = server_->add_listener(std::move(listener.socket));
  RawClient waits(listener.port), streams(listener.port);
  waits.send(get("/parked"));
  streams.send(get("/feed"));
  ASSERT_TRUE(parked.wait() && streaming.wait());
  server_->forget_listener(number);
  EXPECT_TRUE(waits.ends());
  streams.read_until("\r\n\r\n");
  EXPECT_TRUE(streams.ends());
  EXPECT_EQ(let_go.get_future().wait_for(kPatience), std::future_status::ready);
}

TEST_F(HttpServerListeners, ServerStopsThenItsListenersAreClosed) {
  HttpServer& server = start();
  Listener listener = listen();
  const std::uint64_t number = server.add_listener(std::move(listener.socket));
  EXPECT_EQ(RawClient(listener.port).call(get("/hello")).body, "hello");
  server.stop();
  EXPECT_FALSE(RawClient(listener.port).connected());
  server.forget_listener(number);
  Listener late = listen();
  server.add_listener(std::move(late.socket));
  EXPECT_FALSE(RawClient(late.port).connected());
}

TEST_F(HttpServerListeners, DescriptorThatIsNoSocketThenAStorageError) {
  HttpServer& server = start();
  EXPECT_THROW(server.add_listener(FileDescriptor(::open("/dev/null", 0))), StorageError);
}

TEST_F(HttpServerListeners, UnknownPathThenItsOwnWords) {
  HttpServerOptions options;
  options.unknown_path = "there is /hello";
  start(options);
  EXPECT_EQ(connect().call(get("/else")).json()["detail"], Json("there is /hello"));
}

}  // namespace
}  // namespace necrocode::net
