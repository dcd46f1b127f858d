#include "strata/formula.hpp"

#include <string>

#include "check.hpp"
#include "strata/expression.hpp"

using strata::evaluate;
using strata::EvaluationError;
using strata::parse_expression;
using strata::to_sexpr;

static std::string printed(std::string_view text) {
  return strata::to_text(parse_expression(text));
}

static std::string evaluation_error(std::string_view text) {
  CHECK_THROWS(evaluate(text), EvaluationError, return error.what());
  return "";
}

static bool mentions(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(arithmetic_follows_the_precedence_of_the_parser) {
  CHECK_EQ(evaluate("1 + 2 * 3"), 7.0);
  CHECK_EQ(evaluate("8 - 4 - 2"), 2.0);
  CHECK_EQ(evaluate("2 ^ 3 ^ 2"), 512.0);
  CHECK_EQ(evaluate("-2 ^ 2"), -4.0);
  CHECK_EQ(evaluate("2 ^ -1"), 0.5);
  CHECK_EQ(evaluate("7 / 2"), 3.5);
}

TEST(variables_come_from_the_caller) {
  const strata::Variables variables{{"x", 3}, {"rate", 0.5}};
  CHECK_EQ(evaluate("x ^ 2 * rate", variables), 4.5);
  CHECK_EQ(evaluate(parse_expression("-x"), variables), -3.0);
  CHECK(mentions(evaluation_error("1 + missing"), "missing"));
}

TEST(the_functions_check_how_many_arguments_they_get) {
  CHECK_EQ(evaluate("max(1, 5, 3)"), 5.0);
  CHECK_EQ(evaluate("min(4)"), 4.0);
  CHECK_EQ(evaluate("abs(-2) + sqrt(9)"), 5.0);
  CHECK_EQ(evaluate("sum()"), 0.0);
  CHECK_EQ(evaluate("sum(1, 2, 3)"), 6.0);
  CHECK(mentions(evaluation_error("max()"), "max"));
  CHECK(mentions(evaluation_error("abs(1, 2)"), "abs"));
  CHECK(mentions(evaluation_error("sqrt()"), "sqrt"));
  CHECK(mentions(evaluation_error("sin(1)"), "sin"));
}

TEST(a_result_that_is_no_finite_number_is_an_error) {
  CHECK(mentions(evaluation_error("1 / 0"), "zero"));
  CHECK(mentions(evaluation_error("1 / (2 - 2)"), "zero"));
  CHECK(!evaluation_error("sqrt(-1)").empty());
  CHECK(!evaluation_error("(-8) ^ 0.5").empty());
  CHECK(!evaluation_error("10 ^ 400").empty());
  CHECK(!evaluation_error("0 ^ -1").empty());
}

TEST(wrong_text_is_the_parsers_error) {
  CHECK_THROWS(evaluate("1 +"), strata::ParseError, CHECK_EQ(error.position(), 3u));
}

TEST(printing_keeps_only_the_parentheses_that_matter) {
  CHECK_EQ(printed("((a)+(b*c))"), "a + b * c");
  CHECK_EQ(printed("(a+b)*c"), "(a + b) * c");
  CHECK_EQ(printed("(a-b)-c"), "a - b - c");
  CHECK_EQ(printed("a-(b-c)"), "a - (b - c)");
  CHECK_EQ(printed("a/(b*c)"), "a / (b * c)");
  CHECK_EQ(printed("a^(b^c)"), "a ^ b ^ c");
  CHECK_EQ(printed("(a^b)^c"), "(a ^ b) ^ c");
  CHECK_EQ(printed("(-a)^2"), "(-a) ^ 2");
  CHECK_EQ(printed("-(a^2)"), "-a ^ 2");
  CHECK_EQ(printed("-(a+b)"), "-(a + b)");
  CHECK_EQ(printed("a*(-b)"), "a * -b");
  CHECK_EQ(printed("max( 1,(x+2) )"), "max(1, x + 2)");
}

TEST(printed_text_parses_to_the_same_expression) {
  for (const char* text : {"1-(2-(3-4))", "-(-x)", "2^(-x)^y", "(2^-x)^y", "-(a*b)", "(-a)*b",
                           "a/(b/c)*d", "f(-(a+b), (c))^-g()", "0.1+1e22", "a-(-(b-c))^2"}) {
    CHECK_EQ(to_sexpr(parse_expression(printed(text))), to_sexpr(parse_expression(text)));
  }
}

TEST(variables_are_listed_once_and_in_order) {
  const auto names = strata::variables_of(parse_expression("b * a + f(b, -c) ^ 2"));
  std::string joined;
  for (const std::string& name : names) joined += name + ' ';
  CHECK_EQ(joined, "a b c ");
}
