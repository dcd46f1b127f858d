// Whole runs, on a real repository, with executors of the test's own.
#pragma once

#include <gmock/gmock.h>

#include <deque>

#include "necrocode/runner/orchestrator.hpp"
#include "support/agent_fakes.hpp"
#include "support/git_fixture.hpp"

namespace necrocode::runner {

/// The change passes when a.txt holds "good".
class RunsWithExecutors : public testing::Test {
 protected:
  RunsWithExecutors() {
    task_.title = "Make it good";
    task_.repo_url = remote_.url();
    task_.branch_name = "feature/x";
    task_.acceptance_criteria = {"a.txt is good"};
    task_.test_commands = {"grep -qx good a.txt || { echo 'a.txt is not good'; exit 1; }"};
    task_.timeout = std::chrono::seconds{300};
    options_.runner_id = "runner-test";
    options_.run_dir = folder_.path() / "run";
    options_.data_dir = folder_.path() / "data";
    options_.observer = [this](const RunEvent& event) { events_.push_back(event); };
  }

  RunResult run() {
    const Executors executors(choices_, makers_);
    const RunnerServices services{git_, sandbox_, executors, masker_};
    return RunnerOrchestrator(services, options_).run(task_, nullptr, context_);
  }
  /// Of the branch that was pushed.
  std::string pushed(const std::string& file) {
    return test::shell(remote_.path(), "git show feature/x:" + file);
  }
  std::string log() { return test::read(options_.run_dir / "run.log"); }
  std::vector<std::string> warnings() {
    std::vector<std::string> messages;
    for (const RunEvent& event : events_) {
      if (event.type == "warning") messages.push_back(event.data["message"].string_or(""));
    }
    return messages;
  }

  test::GitRemote remote_;
  TemporaryDirectory folder_;
  process::Supervisor supervisor_;
  test::NotingSandbox sandbox_{supervisor_};
  Masker masker_;
  git::Git git_{supervisor_, {}};
  TaskContext task_{*TaskId::parse("app:1")};
  RunOptions options_;
  CallContext context_;
  ExecutorChoices choices_;
  std::map<std::string, MakeExecutor> makers_;
  std::vector<RunEvent> events_;
};

}  // namespace necrocode::runner
