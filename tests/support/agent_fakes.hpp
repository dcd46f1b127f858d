// What an agent program's surroundings are made of, without a network: a sandbox that notes what it
// is told to run, and runs it plainly; and a metered run whose figures a test sets.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "necrocode/llm/metering_proxy.hpp"
#include "necrocode/process/sandbox.hpp"

namespace necrocode::test {

class NotingSandbox final : public process::Sandbox {
 public:
  explicit NotingSandbox(process::Supervisor& supervisor)
      : plain_(process::make_unsandboxed(supervisor)) {}

  process::CommandResult run(const process::SandboxedCommand& command, const CallContext& context,
                             const process::OutputSink& sink) override {
    process::SandboxedCommand plain = command;
    plain.gate = nullptr;
    if (command.gate) {
      agents.push_back(command);
      ports.push_back(command.gate->port);
      if (command.on_listener) command.on_listener(FileDescriptor());
      plain.on_listener = nullptr;
    }
    process::CommandResult result = plain_->run(plain, context, sink);
    if (command.gate) {
      result.limit_reached = limit_reached;
      if (after_agent) after_agent();
    }
    return result;
  }
  void require_usable() override {}
  std::string_view name() const override { return "noting"; }
  bool can_cover() const override { return covers; }
  process::Gate make_gate() override { return {limits::kSandboxGatePort, {}}; }
  std::string limits() const override { return "none"; }

  std::vector<process::SandboxedCommand> agents;  ///< those with a gate, in order
  bool covers = true;
  std::vector<int> ports;             ///< of their gates
  std::string limit_reached;          ///< told of each of them
  std::function<void()> after_agent;  ///< when one has ended

 private:
  std::unique_ptr<process::Sandbox> plain_;
};

/// What the metered runs of a test share with it.
struct Meter {
  llm::Metered metered;
  std::chrono::nanoseconds silence_asked{0};
  int listeners = 0;
  int ended = 0;
  std::vector<llm::MeteredRunOptions> opened;
};

class FakeMeteredRun final : public llm::MeteredRun {
 public:
  explicit FakeMeteredRun(Meter& meter) : meter_(meter) {}
  const std::string& key() const override { return key_; }
  void accept_on(FileDescriptor) override { ++meter_.listeners; }
  llm::Metered so_far(std::chrono::nanoseconds silence) const override {
    meter_.silence_asked = std::max(meter_.silence_asked, silence == std::chrono::nanoseconds::max()
                                                              ? std::chrono::nanoseconds{0}
                                                              : silence);
    return meter_.metered;
  }
  llm::Metered end() override {
    ++meter_.ended;
    return meter_.metered;
  }

 private:
  Meter& meter_;
  const std::string key_ = "dummy-key-0123";
};

}  // namespace necrocode::test
