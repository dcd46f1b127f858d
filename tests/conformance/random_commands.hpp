// Random commands for a TaskStore, as data: small numbers with 0 for the plainest, so that a
// sequence that fails can be shrunk without knowing what the commands mean.
#pragma once

#include <functional>
#include <random>
#include <string>
#include <vector>

namespace necrocode::registry {

enum class Kind {
  kSubmit,
  kClaim,
  kComplete,
  kSetStatus,
  kHeartbeat,
  kCancel,
  kRetry,
  kPatch,
  kPark,
  kUnpark,
  kGiveBack,
  kAddEvent,
  kAddArtifact,
  kAnswer,
  kDoDue,
  kAdvance,
  kStepSystem,
  kReopen,
  kPurge,
  kQueryTasks,
  kQueryEvents,
  kQueryTask
};

struct Command {
  Kind kind = Kind::kSubmit;
  std::vector<int> args{};  ///< as its kind names them; those not there are 0
  /// Of kSubmit: one task each.
  std::vector<std::vector<int>> tasks{};
};

/// The argument of that name, which its kind must have.
int arg(const Command& command, const char* name);
int task_arg(const std::vector<int>& task, const char* name);

std::vector<Command> random_commands(std::mt19937_64& random, int count);
/// A line a command, with the arguments that are not 0.
std::string describe(const std::vector<Command>& commands);
/// A short sequence that still `fails`: commands are dropped, then tasks of submissions, then
/// arguments set to 0, for as long as that helps.
std::vector<Command> shrink(std::vector<Command> commands,
                            const std::function<bool(const std::vector<Command>&)>& fails);

}  // namespace necrocode::registry
