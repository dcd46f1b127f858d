#include "necrocode/registry/model.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::registry {
namespace {

constexpr std::array<std::string_view, 6> kStateNames = {"blocked", "ready",  "running",
                                                         "done",    "failed", "cancelled"};

/// The fields of a task context (SPEC section 9) that a taskset may hold; others are dropped.
constexpr std::array<std::string_view, 27> kTaskFields = {"title",
                                                          "description",
                                                          "acceptance_criteria",
                                                          "dependencies",
                                                          "on_dependency_failure",
                                                          "required_skill",
                                                          "provider",
                                                          "touches",
                                                          "not_before",
                                                          "repo_url",
                                                          "slot_path",
                                                          "slot_id",
                                                          "branch_name",
                                                          "base_branch",
                                                          "test_commands",
                                                          "fail_fast",
                                                          "timeout_seconds",
                                                          "test_timeout_seconds",
                                                          "playbook_path",
                                                          "related_files",
                                                          "readonly_files",
                                                          "max_tokens",
                                                          "executor",
                                                          "metadata",
                                                          "labels",
                                                          "priority",
                                                          "max_attempts"};

/// What Task::to_json() adds to the submitted fields.
constexpr std::array<std::string_view, 19> kDerivedFields = {
    "id",          "task_id", "number",     "spec_name",        "state",
    "status",      "attempt", "artifacts",  "base_commits",     "created_at",
    "updated_at",  "version", "runner_id",  "cancel_requested", "blocked_reason",
    "lease_token", "failure", "expires_at", "previous_attempts"};

constexpr std::array<std::string_view, 3> kPolicyNames = {"block", "cancel", "run"};
constexpr std::array<std::string_view, 2> kUnblockNames = {"done", "merged"};

template <std::size_t N>
bool contains(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Json time_json(SystemTime time) {
  return Json(to_rfc3339(time));
}

/// Readers of a service's answer: what is wrong in them is the service's fault.
void finish_answer(const JsonFields& fields, std::string_view what) {
  if (fields.errors().empty()) return;
  const FieldError& first = fields.errors().front();
  ErrorInfo info;
  info.service = "task-registry";
  info.fields = fields.errors();
  throw InvalidResponse(
      std::string(what) + " is not as the protocol says: " + first.pointer + " " + first.message,
      std::move(info));
}

std::vector<std::string> full_dependencies(const Json& fields, const std::string& spec) {
  std::vector<std::string> ids;
  for (const Json& dependency : fields["dependencies"].items()) {
    const std::string text = dependency.string_or("");
    ids.push_back(text.find(':') == std::string::npos ? spec + ":" + text : text);
  }
  return ids;
}

/// `name` as the policy that it is; a defect of `field` when it is none.
DependencyPolicy read_policy(JsonFields& reader, std::string_view field, std::string_view name) {
  const auto policy = parse_dependency_policy(name);
  if (!policy) reader.fail(field, "must be block, cancel or run, or an object of these");
  return policy.value_or(DependencyPolicy::kBlock);
}

void read_dependency_policies(JsonFields& reader, TaskSpec& task) {
  constexpr std::string_view kName = "on_dependency_failure";
  const Json& value = reader.value()[kName];
  if (!value.is_object()) {
    const auto name = reader.string(kName, limits::kNameBytes);
    if (name) task.dependency_policy = read_policy(reader, kName, *name);
    return;
  }
  for (const auto& [dependency, name] : reader.object(kName, limits::kMetadataBytes).members()) {
    const auto named = std::find(task.dependencies.begin(), task.dependencies.end(), dependency);
    if (named == task.dependencies.end()) {
      reader.fail(kName, "names \"" + shorten(printable(dependency), 2 * limits::kNameBytes) +
                             "\", which is not among the dependencies");
    }
    task.dependency_policies[dependency] = read_policy(reader, kName, name.string_or(""));
  }
}

void check_max_attempts(JsonFields& reader) {
  constexpr std::string_view kName = "max_attempts";
  if (!reader.value()[kName].is_object()) {
    reader.integer(kName, 1, limits::kAttemptsMax);
    return;
  }
  reader.nested(kName, [](JsonFields& classes) {
    for (const char* name : {"agent", "tests", "infrastructure", "conflict"}) {
      classes.integer(name, 1, limits::kAttemptsMax);
    }
    for (const std::string& name : classes.unknown()) {
      classes.fail(name, "is not agent, tests, infrastructure or conflict");
    }
  });
}

std::string read_number(JsonFields& reader) {
  const auto [name, number] =
      reader.required_string_of({"id", "number", "task_id"}, 2 * limits::kNameBytes + 1);
  if (!number.empty() && !is_plain_name(number) && !TaskId::parse(number)) {
    reader.fail(name,
                "must be [A-Za-z0-9][A-Za-z0-9._-]{0,99}, alone or after its spec and a colon");
  }
  return number;
}

}  // namespace

std::string_view to_string(TaskState state) {
  return kStateNames[static_cast<std::size_t>(state)];
}

std::optional<TaskState> parse_task_state(std::string_view name) {
  if (name == "in_progress") return TaskState::kRunning;
  const auto found = std::find(kStateNames.begin(), kStateNames.end(), name);
  if (found == kStateNames.end()) return std::nullopt;
  return static_cast<TaskState>(found - kStateNames.begin());
}

bool is_final(TaskState state) {
  return state == TaskState::kDone || state == TaskState::kFailed || state == TaskState::kCancelled;
}

std::string_view to_string(DependencyPolicy policy) {
  return kPolicyNames[static_cast<std::size_t>(policy)];
}

std::optional<DependencyPolicy> parse_dependency_policy(std::string_view name) {
  const auto found = std::find(kPolicyNames.begin(), kPolicyNames.end(), name);
  if (found == kPolicyNames.end()) return std::nullopt;
  return static_cast<DependencyPolicy>(found - kPolicyNames.begin());
}

std::string_view to_string(UnblockOn when) {
  return kUnblockNames[static_cast<std::size_t>(when)];
}

TaskSpec TaskSpec::from_json(JsonFields& reader) {
  TaskSpec task;
  task.number = read_number(reader);
  task.title = reader.string("title", limits::kTaskTextBytes).value_or("");
  task.description = reader.string("description", limits::kTaskTextBytes).value_or("");
  task.acceptance_criteria = reader.strings("acceptance_criteria");
  task.dependencies = reader.strings("dependencies", limits::kTasksPerSubmit);
  read_dependency_policies(reader, task);
  task.required_skill = reader.string("required_skill", limits::kNameBytes).value_or("");
  task.provider = reader.string("provider", limits::kNameBytes).value_or("");
  if (!task.provider.empty() && !is_plain_name(task.provider)) {
    reader.fail("provider", "must be [A-Za-z0-9][A-Za-z0-9._-]{0,99}");
  }
  task.touches = reader.strings("touches", limits::kTouches, limits::kPathBytes);
  if (std::find(task.touches.begin(), task.touches.end(), "") != task.touches.end()) {
    reader.fail("touches", "must have no empty glob; ** is every file");
  }
  task.not_before = reader.time("not_before");
  task.done = reader.boolean("done").value_or(false);
  task.repo_url = reader.string("repo_url", limits::kPathBytes).value_or("");
  task.branch_name = reader.string("branch_name", limits::kPathBytes).value_or("");
  task.base_branch = reader.string("base_branch", limits::kPathBytes).value_or("");
  task.test_commands = reader.strings("test_commands");
  task.related_files = reader.strings("related_files", 10'000, limits::kPathBytes);
  task.readonly_files = reader.strings("readonly_files", 10'000, limits::kPathBytes);
  task.labels = reader.strings("labels", 100, limits::kNameBytes);
  task.priority = static_cast<int>(reader.integer("priority", -1'000'000, 1'000'000).value_or(0));
  for (const char* name : {"slot_path", "slot_id", "playbook_path", "executor"}) {
    reader.string(name, limits::kPathBytes);
  }
  for (const char* name : {"timeout_seconds", "test_timeout_seconds"}) {
    if (const auto seconds = reader.number(name, 0, 1e7); seconds && *seconds == 0) {
      reader.fail(name, "must be more than 0");
    }
  }
  reader.boolean("fail_fast");
  reader.integer("max_tokens", 1, 100'000'000);
  check_max_attempts(reader);
  if (reader.object("metadata").size() > limits::kMetadataMembers) {
    reader.fail("metadata",
                "must have at most " + std::to_string(limits::kMetadataMembers) + " members");
  }
  std::size_t text_bytes = task.title.size() + task.description.size();
  for (const std::string& criterion : task.acceptance_criteria) text_bytes += criterion.size();
  if (text_bytes > limits::kTaskTextBytes) {
    reader.fail("description", "with title and acceptance_criteria must be at most " +
                                   std::to_string(limits::kTaskTextBytes) + " bytes");
  }
  task.fields = Json::object();
  // In one order, so that the same fields are the same text however they were sent.
  for (const std::string_view name : kTaskFields) {
    const Json& value = reader.value()[name];
    if (!value.is_null()) task.fields.set(name, value);
  }
  return task;
}

Json ArtifactRef::to_json() const {
  return Json::object({{"type", type},
                       {"uri", uri},
                       {"size_bytes", size_bytes},
                       {"metadata", metadata.is_null() ? Json::object() : metadata},
                       {"created_at", time_json(created_at)},
                       {"attempt", attempt}});
}

ArtifactRef ArtifactRef::from_json(const Json& json) {
  JsonFields fields(json);
  ArtifactRef artifact;
  artifact.type = fields.required_string("type");
  artifact.uri = fields.required_string("uri");
  artifact.size_bytes = fields.integer("size_bytes", 0);
  artifact.metadata = fields.object("metadata");
  artifact.created_at = fields.time("created_at").value_or(SystemTime{});
  artifact.attempt = static_cast<int>(fields.integer("attempt", 0, INT32_MAX).value_or(0));
  finish_answer(fields, "an artifact reference");
  return artifact;
}

Json Task::to_json() const {
  Json json = Json::object({{"id", id},
                            {"task_id", id},
                            {"spec_name", spec_name},
                            {"number", number},
                            {"state", to_string(state)},
                            {"status", to_string(state)}});
  for (const auto& [name, value] : fields.members()) json.set(name, value);
  Json artifact_list = Json::array();
  for (const ArtifactRef& artifact : artifacts) artifact_list.push_back(artifact.to_json());
  json.set("dependencies",
           fields["dependencies"].is_array() ? fields["dependencies"] : Json::array());
  json.set("attempt", attempt);
  json.set("metadata", metadata.is_null() ? Json::object() : metadata);
  json.set("artifacts", std::move(artifact_list));
  if (!base_commits.empty()) json.set("base_commits", base_commits);
  if (!runner_id.empty()) json.set("runner_id", runner_id);
  json.set("cancel_requested", cancel_requested);
  if (!blocked_reason.empty()) json.set("blocked_reason", blocked_reason);
  if (!failure.is_null()) json.set("failure", failure);
  if (not_before) {
    json.set("not_before", time_json(*not_before));
  } else {
    json.erase("not_before");  // as submitted, and past
  }
  json.set("version", version);
  json.set("created_at", time_json(created_at));
  json.set("updated_at", time_json(updated_at));
  return json;
}

Task Task::from_json(const Json& json) {
  JsonFields fields(json);
  Task task;
  task.id = fields.required_string("id");
  const auto id = TaskId::parse(task.id);
  if (!id && !task.id.empty()) fields.fail("id", "is not a task id");
  if (id) task.spec_name = id->spec();
  if (id) task.number = id->number();
  const std::string state = fields.required_string("state");
  const auto known = parse_task_state(state);
  if (!known && !state.empty()) fields.fail("state", "is not a state: " + state);
  task.state = known.value_or(TaskState::kBlocked);
  task.metadata = fields.object("metadata", SIZE_MAX);
  task.attempt = static_cast<int>(fields.integer("attempt", 0, INT32_MAX).value_or(0));
  task.version = fields.integer("version", 0).value_or(0);
  task.runner_id = fields.string("runner_id").value_or("");
  task.cancel_requested = fields.boolean("cancel_requested").value_or(false);
  task.blocked_reason = fields.string("blocked_reason").value_or("");
  task.failure = json["failure"];
  task.not_before = fields.time("not_before");
  task.base_commits = fields.strings("base_commits");
  task.created_at = fields.time("created_at").value_or(SystemTime{});
  task.updated_at = fields.time("updated_at").value_or(SystemTime{});
  const Json::Array& artifacts = fields.array("artifacts", SIZE_MAX);
  finish_answer(fields, "a task");
  for (const Json& artifact : artifacts) task.artifacts.push_back(ArtifactRef::from_json(artifact));
  task.fields = Json::object();
  for (const auto& [name, value] : json.members()) {
    if (!contains(kDerivedFields, name) && name != "lease_seconds") task.fields.set(name, value);
  }
  task.dependencies = full_dependencies(task.fields, task.spec_name);
  return task;
}

Json ClaimedTask::to_json() const {
  Json json = task.to_json();
  Json attempts = Json::array();
  for (const AttemptRecord& record : previous_attempts) attempts.push_back(record.to_json());
  json.set("previous_attempts", std::move(attempts));
  json.set("lease_token", lease_token.value);
  json.set("expires_at", time_json(expires_at));
  json.set("lease_seconds", static_cast<double>(lease.count()) / 1000);
  return json;
}

ClaimedTask ClaimedTask::from_json(const Json& json) {
  JsonFields fields(json);
  ClaimedTask claimed;
  claimed.lease_token.value = fields.required_string("lease_token");
  const auto expires_at = fields.time("expires_at");
  if (!expires_at && !fields.has("expires_at")) fields.fail("expires_at", "is required");
  const auto seconds = fields.number("lease_seconds", 0, 1e9);
  const Json::Array& attempts = fields.array("previous_attempts", SIZE_MAX);
  finish_answer(fields, "a claimed task");
  for (const Json& record : attempts) {
    claimed.previous_attempts.push_back(AttemptRecord::from_json(record));
  }
  claimed.expires_at = *expires_at;
  if (seconds) claimed.lease = std::chrono::milliseconds(std::llround(*seconds * 1000));
  claimed.task = Task::from_json(json);
  return claimed;
}

Json ClaimRequest::to_json() const {
  Json json = Json::object({{"runner_id", runner_id.value},
                            {"skills", skills},
                            {"lease_seconds", static_cast<double>(lease.count()) / 1000},
                            {"wait_seconds", static_cast<double>(wait.count()) / 1000},
                            {"max", max}});
  if (task_id) json.set("task_id", *task_id);
  if (!provider.empty()) json.set("provider", provider);
  return json;
}

Json AttemptRecord::to_json() const {
  Json references = Json::array();
  for (const ArtifactRef& artifact : artifacts) references.push_back(artifact.to_json());
  Json json = Json::object({{"attempt", attempt},
                            {"runner_id", runner_id},
                            {"provider", provider},
                            {"slot_id", slot_id},
                            {"branch", branch},
                            {"commit", commit},
                            {"started_at", time_json(started_at)},
                            {"outcome", outcome},
                            {"cost_usd", cost_usd},
                            {"tokens", tokens},
                            {"artifacts", std::move(references)}});
  if (ended_at) json.set("ended_at", time_json(*ended_at));
  if (!failure.is_null()) json.set("failure", failure);
  return json;
}

AttemptRecord AttemptRecord::from_json(const Json& json) {
  JsonFields fields(json);
  AttemptRecord record;
  record.attempt = static_cast<int>(fields.integer("attempt", 0, INT32_MAX).value_or(0));
  record.runner_id = fields.string("runner_id").value_or("");
  record.provider = fields.string("provider").value_or("");
  record.slot_id = fields.string("slot_id").value_or("");
  record.branch = fields.string("branch").value_or("");
  record.commit = fields.string("commit").value_or("");
  record.started_at = fields.time("started_at").value_or(SystemTime{});
  record.ended_at = fields.time("ended_at");
  record.outcome = fields.string("outcome").value_or("");
  record.failure = json["failure"];
  record.cost_usd = fields.number("cost_usd", 0, 1e12).value_or(0);
  record.tokens = fields.integer("tokens", 0).value_or(0);
  const Json::Array& artifacts = fields.array("artifacts", SIZE_MAX);
  finish_answer(fields, "an attempt");
  for (const Json& artifact : artifacts) {
    record.artifacts.push_back(ArtifactRef::from_json(artifact));
  }
  return record;
}

Json Explanation::to_json() const {
  Json list = Json::array();
  for (const WaitReason& reason : reasons) {
    Json item = Json::object({{"kind", reason.kind}, {"detail", reason.detail}});
    if (!reason.task_id.empty()) item.set("task_id", reason.task_id);
    if (reason.until) item.set("until", time_json(*reason.until));
    list.push_back(std::move(item));
  }
  return Json::object({{"task_id", task_id},
                       {"state", to_string(state)},
                       {"claimable", claimable},
                       {"reasons", std::move(list)}});
}

Explanation Explanation::from_json(const Json& json) {
  JsonFields fields(json);
  Explanation explanation;
  explanation.task_id = fields.required_string("task_id");
  const std::string state = fields.required_string("state");
  const auto known = parse_task_state(state);
  if (!known && !state.empty()) fields.fail("state", "is not a state: " + state);
  explanation.state = known.value_or(TaskState::kBlocked);
  explanation.claimable = fields.boolean("claimable").value_or(false);
  fields.each("reasons", SIZE_MAX, [&](JsonFields& element) {
    WaitReason& reason = explanation.reasons.emplace_back();
    reason.kind = element.required_string("kind");
    reason.detail = element.string("detail").value_or("");
    reason.task_id = element.string("task_id").value_or("");
    reason.until = element.time("until");
  });
  finish_answer(fields, "an explanation");
  return explanation;
}

Json ParkedProvider::to_json() const {
  Json json = Json::object({{"name", name}, {"until", time_json(until)}, {"reason", reason}});
  if (!probe.empty()) json.set("probe", probe);
  return json;
}

ParkedProvider ParkedProvider::from_json(const Json& json) {
  JsonFields fields(json);
  ParkedProvider provider;
  provider.name = fields.required_string("name");
  provider.until = fields.time("until").value_or(SystemTime{});
  provider.reason = fields.string("reason").value_or("");
  provider.probe = fields.string("probe").value_or("");
  finish_answer(fields, "a parked provider");
  return provider;
}

Json Event::to_json() const {
  return Json::object({{"id", id},
                       {"task_id", task_id},
                       {"event_type", event_type},
                       {"data", data.is_null() ? Json::object() : data},
                       {"timestamp", time_json(timestamp)},
                       {"recorded_at", time_json(recorded_at)},
                       {"attempt", attempt}});
}

Event Event::from_json(const Json& json) {
  JsonFields fields(json);
  Event event;
  event.id = fields.integer("id", 0).value_or(0);
  event.task_id = fields.string("task_id").value_or("");
  event.event_type = fields.required_string("event_type");
  event.data = fields.object("data", SIZE_MAX);
  event.timestamp = fields.time("timestamp").value_or(SystemTime{});
  event.recorded_at = fields.time("recorded_at").value_or(SystemTime{});
  event.attempt = static_cast<int>(fields.integer("attempt", 0, INT32_MAX).value_or(0));
  finish_answer(fields, "an event");
  return event;
}

std::string EventFilter::path() const {
  std::string path = task_id.empty() ? "" : "/tasks/" + percent_encode(task_id);
  path += "/events?spec=" + percent_encode(spec) + "&type=" + percent_encode(type);
  if (since) path += "&since=" + percent_encode(to_rfc3339(*since));
  if (until) path += "&until=" + percent_encode(to_rfc3339(*until));
  return path;
}

Json Failure::to_json() const {
  Json json = Json::object({{"class", failure_class}, {"reason", reason}});
  if (retry_at) json.set("retry_at", time_json(*retry_at));
  return json;
}

Json Completion::to_json() const {
  Json json = Json::object({{"status", to_string(status)},
                            {"metadata", metadata.is_null() ? Json::object() : metadata}});
  if (!lease_token.value.empty()) json.set("lease_token", lease_token.value);
  Json artifact_list = Json::array();
  for (const ArtifactRef& artifact : artifacts) artifact_list.push_back(artifact.to_json());
  json.set("artifacts", std::move(artifact_list));
  Json event_list = Json::array();
  for (const Event& event : events) {
    event_list.push_back(Json::object({{"event_type", event.event_type},
                                       {"data", event.data.is_null() ? Json::object() : event.data},
                                       {"timestamp", time_json(event.timestamp)}}));
  }
  json.set("events", std::move(event_list));
  if (failure) json.set("failure", failure->to_json());
  return json;
}

namespace {
Json spend_json(double usd, std::int64_t tokens) {
  return Json::object({{"usd", usd}, {"tokens", tokens}});
}
}  // namespace

Json Taskset::to_json() const {
  Json json = Json::object({{"spec_name", spec_name},
                            {"version", version},
                            {"metadata", metadata.is_null() ? Json::object() : metadata},
                            {"counts", counts.is_null() ? Json::object() : counts},
                            {"max_running", limits.max_running},
                            {"budget", spend_json(limits.budget_usd, limits.budget_tokens)},
                            {"spent", spend_json(spent_usd, spent_tokens)},
                            {"unblock_on", to_string(limits.unblock_on)},
                            {"created_at", time_json(created_at)},
                            {"updated_at", time_json(updated_at)}});
  if (head_only) return json;
  Json task_list = Json::array();
  for (const Task& task : tasks) task_list.push_back(task.to_json());
  json.set("tasks", std::move(task_list));
  if (next_cursor) json.set("next_cursor", *next_cursor);
  return json;
}

Taskset Taskset::from_json(const Json& json) {
  JsonFields fields(json);
  Taskset taskset;
  taskset.spec_name = fields.required_string("spec_name");
  taskset.version = fields.integer("version", 0).value_or(0);
  taskset.metadata = fields.object("metadata", SIZE_MAX);
  taskset.counts = fields.object("counts");
  taskset.limits.max_running =
      static_cast<int>(fields.integer("max_running", 0, INT32_MAX).value_or(0));
  fields.nested("budget", [&](JsonFields& budget) {
    taskset.limits.budget_usd = budget.number("usd", 0, 1e12).value_or(0);
    taskset.limits.budget_tokens = budget.integer("tokens", 0).value_or(0);
  });
  fields.nested("spent", [&](JsonFields& spent) {
    taskset.spent_usd = spent.number("usd", 0, 1e12).value_or(0);
    taskset.spent_tokens = spent.integer("tokens", 0).value_or(0);
  });
  if (fields.string("unblock_on") == to_string(UnblockOn::kMerged)) {
    taskset.limits.unblock_on = UnblockOn::kMerged;
  }
  taskset.created_at = fields.time("created_at").value_or(SystemTime{});
  taskset.updated_at = fields.time("updated_at").value_or(SystemTime{});
  taskset.head_only = !fields.has("tasks");
  taskset.next_cursor = fields.string("next_cursor");
  const Json::Array& tasks = fields.array("tasks", SIZE_MAX);
  finish_answer(fields, "a taskset");
  for (const Json& task : tasks) taskset.tasks.push_back(Task::from_json(task));
  return taskset;
}

}  // namespace necrocode::registry
