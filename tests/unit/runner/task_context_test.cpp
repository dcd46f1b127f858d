#include "necrocode/runner/task_context.hpp"

#include <gmock/gmock.h>

#include <set>

#include "necrocode/base/file.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/git/repository.hpp"
#include "necrocode/registry/model.hpp"

namespace necrocode::runner {
namespace {

using testing::Contains;
using testing::HasSubstr;

Json valid() {
  return Json::object({{"task_id", "app:1.2"},
                       {"title", "Add a Parser!"},
                       {"repo_url", "https://example.org/app.git"}});
}

std::vector<std::string> defects(const Json& json) {
  try {
    read_task_context(json, {});
  } catch (const TaskContextValidationError& error) {
    std::vector<std::string> pointers;
    for (const FieldError& field : error.info().fields) pointers.push_back(field.pointer);
    return pointers;
  }
  return {};
}

TEST(TaskContext, MinimalTaskThenDefaultsAreFilledIn) {
  const TaskContext task = read_task_context(valid(), {});
  EXPECT_EQ(task.task_id.str(), "app:1.2");
  EXPECT_EQ(task.branch_name, "feature/task-app-1.2-add-a-parser");
  EXPECT_EQ(task.timeout, std::chrono::seconds{1800});
  EXPECT_TRUE(task.executor.empty()) << "it is the configuration's";
  EXPECT_TRUE(task.fail_fast);
}

TEST(TaskContext, ExecutorsThenAsATextOrAListAndTheFlagBeforeThem) {
  const config::ExecutorChain both = {"llm", "command:claude"};
  EXPECT_EQ(read_task_context(valid().set("executor", " llm,command:claude "), {}).executor, both);
  const Json list = Json::Array{"llm", "command:claude"};
  EXPECT_EQ(read_task_context(valid().set("executor", list), {}).executor, both);
  TaskDefaults defaults;
  defaults.executor = {"command"};
  EXPECT_EQ(read_task_context(valid().set("executor", list), defaults).executor, defaults.executor);
  for (const Json& wrong :
       {Json(""), Json("llm,"), Json("command:"), Json("command:a b"), Json(5), Json::array(),
        Json(Json::Array{1}), Json("llm;llm"), Json("llm,llm,llm,llm,llm,llm,llm,llm,llm")}) {
    EXPECT_THAT(defects(valid().set("executor", wrong)), Contains("/executor")) << wrong.dump();
  }
}

TEST(TaskContext, AnyValidIdThenTheDefaultBranchIsValidAndItsOwn) {
  std::set<std::string> branches;
  const std::string longest(limits::kNameBytes, 'x');
  const std::vector<std::string> ids = {"app:1.",
                                        "app:1-",
                                        "a..b:1",
                                        "a--b:1",
                                        "app:1.lock",
                                        "app:1..2",
                                        "app.:1",
                                        "app:1...",
                                        longest + ":" + longest,
                                        "app:1.lock.",
                                        longest + ":" + longest.substr(1) + "y"};
  for (const char* title :
       {"\u65e5\u672c\u8a9e", "a title that fills all of the room there is, and more"}) {
    for (const std::string& id : ids) {
      Json json = valid();
      json.set("task_id", id).set("title", title);
      ASSERT_TRUE(defects(json).empty()) << id;
      const std::string branch = read_task_context(json, {}).branch_name;
      EXPECT_TRUE(git::is_branch_name(branch)) << branch;
      EXPECT_TRUE(branch.starts_with("feature/task-")) << branch;
      EXPECT_TRUE(branches.insert(branch).second) << branch;
    }
  }
}

TEST(TaskContext, BareIdThenCompletedBySpecName) {
  Json json = valid();
  json.set("task_id", "3").set("spec_name", "chat");
  EXPECT_EQ(read_task_context(json, {}).task_id.str(), "chat:3");
  json.set("task_id", "other:3");
  EXPECT_THAT(defects(json), Contains("/spec_name"));
}

TEST(TaskContext, ManyDefectsThenAllAreNamedAtOnce) {
  Json json = valid();
  json.set("task_id", "a b")
      .set("title", 5)
      .set("timeout_seconds", 0)
      .set("test_commands", Json::Array{1, ""})
      .set("branch_name", "-f")
      .set("related_files", Json::Array{"/etc/passwd", "a/../../b"})
      .set("executor", "magic")
      .set("repo_url", "ext::sh -c id")
      .set("base_commits", Json::Array{"HEAD"});
  const auto found = defects(json);
  for (const char* pointer :
       {"/task_id", "/title", "/timeout_seconds", "/test_commands/0", "/test_commands",
        "/branch_name", "/related_files", "/executor", "/repo_url", "/base_commits"}) {
    EXPECT_THAT(found, Contains(pointer));
  }
}

TEST(TaskContext, TimeoutsThatAreNoPositiveNumbersThenRefused) {
  for (const Json& timeout : {Json(0), Json(-1), Json("5"), Json(1.5), Json(true)}) {
    Json json = valid();
    json.set("timeout_seconds", timeout);
    EXPECT_THAT(defects(json), Contains("/timeout_seconds")) << timeout.dump();
  }
}

TEST(TaskContext, BranchNamesThatGitWouldReadAsSomethingElseThenRefused) {
  for (const char* branch : {"-f", "a..b", "a@{b", "a.lock", "a b", "a~b", "/a", "a/", "a//b", "@",
                             "a\nb", "HEAD\x01"}) {
    Json json = valid();
    json.set("branch_name", branch);
    EXPECT_THAT(defects(json), Contains("/branch_name")) << branch;
  }
}

TEST(TaskContext, UnknownKeysThenWarned) {
  Json json = valid();
  json.set("tittle", "x").set("priority", 3);
  const TaskContext task = read_task_context(json, {});
  ASSERT_EQ(task.warnings.size(), 1U);
  EXPECT_THAT(task.warnings[0], HasSubstr("tittle"));
}

// As a claim answers, with all that it may hold.
TEST(TaskContext, ClaimedTaskThenNoWarning) {
  const Json submitted = Json::parse(R"({"id":"2","title":"T","description":"D",
      "acceptance_criteria":["c"],"dependencies":["1"],"on_dependency_failure":{"1":"run"},
      "required_skill":"cpp","provider":"openai","touches":["src/**"],
      "not_before":"2026-01-31T12:00:00Z","repo_url":"file:///r","slot_path":"/slot",
      "slot_id":"r-1.1","branch_name":"feature/x","base_branch":"main","test_commands":["true"],
      "fail_fast":true,"timeout_seconds":60,"test_timeout_seconds":60,"related_files":["a"],
      "readonly_files":["b"],"max_tokens":100,"executor":"llm","metadata":{"k":1},
      "labels":["l"],"priority":3,"max_attempts":{"tests":2}})");
  JsonFields fields(submitted);
  registry::ClaimedTask claimed;
  claimed.task.fields = registry::TaskSpec::from_json(fields).fields;
  EXPECT_EQ(claimed.task.fields.size(), submitted.size() - 1) << "a field is not kept";
  claimed.task.id = "app:2";
  claimed.task.spec_name = "app";
  claimed.task.number = "2";
  claimed.task.base_commits = {std::string(40, 'a')};
  claimed.task.runner_id = "r";
  claimed.task.blocked_reason = "b";
  claimed.task.failure = registry::Failure{"tests", "red", {}}.to_json();
  claimed.task.not_before = from_unix_ms(1);
  claimed.previous_attempts.emplace_back();
  claimed.lease_token.value = "t";
  EXPECT_THAT(read_task_context(claimed.to_json(), {}).warnings, testing::IsEmpty());
}

TEST(TaskContext, SlotPathThenNoRepositoryIsNeeded) {
  Json json = valid();
  json.erase("repo_url");
  EXPECT_THAT(defects(json), Contains("/repo_url"));
  json.set("slot_path", "relative");
  EXPECT_THAT(defects(json), Contains("/slot_path"));
  json.set("slot_path", "/somewhere/clone");
  EXPECT_TRUE(defects(json).empty());
}

TEST(TaskContext, YamlFileThenReadLikeJson) {
  const TemporaryDirectory folder;
  write_file_atomic(
      folder.path() / "task.yaml",
      "task_id: app:1\ntitle: 'A: b'\nslot_path: /x\nacceptance_criteria:\n  - one\n");
  const TaskContext task = read_task_context(read_task_file(folder.path() / "task.yaml"), {});
  EXPECT_EQ(task.title, "A: b");
  EXPECT_EQ(task.acceptance_criteria, std::vector<std::string>{"one"});
}

TEST(Globs, PatternsThenMatchAsDocumented) {
  const auto matches = [](const std::string& pattern, const std::string& path) {
    return matches_any({pattern}, path);
  };
  EXPECT_TRUE(matches("a.txt", "a.txt"));
  EXPECT_TRUE(matches("*.txt", "a.txt"));
  EXPECT_FALSE(matches("*.txt", "b/a.txt"));
  EXPECT_TRUE(matches("**/a.txt", "a.txt"));
  EXPECT_TRUE(matches("**/a.txt", "x/y/a.txt"));
  EXPECT_FALSE(matches("**/a.txt", "x/ba.txt"));
  EXPECT_TRUE(matches("tests/**", "tests/x/y.cpp"));
  EXPECT_FALSE(matches("tests/**", "test/x"));
  EXPECT_TRUE(matches("tests/", "tests/x/y.cpp"));
  EXPECT_TRUE(matches("a?c", "abc"));
  EXPECT_FALSE(matches("a?c", "a/c"));
  EXPECT_FALSE(matches("a?", "a"));
  EXPECT_FALSE(matches("", "a"));
}

TEST(Globs, HostilePatternThenStillQuick) {
  std::string pattern;
  for (int i = 0; i < 1000; ++i) pattern += "**a";
  EXPECT_FALSE(matches_any({pattern}, std::string(2000, 'b')));
}

}  // namespace
}  // namespace necrocode::runner
