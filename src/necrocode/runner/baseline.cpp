#include "necrocode/runner/baseline.hpp"

#include <map>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

/// kJunitCases titles of three names each, escaped.
constexpr std::size_t kFileBytes = 64 * limits::kMiB;
constexpr std::size_t kCasesTold = 5;

void drop_fail_fast(std::vector<PlaybookStep>& steps) {
  for (PlaybookStep& step : steps) {
    step.fail_fast = false;
    drop_fail_fast(step.parallel);
    drop_fail_fast(step.otherwise);
  }
}

}  // namespace

RedSteps red_steps(const TestReport& at_base) {
  RedSteps red;
  for (const TestCommandResult& command : at_base.commands) {
    if (!command.last || command.passed() || command.round_over) continue;
    std::optional<std::vector<std::string>>& cases = red[command.step];
    if (!command.has_all_cases()) continue;
    cases.emplace();
    for (const TestCase& one : command.cases) {
      if (one.failed()) cases->push_back(one.title());
    }
  }
  return red;
}

std::vector<const TestCase*> new_failures(const std::optional<std::vector<std::string>>& before,
                                          const TestCommandResult& now) {
  std::map<std::string, std::size_t> known;  // several cases may share a title
  if (before) {
    for (const std::string& title : *before) ++known[title];
  }
  std::vector<const TestCase*> fresh;
  for (const TestCase& one : now.cases) {
    if (!one.failed()) continue;
    const auto found = known.find(one.title());
    if (found == known.end() || found->second == 0) {
      fresh.push_back(&one);
    } else {
      --found->second;
    }
  }
  return fresh;
}

std::string worse_than(const std::optional<std::vector<std::string>>& before,
                       const TestCommandResult& now) {
  if (!before) return {};
  if (!now.has_all_cases()) return "before the change it reported its test cases, now it does not";
  const std::vector<const TestCase*> fresh = new_failures(before, now);
  if (fresh.empty()) return {};
  std::vector<std::string> titles;
  for (const TestCase* one : fresh) {
    if (titles.size() < kCasesTold) titles.push_back(one->title());
  }
  if (fresh.size() > kCasesTold) titles.emplace_back("…");
  return std::to_string(fresh.size()) + " test " +
         (fresh.size() == 1 ? "case fails" : "cases fail") +
         " that did not before: " + join(titles, "; ");
}

Playbook without_fail_fast(Playbook playbook) {
  drop_fail_fast(playbook.steps);
  return playbook;
}

std::optional<RedSteps> read_baseline(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return std::nullopt;
  const Json kept = Json::try_parse(read_file(file, kFileBytes)).value_or(Json());
  if (!kept["red_steps"].is_array()) return std::nullopt;
  RedSteps red;
  for (const Json& step : kept["red_steps"].items()) {
    auto& cases = red[step["step"].string_or("")];
    if (!step["failed_cases"].is_array()) continue;
    cases.emplace();
    for (const Json& title : step["failed_cases"].items()) cases->push_back(title.string_or(""));
  }
  return red;
}

void keep_baseline(const std::filesystem::path& file, const RedSteps& red) {
  Json steps = Json::array();
  for (const auto& [step, cases] : red) {
    steps.push_back(
        Json::object({{"step", step}, {"failed_cases", cases ? Json(*cases) : Json()}}));
  }
  std::filesystem::create_directories(file.parent_path());
  write_file_atomic(file, Json::object({{"red_steps", std::move(steps)}}).dump(), 0600);
}

}  // namespace necrocode::runner
