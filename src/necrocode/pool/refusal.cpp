#include "necrocode/pool/refusal.hpp"

namespace necrocode::pool {

std::exception_ptr invalid(const std::string& pointer, const std::string& message) {
  ErrorInfo info;
  info.service = kServiceName;
  info.fields = {{pointer, message}};
  return std::make_exception_ptr(
      TaskContextValidationError("the request cannot be met", std::move(info)));
}

std::string words_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const RunnerError& known) {
    return known.info().detail.empty() ? known.summary()
                                       : known.summary() + ": " + known.info().detail;
  } catch (const std::exception& other) {
    return other.what();
  }
}

}  // namespace necrocode::pool
