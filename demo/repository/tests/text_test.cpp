#include "strata/text.hpp"

#include <limits>

#include "check.hpp"

using strata::format_number;
using strata::parse_number;
using strata::split;
using strata::trim;

TEST(trim_takes_white_space_from_both_ends_only) {
  CHECK_EQ(trim("  a b\t\n"), "a b");
  CHECK_EQ(trim("a"), "a");
  CHECK_EQ(trim(" \r\n "), "");
  CHECK_EQ(trim(""), "");
}

TEST(split_keeps_empty_pieces) {
  CHECK_EQ(split("a,b,c", ',').size(), 3u);
  CHECK_EQ(split("a,b,c", ',')[2], "c");
  CHECK_EQ(split(",", ',').size(), 2u);
  CHECK_EQ(split("", ',').size(), 1u);
  CHECK_EQ(split("a,", ',')[1], "");
}

TEST(numbers_are_read_whole_or_not_at_all) {
  CHECK_EQ(parse_number("12.5").value(), 12.5);
  CHECK_EQ(parse_number("-1e3").value(), -1000.0);
  for (const char* text : {"", "1x", " 1", "1 ", "0x10", "nan", "inf", "1e999", "1,5"}) {
    CHECK(!parse_number(text).has_value());
  }
}

TEST(numbers_survive_the_way_to_text_and_back) {
  CHECK_EQ(format_number(0.1), "0.1");
  CHECK_EQ(format_number(3), "3");
  for (double number : {1.0 / 3.0, -2.5e-300, 1e22, std::numeric_limits<double>::max()}) {
    CHECK_EQ(parse_number(format_number(number)).value(), number);
  }
}
