#include "necrocode/observe/log.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/text.hpp"

namespace necrocode::log {
namespace {

using testing::HasSubstr;
using testing::Not;

class Logging : public testing::Test {
 protected:
  ~Logging() override {
    configure(Level::kWarn, Format::kJson);
    set_masker(std::make_shared<const Masker>());
  }
  template <class Action>
  std::string captured(Action action) {
    testing::internal::CaptureStderr();
    action();
    return testing::internal::GetCapturedStderr();
  }
};

TEST_F(Logging, RecordThenOneJsonLineWithItsFields) {
  configure(Level::kInfo, Format::kJson);
  const std::string out = captured([] { info("started", {{"port", 5}, {"note", "a\nb"}}); });
  const auto json = Json::try_parse(trim(out));
  ASSERT_TRUE(json.has_value()) << out;
  EXPECT_EQ((*json)["level"], Json("info"));
  EXPECT_EQ((*json)["message"], Json("started"));
  EXPECT_EQ((*json)["port"], Json(5));
  EXPECT_EQ((*json)["note"], Json("a\nb"));
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1);
}

TEST_F(Logging, BelowTheLevelThenNothing) {
  configure(Level::kWarn, Format::kJson);
  EXPECT_EQ(captured([] { info("quiet"); }), "");
  EXPECT_FALSE(enabled(Level::kInfo));
  EXPECT_THAT(captured([] { warn("loud"); }), HasSubstr("loud"));
}

TEST_F(Logging, KnownSecretThenMasked) {
  const Secret secret("hunter2-hunter2");
  set_masker(std::make_shared<const Masker>(std::vector<const Secret*>{&secret}));
  const std::string out =
      captured([] { error("failed", {{"detail", "key hunter2-hunter2 refused"}}); });
  EXPECT_THAT(out, Not(HasSubstr("hunter2-hunter2")));
  EXPECT_THAT(out, HasSubstr("***"));
}

TEST_F(Logging, TextFormatThenNoEscapeReachesTheTerminal) {
  configure(Level::kInfo, Format::kText);
  const std::string out =
      captured([] { info("title \x1b]52;c;x\x07 end", {{"name", "a\nb\x1b[2J"}}); });
  EXPECT_EQ(out.find('\x1b'), std::string::npos);
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1);
}

TEST_F(Logging, ScopeThenItsFieldsOnEveryRecordWhileItLives) {
  configure(Level::kInfo, Format::kJson);
  const std::string out = captured([] {
    const Scope task({{"task", "app:1"}});
    {
      const Scope phase({{"phase", "test"}});
      info("inner");
    }
    info("outer");
  });
  const auto lines = split(trim(out), '\n');
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_THAT(std::string(lines[0]), testing::AllOf(HasSubstr("app:1"), HasSubstr("phase")));
  EXPECT_THAT(std::string(lines[1]), testing::AllOf(HasSubstr("app:1"), Not(HasSubstr("phase"))));
}

TEST(LogLevel, NamesThenReadWithoutCase) {
  EXPECT_EQ(parse_level("DEBUG"), Level::kDebug);
  EXPECT_EQ(parse_level("warning"), Level::kWarn);
  EXPECT_EQ(parse_level("loud"), std::nullopt);
}

}  // namespace
}  // namespace necrocode::log
