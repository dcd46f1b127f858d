#include "necrocode/base/text.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/base64.hpp"

namespace necrocode {
namespace {

using testing::ElementsAre;
using std::string_literals::operator""s;

// Each malformed in its own way (RFC 3629 section 4 and 10).
const std::vector<std::string> kMalformed = {
    "\x80",              // a continuation alone
    "\xC3",              // cut
    "\xE2\x82",          // cut
    "\xF0\x9F\x98",      // cut
    "\xC0\xAF",          // overlong '/'
    "\xC1\x81",          // overlong
    "\xE0\x80\xAF",      // overlong
    "\xF0\x80\x80\xAF",  // overlong
    "\xED\xA0\x80",      // surrogate D800
    "\xED\xBF\xBF",      // surrogate DFFF
    "\xF4\x90\x80\x80",  // above U+10FFFF
    "\xF5\x80\x80\x80",
    "\xFE",
    "\xFF",
    "\xE2(\xA1",  // continuation missing
};

TEST(IsUtf8, TakesEveryLengthUpToTheLastCharacter) {
  EXPECT_TRUE(is_utf8(""));
  EXPECT_TRUE(is_utf8("a\x7F"));
  EXPECT_TRUE(is_utf8("\xC2\x80\xDF\xBF"));
  EXPECT_TRUE(is_utf8("\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF"));
  EXPECT_TRUE(is_utf8("\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"));
  EXPECT_TRUE(is_utf8("a\0b"s));
}

TEST(IsUtf8, RefusesOverlongSurrogatesCutAndForeignBytes) {
  for (const std::string& text : kMalformed) {
    EXPECT_FALSE(is_utf8(text)) << to_hex(text);
    EXPECT_FALSE(is_utf8("ok" + text + "ok")) << to_hex(text);
  }
}

TEST(ToValidUtf8, ReplacesOnlyWhatIsMalformed) {
  EXPECT_EQ(to_valid_utf8("grün 🙂"), "grün 🙂");
  EXPECT_EQ(to_valid_utf8("a\xFFz"), "a\uFFFDz");
  EXPECT_EQ(to_valid_utf8("\xC3"), "\uFFFD");
  for (const std::string& text : kMalformed) EXPECT_TRUE(is_utf8(to_valid_utf8(text)));
}

TEST(AsciiLower, LeavesOtherBytesAlone) {
  EXPECT_EQ(ascii_lower("AbZ[@9Ü"), "abz[@9Ü");
}

TEST(IEquals, ComparesWithoutCaseAndByLength) {
  EXPECT_TRUE(iequals("Content-Type", "content-TYPE"));
  EXPECT_TRUE(iequals("", ""));
  EXPECT_FALSE(iequals("ab", "abc"));
  EXPECT_FALSE(iequals("abc", "ab"));
  EXPECT_FALSE(iequals("@", "`"));
}

TEST(Trim, TakesSpaceTabAndLineEndsFromBothEnds) {
  EXPECT_EQ(trim(" \t\r\n a b\n "), "a b");
  EXPECT_EQ(trim(" \n"), "");
  EXPECT_EQ(trim(""), "");
  EXPECT_EQ(trim("\va"), "\va");
}

TEST(Split, KeepsEmptyParts) {
  EXPECT_THAT(split("a,,b,", ','), ElementsAre("a", "", "b", ""));
  EXPECT_THAT(split("", ','), ElementsAre(""));
}

TEST(Join, PutsTheSeparatorBetween) {
  EXPECT_EQ(join({}, ", "), "");
  EXPECT_EQ(join({"a"}, ", "), "a");
  EXPECT_EQ(join({"a", "", "a"}, ", "), "a, , a");
}

TEST(ReplaceAll, DoesNotLookAgainAtWhatItPut) {
  EXPECT_EQ(replace_all("aXa", "a", "aa"), "aaXaa");
  EXPECT_EQ(replace_all("aaa", "aa", "b"), "ba");
  EXPECT_EQ(replace_all("abc", "b", ""), "ac");
  EXPECT_EQ(replace_all("abc", "", "x"), "abc");
}

TEST(ParseUint, TakesOnlyWholeNumbersInRange) {
  EXPECT_EQ(parse_uint("0"), 0U);
  EXPECT_EQ(parse_uint("007"), 7U);
  EXPECT_EQ(parse_uint("18446744073709551615"), UINT64_MAX);
  for (const char* text :
       {"", "18446744073709551616", "-1", "+1", " 1", "1 ", "0x1", "1.0", "1e2"}) {
    EXPECT_FALSE(parse_uint(text)) << text;
  }
}

TEST(ParseInt, TakesAMinusButNoPlus) {
  EXPECT_EQ(parse_int("-9223372036854775808"), INT64_MIN);
  EXPECT_EQ(parse_int("9223372036854775807"), INT64_MAX);
  for (const char* text : {"", "-", "9223372036854775808", "+1", "1a", "--1"}) {
    EXPECT_FALSE(parse_int(text)) << text;
  }
}

TEST(ParseDouble, TakesFiniteNumbersOnly) {
  EXPECT_EQ(parse_double("-1.5"), -1.5);
  EXPECT_EQ(parse_double("1e3"), 1000.0);
  for (const char* text : {"", "inf", "-inf", "nan", "1e999", "1,5", " 1", "1 ", "0x1p3", "+1"}) {
    EXPECT_FALSE(parse_double(text)) << text;
  }
}

TEST(ToHex, WritesTwoLowerCaseDigitsAByte) {
  EXPECT_EQ(to_hex("\x00\x0f\xff"s), "000fff");
  EXPECT_EQ(to_hex(""), "");
}

TEST(PercentEncode, KeepsOnlyUnreservedCharacters) {
  EXPECT_EQ(percent_encode("aZ09-._~"), "aZ09-._~");
  EXPECT_EQ(percent_encode("a/../b c+%"), "a%2F..%2Fb%20c%2B%25");
  EXPECT_EQ(percent_encode("ü\0"s), "%C3%BC%00");
}

TEST(PercentDecode, UndoesTheEncodingOfEveryByte) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(percent_decode(percent_encode(all)), all);
  EXPECT_EQ(percent_decode("%2f%2F"), "//");
  EXPECT_EQ(percent_decode("%41"), "A");
}

TEST(PercentDecode, RefusesMalformedEscapes) {
  for (const char* text : {"%", "%4", "a%", "%zz", "%4g", "%g4", "% 4", "%-1", "%%41"}) {
    EXPECT_FALSE(percent_decode(text)) << text;
  }
}

TEST(PercentDecode, PlusIsASpaceOnlyInQueries) {
  EXPECT_EQ(percent_decode("a+b"), "a+b");
  EXPECT_EQ(percent_decode("a+b%2B", true), "a b+");
}

TEST(Shorten, NeverExceedsTheBytesAndCutsAtCharacters) {
  EXPECT_EQ(shorten("hello", 5), "hello");
  EXPECT_EQ(shorten("hello!", 5), "he…");
  const std::string text = "grüßeüüü🙂🙂";
  for (std::size_t bytes = 0; bytes <= text.size(); ++bytes) {
    const std::string cut = shorten(text, bytes);
    EXPECT_LE(cut.size(), bytes);
    EXPECT_TRUE(is_utf8(cut)) << bytes;
  }
}

TEST(Shorten, BytesThatAreNotUtf8AreCutAllTheSame) {
  EXPECT_EQ(shorten(std::string(100, '\x80'), 50).size(), 50U);
}

TEST(HeadAndTail, KeepsBothEndsAndSaysHowMuchIsMissing) {
  EXPECT_EQ(head_and_tail("short", 5), "short");
  EXPECT_EQ(head_and_tail("0123456789", 6), "01\n… 4 bytes left out …\n6789");
  EXPECT_EQ(head_and_tail("0123", 0), "\n… 4 bytes left out …\n");
}

TEST(Printable, ControlCharactersBecomeVisible) {
  EXPECT_EQ(printable("a\nb\tc\r"), "a\\nb\\tc\\r");
  EXPECT_EQ(printable("\x1b[31mred"), "\\x1b[31mred");
  EXPECT_EQ(printable("\x1b]52;c;aGk=\x07"), "\\x1b]52;c;aGk=\\x07");  // OSC 52: the clipboard
  EXPECT_EQ(printable("\0\x7f"s), "\\x00\\x7f");
  EXPECT_EQ(printable("\xC2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");  // CSI as one C1 character
}

TEST(Printable, NothingReordersTheLineOrEndsIt) {
  for (const char* hostile :
       {"\u202A", "\u202B", "\u202C", "\u202D", "\u202E", "\u2066", "\u2067", "\u2068", "\u2069",
        "\u200E", "\u200F", "\u061C", "\u2028", "\u2029"}) {
    EXPECT_EQ(printable(hostile).find(hostile), std::string::npos) << to_hex(hostile);
  }
  EXPECT_EQ(printable("\u202E"), "\\xe2\\x80\\xae");
}

TEST(Printable, OrdinaryTextAndItsNeighboursStay) {
  EXPECT_EQ(printable("grün 🙂 \u00A0\u2026\u202F\u2065\u206A"),
            "grün 🙂 \u00A0\u2026\u202F\u2065\u206A");
}

TEST(Printable, MalformedBytesBecomeVisible) {
  for (const std::string& text : kMalformed) {
    EXPECT_TRUE(is_utf8(printable(text)));
    EXPECT_EQ(printable(text).find('\x80'), std::string::npos);
  }
  EXPECT_EQ(printable("a\xFF"), "a\\xff");
}

TEST(Slugify, LowerCaseWordsWithSingleDashes) {
  EXPECT_EQ(slugify("Add a  parser!", 50), "add-a-parser");
  EXPECT_EQ(slugify("--x--", 50), "x");
  EXPECT_EQ(slugify("Grüße", 50), "gr-e");
  EXPECT_EQ(slugify("../../etc", 50), "etc");
  EXPECT_EQ(slugify("!!!", 50), "");
  EXPECT_EQ(slugify("", 50), "");
}

TEST(Slugify, NeverLongerThanAskedAndNeverEndsInADash) {
  EXPECT_EQ(slugify("abc def", 0), "");
  EXPECT_EQ(slugify("abc def", 3), "abc");
  EXPECT_EQ(slugify("abc def", 4), "abc");
  EXPECT_EQ(slugify("abc def", 5), "abc-d");
}

TEST(Base64, KnownValuesBothWays) {  // RFC 4648 section 10
  const std::vector<std::pair<std::string, std::string>> known = {{"", ""},
                                                                  {"f", "Zg=="},
                                                                  {"fo", "Zm8="},
                                                                  {"foo", "Zm9v"},
                                                                  {"foob", "Zm9vYg=="},
                                                                  {"fooba", "Zm9vYmE="},
                                                                  {"foobar", "Zm9vYmFy"},
                                                                  {"\xfb\xff\xfe", "+//+"}};
  for (const auto& [raw, text] : known) {
    EXPECT_EQ(base64_encode(raw), text);
    EXPECT_EQ(base64_decode(text), raw);
  }
}

TEST(Nearest, WordWithAMistakeThenWhatWasMeant) {
  const std::vector<std::string> known = {"task", "pool", "artifact"};
  EXPECT_EQ(nearest("tsak", known), "task");
  EXPECT_EQ(nearest("artefacts", known), "artifact");
  EXPECT_EQ(nearest("pool", known), "pool");
  EXPECT_EQ(nearest("task", {}), "");
}

TEST(Base64, DecodingRefusesWhateverIsNotPaddedBase64) {
  for (const char* text : {"Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Z=g=", " Zm9", "Zm9v    ",
                           "Zm9v\n\n\n\n", "-_-_", "Zm9v\xC3\xBC!!"}) {
    EXPECT_FALSE(base64_decode(text)) << text;
  }
  EXPECT_FALSE(base64_decode("Zm9\0"s));
}

}  // namespace
}  // namespace necrocode
