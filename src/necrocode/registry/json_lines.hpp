// Tasks of another queue: JSON lines, one task a line, as scripts or PostgreSQL's COPY write them.
// Pure text. docs/task-files.md has the rules for users.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/json.hpp"

namespace necrocode::registry {

struct JsonLinesOptions {
  /// COPY's text format stands around the JSON (`\\` for a backslash, `\N` for null).
  bool copy = false;
  /// Our field → their column; a dotted name goes into objects ("args.title").
  std::map<std::string, std::string> columns{};
  std::string spec_name{};     ///< of lines that name none
  std::string repo_url{};      ///< of tasks that name none
  bool reopen_failed = false;  ///< failed and cancelled ones become open, labelled "was-failed"
};

/// A file's tasks.
struct JsonLinesTasks {
  /// {"spec_name", "tasks", "metadata"} each, in the order in which the specs appear.
  std::vector<Json> tasksets;
  /// The line of each task, as tasksets[i]["tasks"][k].
  std::vector<std::vector<std::size_t>> lines;
  std::vector<std::string> warnings;
};

/// Reads all lines. What we have no field for is kept under the task's metadata; a state becomes
/// `done` or open; run_at and scheduled_at become not_before. Throws TaskContextValidationError
/// with all defects (at most 100 are told), each by its line.
JsonLinesTasks parse_json_lines(std::string_view text, const JsonLinesOptions& options = {});

/// Undoes COPY's text escaping of one column; nothing for `\N`, which is null.
std::optional<std::string> unescape_copy(std::string_view text);

/// The bodies for POST /tasksets that submit these tasksets, in this order: each within
/// limits::kTasksPerSubmit, kDependenciesPerSubmit and what a request may hold, and each task not
/// before those it depends on, also over several specs. Submitting them again changes nothing.
/// Throws TaskContextValidationError when dependencies form a cycle.
std::vector<Json> split_submissions(const std::vector<Json>& tasksets);

}  // namespace necrocode::registry
