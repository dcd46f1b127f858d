// Submission: a whole taskset created or brought up to date, or nothing of it.
#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/registry/sqlite_changes.hpp"
#include "necrocode/registry/sqlite_touches.hpp"

namespace necrocode::registry {
namespace {

std::int64_t not_before_ms(const TaskSpec& task) {
  return task.not_before ? to_unix_ms(*task.not_before) : 0;
}

}  // namespace

/// What is known so far about a submission under way.
struct SqliteChange::Submitting {
  struct Entry {
    std::int64_t seq = 0;
    bool created = false;
    bool dependencies_changed = false;
  };
  explicit Submitting(const Submission& whole) : submission(whole), entries(whole.tasks.size()) {}

  const Submission& submission;
  std::int64_t spec_id = 0;
  bool changed = false;
  std::vector<Entry> entries;    ///< as submission.tasks
  std::vector<TaskRow> ended;    ///< whose dependents are to be told
  std::vector<TaskRow> unnamed;  ///< to be removed
  std::unordered_set<std::int64_t> unnamed_seqs;
  /// The tasks that dependencies name; nothing where there is none.
  std::unordered_map<std::string, std::optional<std::int64_t>> named;
  std::vector<FieldError> errors;

  void fail(std::size_t index, const std::string& rest, const std::string& message) {
    errors.push_back({"/tasks/" + std::to_string(index) + rest, message});
  }
  void finish() const {
    if (errors.empty()) return;
    ErrorInfo info;
    info.target = submission.spec_name;
    info.fields = errors;
    throw TaskContextValidationError("invalid taskset", std::move(info));
  }
};

bool SqliteChange::submit(const Submission& submission) {
  Submitting submitting(submission);
  const bool created = open_taskset(submitting);
  const bool limits_changed = put_limits(submitting);
  submitting.changed = submitting.changed || limits_changed;
  for (std::size_t i = 0; i < submission.tasks.size(); ++i) put_task(submitting, i);
  if (submission.replace) find_unnamed(submitting);
  for (std::size_t i = 0; i < submission.tasks.size(); ++i) put_dependencies(submitting, i);
  submitting.finish();
  remove_unnamed(submitting);
  submitting.finish();
  refuse_cycles(submitting);
  for (const Submitting::Entry& entry : submitting.entries) {
    if (!entry.created && !entry.dependencies_changed) continue;
    settle_dependencies(submitting, entry.seq, entry.created);
  }
  // Once all of them are settled: a parent may stand after its child, and who waited for it may
  // have been removed, or wait for others now.
  for (const TaskRow& row : submitting.ended) tell_dependents(row);
  if (limits_changed) meet_done_parents(submitting.spec_id);
  specs_[submitting.spec_id].lanes_stale = true;
  if (submitting.changed) {
    database_.prepare("UPDATE tasksets SET version = version + 1, updated_ms = ? WHERE spec_id = ?")
        .bind(now_ms_)
        .bind(submitting.spec_id)
        .run();
  }
  return created;
}

bool SqliteChange::open_taskset(Submitting& submitting) {
  const Submission& submission = submitting.submission;
  db::Statement& query = database_.prepare("SELECT spec_id, metadata FROM tasksets WHERE name = ?");
  const bool created = !query.bind(submission.spec_name).step();
  const std::string metadata = submission.metadata ? submission.metadata->dump() : "{}";
  if (created) {
    database_
        .prepare(
            "INSERT INTO tasksets (name, version, metadata, created_ms, updated_ms) "
            "VALUES (?, 0, ?, ?, ?)")
        .bind(submission.spec_name)
        .bind(metadata)
        .bind(now_ms_)
        .bind(now_ms_)
        .run();
    submitting.spec_id = database_.last_insert_id();
    submitting.changed = true;
    database_
        .prepare(
            "INSERT INTO taskset_numbers (spec_id, blocked, ready, running, done, failed, "
            "cancelled) VALUES (?, 0, 0, 0, 0, 0, 0)")
        .bind(submitting.spec_id)
        .run();
    return true;
  }
  submitting.spec_id = query.integer(0);
  const bool differs = submission.metadata && query.text(1) != metadata;
  query.reset();
  if (differs) {
    database_.prepare("UPDATE tasksets SET metadata = ? WHERE spec_id = ?")
        .bind(metadata)
        .bind(submitting.spec_id)
        .run();
    submitting.changed = true;
  }
  return false;
}

bool SqliteChange::put_limits(Submitting& submitting) {
  const Submission& given = submitting.submission;
  std::optional<std::int64_t> usd_micros;
  if (given.budget_usd) usd_micros = std::llround(std::ceil(*given.budget_usd * kMicros));
  std::optional<int> unblock_on;
  if (given.unblock_on) unblock_on = static_cast<int>(*given.unblock_on);
  // Only where one of them differs: the count of changed rows says so.
  database_
      .prepare(
          "UPDATE taskset_numbers SET max_running = coalesce(?1, max_running), "
          "budget_usd_micros = coalesce(?2, budget_usd_micros), "
          "budget_tokens = coalesce(?3, budget_tokens), unblock_on = coalesce(?4, unblock_on) "
          "WHERE spec_id = ?5 AND (max_running <> ?1 OR budget_usd_micros <> ?2 OR "
          "budget_tokens <> ?3 OR unblock_on <> ?4)")
      .bind(given.max_running)
      .bind(usd_micros)
      .bind(given.budget_tokens)
      .bind(unblock_on)
      .bind(submitting.spec_id)
      .run();
  const bool changed = database_.changes() > 0;
  if (changed) {
    specs_[submitting.spec_id].numbers.reset();
    effects_.news.became_claimable = true;  // a waiting claim may find a task now
  }
  return changed;
}

void SqliteChange::put_task(Submitting& submitting, std::size_t index) {
  const std::string id =
      submitting.submission.spec_name + ":" + submitting.submission.tasks[index].number;
  db::Statement& query = database_.prepare("SELECT seq FROM tasks WHERE id = ?");
  if (!query.bind(id).step()) {
    insert_task(submitting, index, id);
    return;
  }
  const std::int64_t seq = query.integer(0);
  query.reset();
  update_task(submitting, index, load_row(database_, seq));
}

void SqliteChange::insert_task(Submitting& submitting, std::size_t index, const std::string& id) {
  const TaskSpec& task = submitting.submission.tasks[index];
  const Json& metadata = task.fields["metadata"];
  const TaskState state = task.done ? TaskState::kDone : TaskState::kBlocked;
  const std::string touches = touches_text(task);
  // Blocked until its dependencies are known; version 0 until it is settled.
  database_
      .prepare(
          "INSERT INTO tasks (spec_id, id, number, number_key, skill, priority, state, metadata, "
          "open_dependencies, attempt, retry_epoch, epoch, lease_ms, runner_id, "
          "cancel_requested, version, created_ms, updated_ms, lane, provider, touches, hold, "
          "not_before_ms) "
          "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, '', 0, 0, ?, ?, ?, ?, ?, 0, ?)")
      .bind(submitting.spec_id)
      .bind(id)
      .bind(task.number)
      .bind(natural_key(task.number))
      .bind(task.required_skill)
      .bind(task.priority)
      .bind(static_cast<int>(state))
      .bind(metadata.is_object() ? metadata.dump() : "{}")
      .bind(now_ms_)
      .bind(now_ms_)
      .bind(lane_of(submitting.spec_id, task.required_skill, task.provider))
      .bind(task.provider)
      .bind(touches.empty() ? std::nullopt : std::optional(touches))
      .bind(not_before_ms(task))
      .run();
  Submitting::Entry& entry = submitting.entries[index];
  entry.seq = database_.last_insert_id();
  entry.created = true;
  submitting.changed = true;
  database_.prepare("INSERT INTO task_fields (seq, fields) VALUES (?, ?)")
      .bind(entry.seq)
      .bind(task.fields.dump())
      .run();
  count(submitting.spec_id, state, 1);
}

void SqliteChange::update_task(Submitting& submitting, std::size_t index, TaskRow row) {
  const TaskSpec& task = submitting.submission.tasks[index];
  submitting.entries[index].seq = row.seq;
  const std::string fields = task.fields.dump();
  const bool same = fields == row.fields;
  if (!same) {
    submitting.changed = true;
    const Json before = Json::parse(row.fields);
    const bool merged = before["metadata"] != task.fields["metadata"] &&
                        merge_metadata(row, task.fields["metadata"]);
    row.fields = fields;
    write_fields(row, task);
    if (row.state == TaskState::kReady) {
      if (before["not_before"] != task.fields["not_before"]) {
        row.not_before_ms = not_before_ms(task);
        enter_ready(row);
      } else if (row.hold > 0) {
        row.hold = 0;  // what it touches may be other files now
      }
      effects_.news.became_claimable = true;  // a waiting claim may match it now
    } else if (before["not_before"] != task.fields["not_before"]) {
      row.not_before_ms = not_before_ms(task);
    }
    if (row.state == TaskState::kRunning) {  // what it held may be free now
      release_held(row);
      effects_.news.became_claimable = true;
    }
    save(row, row.state);
    record(row, "TaskUpdated", Json::object({{"fields", true}}));
    if (merged && row.state == TaskState::kDone) submitting.ended.push_back(row);
  }
  const bool ends = task.done && row.state != TaskState::kDone && row.state != TaskState::kRunning;
  if (!ends) return;
  submitting.changed = true;
  row.failure.clear();
  transition(row, TaskState::kDone, event_for(TaskState::kDone),
             Json::object({{"reason", "submitted as done"}}));
  submitting.ended.push_back(std::move(row));
}

/// The submitted fields, and the columns that follow from them.
void SqliteChange::write_fields(const TaskRow& row, const TaskSpec& task) {
  const std::string touches = touches_text(task);
  database_.prepare("UPDATE task_fields SET fields = ? WHERE seq = ?")
      .bind(row.fields)
      .bind(row.seq)
      .run();
  database_
      .prepare(
          "UPDATE tasks SET skill = ?, priority = ?, provider = ?, touches = ?, lane = ? "
          "WHERE seq = ?")
      .bind(task.required_skill)
      .bind(task.priority)
      .bind(task.provider)
      .bind(touches.empty() ? std::nullopt : std::optional(touches))
      .bind(lane_of(row.spec_id, task.required_skill, task.provider))
      .bind(row.seq)
      .run();
}

void SqliteChange::find_unnamed(Submitting& submitting) {
  std::unordered_set<std::int64_t> named;
  for (const Submitting::Entry& entry : submitting.entries) named.insert(entry.seq);
  std::vector<std::int64_t> found;
  db::Statement& query = database_.prepare(
      "SELECT seq FROM tasks WHERE spec_id = ? AND state IN (0, 1) AND epoch = 0");
  query.bind(submitting.spec_id);
  while (query.step()) found.push_back(query.integer(0));
  for (const std::int64_t seq : found) {
    if (named.count(seq) > 0) continue;
    submitting.unnamed.push_back(load_row(database_, seq));
    submitting.unnamed_seqs.insert(seq);
  }
}

std::optional<std::int64_t> SqliteChange::find_dependency(Submitting& submitting,
                                                          const std::string& id) {
  const auto [found, fresh] = submitting.named.try_emplace(id);
  if (!fresh) return found->second;
  db::Statement& query = database_.prepare("SELECT seq FROM tasks WHERE id = ?");
  if (!query.bind(id).step()) return std::nullopt;
  const std::int64_t seq = query.integer(0);
  query.reset();
  if (submitting.unnamed_seqs.count(seq) == 0) found->second = seq;
  return found->second;
}

void SqliteChange::put_dependencies(Submitting& submitting, std::size_t index) {
  const std::string& spec = submitting.submission.spec_name;
  const TaskSpec& task = submitting.submission.tasks[index];
  const std::vector<std::string>& names = task.dependencies;
  Submitting::Entry& entry = submitting.entries[index];
  std::map<std::int64_t, DependencyPolicy> wanted;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string at = "/dependencies/" + std::to_string(i);
    const std::string id =
        names[i].find(':') == std::string::npos ? spec + ":" + names[i] : names[i];
    const std::optional<std::int64_t> seq = find_dependency(submitting, id);
    if (!seq) {
      submitting.fail(index, at,
                      "there is no task " + shorten(printable(id), 2 * limits::kNameBytes));
    } else if (*seq == entry.seq) {
      submitting.fail(index, at, "closes a cycle: " + id + " → " + id);
    } else {
      const auto own = task.dependency_policies.find(names[i]);
      const bool named = own != task.dependency_policies.end();
      wanted[*seq] = named ? own->second : task.dependency_policy;
    }
  }
  if (wanted == edges_of(entry.seq)) return;
  entry.dependencies_changed = true;
  database_.prepare("DELETE FROM dependencies WHERE child = ?").bind(entry.seq).run();
  for (const auto& [parent, policy] : wanted) {
    database_
        .prepare(
            "INSERT INTO dependencies (child, parent, policy, met) "
            "SELECT ?1, ?2, ?3, CASE p.state "
            "WHEN 3 THEN n.unblock_on = 0 OR json_type(p.metadata, '$.merged') IS 'true' "
            "WHEN 4 THEN ?3 = 2 WHEN 5 THEN ?3 = 2 ELSE 0 END "
            "FROM tasks p, taskset_numbers n WHERE p.seq = ?2 AND n.spec_id = ?4")
        .bind(entry.seq)
        .bind(parent)
        .bind(static_cast<int>(policy))
        .bind(submitting.spec_id)
        .run();
  }
}

std::map<std::int64_t, DependencyPolicy> SqliteChange::edges_of(std::int64_t seq) {
  db::Statement& query =
      database_.prepare("SELECT parent, policy FROM dependencies WHERE child = ?");
  query.bind(seq);
  std::map<std::int64_t, DependencyPolicy> edges;
  while (query.step()) edges[query.integer(0)] = static_cast<DependencyPolicy>(query.integer(1));
  return edges;
}

std::vector<std::int64_t> SqliteChange::parents_of(std::int64_t seq) {
  db::Statement& query =
      database_.prepare("SELECT parent FROM dependencies WHERE child = ? ORDER BY parent");
  query.bind(seq);
  std::vector<std::int64_t> parents;
  while (query.step()) parents.push_back(query.integer(0));
  return parents;
}

void SqliteChange::remove_unnamed(Submitting& submitting) {
  for (const TaskRow& row : submitting.unnamed) {
    database_.prepare("DELETE FROM dependencies WHERE child = ?").bind(row.seq).run();
  }
  for (const TaskRow& row : submitting.unnamed) {
    db::Statement& query = database_.prepare(
        "SELECT t.id FROM dependencies d JOIN tasks t ON t.seq = d.child WHERE d.parent = ? LIMIT "
        "1");
    if (query.bind(row.seq).step()) {
      submitting.errors.push_back(
          {"/replace", "cannot remove " + row.id + ": " + query.text(0) + " depends on it"});
      query.reset();
      continue;
    }
    record(row, "TaskUpdated", Json::object({{"removed", true}}));
    count(row.spec_id, row.state, -1);
    database_.prepare("DELETE FROM tasks WHERE seq = ?").bind(row.seq).run();
    submitting.changed = true;
  }
}

// A cycle must pass through a task whose dependencies this submission changed; so a depth-first
// walk towards the parents from each of those finds it, over all tasksets, visiting each task once.
void SqliteChange::refuse_cycles(const Submitting& submitting) {
  enum class Mark { kOpen, kDone };
  struct Step {
    std::int64_t seq;
    std::vector<std::int64_t> parents;
    std::size_t next = 0;
  };
  std::unordered_map<std::int64_t, Mark> marks;
  for (std::size_t i = 0; i < submitting.entries.size(); ++i) {
    const Submitting::Entry& entry = submitting.entries[i];
    if (!entry.dependencies_changed || marks.count(entry.seq) > 0) continue;
    std::vector<Step> path{{entry.seq, parents_of(entry.seq)}};
    marks[entry.seq] = Mark::kOpen;
    while (!path.empty()) {
      Step& step = path.back();
      if (step.next == step.parents.size()) {
        marks[step.seq] = Mark::kDone;
        path.pop_back();
        continue;
      }
      const std::int64_t parent = step.parents[step.next++];
      const auto [mark, fresh] = marks.emplace(parent, Mark::kOpen);
      if (fresh) {
        path.push_back({parent, parents_of(parent)});
      } else if (mark->second == Mark::kOpen) {
        std::vector<std::int64_t> cycle;
        for (const Step& on_path : path) {
          if (!cycle.empty() || on_path.seq == parent) cycle.push_back(on_path.seq);
        }
        cycle.push_back(parent);
        refuse_cycle(cycle, i);
      }
    }
  }
}

void SqliteChange::refuse_cycle(const std::vector<std::int64_t>& path, std::size_t index) {
  constexpr std::size_t kNamed = 20;
  std::vector<std::string> names;
  for (const std::int64_t seq : path) {
    if (names.size() == kNamed) {
      names.push_back("…");
      break;
    }
    names.push_back(load_row(database_, seq).id);
  }
  ErrorInfo info;
  info.detail = "the dependencies form a cycle: " + join(names, " → ");
  info.fields.push_back({"/tasks/" + std::to_string(index) + "/dependencies",
                         "closes a cycle: " + join(names, " → ")});
  throw TaskContextValidationError("invalid taskset", std::move(info));
}

void SqliteChange::settle_dependencies(Submitting& submitting, std::int64_t seq, bool created) {
  db::Statement& query =
      database_.prepare("SELECT count(*) FROM dependencies WHERE child = ? AND met = 0");
  query.bind(seq).step();
  const auto open = static_cast<int>(query.integer(0));
  query.reset();
  TaskRow row = load_row(database_, seq);
  const int before = std::exchange(row.open_dependencies, open);
  const bool waits = row.state == TaskState::kReady || row.state == TaskState::kBlocked;
  const TaskState wanted = waits ? resting_state(row) : row.state;
  if (created) {
    const bool doomed = wanted == TaskState::kCancelled;
    const TaskState first = doomed ? TaskState::kBlocked : wanted;
    transition(row, first, "TaskCreated", Json::object({{"state", to_string(first)}}));
    if (doomed) {
      transition(row, wanted, event_for(wanted), Json::object({{"after", *dooming_parent(row)}}));
    }
  } else if (waits && wanted == TaskState::kCancelled) {
    transition(row, wanted, event_for(wanted), Json::object({{"after", *dooming_parent(row)}}));
  } else if (row.state == TaskState::kReady && wanted == TaskState::kBlocked) {
    move(row, wanted, "TaskUpdated", Json::object({{"to", "blocked"}}));
  } else if (row.state == TaskState::kBlocked && wanted == TaskState::kReady && before > 0) {
    move(row, wanted, event_for(wanted), Json::object({{"reason", "dependencies changed"}}));
  } else {
    save(row, row.state);
  }
  if (waits && row.state == TaskState::kCancelled) submitting.ended.push_back(std::move(row));
}

// For a taskset that no longer waits for merges.
void SqliteChange::meet_done_parents(std::int64_t spec_id) {
  std::vector<std::int64_t> parents;
  {
    db::Statement& query = database_.prepare(
        "SELECT DISTINCT d.parent FROM tasks c JOIN dependencies d ON d.child = c.seq "
        "JOIN tasks p ON p.seq = d.parent WHERE c.spec_id = ? AND d.met = 0 AND p.state = 3 "
        "ORDER BY d.parent");
    query.bind(spec_id);
    while (query.step()) parents.push_back(query.integer(0));
  }
  for (const std::int64_t parent : parents) tell_dependents(load_row(database_, parent));
}

}  // namespace necrocode::registry
