#include "necrocode/registry/service_requests.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "necrocode/base/text.hpp"

namespace necrocode::registry {
namespace {

/// The longest lease: a day.
constexpr double kLeaseSecondsMax = 86'400;
constexpr std::int64_t kPriorityMax = 1'000'000;
constexpr double kBudgetUsdMax = 1e9;
/// Artifacts or events in one completion.
constexpr std::size_t kItemsPerCall = 1000;

/// An object of the caller's own (metadata, data), kept as it is.
Json free_object(JsonFields& fields, std::string_view name, std::size_t bytes_max) {
  Json value = fields.object(name, bytes_max);
  if (value.depth() > limits::kFreeJsonDepth) {
    fields.fail(name, "must be nested at most " + std::to_string(limits::kFreeJsonDepth) + " deep");
  }
  return value;
}

LeaseToken read_token(JsonFields& fields) {
  return LeaseToken{fields.string("lease_token", limits::kNameBytes).value_or("")};
}

std::chrono::milliseconds seconds_of(double seconds) {
  return std::chrono::milliseconds(std::llround(seconds * 1000));
}

NewEvent read_event(JsonFields& fields, SystemTime now) {
  NewEvent event;
  event.event_type = fields.required_string("event_type", limits::kNameBytes);
  event.data = free_object(fields, "data", limits::kEventBytes);
  event.timestamp = fields.time("timestamp").value_or(now);
  return event;
}

ArtifactRef read_artifact(JsonFields& fields, SystemTime now) {
  ArtifactRef artifact;
  artifact.type = fields.required_string("type", limits::kNameBytes);
  artifact.uri = fields.required_string("uri", limits::kPathBytes);
  for (const auto& [name, text] : {std::pair("type", artifact.type), {"uri", artifact.uri}}) {
    if (printable(text) != text) fields.fail(name, "must have no control characters");
  }
  artifact.size_bytes = fields.integer("size_bytes", 0);
  artifact.metadata = free_object(fields, "metadata", limits::kMetadataBytes);
  artifact.created_at = fields.time("created_at").value_or(now);
  return artifact;
}

/// The number without its spec, which must be this one.
void settle_number(JsonFields& reader, TaskSpec& task, const std::string& spec) {
  const auto full = TaskId::parse(task.number);
  if (!full) return;
  if (full->spec() != spec) reader.fail("id", "is of another taskset than " + spec);
  task.number = std::string(full->number());
}

void check_dependency_names(JsonFields& reader, const TaskSpec& task) {
  for (std::size_t i = 0; i < task.dependencies.size(); ++i) {
    const std::string& name = task.dependencies[i];
    if (!is_plain_name(name) && !TaskId::parse(name)) {
      reader.fail("dependencies", "must name tasks; element " + std::to_string(i) + " does not");
    }
  }
}

void read_limits(JsonFields& fields, Submission& submission) {
  if (const auto max = fields.integer("max_running", 0, 1'000'000)) {
    submission.max_running = static_cast<int>(*max);
  }
  fields.nested("budget", [&](JsonFields& budget) {
    submission.budget_usd = budget.number("usd", 0, kBudgetUsdMax);
    submission.budget_tokens = budget.integer("tokens", 0);
  });
  const auto unblock = fields.string("unblock_on", limits::kNameBytes);
  if (!unblock) return;
  submission.unblock_on = *unblock == "merged" ? UnblockOn::kMerged : UnblockOn::kDone;
  if (*unblock != to_string(*submission.unblock_on)) {
    fields.fail("unblock_on", "must be done or merged");
  }
}

NextClaim read_next_claim(JsonFields& fields) {
  NextClaim next;
  next.wanted = fields.boolean_or_nested("claim_next", [&](JsonFields& terms) {
    next.terms = read_claim(terms);
    next.terms->max = 1;
  });
  return next;
}

int read_limit(net::QueryFields& query) {
  return static_cast<int>(
      query.integer("limit", 1, limits::kPageSizeMax).value_or(limits::kPageSizeDefault));
}

}  // namespace

LeaseToken lease_token_of(const LeaseToken& in_body, const net::Request& request) {
  if (!in_body.value.empty()) return in_body;
  return LeaseToken{request.headers.get_or("X-Lease-Token", "")};
}

StatusChange read_status_change(JsonFields& fields) {
  StatusChange change;
  const std::string name = fields.required_choice(
      "status", {"ready", "blocked", "in_progress", "running", "done", "failed", "cancelled"});
  change.status = parse_task_state(name).value_or(TaskState::kBlocked);
  change.metadata = free_object(fields, "metadata", limits::kMetadataBytes);
  fields.time("updated_at");  // the caller's; the registry keeps its own
  change.lease_token = read_token(fields);
  return change;
}

NewEvent read_new_event(JsonFields& fields, SystemTime now) {
  NewEvent event = read_event(fields, now);
  event.lease_token = read_token(fields);
  return event;
}

NewArtifact read_new_artifact(JsonFields& fields, SystemTime now) {
  return {read_artifact(fields, now), read_token(fields)};
}

TaskPatch read_patch(JsonFields& fields) {
  TaskPatch patch;
  if (const auto priority = fields.integer("priority", -kPriorityMax, kPriorityMax)) {
    patch.priority = static_cast<int>(*priority);
  }
  const std::vector<std::string> labels = fields.strings("labels", 100, limits::kNameBytes);
  if (fields.has("labels")) patch.labels = labels;
  patch.metadata = free_object(fields, "metadata", limits::kMetadataBytes);
  return patch;
}

Parking read_parking(JsonFields& fields) {
  fields.require("until");
  const auto until = fields.time("until");
  return {until.value_or(SystemTime{}),
          fields.string("reason", limits::kMetadataBytes).value_or("")};
}

Submission read_submission(JsonFields& fields) {
  Submission submission;
  submission.spec_name = fields.required_string("spec_name", limits::kNameBytes);
  if (!submission.spec_name.empty() && !is_plain_name(submission.spec_name)) {
    fields.fail("spec_name", "must be [A-Za-z0-9][A-Za-z0-9._-]{0,99}");
  }
  if (fields.has("metadata")) {
    submission.metadata = free_object(fields, "metadata", limits::kMetadataBytes);
  }
  submission.replace = fields.boolean("replace").value_or(false);
  read_limits(fields, submission);
  fields.require("tasks");
  std::set<std::string> numbers;
  std::size_t dependencies = 0;
  fields.each("tasks", limits::kTasksPerSubmit, [&](JsonFields& reader) {
    TaskSpec task = TaskSpec::from_json(reader);
    settle_number(reader, task, submission.spec_name);
    check_dependency_names(reader, task);
    if (task.fields.depth() > limits::kFreeJsonDepth)
      reader.fail("metadata", "is nested too deeply");
    if (!task.number.empty() && !numbers.insert(task.number).second) {
      reader.fail("id", "is given twice in this taskset");
    }
    dependencies += task.dependencies.size();
    submission.tasks.push_back(std::move(task));
  });
  if (dependencies > limits::kDependenciesPerSubmit) {
    fields.fail("tasks", "must have at most " + std::to_string(limits::kDependenciesPerSubmit) +
                             " dependencies together, have " + std::to_string(dependencies));
  }
  return submission;
}

ClaimRequest read_claim(JsonFields& fields) {
  ClaimRequest request;
  request.runner_id.value = fields.string("runner_id", 2 * limits::kNameBytes).value_or("unnamed");
  request.skills = fields.strings("skills", 100, limits::kNameBytes);
  request.lease = seconds_of(fields.number("lease_seconds", 1, kLeaseSecondsMax).value_or(60));
  // A longer wait than is granted ends as an empty one; the client asks again.
  request.wait = std::min<std::chrono::milliseconds>(
      seconds_of(fields.number("wait_seconds", 0, kLeaseSecondsMax).value_or(0)),
      limits::kClaimWaitMax);
  request.max = static_cast<int>(fields.integer("max", 1, limits::kClaimMax).value_or(1));
  request.task_id = fields.string("task_id", 2 * limits::kNameBytes + 1);
  request.provider = fields.string("provider", limits::kNameBytes).value_or("");
  if (!request.provider.empty() && !is_plain_name(request.provider)) {
    fields.fail("provider", "must be [A-Za-z0-9][A-Za-z0-9._-]{0,99}");
  }
  return request;
}

LeaseToken read_heartbeat(JsonFields& fields) {
  return read_token(fields);
}

std::vector<LeaseRef> read_heartbeats(JsonFields& fields) {
  std::vector<LeaseRef> leases;
  fields.each("leases", limits::kHeartbeatsPerCall, [&](JsonFields& element) {
    LeaseRef& lease = leases.emplace_back();
    lease.task_id = element.required_string("task_id", 2 * limits::kNameBytes + 1);
    lease.token.value = element.required_string("lease_token", limits::kNameBytes);
  });
  return leases;
}

CompletionRequest read_completion(JsonFields& fields, SystemTime now) {
  CompletionRequest request;
  Completion& completion = request.completion;
  completion.lease_token = read_token(fields);
  completion.status =
      parse_task_state(fields.required_choice("status", {"done", "failed", "cancelled", "ready"}))
          .value_or(TaskState::kBlocked);
  completion.metadata = free_object(fields, "metadata", limits::kMetadataBytes);
  fields.each("artifacts", kItemsPerCall, [&](JsonFields& element) {
    completion.artifacts.push_back(read_artifact(element, now));
  });
  fields.each("events", kItemsPerCall, [&](JsonFields& element) {
    NewEvent event = read_event(element, now);
    Event& added = completion.events.emplace_back();
    added.event_type = std::move(event.event_type);
    added.data = std::move(event.data);
    added.timestamp = event.timestamp;
  });
  fields.nested("failure", [&](JsonFields& failure) {
    completion.failure.emplace();
    completion.failure->failure_class = failure.string("class", limits::kNameBytes).value_or("");
    completion.failure->reason = failure.string("reason", limits::kMetadataBytes).value_or("");
    completion.failure->retry_at = failure.time("retry_at");
  });
  request.next = read_next_claim(fields);
  return request;
}

std::string read_cancellation(JsonFields& fields) {
  return fields.string("reason", limits::kMetadataBytes).value_or("");
}

TaskQuery read_task_query(net::QueryFields& query) {
  TaskQuery wanted;
  wanted.spec = query.text("spec").value_or("");
  for (const char* name : {"state", "status"}) {
    for (const std::string& part : query.list(name)) {
      if (const auto state = parse_task_state(part)) {
        wanted.states.push_back(*state);
      } else {
        query.fail(name, "must be blocked, ready, running, done, failed or cancelled");
      }
    }
  }
  wanted.skill = query.text("skill").value_or("");
  wanted.label = query.text("label").value_or("");
  wanted.text = query.text("q").value_or("");
  wanted.since = query.time("since");
  wanted.until = query.time("until");
  wanted.sort = query.choice("sort", {"number", "priority", "age"}).value_or("number");
  wanted.limit = read_limit(query);
  wanted.cursor = query.text("cursor").value_or("");
  return wanted;
}

EventQuery read_event_query(net::QueryFields& query) {
  EventQuery wanted;
  wanted.spec = query.text("spec").value_or("");
  wanted.type = query.text("type").value_or("");
  wanted.since = query.time("since");
  wanted.until = query.time("until");
  auto after = query.integer("after", 0);
  if (!after) after = query.integer("cursor", 0);  // next_cursor of the page before is the same
  wanted.after = after.value_or(0);
  wanted.limit = read_limit(query);
  return wanted;
}

TasksetQuery read_taskset_query(net::QueryFields& query) {
  return {query.text("cursor").value_or(""), read_limit(query)};
}

GraphFormat read_graph_format(net::QueryFields& query) {
  const std::string format = query.choice("format", {"json", "dot", "mermaid"}).value_or("json");
  if (format == "dot") return GraphFormat::kDot;
  return format == "mermaid" ? GraphFormat::kMermaid : GraphFormat::kJson;
}

}  // namespace necrocode::registry
