#include "necrocode/runner/task_context.hpp"

#include <algorithm>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/config/yaml.hpp"
#include "necrocode/git/repository.hpp"

namespace necrocode::runner {
namespace {

constexpr int kSecondsMax = 7 * 86'400;

// Fields that a claimed task or a taskset carries beside a task context; they are not unknown.
constexpr std::string_view kKnownElsewhere[] = {"id",
                                                "number",
                                                "state",
                                                "status",
                                                "attempt",
                                                "artifacts",
                                                "created_at",
                                                "labels",
                                                "version",
                                                "updated_at",
                                                "priority",
                                                "lease_token",
                                                "expires_at",
                                                "runner_id",
                                                "skills",
                                                "touches",
                                                "cancel_requested",
                                                "blocked_reason",
                                                "max_attempts",
                                                "not_before",
                                                "provider",
                                                "lease_seconds",
                                                "failure",
                                                "attempts",
                                                "previous_attempts",
                                                "on_dependency_failure"};

// Ids may hold what a branch name may not ("..", '.' or ".lock" at the end) and be long: then dots
// become '-' and the name is cut, with part of the id's digest, so that two ids keep two branches.
std::string default_branch(const TaskId& id, const std::string& title) {
  constexpr std::size_t kCutBytes = 200;
  std::string branch = "feature/task-" + std::string(id.spec()) + "-" + std::string(id.number());
  const std::string slug = slugify(title, 40);
  if (!slug.empty()) branch += "-" + slug;
  if (git::is_branch_name(branch)) return branch;
  std::replace(branch.begin(), branch.end(), '.', '-');
  return branch.substr(0, kCutBytes) + "-" + sha256_hex(id.str()).substr(0, 8);
}

TaskId read_task_id(const Json& json, JsonFields& fields) {
  const auto spec = fields.string("spec_name", limits::kNameBytes);
  const std::string text = fields.required_string("task_id", 2 * limits::kNameBytes + 1);
  const std::optional<TaskId> id = task_id_of(json);
  if (id && spec && !spec->empty() && id->spec() != *spec) {
    fields.fail("spec_name",
                "is \"" + *spec + "\", but task_id says \"" + std::string(id->spec()) + "\"");
  }
  if (!id && !text.empty()) {
    fields.fail("task_id",
                "must be SPEC:NUMBER, or NUMBER beside a spec_name, each of letters, digits, "
                "'.', '_' and '-'");
  }
  return id.value_or(*TaskId::make("invalid", "0"));
}

void check_paths(JsonFields& fields, std::string_view name, const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    bool inside = !path.empty() && path.front() != '/' && path.size() <= limits::kPathBytes;
    for (const std::string_view part : split(path, '/')) inside = inside && part != "..";
    if (!inside)
      fields.fail(name,
                  "\"" + printable(shorten(path, 100)) + "\" is not a path inside the repository");
  }
}

// The sources of a workspace: exactly one is used, slot_path first.
void read_workspace(JsonFields& fields, const TaskDefaults& defaults, TaskContext& task) {
  task.repo_url = fields.string("repo_url", limits::kPathBytes).value_or("");
  if (!defaults.repo_url.empty()) task.repo_url = defaults.repo_url;
  task.slot_path = fields.string("slot_path", limits::kPathBytes).value_or("");
  fields.string("slot_id");  // existing programs send it; slot_path says all that is needed
  if (task.slot_path.empty() && task.repo_url.empty()) {
    fields.fail("repo_url", "is required when there is no slot_path (or pass --repo)");
  }
  if (!task.slot_path.empty() && !task.slot_path.is_absolute()) {
    fields.fail("slot_path", "must be an absolute path");
  }
  if (task.slot_path.empty() && !task.repo_url.empty()) {
    try {
      git::check_remote_url(task.repo_url);
    } catch (const RunnerError& error) {
      fields.fail("repo_url", error.summary());
    }
  }
}

void read_branches(JsonFields& fields, TaskContext& task) {
  task.base_branch = fields.string("base_branch", 255).value_or("");
  task.branch_name = fields.string("branch_name", 255).value_or("");
  if (task.branch_name.empty()) task.branch_name = default_branch(task.task_id, task.title);
  if (!task.base_branch.empty() && !git::is_branch_name(task.base_branch)) {
    fields.fail("base_branch", "\"" + printable(task.base_branch) + "\" is not a branch name");
  }
  if (!git::is_branch_name(task.branch_name)) {
    fields.fail("branch_name", "\"" + printable(task.branch_name) + "\" is not a branch name");
  } else if (task.branch_name == task.base_branch) {
    fields.fail("branch_name", "must differ from base_branch");
  }
  task.base_commits = fields.strings("base_commits", 100, 64);
  for (const std::string& commit : task.base_commits) {
    if (!git::is_object_id(commit))
      fields.fail("base_commits", "\"" + printable(commit) + "\" is not a commit id");
  }
}

// Follows all ways through the pattern at once, so that no pattern takes more than length × length.
// `reached[j]`: the pattern so far can match the first j bytes of the text.
bool glob_matches(std::string_view pattern, std::string_view text) {
  std::vector<bool> reached(text.size() + 1, false);
  reached[0] = true;
  while (!pattern.empty()) {
    const bool any = pattern.starts_with("**");
    const bool folders = pattern.starts_with("**/");  // also matches no folder at all
    const bool star = pattern.front() == '*';
    std::vector<bool> next(text.size() + 1, false);
    for (std::size_t j = 0; j <= text.size(); ++j) {
      const char last = j > 0 ? text[j - 1] : '\0';
      if (folders) {
        next[j] = reached[j] ||
                  (last == '/' &&
                   std::find(reached.begin(), reached.begin() + static_cast<std::ptrdiff_t>(j),
                             true) != reached.begin() + static_cast<std::ptrdiff_t>(j));
      } else if (star) {
        next[j] = reached[j] || (j > 0 && next[j - 1] && (any || last != '/'));
      } else if (j > 0) {
        next[j] =
            reached[j - 1] && (pattern.front() == last || (pattern.front() == '?' && last != '/'));
      }
    }
    reached = std::move(next);
    pattern.remove_prefix(folders ? 3 : any ? 2 : 1);
  }
  return reached.back();
}

void read_executor(const Json& given, JsonFields& fields, TaskContext& task) {
  if (given.is_array()) {
    fields.strings("executor");
  } else if (!fields.string("executor")) {
    return;
  }
  std::string problem;
  task.executor = config::read_executor_chain(given, problem);
  if (!problem.empty()) fields.fail("executor", problem);
}

}  // namespace

TaskContext read_task_context(const Json& json, const TaskDefaults& defaults) {
  JsonFields fields(json);
  TaskContext task(read_task_id(json, fields));
  task.title = fields.required_string("title", 1024);
  task.description = fields.string("description", limits::kTaskTextBytes).value_or("");
  task.acceptance_criteria = fields.strings("acceptance_criteria", 200, 16 * limits::kKiB);
  task.dependencies = fields.strings("dependencies", 1000, 256);
  task.required_skill = fields.string("required_skill", limits::kNameBytes).value_or("");
  read_workspace(fields, defaults, task);
  read_branches(fields, task);
  task.test_commands = fields.strings("test_commands", 100, 16 * limits::kKiB);
  for (const std::string& command : task.test_commands) {
    if (trim(command).empty()) fields.fail("test_commands", "must not hold an empty command");
  }
  task.playbook_path = fields.string("playbook_path", limits::kPathBytes).value_or("");
  task.fail_fast = fields.boolean("fail_fast").value_or(true);
  task.timeout = std::chrono::seconds{
      fields.integer("timeout_seconds", 1, kSecondsMax).value_or(defaults.timeout.count())};
  task.test_timeout = std::chrono::seconds{fields.integer("test_timeout_seconds", 1, kSecondsMax)
                                               .value_or(defaults.test_timeout.count())};
  task.related_files = fields.strings("related_files", 1000, limits::kPathBytes);
  task.readonly_files = fields.strings("readonly_files", 1000, limits::kPathBytes);
  check_paths(fields, "related_files", task.related_files);
  check_paths(fields, "readonly_files", task.readonly_files);
  task.max_tokens = static_cast<int>(fields.integer("max_tokens", 1, 10'000'000).value_or(0));
  read_executor(json["executor"], fields, task);
  if (!defaults.executor.empty()) task.executor = defaults.executor;
  task.metadata = fields.object("metadata");
  for (const std::string& name : fields.unknown()) {
    if (std::find(std::begin(kKnownElsewhere), std::end(kKnownElsewhere), name) ==
        std::end(kKnownElsewhere)) {
      task.warnings.push_back("unknown key \"" + printable(shorten(name, 100)) + "\" is ignored");
    }
  }
  fields.finish("task");
  return task;
}

std::optional<TaskId> task_id_of(const Json& json) {
  const std::string text = json["task_id"].string_or("");
  const std::optional<TaskId> id = TaskId::parse(text);
  return id ? id : TaskId::make(json["spec_name"].string_or(""), text);
}

Json read_task_file(const std::filesystem::path& file, std::size_t bytes_max) {
  std::string text;
  try {
    text = read_file(file, bytes_max);
  } catch (const StorageError& error) {
    throw TaskContextValidationError("cannot read the task file: " + error.summary());
  }
  if (file.extension() != ".json") return config::parse_yaml(text, file.string());
  try {
    return Json::parse(text, file.string());
  } catch (const InvalidResponse& error) {
    throw TaskContextValidationError(error.summary());
  }
}

bool matches_any(const std::vector<std::string>& patterns, std::string_view path) {
  for (const std::string& pattern : patterns) {
    if (pattern == path || glob_matches(pattern, path)) return true;
    if (pattern.ends_with('/') && path.starts_with(pattern)) return true;
  }
  return false;
}

}  // namespace necrocode::runner
