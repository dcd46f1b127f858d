// apply_edits: exact, then whitespace-tolerant, never ambiguous.
#include "necrocode/llm/edits.hpp"

#include <gmock/gmock.h>

#include <random>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::llm {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string apply(const std::string& file, const std::vector<Edit>& edits) {
  WorkBudget budget;
  return apply_edits("a.cpp", file, edits, budget);
}

std::string rejection(const std::string& file, const std::vector<Edit>& edits) {
  try {
    const std::string result = apply(file, edits);
    ADD_FAILURE() << "applied: " << result.substr(0, 200);
  } catch (const ImplementationError& error) {
    return error.what();
  }
  return {};
}

struct Case {
  std::string what;
  std::string file;
  std::vector<Edit> edits;
  std::string result;
};

void expect_all(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    try {
      EXPECT_EQ(apply(one.file, one.edits), one.result) << one.what;
    } catch (const ImplementationError& error) {
      ADD_FAILURE() << one.what << ": " << error.what();
    }
  }
}

TEST(ApplyEdits, ExactTextIsReplacedAnywhere) {
  expect_all({
      {"within a line", "one two one\n", {{"two", "2"}}, "one 2 one\n"},
      {"over lines", "a\nb\nc\n", {{"a\nb", "x"}}, "x\nc\n"},
      {"deleted", "a\nb\nc\n", {{"b\n", ""}}, "a\nc\n"},
      {"each of the result of the one before", "a\n", {{"a", "b b"}, {"b b", "c"}}, "c\n"},
      {"the whole file", "a\n", {{"a\n", ""}}, ""},
      {"blank lines, as they are", "a\n\n\nb\n", {{"\n\n\n", "\n\n"}}, "a\n\nb\n"},
      {"exact before tolerant", "  a\na\n", {{"\na\n", "\nb\n"}}, "  a\nb\n"},
      {"exact before tolerant at line ends", "a \nb\na\nc\n", {{"a\nc", "x"}}, "a \nb\nx\n"},
      {"UTF-8", "gr\xC3\xBC\xC3\x9F\n", {{"\xC3\xBC", "u"}}, "gru\xC3\x9F\n"},
      {"no edits", "a\n", {}, "a\n"},
  });
}

TEST(ApplyEdits, LineEndsOfTheFileAreKept) {
  expect_all({
      {"LF edit of a CRLF file", "a\r\nb\r\nc\r\n", {{"a\nb", "x\ny\nz"}}, "x\r\ny\r\nz\r\nc\r\n"},
      {"one exact line, several new", "a\r\nb\r\n", {{"b", "x\ny"}}, "a\r\nx\r\ny\r\n"},
      {"within lines of a CRLF file",
       "int a;\r\nint b;\r\n",
       {{"a;\nint", "c;\nlong"}},
       "int c;\r\nlong b;\r\n"},
      {"CRLF edit of an LF file", "a\nb\nc\n", {{"a\r\nb\r\n", "x\r\n"}}, "x\nc\n"},
      {"CRLF edit of a CRLF file", "a\r\nb\r\n", {{"a\r\n", "x\r\ny\r\n"}}, "x\r\ny\r\nb\r\n"},
      {"mixed, as given", "a\r\nb\nc\n", {{"b\n", "x\r\n"}}, "a\r\nx\r\nc\n"},
      {"mixed, lines: the end of the first",
       "a\r\nb \nc\n",
       {{"a\nb\n", "x\ny\n"}},
       "x\r\ny\r\nc\n"},
      {"no line end is not known", "a", {{"a", "x\r\ny"}}, "x\r\ny"},
  });
}

TEST(ApplyEdits, FinalNewlineStaysAsItWas) {
  expect_all({
      {"kept", "a\nb\n", {{"b\n", "c"}}, "a\nc\n"},
      {"kept with CRLF", "a\r\nb\r\n", {{"b\r\n", "c"}}, "a\r\nc\r\n"},
      {"kept absent", "a\nb", {{"b", "c\n"}}, "a\nc"},
      {"the search has one, the file has not", "a\nb", {{"b\n", "c\n"}}, "a\nc"},
      {"the same with CRLF", "a\r\nb", {{"b\n", "c\n"}}, "a\r\nc"},
      {"last line deleted", "a\nb", {{"b", ""}}, "a"},
      {"last line deleted with CRLF", "a\r\nb", {{"b", ""}}, "a"},
      {"all deleted", "a\n", {{"a\n", ""}}, ""},
      {"all but newlines deleted", "x\n\ny", {{"x", ""}, {"y", ""}}, ""},
  });
}

TEST(ApplyEdits, WhitespaceAtLineEndsIsTolerated) {
  expect_all({
      {"whole lines stay whole", "a  \nb\n", {{"a\n", "x"}}, "x\nb\n"},
      {"the file has some", "a  \nb\t\nc\n", {{"a\nb\n", "x\n"}}, "x\nc\n"},
      {"the search has some", "a\nb\nc\n", {{"a \nb\n", "x\n"}}, "x\nc\n"},
      {"blank lines", "a\n   \nb\n", {{"a\n\nb", "x"}}, "x\n"},
      {"only whole lines", "xa \nb\na\t\nb\n", {{"a\nb\n", "y\n"}}, "xa \nb\ny\n"},
      {"without the last line end", "a \nb \nc\n", {{"a\nb", "x"}}, "x\nc\n"},
      {"the same with CRLF", "a \r\nb \r\nc\r\n", {{"a\nb", "x"}}, "x\r\nc\r\n"},
  });
}

TEST(ApplyEdits, UniformIndentationIsCarriedOver) {
  expect_all({
      {"the search lacks some",
       "class A {\n    void f() {\n        g();\n    }\n};\n",
       {{"void f() {\n    g();\n}\n", "void f() {\n    if (x) {\n        g();\n    }\n}\n"}},
       "class A {\n    void f() {\n        if (x) {\n            g();\n        }\n    }\n};\n"},
      {"the search has too much",
       "a:\n  b\nc\n",
       {{"    a:\n      b\n", "    a:\n      d\n\n"}},
       "a:\n  d\n\nc\n"},
      {"one line", "\t\tgo()\n", {{"go() \n", "run()\n"}}, "\t\trun()\n"},
      {"spaces for tabs",
       "f:\n\tx\n\t\ty\n",
       {{"f:\n  x\n    y\n", "f:\n  x\n    z\n      w\n"}},
       "f:\n\tx\n\t\tz\n\t\t\tw\n"},
      {"tabs for spaces",
       "f:\n    x\n        y\n",
       {{"f:\n\tx\n\t\ty\n", "f:\n\tz\n\t\t\ty\n"}},
       "f:\n    z\n            y\n"},
      {"of one depth",
       "\t\tx = 1\n",
       {{"    x = 1\n", "    x = 2\n      y\n"}},
       "\t\tx = 2\n\t\t\ty\n"},
      {"spaces for tabs, and less of them",
       "\tif x:\n\t\ty\n",
       {{"if x:\n    y", "if x:\n    z"}},
       "\tif x:\n\t\tz\n"},
      {"tabs for spaces, and more of them",
       "a\n    b\n",
       {{"\ta\n\t\tb\n", "\tc\n\t\td\n"}},
       "c\n    d\n"},
      {"alignment behind tabs",
       "f(\n\ta,\n\tb)\n",
       {{"f(\n    a,\n    b)", "f(\n    a,\n      b)"}},
       "f(\n\ta,\n\t  b)\n"},
      {"with CRLF", "\tx\r\n\t\ty\r\n", {{"x\n\ty\n", "x\n\tz\n"}}, "\tx\r\n\t\tz\r\n"},
      {"blank lines have none", "  a\n\n  b\n", {{"a\n\nb \n", "a\n\n\nc\n"}}, "  a\n\n\n  c\n"},
      {"not uniform is no place",
       "a\n  b\n    a\n    b\n",
       {{"a\nb \n", "x\ny\n"}},
       "a\n  b\n    x\n    y\n"},
  });
}

TEST(ApplyEdits, TextThatStandsTwiceIsAmbiguousInEachWay) {
  for (const auto& [file, search] : std::vector<std::pair<std::string, std::string>>{
           {"x\na\nx\na\n", "a"},
           {"aaa\n", "aa"},
           {"a\r\nb\r\n\r\na\r\nb\r\n", "a\nb\n"},
           {"a \nb\na\t\nb\n", "a\nb\n"},
           {"  a\n  b\n\ta\n\tb\n", "a\nb\n"},
       }) {
    EXPECT_THAT(rejection(file, {{search, "x"}}), HasSubstr("stands there more than once"))
        << search;
  }
  EXPECT_THAT(rejection("x\na\nx\na\n", {{"x", "y"}, {"a", "b"}}),
              HasSubstr("/edits/0 for \"a.cpp\" stands there more than once, at lines 1 and 3"));
  EXPECT_THAT(rejection("a\na\na\na\na\na\na\n", {{"a", "b"}}), HasSubstr("lines 1, 2, 3, 4, 5 …"));
}

TEST(ApplyEdits, TextThatIsNotThereIsToldWithTheNearestPlace) {
  const std::string file = "int f() {\n  return 1;\n}\n\nint g() {\n  return 2;\n}\n";
  const std::string several =
      rejection(file, {{"int f", "int h"}, {"int g() {\n  return 3;\n}\n", "x"}});
  EXPECT_THAT(several, HasSubstr("/edits/1 for \"a.cpp\" is not there"));
  EXPECT_THAT(several, HasSubstr("the nearest is at line 5: line 6 is \"  return 2;\" where it "
                                 "should be \"  return 3;\""));
  EXPECT_THAT(rejection(file, {{"return 2 ;", "x"}}), HasSubstr("the nearest is at line 6"));
  EXPECT_THAT(rejection(file, {{"}\nint z() {\n", "x"}}), HasSubstr("the nearest is at line"));
  EXPECT_THAT(rejection("a\nb\n", {{"b\nc\nd\n", "x"}}),
              HasSubstr("at line 2: the file ends where it should be \"c\""));
  EXPECT_THAT(rejection(file, {{"quite another thing", "x"}}), Not(HasSubstr("nearest")));
  EXPECT_THAT(rejection("", {{"a", "x"}}), Not(HasSubstr("nearest")));
  EXPECT_THAT(rejection("a\n\n  \n", {{" \n\t\n", "x"}}), HasSubstr("is not there"));
}

TEST(ApplyEdits, IndentationThatIsNotUniformIsNotThereAndIsShown) {
  EXPECT_THAT(rejection("if a:\n    b\nc\n", {{"if a:\nb\nc\n", "x\n"}}),
              HasSubstr("line 2 is \"    b\" where it should be \"b\""));
}

TEST(ApplyEdits, ReplacementThatCannotBeIndentedIsRejected) {
  EXPECT_THAT(rejection("a:\n  b\n", {{"  a:\n    b\n", "  a:\n c\n"}}),
              HasSubstr("line 2 of its replacement cannot be brought: \" c\""));
  EXPECT_THAT(rejection("\ta\n\t\tb\n", {{"    a\n        b\n", "\ta\n"}}),
              HasSubstr("cannot be brought"));
  EXPECT_THAT(rejection("a\n    b\n", {{"\ta\n\t\tb\n", "c\n"}}), HasSubstr("cannot be brought"));
  EXPECT_THAT(rejection("x\n    b\n", {{"x\n\tb\n", "x\n \tb\n"}}), HasSubstr("cannot be brought"));
}

TEST(ApplyEdits, MessageIsOneShortLineWithoutPartsOfWords) {
  const std::string key = "token=" + std::string(200, 'k');
  const std::string what =
      rejection("a\x1b[31m\nb " + key + "\nc\n", {{"b " + key + "x\nc\n", ""}});
  EXPECT_THAT(what, HasSubstr("line 2 is \"b …\""));
  EXPECT_THAT(what, Not(HasSubstr("token")));
  EXPECT_THAT(what, Not(HasSubstr("\n")));
  EXPECT_THAT(rejection("a\n", {{"\x1b[31m\n", ""}}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(rejection(std::string(500, 'y') + "\n", {{std::string(499, 'y') + "zz", ""}}),
              HasSubstr("\"…\""));
  std::string large;
  for (int i = 0; i < 1000; ++i) large += "line " + std::to_string(i) + "\n";
  EXPECT_LT(rejection("line 0\n", {{large, ""}}).size(), 1000u);
}

TEST(ApplyEdits, EmptySearchAndWhatIsNoTextAreRejected) {
  EXPECT_THAT(rejection("", {{"", "x"}}), HasSubstr("has an empty search text"));
  EXPECT_THAT(rejection("caf\xE9 a\n", {{"a", "b"}}), HasSubstr("it is no text"));
  EXPECT_THAT(rejection(std::string("a\0b", 3), {{"a", "b"}}), HasSubstr("it is no text"));
}

TEST(ApplyEdits, ResultAboveTheLimitIsRejected) {
  const std::string file(limits::kCodeChangeFileBytes - 1, 'x');
  EXPECT_EQ(apply(file + "b", {{"b", "c"}}).size(), limits::kCodeChangeFileBytes);
  EXPECT_THAT(rejection(file + "b", {{"b", "cc"}}), HasSubstr("would be larger than 8388608"));
  // The newline that stays counts too.
  EXPECT_THAT(
      rejection(std::string(limits::kCodeChangeFileBytes - 2, 'x') + "b\n", {{"b\n", "cc"}}),
      HasSubstr("would be larger"));
}

// Texts that make a plain search look at every byte of the pattern at every byte of the file.
TEST(ApplyEdits, RepeatedTextCostsWorkInProportion) {
  const std::string file(4 * limits::kMiB, 'a');
  const std::string search = std::string(limits::kMiB, 'a') + "b";
  WorkBudget budget;
  EXPECT_THROW(apply_edits("a", file, {{search, "x"}}, budget), ImplementationError);
  EXPECT_LT(budget.spent(), 10 * file.size());

  std::string lines;
  while (lines.size() < limits::kMiB) lines += "a\n";
  std::string block;
  while (block.size() < limits::kMiB / 4) block += "a \n";
  WorkBudget of_lines;
  EXPECT_THROW(apply_edits("a", lines, {{block + "b\n", "x"}}, of_lines), ImplementationError);
  EXPECT_LT(of_lines.spent(), 50 * lines.size());
}

TEST(ApplyEdits, WorkIsBoundedOverAllEditsAndFilesOfAnAnswer) {
  const std::string file = "b" + std::string(1000, 'a');
  WorkBudget budget(10'000);
  std::size_t files = 0;
  try {
    for (;; ++files) apply_edits("a", file, {{"b", "c"}, {"c", "b"}}, budget);
  } catch (const ImplementationError& error) {
    EXPECT_THAT(error.what(), HasSubstr("too much work"));
  }
  EXPECT_EQ(files, 4u);
  EXPECT_LE(budget.spent(), 10'000u);

  // A thousand edits of the largest file: refused long before they are done.
  const std::string large(limits::kCodeChangeFileBytes - 1, 'a');
  WorkBudget all(64 * limits::kMiB);
  std::vector<Edit> edits;
  for (int i = 0; i < 1000; ++i) edits.push_back({i % 2 ? "c" : "b", i % 2 ? "b" : "c"});
  EXPECT_THROW(apply_edits("a", "b" + large, edits, all), ImplementationError);
  EXPECT_LE(all.spent(), 64 * limits::kMiB);
}

TEST(ApplyEdits, ManyPlacesOfAnotherIndentationEndInTheBudget) {
  std::string file;
  while (file.size() < limits::kMiB) file += "a\n a\n";
  std::string block;
  for (int i = 0; i < 4000; ++i) block += i % 3 == 0 ? "a\n" : "  a\n";
  WorkBudget budget(64 * limits::kMiB);
  EXPECT_THROW(apply_edits("a", file, {{block, "x"}}, budget), ImplementationError);
}

TEST(ApplyEdits, MoreLinesThanAreComparedIsAnError) {
  const std::string file(kMatchLines + 1, '\n');
  EXPECT_THAT(rejection(file, {{"a\n", "b\n"}}), HasSubstr("more than 1000000 lines"));
}

// Random files and edits: what was searched for by a tolerant reader of it is still replaced.
class RandomEdits : public testing::TestWithParam<unsigned> {
 protected:
  std::size_t below(std::size_t bound) {
    return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random_);
  }
  // Of lines that are all different, indented by spaces in steps of four.
  std::vector<std::string> lines(std::size_t count) {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < count; ++i) {
      all.push_back(std::string(4 * below(4), ' ') + "line" + std::to_string(below(1000)) + "_" +
                    std::to_string(i) + ";");
    }
    return all;
  }
  static std::string text(const std::vector<std::string>& lines, std::size_t from, std::size_t to,
                          const std::string& end) {
    std::string all;
    for (std::size_t i = from; i < to; ++i) all += lines[i] + end;
    return all;
  }
  std::mt19937 random_{GetParam()};
};

TEST_P(RandomEdits, DisguisedSearchIsReplacedAsThePlainOneWouldBe) {
  const std::vector<std::string> before = lines(1 + below(40));
  std::vector<std::string> after = lines(below(6));
  const std::size_t from = below(before.size());
  const std::size_t to = from + 1 + below(before.size() - from);
  const std::string end = below(2) == 0 ? "\n" : "\r\n";
  const std::string file = text(before, 0, before.size(), end);
  const std::string expected = text(before, 0, from, end) + text(after, 0, after.size(), end) +
                               text(before, to, before.size(), end);

  std::vector<std::string> search = before;
  switch (below(4)) {
    case 0:  // whitespace at the ends
      for (std::string& line : search) line += std::string(below(3), below(2) == 0 ? ' ' : '\t');
      break;
    case 1: {  // all deeper
      const std::string deeper(1 + below(8), below(2) == 0 ? ' ' : '\t');
      for (std::string& line : search) line = deeper + line;
      for (std::string& line : after) line = deeper + line;
      break;
    }
    case 2:  // tabs for the spaces, where they tell how wide they are
      if (std::all_of(before.begin() + static_cast<std::ptrdiff_t>(from),
                      before.begin() + static_cast<std::ptrdiff_t>(to),
                      [](const std::string& line) { return line.front() != ' '; })) {
        break;
      }
      for (std::string& line : search) line = replace_all(line, "    ", "\t");
      for (std::string& line : after) line = replace_all(line, "    ", "\t");
      break;
    default:
      break;
  }
  const std::string result =
      apply(file, {{text(search, from, to, "\n"), text(after, 0, after.size(), "\n")}});
  EXPECT_EQ(result, expected) << "seed " << GetParam();
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomEdits, testing::Range(0u, 300u));

}  // namespace
}  // namespace necrocode::llm
