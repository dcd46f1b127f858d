#include "necrocode/registry/tasks_md.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::registry {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Wanted = std::map<std::string, WantedBox>;

constexpr const char* kPlan =
    "# Implementation Plan\n"
    "\n"
    "- [x] 1. Set up the project\n"
    "  - Make the folders\n"
    "  - _Requirements: 1.1_\n"
    "\n"
    "- [-] 2. Data models\n"
    "  Shared by all services.\n"
    "- [ ] 2.1 Define the types\n"
    "  - Names and ids\n"
    "    - [ ] also for slots\n"
    "  - _Requirements: 2.1, 3.3,1.2_\n"
    "- [ ]* 2.2 Property tests\n"
    "- [ ] 2.10 Validate them\n"
    "\n"
    "## Later\n"
    "not part of 2.10\n"
    "- [~] 3 Ship it\n";

std::vector<std::string> numbers(const std::vector<MarkdownTask>& plan) {
  std::vector<std::string> found;
  for (const MarkdownTask& task : plan) found.push_back(task.number);
  return found;
}

/// "line N message" of each defect.
std::vector<std::string> defects(std::string_view text) {
  try {
    parse_tasks_md(text);
  } catch (const TaskContextValidationError& error) {
    std::vector<std::string> found;
    for (const FieldError& field : error.info().fields) {
      found.push_back(field.pointer + " " + field.message);
    }
    return found;
  }
  return {};
}

TEST(TasksMd, PlanIsReadWithAllThatItSays) {
  const auto plan = parse_tasks_md(kPlan);
  ASSERT_THAT(numbers(plan), ElementsAre("1", "2", "2.1", "2.2", "2.10", "3"));
  EXPECT_EQ(plan[0].title, "Set up the project");
  EXPECT_EQ(plan[0].box, 'x');
  EXPECT_EQ(plan[0].description, "- Make the folders");
  EXPECT_EQ(plan[0].line, 3u);
  EXPECT_THAT(plan[0].requirements, ElementsAre("1.1"));
  EXPECT_EQ(plan[1].box, '-');
  EXPECT_EQ(plan[1].description, "Shared by all services.");
  EXPECT_EQ(plan[2].description, "- Names and ids\n  - [ ] also for slots");
  EXPECT_EQ(plan[2].parent, "2");
  EXPECT_THAT(plan[2].requirements, ElementsAre("2.1", "3.3", "1.2"));
  EXPECT_TRUE(plan[3].optional);
  EXPECT_FALSE(plan[4].optional);
  EXPECT_THAT(plan[4].description, IsEmpty());
  EXPECT_EQ(plan[5].box, '~');
  for (const MarkdownTask& task : plan) EXPECT_EQ(kPlan[task.box_at], task.box);
}

TEST(TasksMd, BomCarriageReturnsTabsAndOtherBulletsAreRead) {
  const std::string text =
      "\xEF\xBB\xBF* [ ] 1. One\r\n\t+ [X] 1.1) Deep\r\n\t\t- words\r\n  - [ ]* 1.2: Last";
  const auto plan = parse_tasks_md(text);
  ASSERT_THAT(numbers(plan), ElementsAre("1", "1.1", "1.2"));
  EXPECT_EQ(plan[0].title, "One");
  EXPECT_EQ(plan[1].box, 'x');
  EXPECT_EQ(plan[1].description, "- words");
  EXPECT_TRUE(plan[2].optional);
  EXPECT_EQ(text[plan[1].box_at], 'X');
}

TEST(TasksMd, BoxesInFencesAndCommentsAreText) {
  const auto plan = parse_tasks_md(
      "```\n- [ ] 8. no\n```\n"
      "<!--\n- [ ] 9. no\n-->\n"
      "- [ ] 1. One\n"
      "  ~~~md\n  - [ ] 1.1 no\n  ```\n  ~~~~\n"
      "- [ ] 2. Two\n"
      "  ``` an item ends its fence\n"
      "- [ ] 3. Three\n"
      "  - `- [ ] 4. no`\n"
      "  - [a link](#x), [ab] and [1]\n");
  EXPECT_THAT(numbers(plan), ElementsAre("1", "2", "3"));
  EXPECT_EQ(plan[0].description, "~~~md\n- [ ] 1.1 no\n```\n~~~~");
}

TEST(TasksMd, HeadingEndsATask) {
  const auto plan =
      parse_tasks_md("- [ ] 1. One\n  # deep\n# Notes\n- words\n  _Requirements: 7_\n");
  EXPECT_EQ(plan[0].description, "# deep");
  EXPECT_THAT(plan[0].requirements, IsEmpty());
}

TEST(TasksMd, ParentIsTheNearestNumberThatIsThere) {
  const auto plan = parse_tasks_md("- [ ]* 1 A\n- [ ] 1.2.3 B\n- [ ] 1.2.3.4 C\n- [ ] 5.1 D\n");
  EXPECT_EQ(plan[1].parent, "1");
  EXPECT_EQ(plan[2].parent, "1.2.3");
  EXPECT_EQ(plan[3].parent, "");
  EXPECT_TRUE(plan[2].optional) << "what stands below an optional task is optional";
}

TEST(TasksMd, AllDefectsAreToldByTheirLines) {
  EXPECT_THAT(
      defects("- [ ] 1. One\n- [?] 2. Two\n- [ ] 1. Again\n- [ ] 1..2 Bad\n- [ ] 01 Bad\n"
              "- [ ] No number\n  - [ ] a list of its own\n- [ ] 3.\n- [] 4. Four\n"
              "- [ ] 5. \xFF\n```\n- [ ] 6. Six\n"),
      ElementsAre("line 2 a box is [ ], [x], [-] or [~]",
                  "line 3 number 1 was given in line 1 already",
                  "line 4 \"1..2\" is no number of a task; such as 1 or 1.2 is",
                  "line 5 \"01\" is no number of a task; such as 1 or 1.2 is",
                  "line 6 a task needs a number, such as 1. or 1.2", "line 8 the task has no title",
                  "line 9 a box is [ ], [x], [-] or [~]", "line 10 is not UTF-8",
                  "line 11 opens a code fence that is never closed"));
  EXPECT_THAT(defects("<!-- a comment\n- [ ] 1. One\n"),
              ElementsAre("line 1 opens a comment that is never closed"));
}

TEST(TasksMd, TextWithoutTasksIsADefect) {
  for (const char* text : {"", "\n", "# Plan\n- words\n", "\xEF\xBB\xBF"}) {
    EXPECT_THAT(defects(text), ElementsAre(HasSubstr("there is no task"))) << text;
  }
}

TEST(TasksMd, DefectsToldAreBounded) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "- [ ] no number\n";
  EXPECT_EQ(defects(text).size(), 100u);
}

TEST(TasksMdTaskset, TasksFollowTheOrderOfTheFileAndNothingWaitsForAnOptionalOne) {
  const Json taskset = to_taskset(parse_tasks_md(kPlan), "shop", {.repo_url = "https://r/x.git"});
  EXPECT_EQ(taskset["spec_name"], Json("shop"));
  std::vector<std::string> edges;
  for (const Json& task : taskset["tasks"].items()) {
    edges.push_back(task["id"].string_or("") + "<" + task["dependencies"].dump());
    EXPECT_EQ(task["repo_url"], Json("https://r/x.git"));
  }
  EXPECT_THAT(edges, ElementsAre("1<null", "2.1<[\"1\"]", "2.2<[\"2.1\"]", "2.10<[\"2.1\"]",
                                 "3<[\"2.10\"]"));
  const Json& tasks = taskset["tasks"];
  EXPECT_EQ(tasks.items()[0]["done"], Json(true));
  EXPECT_TRUE(tasks.items()[1]["done"].is_null());
  EXPECT_EQ(tasks.items()[1]["description"],
            Json("- Names and ids\n  - [ ] also for slots\n\n"
                 "Part of 2, Data models:\nShared by all services."));
  EXPECT_EQ(tasks.items()[1]["metadata"]["requirements"].dump(), "[\"2.1\",\"3.3\",\"1.2\"]");
  EXPECT_EQ(tasks.items()[2]["labels"].dump(), "[\"optional\"]");
}

TEST(TasksMdTaskset, ParallelHasNoOrder) {
  for (const Json& task :
       to_taskset(parse_tasks_md(kPlan), "s", {.parallel = true})["tasks"].items())
    EXPECT_TRUE(task["dependencies"].is_null()) << task.dump();
}

TEST(TasksMdTaskset, WithoutOptionalATaskWhoseSubTasksAreAllOptionalStands) {
  const auto plan = parse_tasks_md("- [ ] 1 A\n- [ ]* 1.1 B\n- [ ]* 2 C\n- [ ] 2.1 D\n");
  const Json all = to_taskset(plan, "s");
  EXPECT_EQ(all["tasks"].size(), 2u);
  const Json some = to_taskset(plan, "s", {.without_optional = true});
  ASSERT_EQ(some["tasks"].size(), 1u);
  EXPECT_EQ(some["tasks"].items()[0]["id"], Json("1"));
}

TEST(TasksMdTaskset, SamePlanMakesTheSameJson) {
  EXPECT_EQ(to_taskset(parse_tasks_md(kPlan), "s").dump(),
            to_taskset(parse_tasks_md(kPlan), "s").dump());
}

std::vector<std::string> told(const std::vector<TickNote>& notes) {
  std::vector<std::string> found;
  for (const TickNote& note : notes) found.push_back(note.number + ": " + note.message);
  return found;
}

TEST(TasksMdTick, OnlyTheBytesOfBoxesChange) {
  const std::string text =
      "\xEF\xBB\xBF# Plan  \r\n\r\n- [ ] 1. One  \r\n\t- \xFF raw\r\n* [-] 2. Two\r\n- [ ] 3. "
      "Three";
  const Wanted wanted = {{"1", {"One", TaskState::kRunning}},
                         {"2", {"Two", TaskState::kDone}},
                         {"3", {"Three", TaskState::kFailed}}};
  const TickResult result = tick_tasks_md(text, wanted);
  EXPECT_EQ(result.text, replace_all(replace_all(text, "[-] 2", "[x] 2"), "[ ] 1", "[-] 1"));
  ASSERT_EQ(result.changes.size(), 2u);
  EXPECT_EQ(result.changes[0].line, 3u);
  EXPECT_EQ(result.changes[0].to, '-');
  EXPECT_EQ(result.changes[1].from, '-');
  EXPECT_THAT(result.conflicts, IsEmpty());
  const TickResult again = tick_tasks_md(result.text, wanted);
  EXPECT_THAT(again.changes, IsEmpty());
  EXPECT_EQ(again.text, result.text);
}

TEST(TasksMdTick, GroupFollowsItsSubTasksAndOptionalOnesDoNotHoldItUp) {
  const std::string text =
      "- [ ] 1 A\n- [ ] 1.1 B\n- [ ] 1.1.1 C\n- [x] 1.1.2 D\n- [ ] 1.2 E\n- [ ]* 1.3 F\n";
  Wanted wanted = {{"1.1.1", {"C", TaskState::kDone}}};
  const std::string first = tick_tasks_md(text, wanted).text;
  EXPECT_EQ(first,
            "- [-] 1 A\n- [x] 1.1 B\n- [x] 1.1.1 C\n- [x] 1.1.2 D\n- [ ] 1.2 E\n- [ ]* 1.3 F\n");
  wanted["1.2"] = {"E", TaskState::kDone};
  EXPECT_EQ(tick_tasks_md(first, wanted).text,
            "- [x] 1 A\n- [x] 1.1 B\n- [x] 1.1.1 C\n- [x] 1.1.2 D\n- [x] 1.2 E\n- [ ]* 1.3 F\n");
}

TEST(TasksMdTick, GroupThatTheRegistryKnowsNothingOfStays) {
  const std::string text = "- [ ] 1 A\n- [x] 1.1 B\n- [ ] 2 C\n";
  EXPECT_EQ(tick_tasks_md(text, {{"2", {"C", TaskState::kDone}}}).text,
            "- [ ] 1 A\n- [x] 1.1 B\n- [x] 2 C\n");
}

TEST(TasksMdTick, TickOfAPersonStaysAndIsToldAsADifference) {
  const std::string text = "- [x] 1 A\n- [x] 2 B\n";
  const TickResult result =
      tick_tasks_md(text, {{"1", {"A", TaskState::kReady}}, {"2", {"B", TaskState::kRunning}}});
  EXPECT_EQ(result.text, text);
  EXPECT_THAT(told(result.differences), ElementsAre("1: is ticked, and the task is ready",
                                                    "2: is ticked, and the task is running"));
  EXPECT_THAT(result.conflicts, IsEmpty());
}

TEST(TasksMdTick, WhatIsNoLongerTheSameTaskIsAConflictAndUntouched) {
  const std::string text = "- [ ] 1 New title\n- [ ] 2 B\n- [ ] 2 B\n- [ ] 3 C\n- [ ] 3.1 D\n";
  const TickResult result = tick_tasks_md(text, {{"1", {"Old title", TaskState::kDone}},
                                                 {"2", {"B", TaskState::kDone}},
                                                 {"3", {"C", TaskState::kDone}},
                                                 {"4", {"gone", TaskState::kDone}},
                                                 {"5", {"gone, too", TaskState::kReady}}});
  EXPECT_EQ(result.text, text);
  EXPECT_THAT(result.changes, IsEmpty());
  EXPECT_THAT(
      told(result.conflicts),
      ElementsAre("1: has another title than the task: Old title", "2: is there more than once",
                  "3: has sub-tasks now, and was imported as one task", "4: is not in the file"));
}

TEST(TasksMdTick, PlanWithDefectsElsewhereIsTickedWhereItIsClear) {
  EXPECT_EQ(
      tick_tasks_md("- [?] 1 A\n- [ ] 2 B\n- [ ] no number\n", {{"2", {"B", TaskState::kDone}}})
          .text,
      "- [?] 1 A\n- [x] 2 B\n- [ ] no number\n");
}

}  // namespace
}  // namespace necrocode::registry
