#include "necrocode/registry/service_schemas.hpp"

#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/json_schema.hpp"
#include "necrocode/registry/model.hpp"
#include "necrocode/registry/service_requests.hpp"

namespace necrocode::registry {
namespace {

using namespace schema;

Json state() {
  std::vector<std::string> names;
  for (const TaskState state : kTaskStates) names.emplace_back(to_string(state));
  return choice(names);
}

Json any_of(Json::Array schemas) {
  return Json::object({{"anyOf", Json(std::move(schemas))}});
}

/// Members that are one type or another, which no reader can tell.
Json spoken_otherwise() {
  const Json policy = choice({"block", "cancel", "run"});
  const Json attempts = integer();
  return Json::object({{"on_dependency_failure", any_of({policy, map(policy)})},
                       {"max_attempts", any_of({attempts, map(attempts)})}});
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
                      {"not_before", time()},
                      {"failure", ref("Failure")}});
  Json properties = json["properties"];
  const Json submitted = describe_fields(TaskSpec::from_json);
  for (const auto& [name, schema] : submitted["properties"].members()) {
    if (!properties.find(name)) properties.set(name, schema);
  }
  for (const auto& [name, schema] : spoken_otherwise().members()) properties.set(name, schema);
  return json.set("properties", std::move(properties));
}

}  // namespace

Json submission_schema() {
  Json submission = describe_fields(read_submission);
  Json properties = submission["properties"];
  Json tasks = properties["tasks"];
  Json element = tasks["items"];
  Json fields = element["properties"];
  for (const auto& [name, schema] : spoken_otherwise().members()) fields.set(name, schema);
  tasks.set("items", element.set("properties", std::move(fields)));
  properties.set("tasks", std::move(tasks));
  return submission.set("properties", std::move(properties));
}

void define_schemas(net::Api& api) {
  api.define("Task", task());
  api.define("ClaimedTask", with(task(), {{"lease_token", text()},
                                          {"expires_at", time()},
                                          {"lease_seconds", number()},
                                          {"previous_attempts", list(ref("Attempt"))}}));
  const Json attempt = object({{"attempt", integer()},
                               {"runner_id", text()},
                               {"provider", text()},
                               {"slot_id", text()},
                               {"branch", text()},
                               {"commit", text()},
                               {"started_at", time()},
                               {"outcome", text()},
                               {"cost_usd", number()},
                               {"tokens", integer()},
                               {"artifacts", list(ref("ArtifactReference"))}},
                              {{"ended_at", time()}, {"failure", ref("Failure")}});
  api.define("Attempt", attempt);
  api.define("Attempts", object({{"items", list(ref("Attempt"))}}));
  const Json reason =
      object({{"kind", text()}, {"detail", text()}}, {{"task_id", text()}, {"until", time()}});
  api.define("Explanation", object({{"task_id", text()},
                                    {"state", state()},
                                    {"claimable", boolean()},
                                    {"reasons", list(reason)}}));
  api.define("ParkedProvider", object({{"name", text()}, {"until", time()}, {"reason", text()}},
                                      {{"probe", text()}}));
  api.define("ParkedProviders", object({{"items", list(ref("ParkedProvider"))}}));
  // `runner_id`: of a lease that was not renewed, whose runner tells nothing itself.
  api.define("Failure", object({{"class", text()}, {"reason", text()}},
                               {{"retry_at", time()}, {"runner_id", text()}}));
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
  const Json spend = object({{"usd", number()}, {"tokens", integer()}});
  const Json head = object({{"spec_name", text()},
                            {"version", integer()},
                            {"metadata", free_object()},
                            {"counts", map(integer())},
                            {"max_running", integer()},
                            {"budget", spend},
                            {"spent", spend},
                            {"unblock_on", choice({"done", "merged"})},
                            {"created_at", time()},
                            {"updated_at", time()}});
  api.define("TasksetHead", head);
  // `tasks` as far as they go into one answer, and whole: not with return=minimal, and where there
  // is a next_cursor GET /tasks?spec=… has the rest.
  Json taskset = with(head, {});
  Json properties = taskset["properties"];
  properties.set("tasks", list(ref("Task"))).set("next_cursor", text());
  api.define("Taskset", taskset.set("properties", std::move(properties)));
  api.define(
      "TaskGraph",
      object({{"spec_name", text()},
              {"nodes", list(object({{"id", text()}, {"title", text()}, {"state", state()}},
                                    {{"external", boolean()}}))},
              {"edges", list(object({{"from", text()}, {"to", text()}}, {{"on_failure", text()}}))},
              {"levels", list(list(text()))}}));
}

}  // namespace necrocode::registry
