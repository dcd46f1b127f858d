// What the model is asked: build_prompt() over a real folder.
#include <gmock/gmock.h>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/executor.hpp"
#include "necrocode/runner/repository_map.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class Prompts : public testing::Test {
 protected:
  Prompts() { task_.title = "The invoice total is wrong"; }
  void put(const std::string& path, const std::string& content) {
    fs::create_directories((folder_.path() / path).parent_path());
    write_file_atomic(folder_.path() / path, content);
    files_.push_back(path);
  }
  std::string prompt() {
    Assignment assignment{task_, folder_.path(), files_, {"make test"}};
    assignment.earlier_attempts = earlier_;
    assignment.failed_tests = failed_;
    assignment.relevant_files = rank_files(folder_.path(), files_, task_words(task_));
    return build_prompt(assignment);
  }
  TemporaryDirectory folder_;
  TaskContext task_{*TaskId::parse("app:1")};
  std::vector<std::string> files_;
  std::vector<std::string> earlier_;
  std::string failed_;
};

TEST_F(Prompts, HoldTheTaskTheTreeAndWhatTheTaskIsAbout) {
  put("src/invoice.c", "int total;\n");
  put("src/other.c", "int nothing;\n");
  task_.acceptance_criteria = {"two items add up"};
  earlier_ = {"attempt 1, tests: 2 of 3 failed"};
  const std::string text = prompt();
  EXPECT_THAT(text, HasSubstr("Task app:1: The invoice total is wrong\n"));
  EXPECT_THAT(text, HasSubstr("\n- two items add up\n"));
  EXPECT_THAT(text, HasSubstr("Earlier attempts at this task ended so:\n- attempt 1, tests: 2 of"));
  EXPECT_THAT(text, HasSubstr("\nsrc/: invoice.c, other.c\n"));
  EXPECT_THAT(text, HasSubstr("\nsrc/invoice.c:\n```\nint total;\n```\n"));
  EXPECT_THAT(text, Not(HasSubstr("int nothing")));
}

TEST_F(Prompts, ShowALargeFileInPartAndSaySo) {
  std::string large;
  for (int i = 0; i < 20'000; ++i) large += "line " + std::to_string(i) + "\n";
  put("big.c", large + "int invoice_total;\n");
  task_.related_files = {"big.c"};
  const std::string text = prompt();
  EXPECT_THAT(text, HasSubstr("\nbig.c (in part: change it by edits, never as a whole):\n"));
  EXPECT_THAT(text, HasSubstr("int invoice_total;\n"));
  EXPECT_LE(text.size(), 48 * limits::kKiB);
}

TEST_F(Prompts, KeepTheirBudgetWhateverIsNamed) {
  for (int i = 0; i < 2000; ++i) {
    put("d" + std::to_string(i % 50) + "/f" + std::to_string(i),
        i % 2 == 0 ? std::string(5000, 'x') : "");
  }
  task_.related_files = {"**"};
  EXPECT_LE(prompt().size(), limits::kPromptContextBytes + 20 * limits::kKiB);
}

TEST_F(Prompts, KeepStrangeNamesAndFencesOnTheirOwnLines) {
  put("odd\nname.md", "text with ``` in it\n");
  task_.readonly_files = {"**"};
  const std::string text = prompt();
  EXPECT_THAT(text, HasSubstr("````\ntext with ``` in it\n````\n"));
  EXPECT_THAT(text, Not(HasSubstr("odd\nname")));
}

TEST_F(Prompts, SayThatTheChangeIsThereAndWhatFails) {
  put("a.c", "x\n");
  failed_ = "$ make test\nfailed with exit code 2\nNEEDLE\n";
  EXPECT_THAT(prompt(), testing::ContainsRegex("mend it.*\n.*make test\nfailed.*\nNEEDLE"));
}

}  // namespace
}  // namespace necrocode::runner
