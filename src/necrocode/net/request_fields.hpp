// Reading what a request says: its query by QueryFields, its body by JsonFields. The same readers
// are what an Operation is described by.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::net {

/// Collects every defect; unknown parameters are ignored. Answers with nothing for a parameter that
/// is absent or has a defect. Where one is given more than once the first counts, if not said
/// otherwise.
class QueryFields {
 public:
  using Read = std::function<void(QueryFields&)>;
  explicit QueryFields(const Request& request) : request_(request) {}

  std::optional<std::string> text(std::string_view name);
  /// Exactly once, or it is a defect, and the answer 400: the request means nothing.
  std::string required_text(std::string_view name);
  std::optional<std::string> choice(std::string_view name,
                                    std::initializer_list<std::string_view> choices);
  /// A whole number from `min` to `max`, both included.
  std::optional<std::int64_t> integer(std::string_view name, std::int64_t min,
                                      std::int64_t max = INT64_MAX);
  /// Exactly once, or it is a defect; `min` when there is one.
  std::int64_t required_integer(std::string_view name, std::int64_t min,
                                std::int64_t max = INT64_MAX);
  /// Unix seconds (int or float) or RFC 3339.
  std::optional<SystemTime> time(std::string_view name);
  /// Parts between commas, of each one that is given.
  std::vector<std::string> list(std::string_view name);

  void fail(std::string_view name, std::string message);
  /// Throws HttpError 422 (or 400) with all defects, when there are any.
  void finish() const;

 private:
  friend Json describe_query(const Read& read);
  std::optional<std::int64_t> read_integer(std::string_view name, std::int64_t min,
                                           std::int64_t max, bool required);
  void note(std::string_view name, Json schema, bool required = false);  // only with parameters_
  const Request& request_;
  std::vector<FieldError> errors_;
  int status_ = 422;
  Json* parameters_ = nullptr;  // while it is described
};

/// The parameters that `read` takes, as OpenAPI has them.
Json describe_query(const QueryFields::Read& read);

/// What `read(QueryFields&)` makes of the query. Throws HttpError 422 (or 400) with every
/// defect.
template <class Read>
auto read_query(const Request& request, Read read) {
  QueryFields query(request);
  auto value = read(query);
  query.finish();
  return value;
}

/// What `read(JsonFields&)` makes of the body. Throws HttpError 400 for what is no JSON, and 422
/// or TaskContextValidationError with every defect; `what` names the body in its message.
template <class Read>
auto read_body(const Request& request, std::string_view what, Read read) {
  const Json body = request.json();
  JsonFields fields(body);
  auto value = read(fields);
  fields.finish(what);
  return value;
}

}  // namespace necrocode::net
