// split_submissions(): what a file holds, in calls that a registry takes.
#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/registry/json_lines.hpp"

namespace necrocode::registry {
namespace {

/// Below limits::kHttpRequestBodyBytes, with room for the taskset's own fields.
constexpr std::size_t kBodyBytes = 6 * limits::kMiB;
/// Below limits::kJsonValues, for the same reason.
constexpr std::size_t kBodyValues = limits::kJsonValues * 9 / 10;
constexpr std::size_t kCycleNamed = 20;

std::size_t count_values(const Json& value) {
  std::size_t count = 1;
  for (const Json& item : value.items()) count += count_values(item);
  for (const auto& [name, item] : value.members()) count += count_values(item);
  return count;
}

class Splitter {
 public:
  explicit Splitter(const std::vector<Json>& tasksets) : tasksets_(tasksets) {
    ready_.resize(tasksets.size());
    for (std::size_t spec = 0; spec < tasksets.size(); ++spec) {
      for (const Json& task : tasksets[spec]["tasks"].items()) {
        ids_.emplace(id_of(spec, task["id"].string_or("")), nodes_.size());
        nodes_.push_back({&task, spec, 0, {}});
      }
    }
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      for (const Json& name : (*nodes_[i].task)["dependencies"].items()) {
        const auto parent = ids_.find(id_of(nodes_[i].spec, name.string_or("")));
        if (parent == ids_.end()) continue;  // perhaps in the registry already; it will say
        nodes_[parent->second].children.push_back(i);
        ++nodes_[i].open;
      }
    }
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].open == 0) ready_[nodes_[i].spec].insert(i);
    }
  }

  std::vector<Json> run() {
    std::size_t taken = 0;
    std::size_t spec = 0;
    while (taken < nodes_.size()) {
      if (ready_[spec].empty()) {
        close();
        const auto next = std::find_if(ready_.begin(), ready_.end(),
                                       [](const auto& waiting) { return !waiting.empty(); });
        if (next == ready_.end()) refuse_cycle();
        spec = static_cast<std::size_t>(next - ready_.begin());
      }
      take(*ready_[spec].begin());
      ++taken;
    }
    close();
    return std::move(submissions_);
  }

 private:
  struct Node {
    const Json* task;
    std::size_t spec;
    std::size_t open;  ///< dependencies that are not taken yet
    std::vector<std::size_t> children;
  };

  std::string id_of(std::size_t spec, const std::string& name) const {
    if (name.find(':') != std::string::npos) return name;
    return tasksets_[spec]["spec_name"].string_or("") + ":" + name;
  }

  void take(std::size_t index) {
    Node& node = nodes_[index];
    const std::size_t bytes = node.task->dump().size() + 1;
    const std::size_t values = count_values(*node.task);
    const std::size_t dependencies = (*node.task)["dependencies"].size();
    if (!chunk_.empty() && (chunk_spec_ != node.spec || chunk_.size() == limits::kTasksPerSubmit ||
                            bytes_ + bytes > kBodyBytes || values_ + values > kBodyValues ||
                            dependencies_ + dependencies > limits::kDependenciesPerSubmit)) {
      close();
    }
    chunk_spec_ = node.spec;
    bytes_ += bytes;
    values_ += values;
    dependencies_ += dependencies;
    chunk_.push_back(index);
    ready_[node.spec].erase(index);
    for (const std::size_t child : node.children) {
      if (--nodes_[child].open == 0) ready_[nodes_[child].spec].insert(child);
    }
  }

  void close() {
    if (chunk_.empty()) return;
    std::sort(chunk_.begin(), chunk_.end());  // as in the file; within a call any order will do
    Json tasks = Json::array();
    for (const std::size_t index : chunk_) tasks.push_back(*nodes_[index].task);
    const Json& taskset = tasksets_[chunk_spec_];
    Json submission = Json::object();
    for (const auto& [name, value] : taskset.members()) {
      submission.set(name, name == "tasks" ? std::move(tasks) : value);
    }
    submissions_.push_back(std::move(submission));
    chunk_.clear();
    bytes_ = values_ = dependencies_ = 0;
  }

  // Every task that is left waits for another one that is left: going from one to what it waits
  // for comes back to where it was.
  [[noreturn]] void refuse_cycle() const {
    std::map<std::size_t, std::size_t> waits_for;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].open == 0) continue;
      for (const std::size_t child : nodes_[i].children) waits_for[child] = i;
    }
    std::size_t at = waits_for.begin()->first;
    for (std::size_t step = 0; step < nodes_.size(); ++step) at = waits_for.at(at);
    std::vector<std::string> names = {name_of(at)};
    for (std::size_t next = waits_for.at(at); next != at && names.size() < kCycleNamed;
         next = waits_for.at(next)) {
      names.push_back(name_of(next));
    }
    names.push_back(names.size() < kCycleNamed ? names.front() : "…");
    ErrorInfo info;
    info.fields.push_back({"dependencies", "form a cycle: " + join(names, " → ")});
    throw TaskContextValidationError("the tasks cannot be ordered", std::move(info));
  }

  std::string name_of(std::size_t index) const {
    return id_of(nodes_[index].spec, (*nodes_[index].task)["id"].string_or(""));
  }

  const std::vector<Json>& tasksets_;
  std::vector<Node> nodes_;
  std::unordered_map<std::string, std::size_t> ids_;
  std::vector<std::set<std::size_t>> ready_;  // of each taskset, the first in its order first
  std::vector<std::size_t> chunk_;
  std::size_t chunk_spec_ = 0;
  std::size_t bytes_ = 0;
  std::size_t values_ = 0;
  std::size_t dependencies_ = 0;
  std::vector<Json> submissions_;
};

}  // namespace

std::vector<Json> split_submissions(const std::vector<Json>& tasksets) {
  return Splitter(tasksets).run();
}

}  // namespace necrocode::registry
