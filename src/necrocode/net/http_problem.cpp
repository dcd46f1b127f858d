// Requests and responses as handlers see them, and the one table from errors to HTTP. No sockets.
#include <cmath>

#include "necrocode/base/check.hpp"
#include "necrocode/base/clock.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/http_server.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::net {
namespace {

// Whole seconds until `time`, at least one.
std::string retry_after(const std::optional<std::chrono::system_clock::time_point>& time) {
  if (!time) return "1";
  const std::chrono::duration<double> left = *time - real_clock().system_now();
  return std::to_string(static_cast<long long>(std::max(1.0, std::ceil(left.count()))));
}

Response with_retry_after(Response response, const RunnerError& error) {
  response.headers.set("Retry-After", retry_after(error.info().retry_at));
  return response;
}

void log_failure(const std::exception& error, const Request& request) {
  log::error("a handler failed", {{"error", error.what()},
                                  {"method", request.method},
                                  {"path", request.path},
                                  {"request_id", request.request_id}});
}

template <class... Errors>
bool is_any_of(const RunnerError& error) {
  return (... || (dynamic_cast<const Errors*>(&error) != nullptr));
}

// The status of errors whose words may be told to the caller; 0 for the others.
int public_status(const RunnerError& error) {
  if (is_any_of<TaskContextValidationError>(error)) return 422;
  if (is_any_of<NotFound>(error)) return 404;
  if (is_any_of<Conflict, ResourceConflictError>(error)) return 409;
  if (is_any_of<Unauthorized>(error)) return 403;
  if (is_any_of<RateLimited>(error)) return 429;
  if (is_any_of<Unavailable, TimeoutError>(error)) return 503;
  if (is_any_of<ResourceLimitError>(error)) return 413;
  return 0;
}

int http_status(const HttpError& error) {
  return error.status() >= 400 && error.status() < 600 ? error.status() : 500;
}

}  // namespace

const std::string& Request::param(std::string_view name) const {
  const auto found = params.find(name);
  NECROCODE_CHECK(found != params.end());
  return found->second;
}

std::optional<std::string> Request::query_value(std::string_view name) const {
  for (const auto& [key, value] : query) {
    if (key == name) return value;
  }
  return std::nullopt;
}

std::size_t Request::query_count(std::string_view name) const {
  std::size_t count = 0;
  for (const auto& [key, value] : query) count += key == name ? 1 : 0;
  return count;
}

Json Request::json() const {
  if (trim(body).empty()) return Json::object();
  Json value;
  try {
    value = Json::parse(body, "the body");
  } catch (const InvalidResponse& error) {
    throw HttpError(400, error.summary());
  }
  if (!value.is_object()) {
    throw HttpError(422, "the body is not a JSON object",
                    {{"", "is " + std::string(value.type_name()) + ", not an object"}});
  }
  return value;
}

Response Response::json(int status, const Json& value) {
  return {status, {{"Content-Type", "application/json"}}, value.dump()};
}

Response Response::text(int status, std::string text, std::string content_type) {
  return {status, {{"Content-Type", std::move(content_type)}}, std::move(text)};
}

Response Response::empty(int status) {
  return {status, {}, std::string()};
}

Response Response::park(ParkRequest park) {
  return {200, {}, std::make_shared<ParkRequest>(std::move(park))};
}

HttpError::HttpError(int status, const std::string& detail, std::vector<FieldError> fields)
    : RunnerError(detail, [&] {
        ErrorInfo info;
        info.status = status;
        info.fields = std::move(fields);
        return info;
      }()) {}

Response problem(int status, std::string_view detail, std::string_view instance,
                 const std::vector<FieldError>& fields) {
  Json document = Json::object({{"type", "about:blank"},
                                {"title", reason_phrase(status)},
                                {"status", status},
                                {"detail", detail}});
  if (!instance.empty()) document.set("instance", instance);
  if (!fields.empty()) {
    Json errors = Json::array();
    for (const FieldError& field : fields) {
      errors.push_back(Json::object({{"pointer", field.pointer}, {"message", field.message}}));
    }
    document.set("errors", std::move(errors));
  }
  return {status, {{"Content-Type", "application/problem+json"}}, document.dump()};
}

int problem_status(const std::exception& error) {
  if (const auto* http = dynamic_cast<const HttpError*>(&error)) return http_status(*http);
  const auto* known = dynamic_cast<const RunnerError*>(&error);
  const int status = known ? public_status(*known) : 0;
  if (status != 0) return status;
  const auto* storage = dynamic_cast<const StorageError*>(&error);
  return storage && is_disk_full(*storage) ? 507 : 500;
}

Response problem_for(const std::exception& error, const Request& request) {
  const int status = problem_status(error);
  if (const auto* http = dynamic_cast<const HttpError*>(&error)) {
    if (status >= 500 && status != 503) log_failure(error, request);
    Response response = problem(status, http->summary(), request.path, http->info().fields);
    for (const auto& [name, value] : http->headers) response.headers.set(name, value);
    return response;
  }
  if (const auto* known = dynamic_cast<const RunnerError*>(&error)) {
    if (public_status(*known) != 0) {
      Response response = problem(status, known->summary(), request.path, known->info().fields);
      const bool later = status == 429 || status == 503;
      return later ? with_retry_after(std::move(response), *known) : std::move(response);
    }
  }
  log_failure(error, request);
  if (dynamic_cast<const StorageError*>(&error) == nullptr)
    return problem(500, "internal error", request.path);
  return problem(status, status == 507 ? "the disk is full" : "storage failed", request.path);
}

}  // namespace necrocode::net
