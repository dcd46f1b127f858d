#include "necrocode/base/secret.hpp"

#include <gmock/gmock.h>

#include <ostream>
#include <type_traits>

namespace necrocode {
namespace {

template <class T>
concept Printable = requires(std::ostream& out, const T& value) { out << value; };

TEST(Secret, CannotBeCopiedPrintedOrConverted) {
  static_assert(!std::is_copy_constructible_v<Secret>);
  static_assert(!std::is_copy_assignable_v<Secret>);
  static_assert(!std::is_convertible_v<Secret, std::string>);
  static_assert(!std::is_convertible_v<Secret, std::string_view>);
  static_assert(!Printable<Secret>);
  static_assert(std::is_nothrow_move_constructible_v<Secret>);
}

TEST(Secret, RevealsWhatItWasMadeOf) {
  std::string text = "correct horse";
  const Secret secret(text);
  text.assign(text.size(), 'x');
  EXPECT_EQ(secret.reveal(), "correct horse");
  EXPECT_FALSE(secret.empty());
  EXPECT_TRUE(Secret().empty());
}

TEST(Secret, MovedFromIsEmptyAlsoWhenItWasShort) {
  for (const char* text : {"short", "long enough not to live inside of the string object itself"}) {
    Secret first{std::string_view(text)};
    Secret second(std::move(first));
    EXPECT_EQ(second.reveal(), text);
    EXPECT_TRUE(first.empty());  // NOLINT: what is promised of a moved-from secret
    Secret third("other");
    third = std::move(second);
    EXPECT_EQ(third.reveal(), text);
    EXPECT_TRUE(second.empty());  // NOLINT
  }
}

TEST(Secret, MovedFromShortSecretKeepsNoBytes) {
  Secret first("short!");
  const char* bytes = first.reveal().data();  // inside the object, which lives on
  const Secret second(std::move(first));
  EXPECT_NE(std::string_view(bytes, 6), "short!");
  EXPECT_EQ(second.reveal(), "short!");
}

TEST(Secret, AssignedToItselfItStays) {
  Secret secret("itself");
  Secret& same = secret;
  secret = std::move(same);
  EXPECT_EQ(secret.reveal(), "itself");
}

TEST(Secret, CopyIsMadeOnPurposeOnly) {
  const Secret secret("twice");
  EXPECT_EQ(secret.copy().reveal(), "twice");
}

TEST(Secret, EqualsComparesTheWholeText) {
  const Secret secret("token-1");
  EXPECT_TRUE(secret.equals("token-1"));
  EXPECT_FALSE(secret.equals("token-2"));
  EXPECT_FALSE(secret.equals("token-"));
  EXPECT_FALSE(secret.equals("token-10"));
  EXPECT_FALSE(secret.equals(""));
  EXPECT_TRUE(Secret().equals(""));
}

TEST(Wipe, OverwritesTheWholeCapacity) {
  std::string text(100, 's');
  const char* bytes = text.data();
  text.resize(50);
  wipe(text);
  EXPECT_TRUE(text.empty());
  for (int i = 1; i < 100; ++i) EXPECT_EQ(bytes[i], '\0') << i;
}

TEST(Wipe, EmptyTextIsFine) {
  std::string text;
  wipe(text);
  EXPECT_TRUE(text.empty());
}

}  // namespace
}  // namespace necrocode
