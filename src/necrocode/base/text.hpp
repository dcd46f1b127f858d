// Small questions about text, answered once. Locale-free; bytes unless a name says UTF-8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace necrocode {

constexpr bool is_ascii_digit(char c) {
  return c >= '0' && c <= '9';
}
constexpr bool is_ascii_alnum(char c) {
  return is_ascii_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
constexpr char ascii_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
std::string ascii_lower(std::string_view text);
bool iequals(std::string_view a, std::string_view b);
/// Without spaces, tabs, CR and LF at both ends.
std::string_view trim(std::string_view text);
std::vector<std::string_view> split(std::string_view text, char separator);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
std::string replace_all(std::string text, std::string_view from, std::string_view to);

/// A whole decimal number without sign, or nothing (overflow included).
std::optional<std::uint64_t> parse_uint(std::string_view text);
std::optional<std::int64_t> parse_int(std::string_view text);
/// A finite decimal number, or nothing.
std::optional<double> parse_double(std::string_view text);

std::string to_hex(std::string_view bytes);
/// Everything but unreserved characters (RFC 3986 section 2.3) as %XX; one path segment or query
/// value.
std::string percent_encode(std::string_view text);
/// Nothing when an escape is malformed. `plus_is_space` for query values.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);

/// True for well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms).
bool is_utf8(std::string_view text);
/// Malformed bytes become U+FFFD; always well-formed afterwards.
std::string to_valid_utf8(std::string_view text);
/// At most `bytes` bytes, cut at a character's border, with "…" when cut.
std::string shorten(std::string_view text, std::size_t bytes);
/// The head and the tail, with "\n… N bytes left out …\n" between, when longer than `bytes`.
std::string head_and_tail(std::string_view text, std::size_t bytes);
/// The one of `known` that takes the fewest edits (insert, remove, replace) to become; "" of none.
std::string nearest(std::string_view word, const std::vector<std::string>& known);
/// Safe on a terminal and on one line: control characters and bidi overrides as visible escapes.
std::string printable(std::string_view text);
/// Lower-case words joined by '-', ASCII letters and digits only, at most `bytes`; may be empty.
std::string slugify(std::string_view text, std::size_t bytes);

}  // namespace necrocode
