#include "necrocode/runner/baseline.hpp"

#include <algorithm>
#include <map>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

/// kJunitCases titles of three names each, escaped.
constexpr std::size_t kFileBytes = 64 * limits::kMiB;
constexpr std::size_t kCasesTold = 5;

void look_at_each(std::vector<PlaybookStep>& steps) {
  for (PlaybookStep& step : steps) {
    step.fail_fast = false;
    step.retry_cut_off = step.retry_count > 0;
    step.retry_count = std::max(step.retry_count, 1);
    look_at_each(step.parallel);
    look_at_each(step.otherwise);
  }
}

}  // namespace

RedSteps red_steps(const TestReport& at_base) {
  RedSteps red;
  for (const TestCommandResult& command : at_base.commands) {
    if (!command.last || command.passed() || command.round_over) continue;
    RedStep& step = red[command.step];
    step.cut_off = command.cut_off();
    if (!command.has_all_cases()) continue;
    step.all_cases = command.cases.size();
    step.failed_cases.emplace();
    for (const TestCase& one : command.cases) {
      if (one.failed()) step.failed_cases->push_back(one.title());
    }
  }
  return red;
}

std::vector<const TestCase*> new_failures(const RedStep& before, const TestCommandResult& now) {
  std::map<std::string, std::size_t> known;  // several cases may share a title
  if (before.failed_cases) {
    for (const std::string& title : *before.failed_cases) ++known[title];
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

std::string worse_than(const RedStep& before, const TestCommandResult& now) {
  if (now.cut_off() && !before.cut_off) return "before the change it came to its end";
  if (!before.failed_cases) return {};
  if (!now.has_all_cases()) return "before the change it reported its test cases, now it does not";
  if (now.cases.size() < before.all_cases) {
    return "before the change it ran " + std::to_string(before.all_cases) + " test cases, now " +
           std::to_string(now.cases.size());
  }
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

Playbook baseline_of(Playbook playbook) {
  look_at_each(playbook.steps);
  return playbook;
}

std::optional<RedSteps> read_baseline(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return std::nullopt;
  const Json kept = Json::try_parse(read_file(file, kFileBytes)).value_or(Json());
  if (!kept["red_steps"].is_array()) return std::nullopt;
  RedSteps red;
  for (const Json& step : kept["red_steps"].items()) {
    RedStep& known = red[step["step"].string_or("")];
    known.cut_off = step["cut_off"].as_bool().value_or(false);
    if (!step["failed_cases"].is_array()) continue;
    known.all_cases = static_cast<std::size_t>(step["all_cases"].as_int().value_or(0));
    known.failed_cases.emplace();
    for (const Json& title : step["failed_cases"].items()) {
      known.failed_cases->push_back(title.string_or(""));
    }
  }
  return red;
}

void keep_baseline(const std::filesystem::path& file, const RedSteps& red) {
  Json steps = Json::array();
  for (const auto& [name, step] : red) {
    steps.push_back(
        Json::object({{"step", name},
                      {"failed_cases", step.failed_cases ? Json(*step.failed_cases) : Json()},
                      {"all_cases", step.all_cases},
                      {"cut_off", step.cut_off}}));
  }
  std::filesystem::create_directories(file.parent_path());
  write_file_atomic(file, Json::object({{"red_steps", std::move(steps)}}).dump(), 0600);
}

}  // namespace necrocode::runner
