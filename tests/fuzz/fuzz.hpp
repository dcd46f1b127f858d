// What the fuzz targets share: a check that ends the process, and bytes that are cut as the input
// says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#define FUZZ_CHECK(condition)       \
  do {                              \
    if (!(condition)) std::abort(); \
  } while (false)

namespace necrocode::test {

/// The first byte tells how long the pieces are into which the rest is cut.
template <class Take>
void in_pieces(std::string_view input, const Take& take) {
  if (input.empty()) return;
  const std::size_t size = 1 + static_cast<unsigned char>(input.front()) % 64;
  input.remove_prefix(1);
  while (!input.empty()) {
    const std::string_view piece = input.substr(0, size);
    if (!take(piece)) return;
    input.remove_prefix(piece.size());
  }
}

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace necrocode::test
