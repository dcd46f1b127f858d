// TaskTable: what a terminal shows of a spec, or of one task, while it is worked on.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/registry/client.hpp"

namespace necrocode::app {

/// Draws in place, each time over what it drew before, in one write; no line wraps, and none is
/// below the terminal's height. The cursor is hidden for as long as it lives.
class TaskTable {
 public:
  TaskTable(TaskRegistryClient& client, registry::EventFilter watched, CallContext context);
  ~TaskTable();
  TaskTable(const TaskTable&) = delete;
  TaskTable& operator=(const TaskTable&) = delete;

  /// What the table cannot ask the registry for: since when tasks run.
  void take(const registry::Event& event);
  /// Asks for what there is room to show, and shows it. Throws as the client does.
  void draw();

 private:
  struct View;
  View read_view(std::size_t rows);
  void add_tasks(View& view, std::vector<registry::TaskState> states, std::size_t rows);
  std::string head_line(const View& view) const;
  std::vector<std::string> row_of(const registry::Task& task) const;
  std::string waiting_reason(const registry::Task& task, std::size_t& asked) const;
  std::string time_since(std::optional<SystemTime> start) const;

  TaskRegistryClient& client_;
  const registry::EventFilter watched_;
  const CallContext context_;
  std::map<std::string, SystemTime> started_;  ///< by task, of those that run
  std::optional<SystemTime> first_start_;
  std::size_t drawn_lines_ = 0;
};

}  // namespace necrocode::app
