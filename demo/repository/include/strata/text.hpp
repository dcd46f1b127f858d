// Text: trimming, splitting, and numbers to text and back. Nothing here depends on the locale.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

/// The text without the ASCII white space at its two ends.
std::string_view trim(std::string_view text);

/// The pieces between separators; always one more than there are separators.
std::vector<std::string_view> split(std::string_view text, char separator);

/// The finite number that the whole text spells ("12", "-0.5", "1e3"), or nothing.
std::optional<double> parse_number(std::string_view text);

/// The shortest text that parse_number turns back into exactly this number.
std::string format_number(double number);

}  // namespace strata
