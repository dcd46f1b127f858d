#include "necrocode/base/json.hpp"

#include <gmock/gmock.h>

#include <limits>

#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Json, ParsesEachKindOfValue) {
  const Json json = Json::parse(R"( {"a":[null,true,-7,2.5,"x"],"b":{}} )");
  const Json::Array& items = json["a"].items();
  ASSERT_EQ(items.size(), 5u);
  EXPECT_TRUE(items[0].is_null());
  EXPECT_EQ(items[1].as_bool(), true);
  EXPECT_EQ(items[2].as_int(), -7);
  EXPECT_EQ(items[3].as_double(), 2.5);
  EXPECT_EQ(items[4].as_string(), "x");
  EXPECT_TRUE(json["b"].is_object());
  EXPECT_TRUE(json["c"].is_null());
  EXPECT_EQ(json.find("c"), nullptr);
  EXPECT_EQ(json.dump(), R"({"a":[null,true,-7,2.5,"x"],"b":{}})");
}

TEST(Json, DepthBombIsRefusedQuickly) {
  for (const char* bracket : {"[", "{\"a\":"}) {
    std::string bomb;
    for (int i = 0; i < 100'000; ++i) bomb += bracket;
    EXPECT_FALSE(Json::try_parse(bomb).has_value());
    EXPECT_THROW(Json::parse(bomb), InvalidResponse);
  }
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(Json::try_parse(nested(limits::kJsonDepth)).has_value());
  EXPECT_FALSE(Json::try_parse(nested(limits::kJsonDepth + 1)).has_value());
}

TEST(Json, MalformedTextIsRefusedWithItsPlace) {
  for (const char* text : {"",
                           " ",
                           "{",
                           "[1,]",
                           "{\"a\":1,}",
                           "{a:1}",
                           "'x'",
                           "01",
                           "+1",
                           ".5",
                           "1.",
                           "nul",
                           "NaN",
                           "Infinity",
                           "\"\x01\"",
                           "\"\\x\"",
                           "[1] 2",
                           "// c\n1",
                           "\"\xff\"",
                           "\"\xed\xa0\x80\"",
                           "\"\xc0\xaf\"",
                           "1e",
                           "\xef\xbb\xbf[]"}) {
    EXPECT_FALSE(Json::try_parse(text).has_value()) << text;
  }
  try {
    Json::parse("{} x", "the answer");
    ADD_FAILURE() << "was accepted";
  } catch (const InvalidResponse& error) {
    EXPECT_THAT(error.what(), HasSubstr("the answer is not valid JSON"));
    EXPECT_THAT(error.what(), HasSubstr("byte 3"));
  }
}

TEST(Json, RepeatedNameCountsWithItsLastValue) {
  Json json = Json::parse(R"({"a":1,"b":2,"a":3})");
  EXPECT_EQ(json["a"], Json(3));
  json.set("a", 4);
  EXPECT_EQ(json["a"], Json(4));
  json.erase("a");
  EXPECT_EQ(json.dump(), R"({"b":2})");
}

TEST(Json, SurrogatesMustComeInPairs) {
  EXPECT_EQ(Json::parse(R"("\ud83d\ude00")").as_string(), "\xf0\x9f\x98\x80");
  EXPECT_EQ(Json::parse(R"("\u00e9\u0000")").as_string(), std::string_view("\xc3\xa9\0", 3));
  for (const char* text : {R"("\ud83d")", R"("\ude00")", R"("\ud83dx")", R"("\ud83d\ud83d")"}) {
    EXPECT_FALSE(Json::try_parse(text).has_value()) << text;
  }
}

TEST(Json, NumbersAreNeverConvertedSilently) {
  EXPECT_EQ(Json::parse("-1").as_int(), -1);
  EXPECT_EQ(Json::parse("9223372036854775807").as_int(), INT64_MAX);
  EXPECT_EQ(Json::parse("-9223372036854775808").as_int(), INT64_MIN);
  EXPECT_EQ(Json::parse("9223372036854775808").as_int(), std::nullopt);  // 2^63
  EXPECT_EQ(Json::parse("18446744073709551616").as_int(), std::nullopt);
  EXPECT_EQ(Json::parse("-9223372036854777856").as_int(), std::nullopt);
  EXPECT_EQ(Json::parse("3.0").as_int(), 3);
  EXPECT_EQ(Json::parse("3.5").as_int(), std::nullopt);
  EXPECT_EQ(Json::parse("true").as_int(), std::nullopt);
  EXPECT_EQ(Json::parse("true").as_double(), std::nullopt);
  EXPECT_EQ(Json::parse("1").as_bool(), std::nullopt);
  EXPECT_EQ(Json::parse("\"1\"").as_int(), std::nullopt);
  EXPECT_EQ(Json::parse("0").as_bool(), std::nullopt);
  EXPECT_EQ(Json(std::uint64_t{1} << 63).as_int(), std::nullopt);
  EXPECT_EQ(Json(std::uint64_t{7}), Json(7));
}

TEST(Json, NumberBeyondADoubleIsRefusedNotRounded) {
  for (const char* text : {"1e400", "-1e400", "[1e309]"}) {
    EXPECT_FALSE(Json::try_parse(text).has_value()) << text;
  }
  EXPECT_EQ(Json::parse("1e-400").as_double(), 0.0);
  EXPECT_EQ(Json(std::numeric_limits<double>::quiet_NaN()).dump(), "null");
  EXPECT_EQ(Json(-std::numeric_limits<double>::infinity()).dump(), "null");
}

TEST(Json, NumbersSurviveARoundTrip) {
  for (const double value : {0.1, 1e300, -2.5e-300, 1.0, 12345678901234567890.0}) {
    const Json again = Json::parse(Json(value).dump());
    EXPECT_FALSE(again.is_int());
    EXPECT_EQ(again.as_double(), value);
  }
  for (const std::int64_t value : {INT64_MIN, std::int64_t{0}, INT64_MAX}) {
    EXPECT_EQ(Json::parse(Json(value).dump()), Json(value));
  }
}

TEST(Json, DumpIsOneLineOfValidUtf8WhateverTheBytes) {
  EXPECT_EQ(Json("a\n\r\t\"\\\x01\x7f").dump(), R"("a\n\r\t\"\\\u0001\u007f")");
  const std::string dumped = Json(std::string("x\xff\xed\xa0\x80y")).dump();
  EXPECT_TRUE(is_utf8(dumped));
  EXPECT_THAT(dumped, HasSubstr("\xef\xbf\xbd"));
  EXPECT_EQ(dumped.front(), '"');
  EXPECT_TRUE(Json::try_parse(dumped).has_value());
  const Json object = Json::object({{"k\xfe", 1}});
  EXPECT_TRUE(is_utf8(object.dump()));
}

TEST(Json, PrettyIsTheSameValue) {
  const Json json = Json::parse(R"({"a":[1,{"b":[]}],"c":{}})");
  EXPECT_EQ(Json::parse(json.pretty()), json);
  EXPECT_EQ(json.pretty(),
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ],\n  \"c\": {}\n}");
}

TEST(Json, BuildsObjectsAndArraysFromNull) {
  Json json;
  json.set("list", Json());
  Json list;
  list.push_back(1);
  list.push_back("two");
  json.set("list", list);
  json.set("none", std::optional<int>());
  json.set("some", std::optional<int>(3));
  EXPECT_EQ(json.dump(), R"({"list":[1,"two"],"none":null,"some":3})");
  EXPECT_EQ(json["list"].string_or("no"), "no");
  EXPECT_EQ(json["list"]["x"]["y"].size(), 0u);  // nothing there is no error
}

TEST(JsonFields, GoodFieldsAreRead) {
  const Json json = Json::parse(
      R"({"s":"x","i":3,"f":2.5,"b":true,"l":["a","b"],"t":1.5,"r":"1970-01-01T00:00:01Z","o":{"k":1}})");
  JsonFields fields(json);
  EXPECT_EQ(fields.required_string("s"), "x");
  EXPECT_EQ(fields.integer("i", 1, 3), 3);
  EXPECT_EQ(fields.number("f", 0, 3), 2.5);
  EXPECT_EQ(fields.boolean("b"), true);
  EXPECT_THAT(fields.strings("l"), ElementsAre("a", "b"));
  EXPECT_EQ(fields.time("t"), SystemTime(std::chrono::milliseconds(1500)));
  EXPECT_EQ(fields.time("r"), SystemTime(std::chrono::seconds(1)));
  EXPECT_EQ(fields.object("o")["k"], Json(1));
  EXPECT_THAT(fields.errors(), IsEmpty());
  EXPECT_THAT(fields.unknown(), IsEmpty());
  fields.finish("thing");
}

TEST(JsonFields, AbsentAndNullAreNothing) {
  const Json json = Json::parse(R"({"n":null})");
  JsonFields fields(json);
  for (const char* name : {"n", "absent"}) {
    EXPECT_EQ(fields.string(name), std::nullopt);
    EXPECT_EQ(fields.integer(name), std::nullopt);
    EXPECT_EQ(fields.boolean(name), std::nullopt);
    EXPECT_EQ(fields.time(name), std::nullopt);
    EXPECT_EQ(fields.object(name), Json::object());
    EXPECT_THAT(fields.strings(name), IsEmpty());
    EXPECT_FALSE(fields.has(name));
  }
  EXPECT_THAT(fields.errors(), IsEmpty());
}

TEST(JsonFields, IntegersAreNeitherWrappedNorCast) {
  const Json json = Json::parse(
      R"({"neg":-1,"huge":9223372036854775808,"bool":true,"text":"1","half":0.5,"ok":7})");
  JsonFields fields(json);
  EXPECT_EQ(fields.integer("neg", 0), std::nullopt);
  EXPECT_EQ(fields.integer("huge"), std::nullopt);
  EXPECT_EQ(fields.integer("bool"), std::nullopt);
  EXPECT_EQ(fields.integer("text"), std::nullopt);
  EXPECT_EQ(fields.integer("half"), std::nullopt);
  EXPECT_EQ(fields.integer("ok", 0, 6), std::nullopt);
  EXPECT_EQ(fields.number("bool", 0, 9), std::nullopt);
  EXPECT_EQ(fields.errors().size(), 7u);
}

// What a loop over a temporary walks over must be its own: `condition ? a["x"] : Json()` is a
// temporary, and const when `a` is.
TEST(Json, WhatIsTakenFromATemporaryIsAValue) {
  const Json json = Json::parse(R"({"list":["a","b"],"inner":{"k":"v"}})");
  const auto chosen = [&](bool first) { return first ? json["list"] : Json(); };
  static_assert(std::is_same_v<decltype(json["list"].items()), const Json::Array&>);
  static_assert(std::is_same_v<decltype((true ? json["list"] : Json()).items()), Json::Array>);
  static_assert(std::is_same_v<decltype((true ? json["inner"] : Json()).members()), Json::Object>);
  static_assert(std::is_same_v<decltype((true ? json : Json())["inner"]), Json>);
  static_assert(std::is_same_v<decltype(Json()["inner"]), Json>);
  std::vector<std::string> seen;
  for (const Json& item : (seen.empty() ? json["list"] : Json()).items())
    seen.push_back(item.string_or(""));
  for (const auto& [name, value] : (seen.empty() ? Json() : json["inner"]).members())
    seen.push_back(name + value.string_or(""));
  for (const Json& item : std::move(json)["list"].items()) seen.push_back(item.string_or(""));
  for (const Json& item : chosen(true).items()) seen.push_back(item.string_or(""));
  EXPECT_THAT(seen, ElementsAre("a", "b", "kv", "a", "b", "a", "b"));
  EXPECT_THAT((seen.empty() ? json["list"] : Json()).items(), IsEmpty());
  EXPECT_EQ(std::move(json)["none"], Json());
}

TEST(JsonFields, AllDefectsAreToldAtOnceWithTheirPointers) {
  const Json json = Json::parse(
      R"({"a/b":1,"t~":[],"list":["x",1,"y"],"empty":"","when":"soon","o":[],"nul":"a\u0000b"})");
  JsonFields fields(json, "/tasks/0");
  fields.string("a/b");
  fields.boolean("t~");
  EXPECT_THAT(fields.strings("list"), ElementsAre("x", "y"));
  fields.required_string("empty");
  fields.required_string("absent");
  fields.time("when");
  fields.object("o");
  fields.string("nul");
  try {
    fields.finish("task");
    ADD_FAILURE() << "was accepted";
  } catch (const TaskContextValidationError& error) {
    std::vector<std::string> pointers;
    for (const FieldError& field : error.info().fields) pointers.push_back(field.pointer);
    EXPECT_THAT(pointers,
                ElementsAre("/tasks/0/a~1b", "/tasks/0/t~0", "/tasks/0/list/1", "/tasks/0/empty",
                            "/tasks/0/absent", "/tasks/0/when", "/tasks/0/o", "/tasks/0/nul"));
  }
}

TEST(JsonFields, LimitsOfSizeAndCountHold) {
  const Json json =
      Json::parse(R"({"s":"12345","l":["a","b","c"],"o":{"k":"12345"},"w":["12345"]})");
  JsonFields fields(json);
  EXPECT_EQ(fields.string("s", 4), std::nullopt);
  EXPECT_THAT(fields.strings("l", 2), IsEmpty());
  EXPECT_EQ(fields.object("o", 10), Json::object());
  EXPECT_THAT(fields.strings("w", 9, 4), IsEmpty());
  EXPECT_EQ(fields.errors().size(), 4u);
  EXPECT_EQ(fields.string("s", 5), "12345");
}

TEST(JsonFields, NestedReadersAreAbsorbedAndUnknownNamesListed) {
  const Json json = Json::parse(R"({"inner":{"x":1},"typo":2,"known":"y"})");
  JsonFields fields(json);
  JsonFields inner(json["inner"], fields.pointer("inner"));
  inner.string("x");
  fields.absorb(inner);
  fields.string("known");
  ASSERT_EQ(fields.errors().size(), 1u);
  EXPECT_EQ(fields.errors()[0].pointer, "/inner/x");
  EXPECT_THAT(fields.unknown(), ElementsAre("inner", "typo"));
}

TEST(JsonFields, ValueThatIsNoObjectIsOneDefect) {
  const Json json = Json::array();
  JsonFields fields(json, "/x");
  fields.required_string("name");
  EXPECT_EQ(fields.integer("n"), std::nullopt);
  ASSERT_FALSE(fields.errors().empty());
  EXPECT_EQ(fields.errors()[0].pointer, "/x");
  EXPECT_THROW(fields.finish("x"), TaskContextValidationError);
}

TEST(Json, ManyValuesInASmallTextThenRefused) {
  std::string text = "[0";
  for (std::size_t i = 2; i < limits::kJsonValues; ++i) text += ",0";
  EXPECT_EQ(Json::parse(text + "]").size(), limits::kJsonValues - 1);  // the array is one too
  try {
    Json::parse(text + ",{}]");
    FAIL();
  } catch (const InvalidResponse& error) {
    EXPECT_THAT(error.summary(), testing::HasSubstr("more than 1000000 values"));
  }
  EXPECT_FALSE(Json::try_parse(text + ",0]"));
}

TEST(Json, DepthCountsArraysAndObjects) {
  EXPECT_EQ(Json("x").depth(), 0u);
  EXPECT_EQ(Json::object().depth(), 1u);
  EXPECT_EQ(Json::parse(R"([1,{"a":[2]},[]])").depth(), 3u);
}

TEST(Json, EachByteIsWrittenAsJsonWhereverItStands) {
  for (int byte = 0; byte < 0x80; ++byte) {
    for (std::size_t at = 0; at < 24; ++at) {
      std::string text(24, 'a');
      text[at] = static_cast<char>(byte);
      const std::string written = Json(text).dump();
      EXPECT_EQ(Json::parse(written), Json(text)) << byte << " at " << at;
      const bool plain = byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7f;
      EXPECT_EQ(written.size() == text.size() + 2, plain) << byte << " at " << at;
    }
  }
  for (std::size_t at = 0; at < 24; ++at) {
    std::string text(24, 'a');
    text[at] = '\xff';
    EXPECT_EQ(Json::parse(Json(text).dump()).string_or(""),
              std::string(at, 'a') + "\xEF\xBF\xBD" + std::string(23 - at, 'a'));
    EXPECT_EQ(Json::parse(Json(std::string(at, 'a') + "ö").dump()).string_or(""),
              std::string(at, 'a') + "ö");
  }
}

}  // namespace
}  // namespace necrocode
