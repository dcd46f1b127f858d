// A program as a test's child: started with its own environment, read line by line, signalled,
// waited for with a limit. Ends it (SIGKILL) on destruction.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/file.hpp"

namespace necrocode::test {

class Program {
 public:
  /// stdout is read by the test, stderr goes to `stderr_file`.
  Program(const std::vector<std::string>& argv, const std::vector<std::string>& env,
          const std::filesystem::path& stderr_file) {
    int pipe_fds[2];
    if (::pipe2(pipe_fds, O_CLOEXEC) != 0) throw_errno("pipe");
    out_ = FileDescriptor(pipe_fds[0]);
    FileDescriptor write_end(pipe_fds[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, write_end.get(), 1);
    posix_spawn_file_actions_addopen(&actions, 2, stderr_file.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
    std::vector<char*> arguments = pointers(argv);
    std::vector<char*> variables = pointers(env);
    const int code =
        ::posix_spawnp(&pid_, arguments[0], &actions, nullptr, arguments.data(), variables.data());
    posix_spawn_file_actions_destroy(&actions);
    if (code != 0) throw StorageError("cannot start " + argv[0]);
    pidfd_ = FileDescriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (!reaped_) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }

  int pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }

  /// The next line of stdout, or nothing at its end or after `limit`.
  std::optional<std::string> read_line(std::chrono::milliseconds limit = std::chrono::seconds{60}) {
    const auto until = std::chrono::steady_clock::now() + limit;
    while (true) {
      const std::size_t end = buffer_.find('\n');
      if (end != std::string::npos) {
        std::string line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return line;
      }
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          until - std::chrono::steady_clock::now());
      if (left.count() <= 0) return std::nullopt;
      pollfd waiting{out_.get(), POLLIN, 0};
      if (::poll(&waiting, 1, static_cast<int>(left.count())) <= 0) continue;
      char piece[4096];
      const ssize_t got = ::read(out_.get(), piece, sizeof piece);
      if (got <= 0) return std::nullopt;
      buffer_.append(piece, static_cast<std::size_t>(got));
    }
  }
  /// Lines up to and with the first that holds `text`; nothing when it never comes.
  std::optional<std::string> read_until(std::string_view text) {
    while (auto line = read_line()) {
      if (line->find(text) != std::string::npos) return line;
    }
    return std::nullopt;
  }

  /// The lines of the next `time`, or until the program closes its stdout.
  std::string read_for(std::chrono::milliseconds time) {
    const auto until = std::chrono::steady_clock::now() + time;
    std::string lines;
    while (auto line = read_line(std::chrono::duration_cast<std::chrono::milliseconds>(
               until - std::chrono::steady_clock::now()))) {
      lines += *line + "\n";
    }
    return lines;
  }

  /// All the rest of stdout, then the exit code (128 + signal for a signal). Fails after `limit`.
  int wait(std::string* output = nullptr,
           std::chrono::milliseconds limit = std::chrono::seconds{100}) {
    const auto until = std::chrono::steady_clock::now() + limit;
    const auto left = [&] {
      return std::max(std::chrono::milliseconds{0},
                      std::chrono::duration_cast<std::chrono::milliseconds>(
                          until - std::chrono::steady_clock::now()));
    };
    while (auto line = read_line(left())) {
      if (output) *output += *line + "\n";
    }
    if (output) *output += buffer_;
    pollfd ended{pidfd_.get(), POLLIN, 0};
    if (::poll(&ended, 1, static_cast<int>(left().count())) <= 0) {
      ADD_FAILURE() << "the program did not end within " << limit.count() << " ms";
      return -1;
    }
    int status = 0;
    ::waitpid(pid_, &status, 0);
    reaped_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  static std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> list;
    for (const std::string& text : strings) list.push_back(const_cast<char*>(text.c_str()));
    list.push_back(nullptr);
    return list;
  }

  pid_t pid_ = -1;
  FileDescriptor pidfd_;
  FileDescriptor out_;
  std::string buffer_;
  bool reaped_ = false;
};

}  // namespace necrocode::test
