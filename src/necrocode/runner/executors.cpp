#include "necrocode/runner/executors.hpp"

#include "necrocode/base/text.hpp"

namespace necrocode::runner {

config::ExecutorChain Executors::chain_of(const TaskContext& task) const {
  config::ExecutorChain chain = task.executor.empty() ? configured(task) : task.executor;
  std::vector<std::string> known;
  for (const auto& [name, make] : makers_) known.push_back(name);
  for (std::string& name : chain) {
    const bool usual_agent = name == "command";
    if (usual_agent) name += ":" + choices_.agent;
    if (makers_.contains(name)) continue;
    const std::string problem = usual_agent && choices_.agent.empty()
                                    ? "\"command\" needs a configured agent (the setting `agent`)"
                                    : "\"" + printable(name) + "\" is not known";
    ErrorInfo info;
    info.fields.push_back({"/executor", problem + "; known are " + join(known, ", ")});
    throw TaskContextValidationError("invalid task", std::move(info));
  }
  return chain;
}

const config::ExecutorChain& Executors::configured(const TaskContext& task) const {
  const auto spec = choices_.by_spec.find(std::string(task.task_id.spec()));
  if (spec != choices_.by_spec.end()) return spec->second;
  const auto skill = choices_.by_skill.find(task.required_skill);
  return skill != choices_.by_skill.end() ? skill->second : choices_.usual;
}

}  // namespace necrocode::runner
