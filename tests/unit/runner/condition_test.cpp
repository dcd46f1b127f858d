#include "necrocode/runner/condition.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"

namespace necrocode::runner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const Json& values() {
  static const Json kValues = Json::parse(
      R"({"branch":"feature/x","attempt":2,"ratio":0.5,"tags":["slow",3],"empty":"","none":null,
          "yes":true,"no":false,"metadata":{"team":"core","deep":{"er":1}}})");
  return kValues;
}

bool holds(std::string_view text) {
  return Condition::parse(text).holds(values());
}

std::string problem(std::string_view text) {
  try {
    holds(text);
    return {};
  } catch (const PlaybookExecutionError& error) {
    return error.summary();
  }
}

TEST(Conditions, Hold) {
  for (const char* text : {"true",
                           "yes",
                           "branch",
                           "1",
                           "not false",
                           "not no",
                           "not empty",
                           "not none",
                           "not 0",
                           "branch == \"feature/x\"",
                           "branch != 'main'",
                           "attempt == 2",
                           "attempt == 2.0",
                           "ratio < 1",
                           "attempt > ratio",
                           "attempt >= 2",
                           "2 <= attempt",
                           "'a' < 'b'",
                           "\"x\" in branch",
                           "'slow' in tags",
                           "3 in tags",
                           "'fast' not in tags",
                           "branch in ['main', 'feature/x']",
                           "'team' in metadata",
                           "metadata.team == 'core'",
                           "metadata.deep.er == 1",
                           "none == null",
                           "branch != null",
                           "tags == ['slow', 3]",
                           "no or yes",
                           "yes and not no",
                           "(no or yes) and (attempt > 1)",
                           "not (no and yes)",
                           "yes or no and no",
                           "9007199254740993 != 9007199254740992",
                           "9007199254740993 > 9007199254740992",
                           "not no and yes",
                           "attempt == -2 or true",
                           " \tyes\n"}) {
    EXPECT_TRUE(holds(text)) << text;
  }
}

TEST(Conditions, DoNotHold) {
  for (const char* text :
       {"false", "no", "empty", "none", "0", "[]", "not yes", "branch == 'main'", "attempt < 2",
        "attempt > 2", "'main' in branch", "'4' in ['3']", "'core' in metadata", "branch == null",
        "yes and no", "no or no", "not (yes or no)", "(yes or no) and no"}) {
    EXPECT_FALSE(holds(text)) << text;
  }
}

// Else nothing after the first answer would be looked at, and its mistake found on another day.
TEST(Conditions, AreNotAskedBeyondTheirAnswer) {
  EXPECT_TRUE(holds("yes or unknown"));
  EXPECT_FALSE(holds("no and unknown"));
}

TEST(Conditions, SayWhatIsWrongAndWhere) {
  for (const auto& [text, wanted] : std::vector<std::pair<std::string, std::string>>{
           {"", "column 1: a value is expected"},
           {"branch =", "column 8: equality is written =="},
           {"branch == ", "column 11: a value is expected"},
           {"branch == 'x", "column 11: this text has no end"},
           {"(yes", "column 5: ')' is missing"},
           {"[1, 2", "']' is missing"},
           {"yes no", "column 5: nothing is expected here"},
           {"yes && no", "column 5: nothing is expected here"},
           {"1 < 2 < 3", "only two values can be compared"},
           {"attempt == 2x", "\"2x\" is not a number"},
           {"and yes", "a value is expected, not \"and\""},
           {"in tags", "a value is expected, not \"in\""},
           {"system('id')", "nothing is expected here"},
           {"branch == `id`", "a value is expected"},
           {"unknown", "there is no value named \"unknown\""},
           {"metadata.nobody == 1", "there is no value named \"metadata.nobody\""},
           {"attempt == '2'", "a number and text cannot be compared"},
           {"branch < 1", "text and a number cannot be compared"},
           {"branch > 1", "text and a number cannot be compared"},
           {"tags < tags", "a list and a list cannot be compared"},
           {"1 in branch", "a number cannot be in text"},
           {"1 in 2", "a number cannot be in a number"}}) {
    EXPECT_THAT(problem(text), HasSubstr(wanted)) << text;
  }
}

TEST(Conditions, OfHostileDepthAndLengthAreRefused) {
  EXPECT_THAT(problem(std::string(4000, '(')), HasSubstr("nested too deeply"));
  EXPECT_THAT(problem(std::string(4000, '[')), HasSubstr("nested too deeply"));
  std::string nots;
  for (int i = 0; i < 1000; ++i) nots += "not ";
  EXPECT_THAT(problem(nots + "yes"), HasSubstr("nested too deeply"));
  EXPECT_THAT(problem(std::string(5000, ' ')), HasSubstr("longer than 4 KiB"));
}

TEST(Conditions, TellTheirNames) {
  EXPECT_THAT(Condition::parse("a.b == 1 and not (c in [d, 'e']) or a.b").names(),
              ElementsAre("a.b", "c", "d"));
}

}  // namespace
}  // namespace necrocode::runner
