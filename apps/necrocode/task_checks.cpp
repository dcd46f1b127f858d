#include "task_checks.hpp"

#include "necrocode/base/errors.hpp"
#include "necrocode/runner/task_context.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

constexpr std::size_t kDefectsTold = 100;

}  // namespace

void check_tasks(const Json& taskset, const config::Config& config,
                 const std::function<std::string(std::size_t index)>& where) {
  runner::TaskDefaults defaults;
  defaults.timeout = std::chrono::seconds{config.default_timeout_seconds};
  defaults.test_timeout = std::chrono::seconds{config.test_timeout_seconds};
  ErrorInfo info;
  for (std::size_t i = 0; i < taskset["tasks"].size(); ++i) {
    const std::string place = where ? where(i) : "/tasks/" + std::to_string(i);
    Json task = taskset["tasks"].items()[i];
    if (!task.is_object()) {
      info.fields.push_back({place, "must be an object"});
      continue;
    }
    if (task["done"] == Json(true)) continue;  // no runner gets it
    std::string id_name = "id";
    for (const char* name : {"task_id", "number", "id"}) {
      if (!task[name].is_null()) id_name = name;
    }
    task.set("task_id", task[id_name]).set("spec_name", taskset["spec_name"]);
    task.erase("done");
    try {
      for (const std::string& warning : runner::read_task_context(task, defaults).warnings)
        note("necrocode: warning: " + place + ": " + warning);
    } catch (const TaskContextValidationError& error) {
      for (const FieldError& field : error.info().fields) {
        info.fields.push_back(
            {place + (field.pointer == "/task_id" ? "/" + id_name : field.pointer), field.message});
      }
    }
  }
  if (info.fields.empty()) return;
  if (info.fields.size() > kDefectsTold) {
    info.detail = std::to_string(info.fields.size() - kDefectsTold) + " more defects";
    info.fields.resize(kDefectsTold);
  }
  throw TaskContextValidationError("the taskset is invalid", std::move(info));
}

}  // namespace necrocode::app
