// RunTeller: tells those who watch what happens in a run (docs/run-events.md), and the log what of
// it is worth a line. Nobody who watches can disturb the run.
#pragma once

#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>

#include "necrocode/base/masking.hpp"
#include "necrocode/llm/model.hpp"
#include "necrocode/runner/run_events.hpp"
#include "necrocode/runner/run_log.hpp"
#include "necrocode/runner/test_runner.hpp"

namespace necrocode::runner {

/// Thread-safe; the observer is called by one thread at a time. `observer`, `log` and `masker` live
/// longer.
class RunTeller {
 public:
  RunTeller(std::string task_id, const RunObserver& observer, RunLog& log, const Masker& masker)
      : task_id_(std::move(task_id)), observer_(observer), log_(log), masker_(masker) {}

  /// A full or closed output is told once, and then no more.
  void emit(const std::string& type, Json data);
  void warn(const std::string& message);
  /// `run_usage`: of the run so far; `more`: model and usage of the answer, or the error.
  void model_call(int attempts, const llm::Usage& run_usage,
                  std::initializer_list<JsonMember> more);
  /// Nothing when `count` is 0 or less.
  void retries(std::string_view operation, int count);
  /// A test command has ended.
  void command(const TestCommandResult& command);
  /// The round of them, and what was warned of.
  void tests(const TestReport& report);

 private:
  std::string task_id_;
  const RunObserver& observer_;
  RunLog& log_;
  const Masker& masker_;
  std::mutex mutex_;
  bool observer_failed_ = false;  // guarded by mutex_
};

}  // namespace necrocode::runner
