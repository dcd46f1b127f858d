// The shipped services under malformed and slow HTTP: never a 5xx, never a second answer to what is
// not a request, no answer later than 5 s, no crash, and /health for everybody else. Run under the
// address sanitizer too (scripts/test --thorough).
#include <random>
#include <thread>

#include "fixture.hpp"
#include "support/raw_client.hpp"

namespace necrocode::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

constexpr auto kPatience = 5s;

class HttpSuite : public EndToEnd {
 protected:
  void SetUp() override {
    url_ = serve();
    port_ = static_cast<std::uint16_t>(net::Url::parse(url_)->port);
    registry_ = std::make_unique<TaskRegistryClient>(url_);
    registry_->submit(Json::parse(
        R"({"spec_name":"app","tasks":[{"id":"1","title":"t"},{"id":"2","title":"u"}]})"));
    uri_ = ArtifactStoreClient(url_).upload("log", "0123456789");
  }
  void TearDown() override {
    // What has happened before has broken nothing.
    const auto began = steady_clock::now();
    EXPECT_EQ(RawClient(port_).call(request("GET", "/health")).status, 200) << stderr_text();
    EXPECT_LT(steady_clock::now() - began, 1s);
    EXPECT_EQ(registry_->get_task("app:1").id, "app:1");
    services_->signal(SIGTERM);
    EXPECT_EQ(services_->wait(), 0) << stderr_text();
  }

  static std::string request(const std::string& method, const std::string& target,
                             const std::string& body = {}, const std::string& fields = {}) {
    return method + " " + target + " HTTP/1.1\r\nHost: a\r\n" + fields +
           (body.empty() ? "" : "Content-Length: " + std::to_string(body.size()) + "\r\n") +
           "\r\n" + body;
  }
  static std::string form(const std::string& content) {
    return "--XyZ\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nlog\r\n--XyZ\r\n"
           "Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n" +
           content + "\r\n--XyZ--\r\n";
  }

  /// The final statuses of all answers to `bytes`, after which nothing more comes.
  std::vector<int> statuses(const std::string& bytes, const std::string& what) {
    RawClient client(port_);
    const auto began = steady_clock::now();
    client.send(bytes);
    client.shutdown_write();
    std::vector<int> found;
    while (true) {
      const int status = client.read_answer().status;
      if (status == 0) break;
      if (status >= 200) found.push_back(status);
      EXPECT_LT(status, 500) << what << "\n" << printable(shorten(bytes, 2000));
    }
    EXPECT_LT(steady_clock::now() - began, kPatience) << what;
    return found;
  }

  /// One call of each kind that the services take, as it should be.
  std::vector<std::string> sound_requests() const {
    const std::string artifact = uri_.substr(uri_.find("/artifacts/"));
    const std::string json = "Content-Type: application/json\r\n";
    return {
        request("GET", "/health"),
        request("GET", "/metrics"),
        request("GET", "/tasks?spec=app&state=ready,blocked&limit=10&sort=age"),
        request("GET", "/tasks/app:1", "", "If-None-Match: \"1\"\r\n"),
        request("GET", "/tasks/app%3A1/events?after=0&limit=5&since=2026-01-01T00:00:00Z"),
        request("GET", "/events", "", "Accept: text/event-stream\r\nLast-Event-ID: 1\r\n"),
        request("GET", "/tasksets/app/graph?format=dot"),
        request("PUT", "/tasks/app:2/status", R"({"status":"blocked","metadata":{"a":[1,{}]}})",
                json + "If-Match: \"1\"\r\n"),
        request("POST", "/tasks/app:1/events",
                R"({"event_type":"E","data":{"k":"é\u0000"},"timestamp":1769860800.5})",
                json + "Idempotency-Key: k1\r\n"),
        request("POST", "/tasks/app:1/artifacts",
                R"({"type":"log","uri":"u","size_bytes":5,"metadata":{}})", json),
        request("POST", "/tasks/claim", R"({"runner_id":"r","skills":["s"],"wait_seconds":0.1})",
                json),
        request("POST", "/heartbeats", R"({"leases":[{"task_id":"app:1","lease_token":"t"}]})",
                json),
        request("POST", "/tasksets", R"({"spec_name":"b","tasks":[{"id":"1","title":"t"}]})", json),
        request("POST", "/artifacts", form("bytes"),
                "Content-Type: multipart/form-data; boundary=XyZ\r\n"),
        request("GET", artifact, "", "Range: bytes=2-5\r\n"),
        request("GET", "/artifacts?type=log&limit=3"),
        request("GET", "/pools"),
        request("POST", "/slots/app-1.1/heartbeat", R"({"lease_token":"t"})", json),
    };
  }

  std::string url_;
  std::string uri_;
  std::uint16_t port_ = 0;
  std::unique_ptr<TaskRegistryClient> registry_;
};

TEST_F(HttpSuite, SoundRequestsThenAnswered) {
  for (const std::string& sound : sound_requests()) {
    const auto found = statuses(sound, "sound");
    // A feed, and a claim that waits, end with their client.
    if (found.empty()) continue;
    EXPECT_EQ(found.size(), 1u) << sound;
    EXPECT_NE(found.front(), 400) << sound;
  }
}

TEST_F(HttpSuite, MalformedRequestThenOneRefusalAndNothingBehindIt) {
  const std::string hidden = request("GET", "/health");
  const std::string post = "POST /tasks/claim HTTP/1.1\r\nHost: a\r\n";
  const std::pair<const char*, std::string> malformed[] = {
      {"both lengths", post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {"two lengths", post + "Content-Length: 0\r\nContent-Length: 50\r\n\r\n"},
      {"list of lengths", post + "Content-Length: 0, 0\r\n\r\n"},
      {"signed length", post + "Content-Length: +0\r\n\r\n"},
      {"huge length", post + "Content-Length: 99999999999999999999999\r\n\r\n"},
      {"chunked twice", post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"},
      {"unknown coding", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
      {"coding not last", post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
      {"hidden coding", post + "Transfer-Encoding:\vchunked\r\n\r\n0\r\n\r\n"},
      {"space before colon", post + "Content-Length : 0\r\n\r\n"},
      {"folded line", post + "X: a\r\n b\r\n\r\n"},
      {"bare LF", "POST /tasks/claim HTTP/1.1\nHost: a\n\n"},
      {"bare CR", post + "X: a\rY: b\r\n\r\n"},
      {"NUL in a field", post + std::string("X: a\0b\r\n\r\n", 10)},
      {"no host", "GET /health HTTP/1.1\r\n\r\n"},
      {"two hosts", "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
      {"host with a path", "GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n"},
      {"no version", "GET /health\r\n\r\n"},
      {"other version", "GET /health HTTP/2.0\r\nHost: a\r\n\r\n"},
      {"lower-case version", "GET /health http/1.1\r\nHost: a\r\n\r\n"},
      {"method of bytes", "G\xC3\x89T /health HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"no target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"unknown expectation", post + "Expect: the-unexpected\r\nContent-Length: 0\r\n\r\n"},
      {"bad chunk size", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"},
      {"negative chunk", post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n"},
      {"huge chunk", post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"},
      {"chunk without its end", post + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n"},
      {"long chunk extension",
       post + "Transfer-Encoding: chunked\r\n\r\n2;" + std::string(100'000, 'x') + "\r\n"},
      {"long target", "GET /" + std::string(100'000, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"long field", post + "X: " + std::string(100'000, 'x') + "\r\n\r\n"},
      {"many fields",
       [&] {
         std::string text = post;
         for (int i = 0; i < 10'000; ++i) text += "X: y\r\n";
         return text + "\r\n";
       }()},
      {"TLS",
       std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + std::string(500, '\x01')},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
      {"nothing but NULs", std::string(5'000, '\0')},
  };
  for (const auto& [what, bytes] : malformed) {
    const auto found = statuses(bytes + hidden, what);
    EXPECT_EQ(found.size(), 1u) << what;
    for (const int status : found) {
      EXPECT_TRUE(status >= 400 || status == 0) << what << ": " << status;
    }
  }
}

TEST_F(HttpSuite, BodiesOfWrongShapeThenRefusedAsTheCallersFault) {
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "[";
  const std::string bodies[] = {
      "",
      "null",
      "[]",
      "0",
      "\"x\"",
      "{",
      "{}{}",
      "{\"a\":1,\"a\":2}",
      "\xFF\xFE{}",
      std::string("{\"a\":\"\0\"}", 9),
      "{\"a\":1e999999}",
      "{\"a\":-0.0e-999999999}",
      "{\"\\ud800\":1}",
      deep,
      "{\"a\":" + deep,
      R"({"spec_name":7,"tasks":7,"status":7,"event_type":7,"data":7,"type":7,"uri":7,"leases":7})",
      R"({"spec_name":[],"tasks":[null],"status":{},"data":[],"metadata":[],"leases":[null]})",
      R"({"spec_name":"../x","tasks":[{"id":"/","dependencies":["x\u0000"]}],"status":"\u0000"})",
      R"({"lease_seconds":1e308,"wait_seconds":-1,"max":9223372036854775807,"runner_id":null})",
      R"({"timestamp":1e300,"updated_at":"9999-99-99T99:99:99Z","created_at":-1e300})",
  };
  const std::pair<const char*, const char*> calls[] = {
      {"PUT", "/tasks/app:1/status"},
      {"POST", "/tasks/app:1/events"},
      {"POST", "/tasks/app:1/artifacts"},
      {"POST", "/tasks/app:1/heartbeat"},
      {"POST", "/tasks/app:1/complete"},
      {"POST", "/tasks/app:9/cancel"},
      {"POST", "/tasks/app:9/retry"},
      {"POST", "/tasks/claim"},
      {"POST", "/heartbeats"},
      {"POST", "/tasksets"},
      {"POST", "/artifacts"},
      {"POST", "/pools"},
      {"POST", "/pools/x/warm"},
      {"POST", "/slots/allocate"},
      {"POST", "/slots/x-1.1/release"},
      {"POST", "/slots/x-1.1/heartbeat"},
  };
  for (const auto& [method, path] : calls) {
    for (const std::string& body : bodies) {
      for (const char* type : {"application/json", "multipart/form-data; boundary=XyZ", "a/b"}) {
        const std::string fields = std::string("Content-Type: ") + type + "\r\n";
        EXPECT_LE(statuses(request(method, path, body, fields), path).size(), 1u) << path;
      }
    }
  }
}

TEST_F(HttpSuite, SoundRequestsWithAnyByteChangedThenNeverA5xx) {
  const unsigned seed = std::random_device{}();
  std::mt19937 random(seed);
  const auto below = [&](std::size_t end) {
    return std::uniform_int_distribution<std::size_t>(0, end - 1)(random);
  };
  const auto sound = sound_requests();
  static constexpr std::string_view kOdd = "\r\n\0 \t:;,/%?&=\"\\{}[]\xFF\x80-0919azA";
  for (int i = 0; i < 3'000; ++i) {
    std::string bytes = sound[below(sound.size())];
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
      const std::size_t at = below(bytes.size());
      switch (below(4)) {
        case 0:
          bytes[at] = kOdd[below(kOdd.size())];
          break;
        case 1:
          bytes.erase(at, 1 + below(8));
          break;
        case 2:
          bytes.insert(at, 1 + below(3), kOdd[below(kOdd.size())]);
          break;
        default:
          bytes.insert(at, bytes.substr(below(bytes.size()), below(40)));
      }
      if (bytes.empty()) bytes = "\r\n";
    }
    statuses(bytes, "seed " + std::to_string(seed) + ", request " + std::to_string(i));
    if (HasFailure()) return;
  }
}

TEST_F(HttpSuite, SlowClientsOfEveryKindThenHealthWithinASecond) {
  const std::string large = request("POST", "/tasksets", std::string(100'000, ' '));
  const std::string upload = request("POST", "/artifacts", form(std::string(4'000'000, 'x')),
                                     "Content-Type: multipart/form-data; boundary=XyZ\r\n");
  ArtifactStoreClient store(url_);
  const std::string uri = store.upload("log", std::string(8'000'000, 'x'));
  const std::string download = request("GET", uri.substr(uri.find("/artifacts/")));
  const std::string starts[] = {
      "GET /hea",                         // a head that does not end
      large.substr(0, large.size() / 2),  // half a body
      upload.substr(0, 1'000),            // a form's beginning
      upload.substr(0, 1'500'000),        // more than fits between
      download,                           // an answer that nobody reads
      request("GET", "/events", "", "Accept: text/event-stream\r\n"),
      request("POST", "/tasks/claim", R"({"skills":["none"],"wait_seconds":60})"),
      "",  // says nothing at all
  };
  std::vector<RawClient> slow;
  for (int i = 0; i < 240; ++i) {
    slow.emplace_back(port_);
    ASSERT_TRUE(slow.back().connected());
    slow.back().send_some(starts[static_cast<std::size_t>(i) % std::size(starts)]);
  }
  for (int i = 0; i < 20; ++i) {
    for (RawClient& client : slow) client.send_some("x");
    const auto began = steady_clock::now();
    ASSERT_EQ(RawClient(port_).call(request("GET", "/health")).status, 200);
    EXPECT_LT(steady_clock::now() - began, 1s);
  }
  // Others work on, too.
  const auto began = steady_clock::now();
  EXPECT_EQ(registry_->get_task("app:1").id, "app:1");
  EXPECT_EQ(store.download(store.upload("log", "still")), "still");
  EXPECT_LT(steady_clock::now() - began, kPatience);
}

}  // namespace
}  // namespace necrocode::test
