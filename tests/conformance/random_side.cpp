#include "conformance/random_side.hpp"

#include <typeinfo>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::registry {
namespace {

using namespace std::chrono_literals;

struct Undone {};

constexpr std::array<const char*, 3> kSpecs = {"a", "b", "c"};
constexpr std::array<const char*, 3> kProviders = {"", "openai", "local"};
constexpr std::array<const char*, 3> kSkills = {"", "rust", "docs"};
constexpr std::array<const char*, 3> kSorts = {"number", "priority", "age"};

/// One of `values`, whatever `choice` is.
template <class Values>
auto pick(const Values& values, int choice) {
  return values[static_cast<std::size_t>(choice) % values.size()];
}

Json kind_of(const std::exception_ptr& problem) {
  try {
    std::rethrow_exception(problem);
  } catch (const std::exception& error) {
    const std::exception& thrown = error;
    return Json::object({{"error", typeid(thrown).name()}});
  }
}

Json metadata_of(int choice) {
  switch (choice) {
    case 1:
      return Json::object({{"a", 1}});
    case 2:
      return Json::object({{"merged", true}, {"a", 2}});
    case 3:
      return Json::object({{"commit", "c0ffee"}});
    default:
      return Json::object();
  }
}

std::vector<std::string> labels_of(int choice) {
  if (choice == 0) return {};
  return choice == 1 ? std::vector<std::string>{"ui"} : std::vector<std::string>{"ui", "slow"};
}

std::vector<std::string> skills_of(int choice) {
  if (choice == 0) return {};
  if (choice == 3) return {"rust", "docs"};
  return {pick(kSkills, choice)};
}

}  // namespace

Json RandomSide::perform(const Command& command) {
  const auto versions = versions_;
  try {
    Json told = answer(command);
    const bool may_remove = command.kind == Kind::kSubmit || command.kind == Kind::kPurge;
    if (may_remove) forget_removed_tasks();
    return told;
  } catch (const std::exception&) {
    versions_ = versions;
    return kind_of(std::current_exception());
  }
}

Json RandomSide::answer(const Command& command) {
  switch (command.kind) {
    case Kind::kSubmit:
      return submit(command);
    case Kind::kClaim:
      return claim(command);
    case Kind::kComplete:
      return complete(command);
    case Kind::kSetStatus:
      return set_status(command);
    case Kind::kHeartbeat:
      return heartbeat(command);
    case Kind::kCancel:
      return change(command, [&](TaskChanges& changes) {
        const std::string id = id_of(command);
        return told(changes.cancel(id, arg(command, "reason") ? "not needed" : "",
                                   expected_of(command, id)));
      });
    case Kind::kRetry:
      return change(command, [&](TaskChanges& changes) {
        const std::string id = id_of(command);
        return told(changes.retry(id, expected_of(command, id)));
      });
    case Kind::kPatch:
      return patch(command);
    case Kind::kPark:
      return park(command);
    case Kind::kUnpark:
      return change(command, [&](TaskChanges& changes) {
        changes.unpark(pick(kProviders, 1 + arg(command, "provider")));
        return Json();
      });
    case Kind::kGiveBack:
      return change(command, [&](TaskChanges& changes) {
        const Seen lease = lease_of(command);
        const LeaseRef ref{lease.id, token_of(command, lease)};
        const bool lived = changes.lives(ref);
        changes.give_back({ref});
        if (!arg(command, "undo")) note_end(ref.token);
        return Json::object({{"lived", lived}, {"lives", changes.lives(ref)}});
      });
    case Kind::kAddEvent:
      return add_event(command);
    case Kind::kAddArtifact:
      return add_artifact(command);
    case Kind::kAnswer:
      return kept_answer(command);
    case Kind::kPurge:
      return purge(command);
    case Kind::kQueryTasks:
      return query_tasks(command);
    case Kind::kQueryEvents:
      return query_events(command);
    case Kind::kQueryTask:
      return query_task(id_of(command));
    case Kind::kDoDue:
    case Kind::kAdvance:
    case Kind::kStepSystem:
    case Kind::kReopen:
      break;
  }
  return Json();
}

Json RandomSide::change(const Command& command,
                        const std::function<Json(TaskChanges&)>& operation) {
  const auto versions = versions_;
  const auto leases = leases_;
  const auto token_names = token_names_;
  Json told;
  try {
    store_->transact([&](TaskChanges& changes) {
      // It may be the second run, after the first was undone.
      versions_ = versions;
      leases_ = leases;
      token_names_ = token_names;
      told = operation(changes);
      if (arg(command, "undo")) throw Undone();
    });
  } catch (const Undone&) {
    versions_ = versions;
  }
  return told;
}

std::string RandomSide::id_of(const Command& command) const {
  const std::string spec = pick(kSpecs, arg(command, "spec"));
  const std::string number = std::to_string(1 + arg(command, "number"));
  switch (arg(command, "id_form")) {
    case 1:
      return number;
    case 2:
      return spec + ":none";
    case 3:
      return "../" + number;
    default:
      return spec + ":" + number;
  }
}

RandomSide::Seen RandomSide::lease_of(const Command& command, int further) const {
  std::vector<Seen> candidates;
  for (const Seen& lease : leases_) {
    if (lease.ended == (arg(command, "ended") != 0)) candidates.push_back(lease);
  }
  if (candidates.empty()) return {"a:1", "never given"};
  const auto back = static_cast<std::size_t>(arg(command, "lease") + further) % candidates.size();
  return candidates[candidates.size() - 1 - back];
}

void RandomSide::note_end(const LeaseToken& token) {
  for (Seen& lease : leases_) lease.ended = lease.ended || lease.token == token.value;
}

LeaseToken RandomSide::token_of(const Command& command, const Seen& lease) const {
  switch (arg(command, "token")) {
    case 1:
      return {};
    case 2:
      return {lease_of(command, 1).token};
    case 3:
      return {"forged"};
    default:
      return {lease.token};
  }
}

std::pair<std::string, LeaseToken> RandomSide::target_of(const Command& command) const {
  if (!arg(command, "leased")) return {id_of(command), {}};
  const Seen lease = lease_of(command);
  return {lease.id, token_of(command, lease)};
}

VersionCondition RandomSide::expected_of(const Command& command, const std::string& id) const {
  const int choice = arg(command, "expected");
  if (choice == 0) return {};
  const auto seen = versions_.find(id);
  const std::int64_t known = choice == 1 && seen != versions_.end() ? seen->second : -1;
  return [known](std::int64_t version) { return version == known; };
}

std::optional<SystemTime> RandomSide::time_of(int choice) const {
  switch (choice) {
    case 1:
      return clock_.system_now() - 30s;
    case 2:
      return clock_.system_now();
    default:
      return std::nullopt;
  }
}

TaskSpec RandomSide::task_spec_of(const std::string& spec, int position,
                                  const std::vector<int>& task) const {
  const int number = task_arg(task, "number") ? task_arg(task, "number") : 1 + position;
  const int policy = task_arg(task, "policy");
  std::vector<std::string> dependencies;
  Json policies = Json::object();
  for (int parent = 1; parent <= 8; ++parent) {
    // Mostly of the tasks before it; another bit lets it close a cycle.
    const bool before = parent < number || (task_arg(task, "outside") == 2 && parent > number);
    if ((task_arg(task, "deps") >> (parent - 1) & 1) == 0 || !before) continue;
    dependencies.push_back(std::to_string(parent));
    policies.set(dependencies.back(), parent % 2 ? "cancel" : "run");
  }
  if (task_arg(task, "outside") == 1) {
    dependencies.push_back(std::string(spec == "a" ? "b" : "a") + ":1");
  }
  Json more = Json::object();
  if (policy == 1 || policy == 2) more.set("on_dependency_failure", policy == 1 ? "cancel" : "run");
  if (policy == 3) more.set("on_dependency_failure", "block");
  if (policy == 4) more.set("on_dependency_failure", std::move(policies));
  const auto set_text = [&](const char* name, const std::string& text) {
    if (!text.empty()) more.set(name, text);
  };
  set_text("required_skill", pick(kSkills, task_arg(task, "skill")));
  set_text("provider", pick(kProviders, task_arg(task, "provider")));
  set_text("repo_url", task_arg(task, "repo") ? "https://example.org/other.git" : "");
  constexpr std::array<const char*, 5> kTouches = {"", "src/net", "src/**", "src/net/a.cpp",
                                                   "docs/*.md"};
  const std::string touches = pick(kTouches, task_arg(task, "touches"));
  if (!touches.empty()) more.set("touches", std::vector<std::string>{touches});
  if (const int priority = task_arg(task, "priority")) more.set("priority", priority - 2);
  const int attempts = task_arg(task, "max_attempts");
  if (attempts == 1 || attempts == 2) more.set("max_attempts", attempts);
  if (attempts == 3) more.set("max_attempts", Json::object({{"tests", 3}, {"infrastructure", 1}}));
  constexpr std::array<std::chrono::seconds, 4> kWaits = {0s, 30s, 7200s, -60s};
  const int not_before = task_arg(task, "not_before");
  if (not_before) {
    more.set("not_before", to_rfc3339(clock_.system_now() + pick(kWaits, not_before)));
  }
  if (task_arg(task, "done")) more.set("done", true);
  if (task_arg(task, "labels")) more.set("labels", labels_of(task_arg(task, "labels")));
  if (const int choice = task_arg(task, "metadata")) more.set("metadata", metadata_of(choice));
  return task_spec(std::to_string(number), dependencies, std::move(more));
}

Json RandomSide::submit(const Command& command) {
  Submission whole;
  whole.spec_name = pick(kSpecs, arg(command, "spec"));
  std::set<std::string> numbers;
  for (std::size_t i = 0; i < command.tasks.size(); ++i) {
    TaskSpec given = task_spec_of(whole.spec_name, static_cast<int>(i), command.tasks[i]);
    if (numbers.insert(given.number).second) whole.tasks.push_back(std::move(given));
  }
  whole.replace = arg(command, "replace") != 0;
  if (const int max = arg(command, "max_running")) whole.max_running = max - 1;
  if (const int budget = arg(command, "budget_usd")) whole.budget_usd = budget - 1;
  if (const int budget = arg(command, "budget_tokens")) whole.budget_tokens = (budget - 1) * 150;
  if (const int when = arg(command, "unblock_on")) whole.unblock_on = UnblockOn(when - 1);
  if (const int choice = arg(command, "metadata")) whole.metadata = metadata_of(choice - 1);
  return change(command, [&](TaskChanges& changes) { return Json(changes.submit(whole)); });
}

ClaimRequest RandomSide::claim_request(const Command& command) const {
  ClaimRequest request;
  request.runner_id.value = "runner-" + std::to_string(arg(command, "provider"));
  request.skills = skills_of(arg(command, "skills"));
  request.provider = pick(kProviders, arg(command, "provider"));
  return request;
}

std::vector<ClaimRequest> RandomSide::requests_of(const Command& command) const {
  ClaimRequest request = claim_request(command);
  constexpr std::array<std::chrono::milliseconds, 3> kLeases = {600s, 60s, 1500ms};
  request.lease = pick(kLeases, arg(command, "lease_time"));
  request.max = 1 + arg(command, "max");
  if (arg(command, "named")) request.task_id = id_of(command);
  std::vector<ClaimRequest> requests{request};
  if (arg(command, "second")) {
    request.task_id.reset();
    request.skills = {"docs"};
    requests.push_back(request);
  }
  return requests;
}

bool RandomSide::would_get(const ClaimRequest& request) {
  bool got = false;
  try {
    store_->transact([&](TaskChanges& changes) {
      const ClaimOutcome outcome = changes.claim({request}).front();
      got = !outcome.claimed.empty();
      throw Undone();
    });
  } catch (const Undone&) {
    // As it was.
  }
  return got;
}

Json RandomSide::claim(const Command& command) {
  return change(command, [&](TaskChanges& changes) {
    Json outcomes = Json::array();
    for (const ClaimOutcome& outcome : changes.claim(requests_of(command))) {
      outcomes.push_back(outcome.refusal ? kind_of(outcome.refusal) : told(outcome.claimed));
    }
    return outcomes;
  });
}

Json RandomSide::complete(const Command& command) {
  const Seen lease = lease_of(command);
  const bool leaseless = arg(command, "token") == 1;
  const std::string id = leaseless ? id_of(command) : lease.id;
  Completion completion;
  completion.lease_token = token_of(command, lease);
  constexpr std::array kStatuses = {TaskState::kDone, TaskState::kFailed, TaskState::kCancelled,
                                    TaskState::kReady};
  completion.status = pick(kStatuses, arg(command, "status"));
  completion.metadata = metadata_of(arg(command, "commit") ? 3 : 0);
  if (const int merged = arg(command, "merged")) completion.metadata.set("merged", merged == 1);
  switch (arg(command, "usage")) {
    case 1:
      completion.metadata.set("usage", Json::object({{"cost_usd", 0.5}, {"total_tokens", 100}}));
      break;
    case 2:
      completion.metadata.set("usage", Json::object({{"cost_usd", -1}, {"total_tokens", "many"}}));
      break;
    case 3:
      completion.metadata.set("usage", Json::object({{"cost_usd", 0.333333}, {"total_tokens", 7}}));
      break;
    default:
      break;
  }
  for (int i = 0; i < arg(command, "events"); ++i) {
    completion.events.push_back({0,
                                 "",
                                 i ? "TestsPassed" : "SlotAllocated",
                                 Json::object({{"slot_id", "slot-7"}, {"branch", "feature/7"}}),
                                 clock_.system_now(),
                                 {},
                                 0});
  }
  if (arg(command, "artifacts")) {
    completion.artifacts.push_back(
        {"diff", "file:///diff", 12, Json::object(), clock_.system_now(), 0});
  }
  constexpr std::array<const char*, 7> kClasses = {"agent",    "tests", "infrastructure", "quota",
                                                   "conflict", "",      "unheard of"};
  if (const int failure_class = arg(command, "class")) {
    constexpr std::array<std::chrono::seconds, 4> kTimes = {0s, 10s, 7200s, -10s};
    Failure& failure = completion.failure.emplace();
    failure.failure_class = pick(kClasses, failure_class - 1);
    failure.reason = "it was " + failure.failure_class;
    const int retry_at = arg(command, "retry_at");
    if (retry_at) failure.retry_at = clock_.system_now() + pick(kTimes, retry_at);
  }
  NextClaim next;
  next.wanted = arg(command, "next") > 0;
  if (arg(command, "next") > 1) next.terms = claim_request(command);
  if (arg(command, "next") > 2) next.terms->task_id = id_of(command);
  const bool condition = arg(command, "undo") || arg(command, "expected");
  if (!condition) note_end(completion.lease_token);  // refused or not
  return change(command, [&](TaskChanges& changes) {
    const Completed completed = changes.complete(id, completion, next, expected_of(command, id));
    Json json = Json::object({{"task", told(completed.task)}});
    if (completed.next) json.set("next", told(*completed.next));
    return json;
  });
}

Json RandomSide::set_status(const Command& command) {
  const auto [id, token] = target_of(command);
  StatusChange status;
  status.status = kTaskStates[static_cast<std::size_t>(arg(command, "status"))];
  status.metadata = metadata_of(arg(command, "metadata"));
  status.lease_token = token;
  status.expected = expected_of(command, id);
  const std::string target = id;
  return change(command,
                [&](TaskChanges& changes) { return told(changes.set_status(target, status)); });
}

Json RandomSide::heartbeat(const Command& command) {
  std::vector<LeaseRef> refs;
  for (int i = 0; i <= arg(command, "second"); ++i) {
    const Seen lease = lease_of(command, i);
    LeaseRef& ref = refs.emplace_back(lease.id, token_of(command, lease));
    if (arg(command, "bare")) ref.task_id = ref.task_id.substr(ref.task_id.find(':') + 1);
    if (const int elsewhere = arg(command, "elsewhere")) {
      constexpr std::array<const char*, 3> kIds = {"a:1", "a:none", ""};
      ref.task_id = pick(kIds, elsewhere - 1);
    }
  }
  Json results = Json::array();
  for (const HeartbeatResult& result : store_->heartbeat(refs)) {
    results.push_back(result.problem
                          ? kind_of(result.problem)
                          : Json::object({{"expires_at", to_rfc3339(result.answer->expires_at)},
                                          {"cancel", result.answer->cancel_requested}}));
  }
  return results;
}

Json RandomSide::patch(const Command& command) {
  const std::string id = id_of(command);
  TaskPatch patch;
  if (const int priority = arg(command, "priority")) patch.priority = priority - 2;
  if (const int labels = arg(command, "labels")) patch.labels = labels_of(labels - 1);
  patch.metadata = metadata_of(arg(command, "metadata"));
  patch.expected = expected_of(command, id);
  return change(command, [&](TaskChanges& changes) { return told(changes.patch(id, patch)); });
}

Json RandomSide::park(const Command& command) {
  constexpr std::array<std::chrono::seconds, 5> kTimes = {10s, 5s, 60s, -10s, 24h * 100};
  const SystemTime until = clock_.system_now() + pick(kTimes, arg(command, "until"));
  return change(command, [&](TaskChanges& changes) {
    return changes.park(pick(kProviders, 1 + arg(command, "provider")), until, "quota").to_json();
  });
}

Json RandomSide::add_event(const Command& command) {
  const auto [id, token] = target_of(command);
  constexpr std::array<const char*, 3> kTypes = {"TaskProgress", "SlotAllocated", "RunnerStarted"};
  constexpr std::array<std::chrono::hours, 3> kTimes = {0h, -24h * 365 * 49, 24h * 365 * 80};
  const NewEvent event{pick(kTypes, arg(command, "type")),
                       Json::object({{"slot_id", "slot-1"}, {"branch", "feature/1"}}),
                       clock_.system_now() + pick(kTimes, arg(command, "time")), token};
  const std::string target = id;
  return change(command,
                [&](TaskChanges& changes) { return told(changes.add_event(target, event)); });
}

Json RandomSide::add_artifact(const Command& command) {
  const auto [id, token] = target_of(command);
  const NewArtifact artifact{{"log", "file:///log", {}, Json::object(), clock_.system_now(), 0},
                             token};
  const std::string target = id;
  return change(command, [&](TaskChanges& changes) {
    return changes.add_artifact(target, artifact).to_json();
  });
}

Json RandomSide::kept_answer(const Command& command) {
  const std::string name = "key-" + std::to_string(arg(command, "key"));
  const int what = arg(command, "what");
  return change(command, [&](TaskChanges& changes) {
    if (what == 1) {
      changes.answers().keep(name,
                             {"f", 201, "application/json", "", to_rfc3339(clock_.system_now())});
    }
    if (what == 2) changes.answers().forget(name);
    const auto kept = changes.answers().find(name);
    return kept ? Json(kept->body) : Json();
  });
}

Json RandomSide::purge(const Command& command) {
  constexpr std::array<std::chrono::milliseconds, 4> kAges = {0s, 0s, 60s, 3600s};
  Retention retention;
  if (const int age = arg(command, "tasksets")) retention.tasksets = pick(kAges, age);
  if (const int age = arg(command, "events")) retention.events = pick(kAges, age);
  int calls = 1;
  while (store_->purge(retention) && calls < 100) ++calls;
  return Json(calls < 100);
}

Json RandomSide::query_tasks(const Command& command) {
  TaskQuery query;
  query.sort = pick(kSorts, arg(command, "sort"));
  if (arg(command, "sort") == 3) query.sort = "colour";
  query.limit = arg(command, "limit") ? arg(command, "limit") : 100;
  if (arg(command, "by_spec")) query.spec = pick(kSpecs, arg(command, "spec"));
  if (const int state = arg(command, "state")) {
    query.states = {kTaskStates[static_cast<std::size_t>(state - 1)], TaskState::kReady};
  }
  query.skill = pick(kSkills, arg(command, "skill"));
  constexpr std::array<const char*, 3> kLabels = {"", "ui", "slow"};
  query.label = pick(kLabels, arg(command, "label"));
  constexpr std::array<const char*, 3> kTexts = {"", "TASK 1", "%"};
  query.text = pick(kTexts, arg(command, "text"));
  query.since = time_of(arg(command, "since"));
  query.until = time_of(arg(command, "until"));
  if (arg(command, "go_on")) query.cursor = cursors_[query.sort];
  const TaskPage page = store_->tasks(query);
  Json items = Json::array();
  for (const Task& task : page.items) items.push_back(told(task));
  if (page.next_cursor) cursors_[query.sort] = *page.next_cursor;
  return Json::object({{"items", std::move(items)}, {"more", page.next_cursor.has_value()}});
}

Json RandomSide::query_events(const Command& command) {
  EventQuery query;
  query.limit = arg(command, "limit") ? arg(command, "limit") : 100;
  if (arg(command, "by_spec")) query.spec = pick(kSpecs, arg(command, "spec"));
  constexpr std::array<const char*, 3> kTypes = {"", "TaskAssigned", "TaskCreated"};
  query.type = pick(kTypes, arg(command, "type"));
  query.since = time_of(arg(command, "since"));
  query.until = time_of(arg(command, "until"));
  if (arg(command, "by_task")) {
    query.task_id = id_of(command);
    const EventPage page = store_->events(query);
    Json items = Json::array();
    for (const Event& event : page.items) items.push_back(told(event));
    return Json::object({{"items", std::move(items)}, {"more", page.next_cursor.has_value()}});
  }
  // Against all that there is: in which order one transaction tells of several tasks is the
  // store's, and so what a page of all has.
  const std::vector<Event> all = history();
  if (const int after = arg(command, "after"); after > 0 && !all.empty()) {
    query.after = all[all.size() * static_cast<std::size_t>(after) / 5].id;
  }
  std::vector<std::int64_t> wanted;
  for (const Event& event : all) {
    const bool match = event.id > query.after &&
                       (query.spec.empty() || event.task_id.starts_with(query.spec + ":")) &&
                       (query.type.empty() || event.event_type == query.type) &&
                       (!query.since || event.recorded_at >= *query.since) &&
                       (!query.until || event.recorded_at < *query.until);
    if (match) wanted.push_back(event.id);
  }
  const bool more = wanted.size() > static_cast<std::size_t>(query.limit);
  if (more) wanted.resize(static_cast<std::size_t>(query.limit));
  const EventPage page = store_->events(query);
  std::vector<std::int64_t> got;
  for (const Event& event : page.items) got.push_back(event.id);
  const bool right = got == wanted && more == page.next_cursor.has_value();
  return Json(right ? "as the history" : "not as the history");
}

Json RandomSide::query_task(const std::string& id) {
  Json events = Json::array();
  EventQuery query;
  query.task_id = id;
  query.limit = static_cast<int>(limits::kPageSizeMax);
  for (const Event& event : store_->events(query).items) events.push_back(told(event));
  return Json::object({{"task", told(store_->task(id))},
                       {"attempts", told(store_->attempts(id))},
                       {"explanation", told(store_->explain(id))},
                       {"events", std::move(events)}});
}

std::vector<Event> RandomSide::history() {
  EventQuery query;
  query.limit = static_cast<int>(limits::kPageSizeMax);
  std::vector<Event> all;
  while (true) {
    const EventPage page = store_->events(query);
    all.insert(all.end(), page.items.begin(), page.items.end());
    if (!page.next_cursor) return all;
    query.after = all.back().id;
  }
}

void RandomSide::forget_removed_tasks() {
  std::erase_if(versions_, [&](const auto& entry) {
    try {
      store_->task(entry.first);
      return false;
    } catch (const NotFound&) {
      return true;
    }
  });
}

Json RandomSide::everything() {
  Json json = Json::object();
  Json tasksets = Json::array();
  for (const Taskset& taskset : store_->tasksets("", 100).items) {
    tasksets.push_back(told(taskset, false));
    json.set("taskset " + taskset.spec_name,
             told(store_->taskset(taskset.spec_name, TasksetPart::kWhole), true));
    const TaskGraph graph = store_->graph(taskset.spec_name);
    Json nodes = Json::array();
    for (const TaskGraph::Node& node : graph.nodes) {
      nodes.push_back(node.id + " " + node.title + " " + std::string(to_string(node.state)) +
                      (node.external ? " external" : ""));
    }
    for (const TaskGraph::Edge& edge : graph.edges) {
      nodes.push_back(edge.parent + " → " + edge.child + " " + std::string(to_string(edge.policy)));
    }
    json.set("graph " + taskset.spec_name, std::move(nodes));
  }
  json.set("tasksets", std::move(tasksets));
  for (const Task& task : store_->tasks({}).items) json.set(task.id, query_task(task.id));
  // By task: in which order one transaction tells of several is the store's.
  const std::vector<Event> all = history();
  std::map<std::string, Json> by_task;
  for (const Event& event : all) by_task[event.task_id].push_back(told(event));
  for (auto& [id, events] : by_task) json.set("events of " + id, std::move(events));
  json.set("newest", store_->newest_event() == (all.empty() ? 0 : all.back().id));
  Json counts = Json::object();
  for (const auto& [state, count] : store_->counts()) counts.set(to_string(state), count);
  json.set("counts", std::move(counts));
  Json parked = Json::array();
  for (const ParkedProvider& provider : store_->parked_providers()) {
    parked.push_back(provider.to_json());
  }
  return json.set("parked", std::move(parked));
}

Json RandomSide::told(const Task& task) {
  const auto seen = versions_.find(task.id);
  const std::int64_t before = seen == versions_.end() ? -1 : seen->second;
  versions_[task.id] = task.version;
  Json json = task.to_json();
  json.set("version", before < 0               ? "new"
                      : task.version > before  ? "grown"
                      : task.version == before ? "the same"
                                               : "fallen");
  return json;
}

Json RandomSide::told(const ClaimedTask& claimed) {
  leases_.push_back({claimed.task.id, claimed.lease_token.value});
  const auto [name, fresh] = token_names_.try_emplace(
      claimed.lease_token.value, "lease " + std::to_string(token_names_.size()));
  Json json = told(claimed.task);
  json.set("previous_attempts", told(claimed.previous_attempts));
  json.set("lease_token", name->second);
  json.set("expires_at", to_rfc3339(claimed.expires_at));
  return json.set("lease_ms", claimed.lease.count());
}

Json RandomSide::told(const std::vector<ClaimedTask>& claimed) {
  Json json = Json::array();
  for (const ClaimedTask& task : claimed) json.push_back(told(task));
  return json;
}

Json RandomSide::told(const Taskset& taskset, bool with_tasks) {
  Json json = taskset.to_json();
  json.erase("tasks");
  if (!with_tasks) return json;
  Json tasks = Json::array();
  for (const Task& task : taskset.tasks) tasks.push_back(told(task));
  return json.set("tasks", std::move(tasks));
}

Json RandomSide::told(const Explanation& explanation) const {
  // Of several that touch the same files a store may name any.
  std::set<std::string> reasons;
  for (const WaitReason& reason : explanation.reasons) {
    std::string text = reason.kind;
    if (reason.kind != "touches") text += " " + reason.task_id;
    if (reason.until) text += " " + to_rfc3339(*reason.until);
    reasons.insert(text);
  }
  return Json::object({{"claimable", explanation.claimable},
                       {"state", to_string(explanation.state)},
                       {"reasons", std::vector<std::string>(reasons.begin(), reasons.end())}});
}

Json RandomSide::told(const std::vector<AttemptRecord>& records) const {
  Json json = Json::array();
  for (const AttemptRecord& record : records) json.push_back(record.to_json());
  return json;
}

Json RandomSide::told(const Event& event) {
  Json json = event.to_json();
  json.erase("id");
  return json;
}

}  // namespace necrocode::registry
