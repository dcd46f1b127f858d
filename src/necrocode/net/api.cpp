#include "necrocode/net/api.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "necrocode/base/check.hpp"
#include "necrocode/base/json_schema.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::net {
namespace {

struct HeaderField {
  std::string_view name;
  std::string_view about;
};

/// The header fields that operations name, of requests and of answers.
constexpr std::array kHeaderFields = {
    HeaderField{"Idempotency-Key",
                "Told again within 24 h, the same request gets its first answer and has no second "
                "effect; with another body it is refused with 422."},
    HeaderField{"If-Match", "Change it only while its ETag is one of these; else 412."},
    HeaderField{"If-None-Match", "Answer 304 while its ETag is one of these."},
    HeaderField{"If-Range", "Take Range only while its ETag is this."},
    HeaderField{"Range", "One range of bytes."},
    HeaderField{"Last-Event-ID", "Of a feed: begin after this event. Wins over `after`."},
    HeaderField{"Prefer", "return=minimal: only what the answer's head says (RFC 7240)."},
    HeaderField{"X-Lease-Token", "The lease's token, where the body has none."},
    HeaderField{"Content-Digest", "RFC 9530, of the body: another one is refused with 400."},
    HeaderField{"Repr-Digest", "RFC 9530, of the whole content."},
    HeaderField{"X-Request-Id", "The caller's own name for the request; it comes back."},
    HeaderField{"traceparent", "W3C Trace Context, for the access log."},
    HeaderField{"ETag", "Of what the answer holds."},
    HeaderField{"Location", "Of what was made."},
    HeaderField{"Content-Range", "Which bytes these are."}};
constexpr std::array kOfAllRequests = {"X-Request-Id", "traceparent"};
/// What any request may be refused with; the server's other own refusals are `default`.
constexpr std::array kOfAllErrors = {400, 500, 503};

const HeaderField& header_field(std::string_view name) {
  const auto* found = std::find_if(kHeaderFields.begin(), kHeaderFields.end(),
                                   [&](const HeaderField& field) { return field.name == name; });
  NECROCODE_CHECK(found != kHeaderFields.end());
  return *found;
}

Json header_parameter(std::string_view name) {
  return Json::object({{"name", name},
                       {"in", "header"},
                       {"required", false},
                       {"description", header_field(name).about},
                       {"schema", schema::text()}});
}

Json content(std::string_view media_type, const Json& of) {
  return Json::object({{std::string(media_type), Json::object({{"schema", of}})}});
}

Json parameters_of(const Operation& operation) {
  Json parameters = Json::array();
  for (const std::string_view part : split(operation.path, '/')) {
    if (!part.starts_with('{')) continue;
    parameters.push_back(Json::object({{"name", part.substr(1, part.size() - 2)},
                                       {"in", "path"},
                                       {"required", true},
                                       {"schema", schema::text()}}));
  }
  for (const Json& parameter : operation.query.items()) parameters.push_back(parameter);
  for (const std::string& name : operation.headers) parameters.push_back(header_parameter(name));
  for (const char* name : kOfAllRequests) parameters.push_back(header_parameter(name));
  return parameters;
}

Json answer_json(const Answer& answer) {
  Json headers = Json::object(
      {{"X-Request-Id", Json::object({{"description", header_field("X-Request-Id").about},
                                      {"required", true},
                                      {"schema", schema::text()}})}});
  for (const std::string& name : answer.headers) {
    headers.set(name, Json::object({{"description", header_field(name).about},
                                    {"required", true},
                                    {"schema", schema::text()}}));
  }
  Json json = Json::object(
      {{"description", reason_phrase(answer.status)}, {"headers", std::move(headers)}});
  if (!answer.schema.is_null()) json.set("content", content(answer.media_type, answer.schema));
  return json;
}

Json error_json(std::string_view about) {
  return Json::object({{"description", about},
                       {"content", content("application/problem+json", schema::ref("Problem"))}});
}

Json responses_of(const Operation& operation) {
  std::map<std::string, Json> responses;  // in order of the status
  for (const Answer& answer : operation.answers) {
    Json& told = responses[std::to_string(answer.status)];
    if (told.is_null()) {
      told = answer_json(answer);
    } else {  // another media type of the same status
      Json all = told["content"];
      all.set(answer.media_type, Json::object({{"schema", answer.schema}}));
      told.set("content", std::move(all));
    }
  }
  std::set<int> errors(operation.errors.begin(), operation.errors.end());
  errors.insert(kOfAllErrors.begin(), kOfAllErrors.end());
  if (operation.query.size() > 0 || !operation.body.is_null()) errors.insert(422);
  if (!operation.body.is_null()) errors.insert(413);
  for (const int status : errors) {
    responses.emplace(std::to_string(status), error_json(reason_phrase(status)));
  }
  Json json = Json::object();
  for (auto& [status, response] : responses) json.set(status, std::move(response));
  return json.set("default", error_json("Any other refusal."));
}

Json operation_json(const Operation& operation, const std::string& part) {
  Json json = Json::object({{"operationId", operation.id},
                            {"summary", operation.summary},
                            {"tags", Json::Array{part}},
                            {"parameters", parameters_of(operation)}});
  if (!operation.body.is_null()) {
    const Json& needed = operation.body["required"];
    json.set("requestBody",
             Json::object({{"required", needed.size() > 0},
                           {"content", content(operation.body_type, operation.body)}}));
  }
  return json.set("responses", responses_of(operation));
}

Json problem_schema() {
  using namespace schema;
  return object(
      {{"type", text()}, {"title", text()}, {"status", integer()}, {"detail", text()}},
      {{"instance", text()}, {"errors", list(object({{"pointer", text()}, {"message", text()}}))}});
}

}  // namespace

void Api::begin_part(std::string name, std::string about) {
  parts_.push_back({std::move(name), std::move(about), {}});
}

void Api::route(Operation operation, Handler handler, RouteOptions options) {
  NECROCODE_CHECK(!parts_.empty());
  server_.route(operation.method, operation.path, std::move(handler), options);
  parts_.back().operations.push_back(std::move(operation));
}

void Api::define(std::string name, Json schema) {
  schemas_.emplace_back(std::move(name), std::move(schema));
}

Json Api::document(std::string_view title, std::string_view version) const {
  Json paths = Json::object();
  Json tags = Json::array();
  for (const Part& part : parts_) {
    tags.push_back(Json::object({{"name", part.name}, {"description", part.about}}));
    for (const Operation& operation : part.operations) {
      Json path = paths[operation.path];
      path.set(ascii_lower(operation.method), operation_json(operation, part.name));
      paths.set(operation.path, std::move(path));
    }
  }
  Json schemas = Json::object({{"Problem", problem_schema()}});
  for (const auto& [name, schema] : schemas_) schemas.set(name, schema);
  const Json license = Json::object({{"name", "MIT"}, {"identifier", "MIT"}});
  return Json::object(
      {{"openapi", "3.1.0"},
       {"info", Json::object({{"title", title}, {"version", version}, {"license", license}})},
       {"servers", Json::Array{Json::object({{"url", "/"}})}},
       {"security", Json::array()},  // who reaches the address may call
       {"tags", std::move(tags)},
       {"paths", std::move(paths)},
       {"components", Json::object({{"schemas", std::move(schemas)}})}});
}

}  // namespace necrocode::net
