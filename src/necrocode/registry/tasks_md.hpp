// tasks.md, the implementation plan of a Kiro spec: read as tasks, and ticked as they are done.
// Pure text; tasks_md_file.hpp touches the file. docs/task-files.md has the rules for users.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/json.hpp"
#include "necrocode/registry/model.hpp"

namespace necrocode::registry {

/// One numbered box: `- [ ] 1.2 Title`, with the lines below it.
struct MarkdownTask {
  std::string number;  ///< "1.2", without the dot that may follow
  std::string title;
  char box = ' ';         ///< ' ' open, '~' queued, '-' begun, 'x' done
  bool optional = false;  ///< `- [ ]*`, on it or on a task above it
  std::string description;
  std::vector<std::string> requirements;  ///< of `_Requirements: 1.1, 2.3_`
  std::string parent;      ///< the nearest number above it that the text has ("1" of "1.2"), or ""
  std::size_t line = 0;    ///< from 1
  std::size_t box_at = 0;  ///< the byte between the brackets
};

/// The tasks of a plan, in its order. Throws TaskContextValidationError with all defects (at most
/// 100 are told), each by its line: no task at all, a number that is malformed or given twice, a
/// box that is none of [ ], [x], [-] and [~], a box of the top level without a number, no title, a
/// fence or comment without an end, bytes that are not UTF-8.
std::vector<MarkdownTask> parse_tasks_md(std::string_view text);

struct TasksetOptions {
  bool parallel = false;          ///< without the order of the file
  bool without_optional = false;  ///< the boxes with `*` are left out
  std::string repo_url{};         ///< of every task; empty: none
  std::string source_name{};      ///< the file's name, for metadata.source
};

/// What POST /tasksets takes: the tasks without sub-tasks, each after the one before it in the
/// file. Nothing waits for an optional task. A task's description ends with those of the tasks
/// above it. The same plan always makes the same JSON.
Json to_taskset(const std::vector<MarkdownTask>& plan, const std::string& spec_name,
                const TasksetOptions& options = {});

/// What the registry says of one number.
struct WantedBox {
  std::string title;  ///< as imported
  TaskState state = TaskState::kReady;
};

struct BoxChange {
  std::string number;
  std::string title;
  std::size_t line = 0;
  char from = ' ';
  char to = ' ';
};

/// What a person has to look at.
struct TickNote {
  std::string number;
  std::size_t line = 0;  ///< 0: it is not in the text
  std::string message;
};

struct TickResult {
  std::string text;
  std::vector<BoxChange> changes;
  /// Boxes that should change and did not: the number is gone, is there twice, has another title
  /// than the task, or has sub-tasks now.
  std::vector<TickNote> conflicts;
  /// Ticked by a person, while the registry says that it is not done; left as they are.
  std::vector<TickNote> differences;
};

/// Ticks what is done ([x]) and marks what runs ([-]); a task with sub-tasks follows them, those
/// that are optional do not hold it up. Only bytes between brackets change, and never from 'x'. A
/// second call with the same `wanted` changes nothing more. Takes any bytes, does not throw.
TickResult tick_tasks_md(std::string_view text, const std::map<std::string, WantedBox>& wanted);

}  // namespace necrocode::registry
