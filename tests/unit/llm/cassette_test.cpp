// Cassettes: what is read, what is written, when a drill is due.
#include "necrocode/llm/cassette.hpp"

#include <gmock/gmock.h>

#include <algorithm>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/llm/cassette_file.hpp"

namespace necrocode::llm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> defects(std::string_view text) {
  try {
    Cassette::parse(text);
  } catch (const ConfigError& error) {
    std::vector<std::string> lines;
    for (const FieldError& field : error.info().fields)
      lines.push_back(field.pointer + ": " + field.message);
    if (lines.empty()) lines.push_back(error.what());
    return lines;
  }
  return {};
}

TEST(Cassette, AllFormsOfAnswersAreRead) {
  const Cassette cassette = Cassette::parse(R"({"version":1,"entries":[
    {"match":{"model":"m","contains":["a","b"],"not_contains":["c"]},"times":2,
     "answer":{"content":"hello","usage":{"prompt_tokens":3,"completion_tokens":4},
               "finish_reason":"length","model":"m2"}},
    {"answer":{"content":"x","usage":null},"times":0},
    {"answer":{"status":429,"headers":{"Retry-After":"1"},"body":{"error":{"message":"slow"}}}},
    {"answer":{"status":502,"body":"plain"}},
    {"answer":{"drill":"stall","seconds":2.5}},
    {"answer":{"drill":"reset"}},{"answer":{"drill":"cut"}},
    {"answer":{"drill":"garbage"}},{"answer":{"drill":"html"}}]})");
  ASSERT_EQ(cassette.entries.size(), 9u);
  const CassetteEntry& first = cassette.entries[0];
  EXPECT_EQ(first.match.model, "m");
  EXPECT_THAT(first.match.contains, ElementsAre("a", "b"));
  EXPECT_THAT(first.match.not_contains, ElementsAre("c"));
  EXPECT_EQ(first.times, 2);
  const auto& completion = std::get<CompletionAnswer>(first.answer);
  EXPECT_EQ(completion.finish_reason, "length");
  EXPECT_EQ(completion.model, "m2");
  EXPECT_EQ(cassette.entries[1].times, 0);
  EXPECT_TRUE(std::get<CompletionAnswer>(cassette.entries[1].answer).usage.value().is_null());
  EXPECT_EQ(cassette.entries[2].times, 1);
  const auto& raw = std::get<RawAnswer>(cassette.entries[2].answer);
  EXPECT_EQ(raw.headers.get("retry-after"), "1");
  EXPECT_EQ(raw.headers.get("content-type"), "application/json");
  EXPECT_EQ(raw.body, R"({"error":{"message":"slow"}})");
  EXPECT_EQ(std::get<RawAnswer>(cassette.entries[3].answer).body, "plain");
  EXPECT_EQ(std::get<DrillAnswer>(cassette.entries[4].answer).seconds, 2.5);
  EXPECT_EQ(std::get<DrillAnswer>(cassette.entries[8].answer).drill, Drill::kHtml);
}

TEST(Cassette, DefectsAreNamedAllAtOnce) {
  EXPECT_THAT(
      defects(R"({"version":2,"more":1,"entries":[
        {"match":{"contain":["x"],"contains":"y"},"answer":{"content":"x"}},
        {"answer":{}},{"times":-1,"answer":{"content":7}},{"answer":{"drill":"explode"}},
        {"answer":{"status":99,"headers":{"A":"b\r\nc"}}},{"answr":{}},7,
        {"answer":{"content":"x","status_code":1}},{"answer":{"drill":"cut","times":1}}]})"),
      ElementsAre("/version: must be between 1 and 1, is 2", "/more: unknown key",
                  "/entries/0/match/contains: must be an array, not a string",
                  "/entries/0/match/contain: unknown key",
                  "/entries/1/answer: must have content, tool_calls, status or drill",
                  "/entries/2/times: must be between 0 and 9223372036854775807, is -1",
                  "/entries/2/answer/content: must be a string, not an integer",
                  "/entries/3/answer/drill: must be stall, reset, cut, garbage, html, truncate, "
                  "rate_limit, error or keepalive",
                  "/entries/4/answer/status: must be between 200 and 599, is 99",
                  "/entries/4/answer/headers: \"A\" is not a header field with a string as value",
                  "/entries/5/answr: unknown key", "/entries/5/answer: must be an object, not null",
                  "/entries/6: must be an object, not an integer",
                  "/entries/7/answer/status_code: unknown key",
                  "/entries/8/answer/times: unknown key"));
  EXPECT_THAT(defects("{}"), ElementsAre("/version: is required", "/entries: is required"));
  EXPECT_THAT(defects("[]"), ElementsAre(HasSubstr("must be an object")));
  EXPECT_THAT(defects("{\"version\":1,"), ElementsAre(HasSubstr("cassette is not valid JSON")));
}

TEST(Cassette, FileIsLoadedAndAMissingOneIsAStorageError) {
  const TemporaryDirectory folder;
  write_file_atomic(folder.path() / "c.json", R"({"version":1,"entries":[]})");
  EXPECT_TRUE(Cassette::load(folder.path() / "c.json").entries.empty());
  EXPECT_THROW(Cassette::load(folder.path() / "none.json"), StorageError);
}

TEST(Cassette, TheDemosCassetteLoads) {
  const Cassette cassette = Cassette::load(NECROCODE_SOURCE_DIR "/demo/cassette.json");
  EXPECT_GE(cassette.entries.size(), 6u);
}

std::string round_trip(std::string_view entry) {
  const Cassette read = Cassette::parse(R"({"version":1,"entries":[)" + std::string(entry) + "]}");
  return to_json(read.entries.at(0)).dump();
}

TEST(Cassette, EntryIsWrittenAsItIsReadInOneOrderWithoutDefaults) {
  const std::string whole =
      R"({"match":{"model":"m","contains":["a"],"not_contains":["b"]},"times":0,)"
      R"("answer":{"reasoning":["so","it is"],"content":["one","two",""],)"
      R"("tool_calls":[{"id":"1","name":"look","arguments":"{}"}],"finish_reason":"stop",)"
      R"("usage":{"prompt_tokens":1},"model":"m2","chunk":7,"delay_ms":3}})";
  EXPECT_EQ(round_trip(whole), whole);
  EXPECT_EQ(round_trip(R"({"times":1,"match":{},"answer":{"finish_reason":"stop",
                           "content":["one line"]}})"),
            R"({"answer":{"content":"one line"}})");
  EXPECT_EQ(round_trip(R"({"answer":{"finish_reason":"tool_calls","content":"",
                           "tool_calls":[{"id":"1","name":"n","arguments":"x"}]}})"),
            R"({"answer":{"tool_calls":[{"id":"1","name":"n","arguments":"x"}]}})");
  EXPECT_EQ(round_trip(R"({"answer":{"content":"x","usage":null}})"),
            R"({"answer":{"content":"x","usage":null}})");
  for (const char* same :
       {R"({"answer":{"status":429,"headers":{"Content-Type":"application/json"},"body":{"a":1}}})",
        R"({"answer":{"status":502,"body":"{\"a\": 1}"}})", R"({"answer":{"status":204}})",
        R"({"answer":{"drill":"stall","seconds":2.5}})",
        R"({"answer":{"drill":"cut","after":2,"content":["a","b"]}})",
        R"({"answer":{"drill":"error","status":503}})",
        R"({"answer":{"drill":"rate_limit","retry_after":0.5}})"}) {
    EXPECT_EQ(round_trip(same), same);
  }
}

TEST(Cassette, TextAsLinesThenJoinedByNewlines) {
  const Cassette cassette = Cassette::parse(
      R"({"version":1,"entries":[{"answer":{"content":["a","","b"],"reasoning":[]}}]})");
  const auto& answer = std::get<CompletionAnswer>(cassette.entries.at(0).answer);
  EXPECT_EQ(answer.content, "a\n\nb");
  EXPECT_EQ(answer.reasoning, "");
  EXPECT_THAT(defects(R"({"version":1,"entries":[{"answer":{"content":["a",7]}}]})"),
              ElementsAre("/entries/0/answer/content/1: must be a string, not an integer"));
}

TEST(Cassette, LinesLargerThanAnAnswerTogetherThenADefect) {
  const std::string line = "\"" + std::string(limits::kModelAnswerBytes / 2, 'x') + "\"";
  EXPECT_THAT(
      defects(R"({"version":1,"entries":[{"answer":{"content":[)" + line + "," + line + "]}}]}"),
      ElementsAre("/entries/0/answer/content: must be at most 16777216 bytes"));
}

TEST(Cassette, DefectsOfToolCallsAndDrillsAreNamed) {
  EXPECT_THAT(
      defects(R"({"version":1,"entries":[
                {"answer":{"tool_calls":[{"name":"n","arguments":{},"x":1}]}},
                {"answer":{"drill":"error","status":200}},
                {"answer":{"content":"x","chunk":0,"delay_ms":-1}}],
              "drills":[{"drill":"boom","every":0},{"every":2,"probability":2,"content":"x"},7,
                {"drill":"cut","every":2,"probability":0.5}]})"),
      ElementsAre("/drills/0/every: must be between 1 and 9223372036854775807, is 0",
                  HasSubstr("/drills/0/drill: must be stall, "), "/drills/1/content: unknown key",
                  HasSubstr("/drills/1/probability: must be between 0.0 and 1.0"),
                  "/drills/1/drill: is required", HasSubstr("/drills/2: must be an object"),
                  "/drills/3/every: does not go with probability",
                  "/entries/0/answer/tool_calls/0/id: is required",
                  HasSubstr("/entries/0/answer/tool_calls/0/arguments: must be a string"),
                  "/entries/0/answer/tool_calls/0/x: unknown key",
                  "/entries/1/answer/status: must be between 400 and 599, is 200",
                  HasSubstr("/entries/2/answer/chunk: must be between 1 and"),
                  HasSubstr("/entries/2/answer/delay_ms: must be between 0 and")));
}

TEST(DrillRule, CommandLineFormIsReadAndToldBack) {
  const DrillRule rule = DrillRule::parse("rate_limit:every=3:retry_after=0.5:times=2");
  EXPECT_EQ(rule.drill.drill, Drill::kRateLimit);
  EXPECT_EQ(rule.every, 3);
  EXPECT_EQ(rule.times, 2);
  EXPECT_EQ(rule.drill.retry_after, 0.5);
  EXPECT_EQ(rule.to_text(), "rate_limit:every=3:times=2:retry_after=0.5");
  EXPECT_EQ(DrillRule::parse("cut:after=2").drill.after, 2u);
  EXPECT_EQ(DrillRule::parse("stall:probability=0.25").to_text(), "stall:probability=0.25:seed=1");
  EXPECT_EQ(DrillRule::parse("error:status=503").to_text(), "error:status=503");
  for (const char* bad : {"", "boom", "cut:often", "cut:every=x", "cut:every=0", "cut:contains=x",
                          "cut:probability=1.5", "cut:every=2:probability=0.5"}) {
    EXPECT_THROW(DrillRule::parse(bad), ConfigError) << bad;
  }
}

TEST(DrillRule, EveryNthThenDueAtItsMultiples) {
  const DrillRule rule = DrillRule::parse("cut:every=3");
  std::vector<std::int64_t> due;
  for (std::int64_t i = 1; i <= 9; ++i) {
    if (rule.is_due(i)) due.push_back(i);
  }
  EXPECT_THAT(due, ElementsAre(3, 6, 9));
}

TEST(DrillRule, ProbabilityThenTheSameOfASeedAndAboutAsOftenAsItSays) {
  const auto due = [](const std::string& text) {
    const DrillRule rule = DrillRule::parse(text);
    std::vector<bool> all;
    for (std::int64_t i = 1; i <= 1000; ++i) all.push_back(rule.is_due(i));
    return all;
  };
  const auto some = due("cut:probability=0.3:seed=7");
  EXPECT_EQ(some, due("cut:probability=0.3:seed=7"));
  EXPECT_NE(some, due("cut:probability=0.3:seed=8"));
  const auto count = std::count(some.begin(), some.end(), true);
  EXPECT_GT(count, 230);
  EXPECT_LT(count, 370);
  EXPECT_EQ(due("cut:probability=0"), std::vector<bool>(1000, false));
  EXPECT_EQ(due("cut:probability=1"), std::vector<bool>(1000, true));
}

// ---- CassetteFile ----

CassetteEntry says(const std::string& text) {
  CassetteEntry entry;
  entry.match.contains = {"question"};
  CompletionAnswer answer;
  answer.content = text;
  entry.answer = answer;
  return entry;
}

TEST(CassetteFile, EntriesThenAWholeCassetteAtEveryMoment) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "c.json";
  CassetteFile file(path);
  EXPECT_TRUE(Cassette::load(path).entries.empty());
  EXPECT_TRUE(file.append(says("one\nline")));
  EXPECT_EQ(Cassette::load(path).entries.size(), 1u);
  EXPECT_TRUE(file.append(says("two")));
  EXPECT_EQ(read_file(path, limits::kMiB), R"({
  "version": 1,
  "entries": [
    {
      "match": {
        "contains": [
          "question"
        ]
      },
      "answer": {
        "content": [
          "one",
          "line"
        ]
      }
    },
    {
      "match": {
        "contains": [
          "question"
        ]
      },
      "answer": {
        "content": "two"
      }
    }
  ]
}
)");
}

TEST(CassetteFile, CassetteThatIsThereThenContinuedWithItsDrills) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "c.json";
  write_file_atomic(path, R"({"drills":[{"drill":"cut","every":2}],"version":1,
                             "entries":[{"answer":{"content":"old"}}]})");
  EXPECT_TRUE(CassetteFile(path).append(says("new")));
  const Cassette cassette = Cassette::load(path);
  ASSERT_EQ(cassette.entries.size(), 2u);
  EXPECT_EQ(std::get<CompletionAnswer>(cassette.entries[0].answer).content, "old");
  EXPECT_EQ(std::get<CompletionAnswer>(cassette.entries[1].answer).content, "new");
  ASSERT_EQ(cassette.drills.size(), 1u);
  EXPECT_EQ(cassette.drills[0].every, 2);
}

TEST(CassetteFile, EntryThatCannotBeReadBackThenLeftOut) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "c.json";
  CassetteFile file(path);
  EXPECT_FALSE(file.append(says(std::string("nul\0", 4))));
  EXPECT_FALSE(file.append(says(std::string(limits::kModelAnswerBytes + 1, 'x'))));
  EXPECT_TRUE(file.append(says("next")));
  EXPECT_EQ(Cassette::load(path).entries.size(), 1u);
}

TEST(CassetteFile, FileThatCannotBeUsedThenRefusedAtTheStart) {
  const TemporaryDirectory folder;
  EXPECT_THROW(CassetteFile(folder.path() / "none" / "c.json"), StorageError);
  write_file_atomic(folder.path() / "notes.txt", "not a cassette");
  EXPECT_THROW(CassetteFile(folder.path() / "notes.txt"), ConfigError);
  EXPECT_EQ(read_file(folder.path() / "notes.txt", 100), "not a cassette");
}

}  // namespace
}  // namespace necrocode::llm
