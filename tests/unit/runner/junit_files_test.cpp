#include "necrocode/runner/junit_files.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

#include "necrocode/base/file.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ReportsOfACommand : public testing::Test {
 protected:
  void write(const std::string& path, const std::string& name) {
    write_text(path, "<testsuite><testcase name='" + name + "'/></testsuite>");
  }
  void write_text(const std::string& path, const std::string& text) {
    fs::create_directories((root() / path).parent_path());
    write_file_atomic(root() / path, text);
  }
  /// The names of the cases in the reports that `command` writes.
  template <class Command>
  std::vector<std::string> of(const std::vector<std::string>& globs, Command command) {
    const JunitFiles files(root(), globs);
    command();
    warnings_.clear();
    const JunitReport report = files.read(Masker(), kJunitCases, warnings_);
    left_out_ = report.left_out;
    std::vector<std::string> names;
    for (const TestCase& one : report.cases) names.push_back(one.name);
    return names;
  }
  const fs::path& root() const { return folder_.path(); }
  TemporaryDirectory folder_;
  std::vector<std::string> warnings_;
  std::size_t left_out_ = 0;
};

TEST_F(ReportsOfACommand, AtTheUsualPlacesThenFound) {
  const auto names = of(usual_junit_places(""), [&] {
    write("junit.xml", "top");
    write("build/necrocode-junit.xml", "ctest");
    write("target/surefire-reports/TEST-com.x.xml", "surefire");
    write("target/surefire-reports/other.xml", "other");
    write("build/test-results/test/TEST-y.xml", "gradle");
    write("build/test-results/test/binary/deeper.xml", "deeper");
  });
  EXPECT_THAT(names, ElementsAre("ctest", "gradle", "top", "surefire"));
  EXPECT_THAT(of(usual_junit_places("web"), [&] { write("web/junit.xml", "web"); }),
              ElementsAre("web"));
}

TEST_F(ReportsOfACommand, ThatWereThereBeforeThenNotItsOwn) {
  write("junit.xml", "old");
  write("reports/old.xml", "old");
  EXPECT_THAT(of(usual_junit_places(""), [&] { write("reports/new.xml", "new"); }),
              ElementsAre("new"));
  EXPECT_THAT(of(usual_junit_places(""), [&] { write("junit.xml", "again"); }),
              ElementsAre("again"));
  // A time that a program can set makes no old report a new one, and no new report an old one.
  EXPECT_THAT(of(usual_junit_places(""),
                 [&] {
                   write("junit.xml", "dated back");
                   fs::last_write_time(root() / "junit.xml", fs::file_time_type::min());
                 }),
              ElementsAre("dated back"));
}

TEST_F(ReportsOfACommand, ByGlobsThenOnlyThoseTheyName) {
  const auto write_all = [&] {
    write("a/out/one.xml", "one");
    write("a/b/c/out/two.xml", "two");
    write("a/b/c/out/two.txt", "text");
    write(".git/out/three.xml", "git");
    write("e?.xml", "mark");
  };
  EXPECT_THAT(of({"**/out/*.xml"}, write_all), ElementsAre("two", "one"));
  EXPECT_THAT(of({"a/*/one.xml", "a/out/*.xml"}, write_all), ElementsAre("one"));
  EXPECT_THAT(of({"a/b/"}, write_all), ElementsAre("text", "two"));
  EXPECT_THAT(of({"a/out/one.xml"}, write_all), ElementsAre("one"));
  EXPECT_THAT(of({"gone/*.xml", "a"}, write_all), IsEmpty());
}

TEST_F(ReportsOfACommand, LinksAndSpecialFilesThenPassedOver) {
  TemporaryDirectory outside;
  write_file_atomic(outside.path() / "x.xml", "<testsuite><testcase name='out'/></testsuite>");
  const auto names = of({"*.xml", "folder/*.xml", "fifo"}, [&] {
    fs::create_symlink(outside.path() / "x.xml", root() / "link.xml");
    fs::create_symlink(outside.path(), root() / "folder");
    ASSERT_EQ(::mkfifo((root() / "pipe.xml").c_str(), 0600), 0);
    ASSERT_EQ(::mkfifo((root() / "fifo").c_str(), 0600), 0);
    fs::create_directory(root() / "directory.xml");
    write("good.xml", "good");
  });
  EXPECT_THAT(names, ElementsAre("good"));
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(ReportsOfACommand, ThatCannotBeReadThenSaidAndTheOthersAreRead) {
  const auto names = of({"*.xml"}, [&] {
    write_text("broken.xml", "<testsuite>");
    write_text("huge.xml", std::string(kJunitFileBytes + 1, ' '));
    write("x.xml", "x");
  });
  EXPECT_THAT(names, ElementsAre("x"));
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("\"broken.xml\" is not read: the JUnit report"),
                                     HasSubstr("\"huge.xml\" is not read: it is no regular")));
  EXPECT_EQ(left_out_, 2U);
}

TEST_F(ReportsOfACommand, AmongMoreFilesThanAreLookedAtThenSaid) {
  of({"**/*.xml"}, [&] {
    for (std::size_t i = 0; i <= JunitFiles::kEntries; ++i)
      std::ofstream(root() / std::to_string(i));
  });
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("more than 20000 files")));
  EXPECT_EQ(left_out_, 1U);
}

TEST_F(ReportsOfACommand, MoreThanAreReadThenSaid) {
  const auto names = of({"*.xml"}, [&] {
    for (std::size_t i = 0; i <= JunitFiles::kFiles; ++i)
      write(std::to_string(i) + ".xml", std::to_string(i));
  });
  EXPECT_EQ(names.size(), JunitFiles::kFiles);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("more than 200 JUnit reports")));
  EXPECT_EQ(left_out_, 1U);
}

}  // namespace
}  // namespace necrocode::runner
