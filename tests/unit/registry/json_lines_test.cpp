#include "necrocode/registry/json_lines.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::registry {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// The only task of one line.
Json task_of(std::string_view line, JsonLinesOptions options = {}) {
  if (options.spec_name.empty()) options.spec_name = "s";
  const JsonLinesTasks read = parse_json_lines(line, options);
  EXPECT_EQ(read.tasksets.size(), 1u);
  EXPECT_EQ(read.tasksets[0]["tasks"].size(), 1u);
  return read.tasksets[0]["tasks"].items()[0];
}

std::vector<std::string> defects(std::string_view text, JsonLinesOptions options = {}) {
  if (options.spec_name.empty()) options.spec_name = "s";
  try {
    parse_json_lines(text, options);
  } catch (const TaskContextValidationError& error) {
    std::vector<std::string> found;
    for (const FieldError& field : error.info().fields) {
      found.push_back(field.pointer + " " + field.message);
    }
    return found;
  }
  return {};
}

TEST(JsonLines, TasksAreGroupedByTheirSpec) {
  const JsonLinesTasks read = parse_json_lines(
      "\xEF\xBB\xBF{\"id\":1,\"title\":\"A\",\"spec_name\":\"one\"}\r\n"
      "\n"
      "{\"number\":2,\"title\":\"B\",\"dependencies\":[1,\"one:1\"]}\n"
      "{\"task_id\":\"one:7\",\"title\":\"C\"}",
      {.spec_name = "two", .repo_url = "https://r/x.git"});
  ASSERT_EQ(read.tasksets.size(), 2u);
  EXPECT_EQ(read.tasksets[0]["spec_name"], Json("one"));
  EXPECT_EQ(read.tasksets[0]["tasks"].items()[1]["id"], Json("7"));
  EXPECT_EQ(read.tasksets[1]["tasks"].items()[0]["dependencies"].dump(), "[\"1\",\"one:1\"]");
  EXPECT_EQ(read.tasksets[1]["tasks"].items()[0]["repo_url"], Json("https://r/x.git"));
  EXPECT_THAT(read.lines[0], ElementsAre(1u, 4u));
  EXPECT_THAT(read.lines[1], ElementsAre(3u));
}

TEST(JsonLines, ColumnsThatWeDoNotKnowStayInTheMetadata) {
  const Json task = task_of(
      R"({"id":1,"title":"A","worker":"W","args":{"a":[1]},"gone":null,"metadata":{"own":1}})");
  EXPECT_EQ(task["metadata"].dump(), R"({"own":1,"worker":"W","args":{"a":[1]}})");
  EXPECT_THAT(defects(R"({"id":1,"title":"A","own":2,"metadata":{"own":1}})"),
              ElementsAre("line 1 own stands in metadata, too, and both cannot be kept"));
}

TEST(JsonLines, ColumnsAreMapped) {
  const Json task =
      task_of(R"({"id":9,"uuid":"u-1","args":{"what":"Do it"},"queue":"python"})",
              {.columns = {{"id", "uuid"}, {"title", "args.what"}, {"required_skill", "queue"}}});
  EXPECT_EQ(task["id"], Json("u-1"));
  EXPECT_EQ(task["title"], Json("Do it"));
  EXPECT_EQ(task["required_skill"], Json("python"));
  EXPECT_EQ(task["metadata"].dump(), R"({"id":9,"args":{"what":"Do it"}})");
}

TEST(JsonLines, MappingThatHitsNothingIsRefused) {
  EXPECT_THROW(parse_json_lines("{}", {.columns = {{"titel", "x"}}}), ConfigError);
  EXPECT_THAT(defects(R"({"id":1,"title":"A"})", {.columns = {{"description", "bdoy"}}}),
              ElementsAre("--map description no line has a column bdoy"));
}

TEST(JsonLines, StatesOfUsualQueuesAreUnderstood) {
  for (const char* state : {"completed", "SUCCEEDED", "success", "done"}) {
    const Json task = task_of(std::string(R"({"id":1,"title":"A","state":")") + state + "\"}");
    EXPECT_EQ(task["done"], Json(true)) << state;
    EXPECT_TRUE(task["metadata"].is_null());
  }
  for (const char* state : {"queued", "pending", "available", "scheduled", "retryable", "active"}) {
    const Json task = task_of(std::string(R"({"id":1,"title":"A","status":")") + state + "\"}");
    EXPECT_TRUE(task["done"].is_null()) << state;
  }
  EXPECT_THAT(defects(R"({"id":1,"title":"A","state":"odd"})"),
              ElementsAre(HasSubstr("\"odd\" is no state that we know")));
  EXPECT_THAT(defects(R"({"id":1,"title":"A","state":"queued","done":true})"),
              ElementsAre(HasSubstr("the state says otherwise")));
}

TEST(JsonLines, RunningTasksAreOpenWithAWarning) {
  const JsonLinesTasks read =
      parse_json_lines(R"({"id":1,"title":"A","state":"executing"})", {.spec_name = "s"});
  EXPECT_THAT(read.warnings, ElementsAre(HasSubstr("imported as open: line 1")));
}

TEST(JsonLines, FailedTasksAreRefusedUnlessTheyAreToBeReopened) {
  constexpr std::string_view kLines =
      "{\"id\":1,\"title\":\"A\",\"state\":\"discarded\",\"labels\":[\"x\"]}\n"
      "{\"id\":2,\"title\":\"B\"}\n{\"id\":3,\"title\":\"C\",\"status\":\"cancelled\"}\n";
  EXPECT_THAT(defects(kLines),
              ElementsAre(testing::AllOf(HasSubstr("lines 1, 3"), HasSubstr("--reopen-failed"))));
  const JsonLinesTasks read = parse_json_lines(kLines, {.spec_name = "s", .reopen_failed = true});
  EXPECT_EQ(read.tasksets[0]["tasks"].items()[0]["labels"].dump(), "[\"x\",\"was-failed\"]");
  EXPECT_EQ(read.tasksets[0]["tasks"].items()[2]["labels"].dump(), "[\"was-failed\"]");
}

TEST(JsonLines, TimesOfPostgresBecomeNotBefore) {
  const std::pair<const char*, const char*> cases[] = {
      {"\"2026-01-31T12:00:00.5+02:00\"", "2026-01-31T10:00:00.500Z"},
      {"\"2026-01-31 12:00:00+02\"", "2026-01-31T10:00:00.000Z"},
      {"\"2026-01-31T12:00:00.123456\"", "2026-01-31T12:00:00.123Z"},
      {"1769860800", "2026-01-31T12:00:00.000Z"}};
  for (const auto& [given, expected] : cases) {
    const Json task = task_of(std::string(R"({"id":1,"title":"A","run_at":)") + given + "}");
    EXPECT_EQ(task["not_before"], Json(expected)) << given;
    EXPECT_TRUE(task["metadata"].is_null());
  }
  const Json done =
      task_of(R"({"id":1,"title":"A","state":"done","scheduled_at":"2026-01-31 12:00:00"})");
  EXPECT_TRUE(done["not_before"].is_null());
  EXPECT_EQ(done["metadata"]["scheduled_at"], Json("2026-01-31 12:00:00"));
  EXPECT_THAT(defects(R"({"id":1,"title":"A","run_at":"tomorrow"})"),
              ElementsAre(HasSubstr("run_at must be a time")));
}

TEST(JsonLines, AllDefectsAreToldByTheirLines) {
  EXPECT_THAT(defects("[]\n{\"title\":\"A\"}\n{\"id\":1,\"title\":2}\n{\"id\":1,\"title\":\"B\"}\n"
                      "{\"id\":1,\"title\":\"C\"}\nnot JSON\n"),
              ElementsAre("line 1 must be an object, one task", HasSubstr("line 2 id"),
                          HasSubstr("line 3 title"), "line 5 id s:1 was given in line 4 already",
                          HasSubstr("line 6 ")));
  EXPECT_THAT(defects("\n\n"), ElementsAre("line 1 there is no task"));
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "{}\n";
  EXPECT_EQ(defects(many).size(), 100u);
}

TEST(JsonLines, LineWithoutSpecNeedsOne) {
  try {
    parse_json_lines(R"({"id":1,"title":"A"})");
    FAIL();
  } catch (const TaskContextValidationError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--spec gives one to all"));
  }
}

TEST(JsonLinesCopy, EscapingOfCopyIsUndone) {
  EXPECT_EQ(unescape_copy(R"(a\\n\tb\r\n\b\f\v\x41\101\q\)"), "a\\n\tb\r\n\b\f\vAAq\\");
  EXPECT_EQ(unescape_copy("\\N"), std::nullopt);
  EXPECT_EQ(unescape_copy(R"(\\N)"), "\\N");
  const Json task =
      task_of("{\"id\":1,\"title\":\"say \\\\\"hi\\\\\"\\\\nthere\"}\n\\.\nrest", {.copy = true});
  EXPECT_EQ(task["title"], Json("say \"hi\"\nthere"));
}

TEST(JsonLinesCopy, NullsAndSeveralColumnsAreDefects) {
  EXPECT_THAT(defects("\\N\n{\"id\":1}\t2\n", {.copy = true}),
              ElementsAre("line 1 is null", HasSubstr("line 2 has several columns")));
}

TEST(JsonLinesCopy, FileOfCopyReadAsPlainSaysSo) {
  EXPECT_THAT(defects("{\"id\":1,\"title\":\"say \\\\\"hi\\\\\"\"}"),
              ElementsAre(HasSubstr("use --format copy")));
  const JsonLinesTasks read =
      parse_json_lines("{\"id\":1,\"title\":\"two\\\\nlines\"}", {.spec_name = "s"});
  EXPECT_THAT(read.warnings, ElementsAre(HasSubstr("use --format copy")));
  const JsonLinesTasks plain =
      parse_json_lines("{\"id\":1,\"title\":\"two\\nlines C:\\\\x\"}", {.spec_name = "s"});
  EXPECT_THAT(plain.warnings, IsEmpty());
}

Json taskset(const std::string& spec, std::vector<Json> tasks) {
  return Json::object({{"spec_name", spec},
                       {"tasks", Json(Json::Array(tasks.begin(), tasks.end()))},
                       {"metadata", Json::object({{"k", spec}})}});
}
Json one(const std::string& id, const std::vector<std::string>& dependencies = {},
         std::size_t bytes = 0) {
  return Json::object(
      {{"id", id}, {"dependencies", dependencies}, {"description", std::string(bytes, 'x')}});
}
std::vector<std::string> ids(const Json& submission) {
  std::vector<std::string> found;
  for (const Json& task : submission["tasks"].items()) {
    found.push_back(submission["spec_name"].string_or("") + ":" + task["id"].string_or(""));
  }
  return found;
}

TEST(SplitSubmissions, SmallTasksetIsOneCallInTheOrderOfTheFile) {
  const auto calls =
      split_submissions({taskset("a", {one("1", {"2"}), one("2"), one("3", {"x:1"})})});
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_THAT(ids(calls[0]), ElementsAre("a:1", "a:2", "a:3"));
  EXPECT_EQ(calls[0]["metadata"]["k"], Json("a"));
}

TEST(SplitSubmissions, LargeTasksetIsSplitWithDependenciesFirst) {
  constexpr std::size_t kLarge = 4 * limits::kMiB;
  const auto calls = split_submissions(
      {taskset("a", {one("1", {"3"}, kLarge), one("2", {}, kLarge), one("3", {}, kLarge)})});
  ASSERT_EQ(calls.size(), 3u);
  EXPECT_THAT(ids(calls[0]), ElementsAre("a:2"));
  EXPECT_THAT(ids(calls[1]), ElementsAre("a:3"));
  EXPECT_THAT(ids(calls[2]), ElementsAre("a:1"));
}

TEST(SplitSubmissions, CountOfTasksAndDependenciesIsBounded) {
  std::vector<Json> tasks;
  for (std::size_t i = 0; i < limits::kTasksPerSubmit + 1; ++i) {
    tasks.push_back(one(std::to_string(i)));
  }
  auto calls = split_submissions({taskset("a", tasks)});
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0]["tasks"].size(), limits::kTasksPerSubmit);
  const std::vector<std::string> many(limits::kDependenciesPerSubmit / 2 + 1, "x:1");
  calls = split_submissions({taskset("a", {one("1", many), one("2", many)})});
  EXPECT_EQ(calls.size(), 2u);
}

TEST(SplitSubmissions, SpecsThatNeedEachOtherTakeTurns) {
  const auto calls = split_submissions(
      {taskset("a", {one("1"), one("2", {"b:1"})}), taskset("b", {one("1", {"a:1"})})});
  ASSERT_EQ(calls.size(), 3u);
  EXPECT_THAT(ids(calls[0]), ElementsAre("a:1"));
  EXPECT_THAT(ids(calls[1]), ElementsAre("b:1"));
  EXPECT_THAT(ids(calls[2]), ElementsAre("a:2"));
}

TEST(SplitSubmissions, CycleIsRefusedByName) {
  try {
    split_submissions({taskset("a", {one("1", {"2"}), one("2", {"b:1"}), one("4")}),
                       taskset("b", {one("1", {"a:1"})})});
    FAIL();
  } catch (const TaskContextValidationError& error) {
    EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("a:1"), HasSubstr("b:1"), HasSubstr("→")));
  }
}

}  // namespace
}  // namespace necrocode::registry
