#include "necrocode/registry/client.hpp"

#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode {
namespace {

using net::ServiceCall;

constexpr const char* kService = "task-registry";

net::ServiceOptions options_for(const std::string& base_url) {
  net::ServiceOptions options;
  options.base_url = base_url;
  return options;
}

ServiceCall call_for(std::string operation, std::string target, std::string method,
                     std::string path) {
  ServiceCall call;
  call.operation = std::move(operation);
  call.target = std::move(target);
  call.method = std::move(method);
  call.path = std::move(path);
  return call;
}

std::string task_path(const std::string& task_id, std::string_view rest = {}) {
  return "/tasks/" + percent_encode(task_id) + std::string(rest);
}

/// A clock's time for a field that the registry takes as the sender's.
Json now_json() {
  return Json(to_rfc3339(real_clock().system_now()));
}

void add_lease(Json& body, const LeaseToken& lease) {
  if (!lease.value.empty()) body.set("lease_token", lease.value);
}

Json object_or_empty(const Json& value) {
  return value.is_null() ? Json::object() : value;
}

/// `?a=b&c=d` of the values that are not empty.
std::string query_text(const std::vector<std::pair<std::string_view, std::string>>& values) {
  std::string text;
  for (const auto& [name, value] : values) {
    if (value.empty()) continue;
    text += (text.empty() ? "?" : "&") + std::string(name) + "=" + percent_encode(value);
  }
  return text;
}

std::string time_text(const std::optional<SystemTime>& time) {
  return time ? to_rfc3339(*time) : "";
}

const Json::Array& items_of(const Json& page, std::string_view name) {
  if (!page[name].is_array()) {
    ErrorInfo info;
    info.service = kService;
    throw InvalidResponse("the answer has no list \"" + std::string(name) + "\"", std::move(info));
  }
  return page[name].items();
}

std::optional<std::string> next_cursor(const Json& page) {
  const auto cursor = page["next_cursor"].as_string();
  return cursor ? std::optional<std::string>(*cursor) : std::nullopt;
}

[[noreturn]] void refuse_answer(const ServiceCall& call, const std::string& why,
                                std::vector<FieldError> fields = {}) {
  ErrorInfo info;
  info.service = kService;
  info.operation = call.operation;
  info.target = call.target;
  info.fields = std::move(fields);
  throw InvalidResponse("the answer is not as the protocol says: " + why, std::move(info));
}

ServiceCall completing(std::string operation, const std::string& task_id,
                       const registry::Completion& completion) {
  ServiceCall call =
      call_for(std::move(operation), task_id, "POST", task_path(task_id, "/complete"));
  call.body = completion.to_json();
  return call;
}

registry::HeartbeatAnswer read_heartbeat(const Json& answer, const ServiceCall& call) {
  JsonFields fields(answer);
  registry::HeartbeatAnswer heartbeat;
  const auto expires_at = fields.time("expires_at");
  heartbeat.cancel_requested = fields.boolean("cancel_requested").value_or(false);
  if (!expires_at || !fields.errors().empty()) {
    refuse_answer(call, "a heartbeat has expires_at and cancel_requested", fields.errors());
  }
  heartbeat.expires_at = *expires_at;
  return heartbeat;
}

}  // namespace

TaskRegistryClient::TaskRegistryClient(const std::string& base_url)
    : TaskRegistryClient(options_for(base_url)) {}
TaskRegistryClient::TaskRegistryClient(net::ServiceOptions options)
    : caller_(kService, std::move(options)) {}

registry::Task TaskRegistryClient::update_task_status(const std::string& task_id,
                                                      const std::string& status,
                                                      const Json& metadata, const LeaseToken& lease,
                                                      const CallContext& context) {
  ServiceCall call = call_for("update_task_status", task_id, "PUT", task_path(task_id, "/status"));
  call.body = Json::object(
      {{"status", status}, {"metadata", object_or_empty(metadata)}, {"updated_at", now_json()}});
  add_lease(call.body, lease);
  const Json answer = caller_.report(call, context).value_or(Json());
  // A service that answers 204 has done it, too.
  if (!answer.is_null()) return registry::Task::from_json(answer);
  registry::Task task;
  task.id = task_id;
  task.state = registry::parse_task_state(status).value_or(registry::TaskState::kBlocked);
  return task;
}

registry::Event TaskRegistryClient::add_event(const std::string& task_id,
                                              const std::string& event_type, const Json& data,
                                              const LeaseToken& lease, const CallContext& context) {
  ServiceCall call = call_for("add_event", task_id, "POST", task_path(task_id, "/events"));
  call.body = Json::object(
      {{"event_type", event_type}, {"data", object_or_empty(data)}, {"timestamp", now_json()}});
  add_lease(call.body, lease);
  const Json answer = caller_.report(call, context).value_or(Json());
  // A service that answers 204 has recorded it, too.
  if (!answer.is_null()) return registry::Event::from_json(answer);
  registry::Event event;
  event.task_id = task_id;
  event.event_type = event_type;
  event.data = data;
  return event;
}

void TaskRegistryClient::add_artifact(const std::string& task_id, const std::string& type,
                                      const std::string& uri,
                                      std::optional<std::int64_t> size_bytes, const Json& metadata,
                                      const LeaseToken& lease, const CallContext& context) {
  ServiceCall call = call_for("add_artifact", task_id, "POST", task_path(task_id, "/artifacts"));
  call.body = Json::object({{"type", type},
                            {"uri", uri},
                            {"size_bytes", size_bytes},
                            {"metadata", object_or_empty(metadata)},
                            {"created_at", now_json()}});
  add_lease(call.body, lease);
  caller_.report(call, context);
}

bool TaskRegistryClient::settle(const std::string& task_id, const CallContext& context) {
  return caller_.settle(task_id, context);
}

registry::Task TaskRegistryClient::get_task(const std::string& task_id,
                                            const CallContext& context) {
  return registry::Task::from_json(
      caller_.call_json(call_for("get_task", task_id, "GET", task_path(task_id)), context));
}

net::HealthStatus TaskRegistryClient::health_check() {
  return caller_.health_check("registry");
}

registry::Taskset TaskRegistryClient::submit(const Json& taskset, const CallContext& context,
                                             registry::TasksetPart part) {
  ServiceCall call = call_for("submit", taskset["spec_name"].string_or(""), "POST", "/tasksets");
  call.body = taskset;
  if (part == registry::TasksetPart::kHead) call.headers.set("Prefer", "return=minimal");
  return with_all_tasks(registry::Taskset::from_json(caller_.call_json(call, context)), context);
}

registry::Taskset TaskRegistryClient::get_taskset(const std::string& spec,
                                                  const CallContext& context,
                                                  registry::TasksetPart part) {
  ServiceCall call = call_for("get_taskset", spec, "GET", "/tasksets/" + percent_encode(spec));
  if (part == registry::TasksetPart::kHead) call.headers.set("Prefer", "return=minimal");
  return with_all_tasks(registry::Taskset::from_json(caller_.call_json(call, context)), context);
}

registry::Taskset TaskRegistryClient::with_all_tasks(registry::Taskset taskset,
                                                     const CallContext& context) {
  registry::TaskQuery rest;
  rest.spec = taskset.spec_name;
  rest.limit = static_cast<int>(limits::kPageSizeMax);
  while (const auto cursor = std::exchange(taskset.next_cursor, std::nullopt)) {
    rest.cursor = *cursor;
    registry::TaskPage page = list(rest, context);
    taskset.tasks.insert(taskset.tasks.end(), std::make_move_iterator(page.items.begin()),
                         std::make_move_iterator(page.items.end()));
    // A service that repeats its cursor would be asked for ever.
    if (page.next_cursor != cursor) taskset.next_cursor = std::move(page.next_cursor);
  }
  return taskset;
}

std::vector<registry::Taskset> TaskRegistryClient::list_tasksets(const CallContext& context) {
  std::vector<registry::Taskset> tasksets;
  std::string cursor;
  while (true) {
    const std::string path = "/tasksets" + query_text({{"cursor", cursor}});
    const Json page = caller_.call_json(call_for("list_tasksets", "", "GET", path), context);
    for (const Json& item : items_of(page, "items")) {
      tasksets.push_back(registry::Taskset::from_json(item));
    }
    const auto next = next_cursor(page);
    // A service that repeats its cursor would be asked for ever.
    if (!next || *next == cursor) return tasksets;
    cursor = *next;
  }
}

std::vector<registry::ClaimedTask> TaskRegistryClient::claim(const registry::ClaimRequest& request,
                                                             const CallContext& context) {
  ServiceCall call = call_for("claim", request.task_id.value_or(""), "POST", "/tasks/claim");
  call.body = request.to_json();
  call.extra_time = request.wait;
  const Json answer = caller_.call_json(call, context);
  std::vector<registry::ClaimedTask> claimed;
  if (answer.is_null()) return claimed;
  for (const Json& task : items_of(answer, "tasks")) {
    claimed.push_back(registry::ClaimedTask::from_json(task));
    if (claimed.back().lease.count() == 0) claimed.back().lease = request.lease;
  }
  return claimed;
}

registry::HeartbeatAnswer TaskRegistryClient::heartbeat(const std::string& task_id,
                                                        const LeaseToken& lease,
                                                        const CallContext& context) {
  ServiceCall call = call_for("heartbeat", task_id, "POST", task_path(task_id, "/heartbeat"));
  call.body = Json::object({{"lease_token", lease.value}});
  return read_heartbeat(caller_.call_json(call, context), call);
}

std::vector<std::optional<registry::HeartbeatAnswer>> TaskRegistryClient::heartbeats(
    const std::vector<registry::LeaseRef>& leases, const CallContext& context) {
  ServiceCall call =
      call_for("heartbeats", std::to_string(leases.size()) + " leases", "POST", "/heartbeats");
  Json asked = Json::array();
  for (const registry::LeaseRef& lease : leases) {
    asked.push_back(Json::object({{"task_id", lease.task_id}, {"lease_token", lease.token.value}}));
  }
  call.body = Json::object({{"leases", std::move(asked)}});
  const Json answer = caller_.call_json(call, context);
  const Json::Array& items = items_of(answer, "items");
  if (items.size() != leases.size()) refuse_answer(call, "one item a lease is due");
  std::vector<std::optional<registry::HeartbeatAnswer>> heartbeats;
  for (const Json& item : items) {
    heartbeats.push_back(item["error"].is_null() ? std::optional(read_heartbeat(item, call))
                                                 : std::nullopt);
  }
  return heartbeats;
}

registry::Task TaskRegistryClient::complete(const std::string& task_id,
                                            const registry::Completion& completion,
                                            const CallContext& context) {
  const ServiceCall call = completing("complete", task_id, completion);
  return registry::Task::from_json(caller_.call_json(call, context)["task"]);
}

bool TaskRegistryClient::complete_or_keep(const std::string& task_id,
                                          const registry::Completion& completion,
                                          const CallContext& context) {
  return caller_.report(completing("complete_or_keep", task_id, completion), context, true)
      .has_value();
}

registry::Task TaskRegistryClient::cancel(const std::string& task_id, const std::string& reason,
                                          const CallContext& context) {
  ServiceCall call = call_for("cancel", task_id, "POST", task_path(task_id, "/cancel"));
  call.body = Json::object({{"reason", reason}});
  return registry::Task::from_json(caller_.call_json(call, context));
}

registry::Task TaskRegistryClient::retry(const std::string& task_id, const CallContext& context) {
  ServiceCall call = call_for("retry", task_id, "POST", task_path(task_id, "/retry"));
  call.body = Json::object();
  return registry::Task::from_json(caller_.call_json(call, context));
}

registry::TaskPage TaskRegistryClient::list(const registry::TaskQuery& query,
                                            const CallContext& context) {
  std::vector<std::string> states;
  for (const registry::TaskState state : query.states) states.emplace_back(to_string(state));
  const std::string path = "/tasks" + query_text({{"spec", query.spec},
                                                  {"state", join(states, ",")},
                                                  {"skill", query.skill},
                                                  {"label", query.label},
                                                  {"q", query.text},
                                                  {"since", time_text(query.since)},
                                                  {"until", time_text(query.until)},
                                                  {"sort", query.sort},
                                                  {"limit", std::to_string(query.limit)},
                                                  {"cursor", query.cursor}});
  const Json answer = caller_.call_json(call_for("list", query.spec, "GET", path), context);
  registry::TaskPage page;
  for (const Json& item : items_of(answer, "items"))
    page.items.push_back(registry::Task::from_json(item));
  page.next_cursor = next_cursor(answer);
  return page;
}

registry::Task TaskRegistryClient::patch(const std::string& task_id, const Json& changes,
                                         const CallContext& context) {
  ServiceCall call = call_for("patch", task_id, "PATCH", "/tasks/" + percent_encode(task_id));
  call.body = changes;
  return registry::Task::from_json(caller_.call_json(call, context));
}

registry::Explanation TaskRegistryClient::explain(const std::string& task_id,
                                                  const CallContext& context) {
  const std::string path = "/tasks/" + percent_encode(task_id) + "/explain";
  return registry::Explanation::from_json(
      caller_.call_json(call_for("explain", task_id, "GET", path), context));
}

std::vector<registry::AttemptRecord> TaskRegistryClient::attempts(const std::string& task_id,
                                                                  const CallContext& context) {
  const std::string path = "/tasks/" + percent_encode(task_id) + "/attempts";
  const Json answer = caller_.call_json(call_for("attempts", task_id, "GET", path), context);
  std::vector<registry::AttemptRecord> records;
  for (const Json& item : items_of(answer, "items")) {
    records.push_back(registry::AttemptRecord::from_json(item));
  }
  return records;
}

registry::ParkedProvider TaskRegistryClient::park(const std::string& provider, SystemTime until,
                                                  const std::string& reason,
                                                  const CallContext& context) {
  const std::string path = "/providers/" + percent_encode(provider) + "/park";
  ServiceCall call = call_for("park", provider, "POST", path);
  call.body = Json::object({{"until", to_rfc3339(until)}, {"reason", reason}});
  return registry::ParkedProvider::from_json(caller_.call_json(call, context));
}

void TaskRegistryClient::unpark(const std::string& provider, const CallContext& context) {
  const std::string path = "/providers/" + percent_encode(provider) + "/park";
  caller_.call_json(call_for("unpark", provider, "DELETE", path), context);
}

std::vector<registry::ParkedProvider> TaskRegistryClient::parked_providers(
    const CallContext& context) {
  const Json answer =
      caller_.call_json(call_for("parked_providers", "", "GET", "/providers"), context);
  std::vector<registry::ParkedProvider> providers;
  for (const Json& item : items_of(answer, "items")) {
    providers.push_back(registry::ParkedProvider::from_json(item));
  }
  return providers;
}

registry::EventPage TaskRegistryClient::events(const registry::EventFilter& filter, int limit,
                                               const CallContext& context) {
  const std::string path =
      filter.path() + "&after=" + std::to_string(filter.after) + "&limit=" + std::to_string(limit);
  const Json answer = caller_.call_json(call_for("events", filter.task_id, "GET", path), context);
  registry::EventPage page;
  for (const Json& item : items_of(answer, "items"))
    page.items.push_back(registry::Event::from_json(item));
  page.next_cursor = next_cursor(answer);
  return page;
}

Json TaskRegistryClient::graph(const std::string& spec, const std::string& format,
                               const CallContext& context) {
  const std::string path =
      "/tasksets/" + percent_encode(spec) + "/graph" + query_text({{"format", format}});
  const ServiceCall call = call_for("graph", spec, "GET", path);
  if (format == "json") return caller_.call_json(call, context);
  return Json(caller_.call(call, context).body);
}

}  // namespace necrocode
