#include "necrocode/net/api.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/json_schema.hpp"
#include "necrocode/net/request_fields.hpp"

namespace necrocode::net {
namespace {

struct Wanted {
  std::string text;
  std::optional<std::int64_t> limit;
};
Wanted read_wanted(QueryFields& query) {
  Wanted wanted;
  wanted.text = query.required_text("q");
  wanted.limit = query.integer("limit", 1, 10);
  query.choice("sort", {"age", "name"});
  query.time("since");
  query.list("state");
  return wanted;
}

Request request_of(std::vector<std::pair<std::string, std::string>> query) {
  Request request;
  request.query = std::move(query);
  return request;
}

std::vector<std::string> defects(std::vector<std::pair<std::string, std::string>> query) {
  try {
    read_query(request_of(std::move(query)), read_wanted);
  } catch (const HttpError& error) {
    std::vector<std::string> pointers;
    for (const FieldError& field : error.info().fields) pointers.push_back(field.pointer);
    const bool none = !pointers.empty() && pointers.front() == "/q";  // what it needs
    EXPECT_EQ(error.status(), none ? 400 : 422);
    return pointers;
  }
  return {};
}

TEST(QueryFields, EveryDefectIsTold) {
  using testing::ElementsAre;
  using testing::IsEmpty;
  EXPECT_THAT(defects({{"q", ""}}), IsEmpty());
  EXPECT_THAT(defects({{"q", "a"}, {"limit", "10"}, {"sort", "age"}, {"since", "1.5"}}), IsEmpty());
  EXPECT_THAT(defects({}), ElementsAre("/q"));
  EXPECT_THAT(defects({{"q", "a"}, {"q", "b"}}), ElementsAre("/q"));
  EXPECT_THAT(defects({{"limit", "0"}, {"sort", "size"}, {"since", "then"}}),
              ElementsAre("/q", "/limit", "/sort", "/since"));
  EXPECT_THAT(defects({{"q", "a"}, {"limit", "11"}}), ElementsAre("/limit"));
  EXPECT_THAT(defects({{"q", "a"}, {"limit", "1x"}}), ElementsAre("/limit"));
}

TEST(QueryFields, RequiredNumberIsThereOnceAndWithinItsBounds) {
  const auto read = [](QueryFields& query) { return query.required_integer("offset", 0); };
  EXPECT_EQ(read_query(request_of({{"offset", "7"}}), read), 7);
  EXPECT_THROW(read_query(request_of({}), read), HttpError);
  EXPECT_THROW(read_query(request_of({{"offset", "-1"}}), read), HttpError);
  EXPECT_THROW(read_query(request_of({{"offset", "1"}, {"offset", "2"}}), read), HttpError);
  EXPECT_EQ(describe_query(read).items().front()["required"], Json(true));
}

TEST(QueryFields, ListTakesCommasAndRepetition) {
  const Request request = request_of({{"state", "a, b"}, {"x", "c"}, {"state", "d"}});
  QueryFields query(request);
  EXPECT_THAT(query.list("state"), testing::ElementsAre("a", "b", "d"));
}

TEST(Api, DocumentSaysWhatWasDeclared) {
  HttpServer server;
  Api api(server);
  api.begin_part("Things", "What there is.");
  api.define("Thing", schema::object({{"id", schema::text()}}, {{"size", schema::integer()}}));
  const auto handler = [](const Request&) { return Response::empty(204); };
  api.route({.method = "GET",
             .path = "/things/{id}",
             .id = "getThing",
             .summary = "A thing",
             .headers = {"If-None-Match"},
             .query = describe_query([](QueryFields& query) { read_wanted(query); }),
             .answers = {{200, schema::ref("Thing"), {"ETag"}}, {304}},
             .errors = {404}},
            handler);
  api.route({.method = "POST",
             .path = "/things/{id}",
             .id = "changeThing",
             .summary = "Change it",
             .body = describe_fields([](JsonFields& fields) { fields.required_string("a"); }),
             .answers = {{204}}},
            handler);
  const Json document = api.document("title", "1.2");
  EXPECT_EQ(document["openapi"], Json("3.1.0"));
  EXPECT_EQ(document["info"]["version"], Json("1.2"));
  EXPECT_EQ(document["components"]["schemas"]["Thing"]["required"], Json(Json::Array{"id"}));
  const Json& get = document["paths"]["/things/{id}"]["get"];
  std::vector<std::string> parameters;
  for (const Json& one : get["parameters"].items()) {
    parameters.push_back(one["in"].string_or("") + " " + one["name"].string_or(""));
  }
  EXPECT_THAT(parameters, testing::ElementsAre("path id", "query q", "query limit", "query sort",
                                               "query since", "query state", "header If-None-Match",
                                               "header X-Request-Id", "header traceparent"));
  std::vector<std::string> statuses;
  for (const auto& [status, response] : get["responses"].members()) statuses.push_back(status);
  EXPECT_THAT(statuses,
              testing::ElementsAre("200", "304", "400", "404", "422", "500", "503", "default"));
  EXPECT_EQ(get["responses"]["200"]["content"]["application/json"]["schema"]["$ref"],
            Json("#/components/schemas/Thing"));
  EXPECT_TRUE(get["responses"]["304"]["content"].is_null());
  const Json& post = document["paths"]["/things/{id}"]["post"];
  EXPECT_EQ(post["requestBody"]["required"], Json(true));
  EXPECT_FALSE(post["responses"]["413"].is_null());
  EXPECT_EQ(post["tags"], Json(Json::Array{"Things"}));
}

}  // namespace
}  // namespace necrocode::net
