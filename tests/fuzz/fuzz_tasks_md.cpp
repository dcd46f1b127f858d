// A plan of any bytes: read or refused with one error; ticked, only bytes of boxes change, and a
// second time none.
#include <algorithm>
#include <map>
#include <string>

#include "fuzz/fuzz.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/registry/tasks_md.hpp"

namespace {

using namespace necrocode;
using registry::TaskState;

std::map<std::string, registry::WantedBox> wanted_of(std::string_view text) {
  std::map<std::string, registry::WantedBox> wanted;
  try {
    const auto plan = registry::parse_tasks_md(text);
    FUZZ_CHECK(!plan.empty());
    for (const registry::MarkdownTask& task : plan) {
      FUZZ_CHECK(task.box_at < text.size());
      FUZZ_CHECK(text[task.box_at] == task.box || text[task.box_at] == 'X');
      const auto state = (task.title.size() + task.number.size()) % registry::kTaskStates.size();
      wanted[task.number] = {task.title, registry::kTaskStates[state]};
    }
    FUZZ_CHECK(wanted.size() == plan.size());
    const Json taskset = registry::to_taskset(plan, "s");
    FUZZ_CHECK(Json::parse(taskset.dump()) == taskset);
  } catch (const TaskContextValidationError& error) {
    FUZZ_CHECK(!error.info().fields.empty());
    // Some of its boxes may be ticked all the same.
    for (const char* number : {"1", "2", "1.1", "1.2", "3"}) {
      wanted[number] = {"A", TaskState::kDone};
    }
  }
  return wanted;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = test::as_text(data, size);
  const auto wanted = wanted_of(text);
  const registry::TickResult ticked = registry::tick_tasks_md(text, wanted);
  FUZZ_CHECK(ticked.text.size() == text.size());
  std::size_t changed = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (ticked.text[i] == text[i]) continue;
    ++changed;
    FUZZ_CHECK(ticked.text[i] == 'x' || ticked.text[i] == '-');
    FUZZ_CHECK(text[i] == ' ' || text[i] == '~' || text[i] == '-');
    FUZZ_CHECK(i > 0 && text[i - 1] == '[' && i + 1 < text.size() && text[i + 1] == ']');
  }
  FUZZ_CHECK(changed == ticked.changes.size());
  const registry::TickResult again = registry::tick_tasks_md(ticked.text, wanted);
  FUZZ_CHECK(again.changes.empty() && again.text == ticked.text);
  return 0;
}
