#include "strata/expression.hpp"

#include <optional>
#include <utility>

#include "strata/text.hpp"

namespace strata {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

struct Token {
  enum class Kind { number, name, symbol, end };

  Kind kind = Kind::end;
  std::size_t position = 0;
  std::string_view text;
  double number = 0;

  bool is(char symbol) const { return kind == Kind::symbol && text.front() == symbol; }
};

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  Token next() {
    while (at_ < text_.size() && trim(text_.substr(at_, 1)).empty()) ++at_;
    if (at_ == text_.size()) return {Token::Kind::end, at_, {}, 0};
    const char first = text_[at_];
    if (is_digit(first) || first == '.') return number();
    if (is_letter(first)) return take(Token::Kind::name, word_length());
    if (std::string_view("+-*/^(),").find(first) != std::string_view::npos) {
      return take(Token::Kind::symbol, 1);
    }
    throw ParseError("unexpected character", at_);
  }

 private:
  // Everything that looks like a part of the number is taken, so that "1.2.3" and "2x" are one
  // wrong number and not two right tokens.
  Token number() {
    Token token = take(Token::Kind::number, word_length());
    const std::optional<double> value = parse_number(token.text);
    if (!value) throw ParseError("malformed number", token.position);
    token.number = *value;
    return token;
  }

  std::size_t word_length() const {
    const bool numeric = !is_letter(text_[at_]);
    std::size_t end = at_;
    for (; end < text_.size(); ++end) {
      const char c = text_[end];
      if (is_digit(c) || is_letter(c)) continue;
      if (numeric && c == '.') continue;
      const bool after_exponent = end > at_ && (text_[end - 1] == 'e' || text_[end - 1] == 'E');
      if (numeric && after_exponent && (c == '+' || c == '-')) continue;
      break;
    }
    return end - at_;
  }

  Token take(Token::Kind kind, std::size_t length) {
    const Token token{kind, at_, text_.substr(at_, length), 0};
    at_ += length;
    return token;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

Expression node(Expression::Kind kind, Expression left, Expression right) {
  Expression result{kind, 0, {}, {}};
  result.operands.push_back(std::move(left));
  result.operands.push_back(std::move(right));
  return result;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : lexer_(text), token_(lexer_.next()) {}

  Expression whole() {
    Expression result = sum(0);
    if (token_.kind != Token::Kind::end) fail("expected an operator or the end");
    return result;
  }

 private:
  using Kind = Expression::Kind;

  Expression sum(int depth) {
    Expression left = product(depth);
    for (;;) {
      if (accept('+')) {
        left = node(Kind::add, std::move(left), product(depth));
      } else if (accept('-')) {
        left = node(Kind::subtract, std::move(left), product(depth));
      } else {
        return left;
      }
    }
  }

  Expression product(int depth) {
    Expression left = unary(depth);
    for (;;) {
      if (accept('*')) {
        left = node(Kind::multiply, std::move(left), unary(depth));
      } else if (accept('/')) {
        left = node(Kind::divide, std::move(left), unary(depth));
      } else {
        return left;
      }
    }
  }

  // Every way to nest comes through here, so this is where the depth is bounded.
  Expression unary(int depth) {
    if (depth == kMaxExpressionNesting) fail("nested too deeply");
    if (!accept('-')) return power(depth);
    Expression result{Kind::negate, 0, {}, {}};
    result.operands.push_back(unary(depth + 1));
    return result;
  }

  Expression power(int depth) {
    Expression base = atom(depth);
    if (!accept('^')) return base;
    return node(Kind::power, std::move(base), unary(depth + 1));
  }

  Expression atom(int depth) {
    const Token token = token_;
    if (token.kind == Token::Kind::number) {
      advance();
      return {Kind::number, token.number, {}, {}};
    }
    if (token.kind == Token::Kind::name) {
      advance();
      if (!accept('(')) return {Kind::variable, 0, std::string(token.text), {}};
      return {Kind::call, 0, std::string(token.text), arguments(depth)};
    }
    if (!accept('(')) fail("expected a number, a name or '('");
    Expression inner = sum(depth + 1);
    expect(')');
    return inner;
  }

  std::vector<Expression> arguments(int depth) {
    std::vector<Expression> result;
    if (accept(')')) return result;
    do {
      result.push_back(sum(depth + 1));
    } while (accept(','));
    expect(')');
    return result;
  }

  void advance() { token_ = lexer_.next(); }

  bool accept(char symbol) {
    if (!token_.is(symbol)) return false;
    advance();
    return true;
  }

  void expect(char symbol) {
    if (!accept(symbol)) fail(std::string("expected '") + symbol + "'");
  }

  [[noreturn]] void fail(const std::string& problem) const {
    throw ParseError(problem, token_.position);
  }

  Lexer lexer_;
  Token token_;
};

std::string head(const Expression& expression) {
  switch (expression.kind) {
    case Expression::Kind::number:
      return format_number(expression.number);
    case Expression::Kind::variable:
      return expression.name;
    case Expression::Kind::call:
      return "call " + expression.name;
    case Expression::Kind::negate:
      return "neg";
    case Expression::Kind::add:
      return "+";
    case Expression::Kind::subtract:
      return "-";
    case Expression::Kind::multiply:
      return "*";
    case Expression::Kind::divide:
      return "/";
    case Expression::Kind::power:
      return "^";
  }
  return {};
}

}  // namespace

ParseError::ParseError(const std::string& problem, std::size_t position)
    : std::runtime_error(problem + " at position " + std::to_string(position)),
      position_(position) {}

Expression parse_expression(std::string_view text) {
  if (text.size() > kMaxExpressionBytes) throw ParseError("text too long", kMaxExpressionBytes);
  return Parser(text).whole();
}

std::string to_sexpr(const Expression& expression) {
  using Kind = Expression::Kind;
  if (expression.kind == Kind::number || expression.kind == Kind::variable) return head(expression);
  std::string text = "(" + head(expression);
  for (const Expression& operand : expression.operands) text += " " + to_sexpr(operand);
  return text + ")";
}

}  // namespace strata
