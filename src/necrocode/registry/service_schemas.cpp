#include "necrocode/registry/service_schemas.hpp"

#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/json_schema.hpp"
#include "necrocode/registry/model.hpp"

namespace necrocode::registry {
namespace {

using namespace schema;

Json state() {
  std::vector<std::string> names;
  for (const TaskState state : kTaskStates) names.emplace_back(to_string(state));
  return choice(names);
}

/// What the registry knows of it, and what it was submitted with, as it was sent.
Json task() {
  Json json = object({{"id", text()},
                      {"task_id", text()},
                      {"spec_name", text()},
                      {"number", text()},
                      {"state", state()},
                      {"status", state()},
                      {"dependencies", list(text())},
                      {"attempt", integer()},
                      {"metadata", free_object()},
                      {"artifacts", list(ref("ArtifactReference"))},
                      {"cancel_requested", boolean()},
                      {"version", integer()},
                      {"created_at", time()},
                      {"updated_at", time()}},
                     {{"base_commits", list(text())},
                      {"runner_id", text()},
                      {"blocked_reason", text()},
                      {"failure", ref("Failure")}});
  Json properties = json["properties"];
  const Json submitted = describe_fields(TaskSpec::from_json);
  for (const auto& [name, schema] : submitted["properties"].members()) {
    if (!properties.find(name)) properties.set(name, schema);
  }
  return json.set("properties", std::move(properties));
}

}  // namespace

void define_schemas(net::Api& api) {
  api.define("Task", task());
  api.define(
      "ClaimedTask",
      with(task(), {{"lease_token", text()}, {"expires_at", time()}, {"lease_seconds", number()}}));
  api.define("Failure", object({{"class", text()}, {"reason", text()}}, {{"retry_at", time()}}));
  api.define("ArtifactReference", object({{"type", text()},
                                          {"uri", text()},
                                          {"size_bytes", or_null(integer())},
                                          {"metadata", free_object()},
                                          {"created_at", time()},
                                          {"attempt", integer()}}));
  api.define("Event", object({{"id", integer()},
                              {"task_id", text()},
                              {"event_type", text()},
                              {"data", free_object()},
                              {"timestamp", time()},
                              {"recorded_at", time()},
                              {"attempt", integer()}}));
  api.define(
      "Renewal",
      object({{"task_id", text()}, {"expires_at", time()}, {"cancel_requested", boolean()}}));
  api.define("Renewals",
             object({{"items", list(object({{"task_id", text()}}, {{"expires_at", time()},
                                                                   {"cancel_requested", boolean()},
                                                                   {"error", text()}}))}}));
  api.define("Claimed", object({{"tasks", list(ref("ClaimedTask"))}}));
  api.define("Completed", object({{"task", ref("Task")}, {"next", or_null(ref("ClaimedTask"))}}));
  const Json head = object({{"spec_name", text()},
                            {"version", integer()},
                            {"metadata", free_object()},
                            {"counts", map(integer())},
                            {"created_at", time()},
                            {"updated_at", time()}});
  api.define("TasksetHead", head);
  api.define("Taskset", with(head, {{"tasks", list(ref("Task"))}}));
  api.define("TaskGraph",
             object({{"spec_name", text()},
                     {"nodes", list(object({{"id", text()}, {"title", text()}, {"state", state()}},
                                           {{"external", boolean()}}))},
                     {"edges", list(object({{"from", text()}, {"to", text()}}))},
                     {"levels", list(list(text()))}}));
}

}  // namespace necrocode::registry
