#include "necrocode/config/executor_chain.hpp"

#include <algorithm>

#include "necrocode/base/text.hpp"

namespace necrocode::config {
namespace {

constexpr std::size_t kExecutors = 8;  // more than one task has time for

bool is_executor(std::string_view name) {
  constexpr std::string_view kCommand = "command:";
  if (name == "llm" || name == "command") return true;
  return name.starts_with(kCommand) && name.size() > kCommand.size() &&
         name.size() <= kCommand.size() + limits::kNameBytes &&
         name.find_first_of(" \t\r\n:", kCommand.size()) == std::string_view::npos;
}

}  // namespace

ExecutorChain read_executor_chain(const Json& value, std::string& problem) {
  constexpr const char* kForm =
      "must be \"llm\", \"command\" or \"command:AGENT\", or several of them with commas between";
  problem.clear();
  ExecutorChain chain;
  if (const auto text = value.as_string()) {
    for (const std::string_view name : split(*text, ',')) chain.emplace_back(trim(name));
  } else if (value.is_array()) {
    for (const Json& name : value.items()) chain.push_back(name.string_or(""));
  } else {
    problem = std::string(kForm) + ", not " + std::string(value.type_name());
    return chain;
  }
  for (const std::string& name : chain) {
    if (is_executor(name)) continue;
    problem = std::string(kForm) + ", not \"" + printable(shorten(name, 100)) + "\"";
    return chain;
  }
  if (chain.empty()) problem = kForm;
  if (chain.size() > kExecutors) {
    problem = "must not name more than " + std::to_string(kExecutors) + " executors";
  }
  return chain;
}

}  // namespace necrocode::config
