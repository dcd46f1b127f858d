// Unified diffs: their form, the places of their hunks, and answers that are nothing but a diff.
#include "necrocode/llm/unified_diff.hpp"

#include <gmock/gmock.h>

#include <random>

#include "necrocode/llm/model.hpp"
#include "support/git_fixture.hpp"

namespace necrocode::llm {
namespace {

using testing::HasSubstr;

std::string patched(std::string_view file, std::string_view diff) {
  WorkBudget budget;
  return apply_diff("a.txt", file, diff, budget);
}

std::string rejection(std::string_view file, std::string_view diff) {
  try {
    const std::string result = patched(file, diff);
    ADD_FAILURE() << "applied: " << result.substr(0, 200);
  } catch (const ImplementationError& error) {
    return error.what();
  }
  return {};
}

struct Case {
  std::string what;
  std::string file;
  std::string diff;
  std::string result;
};

void expect_all(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    try {
      EXPECT_EQ(patched(one.file, one.diff), one.result) << one.what;
    } catch (const ImplementationError& error) {
      ADD_FAILURE() << one.what << ": " << error.what();
    }
  }
}

TEST(ApplyDiff, HunksAreAppliedInOrder) {
  expect_all({
      {"one line", "a\nb\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n", "a\nx\nc\n"},
      {"counts of one left out", "a\n", "@@ -1 +1,2 @@ int f()\n-a\n+x\n+y\n", "x\ny\n"},
      {"two hunks", "a\nb\nc\nd\ne\n", "@@ -1,2 +1 @@\n a\n-b\n@@ -5,1 +4,2 @@\n e\n+f\n",
       "a\nc\nd\ne\nf\n"},
      {"hunks that touch", "a\nb\n", "@@ -1 +1 @@\n-a\n+x\n@@ -2 +2 @@\n-b\n+y\n", "x\ny\n"},
      {"into an empty file", "", "@@ -0,0 +1,2 @@\n+a\n+b\n", "a\nb\n"},
      {"all lines deleted", "a\nb\n", "@@ -1,2 +0,0 @@\n-a\n-b\n", ""},
      {"no numbers", "a\nb\nc\n", "@@\n-b\n+x\n@@ ... @@\n-c\n+y\n\n", "a\nx\ny\n"},
      {"lines like headers", "-- a\n", "@@ -1 +1 @@\n--- a\n+++ c\n", "++ c\n"},
      {"its own header", "a\n",
       "diff --git a/a.txt b/a.txt\nindex 1..2 100644\n--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 "
       "@@\n-a\n+b",
       "b\n"},
      {"header of another program", "a\n",
       "--- a.txt\t2020-01-01 00:00:00\n+++ a.txt\t2020-01-02\n@@ -1 +1 @@\n-a\n+b\n", "b\n"},
  });
}

TEST(ApplyDiff, WhitespaceThatModelsLoseIsTolerated) {
  expect_all({
      {"empty line of context", "a\n\nb\n", "@@ -1,3 +1,3 @@\n a\n\n-b\n+x\n", "a\n\nx\n"},
      {"empty lines after the counts", "a\n", "@@ -1 +1 @@\n-a\n+b\n\n\n", "b\n"},
      {"whitespace at line ends", "a  \nb\t\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c \n",
       "a  \nx\nc\n"},
      {"LF diff of a CRLF file", "a\r\nb\r\nc\r\n", "@@ -1,3 +1,4 @@\n a\n-b\n+x\n+y\n c\n",
       "a\r\nx\r\ny\r\nc\r\n"},
      {"CRLF diff of an LF file", "a\nb\n", "@@ -1,2 +1,2 @@\r\n a\r\n-b\r\n+x\r\n", "a\nx\n"},
      {"CRLF diff of a CRLF file", "a\r\n\r\nb\r\n", "@@ -1,3 +1,3 @@\r\n a\r\n\r\n-b\r\n+x\r\n",
       "a\r\n\r\nx\r\n"},
      {"CR that is added is no whitespace", "a\nb\n", "@@ -1,2 +1,2 @@\n a\n-b\n+b\r\n",
       "a\nb\r\n"},
      {"mixed: the end of the first line", "a\r\nb \nc\n", "@@ -2 +2 @@\n-b\n+x\n", "a\r\nx\nc\n"},
  });
}

TEST(ApplyDiff, FinalNewlineIsAsTheDiffSaysOrAsItWas) {
  constexpr const char* kBare = "\\ No newline at end of file\n";
  expect_all({
      {"taken away", "a\nb\n", std::string("@@ -2 +2 @@\n-b\n+x\n") + kBare, "a\nx"},
      {"given", "a\nb", std::string("@@ -2 +2 @@\n-b\n") + kBare + "+x\n", "a\nx\n"},
      {"absent before and after", "a\nb", std::string("@@ -2 +2 @@\n-b\n") + kBare + "+x\n" + kBare,
       "a\nx"},
      {"absent, on context", "a\nb", std::string("@@ -1,2 +1,2 @@\n-a\n+x\n b\n") + kBare, "x\nb"},
      {"not told", "a\nb", "@@ -2 +2 @@\n-b\n+x\n", "a\nx"},
      {"not told, appended", "a\nb", "@@ -2 +2,2 @@\n b\n+x\n", "a\nb\nx"},
      {"not told, last deleted", "a\nb", "@@ -1,2 +1 @@\n a\n-b\n", "a"},
      {"told, last deleted", "a\nb", std::string("@@ -1,2 +1 @@\n a\n-b\n") + kBare, "a\n"},
      {"not reached", "a\nb", "@@ -1 +1 @@\n-a\n+x\n", "x\nb"},
      {"with CRLF", "a\r\nb\r\n", std::string("@@ -2 +2 @@\n-b\n+x\n") + kBare, "a\r\nx"},
      {"of a new text", "", std::string("@@ -0,0 +1 @@\n+a\n") + kBare, "a"},
  });
}

TEST(ApplyDiff, WrongLineNumbersAreCorrectedByTheText) {
  const std::string file = "a\nb\nc\nd\ne\nf\ng\nh\ni\nb\nk\n";
  expect_all({
      {"unique", file, "@@ -900 +900 @@\n-d\n+x\n", "a\nb\nc\nx\ne\nf\ng\nh\ni\nb\nk\n"},
      {"nearest, exactly", file, "@@ -10 +10 @@\n-b\n+x\n", "a\nb\nc\nd\ne\nf\ng\nh\ni\nx\nk\n"},
      {"the line ends of a file whose last line has none", "a\r\nb", "@@ -2 +2,2 @@\n b\n+c\n",
       "a\r\nb\r\nc"},
      {"corrected by the hunk before", "0\n0\n0\n0\n0\nb\nb\nb\nb\nb\nb\n",
       "@@ -1,2 +1,2 @@\n 0\n-b\n+x\n@@ -4 +4 @@\n-b\n+y\n", "0\n0\n0\n0\n0\nx\nb\ny\nb\nb\nb\n"},
      {"exact before tolerant", "b \nb\n", "@@ -1 +1 @@\n-b\n+x\n", "b \nx\n"},
      {"only below the hunk before", "b\na\nb\n", "@@ -2 +2 @@\n-a\n+x\n@@ -1 +1 @@\n-b\n+y\n",
       "b\nx\ny\n"},
  });
}

TEST(ApplyDiff, PlaceThatIsNotClearIsRejected) {
  const std::string file = "a\nb\nc\nd\ne\nf\nb\n";
  for (const char* header : {"@@ -5 +5 @@", "@@", "@@ -3 +3 @@"}) {
    EXPECT_THAT(rejection(file, std::string(header) + "\n-b\n+x\n"),
                HasSubstr("belongs to more than one place, lines 2 and 7"))
        << header;
  }
  EXPECT_EQ(patched(file, "@@ -2 +2 @@\n-b\n+x\n"), "a\nx\nc\nd\ne\nf\nb\n");
  EXPECT_THAT(rejection("b \nb\t\n", "@@\n-b\n+x\n"), HasSubstr("more than one place"));
}

TEST(ApplyDiff, HunkThatDoesNotFitThenNoneIsAppliedAndTheNearestPlaceIsTold) {
  const std::string file = "int f() {\n  return 1;\n}\nint g() {\n  return 2;\n}\n";
  EXPECT_THAT(
      rejection(file,
                "@@ -1 +1 @@\n-int f() {\n+int h() {\n"
                "@@ -4,2 +4,2 @@\n int g() {\n-  return 3;\n+  return 4;\n"),
      testing::AllOf(HasSubstr("the hunk at line 4 of the diff for \"a.txt\" does not match"),
                     HasSubstr("nearest is at line 4: line 5 is \"  return 2;\" where it "
                               "should be \"  return 3;\"")));
  EXPECT_THAT(rejection("a\nb\nc\n", "@@ -2 +2 @@\n-b\n+x\n@@ -1 +1 @@\n-a\n+y\n"),
              HasSubstr("hunks go in order, without overlap"));
  EXPECT_THAT(rejection("a\nb\nc\n", "@@ -1,2 +1,2 @@\n a\n-b\n+x\n@@ -2 +2 @@\n-b\n+y\n"),
              HasSubstr("hunks go in order, without overlap"));
  EXPECT_THAT(rejection("a\nb\n", "@@ -1,0 +2 @@\n+x\n"), HasSubstr("nothing tells where"));
  EXPECT_THAT(rejection("", "@@\n+a\n@@\n+b\n"), HasSubstr("nothing tells where"));
  EXPECT_THAT(rejection("a\nb\n", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+x\n"),
              HasSubstr("is not the end of the file, as it says"));
  // A last line without a newline is not empty.
  EXPECT_THAT(rejection("a", "@@\n-a\n+b\n\n\\ No newline at end of file\n"),
              HasSubstr("is not the end of the file, as it says"));
}

TEST(ApplyDiff, WhatIsNoTextOrTooLargeIsRejected) {
  EXPECT_THAT(rejection("a\xff\n", "@@ -1 +1 @@\n-a\n+b\n"), HasSubstr("it is no text"));
  const std::string file = "a\n" + std::string(limits::kCodeChangeFileBytes - 3, 'x') + "\n";
  EXPECT_EQ(patched(file, "@@ -1 +1 @@\n-a\n+b\n").size(), limits::kCodeChangeFileBytes);
  EXPECT_THAT(rejection(file, "@@ -1 +1 @@\n-a\n+bb\n"), HasSubstr("would be larger"));
}

TEST(ApplyDiff, ManyHunksOfRepeatedLinesEndInTheBudget) {
  std::string file;
  while (file.size() < 2 * limits::kMiB) file += "aaaaaaa\n";
  std::string diff;
  for (int i = 0; i < 1000; ++i)
    diff += "@@ -" + std::to_string(2 * i + 1) + " +1 @@\n-aaaaaaa\n+b\n";
  WorkBudget budget(20 * file.size());
  EXPECT_THROW(apply_diff("a", file, diff, budget), ImplementationError);
  EXPECT_LE(budget.spent(), 20 * file.size());
}

TEST(ReadHunks, CountsTellAWholeHunkFromACutOne) {
  for (const auto& [diff, real] : std::vector<std::pair<std::string, std::string>>{
           {"@@ -1,3 +1,3 @@\n a\n-b\n+x\n", "2 old and 2 new"},
           {"@@ -1 +1 @@\n a\n-b\n+x\n", "2 old and 2 new"},
           {"@@ -1,2 +1,2 @@\n a\n-b\n+x\n+y\n\n", "2 old and 3 new"},
           {"@@ -1,2 +1 @@\n a\n-b\n\n+x\n", "3 old and 3 new"},
           {"@@ -1,2 +1,2 @@\n a\n@@ -1 +1 @@\n-a\n+b\n", "1 old and 1 new"},
           {"@@ -1,2 +1,2 @@\n", "0 old and 0 new"},
       }) {
    EXPECT_THAT(rejection("a\nb\n", diff), HasSubstr("but its hunk has " + real)) << diff;
  }
  EXPECT_THAT(
      rejection("a\n", "@@ -1,9 +1,8 @@ f\n-a\n+b\n"),
      HasSubstr("line 1 of the diff tells 9 old and 8 new lines, but its hunk has 1 old and "
                "1 new lines: \"@@ -1,9 +1,8 @@ f\""));
}

TEST(ReadHunks, MalformedDiffsAreRejectedWithTheirLine) {
  for (const auto& [diff, why] : std::vector<std::pair<std::string, std::string>>{
           {"", "there is no hunk"},
           {"\n\n", "there is no hunk"},
           {"--- a/a.txt\n+++ b/a.txt\n", "there is no hunk"},
           {"a\n", "line 1 of the diff is no part of one: \"a\""},
           {"-a\n+b\n", "line 1 of the diff is no part of one"},
           {"@@ -1 @@\n-a\n+b\n", "line 1 of the diff is not of the form"},
           {"@@ -x +1 @@\n-a\n+b\n", "is not of the form"},
           {"@@ -1,2 +1,2\n-a\n+b\n", "is not of the form"},
           {"@@ -99999999999999999999 +1 @@\n-a\n+b\n", "is not of the form"},
           {"@@ -1 +1 @@\n-a\n+b\nprose\n", "line 4 of the diff is no part of one"},
           {"@@\n-a\n+b\nprose\n", "line 4 of the diff begins with none of"},
           {"@@ -1,1 +1,1 @@\n a\n", "line 1 of the diff begins a hunk that changes nothing"},
           {"@@\n a\n", "changes nothing"},
           {"@@ -1 +1 @@\n\\ No newline\n-a\n+b\n", "line 2 of the diff stands behind no line"},
           {"@@ -1,2 +1 @@\n-a\n\\ No newline\n-b\n+c\n", "line 4 of the diff follows one"},
           {"@@ -1 +1,2 @@\n-a\n+b\n\\ No newline\n+c\n", "line 5 of the diff follows one"},
           {"@@ -1 +1 @@\n-a\n+b\n--- a/c\n+++ b/c\n@@ -1 +1 @@\n-a\n+b\n",
            "line 4 of the diff begins a second file"},
           {"--- a/b.txt\n+++ b/b.txt\n@@ -1 +1 @@\n-a\n+b\n", "names another file: \"b.txt\""},
           {"--- /dev/null\n+++ b/a.txt\n@@ -0,0 +1 @@\n+b\n", "creates or deletes the file"},
           {"diff --git a/a.txt b/a.txt\nold mode 100644\nnew mode 100755\n", "changes the mode"},
           {"diff --git a/a.txt b/b.txt\nrename from a.txt\nrename to b.txt\n", "renames a file"},
       }) {
    EXPECT_THAT(rejection("a\n", diff), HasSubstr(why)) << diff;
  }
  std::string many;
  for (std::size_t i = 0; i <= limits::kCodeEdits; ++i) many += "@@\n-a\n+b\n";
  EXPECT_THAT(rejection("a\n", many), HasSubstr("is one hunk more than 1000"));
  EXPECT_THAT(rejection("a\n", "@@\n-a\n" + std::string(kMatchLines, '\n') + "+b\n"),
              HasSubstr("is one too many"));
  const std::string half = "@@\n-a\n" + std::string(kMatchLines * 2 / 3, '\n') + "+b\n";
  EXPECT_THAT(rejection("a\n", half + half), HasSubstr("begins a hunk with which it is too long"));
}

// What the whole answer `text` comes to; the error when it is refused.
std::string read(const std::string& text, std::vector<CodeChange>& changes) {
  std::string explanation;
  try {
    changes = parse_code_changes(text, explanation);
    return explanation;
  } catch (const RunnerError& error) {
    return error.what();
  }
}

const std::string kDiff =
    "diff --git a/src/a.txt b/src/a.txt\nindex 1..2 100644\n--- a/src/a.txt\n+++ b/src/a.txt\n"
    "@@ -1,2 +1,2 @@\n a\n-b\n+x\n"
    "diff --git a/new.txt b/new.txt\nnew file mode 100644\nindex 0..3\n--- /dev/null\n"
    "+++ b/new.txt\n@@ -0,0 +1,2 @@\n+one\n+two\n\\ No newline at end of file\n"
    "diff --git a/old.txt b/old.txt\ndeleted file mode 100644\nindex 3..0\n--- a/old.txt\n"
    "+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n"
    "diff --git a/empty b/empty\nnew file mode 100644\nindex 0..e\n";

TEST(DiffAnswer, GitDiffOfSeveralFilesIsRead) {
  for (const auto& [text, before] : std::vector<std::pair<std::string, std::string>>{
           {kDiff, ""},
           {"\xEF\xBB\xBF" + kDiff, ""},
           {"Here it is, {\"a\":1}:\n\n```diff\n" + kDiff + "```\nIt does {this}.\n",
            "Here it is, {\"a\":1}:"},
           {"I change:\n" + kDiff + "\n\n", "I change:"},
           {"```\nls\n```\n```patch\n" + kDiff + "```", "```\nls\n```"},
       }) {
    std::vector<CodeChange> changes;
    const std::string told = read(text, changes);
    ASSERT_EQ(changes.size(), 4u) << told;
    EXPECT_EQ(told, before);
    EXPECT_EQ(changes[0].file_path, "src/a.txt");
    EXPECT_EQ(changes[0].operation, Operation::kModify);
    EXPECT_EQ(changes[0].diff, "@@ -1,2 +1,2 @@\n a\n-b\n+x\n");
    EXPECT_FALSE(changes[0].content);
    EXPECT_EQ(changes[1].file_path, "new.txt");
    EXPECT_EQ(changes[1].operation, Operation::kCreate);
    EXPECT_EQ(changes[1].content, "one\ntwo");
    EXPECT_EQ(changes[2].file_path, "old.txt");
    EXPECT_EQ(changes[2].operation, Operation::kDelete);
    EXPECT_EQ(changes[3].file_path, "empty");
    EXPECT_EQ(changes[3].content, "");
  }
}

TEST(DiffAnswer, LineEndsOfTheAnswerAreNotThoseOfANewFile) {
  std::vector<CodeChange> changes;
  read("--- /dev/null\r\n+++ b/a\r\n@@ -0,0 +1,2 @@\r\n+x\r\n+y\r\n", changes);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].content, "x\ny\n");
  read("--- /dev/null\n+++ b/a\n@@ -0,0 +1,2 @@\n+x\r\n+y\r\n", changes);
  EXPECT_EQ(changes[0].content, "x\r\ny\r\n");
}

TEST(DiffAnswer, SeveralFencesAndPlainHeadersAreRead) {
  std::vector<CodeChange> changes;
  read(
      "First:\n```diff\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-a\n+b\n```\nthen\n"
      "```diff\n--- b\n+++ b\n@@\n-a\n+b\n\n```\n",
      changes);
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_EQ(changes[0].file_path, "a");
  EXPECT_EQ(changes[1].file_path, "b");
  EXPECT_EQ(changes[1].diff, "@@\n-a\n+b\n\n");
}

TEST(DiffAnswer, JsonWithinADiffIsNotTheAnswerAndJsonBesideOneIs) {
  const std::string json =
      R"({"code_changes":[{"file_path":"j.txt","operation":"delete"}],"explanation":"json"})";
  std::vector<CodeChange> changes;
  read("--- a/a\n+++ b/a\n@@ -1 +1,3 @@\n-a\n+" + json + "\n+x\n+{\"code_changes\": \n", changes);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].file_path, "a");
  EXPECT_EQ(read("```diff\n" + kDiff + "```\n" + json, changes), "json");
  EXPECT_EQ(changes[0].file_path, "j.txt");
  EXPECT_EQ(read(json + "\n```diff\n" + kDiff + "```\n", changes), "json");
  EXPECT_EQ(read("```diff\n" + kDiff + "```\n```\n  " + json + "\n```\n", changes), "json");
  EXPECT_EQ(read(kDiff + json, changes), "json");
  EXPECT_THAT(read(kDiff + " " + json, changes), HasSubstr("code changes are malformed"));
  EXPECT_THAT(read("```diff\n" + kDiff + "```\n{\"code_changes\": [", changes),
              HasSubstr("cut off"));
}

TEST(DiffAnswer, WhatACodeChangeCannotTellIsRefused) {
  const std::string git = "diff --git a/a b/a\n";
  const std::string names = "--- a/a\n+++ b/a\n";
  const std::string hunk = "@@ -1 +1 @@\n-a\n+b\n";
  for (const auto& [text, why] : std::vector<std::pair<std::string, std::string>>{
           {"diff --git a/a b/b\nsimilarity index 100%\nrename from a\nrename to b\n",
            "/code_changes/0: the diff renames a file"},
           {"--- a/a\n+++ b/b\n" + hunk, "renames a file"},
           {"diff --git a/a b/b\ncopy from a\ncopy to b\n", "copies a file"},
           {git + "old mode 100644\nnew mode 100755\n" + names + hunk, "changes the mode"},
           {git + "new file mode 100755\n--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+a\n",
            "no plain file of mode 100644"},
           {git + "new file mode 120000\n--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+a\n",
            "no plain file"},
           {git + "deleted file mode 120000\n--- a/a\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n",
            "deletes no plain file"},
           {git + "index 1..2\nBinary files a/a and b/a differ\n", "binary file"},
           {git + "index 1..2\nGIT binary patch\nliteral 1\nIcmZQ\n\nliteral 0\n", "binary file"},
           {"diff --git \"a/\\303\" \"b/\\303\"\n--- \"a/\\303\"\n+++ \"b/\\303\"\n" + hunk,
            "has a path in quotes"},
           {git + "a line of prose\n" + names + hunk, "means nothing: \"a line of prose\""},
           {"diff --git a/c b/c\n" + names + hunk, "names different files"},
           {"diff --git\n", "no JSON object"},
           {"diff --git a/a\n", "names no file"},
           {"--- /dev/null\n+++ /dev/null\n" + hunk, "both creates and deletes"},
           {"--- /dev/null\n+++ b/a\n" + hunk,
            "/code_changes/0/content: line 3 of the diff begins a hunk of a new file"},
           {"--- /dev/null\n+++ b/a\n@@ -0,0 +1,2 @@\n+a\n", "tells 0 old and 2 new lines"},
           {names + "@@ -1,2 +1 @@\n-a\n+b\n", "/code_changes/0/diff: line 1 of the diff tells"},
           {"--- a/a\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n", "/code_changes/0: line 3 of the diff"},
           {names, "/code_changes/0/content: content, edits or a diff are required"},
           {names + hunk + "Now it works.\n", "a line that is no part of it: \"Now it works.\""},
           {"```diff\n" + names + hunk, "the fence around the diff is not closed"},
           {names + hunk + names + hunk, "/code_changes/1/file_path: \"a\" is named twice"},
           {names + "@@ -1 +1 @@\n-a\n+\xff\n", "it is not UTF-8"},
           {names + "@@ -1 +1 @@\n-a\n+" + std::string(1, '\0') + "\n", "NUL"},
           {"--- a/../a\n+++ b/../a\n" + hunk, "/code_changes/0/file_path: \"../a\" leads upward"},
           {"--- a/.git/config\n+++ b/.git/config\n" + hunk, "leads into .git"},
           {"--- a//etc/x\n+++ b//etc/x\n" + hunk, "is absolute"},
       }) {
    std::vector<CodeChange> changes;
    EXPECT_THAT(read(text, changes), HasSubstr(why)) << text;
    EXPECT_TRUE(changes.empty()) << text;
  }
}

TEST(DiffAnswer, AllDefectsAreToldAtOnce) {
  std::vector<CodeChange> changes;
  const std::string told = read(
      "diff --git a/a b/b\nrename from a\nrename to b\n"
      "diff --git a/c b/c\n--- a/c\n+++ b/c\n@@ -1,3 +1 @@\n-a\n+b\n"
      "--- /dev/null\n+++ b/d\n@@ -1 +1 @@\n-a\n+b\n"
      "--- a/c\n+++ b/c\n@@ -1 +1 @@\n-a\n+b\n",
      changes);
  EXPECT_THAT(told, HasSubstr("/code_changes/0: the diff renames"));
  EXPECT_THAT(told, HasSubstr("/code_changes/1/diff: line 1"));
  EXPECT_THAT(told, HasSubstr("/code_changes/2/content: line "));
  EXPECT_THAT(told, HasSubstr("/code_changes/3/file_path: \"c\" is named twice"));
  std::string many;
  for (int i = 0; i < 100; ++i) many += "diff --git a/a b/b\nrename from a\n";
  EXPECT_LT(read(many, changes).size(), 5000u);
}

// Diffs that real git makes of random files.
class GitDiff : public testing::TestWithParam<unsigned> {
 protected:
  std::size_t below(std::size_t bound) {
    return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random_);
  }
  std::string random_line() {
    static const std::vector<std::string> kLines = {"",
                                                    "a",
                                                    "b",
                                                    "  a",
                                                    "\ta",
                                                    "a ",
                                                    "a\r",
                                                    "b\r",
                                                    "\r",
                                                    "-- a",
                                                    "++ b",
                                                    "@@ -1 +1 @@",
                                                    "--- a/x",
                                                    "+++ b/x",
                                                    "\\ No newline",
                                                    "diff --git a/x b/x",
                                                    "```",
                                                    "caf\xC3\xA9"};
    return below(4) == 0 ? "unique" + std::to_string(below(1'000'000))
                         : kLines[below(kLines.size())];
  }
  std::vector<std::string> random_lines(std::size_t most) {
    std::vector<std::string> lines(below(most));
    for (std::string& line : lines) line = random_line();
    return lines;
  }
  std::vector<std::string> changed(std::vector<std::string> lines) {
    for (std::size_t i = 1 + below(6); i > 0; --i) {
      const auto at = lines.begin() + static_cast<std::ptrdiff_t>(below(lines.size() + 1));
      if (below(2) == 0 || at == lines.end()) {
        lines.insert(at, random_line());
      } else if (below(2) == 0) {
        lines.erase(at);
      } else {
        *at = random_line();
      }
    }
    return lines;
  }
  std::string text(const std::vector<std::string>& lines) {
    std::string all;
    for (const std::string& line : lines) all += line + "\n";
    if (!all.empty() && below(3) == 0) all.pop_back();
    return all;
  }
  std::mt19937 random_{GetParam()};
};

TEST_P(GitDiff, AppliedGivesTheTarget) {
  const TemporaryDirectory folder;
  constexpr std::size_t kFiles = 60;
  std::vector<std::string> before;
  std::vector<std::string> after;
  for (std::size_t i = 0; i < kFiles; ++i) {
    const std::vector<std::string> lines = random_lines(60);
    before.push_back(text(lines));
    after.push_back(text(changed(lines)));
    test::write(folder.path() / "old" / std::to_string(i), before[i]);
    test::write(folder.path() / "new" / std::to_string(i), after[i]);
  }
  // Into files: the fixture takes newlines off an output's end.
  test::shell(folder.path(),
              "mkdir diff && for i in old/*; do f=${i#old/}; git diff --no-index --no-prefix "
              "-U" +
                  std::to_string(1 + below(4)) + " old/$f new/$f > diff/$f || true; done");
  for (std::size_t i = 0; i < kFiles; ++i) {
    const std::string diff = test::read(folder.path() / "diff" / std::to_string(i));
    const std::size_t hunks = diff.find("\n@@ ");
    if (before[i] == after[i] || hunks == std::string::npos) continue;
    try {
      EXPECT_EQ(patched(before[i], std::string_view(diff).substr(hunks + 1)), after[i])
          << "seed " << GetParam() << ", file " << i << "\n"
          << diff;
    } catch (const ImplementationError& error) {
      ADD_FAILURE() << "seed " << GetParam() << ", file " << i << ": " << error.what() << "\n"
                    << diff;
    }
  }
}

TEST_P(GitDiff, OfAWholeTreeIsReadAsAnAnswer) {
  const TemporaryDirectory folder;
  constexpr std::size_t kFiles = 20;
  std::vector<std::string> before(kFiles);
  std::vector<std::string> after(kFiles);
  std::vector<bool> there(kFiles);
  test::shell(folder.path(), "git init -q .");
  for (std::size_t i = 0; i < kFiles; ++i) {
    const std::vector<std::string> lines = random_lines(30);
    before[i] = text(lines);
    after[i] = text(changed(lines));
    there[i] = below(4) != 0;
    if (there[i]) test::write(folder.path() / "d" / std::to_string(i), before[i]);
  }
  test::shell(folder.path(),
              "git -c core.autocrlf=false add -A && git commit -q --allow-empty -m x");
  for (std::size_t i = 0; i < kFiles; ++i) {
    if (there[i] && below(4) == 0) {
      std::filesystem::remove(folder.path() / "d" / std::to_string(i));
      after[i].clear();
    } else {
      test::write(folder.path() / "d" / std::to_string(i), after[i]);
    }
  }
  test::shell(folder.path(), "git add -A && git diff --cached --no-renames > .git/diff.txt");
  const std::string diff = test::read(folder.path() / ".git/diff.txt");
  std::vector<CodeChange> changes;
  const std::string told = read(diff, changes);
  ASSERT_FALSE(changes.empty()) << "seed " << GetParam() << ": " << told << "\n" << diff;
  for (const CodeChange& change : changes) {
    const auto i = static_cast<std::size_t>(std::stoi(change.file_path.substr(2)));
    const std::string result = change.operation == Operation::kDelete ? ""
                               : change.content                       ? *change.content
                                                : patched(before[i], change.diff);
    EXPECT_EQ(result, after[i]) << "seed " << GetParam() << ", file " << i << "\n" << diff;
    before[i] = after[i];
  }
  for (std::size_t i = 0; i < kFiles; ++i) {
    EXPECT_EQ(there[i] ? before[i] : after[i], after[i]) << "not in the diff: " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, GitDiff, testing::Range(0u, 8u));

}  // namespace
}  // namespace necrocode::llm
