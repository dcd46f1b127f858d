// Json: a JSON value of our own, so that no header names a JSON library.
// Parsing is bounded in depth and strict (RFC 8259); numbers are never converted silently.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"

namespace necrocode {

class Json;
using JsonMember = std::pair<std::string, Json>;

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
  template <class Integer>
    requires(std::is_integral_v<Integer> && !std::is_same_v<Integer, bool>)
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

/// Reads the members of one JSON object by name and type and collects every defect, so that a
/// caller learns all of them at once. Unknown members are ignored unless asked for. A reader
/// answers with nothing (or an empty value) for a member that is absent or null, and for one of
/// another type or outside its bounds, which is a defect; none of them throws. Not thread-safe.
class JsonFields {
 public:
  /// `pointer`: where the object stands in the whole document ("" at the top). Keeps a reference.
  explicit JsonFields(const Json& object, std::string pointer = "");

  /// Absent or empty is a defect too.
  std::string required_string(std::string_view name, std::size_t bytes_max = limits::kMiB);
  std::optional<std::string> string(std::string_view name, std::size_t bytes_max = limits::kMiB);
  /// A whole number from `min` to `max`, both included.
  std::optional<std::int64_t> integer(std::string_view name, std::int64_t min = INT64_MIN,
                                      std::int64_t max = INT64_MAX);
  std::optional<double> number(std::string_view name, double min, double max);
  std::optional<bool> boolean(std::string_view name);
  /// An array of at most `count_max` strings, each of at most `bytes_max`.
  std::vector<std::string> strings(std::string_view name, std::size_t count_max = 10'000,
                                   std::size_t bytes_max = limits::kMiB);
  /// Unix seconds (int or float) or RFC 3339.
  std::optional<SystemTime> time(std::string_view name);
  /// An object, or an empty one when absent or null.
  Json object(std::string_view name, std::size_t bytes_max = limits::kMetadataBytes);
  /// The array's elements, or none when absent.
  const Json::Array& array(std::string_view name, std::size_t count_max);

  bool has(std::string_view name) const;  ///< also with null
  /// Of the member, in the whole document (RFC 6901).
  std::string pointer(std::string_view name) const;
  /// Adds a defect of the member that the readers cannot see.
  void fail(std::string_view name, std::string message);
  /// Takes over the defects of a nested reader.
  void absorb(const JsonFields& nested);
  /// Names of members that none of the calls above asked for.
  std::vector<std::string> unknown() const;

  const std::vector<FieldError>& errors() const { return errors_; }
  /// Throws TaskContextValidationError with all defects, when there are any.
  void finish(std::string_view what) const;

 private:
  const Json* get(std::string_view name);
  const Json& object_;
  std::string pointer_;
  std::vector<std::string> asked_;
  std::vector<FieldError> errors_;
};

}  // namespace necrocode
