#include "necrocode/net/request_fields.hpp"

#include <algorithm>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::net {

std::optional<std::string> QueryFields::text(std::string_view name) {
  if (parameters_) note(name, Json::object({{"type", "string"}}));
  return request_.query_value(name);
}

std::string QueryFields::required_text(std::string_view name) {
  if (parameters_) note(name, Json::object({{"type", "string"}}), true);
  if (request_.query_count(name) != 1) {
    fail(name, "must be there exactly once");
    status_ = 400;
  }
  return request_.query_value(name).value_or("");
}

std::optional<std::string> QueryFields::choice(std::string_view name,
                                               std::initializer_list<std::string_view> choices) {
  const std::vector<std::string> all(choices.begin(), choices.end());
  if (parameters_) note(name, Json::object({{"type", "string"}, {"enum", all}}));
  auto text = request_.query_value(name);
  if (!text || std::find(all.begin(), all.end(), *text) != all.end()) return text;
  fail(name, "must be " + join({all.begin(), all.end() - 1}, ", ") + " or " + all.back());
  return std::nullopt;
}

std::optional<std::int64_t> QueryFields::integer(std::string_view name, std::int64_t min,
                                                 std::int64_t max) {
  return read_integer(name, min, max, false);
}

std::int64_t QueryFields::required_integer(std::string_view name, std::int64_t min,
                                           std::int64_t max) {
  if (request_.query_count(name) != 1) fail(name, "must be there exactly once");
  return read_integer(name, min, max, true).value_or(min);
}

std::optional<std::int64_t> QueryFields::read_integer(std::string_view name, std::int64_t min,
                                                      std::int64_t max, bool required) {
  if (parameters_) {
    Json schema = Json::object({{"type", "integer"}, {"minimum", min}});
    if (max != INT64_MAX) schema.set("maximum", max);
    note(name, std::move(schema), required);
  }
  const auto text = request_.query_value(name);
  if (!text) return std::nullopt;
  const auto number = parse_int(*text);
  if (number && *number >= min && *number <= max) return number;
  fail(name, max == INT64_MAX
                 ? "must be a whole number, at least " + std::to_string(min)
                 : "must be between " + std::to_string(min) + " and " + std::to_string(max));
  return std::nullopt;
}

std::optional<SystemTime> QueryFields::time(std::string_view name) {
  if (parameters_) {
    note(name, Json::object({{"type", Json::Array{"string", "number"}}, {"format", "date-time"}}));
  }
  const auto text = request_.query_value(name);
  if (!text) return std::nullopt;
  const auto seconds = parse_double(*text);
  const auto time = seconds ? from_unix_seconds(*seconds) : parse_rfc3339(*text);
  if (!time) fail(name, "must be Unix seconds or an RFC 3339 time");
  return time;
}

std::vector<std::string> QueryFields::list(std::string_view name) {
  if (parameters_) {
    note(name, Json::object({{"type", "array"}, {"items", Json::object({{"type", "string"}})}}));
  }
  std::vector<std::string> parts;
  for (const auto& [given, value] : request_.query) {
    if (given != name) continue;
    for (const std::string_view part : split(value, ',')) parts.emplace_back(trim(part));
  }
  return parts;
}

void QueryFields::fail(std::string_view name, std::string message) {
  errors_.push_back({"/" + std::string(name), std::move(message)});
}

void QueryFields::finish() const {
  if (!errors_.empty()) throw HttpError(status_, "invalid query", errors_);
}

void QueryFields::note(std::string_view name, Json schema, bool required) {
  parameters_->push_back(Json::object(
      {{"name", name}, {"in", "query"}, {"required", required}, {"schema", std::move(schema)}}));
}

Json describe_query(const QueryFields::Read& read) {
  Json parameters = Json::array();
  const Request none;
  QueryFields query(none);
  query.parameters_ = &parameters;
  read(query);
  return parameters;
}

}  // namespace necrocode::net
