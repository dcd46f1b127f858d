// Condition: a boolean expression over the values of a run, as playbooks use it. It compares, and
// can do nothing else: no calls, no assignment, no evaluation of text.
//
//   either    = both { "or" both }
//   both      = negated { "and" negated }
//   negated   = "not" negated | compared
//   compared  = value [ ( "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not" "in" ) value ]
//   value     = "text" | 'text' | number | true | false | null | name | [ value, … ] | ( either )
//   name      = letters, digits, '_' and '-', in parts that are joined by '.'
//
// Equal are values of one kind only; to compare two kinds is an error, except with null. `<` and
// the like compare two numbers or two texts (by bytes). `in` looks for a text in a text, a value in
// a list, a name among an object's. Alone, a value is true unless it is false, null, 0 or empty.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/json.hpp"

namespace necrocode::runner {

class Condition {
 public:
  /// Throws PlaybookExecutionError, with the column (from 1).
  static Condition parse(std::string_view text);
  /// `values`: an object; a name's parts are members one in the other. Throws
  /// PlaybookExecutionError for a name that is not there, and for two kinds that do not compare.
  bool holds(const Json& values) const;
  /// The names that it asks for, each once, in their order.
  std::vector<std::string> names() const;
  const std::string& text() const { return text_; }  ///< as it was written

  struct Node;

 private:
  Condition(std::string text, std::shared_ptr<const Node> root)
      : text_(std::move(text)), root_(std::move(root)) {}
  std::string text_;
  std::shared_ptr<const Node> root_;
};

/// The member of `values` that the dotted name says; null: there is none.
const Json* find_value(const Json& values, std::string_view name);

}  // namespace necrocode::runner
