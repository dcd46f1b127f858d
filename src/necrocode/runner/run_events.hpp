// What happens in a run, as it happens: one event a phase, model call, test, artifact and end.
// The same event goes to the JSON lines of `--json`, the progress line, and the registry.
#pragma once

#include <functional>
#include <string>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/json.hpp"

namespace necrocode::runner {

struct RunEvent {
  std::string type;  ///< phase, model_call, change, test, commit, push, artifact, warning, result
  std::string task_id;
  Json data;
  /// {"type","schema":1,"time","task_id", …data}
  Json to_json(SystemTime now) const;
};

/// Called on the run's thread; must be quick and must not throw.
using RunObserver = std::function<void(const RunEvent&)>;

}  // namespace necrocode::runner
