// What `run` and `exec` have in common: from the first signal that is watched to the exit code.
#pragma once

#include <exception>

#include "allocator.hpp"
#include "necrocode/base/exit_code.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {

/// `one` has execute(context) and, for what that throws, fail_early(error), which give a result
/// with exit_code and to_json(); and show(result), for people.
template <class One>
int conduct(One& one, RunOutput& output, bool json) {
  StopOnSignal signals;
  keep_no_freed_memory();
  decltype(one.execute(signals.context())) result;
  bool began = true;
  try {
    result = one.execute(signals.context());
  } catch (const std::exception& error) {
    began = false;
    result = one.fail_early(error);
  }
  if (json) {
    output.print_json_line(result.to_json());
  } else if (began) {
    one.show(result);
  }
  // Else the run's own exit code says more.
  if (result.exit_code == ExitCode::kDone) output.finish();
  return static_cast<int>(result.exit_code);
}

}  // namespace necrocode::app
