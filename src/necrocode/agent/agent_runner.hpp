// AgentRunner: one round of an agent program: sandbox, home, the proxy as its only network, and
// what came of it. It judges nothing: who calls it looks at the work tree and at the tests.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/agent/adapter.hpp"
#include "necrocode/base/call_context.hpp"
#include "necrocode/llm/metering_proxy.hpp"
#include "necrocode/process/sandbox.hpp"

namespace necrocode::agent {

/// Where a program works.
struct AgentWorkspace {
  std::filesystem::path root;               ///< writable
  std::filesystem::path working_directory;  ///< in it; empty: root
  /// Its home: made, seeded from a template and from the adapter's files at the first round, kept
  /// for the next ones; whoever made the folder above it removes it. HOME, TMPDIR and the XDG
  /// folders lie in it.
  std::filesystem::path home;
  std::filesystem::path home_template;  ///< copied into a new home; empty: none
  std::vector<std::filesystem::path> read_only;
  std::vector<std::filesystem::path> writable;
  std::vector<std::filesystem::path> protect;
  std::vector<process::SandboxedCommand::Cover> covers;
  std::vector<std::string> env;      ///< further variables
  process::ResourceLimits limits{};  ///< where set, instead of the sandbox's own
};

struct AgentRound {
  process::CommandResult program;
  bool found = true;  ///< false: there is no such program, and nothing was run
  /// What its exchanges came to. When its time ran out, or it was cancelled, `run` is ended: there
  /// is no other round. An answer that the service owed it for kOwedTooLong when its time ran
  /// out, or for a quarter of its time if that is less, is a failure of the service's.
  llm::Metered metered;
};
inline constexpr std::chrono::seconds kOwedTooLong{10};

/// What decides how a round ended. The rules, in their order, for `exec` and for tasks alike:
///  - a limit of memory or processes that it did not live through;
///  - the last answer that it got was a failure for good, unless it ended with 0 and left a change:
///    then it got on without that answer;
///  - its time;
///  - else the tests, whatever the program's exit code says.
enum class RoundEnd { kTests, kLimit, kModel, kTime };
RoundEnd judge(const process::CommandResult& program, const llm::Metered& metered, bool changed);

/// Where the model is, from inside: {endpoint} of an adapter.
std::string endpoint_of(const process::Gate& gate);

/// Runs `command` to its end: `run` accepts on `gate`, `sink` sees the output as it comes. One gate
/// serves all rounds of a home, whose files name it. Throws what Sandbox::run() throws, and
/// ConfigError for a template that cannot be used. Timeouts and cancellation are results.
AgentRound run_agent(process::Sandbox& sandbox, const AgentWorkspace& workspace,
                     const AgentCommand& command, const process::Gate& gate, llm::MeteredRun& run,
                     const CallContext& context, const process::OutputSink& sink);

}  // namespace necrocode::agent
