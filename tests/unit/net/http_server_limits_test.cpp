// The server over real loopback sockets: answers that do not wait, and limits of the process.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include "necrocode/base/limits.hpp"
#include "unit/net/http_server_fixture.hpp"

namespace necrocode::net {
namespace {

TEST_F(HttpServerTest, RefusedWithABodyThatDoesNotComeThenAnsweredAtOnce) {
  start();
  RawClient client = connect();
  client.send("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
  ASSERT_TRUE(client.readable(limits::kHttpBodyGrace / 2));
  const RawAnswer answer = client.read_answer();
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.headers.get_or("Connection", ""), "close");
  EXPECT_TRUE(client.ends());
}

TEST_F(HttpServerTest, BadTargetThenItsProblemNamesIt) {
  start();
  RawClient client = connect();
  const RawAnswer answer = client.call(get("/tasks/..%2fx?a=1"));
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.json()["instance"].string_or(""), "/tasks/..%2fx");
}

TEST(ConnectionsWithinDescriptors, RaisesTheSoftLimitAndKeepsAReserve) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit low{128, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  const std::size_t connections = connections_within_descriptors();
  rlimit after{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &after), 0);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(after.rlim_cur, before.rlim_max);
  EXPECT_LE(connections, limits::kHttpConnections);
  EXPECT_LT(connections, before.rlim_max);
  EXPECT_GE(connections, std::min<rlim_t>(limits::kHttpConnections, before.rlim_max / 2));
}

}  // namespace
}  // namespace necrocode::net
