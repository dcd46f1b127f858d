#include "necrocode/agent/agent_runner.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "necrocode/agent/home.hpp"
#include "necrocode/agent/installation.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::agent {
namespace {

namespace fs = std::filesystem;

// Variables by name; the last one of a name counts.
class Environment {
 public:
  void add(const std::vector<std::string>& variables) {
    for (const std::string& variable : variables) {
      const std::size_t sign = std::min(variable.find('='), variable.size());
      values_[variable.substr(0, sign)] = variable.substr(std::min(sign + 1, variable.size()));
    }
  }
  std::string& operator[](const std::string& name) { return values_[name]; }
  std::vector<std::string> list() const {
    std::vector<std::string> variables;
    for (const auto& [name, value] : values_) variables.push_back(name + "=" + value);
    return variables;
  }

 private:
  std::map<std::string, std::string> values_;
};

// For programs that no adapter knows: where the model is, that nobody answers questions, and that
// there is nobody to tell.
std::vector<std::string> common_environment(const std::string& endpoint, const std::string& key) {
  return {"OPENAI_BASE_URL=" + endpoint + "/v1",
          "OPENAI_API_KEY=" + key,
          "ANTHROPIC_BASE_URL=" + endpoint,
          "ANTHROPIC_API_KEY=" + key,
          "CI=true",
          "DO_NOT_TRACK=1",
          "GIT_EDITOR=false",
          "GIT_PAGER=cat",
          "GIT_TERMINAL_PROMPT=0",
          "NO_COLOR=1",
          "PAGER=cat"};
}

// What a service owes the program when its time runs out: once it is ended, nobody waits for the
// answer any more, and nothing is left to be seen of the silence.
class LastLook {
 public:
  LastLook(const llm::MeteredRun& run, const CallContext& context) {
    if (context.deadline == SteadyTime::max()) return;
    owed_too_long_ = std::min<std::chrono::nanoseconds>(kOwedTooLong, context.remaining() / 4);
    thread_ = std::jthread([this, &run, before = context.deadline - kBefore](std::stop_token stop) {
      std::mutex mutex;
      std::unique_lock lock(mutex);
      std::condition_variable_any never;
      never.wait_until(lock, stop, before, [] { return false; });
      if (!stop.stop_requested()) seen_ = run.so_far(owed_too_long_);
    });
  }
  /// What was seen, if it came to that.
  std::optional<llm::Metered> end() {
    if (thread_.joinable()) {
      thread_.request_stop();
      thread_.join();
    }
    return std::move(seen_);
  }

 private:
  static constexpr std::chrono::milliseconds kBefore{250};
  std::chrono::nanoseconds owed_too_long_{0};
  std::optional<llm::Metered> seen_;  // of the thread until it has ended
  std::jthread thread_;
};

}  // namespace

RoundEnd judge(const process::CommandResult& program, const llm::Metered& metered, bool changed) {
  if (!program.ok() && !program.limit_reached.empty()) return RoundEnd::kLimit;
  if (metered.failure && !(program.ok() && changed)) return RoundEnd::kModel;
  return program.end == process::CommandEnd::kTimedOut ? RoundEnd::kTime : RoundEnd::kTests;
}

std::string endpoint_of(const process::Gate& gate) {
  return "http://127.0.0.1:" + std::to_string(gate.port);
}

AgentRound run_agent(process::Sandbox& sandbox, const AgentWorkspace& workspace,
                     const AgentCommand& command, const process::Gate& gate, llm::MeteredRun& run,
                     const CallContext& context, const process::OutputSink& sink) {
  const fs::path folder =
      workspace.working_directory.empty() ? workspace.root : workspace.working_directory;
  Environment env;
  env.add(process::clean_environment());
  const auto installation =
      find_installation(command.argv.front(), env["PATH"], folder, workspace.root);
  if (!installation) return {{}, false, {}};
  make_home(workspace.home, workspace.home_template, command.files);

  for (const fs::path& place : installation->path) {
    if ((":" + env["PATH"] + ":").find(":" + place.string() + ":") == std::string::npos) {
      env["PATH"] += ":" + place.string();
    }
  }
  env.add(home_environment(workspace.home));
  env.add(common_environment(endpoint_of(gate), run.key()));
  env.add(command.env);
  env.add(workspace.env);

  process::SandboxedCommand sandboxed;
  sandboxed.command.argv = command.argv;
  sandboxed.command.argv.front() = installation->program.string();
  sandboxed.command.env = env.list();
  sandboxed.command.working_directory = folder;
  sandboxed.command.input = command.input;
  sandboxed.command.limits = workspace.limits;
  sandboxed.workspace = workspace.root;
  sandboxed.read_only = workspace.read_only;
  sandboxed.read_only.insert(sandboxed.read_only.end(), installation->visible.begin(),
                             installation->visible.end());
  sandboxed.writable = workspace.writable;
  sandboxed.writable.push_back(workspace.home);
  sandboxed.protect = workspace.protect;
  sandboxed.covers = workspace.covers;
  sandboxed.gate = &gate;
  sandboxed.on_listener = [&run](FileDescriptor listener) { run.accept_on(std::move(listener)); };
  LastLook last_look(run, context);
  AgentRound round;
  round.program = sandbox.run(sandboxed, context, sink);
  const auto seen = last_look.end();
  // Ended by us, it leaves exchanges under way, and there is no other round.
  const bool broken_off = round.program.end == process::CommandEnd::kTimedOut ||
                          round.program.end == process::CommandEnd::kCancelled;
  round.metered = broken_off ? run.end() : run.so_far();
  if (round.program.end == process::CommandEnd::kTimedOut && seen && seen->failure) {
    round.metered.failure = seen->failure;
  }
  return round;
}

}  // namespace necrocode::agent
