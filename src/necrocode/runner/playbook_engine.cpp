#include "necrocode/runner/playbook_engine.hpp"

#include <algorithm>
#include <exception>
#include <thread>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

class Engine {
 public:
  Engine(Json values, const FailedBefore& failed_before, const RunStep& run,
         std::vector<StepReport>& reports)
      : values_(std::move(values)), failed_before_(failed_before), run_(run), reports_(reports) {}

  void expect(const std::vector<PlaybookStep>& steps) {
    for (const PlaybookStep& step : steps) {
      tell({step.name, true, false, 0});
      expect(step.otherwise);
      expect(step.parallel);
    }
  }

  /// False when a failure has ended the playbook.
  bool run_all(const std::vector<PlaybookStep>& steps) {
    return std::all_of(steps.begin(), steps.end(),
                       [this](const PlaybookStep& step) { return run_step(step); });
  }

 private:
  bool run_step(const PlaybookStep& step) {
    if (!wanted(step)) {
      note({step.name, true, false, 0});
      return run_all(step.otherwise);
    }
    if (!step.parallel.empty()) return run_group(step);
    StepReport report{step.name, false, false, 0};
    try {
      run_attempts(step, true, report);
    } catch (...) {
      note(report);
      throw;
    }
    judge(step, report);
    note(report);
    return report.passed || report.known_red || !step.fail_fast;
  }

  // All are begun, and all end, whatever becomes of one of them.
  bool run_group(const PlaybookStep& group) {
    std::vector<const PlaybookStep*> chosen;
    for (const PlaybookStep& step : group.parallel) {
      if (wanted(step)) {
        chosen.push_back(&step);
      } else {
        note({step.name, true, false, 0});
      }
    }
    std::vector<StepReport> ends(chosen.size());
    std::vector<std::exception_ptr> thrown(chosen.size());
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < chosen.size(); ++i) {
        ends[i].name = chosen[i]->name;
        threads.emplace_back([&, i] {
          try {
            run_attempts(*chosen[i], chosen.size() == 1, ends[i]);
          } catch (...) {
            thrown[i] = std::current_exception();
          }
        });
      }
    }
    bool goes_on = true;
    bool all = !chosen.empty();
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      judge(*chosen[i], ends[i]);
      note(ends[i]);
      all = all && ends[i].passed;
      if (!ends[i].passed && !ends[i].known_red && chosen[i]->fail_fast) goes_on = false;
    }
    for (const std::exception_ptr& error : thrown) {
      if (error) std::rethrow_exception(error);
    }
    tell({group.name, chosen.empty(), all, 1});
    return goes_on || !group.fail_fast;
  }

  void run_attempts(const PlaybookStep& step, bool alone, StepReport& report) const {
    const StepCommand command = prepare(step, alone);
    while (!report.passed && report.attempts <= step.retry_count) {
      StepCommand attempt = command;
      attempt.attempt = ++report.attempts;
      report.passed = run_(attempt);
    }
  }

  StepCommand prepare(const PlaybookStep& step, bool alone) const {
    return named(step, [&] {
      StepCommand command;
      command.name = step.name;
      command.shell = step.command.fill_shell(values_, command.env);
      for (const auto& [name, text] : step.env) {
        command.env.push_back(name + "=" + text.fill(values_));
      }
      command.working_directory = step.working_directory;
      command.junit = step.junit;
      command.timeout = step.timeout;
      command.alone = alone;
      command.retry_cut_off = step.retry_cut_off;
      return command;
    });
  }

  /// What cannot be told has failed: a report without this step would look as if all had passed.
  bool wanted(const PlaybookStep& step) {
    try {
      return named(step, [&] { return !step.condition || step.condition->holds(values_); });
    } catch (...) {
      note({step.name, false, false, 0});
      throw;
    }
  }

  /// What is wrong is told with the step's name.
  template <class Work>
  static auto named(const PlaybookStep& step, Work work) -> decltype(work()) {
    try {
      return work();
    } catch (const PlaybookExecutionError& error) {
      throw PlaybookExecutionError("step \"" + printable(step.name) + "\": " + error.summary());
    }
  }

  void judge(const PlaybookStep& step, StepReport& report) const {
    report.known_red =
        !report.passed && !step.target && failed_before_ && failed_before_(step.name);
  }

  void note(const StepReport& report) {
    reports_.push_back(report);
    tell(report);
  }

  void tell(const StepReport& report) {
    Json steps = values_["steps"].is_object() ? values_["steps"] : Json::object();
    steps.set(step_key(report.name),
              Json::object({{"passed", report.passed}, {"skipped", report.skipped}}));
    values_.set("steps", std::move(steps));
  }

  Json values_;
  const FailedBefore& failed_before_;
  const RunStep& run_;
  std::vector<StepReport>& reports_;
};

}  // namespace

void run_playbook(const Playbook& playbook, Json values, const FailedBefore& failed_before,
                  const RunStep& run, std::vector<StepReport>& reports) {
  reports.clear();
  Engine engine(std::move(values), failed_before, run, reports);
  engine.expect(playbook.steps);
  engine.run_all(playbook.steps);
}

bool any_ran(const std::vector<StepReport>& reports) {
  return std::any_of(reports.begin(), reports.end(),
                     [](const StepReport& report) { return !report.skipped; });
}

bool all_passed(const std::vector<StepReport>& reports) {
  return std::any_of(reports.begin(), reports.end(),
                     [](const StepReport& report) { return report.passed; }) &&
         std::all_of(reports.begin(), reports.end(), [](const StepReport& report) {
           return report.skipped || report.passed || report.known_red;
         });
}

}  // namespace necrocode::runner
