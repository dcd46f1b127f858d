#include "necrocode/base/ids.hpp"

#include <gmock/gmock.h>

#include <set>
#include <type_traits>

#include "necrocode/base/text.hpp"

namespace necrocode {
namespace {

using std::string_literals::operator""s;

TEST(IsPlainName, LettersDigitsDotUnderscoreDashUpTo100) {
  for (const std::string& name :
       {"a"s, "9"s, "chat-app"s, "1.1"s, "A_b.c-d"s, std::string(100, 'x')}) {
    EXPECT_TRUE(is_plain_name(name)) << name;
  }
}

TEST(IsPlainName, RefusesEverythingThatCouldBeAPathAnOptionOrTwoWords) {
  for (const std::string& name :
       {""s, "."s, ".."s, ".hidden"s, "-f"s, "_x"s, "a/b"s, "a\\b"s, "a b"s, "a:b"s, "a\n"s,
        "a\0b"s, "ü"s, "a%2f"s, std::string(101, 'x')}) {
    EXPECT_FALSE(is_plain_name(name)) << name;
  }
}

TEST(TaskId, FullIdHasSpecAndNumber) {
  const auto id = TaskId::parse("chat-app:1.1");
  ASSERT_TRUE(id);
  EXPECT_EQ(id->str(), "chat-app:1.1");
  EXPECT_EQ(id->spec(), "chat-app");
  EXPECT_EQ(id->number(), "1.1");
  EXPECT_EQ(*id, *TaskId::make("chat-app", "1.1"));
}

TEST(TaskId, PartsMayHave100CharactersEach) {
  const std::string longest = std::string(100, 'a') + ":" + std::string(100, '1');
  EXPECT_EQ(TaskId::parse(longest)->str(), longest);
  EXPECT_FALSE(TaskId::parse(longest + "1"));
  EXPECT_FALSE(TaskId::parse("a" + longest));
}

TEST(TaskId, RefusesBareNumbersMissingPartsAndHostileText) {
  for (const std::string& text : {""s, "1.1"s, ":"s, "a:"s, ":1"s, "a:b:c"s, "a:../b"s, "a/..:1"s,
                                  "a:1\n"s, "a:1\0"s, "a: 1"s, " a:1"s, "-a:1"s, "a:-1"s}) {
    EXPECT_FALSE(TaskId::parse(text)) << text;
  }
  EXPECT_FALSE(TaskId::make("a:b", "1"));
}

TEST(TaskId, PartsStayRightInCopiesAndMoves) {
  auto id = *TaskId::parse("a:1");
  const TaskId copy = id;
  id = *TaskId::parse("longer:22");
  EXPECT_EQ(copy.spec(), "a");
  EXPECT_EQ(id.number(), "22");
  EXPECT_LT(copy, id);
}

TEST(Id, KindsAreDifferentTypes) {
  static_assert(!std::is_convertible_v<SlotId, ArtifactId>);
  static_assert(!std::is_convertible_v<std::string, LeaseToken>);
  EXPECT_EQ(SlotId{"a"}, SlotId{"a"});
  EXPECT_LT(SlotId{"a"}, SlotId{"b"});
}

TEST(RandomHex, HasTwoDigitsAByteAndDoesNotRepeat) {
  EXPECT_EQ(random_hex(0), "");
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random_hex(16));
  EXPECT_EQ(seen.size(), 1000U);
  EXPECT_THAT(*seen.begin(), testing::MatchesRegex("[0-9a-f]{32}"));
}

TEST(Uuid7, HasItsVersionAndVariantAndTheTimeFirst) {
  const auto ms_now = [] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  };
  const auto before = ms_now();
  const std::string id = uuid7();
  const auto after = ms_now();
  EXPECT_THAT(id, testing::MatchesRegex(
                      "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  const auto ms = std::stoll(id.substr(0, 8) + id.substr(9, 4), nullptr, 16);
  EXPECT_GE(ms, before);
  EXPECT_LE(ms, after);
}

TEST(Uuid7, DoesNotRepeat) {
  std::set<std::string> seen;
  for (int i = 0; i < 10'000; ++i) seen.insert(uuid7());
  EXPECT_EQ(seen.size(), 10'000U);
}

}  // namespace
}  // namespace necrocode
