// How the pool manager says no: errors that name its service. Nothing is decided here.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "necrocode/base/errors.hpp"

namespace necrocode::pool {

inline constexpr const char* kServiceName = "repo-pool";

/// Throws an `Error` about `target`.
template <class Error>
[[noreturn]] void fail(const std::string& summary, const std::string& target = {}) {
  ErrorInfo info;
  info.service = kServiceName;
  info.target = target;
  throw Error(summary, std::move(info));
}

/// An `Error` to hand over.
template <class Error>
std::exception_ptr failure(const std::string& summary, const std::string& detail = {}) {
  ErrorInfo info;
  info.service = kServiceName;
  info.detail = detail;
  return std::make_exception_ptr(Error(summary, std::move(info)));
}

/// A TaskContextValidationError about the field at `pointer`.
std::exception_ptr invalid(const std::string& pointer, const std::string& message);

/// What an error says, for the log and for a quarantined slot.
std::string words_of(const std::exception_ptr& error);

}  // namespace necrocode::pool
