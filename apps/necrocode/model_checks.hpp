// What `llm check` asks of a model endpoint: does it let us in, does it answer, and what of that
// which runs use does it know.
#pragma once

#include <string>
#include <vector>

#include "necrocode/base/call_context.hpp"
#include "necrocode/llm/client.hpp"

namespace necrocode::app {

struct ModelCheck {
  std::string name;  ///< models, answer, usage, stream, json_schema, tools
  bool ok = false;
  bool required = false;  ///< without it no run works; what else is missing, runs do without
  std::string detail;     ///< what was seen, or why not
};

/// Up to five short calls, each at most a few hundred tokens. Never throws for an endpoint that
/// fails; after a failed answer nothing more is asked.
std::vector<ModelCheck> check_model(LLMClient& client, const CallContext& context);

}  // namespace necrocode::app
