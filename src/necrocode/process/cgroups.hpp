// Cgroups: where this process may make control groups, version 1 or 2, and the group of one
// command. Internal to this folder.
//
// A command enters its group before it is executed. Version 1: by writing itself into `tasks`,
// which costs 0.03 ms; writing into `cgroup.procs` waits for the machine's next quiet moment (7
// ms). Version 2: it is born there (CLONE_INTO_CGROUP).
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/file.hpp"
#include "necrocode/process/resource_limits.hpp"

namespace necrocode::process {

enum class Controller { kMemory, kProcesses, kCpu };
inline constexpr std::array kControllers = {Controller::kMemory, Controller::kProcesses,
                                            Controller::kCpu};

/// The group of one hierarchy that this process is in.
struct OwnGroup {
  int version = 0;  ///< 0: the controller is nowhere
  std::filesystem::path folder;
};
using OwnGroups = std::array<OwnGroup, kControllers.size()>;  ///< by Controller

/// From `mountinfo` and `cgroup` in `proc`, which is /proc/self.
OwnGroups own_groups(const std::filesystem::path& proc);

/// The groups of one command. Removed with all that is still in it.
class CommandGroup {
 public:
  CommandGroup(const OwnGroups& parents, const std::string& name, const ResourceLimits& limits);
  ~CommandGroup();
  CommandGroup(const CommandGroup&) = delete;
  CommandGroup& operator=(const CommandGroup&) = delete;

  /// Version 1: who writes "0" into each of these is in.
  std::vector<int> tasks() const;
  /// Version 2: the folder to be cloned into; -1 when there is none.
  int folder() const { return folder_.get(); }
  /// Raises the peaks to what is in use now.
  void look(ResourceUsage& usage) const;
  /// "exceeded its memory limit of 256 MiB (cgroup v1)", "reached its limit of …"; or empty.
  std::string limit_reached() const;

 private:
  void limit(Controller controller);
  std::filesystem::path file(Controller controller, std::string_view name) const;
  bool holds(Controller controller) const { return at(controller).version != 0; }
  const OwnGroup& at(Controller controller) const {
    return groups_[static_cast<std::size_t>(controller)];
  }
  bool memory_ran_out() const;
  void remove() noexcept;

  ResourceLimits limits_;
  OwnGroups groups_;
  std::vector<std::filesystem::path> made_;  ///< each once
  std::vector<FileDescriptor> tasks_;
  FileDescriptor folder_;
};

/// Thread-safe once made.
class Cgroups {
 public:
  /// Finds what can be used, and removes empty groups of owners that are gone. In version 2 groups
  /// cannot stand beside processes: when nobody but `ours` is in our group, we move into one of our
  /// own in it.
  explicit Cgroups(const std::vector<pid_t>& ours,
                   const std::filesystem::path& proc = "/proc/self");

  /// 1, 2, or 0: no group of ours can limit that.
  int version(Controller controller) const {
    return parents_[static_cast<std::size_t>(controller)].version;
  }
  /// Nothing when no group can hold any of these limits. Throws StorageError when a group cannot be
  /// made.
  std::unique_ptr<CommandGroup> make(const ResourceLimits& limits) const;

 private:
  OwnGroups parents_;
  std::string owner_;  ///< how the names of our groups begin
};

/// "256 MiB".
std::string size_text(std::uint64_t bytes);

}  // namespace necrocode::process
