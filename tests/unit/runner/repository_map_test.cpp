#include "necrocode/runner/repository_map.hpp"

#include <gmock/gmock.h>

#include <chrono>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using testing::UnorderedElementsAre;

TEST(TellingWords, AreThoseOfIdentifiersToo) {
  EXPECT_THAT(telling_words("Implement parseDate() and the HTTP_retry of x2, so that it passes"),
              UnorderedElementsAre("parsedate", "parse", "date", "http_retry", "http", "retry"));
  EXPECT_THAT(telling_words("add a test to the code"), IsEmpty());
}

class RankedFiles : public testing::Test {
 protected:
  void put(const std::string& path, const std::string& content) {
    fs::create_directories((folder_.path() / path).parent_path());
    write_file_atomic(folder_.path() / path, content);
    files_.push_back(path);
  }
  std::vector<std::string> rank(std::string_view text) {
    return rank_files(folder_.path(), files_, telling_words(text));
  }
  TemporaryDirectory folder_;
  std::vector<std::string> files_;
};

TEST_F(RankedFiles, ByNameThenFolderThenContent) {
  put("src/main.cpp", "int main() { return invoice(); }\n");
  put("src/invoice.cpp", "int total;\n");
  put("invoice/readme.txt", "nothing\n");
  put("docs/other.txt", "nothing\n");
  EXPECT_THAT(rank("the invoice is wrong"),
              ElementsAre("src/invoice.cpp", "invoice/readme.txt", "src/main.cpp"));
}

TEST_F(RankedFiles, AWordOfFewFilesCountsMore) {
  for (int i = 0; i < 20; ++i) put("lib/order" + std::to_string(i) + ".py", "order\n");
  put("lib/tax.py", "order\n");
  EXPECT_EQ(rank("order and tax").front(), "lib/tax.py");
}

TEST_F(RankedFiles, OfNoWordOrNoTextOrNoFileAreNone) {
  put("image.bin", std::string("invoice\0invoice", 15));
  files_.push_back("gone.txt");
  EXPECT_THAT(rank("the invoice"), IsEmpty());
  EXPECT_THAT(rank(""), IsEmpty());
}

TEST(Trees, NameTheFilesOfEachFolderWhileThereIsRoom) {
  const std::vector<std::string> files = {"README", "src/a.c", "src/b.c", "src/deep/c.c"};
  EXPECT_EQ(tree_of(files, 1000), "./: README\nsrc/: a.c, b.c\nsrc/deep/: c.c\n");
  std::vector<std::string> many = files;
  for (int i = 0; i < 1000; ++i) many.push_back("src/deep/generated/f" + std::to_string(i));
  const std::string tree = tree_of(many, 200);
  EXPECT_LE(tree.size(), 200u);
  EXPECT_THAT(tree, HasSubstr("src/: a.c, b.c\n"));
  EXPECT_THAT(tree, HasSubstr("src/deep/generated/: 1000 files\n"));
}

TEST(Trees, FoldDeepFoldersIntoThoseAboveAndSpareTheTop) {
  std::vector<std::string> files = {"README", "Makefile"};
  for (int i = 0; i < 500; ++i) files.push_back("lib/part" + std::to_string(i) + "/deep/er/f.c");
  const std::string tree = tree_of(files, 400);
  EXPECT_EQ(tree, "./: README, Makefile\nlib/: 500 files\n");
}

TEST(Trees, OfTooManyFoldersSayHowManyAreLeftOut) {
  std::vector<std::string> files;
  for (int i = 0; i < 1000; ++i) files.push_back("d" + std::to_string(i) + "/f");
  const std::string tree = tree_of(files, 300);
  EXPECT_LE(tree.size(), 340u);
  EXPECT_THAT(tree, HasSubstr("more folders"));
}

TEST(Excerpts, AreTheBeginningAndWhatTheTaskIsAbout) {
  std::string content = "// the license\n";
  for (int i = 2; i <= 500; ++i) {
    content += i == 300 ? "int invoice_total();\n" : "line " + std::to_string(i) + "\n";
  }
  const std::string part = excerpt_of(content, telling_words("the invoice total"), 600);
  EXPECT_LE(part.size(), 640u);
  EXPECT_THAT(part, StartsWith("// the license\nline 2\n"));
  EXPECT_THAT(part, HasSubstr("… line 29"));
  EXPECT_THAT(part, HasSubstr("\nint invoice_total();\n"));
  EXPECT_THAT(part, Not(HasSubstr("line 200\n")));
  EXPECT_EQ(excerpt_of("short\n", {}, 600), "short\n");
}

TEST(Excerpts, OfOneEndlessLineAreNothing) {
  EXPECT_EQ(excerpt_of(std::string(1'000'000, 'x'), {"xxx"}, 500), "");
}

}  // namespace
}  // namespace necrocode::runner
