// Json: a JSON value of our own, so that no header names a JSON library.
// Parsing is bounded in depth and strict (RFC 8259); numbers are never converted silently.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "necrocode/base/limits.hpp"

namespace necrocode {

class Json;
using JsonMember = std::pair<std::string, Json>;

/// Every integer type but bool.
template <class T>
concept WholeNumber = std::is_integral_v<T> && !std::is_same_v<T, bool>;

/// A value type. Objects keep the order of their members; a repeated name counts with its last
/// value. Reading from several threads at once is safe, changing is not.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<JsonMember>;

  Json() = default;  ///< null
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  Json(double value) : value_(value) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  template <WholeNumber Integer>
  Json(Integer value) {
    if constexpr (std::is_signed_v<Integer>) {
      value_ = static_cast<std::int64_t>(value);
    } else if (value <= static_cast<std::uint64_t>(INT64_MAX)) {
      value_ = static_cast<std::int64_t>(value);
    } else {
      value_ = static_cast<double>(value);
    }
  }
  template <class T>
  Json(const std::optional<T>& value) {
    if (value) *this = Json(*value);
  }
  Json(const std::vector<std::string>& values);
  Json(Array values);
  Json(Object members);

  static Json object() { return Json(Object{}); }
  static Json object(std::initializer_list<JsonMember> members);
  static Json array() { return Json(Array{}); }

  /// Throws InvalidResponse with what is wrong and at which byte: syntax, depth, invalid UTF-8,
  /// trailing text, more than limits::kJsonValues. `what` names the text in the message.
  static Json parse(std::string_view text, std::string_view what = "JSON",
                    std::size_t depth = limits::kJsonDepth);
  /// Nothing when `text` is not JSON.
  static std::optional<Json> try_parse(std::string_view text,
                                       std::size_t depth = limits::kJsonDepth);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_int() const { return std::holds_alternative<std::int64_t>(value_); }
  bool is_number() const { return is_int() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }
  std::string_view type_name() const;

  /// Each returns nothing when the value is of another type; a number is an int only if it is
  /// whole.
  std::optional<bool> as_bool() const;
  std::optional<std::int64_t> as_int() const;
  std::optional<double> as_double() const;
  std::optional<std::string_view> as_string() const;

  /// The elements, or none when this is not an array.
  const Array& items() const&;
  /// The members, or none when this is not an object.
  const Object& members() const&;
  Array& items() &;     ///< becomes an array when null; must be one otherwise
  Object& members() &;  ///< becomes an object when null; must be one otherwise
  /// By value, like the operator [] of a temporary, so that a loop over `Json::parse(…).items()`
  /// keeps what it walks over. `const &&`: what `condition ? a["x"] : Json()` is when `a` is const.
  Array items() &&;
  Object members() &&;
  Array items() const&&;
  Object members() const&&;
  /// How deep arrays and objects are nested: 0 of a plain value, 1 of {}.
  std::size_t depth() const;
  std::size_t size() const { return is_array() ? items().size() : members().size(); }

  /// The member's value, or null (the value) when there is none or this is not an object.
  const Json& operator[](std::string_view name) const&;
  Json operator[](std::string_view name) &&;
  Json operator[](std::string_view name) const&&;
  /// Points into this value; nullptr when there is no such member or this is not an object.
  const Json* find(std::string_view name) const;
  /// Adds the member or replaces its value; null becomes an object first.
  Json& set(std::string_view name, Json value);
  void erase(std::string_view name);
  void push_back(Json value) { items().push_back(std::move(value)); }
  /// The string, or `otherwise` when this is not a string.
  std::string string_or(std::string_view otherwise) const;

  /// Compact, always valid UTF-8 (malformed bytes become U+FFFD), no newline inside.
  std::string dump() const;
  /// Indented by two spaces, for files and terminals.
  std::string pretty() const;

  friend bool operator==(const Json&, const Json&) = default;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> value_;
};

}  // namespace necrocode
