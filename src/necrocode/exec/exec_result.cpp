#include "necrocode/exec/exec_result.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::exec {
namespace {

double seconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

std::string_view end_name(process::CommandEnd end) {
  switch (end) {
    case process::CommandEnd::kExited:
      return "exited";
    case process::CommandEnd::kSignalled:
      return "signalled";
    case process::CommandEnd::kTimedOut:
      return "timed_out";
    case process::CommandEnd::kCancelled:
      return "cancelled";
  }
  return "";
}

Json program_json(const ProgramRound& program) {
  return Json::object({{"name", program.name},
                       {"end", end_name(program.end)},
                       {"exit_code", program.exit_code},
                       {"signal", program.signal},
                       {"limit_reached", program.limit_reached},
                       {"output_bytes", program.output_bytes},
                       {"duration_seconds", seconds(program.duration)},
                       {"peak_memory_bytes", program.usage.peak_memory_bytes},
                       {"peak_processes", program.usage.peak_processes},
                       {"cpu_seconds", seconds(program.usage.cpu_time)}});
}

Json provider_json(const llm::Metered& provider) {
  llm::Usage usage = provider.usage;
  if (usage.empty()) usage.cost_usd = 0;  // nothing needs no price
  Json json = Json::object({{"calls", provider.calls},
                            {"refused", provider.refused},
                            {"usage", usage.to_json()},
                            {"class", provider.last ? Json(to_string(provider.last->how)) : Json()},
                            {"failure", Json()}});
  if (provider.failure) {
    json.set("failure", Json::object({{"class", to_string(provider.failure->how)},
                                      {"status", provider.failure->status},
                                      {"detail", provider.failure->detail}}));
  }
  return json;
}

Json commits_json(const TakenCommits& commits) {
  return Json::object({{"branch", commits.branch},
                       {"from", commits.from},
                       {"to", commits.to},
                       {"count", commits.count},
                       {"moved_aside", commits.moved_aside}});
}

// The failure class of run results (docs/registry.md) that a scheduler decides by.
std::string failure_class_of(llm::ExchangeClass how) {
  switch (how) {
    case llm::ExchangeClass::kQuota:
    case llm::ExchangeClass::kCap:
    case llm::ExchangeClass::kRate:
      return "quota";
    case llm::ExchangeClass::kContext:
    case llm::ExchangeClass::kRequest:
    case llm::ExchangeClass::kProtocol:
      return "agent";
    default:
      return "infrastructure";
  }
}

// The detail has the status and the service's words, or ours.
Verdict verdict_of(const llm::ExchangeReport& failure) {
  std::string reason = failure.how == llm::ExchangeClass::kCap
                           ? "no more may be spent"
                           : "the model: " + std::string(to_string(failure.how));
  if (!failure.detail.empty()) reason += ": " + failure.detail;
  return {exit_code_of(failure.how), std::move(reason), failure_class_of(failure.how)};
}

}  // namespace

Json ExecResult::to_json() const {
  Json json =
      Json::object({{"type", "result"},
                    {"schema", 1},
                    {"success", exit_code == ExitCode::kDone},
                    {"outcome", runner::outcome_of(exit_code)},
                    {"exit_code", static_cast<int>(exit_code)},
                    {"run_id", run_id},
                    {"phase", to_string(phase)},
                    {"duration_seconds", seconds(duration)},
                    {"sandbox", Json::object({{"name", sandbox}, {"missing", sandbox_missing}})}});
  json.set("program", program ? program_json(*program) : Json());
  json.set("repairs", repairs);
  json.set("provider", provider_json(provider));
  json.set("files", runner::files_json(files));
  json.set("commits", commits ? commits_json(*commits) : Json());
  json.set("tests_changed", tests_changed);
  json.set("protected_restored", protected_restored);
  json.set("git_put_back", git_put_back);
  json.set("tests", tests ? tests->to_json(2 * limits::kKiB) : Json());
  json.set("push", push ? runner::to_json(*push) : Json());
  json.set("artifacts", runner::artifacts_json(artifacts));
  json.set("error", failure ? runner::to_json(*failure) : Json());
  return json;
}

ExitCode exit_code_of(llm::ExchangeClass failure) {
  switch (failure) {
    case llm::ExchangeClass::kAuth:
    case llm::ExchangeClass::kQuota:
    case llm::ExchangeClass::kCap:
      return ExitCode::kModelRefused;
    case llm::ExchangeClass::kContext:
    case llm::ExchangeClass::kRequest:
    case llm::ExchangeClass::kProtocol:
      return ExitCode::kModelUnusable;
    default:
      return ExitCode::kModelUnavailable;
  }
}

std::optional<Verdict> verdict_of(const process::CommandResult& program,
                                  const llm::Metered& provider, bool changed) {
  switch (agent::judge(program, provider, changed)) {
    case agent::RoundEnd::kLimit:
      return Verdict{ExitCode::kResourceLimit, "the program " + program.limit_reached, "agent"};
    case agent::RoundEnd::kModel:
      return verdict_of(*provider.failure);
    case agent::RoundEnd::kTime:
      return Verdict{ExitCode::kTaskTimeout, "the program's time ran out", "agent"};
    case agent::RoundEnd::kTests:
      break;
  }
  return std::nullopt;
}

std::string_view script_of(std::string_view command) {
  constexpr std::array<std::string_view, 10> kInterpreters = {
      "sh", "bash", "dash", "zsh", "python", "python3", "node", "ruby", "perl", "php"};
  for (std::string_view word : split(command, ' ')) {
    if (word.empty() || word.starts_with('-')) continue;
    if (std::find(kInterpreters.begin(), kInterpreters.end(), word) != kInterpreters.end()) {
      continue;
    }
    while (word.starts_with("./")) word.remove_prefix(2);
    return word;
  }
  return {};
}

bool is_test_like(std::string_view path, const std::vector<std::string>& commands) {
  constexpr std::array<std::string_view, 6> kFolders = {"test", "tests",     "testing",
                                                        "spec", "__tests__", "testdata"};
  const auto parts = split(path, '/');
  const std::string name = ascii_lower(parts.back());
  const bool in_folder = std::any_of(parts.begin(), parts.end() - 1, [&](std::string_view part) {
    return std::find(kFolders.begin(), kFolders.end(), ascii_lower(part)) != kFolders.end();
  });
  if (in_folder || name.starts_with("test_") || name.starts_with("test-") ||
      name.starts_with("test.") || name == "conftest.py" || name == "pytest.ini" ||
      name == "tox.ini") {
    return true;
  }
  const std::string stem = name.substr(0, name.find_last_of('.'));
  for (const std::string_view ending : {"_test", "_tests", "-test", ".test", ".spec", "_spec"}) {
    if (stem.ends_with(ending)) return true;
  }
  // FooTest.java, FooTests.cs
  const std::string_view own = parts.back();
  const std::string_view own_stem = own.substr(0, own.find_last_of('.'));
  if (own_stem.ends_with("Test") || own_stem.ends_with("Tests")) return true;
  return std::any_of(commands.begin(), commands.end(),
                     [&](const std::string& command) { return script_of(command) == path; });
}

}  // namespace necrocode::exec
