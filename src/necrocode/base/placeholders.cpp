#include "necrocode/base/placeholders.hpp"

#include <algorithm>

#include "necrocode/base/check.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode {

std::optional<std::string> placeholder_defect(std::string_view text,
                                              const std::vector<std::string>& names) {
  for (std::size_t at = text.find_first_of("{}"); at != std::string_view::npos;
       at = text.find_first_of("{}", at + 1)) {
    const std::size_t end = text.find_first_of("{}", at + 1);
    if (text[at] == '}' || end == std::string_view::npos || text[end] != '}') {
      return "has a brace at byte " + std::to_string(at + 1) + " that belongs to no {name}";
    }
    const std::string name(text.substr(at + 1, end - at - 1));
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      return "names {" + printable(name) + "}; known are {" + join(names, "}, {") + "}";
    }
    at = end;
  }
  return std::nullopt;
}

std::string fill_placeholders(std::string_view text,
                              const std::vector<std::pair<std::string, std::string>>& values) {
  std::string filled;
  while (true) {
    const std::size_t begin = text.find('{');
    filled += text.substr(0, begin);
    if (begin == std::string_view::npos) return filled;
    const std::size_t end = text.find('}', begin);
    NECROCODE_CHECK(end != std::string_view::npos);
    const std::string_view name = text.substr(begin + 1, end - begin - 1);
    const auto value = std::find_if(values.begin(), values.end(),
                                    [name](const auto& known) { return known.first == name; });
    NECROCODE_CHECK(value != values.end());
    filled += value->second;
    text.remove_prefix(end + 1);
  }
}

}  // namespace necrocode
