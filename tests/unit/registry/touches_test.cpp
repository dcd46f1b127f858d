#include "necrocode/registry/touches.hpp"

#include <gtest/gtest.h>

#include <random>

namespace necrocode::registry {
namespace {

bool both_ways(std::string_view one, std::string_view other) {
  const bool overlap = globs_overlap(one, other);
  EXPECT_EQ(globs_overlap(other, one), overlap) << one << " and " << other;
  return overlap;
}

TEST(Touches, PathsOverlapWithThemselvesAndWithTheirFolders) {
  EXPECT_TRUE(both_ways("src/a.cpp", "src/a.cpp"));
  EXPECT_TRUE(both_ways("./src/a.cpp", "/src//a.cpp"));
  EXPECT_TRUE(both_ways("src/a.cpp", "src"));
  EXPECT_TRUE(both_ways("src/net/a.cpp", "src/"));
  EXPECT_TRUE(both_ways("src/net", "src"));
  EXPECT_FALSE(both_ways("src/a.cpp", "src/b.cpp"));
  EXPECT_FALSE(both_ways("src/net", "src/network"));
  EXPECT_FALSE(both_ways("src/net.hpp", "src/net.hpp/x"));  // a file is no folder
  EXPECT_TRUE(both_ways("", "anything/at/all"));            // the whole tree
  EXPECT_TRUE(both_ways(".github", ".github/workflows/ci.yml"));
}

TEST(Touches, StarsAndQuestionMarksStayWithinASegment) {
  EXPECT_TRUE(both_ways("src/*.cpp", "src/a.cpp"));
  EXPECT_FALSE(both_ways("src/*.cpp", "src/net/a.cpp"));
  EXPECT_TRUE(both_ways("src/a*.cpp", "src/*b.cpp"));
  EXPECT_FALSE(both_ways("src/a*.cpp", "src/b*.cpp"));
  EXPECT_TRUE(both_ways("a?c.txt", "ab?.txt"));
  EXPECT_FALSE(both_ways("a?.txt", "abc.txt"));
  EXPECT_TRUE(both_ways("a*c.txt", "a?.txt"));
  EXPECT_TRUE(both_ways("*.md", "*ME.md"));
}

TEST(Touches, TwoStarsAreAnyNumberOfSegments) {
  EXPECT_TRUE(both_ways("src/**/a.cpp", "src/a.cpp"));
  EXPECT_TRUE(both_ways("src/**/a.cpp", "src/x/y/a.cpp"));
  EXPECT_FALSE(both_ways("src/**/a.cpp", "lib/a.cpp"));
  EXPECT_TRUE(both_ways("**/*.cpp", "src/net/*"));
  EXPECT_TRUE(both_ways("**/net/**", "src/**/a.cpp"));
  EXPECT_FALSE(both_ways("src/**/*.cpp", "src/**/*.hpp"));
}

TEST(Touches, AnyOfTheOneWithAnyOfTheOther) {
  const auto overlap = [](const std::vector<std::string>& one,
                          const std::vector<std::string>& other) {
    TouchesBudget budget;
    return touches_overlap(one, other, budget);
  };
  EXPECT_TRUE(overlap({"docs", "src/a.cpp"}, {"lib", "src/*"}));
  EXPECT_FALSE(overlap({"docs"}, {"lib", "src"}));
  EXPECT_FALSE(overlap({}, {"src"}));
  EXPECT_FALSE(overlap({"src"}, {}));
}

TEST(Touches, MoreWorkThanTheBudgetThenTheyCountAsOverlapping) {
  const auto globs = [](const std::string& end) {
    std::string folders;
    for (int i = 0; i < 500; ++i) folders += "**/*a*b*/";
    return std::vector<std::string>(1000, folders + end);
  };
  TouchesBudget budget;
  EXPECT_TRUE(touches_overlap(globs("x.c"), globs("y.c"), budget));
  EXPECT_LE(budget.left, 0);
  // Files that are named cost next to nothing.
  std::vector<std::string> one;
  std::vector<std::string> other;
  for (int i = 0; i < 1000; ++i) {
    one.push_back("src/a" + std::to_string(i) + ".c");
    other.push_back("src/b" + std::to_string(i) + ".c");
  }
  TouchesBudget of_files;
  EXPECT_FALSE(touches_overlap(one, other, of_files));
}

/// The plainest matcher of one path: by recursion, over whole globs with folders written out.
bool matches(std::string_view glob, std::string_view path) {
  if (glob.empty()) return path.empty();
  if (glob.starts_with("**/")) {
    if (matches(glob.substr(3), path)) return true;
    const auto slash = path.find('/');
    return slash != std::string_view::npos && matches(glob, path.substr(slash + 1));
  }
  if (glob == "**") return true;
  if (glob.front() == '*') {
    if (matches(glob.substr(1), path)) return true;
    return !path.empty() && path.front() != '/' && matches(glob, path.substr(1));
  }
  if (path.empty()) return false;
  const bool same = glob.front() == path.front() || (glob.front() == '?' && path.front() != '/');
  return same && matches(glob.substr(1), path.substr(1));
}

TEST(Touches, RandomGlobsThatBothMeanSomePathOverlap) {
  std::mt19937 random(7);
  const auto pick = [&](const std::vector<std::string>& from) {
    return from[random() % from.size()];
  };
  const auto glob = [&] {
    std::string text;
    for (auto folders = random() % 3; folders > 0; --folders) {
      text += pick({"a", "b", "*", "?b", "**", "a*"}) + "/";
    }
    return text + pick({"a.c", "b.c", "*.c", "?.c", "a*.*"});
  };
  // Every path of up to three folders over a small alphabet.
  std::vector<std::string> folders{""};
  for (std::size_t i = 0; i < folders.size() && folders[i].size() < 9; ++i) {
    for (const char* name : {"a/", "b/", "ab/"}) folders.push_back(folders[i] + name);
  }
  int overlaps = 0;
  for (int i = 0; i < 300; ++i) {
    const std::string one = glob();
    const std::string other = glob();
    bool met = false;
    for (const std::string& folder : folders) {
      for (const char* file : {"a.c", "b.c", "ab.c"}) {
        met = met || (matches(one, folder + file) && matches(other, folder + file));
      }
    }
    EXPECT_EQ(both_ways(one, other), met) << one << " and " << other;
    overlaps += met ? 1 : 0;
  }
  EXPECT_GT(overlaps, 30);
  EXPECT_LT(overlaps, 270);
}

}  // namespace
}  // namespace necrocode::registry
