#include "size_options.hpp"

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::app {

std::uint64_t read_size(const std::string& flag, const std::string& text) {
  std::string_view number = text;
  std::uint64_t unit = 0;
  if (!number.empty()) {
    switch (number.back()) {
      case 'k':
      case 'K':
        unit = limits::kKiB;
        break;
      case 'm':
      case 'M':
        unit = limits::kMiB;
        break;
      case 'g':
      case 'G':
        unit = limits::kGiB;
        break;
      default:
        break;
    }
    number.remove_suffix(1);
  }
  const auto count = parse_uint(number);
  if (unit == 0 || !count || *count == 0 || *count > UINT64_MAX / unit) {
    throw ConfigError(flag + " must be a size such as 512m or 2g, not \"" +
                      printable(shorten(text, 100)) + "\"");
  }
  return *count * unit;
}

}  // namespace necrocode::app
