#include "necrocode/base/placeholders.hpp"

#include <gmock/gmock.h>

namespace necrocode {
namespace {

using testing::HasSubstr;

TEST(Placeholders, AreFilledAndTheirValuesNotLookedAtAgain) {
  EXPECT_EQ(fill_placeholders("a {x}{y} b", {{"x", "{y}"}, {"y", "2"}}), "a {y}2 b");
  EXPECT_EQ(fill_placeholders("none", {}), "none");
  EXPECT_EQ(fill_placeholders("", {}), "");
}

TEST(Placeholders, DefectsAreNamedWithTheirPlace) {
  const std::vector<std::string> names = {"title", "number"};
  EXPECT_FALSE(placeholder_defect("feat({number}): {title}", names).has_value());
  EXPECT_FALSE(placeholder_defect("", names).has_value());
  EXPECT_THAT(placeholder_defect("{titel}", names).value_or(""),
              HasSubstr("names {titel}; known are {title}, {number}"));
  for (const char* wrong : {"{", "}", "a {title", "{{title}}", "{title}}", "{a{title}"}) {
    EXPECT_THAT(placeholder_defect(wrong, names).value_or(""), HasSubstr("brace at byte")) << wrong;
  }
}

}  // namespace
}  // namespace necrocode
