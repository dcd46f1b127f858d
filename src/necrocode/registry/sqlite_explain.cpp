// Why a task does not run: the conditions of a claim (task_store.hpp), each looked at for itself.
#include <algorithm>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/registry/sqlite_queries.hpp"
#include "necrocode/registry/sqlite_touches.hpp"

namespace necrocode::registry {
namespace {

/// So many dependencies are named.
constexpr std::size_t kNamedDependencies = 20;

std::string usd_text(std::int64_t micros) {
  return Json(static_cast<double>(micros) / kMicros).dump();
}

void explain_dependencies(db::Database& database, const TaskRow& row, Explanation& told) {
  if (row.open_dependencies == 0) {
    told.reasons.push_back({"state", "set to blocked by a client"});
    return;
  }
  db::Statement& query = database.prepare(
      "SELECT p.id, p.state FROM dependencies d JOIN tasks p ON p.seq = d.parent "
      "WHERE d.child = ? AND d.met = 0 ORDER BY p.state >= 4 DESC, p.seq LIMIT ?");
  query.bind(row.seq).bind(static_cast<std::int64_t>(kNamedDependencies));
  while (query.step()) {
    const auto state = static_cast<TaskState>(query.integer(1));
    const std::string id = query.text(0);
    std::string detail = "waits for " + id + ", which is " + std::string(to_string(state));
    if (state == TaskState::kDone) detail = "waits until the work of " + id + " is merged";
    told.reasons.push_back({"dependency", std::move(detail), id});
  }
}

void explain_end(const TaskRow& row, Explanation& told) {
  std::string detail = "the task is " + std::string(to_string(row.state));
  if (!row.failure.empty()) {
    const Json failure = Json::parse(row.failure);
    detail += ": " + failure["class"].string_or("") + ", " + failure["reason"].string_or("");
  }
  told.reasons.push_back({"state", std::move(detail)});
}

void explain_taskset(db::Database& database, const TaskRow& row, Explanation& told) {
  db::Statement& query = database.prepare(
      "SELECT running, max_running, budget_usd_micros, spent_usd_micros, budget_tokens, "
      "spent_tokens FROM taskset_numbers WHERE spec_id = ?");
  if (!query.bind(row.spec_id).step()) return;
  const std::string spec(row.spec_name());
  if (query.integer(1) > 0 && query.integer(0) >= query.integer(1)) {
    told.reasons.push_back({"spec_limit", spec + " runs " + std::to_string(query.integer(0)) +
                                              " tasks, and may run " +
                                              std::to_string(query.integer(1))});
  }
  if (query.integer(2) > 0 && query.integer(3) >= query.integer(2)) {
    told.reasons.push_back({"budget", "the budget of " + spec +
                                          " is spent: " + usd_text(query.integer(3)) + " of " +
                                          usd_text(query.integer(2)) + " US dollars"});
  }
  if (query.integer(4) > 0 && query.integer(5) >= query.integer(4)) {
    told.reasons.push_back({"budget", "the budget of " + spec +
                                          " is spent: " + std::to_string(query.integer(5)) +
                                          " of " + std::to_string(query.integer(4)) + " tokens"});
  }
  query.reset();
}

void explain_skill(db::Database& database, const TaskRow& row, const StoreOptions& options,
                   Explanation& told) {
  const auto limit = options.max_running_by_skill.find(row.skill);
  if (limit == options.max_running_by_skill.end()) return;
  if (running_with_skill(database, row.skill, limit->second) < limit->second) return;
  told.reasons.push_back({"skill_limit", "as many tasks run that need the skill " + row.skill +
                                             " as may: " + std::to_string(limit->second)});
}

void explain_provider(db::Database& database, const TaskRow& row, Explanation& told) {
  if (row.provider.empty()) return;
  for (const ParkedProvider& parked : query_parked_providers(database)) {
    if (parked.name != row.provider) continue;
    db::Statement& query = database.prepare("SELECT due, probe FROM providers WHERE name = ?");
    query.bind(row.provider).step();
    const bool open = query.integer(0) != 0 && query.integer(1) == 0;
    query.reset();
    if (open) return;  // this task may be the probe
    WaitReason reason{"provider", "the provider " + parked.name + " is parked"};
    if (!parked.reason.empty()) reason.detail += ": " + parked.reason;
    if (!parked.probe.empty()) {
      reason.detail += "; " + parked.probe + " tries it again";
      reason.task_id = parked.probe;
    } else {
      reason.until = parked.until;
    }
    told.reasons.push_back(std::move(reason));
  }
}

void explain_touches(db::Database& database, const TaskRow& row, Explanation& told) {
  const auto holder = running_that_touches(database, row);
  if (!holder) return;
  const std::string id = load_row(database, *holder).id;
  told.reasons.push_back({"touches", id + " runs and touches the same files", id});
}

}  // namespace

Explanation query_explanation(db::Database& database, const StoreOptions& options,
                              const std::string& task_id) {
  const TaskRow row = load_row(database, task_id);
  Explanation told;
  told.task_id = row.id;
  told.state = row.state;
  if (row.state == TaskState::kBlocked) explain_dependencies(database, row, told);
  if (is_final(row.state)) explain_end(row, told);
  if (row.state != TaskState::kReady) return told;
  if (row.hold == kWaiting) {
    const SystemTime until = from_unix_ms(row.not_before_ms);
    told.reasons.push_back({"not_before", "not before " + to_rfc3339(until), {}, until});
  }
  explain_taskset(database, row, told);
  explain_skill(database, row, options, told);
  explain_provider(database, row, told);
  explain_touches(database, row, told);
  told.claimable = told.reasons.empty();
  return told;
}

std::vector<ParkedProvider> query_parked_providers(db::Database& database) {
  db::Statement& query = database.prepare(
      "SELECT p.name, p.until_ms, p.reason, coalesce(t.id, '') FROM providers p "
      "LEFT JOIN tasks t ON t.seq = p.probe ORDER BY p.name");
  std::vector<ParkedProvider> providers;
  while (query.step()) {
    providers.push_back(
        {query.text(0), from_unix_ms(query.integer(1)), query.text(2), query.text(3)});
  }
  return providers;
}

std::int64_t running_with_skill(db::Database& database, const std::string& skill, int at_most) {
  db::Statement& query = database.prepare(
      "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_running "
      "WHERE state = 2 AND skill = ? LIMIT ?)");
  query.bind(skill).bind(at_most).step();
  const std::int64_t running = query.integer(0);
  query.reset();
  return running;
}

}  // namespace necrocode::registry
