// The Artifact Store's calls over real HTTP, as SPEC section 3 names them.
#include "necrocode/artifacts/service.hpp"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "unit/artifacts/running_service.hpp"

namespace necrocode::artifacts {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;
using std::string_literals::operator""s;

Json json(const net::HttpResponse& response) {
  return Json::parse(response.body, "the answer");
}

std::vector<std::string> error_pointers(const net::HttpResponse& response) {
  std::vector<std::string> pointers;
  for (const Json& error : json(response)["errors"].items()) {
    pointers.push_back(error["pointer"].string_or(""));
  }
  return pointers;
}

class ArtifactServiceTest : public testing::Test {
 protected:
  Json put(const std::string& bytes, const std::string& metadata = "{}",
           const std::string& type = "log") {
    const auto answer = service_.post_form({{"name=\"file\"; filename=\"f\"", bytes},
                                            {"name=\"type\"", type},
                                            {"name=\"metadata\"", metadata}});
    EXPECT_EQ(answer.status, 201) << answer.body;
    return json(answer);
  }
  static std::string path(const Json& artifact) {
    return "/artifacts/" + artifact["id"].string_or("");
  }
  void expect_nothing_stored() {
    EXPECT_THAT(service_.files("objects"), IsEmpty());
    EXPECT_THAT(service_.files("tmp"), IsEmpty());
    EXPECT_THAT(json(service_.send("GET", "/artifacts"))["items"].items(), IsEmpty());
  }

  RunningService service_;
};

TEST_F(ArtifactServiceTest, FormAsExistingClientsSendItIsStoredAndItsUriDownloads) {
  const std::string form =
      "--b0undary\r\n"
      "Content-Disposition: form-data; name=\"type\"\r\n\r\ndiff\r\n"
      "--b0undary\r\n"
      "Content-Disposition: form-data; name=\"metadata\"\r\n\r\n"
      "{\"task_id\": \"1.1\", \"anything\": [1, 2.5, null]}\r\n"
      "--b0undary\r\n"
      "Content-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n"
      "Content-Type: application/octet-stream\r\n\r\n"
      "diff --git a b\r\n\r\n--b0undar\r\n"
      "--b0undary--\r\n";
  const auto answer = service_.send(
      "POST", "/artifacts", {{"Content-Type", "multipart/form-data; boundary=b0undary"}}, form);
  ASSERT_EQ(answer.status, 201) << answer.body;
  const Json made = json(answer);
  const std::string bytes = "diff --git a b\r\n\r\n--b0undar";
  EXPECT_EQ(made["sha256"].string_or(""), sha256_hex(bytes));
  EXPECT_EQ(made["size_bytes"].as_int(), static_cast<std::int64_t>(bytes.size()));
  EXPECT_EQ(made["uri"].string_or(""), service_.url() + path(made));
  EXPECT_EQ(answer.headers.get_or("Location", ""), made["uri"].string_or(""));
  EXPECT_THAT(made["created_at"].string_or(""),
              testing::MatchesRegex("....-..-..T..:..:..\\....Z"));
  const auto got = service_.send("GET", made["uri"].string_or(""));
  EXPECT_EQ(got.status, 200);
  EXPECT_EQ(got.body, bytes);
}

TEST_F(ArtifactServiceTest, FieldsMayComeInAnyOrder) {
  std::vector<std::pair<std::string, std::string>> parts = {
      {"name=\"file\"; filename=\"f\"", "x"},
      {"name=\"metadata\"", "{\"tags\":[\"t\"]}"},
      {"name=\"other\"", "ignored"},
      {"name=\"type\"", "log"}};
  std::sort(parts.begin(), parts.end());
  do {
    const auto answer = service_.post_form(parts);
    ASSERT_EQ(answer.status, 201) << answer.body;
    EXPECT_EQ(json(answer)["tags"].items().front().string_or(""), "t");
  } while (std::next_permutation(parts.begin(), parts.end()));
}

TEST_F(ArtifactServiceTest, MetadataIsOptionalAndRoundTripsUnchanged) {
  for (const char* empty : {"", " ", "null", "{}"}) {
    EXPECT_EQ(put("x", empty)["metadata"], Json::object()) << empty;
  }
  const std::string metadata = R"({"b":[1,{"c":"ü\u0000"}],"a":1.5,"name":"n","unknown":null})";
  const Json made = put("x", metadata);
  const auto answer =
      service_.send("GET", "/artifacts/metadata?uri=" + percent_encode(made["uri"].string_or("")));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(json(answer)["metadata"], Json::parse(metadata));
  EXPECT_EQ(json(answer), made);
}

TEST_F(ArtifactServiceTest, EveryDefectOfAFormIsToldAtOnceAndNothingIsStored) {
  auto answer = service_.post_form({{"name=\"other\"", "x"}});
  EXPECT_EQ(answer.status, 422);
  EXPECT_THAT(error_pointers(answer), testing::ElementsAre("/file", "/type"));
  answer = service_.post_form(
      {{"name=\"file\"; filename=\"f\"", "x"},
       {"name=\"type\"", "../log"},
       {"name=\"metadata\"", R"({"name":7,"tags":[1,""],"task_id":"a:1","spec_name":"b"})"}});
  EXPECT_EQ(answer.status, 422);
  EXPECT_THAT(error_pointers(answer),
              testing::UnorderedElementsAre("/metadata/task_id", "/metadata/name",
                                            "/metadata/tags/0", "/metadata/tags", "/type"));
  EXPECT_EQ(answer.headers.get_or("Content-Type", ""), "application/problem+json");
  expect_nothing_stored();
}

TEST_F(ArtifactServiceTest, MetadataThatIsNoObjectIsRefused) {
  const auto status_with = [this](const std::string& metadata) {
    return service_
        .post_form({{"name=\"file\"; filename=\"f\"", "x"},
                    {"name=\"type\"", "log"},
                    {"name=\"metadata\"", metadata}})
        .status;
  };
  for (const char* metadata : {"[]", "1", "\"x\""})
    EXPECT_EQ(status_with(metadata), 422) << metadata;
  for (const char* metadata : {"{", "{} {}", "\xff"})
    EXPECT_EQ(status_with(metadata), 400) << metadata;
  expect_nothing_stored();
}

TEST_F(ArtifactServiceTest, MetadataNestedTooDeeplyIsRefusedAndTheDeepestIsTold) {
  const auto nested = [](std::size_t depth) {
    return "{\"a\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  const auto refused =
      service_.post_form({{"name=\"file\"; filename=\"f\"", "x"},
                          {"name=\"type\"", "log"},
                          {"name=\"metadata\"", nested(limits::kFreeJsonDepth + 1)}});
  EXPECT_EQ(refused.status, 422);
  EXPECT_THAT(error_pointers(refused), testing::ElementsAre("/metadata"));
  expect_nothing_stored();
  put("x", nested(limits::kFreeJsonDepth));
  EXPECT_EQ(json(service_.send("GET", "/artifacts"))["items"].size(), 1u);
}

TEST_F(ArtifactServiceTest, FieldsAboveTheirLimitsAreRefused) {
  const std::string big(limits::kMultipartFieldBytes + 1, 'x');
  EXPECT_EQ(
      service_.post_form({{"name=\"file\"; filename=\"f\"", "x"}, {"name=\"type\"", big}}).status,
      413);
  const std::string metadata = "{\"a\":\"" + std::string(limits::kMetadataBytes, 'x') + "\"}";
  EXPECT_EQ(service_
                .post_form({{"name=\"file\"; filename=\"f\"", "x"},
                            {"name=\"type\"", "log"},
                            {"name=\"metadata\"", metadata}})
                .status,
            422);
  const std::string other(limits::kArtifactFormBytes + 1, 'x');
  EXPECT_EQ(service_.post_form({{"name=\"other\"", other}}).status, 413);
  expect_nothing_stored();
}

TEST_F(ArtifactServiceTest, RepeatedFieldsAreRefused) {
  const std::pair<std::string, std::string> file{"name=\"file\"; filename=\"f\"", "x"};
  const std::pair<std::string, std::string> type{"name=\"type\"", "log"};
  const std::pair<std::string, std::string> metadata{"name=\"metadata\"", "{}"};
  EXPECT_EQ(service_.post_form({file, file, type}).status, 422);
  EXPECT_EQ(service_.post_form({file, type, type}).status, 422);
  EXPECT_EQ(service_.post_form({file, type, metadata, metadata}).status, 422);
  expect_nothing_stored();
}

TEST_F(ArtifactServiceTest, WhatIsNoFormIsRefused) {
  const std::string form =
      RunningService::form_body({{"name=\"file\"; filename=\"f\"", "x"}, {"name=\"type\"", "log"}});
  const auto post = [&](const char* type, const std::string& body) {
    return service_.send("POST", "/artifacts", {{"Content-Type", type}}, body).status;
  };
  EXPECT_EQ(post("application/json", "{}"), 415);
  EXPECT_EQ(post("multipart/form-data", form), 400);
  EXPECT_EQ(post("multipart/form-data; boundary=other", form), 400);
  EXPECT_EQ(post("multipart/form-data; boundary=XyZ", form.substr(0, form.size() - 6)), 400);
  EXPECT_EQ(post("multipart/form-data; boundary=XyZ", ""), 400);
  expect_nothing_stored();
}

TEST_F(ArtifactServiceTest, HostileNamesAreData) {
  const std::string long_name(5000, 'n');
  for (const std::string& name :
       {"../../x"s, "..\\\\..\\\\x"s, "/etc/passwd"s, long_name, "a\0b"s}) {
    const auto answer = service_.post_form(
        {{"name=\"file\"; filename=\"" + name + "\"", "bytes"}, {"name=\"type\"", "log"}});
    // A NUL has no place in a header; wherever it stands, nothing may come of it but a refusal.
    EXPECT_EQ(answer.status, name.find('\0') == std::string::npos ? 201 : 400) << name;
  }
  const Json made = put("bytes", R"({"name":"../../x"})");
  EXPECT_EQ(made["name"].string_or(""), "../../x");
  EXPECT_THAT(service_.files("objects"), SizeIs(1));
  const auto got = service_.send("GET", path(made));
  EXPECT_THAT(got.headers.get_or("Content-Disposition", ""), HasSubstr("''.._.._x"));
  const auto refused =
      service_.post_form({{"name=\"file\"; filename=\"f\"", "x"},
                          {"name=\"type\"", "log"},
                          {"name=\"metadata\"", "{\"name\":\"" + long_name + "\"}"}});
  EXPECT_EQ(refused.status, 422);
  for (const char* target : {"/artifacts/..%2f..%2fetc", "/artifacts/%00", "/artifacts/.."}) {
    const int status = service_.send("GET", target).status;
    EXPECT_TRUE(status == 400 || status == 404) << target << " " << status;
  }
}

TEST_F(ArtifactServiceTest, CutUploadLeavesNothing) {
  const std::string body = RunningService::form_body(
      {{"name=\"type\"", "log"}, {"name=\"file\"; filename=\"f\"", std::string(200'000, 'x')}});
  const FileDescriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(service_.port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  write_all(socket.get(),
            "POST /artifacts HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; "
            "boundary=XyZ\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n\r\n");
  write_all(socket.get(), std::string_view(body).substr(0, 100'000));
  ::shutdown(socket.get(), SHUT_WR);
  // The answer, if there is one, or the end: after it the handler is done with the upload.
  std::string answer;
  char buffer[4096];
  for (ssize_t got; (got = ::read(socket.get(), buffer, sizeof buffer)) > 0;) {
    answer.append(buffer, static_cast<std::size_t>(got));
  }
  EXPECT_THAT(answer, testing::AnyOf(IsEmpty(), StartsWith("HTTP/1.1 400")));
  expect_nothing_stored();
}

TEST_F(ArtifactServiceTest, AnnouncedDigestIsChecked) {
  const std::vector<std::pair<std::string, std::string>> parts = {
      {"name=\"file\"; filename=\"f\"", "x"}, {"name=\"type\"", "log"}};
  const std::string whole = sha256_hex(RunningService::form_body(parts));
  for (const char* field : {"Content-Digest", "Repr-Digest"}) {
    EXPECT_EQ(service_.post_form(parts, {{field, content_digest_header(sha256_hex("y"))}}).status,
              400);
    EXPECT_EQ(service_.post_form(parts, {{field, "sha-256=:junk:"}}).status, 400);
  }
  expect_nothing_stored();
  EXPECT_EQ(service_.post_form(parts, {{"Content-Digest", content_digest_header(whole)}}).status,
            201);
  EXPECT_EQ(
      service_.post_form(parts, {{"Repr-Digest", content_digest_header(sha256_hex("x"))}}).status,
      201);
}

TEST_F(ArtifactServiceTest, PutStoresTheRawBodyUnderItsPlace) {
  const auto answer = service_.send("PUT", "/artifacts/chat-app/1.1/log/run%20%C3%BC.log",
                                    {{"Content-Type", "text/plain"}}, "raw\r\nbytes");
  ASSERT_EQ(answer.status, 201) << answer.body;
  const Json made = json(answer);
  EXPECT_EQ(made["task_id"].string_or(""), "chat-app:1.1");
  EXPECT_EQ(made["name"].string_or(""), "run ü.log");
  EXPECT_EQ(made["type"].string_or(""), "log");
  const auto got = service_.send("GET", path(made));
  EXPECT_EQ(got.body, "raw\r\nbytes");
  EXPECT_EQ(got.headers.get_or("Content-Type", ""), "text/plain");
  EXPECT_EQ(service_.send("PUT", "/artifacts/chat-app/chat-app:1.1/log/x", {}, "").status, 201);
}

TEST_F(ArtifactServiceTest, PutRefusesWrongPlacesDigestsAndEncodings) {
  const auto put_to = [&](const char* target, net::Headers headers = {}) {
    return service_.send("PUT", target, std::move(headers), "x").status;
  };
  EXPECT_EQ(put_to("/artifacts/a/other:1/log/n"), 422);
  EXPECT_EQ(put_to("/artifacts/-a/1/log/n"), 422);
  EXPECT_EQ(put_to("/artifacts/a/1/l%20og/n"), 422);
  EXPECT_EQ(put_to("/artifacts/a/1/log/%ff"), 400);
  EXPECT_EQ(put_to("/artifacts/a/1/log/..%2fn"), 400);
  EXPECT_EQ(put_to("/artifacts/a/1/log/n", {{"Content-Encoding", "gzip"}}), 415);
  EXPECT_EQ(
      put_to("/artifacts/a/1/log/n", {{"Content-Digest", content_digest_header(sha256_hex("y"))}}),
      400);
  expect_nothing_stored();
  EXPECT_EQ(
      put_to("/artifacts/a/1/log/n", {{"Content-Digest", content_digest_header(sha256_hex("x"))}}),
      201);
}

TEST_F(ArtifactServiceTest, SameTaskTypeAndNameReplaces) {
  const auto first = json(service_.send("PUT", "/artifacts/a/1/log/n", {}, "old"));
  const Json second = put("new", R"({"task_id":"a:1","name":"n"})");
  EXPECT_EQ(service_.send("GET", path(first)).status, 404);
  EXPECT_EQ(service_.send("GET", path(second)).body, "new");
  EXPECT_NE(first["id"], second["id"]);
}

TEST_F(ArtifactServiceTest, DownloadCarriesDigestsTagAndProtection) {
  const Json made = put("hello", R"({"mime_type":"text/html"})");
  for (const char* method : {"GET", "HEAD"}) {
    const auto got = service_.send(method, path(made));
    EXPECT_EQ(got.status, 200);
    const std::string digest = sha256_hex("hello");
    EXPECT_EQ(got.headers.get_or("ETag", ""), "\"" + digest + "\"");
    EXPECT_EQ(got.headers.get_or("Content-Digest", ""), content_digest_header(digest));
    EXPECT_EQ(got.headers.get_or("Content-Length", ""), "5");
    EXPECT_EQ(got.headers.get_or("Accept-Ranges", ""), "bytes");
    EXPECT_EQ(got.headers.get_or("Content-Type", ""), "text/html");
    EXPECT_THAT(got.headers.get_or("Content-Disposition", ""), StartsWith("attachment"));
    EXPECT_EQ(got.headers.get_or("X-Content-Type-Options", ""), "nosniff");
    EXPECT_THAT(got.headers.get_or("Content-Security-Policy", ""), HasSubstr("sandbox"));
    EXPECT_EQ(got.body, method == "GET"s ? "hello" : "");
  }
  EXPECT_EQ(service_.send("GET", path(put("x"))).headers.get_or("Content-Type", ""),
            "application/octet-stream");
}

TEST_F(ArtifactServiceTest, SingleRangesAreServed) {
  const Json made = put("0123456789");
  const auto get = [&](const char* range) {
    return service_.send("GET", path(made), {{"Range", range}});
  };
  auto got = get("bytes=2-4");
  EXPECT_EQ(got.status, 206);
  EXPECT_EQ(got.body, "234");
  EXPECT_EQ(got.headers.get_or("Content-Range", ""), "bytes 2-4/10");
  EXPECT_EQ(got.headers.get_or("Content-Length", ""), "3");
  EXPECT_FALSE(got.headers.get("Content-Digest"));
  EXPECT_TRUE(got.headers.get("Repr-Digest"));
  EXPECT_EQ(get("bytes=-3").body, "789");
  EXPECT_EQ(get("bytes=8-").body, "89");
  got = get("bytes=10-");
  EXPECT_EQ(got.status, 416);
  EXPECT_EQ(got.headers.get_or("Content-Range", ""), "bytes */10");
  got = get("bytes=0-1,3-4");
  EXPECT_EQ(got.status, 200);
  EXPECT_EQ(got.body, "0123456789");
}

TEST_F(ArtifactServiceTest, RangeHoldsOnlyForTheBytesItWasAskedOf) {
  const Json made = put("0123456789");
  const std::string etag = "\"" + made["sha256"].string_or("") + "\"";
  EXPECT_EQ(service_.send("GET", path(made), {{"Range", "bytes=0-0"}, {"If-Range", etag}}).status,
            206);
  EXPECT_EQ(
      service_.send("GET", path(made), {{"Range", "bytes=0-0"}, {"If-Range", "\"x\""}}).status,
      200);
}

TEST_F(ArtifactServiceTest, KnownBytesAreNotSentAgain) {
  const Json made = put("hello");
  const std::string etag = "\"" + made["sha256"].string_or("") + "\"";
  const auto got = service_.send("GET", path(made), {{"If-None-Match", "\"x\", W/" + etag}});
  EXPECT_EQ(got.status, 304);
  EXPECT_EQ(got.body, "");
  EXPECT_EQ(got.headers.get_or("ETag", ""), etag);
  EXPECT_EQ(service_.send("GET", path(made), {{"If-None-Match", "\"x\""}}).status, 200);
}

TEST_F(ArtifactServiceTest, MetadataComparesOnlyThePathOfTheUri) {
  const Json made = put("x");
  const auto ask = [&](const std::string& query) {
    return service_.send("GET", "/artifacts/metadata" + query).status;
  };
  EXPECT_EQ(ask("?uri=https%3A%2F%2Felsewhere" + percent_encode(path(made))), 200);
  EXPECT_EQ(ask("?uri=" + percent_encode(path(made))), 200);
  EXPECT_EQ(ask("?uri=" + percent_encode(path(made) + "?a=b#c")), 200);
  EXPECT_EQ(ask(""), 400);
  EXPECT_EQ(ask("?uri=a&uri=b"), 400);
  for (const char* uri :
       {"", "x", "http://h", "/artifacts/", "/artifacts/unknown", "/other/x", "%zz"}) {
    EXPECT_EQ(ask("?uri=" + percent_encode(uri)), 404) << uri;
  }
  service_.service().set_public_url("https://proxy.example/store");
  EXPECT_EQ(ask("?uri=" + percent_encode("https://proxy.example/store" + path(made))), 200);
  EXPECT_THAT(put("y")["uri"].string_or(""), StartsWith("https://proxy.example/store/artifacts/"));
}

TEST_F(ArtifactServiceTest, ListFiltersAndPages) {
  for (int i = 0; i < 5; ++i) {
    put(std::to_string(i), R"({"task_id":"a:1","tags":["t)" + std::to_string(i % 2) + "\"]}");
  }
  put("other", R"({"task_id":"2","spec_name":"a"})", "diff");
  const auto count = [&](const std::string& query) {
    return json(service_.send("GET", "/artifacts" + query))["items"].size();
  };
  EXPECT_EQ(count(""), 6U);
  EXPECT_EQ(count("?task=a:1"), 5U);
  EXPECT_EQ(count("?task=1"), 5U);
  EXPECT_EQ(count("?task=1&spec=b"), 0U);
  EXPECT_EQ(count("?spec=a&task=2"), 1U);
  EXPECT_EQ(count("?type=diff"), 1U);
  EXPECT_EQ(count("?tag=t0&type=log"), 3U);
  EXPECT_EQ(count("?since=2100-01-01T00:00:00Z"), 0U);
  EXPECT_EQ(count("?since=1"), 6U);
  EXPECT_EQ(count("?until=86400.5"), 0U);

  std::vector<std::string> seen;
  std::string cursor;
  do {
    const Json page = json(service_.send("GET", "/artifacts?limit=4" + cursor));
    for (const Json& item : page["items"].items()) seen.push_back(item["id"].string_or(""));
    cursor = page["next_cursor"].is_null() ? "" : "&cursor=" + page["next_cursor"].string_or("");
  } while (!cursor.empty());
  EXPECT_THAT(seen, SizeIs(6));
  EXPECT_EQ(std::set<std::string>(seen.begin(), seen.end()).size(), 6U);
}

TEST_F(ArtifactServiceTest, ListRefusesWhatItDoesNotUnderstand) {
  for (const char* query : {"?limit=0", "?limit=1001", "?limit=x", "?cursor=x", "?cursor=-1",
                            "?since=yesterday", "?until=", "?task=a:1&spec=b"}) {
    EXPECT_EQ(service_.send("GET", "/artifacts"s + query).status, 422) << query;
  }
}

TEST_F(ArtifactServiceTest, DeletedArtifactIsGoneAndItsBytesToo) {
  const Json made = put("x");
  EXPECT_EQ(service_.send("DELETE", path(made)).status, 204);
  EXPECT_EQ(service_.send("DELETE", path(made)).status, 404);
  EXPECT_EQ(service_.send("GET", path(made)).status, 404);
  expect_nothing_stored();
}

TEST_F(ArtifactServiceTest, TagsAreChanged) {
  const Json made = put("x", R"({"tags":["a"]})");
  const net::Headers headers{{"Content-Type", "application/json"}};
  const auto answer =
      service_.send("PATCH", path(made), headers, R"({"tags":["b","c","b"],"id":"x"})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(json(answer)["tags"].dump(), R"(["b","c"])");
  EXPECT_EQ(json(answer)["metadata"].dump(), R"({"tags":["a"]})");
  EXPECT_EQ(service_.send("PATCH", path(made), headers, "{}").status, 422);
  EXPECT_EQ(service_.send("PATCH", path(made), headers, R"({"tags":"b"})").status, 422);
  EXPECT_EQ(service_.send("PATCH", path(made), headers, "{").status, 400);
  EXPECT_EQ(service_.send("PATCH", "/artifacts/unknown", headers, R"({"tags":[]})").status, 404);
}

TEST_F(ArtifactServiceTest, UsageAddsUpBySpecAndType) {
  put("12345", R"({"task_id":"a:1"})");
  put("12345", R"({"task_id":"a:2"})");
  put("123");
  const Json usage = json(service_.send("GET", "/artifacts/usage"));
  EXPECT_EQ(usage["count"].as_int(), 3);
  EXPECT_EQ(usage["size_bytes"].as_int(), 13);
  EXPECT_EQ(usage["stored_bytes"].as_int(), 8);
  EXPECT_EQ(usage["items"].items()[0].dump(),
            R"({"spec":null,"type":"log","count":1,"size_bytes":3})");
  EXPECT_EQ(usage["items"].items()[1].dump(),
            R"({"spec":"a","type":"log","count":2,"size_bytes":10})");
}

TEST_F(ArtifactServiceTest, IdempotencyKeyGivesTheFirstAnswerAgain) {
  const std::vector<std::pair<std::string, std::string>> parts = {
      {"name=\"file\"; filename=\"f\"", "x"}, {"name=\"type\"", "log"}};
  const net::Headers key{{"Idempotency-Key", "k"}};
  const auto first = service_.post_form(parts, key);
  const auto again = service_.post_form(parts, key);
  EXPECT_EQ(again.status, 201);
  EXPECT_EQ(json(first), json(again));
  // A key belongs to its route: there it is another's.
  EXPECT_EQ(service_.send("PUT", "/artifacts/a/1/log/n", key, "x").status, 201);
  EXPECT_EQ(service_.send("PUT", "/artifacts/a/1/log/n", key, "y").status, 422);
  EXPECT_EQ(service_.post_form({parts[0], {"name=\"type\"", "diff"}}, key).status, 422);
  EXPECT_EQ(service_.post_form(parts, {{"Idempotency-Key", std::string(256, 'k')}}).status, 400);
  EXPECT_EQ(json(service_.send("GET", "/artifacts"))["items"].size(), 2U);
}

TEST_F(ArtifactServiceTest, DamagedObjectIsALoudErrorThatTellsNoPath) {
  const Json made = put("hello");
  fs::resize_file(service_.files("objects").front(), 3);
  testing::internal::CaptureStderr();
  const auto got = service_.send("GET", path(made));
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(got.status, 500);
  EXPECT_THAT(got.body, Not(HasSubstr(service_.root().string())));
  EXPECT_THAT(log, HasSubstr("damaged"));
}

TEST_F(ArtifactServiceTest, HealthNamesWhatIsWrong) {
  std::string detail;
  EXPECT_TRUE(service_.service().healthy(detail));
  fs::remove_all(service_.root() / "objects");
  EXPECT_FALSE(service_.service().healthy(detail));
  EXPECT_THAT(detail, HasSubstr("objects"));
}

TEST_F(ArtifactServiceTest, CallsThatComeLaterAreUnknown) {
  const Json made = put("x");
  EXPECT_EQ(service_.send("GET", path(made) + "/versions").status, 404);
  EXPECT_EQ(service_.send("GET", "/artifacts/export?spec=a").status, 404);
}

}  // namespace
}  // namespace necrocode::artifacts
