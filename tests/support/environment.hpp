// Numbers that whoever runs the tests may set: how often something is done, and with which seed.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "necrocode/base/text.hpp"

namespace necrocode::test {

inline std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? parse_uint(text).value() : otherwise;
}

}  // namespace necrocode::test
