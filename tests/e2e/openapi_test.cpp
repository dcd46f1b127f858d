// /openapi.json against the shipped services: every operation is there, and is as it is declared.
// The other end-to-end tests are held against it too (EndToEnd::serve_tapped).
#include "e2e/fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class Openapi : public EndToEnd {
 protected:
  void SetUp() override {
    url_ = serve_tapped();
    port_ = static_cast<std::uint16_t>(net::Url::parse(url_)->port);
    TaskRegistryClient(url_).submit(Json::parse(
        R"({"spec_name":"app","tasks":[{"id":"1","title":"t"},{"id":"2","title":"u"}]})"));
  }
  RawAnswer call(const std::string& method, const std::string& target, const std::string& body = {},
                 const std::string& fields = {}) {
    const std::string length =
        body.empty() ? "" : "Content-Length: " + std::to_string(body.size()) + "\r\n";
    RawClient client(port_);
    client.send(method + " " + target + " HTTP/1.1\r\nHost: a\r\n" + fields + length + "\r\n" +
                body);
    return client.read_answer(method == "HEAD");
  }
  std::string url_;
  std::uint16_t port_ = 0;
};

TEST_F(Openapi, EveryOperationIsCalledAndIsAsDeclared) {
  serve_model({answer("OK", 0)});
  std::string output;
  EXPECT_EQ(
      run({"verify", "--live", "--url", url_, "--llm-endpoint", endpoint(), "--json"}, &output), 0)
      << output;
  EXPECT_EQ(call("GET", "/metrics").status, 200);
  EXPECT_EQ(call("GET", "/openapi.json").status, 200);
  EXPECT_EQ(call("GET", "/artifacts/usage").status, 200);
  EXPECT_EQ(call("GET", "/events?after=0&limit=3").status, 200);
  EXPECT_EQ(call("POST", "/heartbeats", R"({"leases":[]})").status, 200);
  for (const char* format : {"json", "dot", "mermaid"}) {
    EXPECT_EQ(call("GET", std::string("/tasksets/app/graph?format=") + format).status, 200);
  }
  const RawAnswer put = call("PUT", "/artifacts/app/1/log/out.txt", "0123456789",
                             "Content-Type: text/plain\r\nIdempotency-Key: k\r\n");
  ASSERT_EQ(put.status, 201) << put.body;
  const std::string artifact = "/artifacts/" + put.json()["id"].string_or("");
  EXPECT_EQ(call("GET", artifact, "", "Range: bytes=2-5\r\n").status, 206);
  EXPECT_EQ(call("HEAD", artifact).status, 200);
  EXPECT_EQ(call("PATCH", artifact, R"({"tags":["kept"]})").status, 200);
  EXPECT_EQ(call("GET", artifact, "", "If-None-Match: *\r\n").status, 304);
  EXPECT_EQ(call("GET", "/tasks/app:1", "", "If-None-Match: *\r\n").status, 304);
  EXPECT_EQ(call("GET", "/tasks?spec=app&state=ready,blocked&limit=10&sort=age").status, 200);
  check_taps();
  const ApiDocument& document = taps_.front()->document();
  std::vector<std::string> uncalled;
  for (const std::string& id : document.all()) {
    if (!document.used().contains(id)) uncalled.push_back(id);
  }
  EXPECT_THAT(uncalled, IsEmpty());
  EXPECT_GE(taps_.front()->exchanges(), document.all().size());
}

TEST_F(Openapi, RefusalsAreDeclaredToo) {
  const std::pair<int, RawAnswer> refused[] = {
      {400, call("POST", "/tasks/claim", "{")},
      {422, call("POST", "/tasks/claim", R"({"max":0})")},
      {422, call("PUT", "/tasks/app:1/status", R"({"status":"asleep"})")},
      {404, call("PUT", "/tasks/app:9/status", R"({"status":"done"})")},
      {409, call("PUT", "/tasks/app:1/status", R"({"status":"failed"})")},
      {412, call("PUT", "/tasks/app:1/status", R"({"status":"running"})", "If-Match: \"9\"\r\n")},
      {409, call("POST", "/tasks/app:1/complete", R"({"status":"done","lease_token":"x"})")},
      {413, call("POST", "/tasks/app:1/events", std::string(2 * limits::kMiB, ' '))},
      {422, call("GET", "/tasks?limit=0")},
      {422, call("GET", "/tasks?sort=colour")},
      {400, call("GET", "/artifacts/metadata")},
      {404, call("GET", "/artifacts/nothing")},
      {415, call("POST", "/artifacts", "x", "Content-Type: text/plain\r\n")},
      {404, call("GET", "/pools/none")},
      {422, call("POST", "/pools", R"({"repo_url":"ext::sh -c id"})")},
      {404, call("POST", "/slots/app-1.1/heartbeat", R"({"lease_token":"t"})")},
  };
  for (const auto& [status, answer] : refused) {
    EXPECT_EQ(answer.status, status) << answer.body;
    EXPECT_EQ(answer.headers.get_or("Content-Type", ""), "application/problem+json");
  }
}

// What checks everything else must itself be able to fail.
TEST_F(Openapi, TheCheckerSeesWhatIsNotAsDeclared) {
  ApiDocument document(call("GET", "/openapi.json").json());
  HttpMessage request;
  request.method = "GET";
  request.target = "/tasks/app:1";
  const RawAnswer sound = call("GET", request.target);
  HttpMessage answer;
  answer.status = sound.status;
  answer.headers = sound.headers;
  answer.body = sound.body;
  EXPECT_THAT(document.check(request, answer), IsEmpty());

  const auto wrong = [&](const HttpMessage& asked, const HttpMessage& told) {
    return join(document.check(asked, told), "\n");
  };
  HttpMessage told = answer;
  told.body = Json(sound.json()).set("surprise", 1).dump();
  EXPECT_THAT(wrong(request, told), HasSubstr("not declared: surprise"));
  told.body = Json(sound.json()).set("version", "1").dump();
  EXPECT_THAT(wrong(request, told), HasSubstr("answer/version is a string"));
  told.body = Json(sound.json()).set("created_at", "2026-11-25").dump();
  EXPECT_THAT(wrong(request, told), HasSubstr("no time"));
  told.body = "{}";
  EXPECT_THAT(wrong(request, told), HasSubstr("lacks \"id\""));
  told = answer;
  told.status = 207;
  EXPECT_THAT(wrong(request, told), HasSubstr("answers what is not declared"));
  told = answer;
  told.headers.set("Content-Type", "text/html");
  EXPECT_THAT(wrong(request, told), HasSubstr("media type: text/html"));
  told = answer;
  told.headers = {{"Content-Type", "application/json"}, {"X-Request-Id", "a"}};
  EXPECT_THAT(wrong(request, told), HasSubstr("without ETag"));

  HttpMessage asked = request;
  asked.target = "/tasks?limit=0";
  HttpMessage page = answer;
  page.body = R"({"items":[],"next_cursor":null})";
  EXPECT_THAT(wrong(asked, page), HasSubstr("query limit is too small"));
  asked.method = "PUT";
  asked.target = "/tasks/app:1/status";
  asked.body = R"({"status":"asleep"})";
  EXPECT_THAT(wrong(asked, answer), HasSubstr("request/status is none of"));
  asked.target = "/tasks/app:1/nothing";
  EXPECT_THAT(wrong(asked, answer), HasSubstr("is no operation"));
}

}  // namespace
}  // namespace necrocode::test
