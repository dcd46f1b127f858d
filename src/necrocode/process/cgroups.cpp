#include "necrocode/process/cgroups.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::string_view kPrefix = "necrocode";
/// Version 2: where this process itself goes, so that there can be groups beside it.
constexpr const char* kOwnLeaf = "necrocode-itself";
constexpr int kCpuPeriod = 100'000;  // microseconds, the kernel's default
/// A browser has some 300, `make -j64` with threaded tests a thousand; a fork bomb of as many is
/// ended within a second.
constexpr std::uint64_t kDefaultProcesses = 2048;
constexpr auto kRemoveTime = 5s;  // until what is killed has left its group

constexpr std::string_view name_of(Controller controller) {
  constexpr std::array<std::string_view, kControllers.size()> kNames = {"memory", "pids", "cpu"};
  return kNames[static_cast<std::size_t>(controller)];
}

/// Empty when it cannot be read. Files of the kernel: small, and without a size.
std::string text_of(const fs::path& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 4096> buffer{};
  while (file) {
    const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
    if (got <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return text;
}

std::optional<std::uint64_t> number_in(const fs::path& path) {
  return parse_uint(trim(text_of(path)));
}

/// The number after `name` in lines of "name number".
std::uint64_t number_after(std::string_view text, std::string_view name) {
  for (const std::string_view line : split(text, '\n')) {
    if (!line.starts_with(name) || line.substr(name.size(), 1) != " ") continue;
    return parse_uint(line.substr(name.size() + 1)).value_or(0);
  }
  return 0;
}

bool has_word(std::string_view text, std::string_view word, char separator) {
  const auto words = split(trim(text), separator);
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// False with errno. A plain folder, as tests have it, gets the file.
bool set_file(const fs::path& path, const std::string& text) {
  const FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

/// A hierarchy as it is mounted: `root` of it is seen at `place`.
struct Mount {
  bool unified = false;
  std::string options;  ///< version 1: its controllers are among them
  fs::path root;
  fs::path place;
};

/// Source: proc(5), /proc/pid/mountinfo: fields 4 and 5, and those after "-".
std::vector<Mount> cgroup_mounts(std::string_view mountinfo) {
  std::vector<Mount> mounts;
  for (const std::string_view line : split(mountinfo, '\n')) {
    const auto fields = split(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (std::distance(fields.begin(), dash) < 6 || std::distance(dash, fields.end()) < 4) continue;
    if (dash[1] != "cgroup" && dash[1] != "cgroup2") continue;
    mounts.push_back({dash[1] == "cgroup2", std::string(dash[3]), fields[3], fields[4]});
  }
  return mounts;
}

/// Where the own group of that hierarchy is seen; empty when it lies outside of the mount.
/// Source: cgroups(7), /proc/pid/cgroup: "id:controllers:path", of version 2 "0::path".
fs::path own_folder(std::string_view cgroup, const Mount& mount, std::string_view controller) {
  for (const std::string_view line : split(cgroup, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() < 3) continue;
    if (mount.unified ? line.substr(0, 3) != "0::" : !has_word(fields[1], controller, ','))
      continue;
    const fs::path path(line.substr(fields[0].size() + fields[1].size() + 2));
    const fs::path below = path.lexically_relative(mount.root);
    if (below.empty() || *below.begin() == "..") return {};
    return (mount.place / below).lexically_normal();
  }
  return {};
}

std::string start_time_of(const std::string& pid) {
  const std::string stat = text_of("/proc/" + pid + "/stat");
  const auto fields =
      split(std::string_view(stat).substr(std::min(stat.rfind(')'), stat.size())), ' ');
  constexpr std::size_t kStartTime = 20;  // field 22 of proc(5); ours begin with the second
  return fields.size() > kStartTime ? std::string(fields[kStartTime]) : std::string();
}

/// "necrocode-NAMESPACE-PID-START": a pid means something in its namespace only, and for a time.
std::string name_of_owner() {
  std::error_code error;
  std::string in = fs::read_symlink("/proc/self/ns/pid", error).string();  // pid:[4026531836]
  std::erase_if(in, [](char c) { return !is_ascii_digit(c); });
  const std::string pid = std::to_string(::getpid());
  return join({std::string(kPrefix), in, pid, start_time_of(pid)}, "-");
}

/// What a killed process of ours left; its commands ended with it, so the groups are empty.
void remove_leftovers(const fs::path& parent, const std::string& owner) {
  const auto ours = split(owner, '-');
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    const std::string name = entry.path().filename().string();
    const auto parts = split(name, '-');
    if (parts.size() != 5 || parts[0] != kPrefix || parts[1] != ours[1]) continue;
    if (start_time_of(std::string(parts[2])) != parts[3]) ::rmdir(entry.path().c_str());
  }
}

/// Version 2: children of `parent` get these controllers. We may have to leave it first.
bool enable(const fs::path& parent, const std::vector<std::string_view>& controllers,
            const std::vector<pid_t>& ours) {
  std::string missing;
  const std::string enabled = text_of(parent / "cgroup.subtree_control");
  for (const std::string_view controller : controllers) {
    if (!has_word(enabled, controller, ' '))
      missing += (missing.empty() ? "+" : " +") + std::string(controller);
  }
  if (missing.empty()) return true;
  const bool is_root = ::access((parent / "cgroup.type").c_str(), F_OK) != 0;
  const std::string members = is_root ? "" : text_of(parent / "cgroup.procs");
  for (const std::string_view line : split(trim(members), '\n')) {
    const bool is_ours = std::any_of(ours.begin(), ours.end(),
                                     [line](pid_t pid) { return line == std::to_string(pid); });
    if (!line.empty() && !is_ours) return false;
  }
  if (!members.empty()) {
    const fs::path leaf = parent / kOwnLeaf;
    if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST) return false;
    for (const pid_t pid : ours) {
      if (!set_file(leaf / "cgroup.procs", std::to_string(pid))) return false;
    }
  }
  return set_file(parent / "cgroup.subtree_control", missing);
}

std::atomic<std::uint64_t> groups_made = 0;

}  // namespace

OwnGroups own_groups(const fs::path& proc) {
  const std::vector<Mount> mounts = cgroup_mounts(text_of(proc / "mountinfo"));
  const std::string cgroup = text_of(proc / "cgroup");
  OwnGroups groups;
  for (const Controller controller : kControllers) {
    OwnGroup& group = groups[static_cast<std::size_t>(controller)];
    for (const Mount& mount : mounts) {
      if (!mount.unified && !has_word(mount.options, name_of(controller), ',')) continue;
      fs::path folder = own_folder(cgroup, mount, name_of(controller));
      if (folder.filename() == kOwnLeaf) folder = folder.parent_path();
      if (folder.empty()) continue;
      if (mount.unified &&
          !has_word(text_of(folder / "cgroup.controllers"), name_of(controller), ' ')) {
        continue;
      }
      group = {mount.unified ? 2 : 1, folder};
    }
  }
  return groups;
}

Cgroups::Cgroups(const std::vector<pid_t>& ours, const fs::path& proc)
    : parents_(own_groups(proc)), owner_(name_of_owner()) {
  std::vector<std::string_view> unified;
  for (const Controller controller : kControllers) {
    OwnGroup& parent = parents_[static_cast<std::size_t>(controller)];
    if (parent.version != 0 && ::access(parent.folder.c_str(), W_OK | X_OK) != 0) parent = {};
    if (parent.version == 2) unified.push_back(name_of(controller));
    if (parent.version != 0) remove_leftovers(parent.folder, owner_);
  }
  for (OwnGroup& parent : parents_) {
    if (parent.version == 2 && !enable(parent.folder, unified, ours)) parent = {};
  }
}

std::unique_ptr<CommandGroup> Cgroups::make(const ResourceLimits& limits) const {
  OwnGroups wanted = parents_;
  const auto leave_out = [&wanted](Controller controller) {
    wanted[static_cast<std::size_t>(controller)] = {};
  };
  if (limits.memory_bytes == 0) leave_out(Controller::kMemory);
  if (limits.processes == 0) leave_out(Controller::kProcesses);
  if (limits.cpu_percent == 0) leave_out(Controller::kCpu);
  const bool none = std::all_of(wanted.begin(), wanted.end(),
                                [](const OwnGroup& group) { return group.version == 0; });
  if (none) return nullptr;
  const std::string name = owner_ + "-" + std::to_string(groups_made.fetch_add(1));
  return std::make_unique<CommandGroup>(wanted, name, limits);
}

CommandGroup::CommandGroup(const OwnGroups& parents, const std::string& name,
                           const ResourceLimits& limits)
    : limits_(limits), groups_(parents) {
  try {
    for (OwnGroup& group : groups_) {
      if (group.version == 0) continue;
      group.folder /= name;
      if (std::find(made_.begin(), made_.end(), group.folder) != made_.end()) continue;
      if (::mkdir(group.folder.c_str(), 0755) != 0) {
        throw_errno("cannot make the control group", group.folder.string());
      }
      made_.push_back(group.folder);
      const fs::path entry = group.version == 1 ? group.folder / "tasks" : group.folder;
      FileDescriptor opened(::open(entry.c_str(), group.version == 1
                                                      ? O_WRONLY | O_CLOEXEC
                                                      : O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (!opened) throw_errno("cannot open the control group", entry.string());
      if (group.version == 1) tasks_.push_back(std::move(opened));
      if (group.version == 2) folder_ = std::move(opened);
    }
    for (const Controller controller : kControllers) {
      if (holds(controller)) limit(controller);
    }
  } catch (...) {
    remove();
    throw;
  }
}

CommandGroup::~CommandGroup() {
  remove();
}

fs::path CommandGroup::file(Controller controller, std::string_view name) const {
  return at(controller).folder / name;
}

void CommandGroup::limit(Controller controller) {
  const bool v1 = at(controller).version == 1;
  const auto require = [this, controller](const char* name, const std::string& value) {
    if (!set_file(file(controller, name), value)) {
      throw_errno("cannot set a limit", file(controller, name).string());
    }
  };
  switch (controller) {
    case Controller::kMemory: {
      const std::string bytes = std::to_string(limits_.memory_bytes);
      require(v1 ? "memory.limit_in_bytes" : "memory.max", bytes);
      // Where swap is counted, it is no way out; where it is not, these files are not there.
      set_file(file(controller, v1 ? "memory.memsw.limit_in_bytes" : "memory.swap.max"),
               v1 ? bytes : "0");
      break;
    }
    case Controller::kProcesses:
      require("pids.max", std::to_string(limits_.processes));
      break;
    case Controller::kCpu: {
      const std::string period = std::to_string(kCpuPeriod);
      const std::string quota = std::to_string(kCpuPeriod / 100LL * limits_.cpu_percent);
      if (!v1) return require("cpu.max", quota + " " + period);
      const fs::path path = file(controller, "cpu.cfs_quota_us");
      // EINVAL: a group above has less, and holds us to that.
      if (!set_file(path, quota) && errno != EINVAL)
        throw_errno("cannot set a limit", path.string());
    }
  }
}

std::vector<int> CommandGroup::tasks() const {
  std::vector<int> fds;
  for (const FileDescriptor& file : tasks_) fds.push_back(file.get());
  return fds;
}

void CommandGroup::look(ResourceUsage& usage) const {
  if (holds(Controller::kProcesses)) {
    for (const char* name : {"pids.current", "pids.peak"}) {  // an older kernel keeps no peak
      usage.peak_processes =
          std::max(usage.peak_processes, number_in(file(Controller::kProcesses, name)).value_or(0));
    }
  }
  if (!holds(Controller::kMemory)) return;
  const bool v1 = at(Controller::kMemory).version == 1;
  const std::uint64_t used =
      number_in(file(Controller::kMemory, v1 ? "memory.usage_in_bytes" : "memory.current"))
          .value_or(0);
  if (used <= usage.peak_memory_bytes) return;
  // Pages that hold files are given back under pressure. (A tmpfs is not on these lists.)
  const std::string stat = text_of(file(Controller::kMemory, "memory.stat"));
  const std::uint64_t cache =
      number_after(stat, "inactive_file") + number_after(stat, "active_file");
  usage.peak_memory_bytes = std::max(usage.peak_memory_bytes, used - std::min(used, cache));
}

/// A process that was killed is counted also when the machine, or a group above, had no more.
bool CommandGroup::memory_ran_out() const {
  if (at(Controller::kMemory).version == 2) {
    return number_after(text_of(file(Controller::kMemory, "memory.events")), "oom") > 0;
  }
  // Not memory.failcnt, which newer kernels leave at 0.
  return number_in(file(Controller::kMemory, "memory.max_usage_in_bytes")).value_or(0) >=
         limits_.memory_bytes / 100 * 99;
}

std::string CommandGroup::limit_reached() const {
  const auto by = [this](Controller controller) {
    return " (cgroup v" + std::to_string(at(controller).version) + ")";
  };
  if (holds(Controller::kMemory)) {
    const bool v1 = at(Controller::kMemory).version == 1;
    const std::string events =
        text_of(file(Controller::kMemory, v1 ? "memory.oom_control" : "memory.events"));
    if (number_after(events, "oom_kill") > 0) {
      return memory_ran_out() ? "exceeded its memory limit of " + size_text(limits_.memory_bytes) +
                                    by(Controller::kMemory)
                              : "was killed because the machine ran out of memory";
    }
  }
  if (holds(Controller::kProcesses) &&
      number_after(text_of(file(Controller::kProcesses, "pids.events")), "max") > 0) {
    return "reached its limit of " + std::to_string(limits_.processes) + " processes" +
           by(Controller::kProcesses);
  }
  return {};
}

/// Members at this time are what escaped a supervisor without pid namespaces, or are just ending.
void CommandGroup::remove() noexcept {
  const auto until = std::chrono::steady_clock::now() + kRemoveTime;
  for (const fs::path& folder : made_) {
    while (::rmdir(folder.c_str()) != 0 && errno == EBUSY) {
      if (std::chrono::steady_clock::now() > until) return;  // the next start finds it
      const std::string members = text_of(folder / "cgroup.procs");
      for (const std::string_view line : split(members, '\n')) {
        const auto pid = parse_uint(line);
        if (pid && *pid > 0) ::kill(static_cast<pid_t>(*pid), SIGKILL);
      }
      std::this_thread::sleep_for(1ms);  // nobody tells when a group is empty
    }
  }
}

std::string size_text(std::uint64_t bytes) {
  return bytes % limits::kMiB == 0 ? std::to_string(bytes / limits::kMiB) + " MiB"
                                   : std::to_string(bytes) + " bytes";
}

ResourceLimits default_limits() {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::uint64_t memory = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * page;
  const OwnGroup own = own_groups("/proc/self")[static_cast<std::size_t>(Controller::kMemory)];
  const char* name = own.version == 1 ? "memory.limit_in_bytes" : "memory.max";
  if (own.version != 0) memory = std::min(memory, number_in(own.folder / name).value_or(memory));
  ResourceLimits limits;
  limits.memory_bytes = memory / 2 / limits::kMiB * limits::kMiB;
  limits.processes = kDefaultProcesses;
  return limits;
}

}  // namespace necrocode::process
