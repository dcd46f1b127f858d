#include "necrocode/pool/slot_processes.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <string>
#include <system_error>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::pool {
namespace {

namespace fs = std::filesystem;

constexpr int kEndMilliseconds = 1000;  // a killed process that stays longer hangs in the kernel

bool leads_into(const fs::path& link, const std::string& folder) {
  std::error_code error;
  const std::string target = fs::read_symlink(link, error).string();
  return !error && (target == folder || target.starts_with(folder + "/"));
}

bool holds(const fs::path& process, const std::string& folder) {
  if (leads_into(process / "cwd", folder) || leads_into(process / "root", folder)) return true;
  std::error_code error;
  for (fs::directory_iterator file(process / "fd", error), end; !error && file != end;
       file.increment(error)) {
    if (leads_into(file->path(), folder)) return true;
  }
  return false;
}

/// proc(5), /proc/pid/stat: the 22nd field; the 2nd may hold anything, and ends with the last ')'.
std::optional<std::uint64_t> begin_of(const fs::path& process) {
  try {
    const std::string text = read_file(process / "stat", 64 * 1024);
    const std::size_t name_end = text.rfind(") ");
    if (name_end == std::string::npos) return {};
    const auto fields = split(std::string_view(text).substr(name_end + 2), ' ');
    return fields.size() > 19 ? parse_uint(fields[19]) : std::nullopt;
  } catch (const StorageError&) {
    return {};  // it has gone meanwhile
  }
}

bool end_process(const FileDescriptor& process) {
  if (::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0) != 0) return false;
  pollfd gone{process.get(), POLLIN, 0};
  return ::poll(&gone, 1, kEndMilliseconds) == 1;
}

}  // namespace

std::uint64_t ticks_since_boot() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return static_cast<std::uint64_t>(now.tv_sec) * ticks +
         static_cast<std::uint64_t>(now.tv_nsec) * ticks / 1'000'000'000;
}

SlotProcesses end_processes_in(const fs::path& folder, std::optional<std::uint64_t> lease_begin) {
  SlotProcesses found;
  std::error_code error;
  for (fs::directory_iterator entry("/proc", error), end; !error && entry != end;
       entry.increment(error)) {
    const auto pid = parse_uint(entry->path().filename().string());
    if (!pid || *pid == static_cast<std::uint64_t>(::getpid())) continue;
    // The descriptor keeps the number from being another process by the time we kill.
    const FileDescriptor process(
        static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(*pid), 0)));
    if (!process || !holds(entry->path(), folder.string())) continue;
    const auto begun = begin_of(entry->path());
    const bool started_in_lease = lease_begin && begun && *begun > *lease_begin;
    if (started_in_lease && end_process(process)) {
      ++found.ended;
    } else {
      ++found.left;
    }
  }
  return found;
}

}  // namespace necrocode::pool
