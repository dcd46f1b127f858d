// Arithmetic expressions as trees, and the parser that makes them from text.
//
//   sum     = product (("+" | "-") product)*
//   product = unary (("*" | "/") unary)*
//   unary   = "-" unary | power
//   power   = atom ("^" unary)?
//   atom    = number | name | name "(" (sum ("," sum)*)? ")" | "(" sum ")"
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

/// One node of an expression. `number` counts for Kind::number only, `name` for variables and
/// calls.
struct Expression {
  enum class Kind { number, variable, call, negate, add, subtract, multiply, divide, power };

  Kind kind = Kind::number;
  double number = 0;
  std::string name;
  std::vector<Expression> operands;  // call: its arguments; negate: one; the others: two
};

/// The text is no expression; `position` is the byte at which this shows.
class ParseError : public std::runtime_error {
 public:
  ParseError(const std::string& problem, std::size_t position);
  std::size_t position() const { return position_; }

 private:
  std::size_t position_;
};

/// Longer texts and deeper nesting are refused, so that no text can overflow the stack.
constexpr std::size_t kMaxExpressionBytes = 4096;
constexpr int kMaxExpressionNesting = 200;

/// Parses the whole text. Throws ParseError.
Expression parse_expression(std::string_view text);

/// The tree with every grouping written out: "1 + 2 * x" is "(+ 1 (* 2 x))".
std::string to_sexpr(const Expression& expression);

}  // namespace strata
