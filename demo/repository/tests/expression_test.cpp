#include "strata/expression.hpp"

#include <string>

#include "check.hpp"

using strata::parse_expression;
using strata::ParseError;

static std::string parsed(std::string_view text) {
  return strata::to_sexpr(parse_expression(text));
}

static std::size_t error_position(std::string_view text) {
  CHECK_THROWS(parse_expression(text), ParseError, return error.position());
  return std::string::npos;
}

TEST(single_terms) {
  CHECK_EQ(parsed("42"), "42");
  CHECK_EQ(parsed("  .5 "), "0.5");
  CHECK_EQ(parsed("1e3"), "1000");
  CHECK_EQ(parsed("2.5E-1"), "0.25");
  CHECK_EQ(parsed("_rate2"), "_rate2");
  CHECK_EQ(parsed("((x))"), "x");
}

TEST(products_bind_tighter_than_sums) {
  CHECK_EQ(parsed("1 + 2 * 3"), "(+ 1 (* 2 3))");
  CHECK_EQ(parsed("(1 + 2) * 3"), "(* (+ 1 2) 3)");
  CHECK_EQ(parsed("a*b-c/d"), "(- (* a b) (/ c d))");
}

TEST(differences_and_quotients_group_to_the_left) {
  CHECK_EQ(parsed("8 - 4 - 2"), "(- (- 8 4) 2)");
  CHECK_EQ(parsed("8 / 4 / 2"), "(/ (/ 8 4) 2)");
  CHECK_EQ(parsed("8 / 4 * 2"), "(* (/ 8 4) 2)");
}

TEST(powers_group_to_the_right_and_bind_tighter_than_a_sign_before_them) {
  CHECK_EQ(parsed("2 ^ 3 ^ 2"), "(^ 2 (^ 3 2))");
  CHECK_EQ(parsed("-2 ^ 2"), "(neg (^ 2 2))");
  CHECK_EQ(parsed("2 ^ -1"), "(^ 2 (neg 1))");
  CHECK_EQ(parsed("2 ^ -x ^ y"), "(^ 2 (neg (^ x y)))");
  CHECK_EQ(parsed("-a * b"), "(* (neg a) b)");
  CHECK_EQ(parsed("1 - -1"), "(- 1 (neg 1))");
  CHECK_EQ(parsed("--x"), "(neg (neg x))");
}

TEST(calls_take_any_number_of_arguments) {
  CHECK_EQ(parsed("now()"), "(call now)");
  CHECK_EQ(parsed("max(1, x + 2, min(y, 3))"), "(call max 1 (+ x 2) (call min y 3))");
  CHECK_EQ(parsed("f (x) ^ 2"), "(^ (call f x) 2)");
}

TEST(errors_tell_where_the_text_is_wrong) {
  CHECK_EQ(error_position(""), 0u);
  CHECK_EQ(error_position("   "), 3u);
  CHECK_EQ(error_position("1 +"), 3u);
  CHECK_EQ(error_position("1 2"), 2u);
  CHECK_EQ(error_position("(1 + 2"), 6u);
  CHECK_EQ(error_position("1 + 2)"), 5u);
  CHECK_EQ(error_position("a $ b"), 2u);
  CHECK_EQ(error_position("* 3"), 0u);
  CHECK_EQ(error_position("max(1,)"), 6u);
  CHECK_EQ(error_position("max(,1)"), 4u);
  CHECK_EQ(error_position("a, b"), 1u);
}

TEST(malformed_numbers_are_told_at_their_start) {
  CHECK_EQ(error_position("1 + 1.2.3"), 4u);
  CHECK_EQ(error_position("2x"), 0u);
  CHECK_EQ(error_position("1e"), 0u);
  CHECK_EQ(error_position("."), 0u);
  CHECK_EQ(error_position("1e999"), 0u);
}

TEST(deep_nesting_is_an_error_and_not_a_crash) {
  CHECK_EQ(parsed(std::string(100, '(') + "1" + std::string(100, ')')), "1");
  CHECK(error_position(std::string(100000, '(')) != std::string::npos);
  CHECK(error_position(std::string(4000, '(')) != std::string::npos);
  CHECK(error_position(std::string(4000, '-') + "1") != std::string::npos);
  std::string powers = "1";
  for (int i = 0; i < 2000; ++i) powers += "^1";
  CHECK(error_position(powers) != std::string::npos);
}
