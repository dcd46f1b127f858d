#include "necrocode/artifacts/service.hpp"

#include <functional>
#include <utility>

#include "necrocode/artifacts/content_headers.hpp"
#include "necrocode/artifacts/upload_form.hpp"
#include "necrocode/base/digest.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/json_schema.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/net/idempotency.hpp"
#include "necrocode/net/request_fields.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::artifacts {
namespace {

using net::HttpError;
using net::Request;
using net::Response;

constexpr std::string_view kPathPrefix = "/artifacts/";
/// Between two looks at the open logs; what is not on disk yet is about so much.
constexpr std::chrono::seconds kLogSyncTime{1};
constexpr std::chrono::seconds kFollowWaitMax{300};

/// By what the store finds the first answer; "" without a key. The store compares the uploads.
std::string key_name(const Request& request) {
  const auto key = net::read_idempotency_key(request);
  return key ? key->name : std::string();
}

void refuse_digest_mismatch() {
  throw HttpError(400, "the body does not match the digest it was sent with");
}

void refuse_encoding(const Request& request) {
  if (iequals(request.headers.get_or("Content-Encoding", "identity"), "identity")) return;
  throw HttpError(415, "send the bytes without Content-Encoding");
}

[[noreturn]] void refuse_range(const ByteRange& range, std::uint64_t size) {
  HttpError error(416, "the range begins behind the last byte");
  error.headers.set("Content-Range", content_range(range, size));
  throw error;
}

HttpError no_such_artifact(std::string_view id) {
  return HttpError(404, "there is no artifact " + printable(shorten(id, 100)));
}

// "/prefix/artifacts/ID" of whatever form a uri has; nothing for text that is no uri.
std::optional<std::string> path_of(std::string_view uri) {
  uri = uri.substr(0, uri.find_first_of("?#"));
  if (const std::size_t scheme = uri.find("://"); scheme != std::string_view::npos) {
    const std::size_t slash = uri.find('/', scheme + 3);
    if (slash == std::string_view::npos) return std::nullopt;
    uri.remove_prefix(slash);
  }
  return percent_decode(uri);
}

ArtifactFilter read_filter(net::QueryFields& query) {
  ArtifactFilter filter;
  filter.spec = query.text("spec").value_or("");
  filter.task = query.text("task").value_or("");
  if (const auto id = TaskId::parse(filter.task)) {
    if (!filter.spec.empty() && filter.spec != id->spec()) {
      query.fail("task", "belongs to another spec");
    }
    filter.spec = id->spec();
    filter.task = id->number();
  }
  filter.type = query.text("type").value_or("");
  filter.tag = query.text("tag").value_or("");
  filter.since = query.time("since");
  filter.until = query.time("until");
  filter.limit = static_cast<std::size_t>(
      query.integer("limit", 1, limits::kPageSizeMax).value_or(limits::kPageSizeDefault));
  filter.before = query.integer("cursor", 1).value_or(INT64_MAX);
  return filter;
}

std::string read_uri(net::QueryFields& query) {
  return query.required_text("uri");
}

/// What of a log, and how, is asked for beside its bytes so far.
struct Following {
  bool follow = false;
  std::uint64_t offset = 0;
  std::optional<std::chrono::seconds> silence;
};

Following read_following(net::QueryFields& query) {
  Following following;
  following.follow = query.choice("follow", {"0", "1"}) == "1";
  following.offset = static_cast<std::uint64_t>(query.integer("offset", 0).value_or(0));
  if (const auto wait = query.integer("wait_seconds", 1, kFollowWaitMax.count())) {
    following.silence = std::chrono::seconds(*wait);
  }
  return following;
}

std::uint64_t read_offset(net::QueryFields& query) {
  return static_cast<std::uint64_t>(query.required_integer("offset", 0));
}

struct LogRequest {
  std::string type;
  Json metadata;
  std::chrono::seconds lease = kLogLease;
};

LogRequest read_log_request(JsonFields& fields) {
  LogRequest log;
  log.type = fields.required_string("type", limits::kNameBytes);
  log.metadata = fields.object("metadata");
  if (const auto lease = fields.integer("lease_seconds", 1, kLogLeaseMax.count())) {
    log.lease = std::chrono::seconds(*lease);
  }
  return log;
}

std::vector<std::string> read_change_of_tags(JsonFields& fields) {
  fields.require("tags");
  return read_tags(fields);
}

// What the path of a PUT says, in the words that metadata would use.
Json metadata_from_path(const Request& request) {
  Json metadata = Json::object({{"spec_name", request.param("spec")},
                                {"task_id", request.param("task")},
                                {"name", request.param("name")}});
  if (const auto type = request.headers.get("Content-Type")) metadata.set("mime_type", *type);
  return metadata;
}

void check_path_names(const Request& request) {
  std::vector<FieldError> errors;
  const std::string& spec = request.param("spec");
  const std::string& task = request.param("task");
  if (!is_plain_name(spec)) errors.push_back({"/spec", "is not a spec's name"});
  if (!is_plain_name(task) && !TaskId::parse(task)) errors.push_back({"/task", "is not a task id"});
  if (!errors.empty()) throw HttpError(422, "invalid path", std::move(errors));
}

// The schemas of answers.
void define_schemas(net::Api& api) {
  using namespace schema;
  api.define("Artifact", object({{"uri", text()},
                                 {"id", text()},
                                 {"size_bytes", integer()},
                                 {"sealed", boolean()},
                                 {"created_at", time()},
                                 {"type", text()},
                                 {"name", text()},
                                 {"metadata", free_object()},
                                 {"tags", list(text())}},
                                {{"sha256", text()}, {"spec_name", text()}, {"task_id", text()}}));
  const Json group = object({{"spec", or_null(text())},
                             {"type", text()},
                             {"count", integer()},
                             {"size_bytes", integer()}});
  api.define("ArtifactUsage", object({{"count", integer()},
                                      {"size_bytes", integer()},
                                      {"stored_bytes", integer()},
                                      {"items", list(group)}}));
}

Response content_answer(const Artifact& artifact, StoredBytes bytes, const ByteRange& range) {
  Response response;
  response.headers.set("Accept-Ranges", "bytes");
  // A sealed artifact never changes, but it can be deleted: ask each time. Of an open log no digest
  // holds: the next answer has other bytes.
  response.headers.set("Cache-Control", artifact.sealed ? "private, no-cache" : "no-store");
  if (artifact.sealed) {
    response.headers.set("ETag", "\"" + artifact.sha256 + "\"");
    response.headers.set("Repr-Digest", content_digest_header(artifact.sha256));
  }
  add_safe_content_headers(response.headers, artifact.metadata["mime_type"].string_or(""),
                           artifact.name);
  if (range.kind == ByteRange::Kind::kPart) {
    response.status = 206;
    response.headers.set("Content-Range", content_range(range, bytes.size_bytes));
  } else if (artifact.sealed) {
    // Of the bytes in this message (RFC 9530 section 2), hence not for a part.
    response.headers.set("Content-Digest", content_digest_header(artifact.sha256));
  }
  auto body = std::make_shared<net::FileBody>();
  body->fd = std::move(bytes.file);
  body->offset = range.offset;
  body->size = range.size;
  response.body = std::move(body);
  return response;
}

}  // namespace

ArtifactService::ArtifactService(std::unique_ptr<ArtifactStore> store, std::string public_url)
    : store_(std::move(store)),
      public_url_(std::move(public_url)),
      feeds_(*store_),
      tending_([this](const std::stop_token& stop) { tend_logs(stop); }) {}

void ArtifactService::tend_logs(const std::stop_token& stop) {
  while (real_clock().sleep_for(kLogSyncTime, stop)) {
    try {
      store_->tend_logs();
    } catch (const std::exception& error) {
      log::error("open logs cannot be looked after", {{"reason", error.what()}});
    }
  }
}

void ArtifactService::add_metrics(metrics::Registry& registry) {
  const auto by_type = [this](auto what) {
    return [this, what] {
      std::map<std::string, double> sums;
      for (const ArtifactUsage::Group& group : store_->usage().groups) {
        sums[group.type] += static_cast<double>(group.*what);
      }
      std::vector<metrics::Sample> samples;
      for (const auto& [type, sum] : sums) samples.push_back({{{"type", type}}, sum});
      if (samples.size() > limits::kMetricSeries) samples.resize(limits::kMetricSeries);
      return samples;
    };
  };
  registry.gauge("necrocode_artifacts", "Artifacts by type.",
                 by_type(&ArtifactUsage::Group::count));
  registry.gauge("necrocode_artifact_bytes", "Their sizes together.",
                 by_type(&ArtifactUsage::Group::size_bytes));
  const auto in_all = [this](auto what) {
    return [this, what] {
      return std::vector<metrics::Sample>{{{}, static_cast<double>(store_->usage().*what)}};
    };
  };
  registry.gauge("necrocode_artifact_stored_bytes", "Bytes on disk, each content once.",
                 in_all(&ArtifactUsage::stored_bytes));
  registry.gauge("necrocode_artifact_open_logs", "Logs that are not sealed.",
                 in_all(&ArtifactUsage::open_logs));
}

void ArtifactService::add_routes(net::Api& api) {
  using schema::ref;
  const auto route = [&](Response (ArtifactService::*handler)(const Request&),
                         net::Operation operation, net::RouteOptions options = {}) {
    api.route(std::move(operation), std::bind_front(handler, this), options);
  };
  const net::RouteOptions form{limits::kArtifactBytes + limits::kArtifactFormBytes, true, false};
  const net::RouteOptions raw{limits::kArtifactBytes, true, false};

  api.begin_part("Artifact Store", "What runs leave behind: diffs, logs, test reports.");
  define_schemas(api);
  route(&ArtifactService::create_from_form,
        {.method = "POST",
         .path = "/artifacts",
         .id = "uploadArtifact",
         .summary = "Store a file, hashed and synced before the answer",
         .headers = {"Idempotency-Key", "Content-Digest", "Repr-Digest"},
         .body = schema::object({{"file", schema::text()}, {"type", schema::text()}},
                                {{"metadata", schema::text()}}),
         .body_type = "multipart/form-data",
         .answers = {{201, ref("Artifact"), {"Location"}}},
         .errors = {409, 415}},
        form);
  route(&ArtifactService::create_from_body,
        {.method = "PUT",
         .path = "/artifacts/{spec}/{task}/{type}/{name}",
         .id = "putArtifact",
         .summary = "Store the body as it is, of any size",
         .headers = {"Idempotency-Key", "Content-Digest", "Repr-Digest"},
         .body = Json::object(),
         .body_type = "application/octet-stream",
         .answers = {{201, ref("Artifact"), {"Location"}}},
         .errors = {409, 415}},
        raw);
  route(&ArtifactService::list, {.method = "GET",
                                 .path = "/artifacts",
                                 .id = "listArtifacts",
                                 .summary = "A page of artifacts, newest first",
                                 .query = net::describe_query(read_filter),
                                 .answers = {{200, schema::page(ref("Artifact"))}}});
  route(&ArtifactService::usage, {.method = "GET",
                                  .path = "/artifacts/usage",
                                  .id = "getArtifactUsage",
                                  .summary = "How much is stored, by spec and type",
                                  .answers = {{200, ref("ArtifactUsage")}}});
  route(&ArtifactService::metadata, {.method = "GET",
                                     .path = "/artifacts/metadata",
                                     .id = "getArtifactMetadata",
                                     .summary = "What is known of an artifact, by its uri",
                                     .query = net::describe_query(read_uri),
                                     .answers = {{200, ref("Artifact")}},
                                     .errors = {404}});
  route(&ArtifactService::content, {.method = "GET",
                                    .path = "/artifacts/{id}",
                                    .id = "downloadArtifact",
                                    .summary = "An artifact's bytes, under its own media type",
                                    .headers = {"Range", "If-Range", "If-None-Match"},
                                    .query = net::describe_query(read_following),
                                    .answers = {{200, Json::object(), {}, "*/*"},
                                                {206, Json::object(), {"Content-Range"}, "*/*"},
                                                {304, {}, {"ETag"}}},
                                    .errors = {404, 416}});
  route(&ArtifactService::open_log,
        {.method = "POST",
         .path = "/artifacts/logs",
         .id = "openLog",
         .summary = "Begin a log, an artifact that grows until it is sealed",
         .headers = {"Idempotency-Key"},
         .body = describe_fields(read_log_request),
         .answers = {{201, ref("Artifact"), {"Location"}}}});
  const Json grown = schema::object({{"size_bytes", schema::integer()}});
  route(&ArtifactService::append, {.method = "POST",
                                   .path = "/artifacts/{id}/append",
                                   .id = "appendToLog",
                                   .summary = "Append the body to a log, and renew its lease",
                                   .query = net::describe_query(read_offset),
                                   .body = Json::object(),
                                   .body_type = "application/octet-stream",
                                   .answers = {{200, grown}},
                                   .errors = {404, 409, 415}});
  route(&ArtifactService::seal, {.method = "POST",
                                 .path = "/artifacts/{id}/seal",
                                 .id = "sealLog",
                                 .summary = "Append the body to a log, and end it",
                                 .query = net::describe_query(read_offset),
                                 .body = Json::object(),
                                 .body_type = "application/octet-stream",
                                 .answers = {{200, ref("Artifact")}},
                                 .errors = {404, 409, 415}});
  route(&ArtifactService::remove, {.method = "DELETE",
                                   .path = "/artifacts/{id}",
                                   .id = "deleteArtifact",
                                   .summary = "Delete an artifact; its id is never used again",
                                   .answers = {{204}},
                                   .errors = {404}});
  route(&ArtifactService::change_tags, {.method = "PATCH",
                                        .path = "/artifacts/{id}",
                                        .id = "tagArtifact",
                                        .summary = "Replace an artifact's tags",
                                        .body = describe_fields(read_change_of_tags),
                                        .answers = {{200, ref("Artifact")}},
                                        .errors = {404}});
}

void ArtifactService::set_public_url(std::string public_url) {
  std::lock_guard guard(url_mutex_);
  public_url_ = std::move(public_url);
}

std::string ArtifactService::public_url() const {
  std::lock_guard guard(url_mutex_);
  return public_url_;
}

bool ArtifactService::healthy(std::string& detail) {
  try {
    store_->check();
    detail = "ok";
    return true;
  } catch (const std::exception& error) {
    detail = error.what();
    return false;
  }
}

std::string ArtifactService::uri(const Artifact& artifact) const {
  return public_url() + std::string(kPathPrefix) + artifact.id.value;
}

Json ArtifactService::to_json(const Artifact& artifact) const {
  Json json = Json::object({{"uri", uri(artifact)},
                            {"id", artifact.id.value},
                            {"size_bytes", artifact.size_bytes},
                            {"sealed", artifact.sealed},
                            {"created_at", to_rfc3339(artifact.created_at)},
                            {"type", artifact.type},
                            {"name", artifact.name},
                            {"metadata", artifact.metadata},
                            {"tags", artifact.tags}});
  if (artifact.sealed) json.set("sha256", artifact.sha256);
  if (!artifact.spec.empty()) json.set("spec_name", artifact.spec);
  if (!artifact.task.empty()) {
    const auto full = TaskId::make(artifact.spec, artifact.task);
    json.set("task_id", full ? full->str() : artifact.task);
  }
  return json;
}

Response ArtifactService::created(const Artifact& artifact) const {
  Response response = Response::json(201, to_json(artifact));
  response.headers.set("Location", uri(artifact));
  return response;
}

Artifact ArtifactService::must_find(const std::string& id) const {
  auto artifact = store_->find(ArtifactId{id});
  if (!artifact) throw no_such_artifact(id);
  return *std::move(artifact);
}

Response ArtifactService::create_from_form(const Request& request) {
  const AnnouncedDigest announced(request.headers);
  const std::string key = key_name(request);
  const auto upload = store_->begin_upload();
  ReceivedForm form = receive_form(request, *upload, announced.present());
  const ContentDigest digest = upload->finish();
  // By RFC 9530 the digest is of the form; clients that mean the file's are understood as well.
  if (!announced.matches(form.body_sha256) && !announced.matches(digest.sha256)) {
    refuse_digest_mismatch();
  }
  form.draft.idempotency_key = key;
  try {
    return created(upload->publish(form.draft));
  } catch (const IdempotencyMismatch& error) {
    throw HttpError(422, error.summary());
  }
}

Response ArtifactService::create_from_body(const Request& request) {
  check_path_names(request);
  ArtifactDraft draft = make_draft(request.param("type"), metadata_from_path(request));
  draft.idempotency_key = key_name(request);
  refuse_encoding(request);
  const AnnouncedDigest announced(request.headers);
  const auto upload = store_->begin_upload();
  for (std::string piece; !(piece = request.stream->read()).empty();) upload->write(piece);
  if (!announced.matches(upload->finish().sha256)) refuse_digest_mismatch();
  try {
    return created(upload->publish(draft));
  } catch (const IdempotencyMismatch& error) {
    throw HttpError(422, error.summary());
  }
}

Response ArtifactService::list(const Request& request) {
  const ArtifactList found = store_->list(net::read_query(request, read_filter));
  Json items = Json::array();
  for (const Artifact& artifact : found.items) items.push_back(to_json(artifact));
  const Json next = found.next ? Json(std::to_string(*found.next)) : Json();
  return Response::json(200, Json::object({{"items", std::move(items)}, {"next_cursor", next}}));
}

Response ArtifactService::usage(const Request&) {
  const ArtifactUsage usage = store_->usage();
  Json items = Json::array();
  for (const ArtifactUsage::Group& group : usage.groups) {
    items.push_back(Json::object({{"spec", group.spec.empty() ? Json() : Json(group.spec)},
                                  {"type", group.type},
                                  {"count", group.count},
                                  {"size_bytes", group.size_bytes}}));
  }
  return Response::json(200, Json::object({{"count", usage.count},
                                           {"size_bytes", usage.size_bytes},
                                           {"stored_bytes", usage.stored_bytes},
                                           {"items", std::move(items)}}));
}

Response ArtifactService::metadata(const Request& request) {
  const std::string uri = net::read_query(request, read_uri);
  const std::optional<std::string> path = path_of(uri);
  // Behind a proxy the public URL may have a path of its own; without it the uri is as good.
  const std::string prefix = path_of(public_url()).value_or("") + std::string(kPathPrefix);
  for (const std::string_view beginning : {std::string_view(prefix), kPathPrefix}) {
    if (path && path->starts_with(beginning)) {
      return Response::json(200, to_json(must_find(path->substr(beginning.size()))));
    }
  }
  throw HttpError(404, "the uri names no artifact of this store");
}

Response ArtifactService::content(const Request& request) {
  const Following following = net::read_query(request, read_following);
  const Artifact artifact = must_find(request.param("id"));
  if (following.follow) return follow(artifact, following.offset, following.silence);
  // An open log has none, so that no condition holds for it.
  const std::string etag = artifact.sealed ? "\"" + artifact.sha256 + "\"" : "";
  if (artifact.sealed && net::etag_matches(request.headers.get_or("If-None-Match", ""), etag)) {
    return {304, {{"ETag", etag}, {"Cache-Control", "private, no-cache"}}, std::string()};
  }
  auto bytes = store_->open(artifact);
  if (!bytes) throw HttpError(404, "the artifact was deleted");
  ByteRange range{ByteRange::Kind::kWhole, 0, bytes->size_bytes};
  // Ranges are defined for GET alone; If-Range makes one hold only for the bytes it was asked of.
  if (request.method == "GET" && request.headers.get_or("If-Range", etag) == etag) {
    range = parse_range(request.headers.get_or("Range", ""), bytes->size_bytes);
  }
  if (range.kind == ByteRange::Kind::kUnsatisfiable) refuse_range(range, bytes->size_bytes);
  return content_answer(artifact, *std::move(bytes), range);
}

Response ArtifactService::follow(const Artifact& artifact, std::uint64_t offset,
                                 std::optional<std::chrono::seconds> silence) {
  if (offset > artifact.size_bytes) {
    refuse_range({ByteRange::Kind::kUnsatisfiable, 0, 0}, artifact.size_bytes);
  }
  Response response;
  response.headers.set("Cache-Control", "no-store");
  add_safe_content_headers(response.headers, artifact.metadata["mime_type"].string_or(""),
                           artifact.name);
  response.body = feeds_.open(artifact.id, offset, silence);
  return response;
}

Response ArtifactService::open_log(const Request& request) {
  const LogRequest log = net::read_body(request, "log", read_log_request);
  ArtifactDraft draft = make_draft(log.type, log.metadata);
  draft.idempotency_key = key_name(request);
  try {
    return created(store_->open_log(draft, log.lease));
  } catch (const IdempotencyMismatch& error) {
    throw HttpError(422, error.summary());
  }
}

std::uint64_t ArtifactService::append_body(const Request& request) {
  const std::uint64_t offset = net::read_query(request, read_offset);
  refuse_encoding(request);
  const std::string& id = request.param("id");
  const auto size = store_->append(ArtifactId{id}, offset, request.body);
  if (!size) throw no_such_artifact(id);
  return *size;
}

Response ArtifactService::append(const Request& request) {
  return Response::json(200, Json::object({{"size_bytes", append_body(request)}}));
}

Response ArtifactService::seal(const Request& request) {
  append_body(request);
  const std::string& id = request.param("id");
  const auto sealed = store_->seal(ArtifactId{id});
  if (!sealed) throw no_such_artifact(id);
  return Response::json(200, to_json(*sealed));
}

Response ArtifactService::remove(const Request& request) {
  if (!store_->remove(ArtifactId{request.param("id")})) throw no_such_artifact(request.param("id"));
  return Response::empty(204);
}

Response ArtifactService::change_tags(const Request& request) {
  const auto tags = net::read_body(request, "change of tags", read_change_of_tags);
  const auto artifact = store_->set_tags(ArtifactId{request.param("id")}, tags);
  if (!artifact) throw no_such_artifact(request.param("id"));
  return Response::json(200, to_json(*artifact));
}

}  // namespace necrocode::artifacts
