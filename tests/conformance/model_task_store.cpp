#include "conformance/model_task_store.hpp"

#include <algorithm>
#include <set>

#include "conformance/model_changes.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::registry {
namespace {

using Place = std::vector<std::string>;

/// Where a task stands in an order, as texts that sort so.
Place place_of(const ModelTask& task, const std::string& sort) {
  const auto padded = [](std::int64_t number) {
    const std::string digits = std::to_string(number);
    return std::string(20 - digits.size(), '0') + digits;
  };
  Place place;
  if (sort == "number") {
    place = natural_order(task.number);
    place.insert(place.begin(), task.spec);
    place.emplace_back();  // before every longer number
  } else if (sort == "priority") {
    place.push_back(padded(INT32_MAX - std::int64_t{task.priority()}));
  }
  place.push_back(padded(task.seq));
  return place;
}

std::string write_cursor(const std::string& sort, Place place) {
  place.insert(place.begin(), sort);
  return Json(place).dump();
}

[[noreturn]] void refuse(const std::string& parameter, const std::string& why) {
  ErrorInfo info;
  info.fields.push_back({"/" + parameter, why});
  throw TaskContextValidationError("invalid query", std::move(info));
}

Place read_cursor(const std::string& sort, const std::string& cursor) {
  Place place;
  const Json values = Json::try_parse(cursor).value_or(Json());
  for (const Json& value : values.items()) place.push_back(value.string_or(""));
  if (place.empty() || place.front() != sort) refuse("cursor", "is not one that this query gave");
  place.erase(place.begin());
  return place;
}

bool contains_text(const std::string& text, const std::string& part) {
  const auto same = [](char a, char b) { return ascii_lower(a) == ascii_lower(b); };
  return std::search(text.begin(), text.end(), part.begin(), part.end(), same) != text.end();
}

bool matches(const ModelTask& task, const TaskQuery& query) {
  if (!query.spec.empty() && task.spec != query.spec) return false;
  if (!query.states.empty() &&
      std::count(query.states.begin(), query.states.end(), task.state) == 0) {
    return false;
  }
  if (!query.skill.empty() && task.text("required_skill") != query.skill) return false;
  const std::vector<std::string> labels = task.texts("labels");
  if (!query.label.empty() && std::count(labels.begin(), labels.end(), query.label) == 0) {
    return false;
  }
  if (!query.text.empty() && !contains_text(task.text("title"), query.text) &&
      !contains_text(task.text("description"), query.text)) {
    return false;
  }
  if (query.since && task.updated_at < *query.since) return false;
  return !query.until || task.updated_at < *query.until;
}

std::vector<const ModelTask*> by_number(const ModelState& state, const std::string& spec) {
  std::vector<const ModelTask*> tasks;
  for (const auto& [seq, task] : state.tasks) {
    if (task.spec == spec) tasks.push_back(&task);
  }
  std::sort(tasks.begin(), tasks.end(), [](const ModelTask* a, const ModelTask* b) {
    return place_of(*a, "number") < place_of(*b, "number");
  });
  return tasks;
}

}  // namespace

ModelTaskStore::ModelTaskStore(const Clock& clock, StoreOptions options)
    : clock_(clock),
      options_(std::move(options)),
      server_([this](const std::stop_token& stop) { serve(stop); }) {}
ModelTaskStore::~ModelTaskStore() = default;

void ModelTaskStore::change(const std::function<void(ModelChanges&)>& work) {
  const std::lock_guard lock(mutex_);
  const ModelState before = state_;
  ModelChanges changes(state_, clock_, options_);
  try {
    work(changes);
  } catch (...) {
    state_ = before;
    throw;
  }
  CommitNews news;
  news.became_claimable = state_.anything_claimable(options_);
  const auto due = state_.next_due();
  const auto due_before = before.next_due();
  news.due_sooner = due && (!due_before || *due < *due_before);
  for (const ModelEvent& event : state_.events) {
    if (event.event.id > before.last_event) news.events_of.push_back(event.event.task_id);
  }
  if (!news.became_claimable && !news.due_sooner && news.events_of.empty()) return;
  for (const auto& listener : listeners_) listener(news);
}

void ModelTaskStore::transact(const std::function<void(TaskChanges&)>& work) {
  change([&](ModelChanges& changes) { work(changes); });
}

void ModelTaskStore::transact_later(std::function<void(TaskChanges&)> work,
                                    std::function<void(std::exception_ptr)> done) {
  const std::lock_guard lock(later_mutex_);
  queue_.push_back({std::move(work), std::move(done)});
  later_.notify_one();
}

void ModelTaskStore::serve(const std::stop_token& stop) {
  while (true) {
    Later next;
    {
      std::unique_lock lock(later_mutex_);
      if (!later_.wait(lock, stop, [&] { return !queue_.empty(); })) return;
      next = std::move(queue_.front());
      queue_.pop_front();
    }
    std::exception_ptr problem;
    try {
      transact(next.work);
    } catch (...) {
      problem = std::current_exception();
    }
    next.done(problem);
  }
}

void ModelTaskStore::restart() {
  const std::lock_guard lock(mutex_);
  const SteadyTime steady = clock_.steady_now();
  const auto left = [&](SystemTime until) {
    return std::max<SystemTime::duration>(until - clock_.system_now(),
                                          SystemTime::duration::zero());
  };
  for (auto& [seq, task] : state_.tasks) {
    task.lease_ends = steady + task.lease;
    if (task.wait_ends) task.wait_ends = steady + left(*task.not_before);
  }
  for (auto& [name, provider] : state_.providers) {
    provider.ends =
        steady + std::min<SystemTime::duration>(left(provider.parked.until), limits::kParkTimeMax);
  }
}

std::optional<SteadyTime> ModelTaskStore::next_due() {
  const std::lock_guard lock(mutex_);
  return state_.next_due();
}

std::vector<HeartbeatResult> ModelTaskStore::heartbeat(const std::vector<LeaseRef>& leases) {
  const std::lock_guard lock(mutex_);
  std::vector<HeartbeatResult> results;
  for (const LeaseRef& lease : leases) {
    HeartbeatResult& result = results.emplace_back();
    result.task_id = lease.task_id;
    for (auto& [seq, task] : state_.tasks) {
      const bool named = task.id == lease.task_id || task.number == lease.task_id;
      if (!named || task.token.empty() || task.token != lease.token.value) continue;
      if (task.lease_ends <= clock_.steady_now()) continue;
      task.lease_ends = clock_.steady_now() + task.lease;
      result.answer = {clock_.system_now() + task.lease, task.cancel_requested};
    }
    if (result.answer) continue;
    try {
      state_.get(lease.task_id);
      throw Conflict("the lease is lost");
    } catch (const RunnerError&) {
      result.problem = std::current_exception();
    }
  }
  return results;
}

std::optional<std::chrono::nanoseconds> ModelTaskStore::do_due() {
  change([](ModelChanges& changes) { changes.do_due(); });
  const auto due = next_due();
  if (!due) return std::nullopt;
  return *due - clock_.steady_now();
}

bool ModelTaskStore::purge(const Retention& retention) {
  change([&](ModelChanges& changes) { changes.purge(retention); });
  return false;
}

Task ModelTaskStore::task(const std::string& task_id) {
  const std::lock_guard lock(mutex_);
  return state_.told(state_.get(task_id));
}

TaskPage ModelTaskStore::tasks(const TaskQuery& query) {
  const std::lock_guard lock(mutex_);
  if (query.sort != "number" && query.sort != "priority" && query.sort != "age") {
    refuse("sort", "must be number, priority or age");
  }
  std::map<Place, const ModelTask*> found;
  for (const auto& [seq, task] : state_.tasks) {
    if (matches(task, query)) found[place_of(task, query.sort)] = &task;
  }
  TaskPage page;
  std::size_t bytes = 0;
  Place last;
  if (!query.cursor.empty()) last = read_cursor(query.sort, query.cursor);
  for (auto entry = found.upper_bound(last); entry != found.end(); ++entry) {
    const ModelTask& task = *entry->second;
    bytes += task.fields.dump().size() + task.metadata.dump().size() + task.failure.dump().size();
    for (const ArtifactRef& artifact : task.artifacts) {
      bytes += artifact.type.size() + artifact.uri.size() + artifact.metadata.dump().size();
    }
    const bool full = static_cast<int>(page.items.size()) == query.limit;
    if (!page.items.empty() && (full || bytes > limits::kPageBytes)) {
      page.next_cursor = write_cursor(query.sort, last);
      break;
    }
    page.items.push_back(state_.told(task));
    last = entry->first;
  }
  return page;
}

std::vector<AttemptRecord> ModelTaskStore::attempts(const std::string& task_id) {
  const std::lock_guard lock(mutex_);
  return state_.attempts(state_.get(task_id));
}

Explanation ModelTaskStore::explain(const std::string& task_id) {
  const std::lock_guard lock(mutex_);
  return state_.explain(state_.get(task_id), options_);
}

std::vector<ParkedProvider> ModelTaskStore::parked_providers() {
  const std::lock_guard lock(mutex_);
  std::vector<ParkedProvider> parked;
  for (const auto& [name, provider] : state_.providers) parked.push_back(provider.parked);
  return parked;
}

Taskset ModelTaskStore::told(const ModelTaskset& taskset) const {
  Taskset told;
  told.spec_name = taskset.name;
  told.version = taskset.version;
  told.metadata = taskset.metadata;
  told.limits = taskset.limits;
  told.spent_usd = static_cast<double>(taskset.spent_micros) / 1e6;
  told.spent_tokens = taskset.spent_tokens;
  told.created_at = taskset.created_at;
  told.updated_at = taskset.updated_at;
  told.counts = Json::object();
  for (const TaskState state : kTaskStates) {
    told.counts.set(to_string(state),
                    std::count_if(state_.tasks.begin(), state_.tasks.end(), [&](const auto& entry) {
                      return entry.second.spec == taskset.name && entry.second.state == state;
                    }));
  }
  return told;
}

Taskset ModelTaskStore::taskset(const std::string& spec, TasksetPart part) {
  Taskset whole;
  {
    const std::lock_guard lock(mutex_);
    whole = told(state_.taskset(spec));
  }
  whole.head_only = part == TasksetPart::kHead;
  if (whole.head_only) return whole;
  TaskQuery query;
  query.spec = spec;
  query.limit = static_cast<int>(limits::kTasksPerSubmit);
  TaskPage page = tasks(query);
  whole.tasks = std::move(page.items);
  whole.next_cursor = page.next_cursor;
  return whole;
}

TasksetPage ModelTaskStore::tasksets(const std::string& cursor, int limit) {
  const std::lock_guard lock(mutex_);
  TasksetPage page;
  for (auto entry = state_.tasksets.upper_bound(cursor); entry != state_.tasksets.end(); ++entry) {
    if (static_cast<int>(page.items.size()) == limit) {
      page.next_cursor = page.items.back().spec_name;
      break;
    }
    page.items.push_back(told(entry->second));
    page.items.back().head_only = true;
  }
  return page;
}

EventPage ModelTaskStore::events(const EventQuery& query) {
  const std::lock_guard lock(mutex_);
  const std::int64_t task_seq = query.task_id.empty() ? 0 : state_.get(query.task_id).seq;
  EventPage page;
  std::size_t bytes = 0;
  for (const ModelEvent& entry : state_.events) {
    const Event& event = entry.event;
    if (event.id <= query.after || (task_seq != 0 && entry.task_seq != task_seq)) continue;
    if (!query.spec.empty() && entry.spec != query.spec) continue;
    if (!query.type.empty() && event.event_type != query.type) continue;
    if (query.since && event.recorded_at < *query.since) continue;
    if (query.until && event.recorded_at >= *query.until) continue;
    bytes += event.data.dump().size();
    const bool full = static_cast<int>(page.items.size()) == query.limit;
    if (!page.items.empty() && (full || bytes > query.bytes_max)) {
      page.next_cursor = std::to_string(page.items.back().id);
      break;
    }
    page.items.push_back(event);
  }
  return page;
}

std::int64_t ModelTaskStore::newest_event() {
  const std::lock_guard lock(mutex_);
  return state_.events.empty() ? 0 : state_.events.back().event.id;
}

TaskGraph ModelTaskStore::graph(const std::string& spec) {
  const std::lock_guard lock(mutex_);
  TaskGraph graph;
  graph.spec_name = state_.taskset(spec).name;
  std::vector<TaskGraph::Node> external;
  const auto node_of = [](const ModelTask& task, bool outside) {
    return TaskGraph::Node{task.id, task.text("title"), task.state, outside};
  };
  for (const ModelTask* task : by_number(state_, spec)) {
    graph.nodes.push_back(node_of(*task, false));
    std::map<std::pair<Place, std::int64_t>, std::pair<const ModelTask*, DependencyPolicy>> parents;
    for (const ModelEdge& edge : task->edges) {
      const ModelTask& parent = state_.tasks.at(edge.parent);
      parents[{natural_order(parent.number), parent.seq}] = {&parent, edge.policy};
    }
    for (const auto& [place, found] : parents) {
      const auto& [parent, policy] = found;
      graph.edges.push_back({parent->id, task->id, policy});
      const bool known =
          std::any_of(external.begin(), external.end(),
                      [&, id = parent->id](const auto& node) { return node.id == id; });
      if (parent->spec != spec && !known) external.push_back(node_of(*parent, true));
    }
  }
  graph.nodes.insert(graph.nodes.end(), external.begin(), external.end());
  return graph;
}

std::map<TaskState, std::int64_t> ModelTaskStore::counts() {
  const std::lock_guard lock(mutex_);
  std::map<TaskState, std::int64_t> counts;
  for (const TaskState state : kTaskStates) counts[state] = 0;
  for (const auto& [seq, task] : state_.tasks) ++counts[task.state];
  return counts;
}

void ModelTaskStore::on_commit(std::function<void(const CommitNews&)> listener) {
  const std::lock_guard lock(mutex_);
  listeners_.push_back(std::move(listener));
}

}  // namespace necrocode::registry
