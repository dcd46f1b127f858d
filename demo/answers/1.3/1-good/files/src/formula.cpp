#include "strata/formula.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "strata/text.hpp"

namespace strata {
namespace {

using Kind = Expression::Kind;

double finite(double result, const std::string& of) {
  if (!std::isfinite(result)) throw EvaluationError("the result of " + of + " is not finite");
  return result;
}

double quotient(double left, double right) {
  if (right == 0) throw EvaluationError("division by zero");
  return finite(left / right, "a division");
}

double call(const std::string& name, const std::vector<double>& arguments) {
  const auto needs = [&](bool enough, const char* what) {
    if (!enough) {
      throw EvaluationError(name + " takes " + what + ", not " + std::to_string(arguments.size()));
    }
  };
  if (name == "abs" || name == "sqrt") {
    needs(arguments.size() == 1, "one argument");
    return name == "abs" ? std::fabs(arguments[0]) : finite(std::sqrt(arguments[0]), name);
  }
  if (name == "min" || name == "max") {
    needs(!arguments.empty(), "at least one argument");
    const auto [least, greatest] = std::minmax_element(arguments.begin(), arguments.end());
    return name == "min" ? *least : *greatest;
  }
  if (name == "sum") {
    return finite(std::accumulate(arguments.begin(), arguments.end(), 0.0), name);
  }
  throw EvaluationError("unknown function " + name);
}

double variable(const std::string& name, const Variables& variables) {
  const auto found = variables.find(name);
  if (found == variables.end()) throw EvaluationError("unknown variable " + name);
  return found->second;
}

double combine(const Expression& expression, const std::vector<double>& values) {
  switch (expression.kind) {
    case Kind::negate:
      return -values[0];
    case Kind::add:
      return finite(values[0] + values[1], "an addition");
    case Kind::subtract:
      return finite(values[0] - values[1], "a subtraction");
    case Kind::multiply:
      return finite(values[0] * values[1], "a multiplication");
    case Kind::divide:
      return quotient(values[0], values[1]);
    case Kind::power:
      return finite(std::pow(values[0], values[1]), "a power");
    case Kind::call:
      return call(expression.name, values);
    case Kind::number:
    case Kind::variable:
      break;
  }
  return expression.number;
}

// How tightly a node holds its operands together, from the grammar of the parser.
int precedence(Kind kind) {
  switch (kind) {
    case Kind::add:
    case Kind::subtract:
      return 1;
    case Kind::multiply:
    case Kind::divide:
      return 2;
    case Kind::negate:
      return 3;
    case Kind::power:
      return 4;
    case Kind::number:
    case Kind::variable:
    case Kind::call:
      break;
  }
  return 5;
}

// Adds the text of the operand, in parentheses if it holds together less than its place asks for.
void print(const Expression& expression, int required, std::string& text);

void print_binary(const Expression& expression, std::string& text) {
  const int own = precedence(expression.kind);
  const bool power = expression.kind == Kind::power;
  const char* symbol = expression.kind == Kind::add        ? " + "
                       : expression.kind == Kind::subtract ? " - "
                       : expression.kind == Kind::multiply ? " * "
                       : expression.kind == Kind::divide   ? " / "
                                                           : " ^ ";
  // To the left of "^" stands an atom, to its right a unary; the others group to the left.
  print(expression.operands[0], power ? 5 : own, text);
  text += symbol;
  print(expression.operands[1], power ? 3 : own + 1, text);
}

void print_call(const Expression& expression, std::string& text) {
  text += expression.name + "(";
  for (const Expression& argument : expression.operands) {
    if (&argument != &expression.operands.front()) text += ", ";
    print(argument, 0, text);
  }
  text += ")";
}

void print(const Expression& expression, int required, std::string& text) {
  const bool grouped = precedence(expression.kind) < required;
  if (grouped) text += "(";
  if (expression.kind == Kind::number) {
    text += format_number(expression.number);
  } else if (expression.kind == Kind::variable) {
    text += expression.name;
  } else if (expression.kind == Kind::call) {
    print_call(expression, text);
  } else if (expression.kind == Kind::negate) {
    text += "-";
    print(expression.operands[0], 3, text);
  } else {
    print_binary(expression, text);
  }
  if (grouped) text += ")";
}

void collect(const Expression& expression, std::set<std::string>& names) {
  if (expression.kind == Kind::variable) names.insert(expression.name);
  for (const Expression& operand : expression.operands) collect(operand, names);
}

}  // namespace

double evaluate(const Expression& expression, const Variables& variables) {
  if (expression.kind == Kind::variable) return variable(expression.name, variables);
  std::vector<double> values;
  values.reserve(expression.operands.size());
  for (const Expression& operand : expression.operands) {
    values.push_back(evaluate(operand, variables));
  }
  return combine(expression, values);
}

double evaluate(std::string_view text, const Variables& variables) {
  return evaluate(parse_expression(text), variables);
}

std::string to_text(const Expression& expression) {
  std::string text;
  print(expression, 0, text);
  return text;
}

std::set<std::string> variables_of(const Expression& expression) {
  std::set<std::string> names;
  collect(expression, names);
  return names;
}

}  // namespace strata
