#include "necrocode/registry/service.hpp"

#include <functional>
#include <thread>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/json_schema.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/registry/claim_queue.hpp"
#include "necrocode/registry/event_feeds.hpp"
#include "necrocode/registry/graph.hpp"
#include "necrocode/registry/service_requests.hpp"
#include "necrocode/registry/service_schemas.hpp"

namespace necrocode::registry {
namespace {

using net::HttpError;
using net::Request;
using net::Response;

constexpr auto kRetentionInterval = std::chrono::hours(1);
constexpr const char* kDotType = "text/vnd.graphviz; charset=utf-8";
constexpr const char* kMermaidType = "text/plain; charset=utf-8";

std::string etag_of(std::int64_t version) {
  return '"' + std::to_string(version) + '"';
}

Response task_response(const Task& task, int status = 200) {
  Response response = Response::json(status, task.to_json());
  response.headers.set("ETag", etag_of(task.version));
  return response;
}

/// 304 for who has `response` already, as its ETag says.
Response unless_unchanged(const Request& request, Response response) {
  const std::string etag(response.headers.get_or("ETag", ""));
  if (!net::etag_matches(request.headers.get_or("If-None-Match", ""), etag)) return response;
  Response unchanged = Response::empty(304);
  unchanged.headers.set("ETag", etag);
  return unchanged;
}

Json page_json(Json::Array items, const std::optional<std::string>& next_cursor) {
  return Json::object({{"items", Json(std::move(items))}, {"next_cursor", next_cursor}});
}

/// `Last-Event-ID`, which wins over `after`: a reader that comes back asks for the same address.
std::int64_t read_last_event_id(const Request& request, std::int64_t after) {
  const auto text = request.headers.get("Last-Event-ID");
  if (!text || trim(*text).empty()) return after;
  const auto id = parse_int(trim(*text));
  if (!id || *id < 0) throw HttpError(400, "Last-Event-ID must be an event's id");
  return *id;
}

/// Named by the client; for who takes anything a page is meant.
bool wants_feed(const Request& request) {
  const std::string accepted = request.headers.get_or("Accept", "");
  for (const std::string_view range : split(accepted, ',')) {
    const std::string_view type = trim(range.substr(0, range.find(';')));
    if (iequals(type, "text/event-stream")) return true;
  }
  return false;
}

/// RFC 7240: the answer without its list.
bool wants_minimal(const Request& request) {
  return iequals(request.headers.get_or("Prefer", ""), "return=minimal");
}

VersionCondition read_if_match(const Request& request) {
  const auto field = request.headers.get("If-Match");
  if (!field) return {};
  return [tags = std::string(*field)](std::int64_t version) {
    return net::etag_matches_strongly(tags, etag_of(version));
  };
}

/// As a task names its provider.
void require_provider_name(const Request& request) {
  if (is_plain_name(request.param("name"))) return;
  throw HttpError(422, "a provider's name is [A-Za-z0-9][A-Za-z0-9._-]{0,99}");
}

std::string summary_of(const std::exception_ptr& problem) {
  try {
    std::rethrow_exception(problem);
  } catch (const RunnerError& error) {
    return error.summary();
  }
}

Json heartbeat_json(const HeartbeatResult& result) {
  Json json = Json::object({{"task_id", result.task_id}});
  if (result.answer) {
    json.set("expires_at", to_rfc3339(result.answer->expires_at));
    json.set("cancel_requested", result.answer->cancel_requested);
  } else {
    json.set("error", summary_of(result.problem));
  }
  return json;
}

Json claims_json(const std::vector<ClaimedTask>& claimed) {
  Json tasks = Json::array();
  for (const ClaimedTask& task : claimed) tasks.push_back(task.to_json());
  return tasks;
}

Response claim_response(const ClaimOutcome& outcome) {
  try {
    const std::vector<ClaimedTask>& claimed = outcome.get();
    if (claimed.empty()) return Response::empty(204);
    return Response::json(200, Json::object({{"tasks", claims_json(claimed)}}));
  } catch (const std::exception& error) {
    Request request;
    request.path = "/tasks/claim";
    return net::problem_for(error, request);
  }
}

}  // namespace

struct RegistryService::State {
  State(std::unique_ptr<TaskStore> task_store, const Clock& time, const Retention& old)
      : store(std::move(task_store)),
        clock(time),
        retention(old),
        claims(*store, clock, claim_response),
        feeds(*store) {
    if (!retention.tasksets && !retention.events) return;
    janitor = std::jthread([this](const std::stop_token& stop) { remove_old(stop); });
  }

  void remove_old(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      try {
        while (!stop.stop_requested() && store->purge(retention)) {
        }
      } catch (const std::exception& error) {
        log::error("cannot remove what is too old", {{"error", error.what()}});
      }
      clock.sleep_until(clock.steady_now() + kRetentionInterval, stop);
    }
  }

  std::unique_ptr<TaskStore> store;
  const Clock& clock;
  const Retention retention;
  ClaimQueue claims;
  EventFeeds feeds;
  std::jthread janitor;

  using Change = std::function<Response(TaskChanges&, const Request&)>;
  /// The answer to a changing request: its first one when it is told again with its
  /// Idempotency-Key, else what `make` answers, in one transaction with what it changes. Parked: no
  /// thread waits for the commit.
  Response change_once(const Request& request, Change make) {
    // Where the transaction's changes are told to `make`.
    const auto inside = std::make_shared<TaskChanges*>();
    auto transact = [this, inside](auto work, auto done) {
      store->transact_later(
          [inside, work = std::move(work)](TaskChanges& changes) {
            *inside = &changes;
            work(changes.answers());
          },
          std::move(done));
    };
    return net::answer_once_later(request, std::move(transact),
                                  [inside, make = std::move(make)](const Request& kept) {
                                    try {
                                      return make(**inside, kept);
                                    } catch (const LostUpdate& error) {
                                      throw HttpError(412, error.summary());
                                    }
                                  });
  }

  Response put_status(const Request& request);
  Response post_event(const Request& request);
  Response get_events(const Request& request);
  Response post_artifact(const Request& request);
  Response get_task(const Request& request);
  Response get_tasks(const Request& request);
  Response post_taskset(const Request& request);
  Response get_tasksets(const Request& request);
  Response get_taskset(const Request& request);
  Response get_graph(const Request& request);
  Response post_claim(const Request& request);
  Response post_heartbeat(const Request& request);
  Response post_heartbeats(const Request& request);
  Response post_complete(const Request& request);
  Response post_cancel(const Request& request);
  Response post_retry(const Request& request);
  Response patch_task(const Request& request);
  Response get_explanation(const Request& request);
  Response get_attempts(const Request& request);
  Response post_park(const Request& request);
  Response delete_park(const Request& request);
  Response get_providers(const Request& request);
};

Response RegistryService::State::put_status(const Request& request) {
  StatusChange change = net::read_body(request, "status", read_status_change);
  change.lease_token = lease_token_of(change.lease_token, request);
  change.expected = read_if_match(request);
  return change_once(request, [change](TaskChanges& changes, const Request& kept) {
    return task_response(changes.set_status(kept.param("id"), change));
  });
}

Response RegistryService::State::post_event(const Request& request) {
  NewEvent event = net::read_body(
      request, "event", [&](auto& fields) { return read_new_event(fields, clock.system_now()); });
  event.lease_token = lease_token_of(event.lease_token, request);
  return change_once(request, [event](TaskChanges& changes, const Request& kept) {
    return Response::json(201, changes.add_event(kept.param("id"), event).to_json());
  });
}

Response RegistryService::State::get_events(const Request& request) {
  const bool feed = wants_feed(request);
  EventQuery query = net::read_query(request, [&](net::QueryFields& fields) {
    for (const char* name : {"limit", "until"}) {
      if (feed && request.query_value(name))
        fields.fail(name, "does not go with a feed, which has no end");
    }
    return read_event_query(fields);
  });
  if (const auto id = request.params.find("id"); id != request.params.end()) {
    query.task_id = id->second;
  }
  if (feed) {
    query.after = read_last_event_id(request, query.after);
    return feeds.open(std::move(query));
  }
  const EventPage page = store->events(query);
  Json::Array items;
  for (const Event& event : page.items) items.push_back(event.to_json());
  return Response::json(200, page_json(std::move(items), page.next_cursor));
}

Response RegistryService::State::post_artifact(const Request& request) {
  NewArtifact artifact = net::read_body(request, "artifact", [&](auto& fields) {
    return read_new_artifact(fields, clock.system_now());
  });
  artifact.lease_token = lease_token_of(artifact.lease_token, request);
  return change_once(request, [artifact](TaskChanges& changes, const Request& kept) {
    return Response::json(201, changes.add_artifact(kept.param("id"), artifact).to_json());
  });
}

Response RegistryService::State::get_task(const Request& request) {
  return unless_unchanged(request, task_response(store->task(request.param("id"))));
}

Response RegistryService::State::get_tasks(const Request& request) {
  const TaskPage page = store->tasks(net::read_query(request, read_task_query));
  Json::Array items;
  for (const Task& task : page.items) items.push_back(task.to_json());
  Response response = Response::json(200, page_json(std::move(items), page.next_cursor));
  // Of the page, which has no version: the digest of what it says.
  response.headers.set("ETag", '"' + sha256_hex(std::get<std::string>(response.body)) + '"');
  return unless_unchanged(request, std::move(response));
}

// The taskset may be large: only the status is kept, and the body is how it stands now.
Response RegistryService::State::post_taskset(const Request& request) {
  const Submission submission = net::read_body(request, "taskset", read_submission);
  const bool minimal = wants_minimal(request);
  TaskChanges* inside = nullptr;
  const auto transact = [&](const std::function<void(net::IdempotencyStore&)>& work) {
    store->transact([&](TaskChanges& changes) {
      inside = &changes;
      work(changes.answers());
    });
  };
  const Response kept = net::answer_once(request, transact, [&] {
    return Response::json(inside->submit(submission) ? 201 : 200, Json::object());
  });
  const Taskset taskset =
      store->taskset(submission.spec_name, minimal ? TasksetPart::kHead : TasksetPart::kWhole);
  Response answer = Response::json(kept.status, taskset.to_json());
  if (minimal) answer.headers.set("Preference-Applied", "return=minimal");
  if (const auto replayed = kept.headers.get("Idempotent-Replayed")) {
    answer.headers.set("Idempotent-Replayed", std::string(*replayed));
  }
  return answer;
}

Response RegistryService::State::get_tasksets(const Request& request) {
  const TasksetQuery query = net::read_query(request, read_taskset_query);
  const TasksetPage page = store->tasksets(query.cursor, query.limit);
  Json::Array items;
  for (const Taskset& taskset : page.items) items.push_back(taskset.to_json());
  return Response::json(200, page_json(std::move(items), page.next_cursor));
}

Response RegistryService::State::get_taskset(const Request& request) {
  const bool minimal = wants_minimal(request);
  const Taskset taskset =
      store->taskset(request.param("spec"), minimal ? TasksetPart::kHead : TasksetPart::kWhole);
  Response answer = Response::json(200, taskset.to_json());
  if (minimal) answer.headers.set("Preference-Applied", "return=minimal");
  return answer;
}

Response RegistryService::State::get_graph(const Request& request) {
  const GraphFormat format = net::read_query(request, read_graph_format);
  const TaskGraph graph = store->graph(request.param("spec"));
  if (format == GraphFormat::kDot) return Response::text(200, graph_dot(graph), kDotType);
  if (format == GraphFormat::kMermaid)
    return Response::text(200, graph_mermaid(graph), kMermaidType);
  return Response::json(200, graph_json(graph));
}

Response RegistryService::State::post_claim(const Request& request) {
  const ClaimRequest claim = net::read_body(request, "claim", read_claim);
  return claims.claim(claim, net::read_idempotency_key(request));
}

Response RegistryService::State::post_heartbeat(const Request& request) {
  const LeaseToken token = net::read_body(request, "heartbeat", read_heartbeat);
  const LeaseRef lease{request.param("id"), lease_token_of(token, request)};
  const HeartbeatResult result = store->heartbeat({lease}).front();
  if (!result.answer) std::rethrow_exception(result.problem);
  return Response::json(200, heartbeat_json(result));
}

Response RegistryService::State::post_heartbeats(const Request& request) {
  const std::vector<LeaseRef> leases = net::read_body(request, "heartbeats", read_heartbeats);
  Json items = Json::array();
  for (const HeartbeatResult& result : store->heartbeat(leases))
    items.push_back(heartbeat_json(result));
  return Response::json(200, Json::object({{"items", std::move(items)}}));
}

Response RegistryService::State::post_complete(const Request& request) {
  CompletionRequest told = net::read_body(request, "completion", [&](auto& fields) {
    return read_completion(fields, clock.system_now());
  });
  told.completion.lease_token = lease_token_of(told.completion.lease_token, request);
  const VersionCondition expected = read_if_match(request);
  return change_once(
      request, [told = std::move(told), expected](TaskChanges& changes, const Request& kept) {
        const Completed completed =
            changes.complete(kept.param("id"), told.completion, told.next, expected);
        Response answer = Response::json(
            200, Json::object({{"task", completed.task.to_json()},
                               {"next", completed.next ? completed.next->to_json() : Json()}}));
        answer.headers.set("ETag", etag_of(completed.task.version));
        return answer;
      });
}

Response RegistryService::State::post_cancel(const Request& request) {
  const std::string reason = net::read_body(request, "cancellation", read_cancellation);
  const VersionCondition expected = read_if_match(request);
  return change_once(request, [reason, expected](TaskChanges& changes, const Request& kept) {
    return task_response(changes.cancel(kept.param("id"), reason, expected));
  });
}

Response RegistryService::State::post_retry(const Request& request) {
  const VersionCondition expected = read_if_match(request);
  return change_once(request, [expected](TaskChanges& changes, const Request& kept) {
    return task_response(changes.retry(kept.param("id"), expected));
  });
}

Response RegistryService::State::patch_task(const Request& request) {
  TaskPatch patch = net::read_body(request, "patch", read_patch);
  patch.expected = read_if_match(request);
  return change_once(request, [patch](TaskChanges& changes, const Request& kept) {
    return task_response(changes.patch(kept.param("id"), patch));
  });
}

Response RegistryService::State::get_explanation(const Request& request) {
  return Response::json(200, store->explain(request.param("id")).to_json());
}

Response RegistryService::State::get_attempts(const Request& request) {
  Json::Array items;
  for (const AttemptRecord& record : store->attempts(request.param("id"))) {
    items.push_back(record.to_json());
  }
  return Response::json(200, Json::object({{"items", Json(std::move(items))}}));
}

Response RegistryService::State::post_park(const Request& request) {
  const Parking parking = net::read_body(request, "parking", read_parking);
  require_provider_name(request);
  return change_once(request, [parking](TaskChanges& changes, const Request& kept) {
    return Response::json(
        200, changes.park(kept.param("name"), parking.until, parking.reason).to_json());
  });
}

Response RegistryService::State::delete_park(const Request& request) {
  return change_once(request, [](TaskChanges& changes, const Request& kept) {
    changes.unpark(kept.param("name"));
    return Response::empty(204);
  });
}

Response RegistryService::State::get_providers(const Request&) {
  Json::Array items;
  for (const ParkedProvider& provider : store->parked_providers()) {
    items.push_back(provider.to_json());
  }
  return Response::json(200, Json::object({{"items", Json(std::move(items))}}));
}

RegistryService::RegistryService(std::unique_ptr<TaskStore> store, const Clock& clock,
                                 const Retention& retention)
    : state_(std::make_shared<State>(std::move(store), clock, retention)) {}

RegistryService::~RegistryService() {
  stop();
}

void RegistryService::stop() {
  state_->claims.stop();
  state_->janitor.request_stop();
  if (state_->janitor.joinable()) state_->janitor.join();
}

bool RegistryService::healthy(std::string& detail) {
  try {
    state_->store->check();
    detail = "ok";
    return true;
  } catch (const std::exception& error) {
    detail = error.what();
    return false;
  }
}

void RegistryService::add_metrics(metrics::Registry& registry) {
  registry.gauge("necrocode_tasks", "Tasks of all tasksets.", [state = state_] {
    std::vector<metrics::Sample> samples;
    for (const auto& [task_state, count] : state->store->counts()) {
      samples.push_back(
          {{{"state", std::string(to_string(task_state))}}, static_cast<double>(count)});
    }
    return samples;
  });
}

void RegistryService::add_routes(net::Api& api) {
  using net::Answer;
  using schema::ref;
  using Method = Response (State::*)(const Request&);
  // Room for the envelope of the largest event.
  net::RouteOptions event_options;
  event_options.body_bytes_max = limits::kEventBytes + 64 * limits::kKiB;
  const auto route = [&](Method handler, net::Operation operation, net::RouteOptions options = {}) {
    api.route(std::move(operation), std::bind_front(handler, state_), options);
  };
  // Those whose change is handed to the store's writer, which answers after its commit.
  const auto change = [&](Method handler, net::Operation operation,
                          net::RouteOptions options = {}) {
    options.brief = true;
    route(handler, std::move(operation), options);
  };
  const Answer task{200, ref("Task"), {"ETag"}};
  const Answer feed{200, schema::text(), {}, "text/event-stream"};
  const auto at_no_time = [](auto read) { return [read](JsonFields& f) { read(f, {}); }; };

  api.begin_part("Task Registry", "Tasks, their states, leases and history.");
  define_schemas(api);
  change(&State::put_status, {.method = "PUT",
                              .path = "/tasks/{id}/status",
                              .id = "setTaskStatus",
                              .summary = "Change a task's state",
                              .headers = {"Idempotency-Key", "If-Match", "X-Lease-Token"},
                              .body = describe_fields(read_status_change),
                              .answers = {task},
                              .errors = {404, 409, 412}});
  change(&State::post_event,
         {.method = "POST",
          .path = "/tasks/{id}/events",
          .id = "addEvent",
          .summary = "Add a line to a task's history",
          .headers = {"Idempotency-Key", "X-Lease-Token"},
          .body = describe_fields(at_no_time(read_new_event)),
          .answers = {{201, ref("Event")}},
          .errors = {404, 409}},
         event_options);
  change(&State::post_artifact,
         {.method = "POST",
          .path = "/tasks/{id}/artifacts",
          .id = "addArtifactReference",
          .summary = "Record where an artifact of a task is",
          .headers = {"Idempotency-Key", "X-Lease-Token"},
          .body = describe_fields(at_no_time(read_new_artifact)),
          .answers = {{201, ref("ArtifactReference")}},
          .errors = {404, 409}},
         event_options);
  route(&State::post_heartbeat, {.method = "POST",
                                 .path = "/tasks/{id}/heartbeat",
                                 .id = "renewLease",
                                 .summary = "Renew a lease",
                                 .headers = {"X-Lease-Token"},
                                 .body = describe_fields(read_heartbeat),
                                 .answers = {{200, ref("Renewal")}},
                                 .errors = {404, 409}});
  change(&State::post_complete, {.method = "POST",
                                 .path = "/tasks/{id}/complete",
                                 .id = "completeTask",
                                 .summary = "End an attempt and, if asked, claim the next task",
                                 .headers = {"Idempotency-Key", "If-Match", "X-Lease-Token"},
                                 .body = describe_fields(at_no_time(read_completion)),
                                 .answers = {{200, ref("Completed"), {"ETag"}}},
                                 .errors = {404, 409, 412}});
  change(&State::post_cancel, {.method = "POST",
                               .path = "/tasks/{id}/cancel",
                               .id = "cancelTask",
                               .summary = "Cancel a task; a running one is told by its heartbeat",
                               .headers = {"Idempotency-Key", "If-Match"},
                               .body = describe_fields(read_cancellation),
                               .answers = {task},
                               .errors = {404, 409, 412}});
  change(&State::post_retry, {.method = "POST",
                              .path = "/tasks/{id}/retry",
                              .id = "retryTask",
                              .summary = "Give a failed or cancelled task new attempts",
                              .headers = {"Idempotency-Key", "If-Match"},
                              .answers = {task},
                              .errors = {404, 409, 412}});
  change(&State::patch_task, {.method = "PATCH",
                              .path = "/tasks/{id}",
                              .id = "patchTask",
                              .summary = "Change a task's priority, labels or metadata",
                              .headers = {"Idempotency-Key", "If-Match"},
                              .body = describe_fields(read_patch),
                              .answers = {task},
                              .errors = {404, 409, 412}});
  route(&State::get_explanation, {.method = "GET",
                                  .path = "/tasks/{id}/explain",
                                  .id = "explainTask",
                                  .summary = "Why a task does not run",
                                  .answers = {{200, ref("Explanation")}},
                                  .errors = {404, 409}});
  route(&State::get_attempts, {.method = "GET",
                               .path = "/tasks/{id}/attempts",
                               .id = "listAttempts",
                               .summary = "What each attempt of a task came to, oldest first",
                               .answers = {{200, ref("Attempts")}},
                               .errors = {404, 409}});
  change(&State::post_park, {.method = "POST",
                             .path = "/providers/{name}/park",
                             .id = "parkProvider",
                             .summary = "Let tasks of a model provider wait until then",
                             .headers = {"Idempotency-Key"},
                             .body = describe_fields(read_parking),
                             .answers = {{200, ref("ParkedProvider")}}});
  change(&State::delete_park, {.method = "DELETE",
                               .path = "/providers/{name}/park",
                               .id = "unparkProvider",
                               .summary = "Let tasks of a model provider go on",
                               .headers = {"Idempotency-Key"},
                               .answers = {{204}},
                               .errors = {404}});
  route(&State::get_providers, {.method = "GET",
                                .path = "/providers",
                                .id = "listParkedProviders",
                                .summary = "The model providers that are parked",
                                .answers = {{200, ref("ParkedProviders")}}});
  route(&State::get_task, {.method = "GET",
                           .path = "/tasks/{id}",
                           .id = "getTask",
                           .summary = "A task; by its number alone where that is not ambiguous",
                           .headers = {"If-None-Match"},
                           .answers = {task, {304, {}, {"ETag"}}},
                           .errors = {404, 409}});
  route(&State::get_tasks,
        {.method = "GET",
         .path = "/tasks",
         .id = "listTasks",
         .summary = "A page of tasks",
         .headers = {"If-None-Match"},
         .query = net::describe_query(read_task_query),
         .answers = {{200, schema::page(ref("Task")), {"ETag"}}, {304, {}, {"ETag"}}}});
  change(&State::post_claim, {.method = "POST",
                              .path = "/tasks/claim",
                              .id = "claimTasks",
                              .summary = "Lease ready tasks, waiting for them if asked",
                              .headers = {"Idempotency-Key"},
                              .body = describe_fields(read_claim),
                              .answers = {{200, ref("Claimed")}, {204}},
                              .errors = {404, 409}});
  route(&State::post_heartbeats, {.method = "POST",
                                  .path = "/heartbeats",
                                  .id = "renewLeases",
                                  .summary = "Renew many leases, each with an answer of its own",
                                  .body = describe_fields(read_heartbeats),
                                  .answers = {{200, ref("Renewals")}}});
  route(&State::post_taskset, {.method = "POST",
                               .path = "/tasksets",
                               .id = "submitTaskset",
                               .summary = "Create or update the tasks of one spec, all or none",
                               .headers = {"Idempotency-Key", "Prefer"},
                               .body = submission_schema(),
                               .answers = {{200, ref("Taskset")}, {201, ref("Taskset")}},
                               .errors = {409}});
  route(&State::get_tasksets, {.method = "GET",
                               .path = "/tasksets",
                               .id = "listTasksets",
                               .summary = "A page of tasksets, without their tasks",
                               .query = net::describe_query(read_taskset_query),
                               .answers = {{200, schema::page(ref("TasksetHead"))}}});
  route(&State::get_taskset, {.method = "GET",
                              .path = "/tasksets/{spec}",
                              .id = "getTaskset",
                              .summary = "A taskset with its tasks",
                              .headers = {"Prefer"},
                              .answers = {{200, ref("Taskset")}},
                              .errors = {404}});
  route(&State::get_graph, {.method = "GET",
                            .path = "/tasksets/{spec}/graph",
                            .id = "getTaskGraph",
                            .summary = "What depends on what, and the order of execution in levels",
                            .query = net::describe_query(read_graph_format),
                            .answers = {{200, ref("TaskGraph")},
                                        {200, schema::text(), {}, kDotType},
                                        {200, schema::text(), {}, kMermaidType}},
                            .errors = {404}});
  route(&State::get_events, {.method = "GET",
                             .path = "/tasks/{id}/events",
                             .id = "listTaskEvents",
                             .summary = "A page of a task's history, or its live feed",
                             .headers = {"Last-Event-ID"},
                             .query = net::describe_query(read_event_query),
                             .answers = {{200, schema::page(ref("Event"))}, feed},
                             .errors = {404, 409}});
  route(&State::get_events, {.method = "GET",
                             .path = "/events",
                             .id = "listEvents",
                             .summary = "A page of all tasks' history, or its live feed",
                             .headers = {"Last-Event-ID"},
                             .query = net::describe_query(read_event_query),
                             .answers = {{200, schema::page(ref("Event"))}, feed}});
}

}  // namespace necrocode::registry
