// The client's logs: against the real service, and against servers that break off or lie.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "necrocode/artifacts/client.hpp"
#include "necrocode/base/digest.hpp"
#include "support/raw_server.hpp"
#include "unit/artifacts/running_service.hpp"

namespace necrocode::artifacts {
namespace {

using namespace std::chrono_literals;
using test::RawConnection;
using test::RawServer;
using testing::HasSubstr;

net::ServiceOptions quick(const std::string& url) {
  net::ServiceOptions options;
  options.base_url = url;
  options.retry.base = 1ms;
  options.http = net::make_curl_http_client();
  return options;
}

TEST(LogClient, OpensAppendsSealsAndDescribes) {
  const RunningService service;
  ArtifactStoreClient client(quick(service.url()));
  const ArtifactInfo open =
      client.open_log("log", Json::object({{"task_id", "a:1"}, {"name", "run.log"}}), 60s);
  EXPECT_FALSE(open.sealed);
  EXPECT_EQ(open.sha256, "");
  EXPECT_EQ(open.task_id, "a:1");
  EXPECT_EQ(client.append_log(open.uri, 0, "hello "), 6U);
  EXPECT_EQ(client.append_log(open.uri, 0, "hello "), 6U);
  EXPECT_EQ(client.get_metadata(open.uri).size_bytes, 6U);
  EXPECT_EQ(client.download(open.uri), "hello ");
  EXPECT_EQ(client.download_part(open.uri, 1, 3), "ell");
  const ArtifactInfo sealed = client.seal_log(open.uri, 6, "world");
  EXPECT_TRUE(sealed.sealed);
  EXPECT_EQ(sealed.uri, open.uri);
  EXPECT_EQ(sealed.sha256, sha256_hex("hello world"));
  EXPECT_EQ(client.seal_log(open.uri, 6, "world").sha256, sealed.sha256);
  EXPECT_EQ(client.download(open.uri), "hello world");
}

TEST(LogClient, AppendThatDoesNotFitThenAConflictAndTheMetadataSayWhereToGoOn) {
  const RunningService service;
  ArtifactStoreClient client(quick(service.url()));
  const std::string uri = client.open_log("log").uri;
  client.append_log(uri, 0, "hello");
  try {
    client.append_log(uri, 9, "x");
    FAIL() << "there is a gap";
  } catch (const Conflict& error) {
    EXPECT_THAT(error.info().detail, HasSubstr("the log has 5 bytes"));
  }
  EXPECT_EQ(client.get_metadata(uri).size_bytes, 5U);
  EXPECT_THROW(client.seal_log(uri, 6), Conflict);
  EXPECT_FALSE(client.get_metadata(uri).sealed);
  client.remove(client.get_metadata(uri).id);
  EXPECT_THROW(client.append_log(uri, 5, "x"), NotFound);
  EXPECT_THROW(client.append_log("http://other.example/artifacts/a", 0, "x"), SecurityError);
}

TEST(LogClient, FollowsWhatIsAppendedUntilTheSeal) {
  const RunningService service;
  ArtifactStoreClient client(quick(service.url()));
  const std::string uri = client.open_log("log").uri;
  client.append_log(uri, 0, "one ");
  std::string came;
  EXPECT_TRUE(client.follow(uri, [&](std::string_view bytes) {
    came += bytes;
    if (came == "one ") client.append_log(uri, 4, "two ");
    if (came == "one two ") client.seal_log(uri, 8, "three");
    return true;
  }));
  EXPECT_EQ(came, "one two three");
  came.clear();
  EXPECT_TRUE(client.follow(
      uri,
      [&](std::string_view bytes) {
        came += bytes;
        return true;
      },
      {}, 8));
  EXPECT_EQ(came, "three");
}

TEST(LogClient, FollowerThatHasEnoughOrIsStoppedThenFalse) {
  const RunningService service;
  ArtifactStoreClient client(quick(service.url()));
  const std::string uri = client.open_log("log").uri;
  client.append_log(uri, 0, "hello");
  EXPECT_FALSE(client.follow(uri, [](std::string_view) { return false; }));
  std::stop_source stopping;
  CallContext context;
  context.stop = stopping.get_token();
  EXPECT_FALSE(client.follow(
      uri,
      [&](std::string_view) {
        stopping.request_stop();
        return true;
      },
      context));
  client.remove(client.get_metadata(uri).id);
  EXPECT_THROW(client.follow(uri, [](std::string_view) { return true; }), NotFound);
}

constexpr const char* kHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

std::string described(const char* more) {
  const std::string body =
      R"({"uri":"/artifacts/a","id":"a","created_at":"2026-01-01T00:00:00Z",)" + std::string(more) +
      "}";
  return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

// First cut off inside the body, then ended whole by a server that stops, then by the seal.
TEST(LogClient, AnswerBreaksOffOrEndsTooEarlyThenTakenUpWhereItStopped) {
  std::atomic<int> followed = 0;
  RawServer server([&](RawConnection& connection) {
    while (const auto request = connection.read_request()) {
      if (request->target.find("metadata") != std::string::npos) {
        connection.send(described(followed < 3 ? R"("sealed":false,"size_bytes":7)"
                                               : R"("sealed":true,"sha256":"00","size_bytes":9)"));
        continue;
      }
      const int time = ++followed;
      const std::string_view pieces[] = {"3\r\none\r\n", "4\r\ntwo.\r\n0\r\n\r\n",
                                         "2\r\nok\r\n0\r\n\r\n"};
      connection.send(std::string(kHead) + std::string(pieces[time - 1]));
      if (time == 1) return connection.close();
    }
  });
  ArtifactStoreClient client(quick(server.url("")));
  std::string came;
  EXPECT_TRUE(client.follow("/artifacts/a", [&](std::string_view bytes) {
    came += bytes;
    return true;
  }));
  EXPECT_EQ(came, "onetwo.ok");
  std::vector<std::string> offsets;
  for (const auto& request : server.requests()) {
    const std::size_t at = request.target.find("offset=");
    if (at != std::string::npos) offsets.push_back(request.target.substr(at + 7));
  }
  EXPECT_THAT(offsets, testing::ElementsAre("0", "3", "7"));
}

TEST(LogClient, AppendIsAnsweredWithLessThanWasSentThenAnError) {
  RawServer server([](RawConnection& connection) {
    while (connection.read_request()) connection.send(described(R"("size_bytes":4)"));
  });
  ArtifactStoreClient client(quick(server.url("")));
  EXPECT_THROW(client.append_log("/artifacts/a", 0, "hello"), ArtifactUploadError);
}

TEST(LogClient, SealIsAnsweredWithAnOpenLogThenAnError) {
  RawServer server([](RawConnection& connection) {
    while (connection.read_request()) {
      connection.send(described(R"("sealed":false,"size_bytes":5)"));
    }
  });
  ArtifactStoreClient client(quick(server.url("")));
  EXPECT_THROW(client.seal_log("/artifacts/a", 0, "hello"), ArtifactUploadError);
}

}  // namespace
}  // namespace necrocode::artifacts
