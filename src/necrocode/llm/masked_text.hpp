// What services and clients said, without secrets, so that it can be kept.
#pragma once

#include <string>
#include <string_view>

#include "necrocode/base/json.hpp"
#include "necrocode/base/masking.hpp"

namespace necrocode::llm {

/// Text by text, names too, so that what was JSON stays JSON.
Json masked(const Json& value, const Masker& masker);
/// The same of a body, which may be none.
std::string masked_body(std::string_view body, const Masker& masker);
/// Whether an event stream that is kept as it came has a secret in pieces, which masking cannot
/// see.
bool holds_secret_in_pieces(std::string_view stream, const Masker& masker);

}  // namespace necrocode::llm
