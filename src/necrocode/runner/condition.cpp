#include "necrocode/runner/condition.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {

enum class Operation {
  kValue,
  kName,
  kList,
  kOr,
  kAnd,
  kNot,
  kEqual,
  kUnequal,
  kLess,
  kLessOrEqual,
  kGreater,
  kGreaterOrEqual,
  kIn,
  kNotIn,
};

struct Condition::Node {
  Operation operation = Operation::kValue;
  Json value;        ///< of kValue
  std::string name;  ///< of kName
  std::vector<Node> parts;
};

namespace {

using Node = Condition::Node;

constexpr std::size_t kTextBytes = 4 * limits::kKiB;
constexpr int kDepth = 32;

struct Comparison {
  std::string_view sign;
  Operation operation;
};
// The longer first, where one begins with another.
constexpr std::array<Comparison, 6> kComparisons = {{{"==", Operation::kEqual},
                                                     {"!=", Operation::kUnequal},
                                                     {"<=", Operation::kLessOrEqual},
                                                     {">=", Operation::kGreaterOrEqual},
                                                     {"<", Operation::kLess},
                                                     {">", Operation::kGreater}}};

bool is_name_character(char c) {
  return is_ascii_alnum(c) || c == '_' || c == '-' || c == '.';
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Node parse() {
    if (text_.size() > kTextBytes) fail("is longer than 4 KiB");
    Node root = either();
    skip_space();
    if (at_ < text_.size()) fail("nothing is expected here; \"and\" or \"or\" may be missing");
    return root;
  }

 private:
  Node either() { return chain("or", Operation::kOr, &Parser::both); }
  Node both() { return chain("and", Operation::kAnd, &Parser::negated); }

  Node chain(std::string_view word, Operation operation, Node (Parser::*part)()) {
    const Deeper deeper(*this);
    Node first = (this->*part)();
    if (!peek_word(word)) return first;
    Node node{operation, {}, {}, {}};
    node.parts.push_back(std::move(first));
    while (take_word(word)) node.parts.push_back((this->*part)());
    return node;
  }

  Node negated() {
    const Deeper deeper(*this);
    if (!take_word("not")) return compared();
    return {Operation::kNot, {}, {}, {negated()}};
  }

  Node compared() {
    Node left = value();
    const auto operation = take_comparison();
    if (!operation) return left;
    std::vector<Node> sides;
    sides.push_back(std::move(left));
    sides.push_back(value());
    if (take_comparison()) fail("only two values can be compared; write a < b and b < c");
    return {*operation, {}, {}, std::move(sides)};
  }

  std::optional<Operation> take_comparison() {
    skip_space();
    for (const Comparison& comparison : kComparisons) {
      if (!text_.substr(at_).starts_with(comparison.sign)) continue;
      at_ += comparison.sign.size();
      return comparison.operation;
    }
    if (text_.substr(at_).starts_with('=')) fail("equality is written ==");
    if (take_word("in")) return Operation::kIn;
    const std::size_t before = at_;
    if (take_word("not")) {
      if (take_word("in")) return Operation::kNotIn;
      at_ = before;
    }
    return std::nullopt;
  }

  Node value() {
    const Deeper deeper(*this);
    skip_space();
    const char next = at_ < text_.size() ? text_[at_] : '\0';
    if (next == '(') return in_parentheses();
    if (next == '[') return list();
    if (next == '"' || next == '\'') return quoted(next);
    if (is_ascii_digit(next) || next == '-') return number();
    if (is_name_character(next)) return word();
    fail("a value is expected: a name, a number, \"text\", [list] or (condition)");
  }

  Node in_parentheses() {
    ++at_;
    Node inner = either();
    expect(')');
    return inner;
  }

  Node list() {
    ++at_;
    Node node{Operation::kList, {}, {}, {}};
    skip_space();
    while (at_ < text_.size() && text_[at_] != ']') {
      node.parts.push_back(value());
      skip_space();
      if (at_ < text_.size() && text_[at_] == ',') {
        ++at_;
        skip_space();
      } else {
        break;
      }
    }
    expect(']');
    return node;
  }

  Node quoted(char quote) {
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail("this text has no end");
    Node node{Operation::kValue, Json(std::string(text_.substr(at_ + 1, end - at_ - 1))), {}, {}};
    at_ = end + 1;
    return node;
  }

  Node number() {
    std::size_t end = at_ + 1;
    while (end < text_.size() && (is_ascii_alnum(text_[end]) || text_[end] == '.')) ++end;
    const std::string_view digits = text_.substr(at_, end - at_);
    Node node;
    if (const auto whole = parse_int(digits)) {
      node.value = *whole;
    } else if (const auto decimal = parse_double(digits)) {
      node.value = *decimal;
    } else {
      fail("\"" + printable(digits) + "\" is not a number");
    }
    at_ = end;
    return node;
  }

  Node word() {
    const std::string name(word_here());
    for (const std::string_view keyword : {"and", "or", "not", "in"}) {
      if (name == keyword) fail("a value is expected, not \"" + name + "\"");
    }
    at_ += name.size();
    if (name == "true") return {Operation::kValue, true, {}, {}};
    if (name == "false") return {Operation::kValue, false, {}, {}};
    if (name == "null") return {};
    return {Operation::kName, {}, name, {}};
  }

  std::string_view word_here() const {
    std::size_t end = at_;
    while (end < text_.size() && is_name_character(text_[end])) ++end;
    return text_.substr(at_, end - at_);
  }
  bool peek_word(std::string_view word) {
    skip_space();
    return word_here() == word;
  }
  bool take_word(std::string_view word) {
    if (!peek_word(word)) return false;
    at_ += word.size();
    return true;
  }
  void expect(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) fail(std::string("'") + c + "' is missing");
    ++at_;
  }
  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) < 4) ++at_;
  }

  [[noreturn]] void fail(const std::string& problem) const {
    throw PlaybookExecutionError("column " + std::to_string(at_ + 1) + ": " + problem);
  }

  // Of the recursion, which a hostile text decides.
  struct Deeper {
    explicit Deeper(Parser& owner) : parser(owner) {
      if (++parser.depth_ > 4 * kDepth) parser.fail("nested too deeply");
    }
    ~Deeper() { --parser.depth_; }
    Parser& parser;
  };

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

[[noreturn]] void fail(const std::string& problem) {
  throw PlaybookExecutionError("condition: " + problem);
}

const char* kind_of(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_bool()) return "true or false";
  if (value.is_string()) return "text";
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  return "a number";
}

bool is_number(const Json& value) {
  return value.as_double().has_value();
}

[[noreturn]] void refuse(const Json& a, const Json& b) {
  fail(std::string(kind_of(a)) + " and " + kind_of(b) + " cannot be compared");
}

/// Below, at or above 0 as `a` is less than, equal to or more than `b`.
int order_of(const Json& a, const Json& b) {
  const auto order = [](const auto& x, const auto& y) { return x < y ? -1 : y < x ? 1 : 0; };
  const auto whole_a = a.as_int();
  const auto whole_b = b.as_int();
  if (whole_a && whole_b) return order(*whole_a, *whole_b);  // doubles would lose digits
  if (is_number(a) && is_number(b)) return order(*a.as_double(), *b.as_double());
  if (a.is_string() && b.is_string()) return order(a.string_or(""), b.string_or(""));
  refuse(a, b);
}

bool is_equal(const Json& a, const Json& b) {
  if (a.is_null() || b.is_null()) return a.is_null() && b.is_null();
  if (is_number(a) && is_number(b)) return order_of(a, b) == 0;
  if (std::string_view(kind_of(a)) != kind_of(b)) refuse(a, b);
  return a == b;
}

bool is_in(const Json& value, const Json& whole) {
  if (whole.is_array()) {
    // Of a list of several kinds, those that compare.
    return std::any_of(whole.items().begin(), whole.items().end(), [&](const Json& item) {
      return (is_number(value) && is_number(item)) ||
                     std::string_view(kind_of(value)) == kind_of(item)
                 ? is_equal(value, item)
                 : false;
    });
  }
  if (value.is_string() && whole.is_string()) {
    return whole.string_or("").find(value.string_or("")) != std::string::npos;
  }
  if (value.is_string() && whole.is_object()) return whole.find(value.string_or("")) != nullptr;
  fail(std::string(kind_of(value)) + " cannot be in " + kind_of(whole));
}

bool is_true(const Json& value) {
  if (value.is_null()) return false;
  if (value.is_bool()) return value == Json(true);
  if (value.is_string()) return !value.string_or("").empty();
  if (value.is_array() || value.is_object()) return value.size() > 0;
  return *value.as_double() != 0;
}

Json evaluate(const Node& node, const Json& values);

bool holds(const Node& node, const Json& values) {
  return is_true(evaluate(node, values));
}

Json evaluate(const Node& node, const Json& values) {
  const auto part = [&](std::size_t index) { return evaluate(node.parts.at(index), values); };
  const auto each_holds = [&](const Node& inner) { return holds(inner, values); };
  switch (node.operation) {
    case Operation::kValue:
      return node.value;
    case Operation::kName: {
      const Json* found = find_value(values, node.name);
      if (!found) fail("there is no value named \"" + printable(node.name) + "\"");
      return *found;
    }
    case Operation::kList: {
      Json list = Json::array();
      for (std::size_t i = 0; i < node.parts.size(); ++i) list.push_back(part(i));
      return list;
    }
    case Operation::kOr:
      return std::any_of(node.parts.begin(), node.parts.end(), each_holds);
    case Operation::kAnd:
      return std::all_of(node.parts.begin(), node.parts.end(), each_holds);
    case Operation::kNot:
      return !holds(node.parts.front(), values);
    case Operation::kEqual:
      return is_equal(part(0), part(1));
    case Operation::kUnequal:
      return !is_equal(part(0), part(1));
    case Operation::kLess:
      return order_of(part(0), part(1)) < 0;
    case Operation::kLessOrEqual:
      return order_of(part(0), part(1)) <= 0;
    case Operation::kGreater:
      return order_of(part(0), part(1)) > 0;
    case Operation::kGreaterOrEqual:
      return order_of(part(0), part(1)) >= 0;
    case Operation::kIn:
      return is_in(part(0), part(1));
    case Operation::kNotIn:
      return !is_in(part(0), part(1));
  }
  return {};
}

void collect_names(const Node& node, std::vector<std::string>& names) {
  if (node.operation == Operation::kName &&
      std::find(names.begin(), names.end(), node.name) == names.end()) {
    names.push_back(node.name);
  }
  for (const Node& part : node.parts) collect_names(part, names);
}

}  // namespace

Condition Condition::parse(std::string_view text) {
  return {std::string(text), std::make_shared<const Node>(Parser(text).parse())};
}

bool Condition::holds(const Json& values) const {
  return runner::holds(*root_, values);
}

std::vector<std::string> Condition::names() const {
  std::vector<std::string> names;
  collect_names(*root_, names);
  return names;
}

const Json* find_value(const Json& values, std::string_view name) {
  const Json* value = &values;
  for (const std::string_view part : split(name, '.')) {
    value = value->is_object() ? value->find(part) : nullptr;
    if (!value) return nullptr;
  }
  return value;
}

}  // namespace necrocode::runner
