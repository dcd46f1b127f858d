// What an expression is worth, and how it is written for people.
#pragma once

#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>

#include "strata/expression.hpp"

namespace strata {

using Variables = std::map<std::string, double>;

/// An expression without a value: an unknown name, a wrong number of arguments, or a result that is
/// not a finite number.
class EvaluationError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The value of the expression. Functions: abs and sqrt of one argument, min and max of one or
/// more, sum of any number. Throws EvaluationError.
double evaluate(const Expression& expression, const Variables& variables = {});

/// The same for text. Throws ParseError as well.
double evaluate(std::string_view text, const Variables& variables = {});

/// The expression with spaces around operators and no more parentheses than it needs;
/// parse_expression turns it back into the same tree.
std::string to_text(const Expression& expression);

/// The names of all variables in the expression.
std::set<std::string> variables_of(const Expression& expression);

}  // namespace strata
