// The commit message of a run: a title by template, the task's description, and trailers, by one of
// which a later run knows its own work.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "necrocode/runner/task_context.hpp"

namespace necrocode::runner {

/// Both are templates of kCommitPlaceholders (base/placeholders.hpp), checked where they were read.
struct CommitStyle {
  std::string title = "feat(task-{number}): {title}";
  std::vector<std::string> trailers;  ///< "Key: value" lines beside ours
};

/// One line of title (the task's own shortened to 72 bytes), the description, the trailers;
/// `Necrocode-Task: ID` is the last one.
std::string commit_message(const TaskContext& task, const CommitStyle& style);

/// Whether the trailer of this task is a line of the message's last paragraph, where trailers are:
/// text of a description cannot stand for another task.
bool is_commit_of(std::string_view message, const TaskContext& task);

}  // namespace necrocode::runner
