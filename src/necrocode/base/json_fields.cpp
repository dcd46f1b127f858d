#include "necrocode/base/json_fields.hpp"

#include <algorithm>
#include <cmath>

#include "necrocode/base/json_schema.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode {
namespace {

const Json kNothing = Json::object();

std::string pointer_part(std::string_view name) {
  return "/" + replace_all(replace_all(std::string(name), "~", "~0"), "/", "~1");
}

Json string_schema(std::size_t bytes_max) {
  return schema::text().set("maxLength", bytes_max);
}

Json array_schema(Json items, std::size_t count_max) {
  return schema::list(std::move(items)).set("maxItems", count_max);
}

Json integer_schema(std::int64_t min, std::int64_t max) {
  Json schema = schema::integer();
  if (min != INT64_MIN) schema.set("minimum", min);
  if (max != INT64_MAX) schema.set("maximum", max);
  return schema;
}

/// A reader takes null for absent.
Json or_null(Json schema) {
  Json types = schema["type"].is_array() ? schema["type"] : Json(Json::Array{schema["type"]});
  types.push_back("null");
  return schema.set("type", std::move(types));
}

}  // namespace

JsonFields::JsonFields(const Json& object, std::string pointer)
    : object_(object), pointer_(std::move(pointer)) {
  if (!object_.is_object()) {
    errors_.push_back({pointer_, "must be an object, not " + std::string(object_.type_name())});
  }
}

const Json* JsonFields::get(std::string_view name) {
  asked_.emplace_back(name);
  const Json* value = object_.find(name);
  return value && !value->is_null() ? value : nullptr;
}

std::string JsonFields::required_string(std::string_view name, std::size_t bytes_max) {
  if (schema_) note(name, string_schema(bytes_max).set("minLength", 1), true);
  if (absent(name)) {
    require(name);
    return {};
  }
  auto value = string(name, bytes_max);
  if (value && value->empty()) fail(name, "must not be empty");
  return value.value_or("");
}

JsonFields::Named JsonFields::required_string_of(std::initializer_list<std::string_view> names,
                                                 std::size_t bytes_max) {
  for (const std::string_view name : names) {
    if (schema_) note(name, string_schema(bytes_max).set("minLength", 1));
    if (!object_[name].is_null()) return {name, required_string(name, bytes_max)};
  }
  if (!schema_) require(*names.begin());
  return {*names.begin(), {}};
}

std::string JsonFields::required_choice(std::string_view name,
                                        std::initializer_list<std::string_view> choices) {
  const std::vector<std::string> all(choices.begin(), choices.end());
  if (schema_) note(name, schema::choice(all), true);
  if (absent(name)) {
    require(name);
    return {};
  }
  auto value = string(name, limits::kNameBytes);
  if (!value) return {};
  if (std::find(all.begin(), all.end(), *value) != all.end()) return *std::move(value);
  fail(name, "must be " + join({all.begin(), all.end() - 1}, ", ") + " or " + all.back());
  return {};
}

std::optional<std::string> JsonFields::string(std::string_view name, std::size_t bytes_max) {
  if (schema_) note(name, string_schema(bytes_max));
  const Json* value = get(name);
  if (!value) return std::nullopt;
  const auto text = value->as_string();
  if (!text) {
    fail(name, "must be a string, not " + std::string(value->type_name()));
    return std::nullopt;
  }
  if (text->size() > bytes_max) {
    fail(name, "must be at most " + std::to_string(bytes_max) + " bytes, is " +
                   std::to_string(text->size()));
    return std::nullopt;
  }
  if (text->find('\0') != std::string_view::npos) {
    fail(name, "must not contain a NUL character");
    return std::nullopt;
  }
  return std::string(*text);
}

std::optional<std::int64_t> JsonFields::integer(std::string_view name, std::int64_t min,
                                                std::int64_t max) {
  if (schema_) note(name, integer_schema(min, max));
  const Json* value = get(name);
  if (!value) return std::nullopt;
  const auto number = value->as_int();
  if (!number) {
    fail(name, "must be an integer, not " + std::string(value->type_name()));
    return std::nullopt;
  }
  if (*number < min || *number > max) {
    fail(name, "must be between " + std::to_string(min) + " and " + std::to_string(max) + ", is " +
                   std::to_string(*number));
    return std::nullopt;
  }
  return number;
}

std::optional<double> JsonFields::number(std::string_view name, double min, double max) {
  if (schema_) note(name, schema::number().set("minimum", min).set("maximum", max));
  const Json* value = get(name);
  if (!value) return std::nullopt;
  const auto number = value->as_double();
  if (!number) {
    fail(name, "must be a number, not " + std::string(value->type_name()));
    return std::nullopt;
  }
  if (!(*number >= min && *number <= max)) {
    fail(name, "must be between " + Json(min).dump() + " and " + Json(max).dump() + ", is " +
                   value->dump());
    return std::nullopt;
  }
  return number;
}

std::optional<bool> JsonFields::boolean(std::string_view name) {
  if (schema_) note(name, schema::boolean());
  const Json* value = get(name);
  if (!value) return std::nullopt;
  const auto boolean = value->as_bool();
  if (!boolean) fail(name, "must be true or false, not " + std::string(value->type_name()));
  return boolean;
}

std::vector<std::string> JsonFields::strings(std::string_view name, std::size_t count_max,
                                             std::size_t bytes_max) {
  if (schema_) note(name, array_schema(string_schema(bytes_max), count_max));
  std::vector<std::string> values;
  std::size_t index = 0;
  for (const Json& item : array(name, count_max)) {
    const std::string at = std::string(name) + "/" + std::to_string(index++);
    const auto text = item.as_string();
    if (!text) {
      errors_.push_back(
          {pointer_ + "/" + at, "must be a string, not " + std::string(item.type_name())});
    } else if (text->size() > bytes_max) {
      errors_.push_back(
          {pointer_ + "/" + at, "must be at most " + std::to_string(bytes_max) + " bytes"});
    } else if (text->find('\0') != std::string_view::npos) {
      errors_.push_back({pointer_ + "/" + at, "must not contain a NUL character"});
    } else {
      values.emplace_back(*text);
    }
  }
  return values;
}

std::optional<SystemTime> JsonFields::time(std::string_view name) {
  if (schema_) {
    note(name, Json::object({{"type", Json::Array{"string", "number"}}, {"format", "date-time"}}));
  }
  const Json* value = get(name);
  if (!value) return std::nullopt;
  std::optional<SystemTime> time;
  if (const auto seconds = value->as_double()) time = from_unix_seconds(*seconds);
  if (const auto text = value->as_string()) time = parse_rfc3339(*text);
  if (!time) fail(name, "must be Unix seconds or an RFC 3339 time");
  return time;
}

Json JsonFields::object(std::string_view name, std::size_t bytes_max) {
  if (schema_) note(name, schema::free_object());
  const Json* value = get(name);
  if (!value) return Json::object();
  if (!value->is_object()) {
    fail(name, "must be an object, not " + std::string(value->type_name()));
    return Json::object();
  }
  if (value->dump().size() > bytes_max) {
    fail(name, "must be at most " + std::to_string(bytes_max) + " bytes");
    return Json::object();
  }
  return *value;
}

const Json::Array& JsonFields::array(std::string_view name, std::size_t count_max) {
  if (schema_) note(name, array_schema(Json::object(), count_max));
  static const Json::Array kNone;
  const Json* value = get(name);
  if (!value) return kNone;
  if (!value->is_array()) {
    fail(name, "must be an array, not " + std::string(value->type_name()));
    return kNone;
  }
  if (value->size() > count_max) {
    fail(name, "must have at most " + std::to_string(count_max) + " elements, has " +
                   std::to_string(value->size()));
    return kNone;
  }
  return value->items();
}

void JsonFields::each(std::string_view name, std::size_t count_max, const Read& read) {
  if (schema_) note(name, array_schema(describe_fields(read), count_max));
  std::size_t index = 0;
  for (const Json& item : array(name, count_max)) {
    JsonFields element(item, pointer(name) + "/" + std::to_string(index++));
    read(element);
    absorb(element);
  }
}

bool JsonFields::nested(std::string_view name, const Read& read) {
  if (schema_) note(name, describe_fields(read));
  const Json* value = get(name);
  if (!value) return false;
  JsonFields inner(*value, pointer(name));
  read(inner);
  absorb(inner);
  return true;
}

bool JsonFields::boolean_or_nested(std::string_view name, const Read& read) {
  if (schema_) {
    note(name, describe_fields(read).set("type", Json::Array{"boolean", "object"}));
  }
  if (object_[name].is_object()) return nested(name, read);
  return boolean(name).value_or(false);
}

bool JsonFields::absent(std::string_view name) const {
  return object_.is_object() && object_[name].is_null();
}

void JsonFields::require(std::string_view name) {
  asked_.emplace_back(name);
  if (absent(name)) fail(name, "is required");
  if (!schema_) return;
  Json required = (*schema_)["required"];
  for (const Json& known : required.items()) {
    if (known == Json(name)) return;
  }
  required.push_back(name);
  schema_->set("required", std::move(required));
}

// What is noted first stays: it is the narrowest, where one reader uses another.
void JsonFields::note(std::string_view name, Json property, bool required) {
  Json properties = (*schema_)["properties"];
  if (!properties.find(name)) properties.set(name, std::move(property));
  schema_->set("properties", std::move(properties));
  if (required) require(name);
}

bool JsonFields::has(std::string_view name) const {
  return schema_ != nullptr || !object_[name].is_null();
}

std::string JsonFields::pointer(std::string_view name) const {
  return pointer_ + pointer_part(name);
}

void JsonFields::fail(std::string_view name, std::string message) {
  errors_.push_back({pointer(name), std::move(message)});
}

void JsonFields::absorb(const JsonFields& nested) {
  errors_.insert(errors_.end(), nested.errors_.begin(), nested.errors_.end());
}

std::vector<std::string> JsonFields::unknown() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : object_.members()) {
    if (std::find(asked_.begin(), asked_.end(), name) == asked_.end()) names.push_back(name);
  }
  return names;
}

void JsonFields::finish(std::string_view what) const {
  if (errors_.empty()) return;
  ErrorInfo info;
  info.fields = errors_;
  throw TaskContextValidationError("invalid " + std::string(what), std::move(info));
}

Json describe_fields(const JsonFields::Read& read) {
  Json schema = Json::object({{"type", "object"}, {"properties", Json::object()}});
  JsonFields fields(kNothing);
  fields.schema_ = &schema;
  read(fields);
  Json properties = Json::object();
  for (const auto& [name, property] : schema["properties"].members()) {
    const Json::Array& required = schema["required"].items();
    const bool always = std::find(required.begin(), required.end(), Json(name)) != required.end();
    properties.set(name, always ? property : or_null(property));
  }
  return schema.set("properties", std::move(properties));
}

}  // namespace necrocode
