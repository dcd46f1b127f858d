// Playbook: the steps that prove a change, read from YAML (docs/playbooks.md). Data only: which
// step runs when is the PlaybookEngine's, how a command runs the TestRunner's.
//
// A playbook comes from who operates the runner. What it says about a task is `{{ name }}` in a
// command: the value reaches the shell through the environment, as one argument, and is never read
// as shell text. Within single quotes nothing is replaced, as in the shell itself.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "necrocode/runner/condition.hpp"

namespace necrocode::runner {

/// Text with names of values in it.
class Template {
 public:
  Template() = default;
  /// Nothing of it is a name.
  static Template literal(std::string text);
  /// Throws PlaybookExecutionError for a name that has no end or is none.
  static Template shell(std::string_view text);
  static Template plain(std::string_view text);

  std::vector<std::string> names() const;
  /// Of plain text. Throws PlaybookExecutionError for a name without a value.
  std::string fill(const Json& values) const;
  /// Of a shell command: each name as a variable, which is put into `env` ("NAME=value").
  std::string fill_shell(const Json& values, std::vector<std::string>& env) const;
  bool empty() const { return pieces_.empty(); }
  /// As it was written.
  const std::string& text() const { return text_; }

 private:
  struct Piece {
    std::string text;     ///< or
    std::string name;     ///< of a value
    bool quoted = false;  ///< it stands within double quotes
  };
  static Template read(std::string_view text, bool is_shell);
  std::string text_;
  std::vector<Piece> pieces_;
};

struct PlaybookStep {
  std::string name;
  Template command;  ///< empty: the step is its `parallel` ones
  std::optional<Condition> condition{};
  bool fail_fast = true;  ///< its failure ends the playbook
  /// It must pass. Else it may fail where it failed before the change, too.
  bool target = true;
  std::optional<std::chrono::seconds> timeout{};  ///< of each attempt; nothing: the task's
  int retry_count = 0;                            ///< further attempts after a failure
  bool retry_cut_off = true;                      ///< also after a signal, its time or a limit
  std::vector<std::pair<std::string, Template>> env{};
  std::string working_directory{};        ///< below the workspace
  std::vector<std::string> junit{};       ///< globs of its JUnit reports; none: the usual places
  std::vector<PlaybookStep> otherwise{};  ///< `else`: when the condition does not hold
  std::vector<PlaybookStep> parallel{};   ///< side by side; none of these is a group itself
};

struct Playbook {
  std::string name;
  std::vector<PlaybookStep> steps;
  /// The commands of all steps as they were written, those of `else` too, in their order.
  std::vector<std::string> commands() const;
  /// Equal where the same commands run under the same conditions, with the values they ask for.
  std::string fingerprint(const Json& values) const;
};

/// Throws PlaybookExecutionError that names every defect, each with its line. `what` names the text
/// in it.
Playbook read_playbook(std::string_view text, const std::string& what);

/// One step a command, taken literally; `retry_count` is each one's.
Playbook playbook_of(const std::vector<std::string>& commands, bool fail_fast, int retry_count = 0);

/// By what a condition calls a step: its name in lower case, with '-' for all that is no letter or
/// digit.
std::string step_key(std::string_view name);

}  // namespace necrocode::runner
