// What a client sends and reads, over which connections: requests, answers, redirects, bodies from
// sources and into sinks, proxies. What ends a request before its time: http_client_limits_test.
#include <fcntl.h>
#include <sys/resource.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "http_client_fixture.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/net/body_sources.hpp"

namespace necrocode::net {
namespace {

using testing::HasSubstr;

// ---- what is sent and what is read -----------------------------------------------------------

TEST_F(HttpClientTest, SendsARequestAndReadsItsAnswer) {
  RawServer server(
      plays({answer(201, "{\"a\":1}", "Content-Type: application/json\r\nX-Two:  b \r\n")}));
  HttpRequest request = post(server.url("/x?y=%2F"), "hello");
  request.headers.set("X-One", "1");
  request.headers.set("X-Empty", "");
  const HttpResponse response = send(request);

  EXPECT_EQ(response.status, 201);
  EXPECT_EQ(response.body, "{\"a\":1}");
  EXPECT_EQ(response.headers.get("content-type"), "application/json");
  EXPECT_EQ(response.headers.get("x-two"), "b");
  const auto seen = server.requests().at(0);
  EXPECT_EQ(seen.method, "POST");
  EXPECT_EQ(seen.target, "/x?y=%2F");
  EXPECT_EQ(seen.body, "hello");
  EXPECT_EQ(seen.headers.get("X-One"), "1");
  EXPECT_EQ(seen.headers.get("X-Empty"), "");
  EXPECT_EQ(seen.headers.get("Host"), "127.0.0.1:" + std::to_string(server.port()));
  EXPECT_EQ(seen.headers.get("Content-Length"), "5");
  EXPECT_EQ(seen.headers.get("User-Agent"), "necrocode/0.1");
}

TEST_F(HttpClientTest, AddsNothingThatWasNotAskedFor) {
  RawServer server(plays({answer(200, "")}));
  send(post(server.url(), std::string(100'000, 'x')));
  const auto seen = server.requests().at(0);
  for (const char* name :
       {"Expect", "Content-Type", "Cookie", "Accept-Encoding", "Authorization"}) {
    EXPECT_EQ(seen.headers.count(name), 0u) << name;
  }
}

TEST_F(HttpClientTest, SaysThatAMutatingRequestHasNoBody) {
  RawServer server(plays({answer(200, "")}));
  for (const char* method : {"POST", "PUT", "PATCH", "DELETE", "GET"}) {
    HttpRequest request = get(server.url());
    request.method = method;
    send(request);
  }
  const auto seen = server.requests();
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(seen.at(i).headers.get("Content-Length"), "0");
  EXPECT_EQ(seen.at(3).headers.count("Content-Length"), 0u);
  EXPECT_EQ(seen.at(4).headers.count("Content-Length"), 0u);
  EXPECT_EQ(seen.at(3).method, "DELETE");
}

TEST_F(HttpClientTest, KeepsDotSegmentsAndEscapesOfThePathAsTheyAre) {
  RawServer server(plays({answer(200, "")}));
  send(get(server.url("/a/../b/%2e%2e%2f")));
  EXPECT_EQ(server.requests().at(0).target, "/a/../b/%2e%2e%2f");
}

TEST_F(HttpClientTest, TakesHeadAnswersWithoutABody) {
  RawServer server(
      plays({"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", answer(200, "x")}));
  HttpRequest request = get(server.url());
  request.method = "HEAD";
  EXPECT_EQ(send(request).headers.get("Content-Length"), "99999999999");
  EXPECT_EQ(send(get(server.url())).body, "x");
  EXPECT_EQ(server.connections(), 1u);
}

TEST_F(HttpClientTest, AnyStatusIsAnAnswer) {
  RawServer server(
      plays({answer(500, "broken"), answer(404, ""), "HTTP/1.1 204 No Content\r\n\r\n"}));
  EXPECT_EQ(send(get(server.url())).body, "broken");
  EXPECT_EQ(send(get(server.url())).status, 404);
  EXPECT_EQ(send(get(server.url())).status, 204);
}

TEST_F(HttpClientTest, SkipsInterimAnswers) {
  RawServer server(
      plays({"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" +
             answer(200, "x", "A: b\r\n")}));
  const HttpResponse response = send(get(server.url()));
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.count("Link"), 0u);
  EXPECT_EQ(response.headers.get("A"), "b");
}

TEST_F(HttpClientTest, ReadsChunkedAnswersAndDropsTrailers) {
  RawServer server(
      plays({"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
             "3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Trailer: t\r\n\r\n"}));
  const HttpResponse response = send(get(server.url()));
  EXPECT_EQ(response.body, "abcdefg");
  EXPECT_EQ(response.headers.count("X-Trailer"), 0u);
  send(get(server.url()));
  EXPECT_EQ(server.connections(), 1u);
}

TEST_F(HttpClientTest, ReadsAnAnswerThatComesByteByByte) {
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.send_bytewise(answer(200, "slow", "A: b\r\n"));
  });
  EXPECT_EQ(send(get(server.url())).body, "slow");
}

TEST_F(HttpClientTest, DoesNotDecodeWhatItDidNotAskFor) {
  const std::string gzip = "\x1f\x8b\x08 not really";
  RawServer server(plays({answer(200, gzip, "Content-Encoding: gzip\r\n")}));
  EXPECT_EQ(send(get(server.url())).body, gzip);
}

// ---- requests that cannot be sent --------------------------------------------------------------

TEST_F(HttpClientTest, RefusesRequestsThatCannotBeSent) {
  RawServer server(plays({answer(200, "")}));
  const auto with_header = [&](const char* name, std::string value) {
    HttpRequest request = get(server.url());
    request.headers.add(name, std::move(value));
    return request;
  };
  std::vector<HttpRequest> requests{
      get("ftp://127.0.0.1/"),
      get("nonsense"),
      get("http://u:p@127.0.0.1/"),
      get(server.url("/" + std::string(limits::kHttpHeaderBytes, 'x'))),
      with_header("X", "a\r\nY: b"),
      with_header("X Y", "a"),
      with_header("X", std::string("a\0b", 3)),
      with_header("Content-Length", "5"),
      with_header("Transfer-Encoding", "chunked"),
      with_header("Host", "evil")};
  requests.push_back(get(server.url()));
  requests.back().method = "GET /evil HTTP/1.1\r\n";
  for (const HttpRequest& request : requests) {
    EXPECT_FAILURE(failure(request), TransportFailure::kInvalid, Delivery::kNotSent);
  }
  EXPECT_EQ(server.connections(), 0u);
}

TEST_F(HttpClientTest, NamesNoSecretOfTheUrlInItsError) {
  EXPECT_THAT(failure(get("http://user:hunter22@127.0.0.1/")).what(), Not(HasSubstr("hunter22")));
}

// ---- connections -------------------------------------------------------------------------------

TEST_F(HttpClientTest, KeepsConnectionsAlive) {
  RawServer server(plays({answer(200, "x")}));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(send(get(server.url())).status, 200);
  EXPECT_EQ(server.connections(), 1u);
}

TEST_F(HttpClientTest, AFreshConnectionIsFresh) {
  RawServer server(plays({answer(200, "x")}));
  send(get(server.url()));
  HttpRequest request = get(server.url());
  request.fresh_connection = true;
  send(request);
  EXPECT_EQ(server.connections(), 2u);
}

TEST_F(HttpClientTest, ManyCallersShareTheClient) {
  RawServer server(plays({answer(200, "x")}));
  std::atomic<int> answered = 0;
  {
    std::vector<std::jthread> callers;
    for (int i = 0; i < 16; ++i) {
      callers.emplace_back([&] {
        for (int j = 0; j < 50; ++j) answered += send(post(server.url(), "body")).status == 200;
      });
    }
  }
  EXPECT_EQ(answered, 800);
  EXPECT_LE(server.connections(), 16u);
}

TEST_F(HttpClientTest, WaitsForAConnectionWhenTheHostHasItsLimit) {
  HttpClientOptions options;
  options.connections_per_host = 2;
  client_ = make_curl_http_client(options);
  RawServer server(plays({answer(200, "x")}));
  std::atomic<int> answered = 0;
  {
    std::vector<std::jthread> callers;
    for (int i = 0; i < 10; ++i) {
      callers.emplace_back([&] {
        for (int j = 0; j < 10; ++j) answered += send(get(server.url())).status == 200;
      });
    }
  }
  EXPECT_EQ(answered, 100);
  EXPECT_LE(server.connections(), 2u);
}

TEST_F(HttpClientTest, ACallerWaitingForAConnectionKeepsItsTimeAndCanBeCancelled) {
  HttpClientOptions options;
  options.connections_per_host = 1;
  client_ = make_curl_http_client(options);
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.wait_closed();
  });
  std::stop_source stop;
  std::jthread holder([&] {
    CallContext context;
    context.stop = stop.get_token();
    failure(get(server.url()), context);
  });
  server.wait_for_requests(1);
  HttpRequest request = get(server.url());
  request.timeouts.total = 30ms;
  EXPECT_FAILURE(failure(request), TransportFailure::kTimeout, Delivery::kNotSent);
  stop.request_stop();
  holder.join();
  EXPECT_EQ(server.requests().size(), 1u);
}

// The handle is the same each time: nothing of one request may stay in the next.
TEST_F(HttpClientTest, RequestsOfAllKindsOverOneConnectionAreEachTheirOwn) {
  RawServer server(plays({answer(200, "x")}));
  const auto with_body = [&](const char* method, std::string body) {
    HttpRequest request = post(server.url(), std::move(body));
    request.method = method;
    request.headers.set("Content-Type", "text/plain");
    return request;
  };
  HttpRequest remove = get(server.url());
  remove.method = "DELETE";
  HttpRequest upload = get(server.url());
  upload.method = "PUT";
  upload.body_source = memory_body("uploaded");
  upload.timeouts.first_byte = 5s;
  HttpRequest plain = get(server.url());
  plain.headers.set("Authorization", "Bearer once");
  const std::vector<HttpRequest> requests = {with_body("POST", "posted"),
                                             get(server.url()),
                                             plain,
                                             get(server.url()),
                                             upload,
                                             get(server.url()),
                                             remove,
                                             with_body("POST", ""),
                                             get(server.url()),
                                             with_body("PATCH", "p"),
                                             upload,
                                             with_body("PUT", "put"),
                                             remove,
                                             get(server.url())};
  for (const HttpRequest& request : requests) {
    if (request.body_source) request.body_source->rewind();
    EXPECT_EQ(send(request).status, 200);
  }
  const auto seen = server.requests();
  ASSERT_EQ(seen.size(), requests.size());
  EXPECT_EQ(server.connections(), 1u);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const bool uploads = requests[i].body_source != nullptr;
    EXPECT_EQ(seen[i].method, requests[i].method) << i;
    EXPECT_EQ(seen[i].body, uploads ? "uploaded" : requests[i].body) << i;
    EXPECT_EQ(seen[i].headers.get("Authorization"), requests[i].headers.get("Authorization")) << i;
    EXPECT_EQ(seen[i].headers.get("Content-Type"), requests[i].headers.get("Content-Type")) << i;
    EXPECT_EQ(seen[i].headers.get("Expect"), std::nullopt) << i;
  }
}

TEST_F(HttpClientTest, ASinkMayItselfSend) {
  RawServer server(plays({answer(200, "outer"), answer(200, "inner")}));
  std::string inner;
  HttpRequest request = get(server.url());
  request.on_body = [&](std::string_view) {
    inner = send(get(server.url())).body;
    return true;
  };
  EXPECT_EQ(send(request).status, 200);
  EXPECT_EQ(inner, "inner");
}

TEST_F(HttpClientTest, ManyHostsThenOnlySoManyConnectionsAreKept) {
  std::vector<std::unique_ptr<RawServer>> servers;
  for (std::size_t i = 0; i < limits::kHttpIdleConnections + 3; ++i) {
    servers.push_back(std::make_unique<RawServer>(plays({answer(200, "x")})));
    EXPECT_EQ(send(get(servers.back()->url())).status, 200);
  }
  // The oldest three handles went on to the last three hosts.
  for (std::size_t i = 0; i < 3; ++i) servers[i]->wait_for_ended(1);
  EXPECT_EQ(send(get(servers.back()->url())).status, 200);
  EXPECT_EQ(servers.back()->connections(), 1u);
  EXPECT_EQ(send(get(servers.front()->url())).status, 200);
  EXPECT_EQ(servers.front()->connections(), 2u);
}

TEST_F(HttpClientTest, WithoutADescriptorThenNothingIsSentAndTheNextIsAsAlways) {
  // Once before: the undefined-behaviour sanitizer looks at each class by a pipe, and only once.
  failure(get("http://127.0.0.1:9/"));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = ::dup(STDIN_FILENO);
  ::close(next);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(next);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const TransportError error = failure(get("http://127.0.0.1:9/"));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_FAILURE(error, TransportFailure::kConnect, Delivery::kNotSent);
  EXPECT_THAT(error.what(), testing::HasSubstr("no descriptor"));
  RawServer server(plays({answer(200, "x")}));  // not before: it could not accept either
  EXPECT_EQ(send(get(server.url())).status, 200);
}

TEST_F(HttpClientTest, ARefusedConnectionWasNotSent) {
  int port = 0;
  {
    RawServer server(plays({answer(200, "")}));
    port = server.port();
  }
  EXPECT_FAILURE(failure(get("http://127.0.0.1:" + std::to_string(port) + "/")),
                 TransportFailure::kConnect, Delivery::kNotSent);
}

TEST_F(HttpClientTest, AnUnknownNameWasNotSent) {
  EXPECT_FAILURE(failure(get("http://no-such-host.invalid/")), TransportFailure::kConnect,
                 Delivery::kNotSent);
}

TEST_F(HttpClientTest, AServerWithoutTlsIsATlsFailure) {
  RawServer server([](RawConnection& connection) {
    connection.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    connection.wait_closed();
  });
  EXPECT_FAILURE(failure(get("https://127.0.0.1:" + std::to_string(server.port()) + "/")),
                 TransportFailure::kTls, Delivery::kNotSent);
}

TEST_F(HttpClientTest, AResetInTheTlsHandshakeIsAConnectFailure) {
  RawServer server([](RawConnection& connection) {
    char byte = 0;
    EXPECT_EQ(::recv(connection.fd(), &byte, 1, 0), 1);
    connection.reset();
  });
  EXPECT_FAILURE(failure(get("https://127.0.0.1:" + std::to_string(server.port()) + "/")),
                 TransportFailure::kConnect, Delivery::kNotSent);
}

TEST_F(HttpClientTest, AResetBeforeTheAnswerMayHaveBeenAccepted) {
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.reset();
  });
  const TransportError error = failure(post(server.url(), "x"));
  EXPECT_FAILURE(error, TransportFailure::kReset, Delivery::kMaybeAccepted);
  EXPECT_FALSE(error.reused_connection());
  EXPECT_TRUE(error.info().maybe_accepted);
}

TEST_F(HttpClientTest, AResetOnAReusedConnectionIsToldAndNotRepairedSilently) {
  for (const bool by_reset : {true, false}) {
    RawServer server([&](RawConnection& connection) {
      connection.read_request();
      connection.send(answer(200, "first"));
      if (!connection.read_request()) return;
      if (by_reset) connection.reset();  // else closed without a word
    });
    EXPECT_EQ(send(get(server.url())).body, "first");
    const TransportError error = failure(post(server.url(), "x"));
    EXPECT_FAILURE(error, TransportFailure::kReset, Delivery::kMaybeAccepted);
    EXPECT_TRUE(error.reused_connection());
    EXPECT_EQ(server.requests().size(), 2u);  // libcurl alone would have sent a third
  }
}

TEST_F(HttpClientTest, AnAnswerThatBreaksOffHasStarted) {
  for (const char* bytes :
       {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "HTTP/1.1 200 OK\r\nA: b\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"}) {
    RawServer server([&](RawConnection& connection) {
      connection.read_request();
      connection.send(bytes);
    });
    EXPECT_FAILURE(failure(get(server.url())), TransportFailure::kReset,
                   Delivery::kResponseStarted);
  }
}

// ---- redirects ----------------------------------------------------------------------------------

std::string redirect(int status, const std::string& location) {
  return answer(status, "", "Location: " + location + "\r\n");
}

TEST_F(HttpClientTest, FollowsNoRedirectUnlessAsked) {
  RawServer server(plays({redirect(302, "/elsewhere")}));
  EXPECT_EQ(send(get(server.url())).status, 302);
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST_F(HttpClientTest, FollowsRedirectsOfTheSameOriginUpToTheLimit) {
  RawServer server(plays({redirect(302, "/b/c"), redirect(307, "d?e=f"), answer(200, "there")}));
  HttpRequest request = get(server.url("/a"));
  request.redirects_max = 2;
  EXPECT_EQ(send(request).body, "there");
  const auto seen = server.requests();
  EXPECT_EQ(seen.at(1).target, "/b/c");
  EXPECT_EQ(seen.at(2).target, "/b/d?e=f");

  RawServer loop(plays({redirect(302, "/a")}));
  request.url = loop.url();
  request.redirects_max = limits::kHttpRedirects;
  EXPECT_EQ(send(request).status, 302);
  EXPECT_EQ(loop.requests().size(), limits::kHttpRedirects + 1);
}

TEST_F(HttpClientTest, NeverTakesAKeyToAnotherOrigin) {
  RawServer other(plays({answer(200, "stolen")}));
  for (const std::string& location :
       {other.url(), "//127.0.0.1:" + std::to_string(other.port()) + "/",
        "http://localhost:" + std::to_string(other.port()) + "/", std::string("file:///etc/passwd"),
        std::string("https://127.0.0.1/"), std::string("ftp://127.0.0.1/")}) {
    RawServer server(plays({redirect(302, location)}));
    HttpRequest request = get(server.url());
    request.redirects_max = 5;
    request.headers.set("Authorization", "Bearer key");
    EXPECT_EQ(send(request).status, 302) << location;
  }
  EXPECT_EQ(other.connections(), 0u);
}

TEST_F(HttpClientTest, RefusesARedirectWithCredentialsInIt) {
  RawServer server([](RawConnection& connection) {
    while (auto request = connection.read_request()) {
      connection.send(redirect(
          302, "http://u:p@" + *std::optional<std::string>(request->headers.get("Host")) + "/"));
    }
  });
  HttpRequest request = get(server.url());
  request.redirects_max = 5;
  EXPECT_EQ(send(request).status, 302);
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST_F(HttpClientTest, FollowsNoRedirectOfAMutatingRequest) {
  RawServer server(plays({redirect(307, "/b")}));
  HttpRequest request = post(server.url(), "x");
  request.redirects_max = 5;
  EXPECT_EQ(send(request).status, 307);
  EXPECT_EQ(server.requests().size(), 1u);
}

// ---- streams ------------------------------------------------------------------------------------

TEST_F(HttpClientTest, StreamsAFileUp) {
  const TemporaryDirectory folder;
  std::string bytes;
  for (int i = 0; i < 300'000; ++i) bytes += static_cast<char>(i * 7);
  write_file_atomic(folder.path() / "f", bytes);
  RawServer server(plays({answer(201, "")}));
  HttpRequest request = get(server.url());
  request.method = "PUT";
  FileDescriptor fd(::open((folder.path() / "f").c_str(), O_RDONLY | O_CLOEXEC));
  request.body_source = file_body(std::move(fd), 100, 250'000);
  EXPECT_EQ(send(request).status, 201);
  EXPECT_EQ(server.requests().at(0).body, bytes.substr(100, 250'000));
  request.body_source->rewind();
  EXPECT_EQ(send(request).status, 201);
  EXPECT_EQ(server.requests().at(1).body, bytes.substr(100, 250'000));
}

TEST_F(HttpClientTest, StreamsAnEmptyBody) {
  RawServer server(plays({answer(201, "")}));
  HttpRequest request = get(server.url());
  request.method = "PUT";
  request.body_source = memory_body("");
  EXPECT_EQ(send(request).status, 201);
  EXPECT_EQ(server.requests().at(0).headers.get("Content-Length"), "0");
}

TEST_F(HttpClientTest, AFileThatShrinksAbortsTheRequest) {
  const TemporaryDirectory folder;
  write_file_atomic(folder.path() / "f", "short");
  RawServer server(plays({answer(201, "")}));
  HttpRequest request = get(server.url());
  request.method = "PUT";
  FileDescriptor fd(::open((folder.path() / "f").c_str(), O_RDONLY | O_CLOEXEC));
  request.body_source = file_body(std::move(fd), 0, 1000);
  const TransportError error = failure(request);
  EXPECT_EQ(static_cast<int>(error.failure()), static_cast<int>(TransportFailure::kAborted));
  EXPECT_THROW(std::rethrow_exception(error.info().cause), StorageError);
  EXPECT_TRUE(server.requests().empty());
}

class LyingBody final : public BodySource {
 public:
  LyingBody(std::uint64_t said, std::size_t real) : said_(said), left_(real) {}
  std::size_t read(char* buffer, std::size_t size) override {
    const std::size_t count = std::min(size, left_);
    std::fill_n(buffer, count, 'x');
    left_ -= count;
    return count;
  }
  std::uint64_t size() const override { return said_; }
  void rewind() override {}

 private:
  std::uint64_t said_;
  std::size_t left_;
};

TEST_F(HttpClientTest, ABodyOfAnotherSizeThanSaidIsAborted) {
  RawServer server(plays({answer(201, "")}));
  HttpRequest request = get(server.url());
  request.method = "PUT";
  request.body_source = std::make_shared<LyingBody>(10, 5);
  EXPECT_EQ(static_cast<int>(failure(request).failure()),
            static_cast<int>(TransportFailure::kAborted));
  request.body_source = std::make_shared<LyingBody>(5, 10);
  EXPECT_EQ(static_cast<int>(failure(request).failure()),
            static_cast<int>(TransportFailure::kAborted));
  EXPECT_TRUE(server.requests().empty());
}

TEST_F(HttpClientTest, GivesTheBodyToASinkPieceByPiece) {
  const std::string body(3 * limits::kMiB, 'x');
  RawServer server(plays({answer(200, body)}));
  HttpRequest request = get(server.url());
  request.response_bytes_max = 10;
  std::size_t bytes = 0, pieces = 0;
  request.on_body = [&](std::string_view piece) {
    bytes += piece.size();
    ++pieces;
    return true;
  };
  EXPECT_EQ(send(request).body, "");
  EXPECT_EQ(bytes, body.size());
  EXPECT_GT(pieces, 1u);
}

TEST_F(HttpClientTest, KeepsTheBodyOfAnErrorFromTheSink) {
  RawServer server(plays({answer(404, "none such")}));
  HttpRequest request = get(server.url());
  request.on_body = [](std::string_view) -> bool { throw std::logic_error("not for the sink"); };
  EXPECT_EQ(send(request).body, "none such");
}

TEST_F(HttpClientTest, ASinkCanEndTheRequest) {
  RawServer server(stalls_after("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"));
  HttpRequest request = get(server.url());
  request.on_body = [](std::string_view) { return false; };
  EXPECT_FAILURE(failure(request), TransportFailure::kAborted, Delivery::kResponseStarted);
  request.on_body = [](std::string_view) -> bool { throw StorageError("disk full"); };
  const TransportError error = failure(request);
  EXPECT_FAILURE(error, TransportFailure::kAborted, Delivery::kResponseStarted);
  EXPECT_THROW(std::rethrow_exception(error.info().cause), StorageError);
  server.wait_for_ended(2);
}

TEST_F(HttpClientTest, ASinkMayFailTheAttemptAsTheConnectionWould) {
  RawServer server(stalls_after("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"));
  HttpRequest request = get(server.url());
  request.on_body = [](std::string_view) -> bool {
    throw TransportError(TransportFailure::kReset, Delivery::kResponseStarted, false, "it says no");
  };
  const TransportError error = failure(request);
  EXPECT_FAILURE(error, TransportFailure::kReset, Delivery::kResponseStarted);
  EXPECT_THAT(error.summary(), testing::HasSubstr("it says no"));
  server.wait_for_ended(1);
}

TEST_F(HttpClientTest, ADeadlineThatTheSinkMovesEndsWhatBringsNoProgress) {
  RawServer server([](RawConnection& connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    while (connection.send("x") && !connection.closed_within(std::chrono::milliseconds(2))) {
    }
  });
  HttpRequest request = get(server.url());
  SteadyTime give_up = SteadyTime::max();
  int moved = 0;
  request.progress_deadline = &give_up;
  request.on_body = [&](std::string_view) {
    if (moved < 3) {
      give_up = real_clock().steady_now() + std::chrono::milliseconds(50);
      ++moved;
    }
    return true;
  };
  EXPECT_FAILURE(failure(request), TransportFailure::kTimeout, Delivery::kResponseStarted);
  EXPECT_EQ(moved, 3);
}

// ---- proxies ------------------------------------------------------------------------------------

class ProxyEnvironment {
 public:
  explicit ProxyEnvironment(const std::string& url) {
    ::setenv("http_proxy", url.c_str(), 1);
    ::setenv("https_proxy", url.c_str(), 1);
    ::setenv("no_proxy", "direct.invalid,.inside.invalid", 1);
  }
  ~ProxyEnvironment() {
    for (const char* name : {"http_proxy", "https_proxy", "no_proxy"}) ::unsetenv(name);
  }
};

TEST_F(HttpClientTest, UsesTheEnvironmentsProxyButNotForLoopback) {
  RawServer proxy(plays({answer(200, "by proxy")}));
  RawServer server(plays({answer(200, "direct")}));
  const ProxyEnvironment environment(proxy.url());
  EXPECT_EQ(send(get(server.url())).body, "direct");
  EXPECT_EQ(send(get("http://no-such-host.invalid/x")).body, "by proxy");
  EXPECT_EQ(proxy.requests().at(0).target, "http://no-such-host.invalid/x");

  HttpClientOptions options;
  options.proxies_from_environment = false;
  client_ = make_curl_http_client(options);
  EXPECT_FAILURE(failure(get("http://no-such-host.invalid/x")), TransportFailure::kConnect,
                 Delivery::kNotSent);
}

TEST_F(HttpClientTest, HttpsGoesThroughATunnelOfTheProxy) {
  RawServer proxy(plays({answer(403, "no tunnel")}));
  const ProxyEnvironment environment(proxy.url());
  HttpRequest request = get("https://no-such-host.invalid/secret-path?key=1");
  request.headers.set("Authorization", "Bearer for-the-host-only");
  EXPECT_FAILURE(failure(request), TransportFailure::kConnect, Delivery::kNotSent);
  const auto asked = proxy.requests();
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].method, "CONNECT");
  EXPECT_EQ(asked[0].target, "no-such-host.invalid:443");
  EXPECT_EQ(asked[0].headers.get("Authorization"), std::nullopt);
}

TEST_F(HttpClientTest, NoProxyNamesHostsThatAreReachedDirectly) {
  RawServer proxy(plays({answer(200, "by proxy")}));
  const ProxyEnvironment environment(proxy.url());
  for (const char* url : {"http://direct.invalid/", "http://a.inside.invalid/"}) {
    EXPECT_FAILURE(failure(get(url)), TransportFailure::kConnect, Delivery::kNotSent);
  }
  EXPECT_EQ(proxy.connections(), 0u);
  EXPECT_EQ(send(get("http://outside.invalid/")).body, "by proxy");
}

TEST(SharedHttpClient, IsOne) {
  EXPECT_EQ(shared_http_client(), shared_http_client());
}

}  // namespace
}  // namespace necrocode::net
