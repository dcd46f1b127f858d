// The one question that generate_code() asks, whatever the task: the system prompt and the schema
// of the answer. Its reader is parse_code_changes().
#pragma once

#include <string_view>

#include "necrocode/base/json.hpp"

namespace necrocode::llm {

/// Under 2 KB, so that it is cheap to send with every call.
std::string_view code_system_prompt();
/// In the subset that OpenAI calls strict: every property required, no others, null for "none".
Json code_change_schema();

}  // namespace necrocode::llm
