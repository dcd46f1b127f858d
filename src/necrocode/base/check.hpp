// NECROCODE_CHECK: a broken invariant of our own ends the process, in every build.
// Never for input, network, disk or any other thing the outside can cause: those throw.
#pragma once

namespace necrocode::detail {
[[noreturn]] void check_failed(const char* expression, const char* file, int line) noexcept;
}  // namespace necrocode::detail

#define NECROCODE_CHECK(expression) \
  ((expression) ? void(0) : ::necrocode::detail::check_failed(#expression, __FILE__, __LINE__))
