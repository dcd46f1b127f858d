// What the I/O thread and the pool's threads share of one request.
#include "necrocode/net/exchange.hpp"

#include <gmock/gmock.h>

#include <stdexcept>

namespace necrocode::net {
namespace {

int sent_status(Response response) {
  return sendable(std::move(response), Request()).status;
}

TEST(Sendable, SoundAnswerThenUnchanged) {
  const Response response = sendable(Response::text(404, "no"), Request());
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(std::get<std::string>(response.body), "no");
}

TEST(Sendable, AnswerThatCannotBeSentThen500) {
  EXPECT_EQ(sent_status(Response::empty(100)), 500);
  EXPECT_EQ(sent_status(Response::empty(600)), 500);
  EXPECT_EQ(sent_status(Response{200, {{"X", "a\r\nb"}}, std::string()}), 500);
  EXPECT_EQ(sent_status(Response::park(ParkRequest())), 500);
}

TEST(Producer, PieceThenInTheOutcomeAndAnExceptionBreaksIt) {
  const Outcome outcome = run_producer([] { return std::string("ab"); });
  EXPECT_FALSE(outcome.broken);
  EXPECT_EQ(std::get<std::string>(outcome.response.body), "ab");
  EXPECT_TRUE(run_producer([]() -> std::string { throw std::runtime_error("x"); }).broken);
}

TEST(Prepare, HeadThenRequestAndRoute) {
  HttpRouter router;
  router.add("PUT", "/a/{b}", [](const Request&) { return Response::empty(204); },
             {.body_bytes_max = 10});
  Exchange exchange;
  std::string allow;
  exchange.head.method = "PUT";
  exchange.head.target = "/a/x%20y?q=1";
  exchange.head.headers.add("X-Request-Id", "r-1");
  exchange.head.content_length = 10;
  EXPECT_FALSE(prepare(exchange, router, allow));
  ASSERT_NE(exchange.route, nullptr);
  EXPECT_EQ(exchange.request.params.at("b"), "x y");
  EXPECT_EQ(exchange.request.request_id, "r-1");

  exchange.head.content_length = 11;
  EXPECT_EQ(prepare(exchange, router, allow).value().status, 413);
  exchange.head.method = "GET";
  EXPECT_EQ(prepare(exchange, router, allow).value().status, 405);
  EXPECT_EQ(allow, "PUT");
  exchange.head.target = "/b";
  EXPECT_EQ(prepare(exchange, router, allow).value().status, 404);
  EXPECT_EQ(allow, "");
  exchange.head.target = "/a/%2e%2e/b";
  EXPECT_EQ(prepare(exchange, router, allow).value().status, 400);
}

}  // namespace
}  // namespace necrocode::net
