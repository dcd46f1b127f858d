// What happens in a run, as it happens: docs/run-events.md has the types and their members.
#pragma once

#include <functional>
#include <string>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/json.hpp"

namespace necrocode::runner {

struct RunEvent {
  std::string type;
  std::string task_id;
  Json data;
  /// {"type","schema":1,"time","task_id", …data}
  Json to_json(SystemTime now) const;
};

/// Called while the run waits, one event at a time; must be quick. One that throws is not called
/// again.
using RunObserver = std::function<void(const RunEvent&)>;

}  // namespace necrocode::runner
