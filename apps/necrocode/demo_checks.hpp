// What the demo checks of its own summary, each against the thing itself: the remote, a fresh
// clone, the artifact store, the registry, the pool, the process table.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "necrocode/agent_runner.hpp"
#include "necrocode/base/call_context.hpp"
#include "necrocode/git/repository.hpp"
#include "necrocode/process/sandbox.hpp"
#include "necrocode/runner/task_context.hpp"

namespace necrocode::app {

struct DemoCheck {
  std::string name;
  bool ok = false;
  std::string detail;
};

struct DemoSubject {
  const git::Git& git;
  process::Sandbox& sandbox;
  const Masker& masker;
  TaskRegistryClient& registry;
  RepoPoolClient& pool;
  ArtifactStoreClient& artifacts;
  std::string remote_url;
  std::filesystem::path scratch;  ///< for clones
  std::vector<registry::Task> tasks;
  CallContext context;  ///< a stop ends the checks, unfinished
};

/// Never throws: a check that cannot be made has failed, with the reason.
std::vector<DemoCheck> check_demo(DemoSubject subject);

/// Children of this process and theirs, beyond the supervisor's helper.
std::vector<std::string> stray_children();

}  // namespace necrocode::app
