#include "necrocode/registry/sqlite_touches.hpp"

#include "necrocode/registry/touches.hpp"

namespace necrocode::registry {
namespace {

/// Whose files, and which.
struct Touches {
  std::string repo_url;
  std::vector<std::string> globs;
};

/// As touches_text() wrote them.
Touches read_touches(const std::string& text) {
  const Json list = Json::parse(text);
  Touches touches{list.items().front().string_or(""), {}};
  for (std::size_t i = 1; i < list.size(); ++i) {
    touches.globs.push_back(list.items()[i].string_or(""));
  }
  return touches;
}

}  // namespace

std::string touches_text(const TaskSpec& task) {
  if (task.touches.empty()) return {};
  Json list = Json::array();
  list.push_back(task.repo_url);
  for (const std::string& glob : task.touches) list.push_back(glob);
  return list.dump();
}

std::optional<std::int64_t> running_that_touches(db::Database& database, const TaskRow& row) {
  if (row.touches.empty()) return std::nullopt;
  const Touches own = read_touches(row.touches);
  TouchesBudget budget;
  db::Statement& running = database.prepare(
      "SELECT seq, touches FROM tasks INDEXED BY tasks_touching "
      "WHERE state = 2 AND touches IS NOT NULL ORDER BY seq");
  while (running.step()) {
    const Touches other = read_touches(running.text(1));
    if (own.repo_url != other.repo_url || !touches_overlap(own.globs, other.globs, budget))
      continue;
    const std::int64_t holder = running.integer(0);
    running.reset();
    return holder;
  }
  return std::nullopt;
}

}  // namespace necrocode::registry
