// Base64 (RFC 4648 section 4), padded.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace necrocode {

std::string base64_encode(std::string_view bytes);
/// Nothing when malformed; padding is required.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace necrocode
