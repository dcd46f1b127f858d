// ExecRun: any agent program, supervised: `necrocode exec` from its first look at the clone to its
// true result. The program works in the user's own work tree, with a copy of its git directory, in
// a sandbox whose only network is the metering proxy; what it says of its work counts for nothing.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/agent/agent_runner.hpp"
#include "necrocode/exec/exec_result.hpp"
#include "necrocode/runner/commit_message.hpp"
#include "necrocode/runner/run_events.hpp"

namespace necrocode::exec {

/// What runs share. All of it outlives the run and is thread-safe.
struct ExecServices {
  const git::Git& git;
  process::Sandbox& sandbox;
  llm::MeteringProxy& proxy;
  const agent::AgentAdapters& adapters;
  const Masker& masker;
};

struct ExecOptions {
  std::string run_id;             ///< exec-…
  std::vector<std::string> argv;  ///< the program and its arguments, as the user wrote them
  std::filesystem::path folder;   ///< where it is started, in a clone
  std::filesystem::path run_dir;  ///< for this run alone; made when absent
  std::chrono::seconds timeout{
      1800};  ///< of all of it: the program, its repairs, the tests, the push
  std::vector<std::string> test_commands;  ///< none: what the repository suggests
  std::chrono::seconds test_timeout{600};  ///< of one command
  int test_retries = 0;
  int repairs = 0;                   ///< how often the program is called again with what failed
  std::vector<std::string> protect;  ///< globs of files that are as before when the tests run
  bool require_clean = false;
  std::string push_branch;  ///< empty: nothing is pushed
  int git_retries = 3;
  runner::CommitStyle commit{};
  llm::SpendCaps caps;
  std::string owner;
  std::filesystem::path home_template;
  bool record = false;  ///< keep every exchange with the model, as exchanges.jsonl
  runner::RunObserver observer;
  process::OutputSink output;  ///< the program's, as it comes; not masked
};

/// Never throws for what the program, the repository, the model or a remote does: that is in the
/// result. `context.stop` ends it as cancelled.
ExecResult execute(const ExecServices& services, const ExecOptions& options,
                   const CallContext& context);

/// The result of one that an error kept from beginning.
ExecResult failed_before_start(const std::string& run_id, const std::exception& error);

}  // namespace necrocode::exec
