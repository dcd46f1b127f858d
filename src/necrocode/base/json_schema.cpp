#include "necrocode/base/json_schema.hpp"

namespace necrocode::schema {
namespace {

Json type(const char* name) {
  return Json::object({{"type", name}});
}

}  // namespace

Json text() {
  return type("string");
}
Json time() {
  return type("string").set("format", "date-time");
}
Json integer() {
  return type("integer");
}
Json number() {
  return type("number");
}
Json boolean() {
  return type("boolean");
}
Json free_object() {
  return type("object").set("additionalProperties", true);
}
Json choice(const std::vector<std::string>& values) {
  return type("string").set("enum", values);
}
Json list(Json items) {
  return type("array").set("items", std::move(items));
}
Json map(Json values) {
  return type("object").set("additionalProperties", std::move(values));
}
Json or_null(Json schema) {
  return Json::object({{"anyOf", Json::Array{std::move(schema), type("null")}}});
}
Json ref(std::string_view name) {
  return Json::object({{"$ref", "#/components/schemas/" + std::string(name)}});
}

Json object(std::initializer_list<JsonMember> always, std::initializer_list<JsonMember> sometimes) {
  Json properties = Json::object();
  Json required = Json::array();
  for (const auto& [name, schema] : always) {
    properties.set(name, schema);
    required.push_back(name);
  }
  for (const auto& [name, schema] : sometimes) properties.set(name, schema);
  return type("object").set("properties", std::move(properties)).set("required", required);
}

Json with(Json object, std::initializer_list<JsonMember> always) {
  Json properties = object["properties"];
  Json required = object["required"];
  for (const auto& [name, schema] : always) {
    properties.set(name, schema);
    required.push_back(name);
  }
  return object.set("properties", std::move(properties)).set("required", std::move(required));
}

Json page(Json items) {
  return object({{"items", list(std::move(items))}, {"next_cursor", or_null(text())}});
}

}  // namespace necrocode::schema
