// How a known secret may stand in a text.
#pragma once

#include <set>
#include <string>
#include <string_view>

namespace necrocode {

/// Raw, base64 (three alignments, also URL-safe), URL-encoded (as the usual encoders do it),
/// JSON-escaped, XML-escaped and hex.
void add_secret_forms(std::string_view secret, std::set<std::string>& forms);

}  // namespace necrocode
