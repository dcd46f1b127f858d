#include "demo_checks.hpp"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <future>
#include <map>
#include <set>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/test_runner.hpp"

namespace necrocode::app {
namespace {

namespace fs = std::filesystem;

// Runs a check that says what is wrong, or how much it looked at.
struct Finding {
  std::vector<std::string> problems;
  std::string seen;
};

DemoCheck check(const DemoSubject& subject, const std::string& name,
                const std::function<Finding()>& look) {
  if (subject.context.stop.stop_requested()) return {name, false, "stopped"};
  try {
    const Finding finding = look();
    return {name, finding.problems.empty(),
            finding.problems.empty() ? finding.seen : shorten(join(finding.problems, "; "), 1000)};
  } catch (const std::exception& error) {
    return {name, false, error.what()};
  }
}

Finding all_done(const DemoSubject& subject) {
  Finding finding;
  for (const registry::Task& task : subject.tasks) {
    if (task.state != registry::TaskState::kDone) {
      finding.problems.push_back(task.id + " is " + std::string(to_string(task.state)) + ": " +
                                 task.metadata["outcome"].string_or("no outcome"));
    }
  }
  finding.seen = std::to_string(subject.tasks.size()) + " tasks";
  return finding;
}

Finding branches_at_remote(const DemoSubject& subject) {
  Finding finding;
  const auto refs = subject.git.remote_refs(subject.remote_url, subject.context);
  for (const registry::Task& task : subject.tasks) {
    const std::string branch = task.metadata["branch"].string_or("");
    const auto ref = refs.find("refs/heads/" + branch);
    if (ref == refs.end() || ref->second != task.metadata["commit"].string_or("-")) {
      finding.problems.push_back(task.id + ": the remote's \"" + branch +
                                 "\" is not the reported commit");
    }
  }
  finding.seen = std::to_string(subject.tasks.size()) + " branches";
  return finding;
}

// Dependencies are in the ancestry: a child really starts from its parents' pushed work.
Finding children_hold_parents(const DemoSubject& subject) {
  Finding finding;
  const git::Repository remote(subject.git, subject.remote_url);
  std::map<std::string, std::string> commits;
  for (const registry::Task& task : subject.tasks)
    commits[task.id] = task.metadata["commit"].string_or("");
  int links = 0;
  for (const registry::Task& task : subject.tasks) {
    for (const std::string& parent : task.dependencies) {
      ++links;
      const std::string base =
          remote.run({"merge-base", commits[parent], commits[task.id]}, subject.context);
      if (trim(base) != commits[parent])
        finding.problems.push_back(task.id + " does not contain " + parent);
    }
  }
  finding.seen = std::to_string(links) + " dependencies";
  return finding;
}

std::string test_fresh_clone(const DemoSubject& subject, const registry::Task& task) {
  const fs::path folder = subject.scratch / ("clone-" + task.number);
  const fs::path root = folder / "work";
  fs::create_directories(root);
  const git::Repository clone(subject.git, folder / "git", root);
  clone.init({}, {});
  const std::string branch = task.metadata["branch"].string_or("");
  const std::string fetched = "refs/remotes/origin/" + branch;
  clone.fetch(subject.remote_url, {"+refs/heads/" + branch + ":" + fetched}, subject.context);
  const auto commit = clone.resolve(fetched, {});
  if (!commit) return task.id + ": the branch cannot be fetched";
  clone.check_out(branch, *commit, true, subject.context);
  runner::RunLog log(folder / "tests.log", subject.masker);
  runner::TestRunner tests(subject.sandbox, log, subject.masker);
  const runner::TaskContext context = runner::read_task_context(task.to_json(), {});
  runner::TestReport report;
  runner::TestRunner::Workspace workspace;
  workspace.root = root;
  tests.run(workspace, runner::playbook_of(context.test_commands, false), {}, {},
            {context.test_timeout}, subject.context, report);
  if (report.passed()) return {};
  return task.id + ": " +
         (report.commands.empty()
              ? "no test ran"
              : report.first_failure()->command + " " + report.first_failure()->verdict());
}

Finding fresh_clones_pass(const DemoSubject& subject) {
  Finding finding;
  std::vector<std::future<std::string>> clones;
  for (const registry::Task& task : subject.tasks) {
    clones.push_back(std::async(std::launch::async,
                                [&subject, &task] { return test_fresh_clone(subject, task); }));
  }
  for (auto& clone : clones) {
    const std::string problem = clone.get();
    if (!problem.empty()) finding.problems.push_back(problem);
  }
  finding.seen = std::to_string(clones.size()) + " clones";
  return finding;
}

Finding artifacts_match(DemoSubject& subject) {
  Finding finding;
  std::size_t count = 0;
  for (const registry::Task& task : subject.tasks) {
    std::set<std::string> types;
    for (const registry::ArtifactRef& artifact : task.artifacts) {
      types.insert(artifact.type);
      const std::string content = subject.artifacts.download(artifact.uri);
      if (sha256_hex(content) != artifact.metadata["sha256"].string_or("")) {
        finding.problems.push_back(task.id + ": " + artifact.type +
                                   " has another digest than recorded");
      }
      ++count;
    }
    for (const char* type : {"diff", "log", "test", "junit", "transcript"}) {
      if (!types.contains(type)) finding.problems.push_back(task.id + " has no " + type);
    }
  }
  finding.seen = std::to_string(count) + " artifacts";
  return finding;
}

Finding events_complete(DemoSubject& subject) {
  Finding finding;
  std::size_t count = 0;
  for (const registry::Task& task : subject.tasks) {
    std::vector<std::string> types;
    for (const registry::Event& event : subject.registry.events({.task_id = task.id}).items)
      types.push_back(event.event_type);
    count += types.size();
    auto from = types.begin();
    for (const char* expected : {"TaskCreated", "TaskAssigned", "RunnerStarted", "SlotAllocated",
                                 "TaskProgress", "TaskCompleted", "SlotReleased"}) {
      const auto found = std::find(from, types.end(), expected);
      if (found == types.end()) {
        finding.problems.push_back(task.id + " has no " + expected + " in its place");
      } else {
        from = found + 1;
      }
    }
  }
  finding.seen = std::to_string(count) + " events";
  return finding;
}

Finding no_slot_leased(DemoSubject& subject) {
  Finding finding;
  std::size_t slots = 0;
  for (const Json& pool : subject.pool.list_pools()["items"].items()) {
    const Json whole = subject.pool.get_pool(pool["name"].string_or(""));
    for (const Json& slot : whole["slots"].items()) {
      ++slots;
      if (slot["state"].string_or("") == "leased") {
        finding.problems.push_back(slot["slot_id"].string_or("a slot") + " is still leased");
      }
    }
  }
  if (slots == 0) finding.problems.push_back("the pool tells of no slots");
  finding.seen = std::to_string(slots) + " slots";
  return finding;
}

Finding no_child_left() {
  return {stray_children(), "none"};
}

}  // namespace

std::vector<std::string> stray_children() {
  // pid → (parent, command), from one walk over /proc.
  std::map<int, std::pair<int, std::string>> processes;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const auto pid = parse_uint(entry.path().filename().string());
    if (!pid) continue;
    try {
      const std::string stat = read_file(entry.path() / "stat", 64 * limits::kKiB);
      // "PID (COMMAND) STATE PPID …"; the command may hold anything, so from its last parenthesis.
      const std::size_t open = stat.find('(');
      const std::size_t close = stat.rfind(')');
      if (open == std::string::npos || close == std::string::npos) continue;
      const auto fields = split(std::string_view(stat).substr(close + 2), ' ');
      const auto parent = fields.size() > 1 ? parse_uint(fields[1]) : std::nullopt;
      if (!parent || fields[0] == "Z") continue;
      processes[static_cast<int>(*pid)] = {static_cast<int>(*parent),
                                           stat.substr(open + 1, close - open - 1)};
    } catch (const StorageError&) {
      continue;  // it ended while we looked
    }
  }
  std::vector<std::string> strays;
  for (const auto& [pid, process] : processes) {
    int depth = 0;
    for (int at = pid; at > 1 && at != ::getpid() && depth < 100; ++depth) {
      const auto parent = processes.find(at);
      if (parent == processes.end()) break;
      at = parent->second.first;
      if (at != ::getpid()) continue;
      // The supervisor's helper stays; the kernel keeps 15 bytes of its name.
      const bool is_helper = depth == 0 && process.second == "necrocode-helpe";
      if (!is_helper) strays.push_back(std::to_string(pid) + " " + process.second);
    }
  }
  return strays;
}

std::vector<DemoCheck> check_demo(DemoSubject subject) {
  return {
      check(subject, "every task is done", [&] { return all_done(subject); }),
      check(subject, "the remote has each branch at its commit",
            [&] { return branches_at_remote(subject); }),
      check(subject, "dependent tasks start from their parents' pushed work",
            [&] { return children_hold_parents(subject); }),
      check(subject, "a fresh clone of each branch passes its tests",
            [&] { return fresh_clones_pass(subject); }),
      check(subject, "each artifact downloads and matches its digest",
            [&] { return artifacts_match(subject); }),
      check(subject, "the registry's events are complete and in order",
            [&] { return events_complete(subject); }),
      check(subject, "no slot is leased", [&] { return no_slot_leased(subject); }),
      check(subject, "no child process is left", [&] { return no_child_left(); }),
  };
}

}  // namespace necrocode::app
