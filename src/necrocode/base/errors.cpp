#include "necrocode/base/errors.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "necrocode/base/check.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode {
namespace {

std::string compose(const std::string& summary, const ErrorInfo& info) {
  std::string text = summary;
  std::string fields;
  const auto add = [&fields](std::string_view name, const std::string& value) {
    if (value.empty()) return;
    if (!fields.empty()) fields += ", ";
    fields.append(name).append("=").append(value);
  };
  add("service", info.service);
  add("operation", info.operation);
  add("target", info.target);
  if (info.status != 0) add("status", std::to_string(info.status));
  if (info.attempts != 0) add("attempts", std::to_string(info.attempts));
  if (info.end != CallEnd::kNone) add("end", std::string(to_string(info.end)));
  add("request_id", info.request_id);
  if (!fields.empty()) text += " (" + fields + ")";
  if (!info.detail.empty()) text += ": " + info.detail;
  for (const FieldError& field : info.fields) {
    text +=
        "; " + (field.pointer.empty() ? std::string("/") : field.pointer) + ": " + field.message;
  }
  return printable(text);  // whatever the other side said, it stays one line
}

}  // namespace

std::string_view to_string(CallEnd end) {
  switch (end) {
    case CallEnd::kNone:
      return "none";
    case CallEnd::kPermanent:
      return "permanent";
    case CallEnd::kExhausted:
      return "exhausted";
    case CallEnd::kDeadline:
      return "deadline";
    case CallEnd::kCancelled:
      return "cancelled";
    case CallEnd::kBreakerOpen:
      return "breaker-open";
  }
  return "none";
}

RunnerError::RunnerError(const std::string& summary, ErrorInfo info)
    : std::runtime_error(compose(summary, info)), summary_(summary), info_(std::move(info)) {}

void throw_errno(std::string_view what, std::string_view path) {
  const std::error_code code(errno, std::generic_category());
  std::string text(what);
  if (!path.empty()) text.append(" ").append(path);
  ErrorInfo info;
  info.cause = std::make_exception_ptr(std::system_error(code));
  throw StorageError(text + ": " + code.message(), std::move(info));
}

bool is_disk_full(const StorageError& error) {
  if (!error.info().cause) return false;
  try {
    std::rethrow_exception(error.info().cause);
  } catch (const std::system_error& cause) {
    return cause.code() == std::errc::no_space_on_device || cause.code().value() == EDQUOT;
  } catch (...) {
    return false;
  }
}

namespace detail {
void check_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "necrocode: broken invariant %s at %s:%d\n", expression, file, line);
  std::abort();
}
}  // namespace detail

}  // namespace necrocode
