#include "necrocode/registry/service.hpp"

#include <cmath>
#include <set>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/registry/claim_queue.hpp"
#include "necrocode/registry/event_feeds.hpp"
#include "necrocode/registry/graph.hpp"

namespace necrocode::registry {
namespace {

using net::HttpError;
using net::Request;
using net::Response;

constexpr std::string_view kTokenHeader = "X-Lease-Token";
/// The longest lease: a day.
constexpr double kLeaseSecondsMax = 86'400;
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

LeaseToken read_token(JsonFields& fields, const Request& request) {
  LeaseToken token{fields.string("lease_token", limits::kNameBytes).value_or("")};
  if (token.value.empty()) token.value = request.headers.get_or(kTokenHeader, "");
  return token;
}

TaskState read_status(JsonFields& fields) {
  const std::string name = fields.required_string("status", limits::kNameBytes);
  const auto state = parse_task_state(name);
  if (!state && !name.empty()) {
    fields.fail("status",
                "must be ready, blocked, in_progress, running, done, failed or cancelled");
  }
  return state.value_or(TaskState::kBlocked);
}

std::chrono::milliseconds seconds_of(double seconds) {
  return std::chrono::milliseconds(std::llround(seconds * 1000));
}

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

// Queries.

[[noreturn]] void refuse_query(const std::string& name, const std::string& message) {
  throw HttpError(422, "invalid query", {{"/" + name, message}});
}

int read_limit(const Request& request) {
  const auto text = request.query_value("limit");
  if (!text) return static_cast<int>(limits::kPageSizeDefault);
  const auto limit = parse_uint(*text);
  if (!limit || *limit == 0 || *limit > limits::kPageSizeMax) {
    refuse_query("limit", "must be between 1 and " + std::to_string(limits::kPageSizeMax));
  }
  return static_cast<int>(*limit);
}

std::optional<SystemTime> read_time(const Request& request, const std::string& name) {
  const auto text = request.query_value(name);
  if (!text) return std::nullopt;
  const auto seconds = parse_double(*text);
  const auto time = seconds ? from_unix_seconds(*seconds) : parse_rfc3339(*text);
  if (!time) refuse_query(name, "must be Unix seconds or an RFC 3339 time");
  return time;
}

std::int64_t read_after(const Request& request) {
  auto text = request.query_value("after");
  if (!text) text = request.query_value("cursor");  // next_cursor of the page before is the same
  if (!text) return 0;
  const auto after = parse_int(*text);
  if (!after || *after < 0) refuse_query("after", "must be an event's id");
  return *after;
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

TaskQuery read_task_query(const Request& request) {
  TaskQuery query;
  query.spec = request.query_value("spec").value_or("");
  for (const auto& [name, value] : request.query) {
    if (name != "state" && name != "status") continue;
    for (const std::string_view part : split(value, ',')) {
      const auto state = parse_task_state(trim(part));
      if (!state) refuse_query(name, "must be blocked, ready, running, done, failed or cancelled");
      query.states.push_back(*state);
    }
  }
  query.skill = request.query_value("skill").value_or("");
  query.label = request.query_value("label").value_or("");
  query.text = request.query_value("q").value_or("");
  query.sort = request.query_value("sort").value_or("number");
  query.limit = read_limit(request);
  query.cursor = request.query_value("cursor").value_or("");
  return query;
}

EventQuery read_event_query(const Request& request) {
  EventQuery query;
  query.spec = request.query_value("spec").value_or("");
  query.type = request.query_value("type").value_or("");
  query.since = read_time(request, "since");
  query.until = read_time(request, "until");
  query.after = read_after(request);
  query.limit = read_limit(request);
  return query;
}

// Bodies.

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

Submission read_submission(const Json& body) {
  JsonFields fields(body);
  Submission submission;
  submission.spec_name = fields.required_string("spec_name", limits::kNameBytes);
  if (!submission.spec_name.empty() && !is_plain_name(submission.spec_name)) {
    fields.fail("spec_name", "must be [A-Za-z0-9][A-Za-z0-9._-]{0,99}");
  }
  if (fields.has("metadata")) {
    submission.metadata = free_object(fields, "metadata", limits::kMetadataBytes);
  }
  submission.replace = fields.boolean("replace").value_or(false);
  if (!fields.has("tasks")) fields.fail("tasks", "is required");
  std::set<std::string> numbers;
  std::size_t index = 0;
  for (const Json& item : fields.array("tasks", limits::kTasksPerSubmit)) {
    JsonFields reader(item, "/tasks/" + std::to_string(index++));
    TaskSpec task = TaskSpec::from_json(reader, item);
    settle_number(reader, task, submission.spec_name);
    check_dependency_names(reader, task);
    if (task.fields.depth() > limits::kFreeJsonDepth)
      reader.fail("metadata", "is nested too deeply");
    if (!task.number.empty() && !numbers.insert(task.number).second) {
      reader.fail("id", "is given twice in this taskset");
    }
    fields.absorb(reader);
    submission.tasks.push_back(std::move(task));
  }
  std::size_t dependencies = 0;
  for (const TaskSpec& task : submission.tasks) dependencies += task.dependencies.size();
  if (dependencies > limits::kDependenciesPerSubmit) {
    fields.fail("tasks", "must have at most " + std::to_string(limits::kDependenciesPerSubmit) +
                             " dependencies together, have " + std::to_string(dependencies));
  }
  fields.finish("taskset");
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
  return request;
}

NextClaim read_next_claim(JsonFields& fields, const Json& body) {
  NextClaim next;
  const Json& value = body["claim_next"];
  if (value.is_object()) {
    JsonFields terms(value, fields.pointer("claim_next"));
    next.terms = read_claim(terms);
    next.terms->max = 1;
    next.wanted = true;
    fields.absorb(terms);
  } else {
    next.wanted = fields.boolean("claim_next").value_or(false);
  }
  return next;
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
  artifact.size_bytes = fields.integer("size_bytes", 0);
  artifact.metadata = free_object(fields, "metadata", limits::kMetadataBytes);
  artifact.created_at = fields.time("created_at").value_or(now);
  return artifact;
}

Completion read_completion(JsonFields& fields, const Request& request, SystemTime now) {
  Completion completion;
  completion.lease_token = read_token(fields, request);
  completion.status = read_status(fields);
  if (fields.has("status") && completion.status != TaskState::kReady &&
      !is_final(completion.status)) {
    fields.fail("status", "must be done, failed, cancelled or ready");
  }
  completion.metadata = free_object(fields, "metadata", limits::kMetadataBytes);
  std::size_t index = 0;
  for (const Json& item : fields.array("artifacts", kItemsPerCall)) {
    JsonFields nested(item, fields.pointer("artifacts") + "/" + std::to_string(index++));
    completion.artifacts.push_back(read_artifact(nested, now));
    fields.absorb(nested);
  }
  index = 0;
  for (const Json& item : fields.array("events", kItemsPerCall)) {
    JsonFields nested(item, fields.pointer("events") + "/" + std::to_string(index++));
    NewEvent event = read_event(nested, now);
    fields.absorb(nested);
    Event& added = completion.events.emplace_back();
    added.event_type = std::move(event.event_type);
    added.data = std::move(event.data);
    added.timestamp = event.timestamp;
  }
  const Json failure = fields.object("failure");
  if (fields.has("failure")) {
    JsonFields nested(failure, fields.pointer("failure"));
    completion.failure.emplace();
    completion.failure->failure_class = nested.string("class", limits::kNameBytes).value_or("");
    completion.failure->reason = nested.string("reason", limits::kMetadataBytes).value_or("");
    completion.failure->retry_at = nested.time("retry_at");
    fields.absorb(nested);
  }
  return completion;
}

VersionCondition read_if_match(const Request& request) {
  const auto field = request.headers.get("If-Match");
  if (!field) return {};
  return [tags = std::string(*field)](std::int64_t version) {
    return net::etag_matches_strongly(tags, etag_of(version));
  };
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
  State(std::unique_ptr<TaskStore> task_store, const Clock& time)
      : store(std::move(task_store)),
        clock(time),
        claims(*store, clock, claim_response),
        feeds(*store) {}

  std::unique_ptr<TaskStore> store;
  const Clock& clock;
  ClaimQueue claims;
  EventFeeds feeds;

  /// The answer to a changing request: its first one when it is told again with its
  /// Idempotency-Key, else what `make` answers, in one transaction with what it changes.
  Response change_once(const Request& request, const std::function<Response(TaskChanges&)>& make) {
    TaskChanges* inside = nullptr;
    const auto transact = [&](const std::function<void(net::IdempotencyStore&)>& work) {
      store->transact([&](TaskChanges& changes) {
        inside = &changes;
        work(changes.answers());
      });
    };
    return net::answer_once(request, transact, [&] {
      try {
        return make(*inside);
      } catch (const LostUpdate& error) {
        throw HttpError(412, error.summary());
      }
    });
  }

  Response put_status(const Request& request);
  Response post_event(const Request& request);
  Response get_events(const Request& request, const std::string& task_id);
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
};

Response RegistryService::State::put_status(const Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
  StatusChange change;
  change.status = read_status(fields);
  change.metadata = free_object(fields, "metadata", limits::kMetadataBytes);
  fields.time("updated_at");  // the caller's; the registry keeps its own
  change.lease_token = read_token(fields, request);
  change.expected = read_if_match(request);
  fields.finish("status");
  return change_once(request, [&](TaskChanges& changes) {
    return task_response(changes.set_status(request.param("id"), change));
  });
}

Response RegistryService::State::post_event(const Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
  NewEvent event = read_event(fields, clock.system_now());
  event.lease_token = read_token(fields, request);
  fields.finish("event");
  return change_once(request, [&](TaskChanges& changes) {
    return Response::json(201, changes.add_event(request.param("id"), event).to_json());
  });
}

Response RegistryService::State::get_events(const Request& request, const std::string& task_id) {
  EventQuery query = read_event_query(request);
  query.task_id = task_id;
  if (wants_feed(request)) {
    for (const char* name : {"limit", "until"}) {
      if (request.query_value(name))
        refuse_query(name, "does not go with a feed, which has no end");
    }
    query.after = read_last_event_id(request, query.after);
    return feeds.open(std::move(query));
  }
  const EventPage page = store->events(query);
  Json::Array items;
  for (const Event& event : page.items) items.push_back(event.to_json());
  return Response::json(200, page_json(std::move(items), page.next_cursor));
}

Response RegistryService::State::post_artifact(const Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
  NewArtifact artifact;
  artifact.artifact = read_artifact(fields, clock.system_now());
  artifact.lease_token = read_token(fields, request);
  fields.finish("artifact");
  return change_once(request, [&](TaskChanges& changes) {
    return Response::json(201, changes.add_artifact(request.param("id"), artifact).to_json());
  });
}

Response RegistryService::State::get_task(const Request& request) {
  return unless_unchanged(request, task_response(store->task(request.param("id"))));
}

Response RegistryService::State::get_tasks(const Request& request) {
  const TaskPage page = store->tasks(read_task_query(request));
  Json::Array items;
  for (const Task& task : page.items) items.push_back(task.to_json());
  Response response = Response::json(200, page_json(std::move(items), page.next_cursor));
  // Of the page, which has no version: the digest of what it says.
  response.headers.set("ETag", '"' + sha256_hex(std::get<std::string>(response.body)) + '"');
  return unless_unchanged(request, std::move(response));
}

Response RegistryService::State::post_taskset(const Request& request) {
  const Submission submission = read_submission(request.json());
  // Told again it changes nothing, so its answer, which may be large, is neither kept nor made
  // within the transaction.
  const bool created =
      store->change([&](TaskChanges& changes) { return changes.submit(submission); });
  return Response::json(created ? 201 : 200, store->taskset(submission.spec_name).to_json());
}

Response RegistryService::State::get_tasksets(const Request& request) {
  const TasksetPage page =
      store->tasksets(request.query_value("cursor").value_or(""), read_limit(request));
  Json::Array items;
  for (const Taskset& taskset : page.items) {
    Json item = taskset.to_json();
    item.erase("tasks");
    items.push_back(std::move(item));
  }
  return Response::json(200, page_json(std::move(items), page.next_cursor));
}

Response RegistryService::State::get_taskset(const Request& request) {
  return Response::json(200, store->taskset(request.param("spec")).to_json());
}

Response RegistryService::State::get_graph(const Request& request) {
  const std::string format = request.query_value("format").value_or("json");
  if (format != "json" && format != "dot" && format != "mermaid") {
    refuse_query("format", "must be json, dot or mermaid");
  }
  const TaskGraph graph = store->graph(request.param("spec"));
  if (format == "dot")
    return Response::text(200, graph_dot(graph), "text/vnd.graphviz; charset=utf-8");
  if (format == "mermaid") return Response::text(200, graph_mermaid(graph));
  return Response::json(200, graph_json(graph));
}

Response RegistryService::State::post_claim(const Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
  const ClaimRequest claim = read_claim(fields);
  fields.finish("claim");
  return claims.claim(claim, net::read_idempotency_key(request));
}

Response RegistryService::State::post_heartbeat(const Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
  const LeaseRef lease{request.param("id"), read_token(fields, request)};
  fields.finish("heartbeat");
  const HeartbeatResult result = store->heartbeat({lease}).front();
  if (!result.answer) std::rethrow_exception(result.problem);
  return Response::json(200, heartbeat_json(result));
}

Response RegistryService::State::post_heartbeats(const Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
  std::vector<LeaseRef> leases;
  for (const Json& item : fields.array("leases", limits::kHeartbeatsPerCall)) {
    JsonFields nested(item, fields.pointer("leases") + "/" + std::to_string(leases.size()));
    LeaseRef& lease = leases.emplace_back();
    lease.task_id = nested.required_string("task_id", 2 * limits::kNameBytes + 1);
    lease.token.value = nested.required_string("lease_token", limits::kNameBytes);
    fields.absorb(nested);
  }
  fields.finish("heartbeats");
  Json items = Json::array();
  for (const HeartbeatResult& result : store->heartbeat(leases))
    items.push_back(heartbeat_json(result));
  return Response::json(200, Json::object({{"items", std::move(items)}}));
}

Response RegistryService::State::post_complete(const Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
  const Completion completion = read_completion(fields, request, clock.system_now());
  const NextClaim next = read_next_claim(fields, body);
  fields.finish("completion");
  const VersionCondition expected = read_if_match(request);
  std::optional<std::chrono::milliseconds> next_lease;
  Response response = change_once(request, [&](TaskChanges& changes) {
    const Completed completed = changes.complete(request.param("id"), completion, next, expected);
    if (completed.next) next_lease = completed.next->lease;
    Response answer = Response::json(
        200, Json::object({{"task", completed.task.to_json()},
                           {"next", completed.next ? completed.next->to_json() : Json()}}));
    answer.headers.set("ETag", etag_of(completed.task.version));
    return answer;
  });
  if (next_lease) claims.lease_started(*next_lease);
  return response;
}

Response RegistryService::State::post_cancel(const Request& request) {
  const Json body = request.json();
  JsonFields fields(body);
  const std::string reason = fields.string("reason", limits::kMetadataBytes).value_or("");
  fields.finish("cancellation");
  const VersionCondition expected = read_if_match(request);
  return change_once(request, [&](TaskChanges& changes) {
    return task_response(changes.cancel(request.param("id"), reason, expected));
  });
}

Response RegistryService::State::post_retry(const Request& request) {
  const VersionCondition expected = read_if_match(request);
  return change_once(request, [&](TaskChanges& changes) {
    return task_response(changes.retry(request.param("id"), expected));
  });
}

RegistryService::RegistryService(std::unique_ptr<TaskStore> store, const Clock& clock)
    : state_(std::make_shared<State>(std::move(store), clock)) {}

RegistryService::~RegistryService() {
  stop();
}

void RegistryService::stop() {
  state_->claims.stop();
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

void RegistryService::add_routes(net::HttpServer& server) {
  using Method = Response (State::*)(const Request&);
  const auto route = [&](const char* method, const char* pattern, Method handler,
                         net::RouteOptions options = {}) {
    server.route(
        method, pattern,
        [state = state_, handler](const Request& request) { return (*state.*handler)(request); },
        options);
  };
  // Room for the envelope of the largest event.
  net::RouteOptions event_options;
  event_options.body_bytes_max = limits::kEventBytes + 64 * limits::kKiB;
  route("PUT", "/tasks/{id}/status", &State::put_status);
  route("POST", "/tasks/{id}/events", &State::post_event, event_options);
  route("POST", "/tasks/{id}/artifacts", &State::post_artifact, event_options);
  route("POST", "/tasks/{id}/heartbeat", &State::post_heartbeat);
  route("POST", "/tasks/{id}/complete", &State::post_complete);
  route("POST", "/tasks/{id}/cancel", &State::post_cancel);
  route("POST", "/tasks/{id}/retry", &State::post_retry);
  route("GET", "/tasks/{id}", &State::get_task);
  route("GET", "/tasks", &State::get_tasks);
  route("POST", "/tasks/claim", &State::post_claim);
  route("POST", "/heartbeats", &State::post_heartbeats);
  route("POST", "/tasksets", &State::post_taskset);
  route("GET", "/tasksets", &State::get_tasksets);
  route("GET", "/tasksets/{spec}", &State::get_taskset);
  route("GET", "/tasksets/{spec}/graph", &State::get_graph);
  server.route("GET", "/tasks/{id}/events", [state = state_](const Request& request) {
    return state->get_events(request, request.param("id"));
  });
  server.route("GET", "/events",
               [state = state_](const Request& request) { return state->get_events(request, {}); });
}

}  // namespace necrocode::registry
