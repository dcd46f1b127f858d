// What is running on this machine, as the tests of process/ need to know it.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::test {

/// Empty when its process has ended: before the file is opened, or before it is read.
inline std::string slurp(const std::filesystem::path& path) {
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

/// A number of seconds to sleep that no other process sleeps: about a day.
inline std::string unique_mark() {
  static int count = 0;
  return "8" + std::to_string(::getpid() % 10000) + "." + std::to_string(++count) +
         std::to_string(std::chrono::steady_clock::now().time_since_epoch().count() % 1'000'000);
}

/// The programs called `sleep` that have `mark` as an argument of their own.
inline int processes_with(std::string_view mark) {
  int count = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    if (!parse_uint(entry.path().filename().string())) continue;
    const std::string line = slurp(entry.path() / "cmdline");
    count += line == "sleep" + std::string(1, '\0') + std::string(mark) + std::string(1, '\0');
  }
  return count;
}

inline std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const auto pid = parse_uint(entry.path().filename().string());
    if (!pid) continue;
    const std::string stat = slurp(entry.path() / "stat");
    const std::size_t close = stat.rfind(')');
    if (close == std::string::npos || stat.size() < close + 4) continue;
    const auto fields = split(std::string_view(stat).substr(close + 2), ' ');
    if (fields.size() > 1 && parse_uint(fields[1]) == static_cast<std::uint64_t>(parent)) {
      children.push_back(static_cast<pid_t>(*pid));
    }
  }
  return children;
}

inline int open_descriptors() {
  const std::filesystem::directory_iterator entries("/proc/self/fd");
  return static_cast<int>(std::distance(begin(entries), end(entries)));
}

/// Polls, since the kernel tells nobody when a stranger's process ends; false after 5 s.
template <class Condition>
bool soon(const Condition& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace necrocode::test
