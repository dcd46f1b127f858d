// A reader of JSON and its description are one: what the schema says is what the reader takes.
// (Values and defects: json_test.cpp.)
#include "necrocode/base/json_fields.hpp"

#include <gtest/gtest.h>

namespace necrocode {
namespace {

void read_all(JsonFields& fields) {
  fields.required_string("name", 10);
  fields.required_choice("kind", {"a", "b"});
  fields.string("text", 5);
  fields.integer("count", 1, 9);
  fields.integer("any");
  fields.number("ratio", 0, 1);
  fields.boolean("flag");
  fields.strings("words", 3, 4);
  fields.time("when");
  fields.object("free");
  fields.each("list", 2, [](JsonFields& element) { element.required_string("id", 3); });
  fields.nested("inner", [](JsonFields& inner) { inner.boolean("deep"); });
  fields.boolean_or_nested("next", [](JsonFields& terms) { terms.integer("max", 1, 2); });
  fields.require("list");
}

TEST(DescribeFields, SaysWhatTheReaderTakes) {
  EXPECT_EQ(describe_fields(read_all), Json::parse(R"({
    "type": "object",
    "properties": {
      "name": {"type": "string", "maxLength": 10, "minLength": 1},
      "kind": {"type": "string", "enum": ["a", "b"]},
      "text": {"type": ["string", "null"], "maxLength": 5},
      "count": {"type": ["integer", "null"], "minimum": 1, "maximum": 9},
      "any": {"type": ["integer", "null"]},
      "ratio": {"type": ["number", "null"], "minimum": 0.0, "maximum": 1.0},
      "flag": {"type": ["boolean", "null"]},
      "words": {"type": ["array", "null"], "items": {"type": "string", "maxLength": 4},
                "maxItems": 3},
      "when": {"type": ["string", "number", "null"], "format": "date-time"},
      "free": {"type": ["object", "null"], "additionalProperties": true},
      "list": {"type": "array", "items": {"type": "object",
               "properties": {"id": {"type": "string", "maxLength": 3, "minLength": 1}},
               "required": ["id"]}, "maxItems": 2},
      "inner": {"type": ["object", "null"],
                "properties": {"deep": {"type": ["boolean", "null"]}}},
      "next": {"type": ["boolean", "object", "null"],
               "properties": {"max": {"type": ["integer", "null"], "minimum": 1, "maximum": 2}}}
    },
    "required": ["name", "kind", "list"]})"))
      << describe_fields(read_all).pretty();
}

TEST(DescribeFields, DescribingHasNoDefects) {
  describe_fields([](JsonFields& fields) {
    read_all(fields);
    EXPECT_TRUE(fields.has("anything"));
    EXPECT_TRUE(fields.value().members().empty());
  });
}

std::vector<std::string> defects(const char* text) {
  const Json json = Json::parse(text);
  JsonFields fields(json);
  read_all(fields);
  std::vector<std::string> found;
  for (const FieldError& error : fields.errors()) found.push_back(error.pointer);
  return found;
}

TEST(JsonFieldsNested, WhatTheSchemaRefusesTheReaderRefusesWithItsPointer) {
  using Pointers = std::vector<std::string>;
  EXPECT_EQ(defects(R"({"name":"n","kind":"b","list":[]})"), Pointers{});
  EXPECT_EQ(defects(R"({"name":"n","kind":"b","list":[],"next":{"max":2},"inner":null})"),
            Pointers{});
  EXPECT_EQ(defects("{}"), (Pointers{"/name", "/kind", "/list"}));
  EXPECT_EQ(defects(R"({"name":"n","kind":"c","list":[{"id":"long"},{"id":1}]})"),
            (Pointers{"/kind", "/list/0/id", "/list/1/id"}));
  EXPECT_EQ(defects(R"({"name":"n","kind":"a","list":[1],"inner":2,"next":{"max":3}})"),
            (Pointers{"/list/0", "/inner", "/next/max"}));
  EXPECT_EQ(defects(R"({"name":"n","kind":"a","list":[],"next":"yes"})"), Pointers{"/next"});
}

TEST(JsonFieldsNested, FirstOfSeveralNamesCounts) {
  const auto read = [](const char* text, std::string* defect = nullptr) {
    const Json json = Json::parse(text);
    JsonFields fields(json);
    const std::string found = fields.required_string_of({"id", "number"}, 5).text;
    if (defect) *defect = fields.errors().empty() ? "" : fields.errors().front().pointer;
    EXPECT_LE(fields.errors().size(), 1u) << text;
    return found;
  };
  std::string defect;
  EXPECT_EQ(read(R"({"id":"a","number":7})", &defect), "a");
  EXPECT_EQ(defect, "");  // what is not read is not judged
  EXPECT_EQ(read(R"({"id":null,"number":"b"})"), "b");
  EXPECT_EQ(read("{}", &defect), "");
  EXPECT_EQ(defect, "/id");
  EXPECT_EQ(read(R"({"number":""})", &defect), "");
  EXPECT_EQ(defect, "/number");
  EXPECT_EQ(read(R"({"id":5,"number":"b"})", &defect), "");
  EXPECT_EQ(defect, "/id");
  const auto one_of = [](JsonFields& fields) { fields.required_string_of({"id", "number"}, 5); };
  const Json schema = describe_fields(one_of);
  EXPECT_EQ(schema["properties"].size(), 2u);
  EXPECT_TRUE(schema["required"].is_null());
}

TEST(JsonFieldsNested, BooleanOrNestedIsTrueForAnObject) {
  const auto read = [](const char* text) {
    const Json json = Json::parse(text);
    JsonFields fields(json);
    return fields.boolean_or_nested("next", [](JsonFields& terms) { terms.integer("max"); });
  };
  EXPECT_TRUE(read(R"({"next":{}})"));
  EXPECT_TRUE(read(R"({"next":true})"));
  EXPECT_FALSE(read(R"({"next":false})"));
  EXPECT_FALSE(read("{}"));
}

}  // namespace
}  // namespace necrocode
