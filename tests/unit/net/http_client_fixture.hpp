// HttpClientTest: a client against servers that the test scripts, and what its tests share.
#pragma once

#include <gmock/gmock.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "necrocode/net/http_client.hpp"
#include "support/raw_server.hpp"

namespace necrocode::net {

using namespace std::chrono_literals;
using test::answer;
using test::plays;
using test::RawConnection;
using test::RawServer;

inline HttpRequest get(const std::string& url) {
  HttpRequest request;
  request.url = url;
  return request;
}

inline HttpRequest post(const std::string& url, std::string body) {
  HttpRequest request = get(url);
  request.method = "POST";
  request.body = std::move(body);
  return request;
}

/// Silent after `bytes`, until the client goes away.
inline RawServer::Script stalls_after(std::string bytes) {
  return [bytes = std::move(bytes)](RawConnection& connection) {
    if (!connection.read_request()) return;
    connection.send(bytes);
    connection.wait_closed();
  };
}

class HttpClientTest : public testing::Test {
 protected:
  HttpResponse send(const HttpRequest& request, const CallContext& context = {}) {
    return client_->send(request, context);
  }
  /// The error of a request that must fail.
  TransportError failure(const HttpRequest& request, const CallContext& context = {}) {
    try {
      const HttpResponse response = client_->send(request, context);
      ADD_FAILURE() << "answered " << response.status;
    } catch (const TransportError& error) {
      return error;
    }
    return TransportError(TransportFailure::kInvalid, Delivery::kNotSent, false, "no failure");
  }
  std::shared_ptr<HttpClient> client_ = make_curl_http_client();
};

#define EXPECT_FAILURE(error, kind, how_far)                                                \
  do {                                                                                      \
    const TransportError seen = (error);                                                    \
    EXPECT_EQ(static_cast<int>(seen.failure()), static_cast<int>(kind)) << seen.what();     \
    EXPECT_EQ(static_cast<int>(seen.delivery()), static_cast<int>(how_far)) << seen.what(); \
  } while (false)

}  // namespace necrocode::net
