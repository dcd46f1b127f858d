// ArtifactStoreClient against the real service, and against servers that misbehave.
#include "necrocode/artifacts/client.hpp"

#include <gmock/gmock.h>

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <mutex>

#include "necrocode/artifacts/content_headers.hpp"
#include "necrocode/base/digest.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/body_sources.hpp"
#include "support/memory_counts.hpp"
#include "support/raw_server.hpp"
#include "unit/artifacts/running_service.hpp"

namespace necrocode::artifacts {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

net::ServiceOptions quick(const std::string& url) {
  net::ServiceOptions options;
  options.base_url = url;
  options.retry.base = std::chrono::milliseconds{1};
  options.retry.cap = std::chrono::milliseconds{1};
  return options;
}

// Peak memory of this process so far, in bytes.
std::uint64_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::uint64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * limits::kKiB;
  }
  return 0;
}
void forget_peak_memory() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

TEST(ArtifactStoreClient, HasTheDocumentedDefaultsAndNames) {
  EXPECT_EQ(ArtifactStoreClient().base_url(), "http://127.0.0.1:8000");
  static_assert(std::is_same_v<ArtifactStoreClient, NewArtifactStoreClient>);
}

TEST(ArtifactStoreClient, UploadsDownloadsDescribesListsAndRemoves) {
  const RunningService service;
  ArtifactStoreClient client(quick(service.url()));
  const std::string bytes("any\0bytes\r\n--x\xff", 14);
  const Json metadata =
      Json::object({{"task_id", "a:1"}, {"name", "n"}, {"tags", std::vector<std::string>{"t"}}});
  const std::string uri = client.upload("diff", bytes, metadata);
  EXPECT_EQ(client.download(uri), bytes);
  const ArtifactInfo info = client.get_metadata(uri);
  EXPECT_EQ(info.uri, uri);
  EXPECT_EQ(info.type, "diff");
  EXPECT_EQ(info.size_bytes, bytes.size());
  EXPECT_EQ(info.sha256, sha256_hex(bytes));
  EXPECT_EQ(info.metadata, metadata);
  EXPECT_THAT(info.tags, ElementsAre("t"));
  client.upload_text("log", "text");
  ArtifactQuery query;
  query.task = "a:1";
  query.tag = "t";
  EXPECT_THAT(client.list(query).items, SizeIs(1));
  ArtifactQuery page;
  page.limit = 1;
  const ArtifactPage first = client.list(page);
  page.cursor = first.next_cursor.value();
  EXPECT_EQ(client.list(page).items.front().id, info.id);
  client.remove(info.id);
  EXPECT_THROW(client.download(uri), NotFound);
  EXPECT_THROW(client.get_metadata(uri), NotFound);
  EXPECT_THROW(client.remove(info.id), NotFound);
}

TEST(ArtifactStoreClient, TextGetsItsMimeTypeUnlessOneIsGiven) {
  const RunningService service;
  ArtifactStoreClient client(quick(service.url()));
  const auto mime_type = [&](const std::string& uri) {
    return client.get_metadata(uri).metadata["mime_type"].string_or("");
  };
  EXPECT_EQ(mime_type(client.upload_text("log", "x")), "text/plain; charset=utf-8");
  EXPECT_EQ(mime_type(client.upload_text("log", "x", Json::object({{"mime_type", "text/x-diff"}}))),
            "text/x-diff");
  EXPECT_EQ(client.download_text(client.upload_text("log", "ü")), "ü");
}

TEST(ArtifactStoreClient, DefectsOfAnUploadAreToldWithTheirFields) {
  const RunningService service;
  ArtifactStoreClient client(quick(service.url()));
  try {
    client.upload("no type!", "x");
    FAIL();
  } catch (const TaskContextValidationError& error) {
    EXPECT_EQ(error.info().service, "artifact-store");
    EXPECT_EQ(error.info().operation, "upload");
    ASSERT_THAT(error.info().fields, SizeIs(1));
    EXPECT_EQ(error.info().fields.front().pointer, "/type");
  }
  EXPECT_THROW(client.upload("log", "x", Json("text")), TaskContextValidationError);
}

TEST(ArtifactStoreClient, FileComesAndGoesWhole) {
  const RunningService service;
  const TemporaryDirectory folder;
  ArtifactStoreClient client(quick(service.url()));
  const std::string content(300'000, 'f');
  write_file_atomic(folder.path() / "in", content);
  const std::string uri = client.upload_file("log", folder.path() / "in");
  write_file_atomic(folder.path() / "out", "older");
  client.download_to(uri, folder.path() / "out");
  EXPECT_EQ(read_file(folder.path() / "out", content.size()), content);
  EXPECT_THROW(client.upload_file("log", folder.path() / "absent"), StorageError);
  EXPECT_THROW(client.upload_file("log", folder.path()), StorageError);
  EXPECT_THROW(client.download_to(uri, folder.path() / "absent" / "out"), StorageError);
}

TEST(ArtifactStoreClient, FailedDownloadLeavesTheOldFileAndNoRemains) {
  const RunningService service;
  const TemporaryDirectory folder;
  ArtifactStoreClient client(quick(service.url()));
  write_file_atomic(folder.path() / "out", "older");
  EXPECT_THROW(client.download_to("/artifacts/unknown", folder.path() / "out"), NotFound);
  EXPECT_EQ(read_file(folder.path() / "out", 100), "older");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

TEST(ArtifactStoreClient, LargeFileTakesNoMoreMemoryThanASmallOne) {
  const RunningService service;
  const TemporaryDirectory folder;
  ArtifactStoreClient client(quick(service.url()));
  constexpr std::uint64_t kBytes = 64 * limits::kMiB;
  {
    std::ofstream file(folder.path() / "in", std::ios::binary);
    std::string block(limits::kMiB, '\0');
    for (std::uint64_t at = 0; at < kBytes; at += block.size()) {
      block.replace(0, 20, std::to_string(at) + std::string(20 - std::to_string(at).size(), ' '));
      file << block;
    }
  }
  client.upload("log", "warm");
  forget_peak_memory();
  const std::uint64_t before = peak_memory();
  const std::string uri = client.upload_file("log", folder.path() / "in");
  client.download_to(uri, folder.path() / "out");
  const std::uint64_t growth = peak_memory() - before;
  EXPECT_TRUE(!test::kMemoryCounts || growth < 16 * limits::kMiB) << growth;
  EXPECT_EQ(fs::file_size(folder.path() / "out"), kBytes);
  EXPECT_EQ(client.get_metadata(uri).size_bytes, kBytes);
}

TEST(ArtifactStoreClient, OneMachineUnderItsOtherNamesIsTheSameStore) {
  const RunningService service;
  ArtifactStoreClient client(quick("http://localhost:" + std::to_string(service.port())));
  const std::string uri = client.upload("log", "x");
  EXPECT_THAT(uri, HasSubstr("127.0.0.1"));
  EXPECT_EQ(client.download(uri), "x");
  EXPECT_EQ(client.download(uri.substr(uri.find("/artifacts/"))), "x");
}

TEST(ArtifactStoreClient, ForeignUrisAreRefusedBeforeAnythingIsSent) {
  std::atomic<int> requests{0};
  net::HttpServer server;
  server.route("GET", "/{any}", [&](const net::Request&) {
    ++requests;
    return net::Response::text(200, "x");
  });
  server.start();
  net::ServiceOptions options = quick(server.url());
  options.token = Secret("token-of-this-store");
  ArtifactStoreClient client(std::move(options));
  const std::string port = std::to_string(server.port());
  for (const std::string& uri :
       std::vector<std::string>{"http://example.com/x",
                                "https://127.0.0.1:" + port + "/x",
                                "http://127.0.0.1:1/x",
                                "file:///etc/passwd",
                                "ftp://127.0.0.1/x",
                                "gopher://x",
                                "javascript:alert(1)",
                                "data:,x",
                                "http://user:secret@127.0.0.1:" + port + "/x",
                                "http://169.254.169.254/latest/meta-data",
                                "http://[fe80::1]/x",
                                "http://2852039166/x",
                                "http://0x7f000001:" + port + "/x",
                                "//example.com/x",
                                "x",
                                "",
                                "\\\\host\\x",
                                "http://127.0.0.1:" + port + "@example.com/x",
                                "/a b",
                                "/a\r\nX: y"}) {
    try {
      client.download(uri);
      ADD_FAILURE() << uri;
    } catch (const SecurityError& error) {
      EXPECT_THAT(error.what(), Not(HasSubstr("secret")));
    }
  }
  EXPECT_EQ(requests, 0);
}

TEST(ArtifactStoreClient, PrefixOfTheBaseUrlIsPartOfTheOrigin) {
  net::HttpServer server;
  server.route("GET", "/store/artifacts/{id}", [](const net::Request& request) {
    return net::Response::text(200, request.param("id"));
  });
  server.start();
  ArtifactStoreClient client(quick(server.url() + "/store/"));
  EXPECT_EQ(client.download(server.url() + "/store/artifacts/7"), "7");
  EXPECT_EQ(client.download("/artifacts/7"), "7");
  EXPECT_THROW(client.download(server.url() + "/other/artifacts/7"), SecurityError);
  EXPECT_THROW(client.download(server.url() + "/storefront/artifacts/7"), SecurityError);
}

TEST(ArtifactStoreClient, RedirectWithinTheOriginIsFollowed) {
  const std::string moved = test::answer(307, "", "Location: /blobs/1?part=2\r\n");
  test::RawServer server(test::plays({moved, test::answer(200, "bytes")}));
  net::ServiceOptions options = quick(server.url(""));
  options.token = Secret("token-of-this-store");
  ArtifactStoreClient client(std::move(options));
  EXPECT_EQ(client.download("/artifacts/1"), "bytes");
  ASSERT_THAT(server.requests(), SizeIs(2));
  EXPECT_EQ(server.requests()[1].target, "/blobs/1?part=2");
  EXPECT_EQ(server.requests()[1].headers.get("Authorization"), "Bearer token-of-this-store");
}

TEST(ArtifactStoreClient, FileAndMetadataBehindARedirectCome) {
  const std::string moved = test::answer(302, "moved", "Location: /moved\r\n");
  const std::string description =
      R"({"uri":"u","id":"1","size_bytes":1,"sha256":"00","created_at":0})";
  test::RawServer server(
      test::plays({moved, test::answer(200, "bytes"), moved, test::answer(200, description)}));
  ArtifactStoreClient client(quick(server.url("")));
  const TemporaryDirectory folder;
  client.download_to("/artifacts/1", folder.path() / "out");
  EXPECT_EQ(read_file(folder.path() / "out", 100), "bytes");
  EXPECT_EQ(client.get_metadata("/artifacts/1").id, "1");
  EXPECT_THAT(server.requests(), SizeIs(4));
}

TEST(ArtifactStoreClient, RedirectsInACircleEnd) {
  test::RawServer server(test::plays({test::answer(302, "", "Location: /artifacts/1\r\n")}));
  ArtifactStoreClient client(quick(server.url("")));
  EXPECT_THROW(client.download("/artifacts/1"), ServiceError);
  EXPECT_THAT(server.requests(), SizeIs(1 + limits::kHttpRedirects));
}

TEST(ArtifactStoreClient, RedirectToAnotherOriginIsRefusedAndGetsNoCredentials) {
  test::RawServer elsewhere(test::plays({test::answer(200, "x")}));
  test::RawServer server(
      test::plays({test::answer(302, "", "Location: " + elsewhere.url("/x") + "\r\n")}));
  net::ServiceOptions options = quick(server.url(""));
  options.token = Secret("token-of-this-store");
  ArtifactStoreClient client(std::move(options));
  const TemporaryDirectory folder;
  EXPECT_THROW(client.download("/artifacts/1"), ServiceError);
  EXPECT_THROW(client.download_to("/artifacts/1", folder.path() / "out"), ServiceError);
  EXPECT_THROW(client.get_metadata("/artifacts/1"), ServiceError);
  EXPECT_EQ(elsewhere.connections(), 0u);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(ArtifactStoreClient, DownloadThatDiffersFromItsDigestIsRefused) {
  net::HttpServer server;
  server.route("GET", "/artifacts/{id}", [](const net::Request&) {
    return net::Response{200,
                         {{"Content-Digest", content_digest_header(sha256_hex("other"))}},
                         std::string("bytes")};
  });
  server.start();
  const TemporaryDirectory folder;
  ArtifactStoreClient client(quick(server.url()));
  EXPECT_THROW(client.download("/artifacts/1"), InvalidResponse);
  EXPECT_THROW(client.download_to("/artifacts/1", folder.path() / "out"), InvalidResponse);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(ArtifactStoreClient, DownloadThatBreaksOffBeginsAnew) {
  std::atomic<int> requests{0};
  net::HttpServer server;
  server.route("GET", "/artifacts/{id}", [&](const net::Request&) {
    const bool breaks = ++requests == 1;
    auto pieces = std::make_shared<int>(0);
    net::Response response;
    response.headers.set("Content-Digest", content_digest_header(sha256_hex("one two ")));
    response.body = net::BodyProducer([breaks, pieces]() -> std::string {
      switch ((*pieces)++) {
        case 0:
          return "one ";
        case 1:
          if (breaks) throw StorageError("broken off on purpose");
          return "two ";
        default:
          return "";
      }
    });
    return response;
  });
  server.start();
  const TemporaryDirectory folder;
  ArtifactStoreClient(quick(server.url())).download_to("/artifacts/1", folder.path() / "out");
  EXPECT_EQ(read_file(folder.path() / "out", 100), "one two ");
  EXPECT_EQ(requests, 2);
}

// Sends `whole` and cuts the connection after `cut` bytes of each answer, as long as that is less.
class CuttingStore {
 public:
  CuttingStore(std::string whole, std::size_t cut, std::string etag)
      : whole_(std::move(whole)), etag_(std::move(etag)) {
    server_.route("GET", "/artifacts/{id}", [this, cut](const net::Request& request) {
      const std::lock_guard lock(mutex_);
      ranges.push_back(request.headers.get_or("Range", "-"));
      const bool holds = request.headers.get_or("If-Range", "") == etag_ && !etag_.empty();
      ByteRange range{ByteRange::Kind::kWhole, 0, whole_.size()};
      if (holds) range = parse_range(request.headers.get_or("Range", ""), whole_.size());
      net::Response response;
      if (!etag_.empty()) response.headers.set("ETag", etag_);
      if (range.kind == ByteRange::Kind::kPart) {
        response.status = 206;
        response.headers.set("Content-Range", content_range(range, whole_.size()));
      }
      const std::string bytes = whole_.substr(range.offset);
      if (changes_to) {
        whole_ = *std::exchange(changes_to, std::nullopt);
        etag_ = "\"changed\"";
      }
      response.body = net::BodyProducer([bytes, cut, sent = false]() mutable -> std::string {
        if (std::exchange(sent, true)) {
          if (bytes.size() > cut) throw StorageError("cut on purpose");
          return "";
        }
        return bytes.substr(0, cut);
      });
      return response;
    });
    server_.start();
  }
  ~CuttingStore() { server_.stop(); }
  std::string url() const { return server_.url(); }

  std::vector<std::string> ranges;
  std::optional<std::string> changes_to;  // after the first answer

 private:
  std::mutex mutex_;
  std::string whole_;
  std::string etag_;
  net::HttpServer server_;
};

TEST(ArtifactStoreClient, DownloadThatIsCutGoesOnWhereItStopped) {
  CuttingStore store("0123456789", 4, "\"v1\"");
  const TemporaryDirectory folder;
  ArtifactStoreClient(quick(store.url())).download_to("/artifacts/1", folder.path() / "out");
  EXPECT_EQ(read_file(folder.path() / "out", 100), "0123456789");
  EXPECT_THAT(store.ranges, ElementsAre("-", "bytes=4-", "bytes=8-"));
}

TEST(ArtifactStoreClient, DownloadWhoseBytesChangedMeanwhileBeginsAnew) {
  CuttingStore store("0123456789", 6, "\"v1\"");
  store.changes_to = "other";
  const TemporaryDirectory folder;
  ArtifactStoreClient(quick(store.url())).download_to("/artifacts/1", folder.path() / "out");
  EXPECT_EQ(read_file(folder.path() / "out", 100), "other");
}

TEST(ArtifactStoreClient, DownloadOfBytesWithoutAStrongNameBeginsAnew) {
  for (const char* etag : {"", "W/\"v1\""}) {
    CuttingStore store("0123456789", 4, etag);
    const TemporaryDirectory folder;
    EXPECT_THROW(
        ArtifactStoreClient(quick(store.url())).download_to("/artifacts/1", folder.path() / "out"),
        Unavailable);
    EXPECT_THAT(store.ranges, ElementsAre("-", "-", "-", "-"));
    EXPECT_TRUE(fs::is_empty(folder.path()));
  }
}

TEST(ArtifactStoreClient, RestThatIsNotAllOfItOrOfOtherBytesIsRefused) {
  const std::pair<const char*, const char*> wrong[] = {
      {"bytes 4-7/10", "\"v1\""}, {"bytes 4-9/*", "\"v1\""},   {"bytes 5-9/10", "\"v1\""},
      {"bytes 4-9/10", "\"v2\""}, {"bytes 4-10/11", "\"v1\""}, {"bytes 4-99999", "\"v1\""},
      {"bytes 9-4/10", "\"v1\""},
  };
  for (const auto& [range, etag] : wrong) {
    net::HttpServer server;
    server.route("GET", "/artifacts/{id}", [&, first = true](const net::Request&) mutable {
      if (!std::exchange(first, false)) {
        return net::Response{
            206, {{"ETag", etag}, {"Content-Range", range}}, std::string("456789")};
      }
      net::Response response;
      response.headers.set("ETag", "\"v1\"");
      response.body = net::BodyProducer([sent = false]() mutable -> std::string {
        if (std::exchange(sent, true)) throw StorageError("cut on purpose");
        return "0123";
      });
      return response;
    });
    server.start();
    const TemporaryDirectory folder;
    EXPECT_THROW(
        ArtifactStoreClient(quick(server.url())).download_to("/artifacts/1", folder.path() / "out"),
        InvalidResponse)
        << range;
    EXPECT_TRUE(fs::is_empty(folder.path())) << range;
  }
}

TEST(ArtifactStoreClient, CutBehindTheLastByteThenWhole) {
  net::HttpServer server;
  int asked = 0;
  server.route("GET", "/artifacts/{id}", [&](const net::Request& request) {
    if (++asked == 2 && request.headers.get("Range")) return net::Response::empty(416);
    net::Response response;
    response.headers.set("ETag", "\"v1\"");
    response.body = net::BodyProducer([cut = asked == 1, sent = false]() mutable -> std::string {
      if (!std::exchange(sent, true)) return "0123456789";
      if (cut) throw StorageError("cut on purpose");
      return "";
    });
    return response;
  });
  server.start();
  const TemporaryDirectory folder;
  ArtifactStoreClient(quick(server.url())).download_to("/artifacts/1", folder.path() / "out");
  EXPECT_EQ(read_file(folder.path() / "out", 100), "0123456789");
  EXPECT_EQ(asked, 3);
}

TEST(ArtifactStoreClient, PartOfADownload) {
  RunningService service;
  ArtifactStoreClient client(quick(service.url()));
  const std::string uri = client.upload("log", "0123456789");
  EXPECT_EQ(client.download_part(uri, 2, 3), "234");
  EXPECT_EQ(client.download_part(uri, 8, 100), "89");
  EXPECT_EQ(client.download_part(uri, 8, UINT64_MAX), "89");
  EXPECT_EQ(client.download_part(uri, 0, 0), "");
  try {
    client.download_part(uri, 10, 1);
    FAIL() << "there is nothing";
  } catch (const ServiceError& error) {
    EXPECT_EQ(error.info().status, 416);
  }
  net::HttpServer knows_no_ranges;
  knows_no_ranges.route("GET", "/artifacts/{id}",
                        [](const net::Request&) { return net::Response::text(200, "0123456789"); });
  knows_no_ranges.start();
  EXPECT_THROW(
      ArtifactStoreClient(quick(knows_no_ranges.url())).download_part("/artifacts/1", 2, 3),
      InvalidResponse);
}

TEST(ArtifactStoreClient, UploadsFromADescriptorOrAStream) {
  RunningService service;
  ArtifactStoreClient client(quick(service.url()));
  const TemporaryDirectory folder;
  write_file_atomic(folder.path() / "log", "of a file");
  const FileDescriptor file(::open((folder.path() / "log").c_str(), O_RDONLY | O_CLOEXEC));
  char first = 0;
  ASSERT_EQ(::read(file.get(), &first, 1), 1);
  const std::string uri = client.upload_fd("log", file.get(), Json::object({{"name", "my.log"}}));
  EXPECT_EQ(client.download(uri), "of a file") << "whole, whatever its position";
  EXPECT_EQ(client.get_metadata(uri).name, "my.log");
  EXPECT_EQ(::read(file.get(), &first, 1), 1) << "it stays open";
  EXPECT_EQ(first, 'f');
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  const FileDescriptor reader(pipe[0]);
  const FileDescriptor writer(pipe[1]);
  EXPECT_THROW(client.upload_fd("log", reader.get()), StorageError);
  EXPECT_THROW(client.upload_fd("log", -1), StorageError);
  EXPECT_EQ(client.download(client.upload_stream("log", net::memory_body("of a stream"))),
            "of a stream");
}

TEST(ArtifactStoreClient, PartInsteadOfTheWholeIsRefused) {
  net::HttpServer server;
  server.route("GET", "/artifacts/{id}", [](const net::Request&) {
    return net::Response{206, {{"Content-Range", "bytes 0-0/5"}}, std::string("b")};
  });
  server.start();
  ArtifactStoreClient client(quick(server.url()));
  EXPECT_THROW(client.download("/artifacts/1"), InvalidResponse);
}

// Answers an upload with whatever the test says.
class AnsweringServer {
 public:
  explicit AnsweringServer(std::function<Json(const std::string& body)> answer) {
    server_.route("POST", "/artifacts", [answer](const net::Request& request) {
      return net::Response::json(201, answer(request.body));
    });
    server_.start();
  }
  std::string url() const { return server_.url(); }
  static Json info(std::uint64_t size, const std::string& sha256) {
    return Json::object({{"uri", "/artifacts/1"},
                         {"id", "1"},
                         {"size_bytes", size},
                         {"sha256", sha256},
                         {"created_at", "2026-01-01T00:00:00Z"}});
  }

 private:
  net::HttpServer server_;
};

TEST(ArtifactStoreClient, StoreThatHoldsOtherBytesThanWereSentIsFoundOut) {
  const AnsweringServer right(
      [](const std::string&) { return AnsweringServer::info(1, sha256_hex("x")); });
  EXPECT_EQ(ArtifactStoreClient(quick(right.url())).upload("log", "x"), "/artifacts/1");
  const AnsweringServer other(
      [](const std::string&) { return AnsweringServer::info(1, sha256_hex("y")); });
  EXPECT_THROW(ArtifactStoreClient(quick(other.url())).upload("log", "x"), ArtifactUploadError);
  const AnsweringServer cut(
      [](const std::string&) { return AnsweringServer::info(0, sha256_hex("x")); });
  EXPECT_THROW(ArtifactStoreClient(quick(cut.url())).put("log", "x"), ArtifactUploadError);
}

TEST(ArtifactStoreClient, AnswerThatDescribesNoArtifactIsInvalid) {
  const AnsweringServer empty([](const std::string&) { return Json::object(); });
  try {
    ArtifactStoreClient(quick(empty.url())).upload("log", "x");
    FAIL();
  } catch (const InvalidResponse& error) {
    EXPECT_THAT(error.info().fields, SizeIs(5));
  }
}

TEST(ArtifactStoreClient, RetriedUploadSendsTheSameKeyAndTheWholeBodyAgain) {
  std::vector<std::string> keys;
  std::vector<std::string> bodies;
  net::HttpServer server;
  server.route("POST", "/artifacts", [&](const net::Request& request) {
    keys.push_back(request.headers.get_or("Idempotency-Key", ""));
    bodies.push_back(request.body);
    if (keys.size() == 1) return net::Response::text(503, "later");
    return net::Response::json(201, AnsweringServer::info(5, sha256_hex("hello")));
  });
  server.start();
  EXPECT_EQ(ArtifactStoreClient(quick(server.url())).upload("log", "hello"), "/artifacts/1");
  ASSERT_THAT(keys, SizeIs(2));
  EXPECT_EQ(keys[0], keys[1]);
  EXPECT_THAT(keys[0], Not(IsEmpty()));
  EXPECT_EQ(bodies[0], bodies[1]);
}

TEST(ArtifactStoreClient, HealthCheckNeverThrows) {
  net::HttpServer server;
  server.start();
  const std::string url = server.url();
  EXPECT_FALSE(ArtifactStoreClient(quick(url)).health_check().healthy);
  server.stop();
  EXPECT_FALSE(ArtifactStoreClient(quick(url)).health_check().healthy);
}

TEST(ArtifactStoreClient, AGivenTimeoutIsKeptAndTheDefaultIsAMinute) {
  // Tells what each request may take.
  class Recorder final : public net::HttpClient {
   public:
    net::HttpResponse send(const net::HttpRequest& request, const CallContext&) override {
      total = request.timeouts.total;
      return {200, {}, R"({"items":[]})"};
    }
    std::chrono::milliseconds total{0};
  };
  const auto recorder = std::make_shared<Recorder>();
  const auto total_with = [&](std::optional<std::chrono::milliseconds> timeout) {
    net::ServiceOptions options;
    options.base_url = ArtifactStoreClient::kDefaultUrl;
    options.http = recorder;
    options.timeout = timeout;
    ArtifactStoreClient(std::move(options)).list();
    return recorder->total;
  };
  EXPECT_EQ(total_with(std::nullopt), std::chrono::seconds{60});
  EXPECT_EQ(total_with(std::chrono::seconds{30}), std::chrono::seconds{30});
}

}  // namespace
}  // namespace necrocode::artifacts
