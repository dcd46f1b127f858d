// JsonFields: reads a JSON object by names and types; describe_fields(): the same reader's JSON
// Schema, so that what is read and what is documented cannot differ.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/json.hpp"

namespace necrocode {

/// Reads the members of one JSON object by name and type and collects every defect, so that a
/// caller learns all of them at once. Unknown members are ignored unless asked for. A reader
/// answers with nothing (or an empty value) for a member that is absent or null, and for one of
/// another type or outside its bounds, which is a defect; none of them throws. Not thread-safe.
class JsonFields {
 public:
  using Read = std::function<void(JsonFields&)>;

  /// `pointer`: where the object stands in the whole document ("" at the top). Keeps a reference.
  explicit JsonFields(const Json& object, std::string pointer = "");

  /// Absent or empty is a defect too.
  std::string required_string(std::string_view name, std::size_t bytes_max = limits::kMiB);
  /// The first of `names` that is there, and its text; none of them is a defect of the first.
  struct Named {
    std::string_view name;
    std::string text;
  };
  Named required_string_of(std::initializer_list<std::string_view> names, std::size_t bytes_max);
  /// One of `choices`; absent is a defect too. Empty when there is a defect.
  std::string required_choice(std::string_view name,
                              std::initializer_list<std::string_view> choices);
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

  /// Calls `read` with a reader of each element of the array.
  void each(std::string_view name, std::size_t count_max, const Read& read);
  /// Calls `read` with a reader of the object; false when absent.
  bool nested(std::string_view name, const Read& read);
  /// True or false, or an object, which is read by `read` and counts as true.
  bool boolean_or_nested(std::string_view name, const Read& read);

  void require(std::string_view name);    ///< absent is a defect
  bool has(std::string_view name) const;  ///< there and not null; while it is described, always
  const Json& value() const { return object_; }
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
  friend Json describe_fields(const Read& read);
  const Json* get(std::string_view name);
  bool absent(std::string_view name) const;
  void note(std::string_view name, Json property, bool required = false);  // only with schema_

  const Json& object_;
  std::string pointer_;
  std::vector<std::string> asked_;
  std::vector<FieldError> errors_;
  Json* schema_ = nullptr;  // while it is described
};

/// The JSON Schema (2020-12) of what `read` takes: runs it over nothing, and notes what it asks
/// for. Lengths are told as they are counted, in bytes, which a schema counts as characters: it
/// allows no less than the reader does.
Json describe_fields(const JsonFields::Read& read);

}  // namespace necrocode
