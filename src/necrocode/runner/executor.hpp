// TaskExecutor: makes the change in the workspace. What it says of its work counts for nothing;
// the tests that the orchestrator runs afterwards decide.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "necrocode/base/masking.hpp"
#include "necrocode/llm/client.hpp"
#include "necrocode/runner/task_context.hpp"
#include "necrocode/runner/transcript.hpp"

namespace necrocode::runner {

/// One request for a change.
struct Assignment {
  const TaskContext& task;
  std::filesystem::path root;
  std::vector<std::string> tracked_files;
  std::vector<std::string> test_commands;
  std::string failed_tests{};  ///< of the change so far: command, verdict, output; empty at first
  std::string unusable_answer{};  ///< why the last answer could not be used; empty otherwise
  std::vector<std::string> changed_files{};  ///< by earlier rounds of this run
  /// The tasks that it builds on, and how they ended, a line each.
  std::vector<std::string> dependencies{};
  /// How earlier attempts at the task ended, a line each.
  std::vector<std::string> earlier_attempts{};
  /// The files that have most to do with the task (repository_map.hpp), the most telling first.
  std::vector<std::string> relevant_files{};
  std::set<std::string> users_files{};  ///< untracked before the run: not the model's to touch
};

struct Implementation {
  std::vector<std::string> changed_files;  ///< in the order in which they were changed
  std::string explanation;
  std::string model;
  std::string answer_digest;  ///< equal for equal changes
  int attempts = 0;           ///< HTTP attempts
  llm::Usage usage;           ///< of the answer that was used
  bool leaves_more = false;   ///< the work tree may hold more than the change
};

class TaskExecutor {
 public:
  virtual ~TaskExecutor() = default;
  /// What it would be asked.
  virtual std::string prompt(const Assignment& assignment) const = 0;
  /// All of the change is in the work tree, or none of it is staged. `spending` is asked before the
  /// model is, and told what it was used for, also when this throws; `transcript` gets what was
  /// said.
  /// Throws ImplementationError or SecurityError for an answer that cannot be used, else what
  /// LLMClient throws.
  virtual Implementation implement(const Assignment& assignment, const CallContext& context,
                                   llm::Spending& spending, Transcript& transcript) = 0;
};

/// One model call a change: the whole context in the prompt, masked, the code-change JSON back.
class LlmExecutor final : public TaskExecutor {
 public:
  LlmExecutor(LLMClient& llm, const Masker& masker) : llm_(llm), masker_(masker) {}
  std::string prompt(const Assignment& assignment) const override;
  Implementation implement(const Assignment& assignment, const CallContext& context,
                           llm::Spending& spending, Transcript& transcript) override;

 private:
  LLMClient& llm_;
  const Masker& masker_;
};

/// What the task is about, for rank_files() and excerpt_of().
std::set<std::string> task_words(const TaskContext& task);

/// The task, what proves it, and how earlier attempts ended.
std::string describe_task(const Assignment& assignment);

/// The user message: the task, what its files hold (within limits::kPromptContextBytes), and what
/// went wrong before.
std::string build_prompt(const Assignment& assignment);

}  // namespace necrocode::runner
