// necrocode task show, explain, attempts: all that is known of one task.
#include <algorithm>

#include "commands.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "runtime.hpp"
#include "task_rows.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

/// So many dependencies are looked up for a page; the others are counted.
constexpr std::size_t kDependenciesShown = 20;
constexpr std::size_t kLabelWidth = 13;
constexpr std::size_t kCommitShown = 12;

struct PageArguments {
  CommonOptions common;
  std::string id;
};

PageArguments arguments;

void print_field(const std::string& label, const std::string& shown) {
  if (shown.empty()) return;
  std::string line = label;
  line.append(kLabelWidth - std::min(kLabelWidth - 1, label.size()), ' ');
  print_line(line + shown);
}

/// Text as it is, a list with commas, anything else as JSON.
std::string field_text(const Json& value) {
  if (value.is_null()) return {};
  if (value.is_string()) return presentable(value.string_or(""));
  if (!value.is_array()) return presentable(value.dump());
  std::vector<std::string> parts;
  for (const Json& item : value.items()) {
    parts.push_back(presentable(item.is_string() ? item.string_or("") : item.dump()));
  }
  return join(parts, ", ");
}

void print_head(const registry::Task& task) {
  print_line(presentable(task.id) + "  " + presentable(task.fields["title"].string_or("")));
  const char* style = task.state == registry::TaskState::kDone     ? "good"
                      : task.state == registry::TaskState::kFailed ? "bad"
                                                                   : "warn";
  print_field("state", styled(style, to_string(task.state)));
  print_field("reason", reason_of(task));
  print_field("runner", presentable(task.runner_id));
  print_field("attempt", std::to_string(task.attempt));
  print_field("created", to_rfc3339(task.created_at));
  print_field("changed", to_rfc3339(task.updated_at));
  for (const auto& [label, name] : {std::pair{"priority", "priority"},
                                    {"labels", "labels"},
                                    {"skill", "required_skill"},
                                    {"provider", "provider"},
                                    {"touches", "touches"},
                                    {"repository", "repo_url"},
                                    {"base branch", "base_branch"},
                                    {"tests", "test_commands"}}) {
    print_field(label, field_text(task.fields[name]));
  }
  print_field("branch", field_text(task.metadata["branch"]));
  print_field("commit", field_text(task.metadata["commit"]));
}

void print_text(const registry::Task& task) {
  const std::string description = task.fields["description"].string_or("");
  if (!description.empty()) print_line("\n" + presentable_text(masked(description)));
  const Json::Array& criteria = task.fields["acceptance_criteria"].items();
  if (!criteria.empty()) print_line("\nacceptance criteria");
  for (const Json& criterion : criteria) {
    print_line("- " + presentable(criterion.string_or("")));
  }
}

void print_dependencies(TaskRegistryClient& client, const registry::Task& task) {
  if (task.dependencies.empty()) return;
  const std::size_t shown = std::min(task.dependencies.size(), kDependenciesShown);
  std::vector<std::vector<std::string>> rows;
  for (std::size_t i = 0; i < shown; ++i) {
    const registry::Task parent = client.get_task(task.dependencies[i]);
    rows.push_back({parent.id, std::string(to_string(parent.state)),
                    shorten(presentable(parent.fields["title"].string_or("")), 60)});
  }
  print_line("");
  print_table({"DEPENDS ON", "STATE", "TITLE"}, rows);
  if (const std::size_t left = task.dependencies.size() - shown; left > 0) {
    print_line("… " + std::to_string(left) + " more");
  }
}

std::string duration_of(const registry::AttemptRecord& record) {
  if (!record.ended_at) return "";
  return human_duration(*record.ended_at - record.started_at);
}

void print_attempts(const std::vector<registry::AttemptRecord>& records) {
  std::vector<std::vector<std::string>> rows;
  for (const registry::AttemptRecord& record : records) {
    rows.push_back(
        {std::to_string(record.attempt), record.outcome.empty() ? "running" : record.outcome,
         to_rfc3339(record.started_at), duration_of(record), record.runner_id, record.branch,
         record.commit.substr(0, kCommitShown), cost_text(record.cost_usd),
         record.tokens > 0 ? std::to_string(record.tokens) : "", failure_text(record.failure)});
  }
  print_table({"ATTEMPT", "OUTCOME", "STARTED", "TOOK", "RUNNER", "BRANCH", "COMMIT", "COST",
               "TOKENS", "FAILURE"},
              rows);
}

void print_artifacts(const registry::Task& task) {
  if (task.artifacts.empty()) return;
  std::vector<std::vector<std::string>> rows;
  for (const registry::ArtifactRef& artifact : task.artifacts) {
    rows.push_back({artifact.type, std::to_string(artifact.attempt),
                    artifact.size_bytes ? std::to_string(*artifact.size_bytes) : "", artifact.uri});
  }
  print_line("");
  print_table({"ARTIFACT", "ATTEMPT", "BYTES", "URI"}, rows);
}

Json items_of(const std::vector<registry::AttemptRecord>& records) {
  Json items = Json::array();
  for (const registry::AttemptRecord& record : records) items.push_back(record.to_json());
  return items;
}

int show() {
  Runtime runtime(arguments.common);
  TaskRegistryClient client = runtime.registry();
  const registry::Task task = client.get_task(arguments.id);
  const std::vector<registry::AttemptRecord> attempts = client.attempts(task.id);
  if (arguments.common.json) {
    Json json = task.to_json();
    json.set("attempts", items_of(attempts));
    print_json(json);
    return 0;
  }
  print_head(task);
  print_text(task);
  print_dependencies(client, task);
  if (!attempts.empty()) {
    print_line("");
    print_attempts(attempts);
  }
  print_artifacts(task);
  return 0;
}

int attempts() {
  Runtime runtime(arguments.common);
  const auto records = runtime.registry().attempts(arguments.id);
  if (arguments.common.json) {
    print_json(Json::object({{"items", items_of(records)}}));
  } else {
    print_attempts(records);
  }
  return 0;
}

int explain() {
  Runtime runtime(arguments.common);
  const registry::Explanation told = runtime.registry().explain(arguments.id);
  if (arguments.common.json) {
    print_json(told.to_json());
    return 0;
  }
  std::string line = presentable(told.task_id) + " is " + std::string(to_string(told.state));
  if (told.claimable) line += ", and the next claimant with its skill and provider may get it";
  print_line(line);
  for (const registry::WaitReason& reason : told.reasons) {
    std::string text = "- " + presentable(reason.kind) + ": " + presentable(reason.detail);
    if (reason.until) text += " (until " + to_rfc3339(*reason.until) + ")";
    print_line(text);
  }
  return 0;
}

}  // namespace

void declare_task_pages(Cli& task) {
  const auto sub = [&](const char* name, const char* help, std::function<int()> action) {
    arguments.common.service_command(task, name, help, {Service::kRegistry}, std::move(action))
        .positional("id", arguments.id, "SPEC:NUMBER");
  };
  sub("show", "One task: state, reason, attempts, artifacts, dependencies", show);
  sub("attempts", "What each attempt of a task came to", attempts);
  sub("explain", "Why a task does not run", explain);
}

}  // namespace necrocode::app
