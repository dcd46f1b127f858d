// A terminal for a test's child, and what it would show: a pseudo-terminal whose other side reads
// the sequences that our programs use, and says so when there are others.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "necrocode/base/file.hpp"

namespace necrocode::test {

/// Lines of a screen without wrapping (DECAWM off), fed byte by byte.
class Screen {
 public:
  void take(std::string_view bytes) {
    for (const char c : bytes) take(c);
  }
  bool shows(std::string_view text) const {
    return std::any_of(lines_.begin(), lines_.end(), [&](const std::string& line) {
      return line.find(text) != std::string::npos;
    });
  }
  const std::vector<std::string>& lines() const { return lines_; }
  bool cursor_visible() const { return cursor_visible_; }
  bool wraps() const { return wraps_; }
  /// The highest that the drawing has ever been, the cursor's line included.
  std::size_t height() const { return height_; }
  std::size_t widest() const { return widest_; }
  /// Bytes that no drawing of ours has.
  const std::string& strange() const { return strange_; }

 private:
  void take(char c) {
    if (!escape_.empty()) {
      escape_ += c;
      if (escape_.size() == 2 && c != '[') end_escape(true);
      if (escape_.size() > 2 && c >= '@' && c <= '~') end_escape(!apply());
      return;
    }
    if (c == '\x1b') {
      escape_ = c;
    } else if (c == '\r') {
      column_ = 0;
    } else if (c == '\n') {
      ++row_;
      lines_.resize(std::max(lines_.size(), row_ + 1));
      height_ = std::max(height_, row_ + 1);
    } else if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') {
      strange_ += c;
    } else {
      put(c);
    }
  }
  /// A column is a byte here; what is drawn in the tests is ASCII but for "…".
  void put(char c) {
    std::string& line = lines_[row_];
    if (line.size() <= column_) line.resize(column_ + 1, ' ');
    line[column_++] = c;
    const auto begins = [](char one) { return (static_cast<unsigned char>(one) & 0xC0) != 0x80; };
    widest_ = std::max(widest_,
                       static_cast<std::size_t>(std::count_if(line.begin(), line.end(), begins)));
  }
  bool apply() {
    const std::string body = escape_.substr(2, escape_.size() - 3);
    switch (escape_.back()) {
      case 'A':
        row_ -= std::min<std::size_t>(row_, std::stoul(body));
        return true;
      case 'K':
        lines_[row_].resize(std::min(lines_[row_].size(), column_));
        return body.empty();
      case 'J':
        lines_.resize(row_ + 1);
        lines_[row_].resize(std::min(lines_[row_].size(), column_));
        return body.empty();
      case 'm':
        return true;
      case 'h':
      case 'l':
        if (body == "?25") cursor_visible_ = escape_.back() == 'h';
        if (body == "?7") wraps_ = escape_.back() == 'h';
        return body == "?25" || body == "?7";
      default:
        return false;
    }
  }
  void end_escape(bool strange) {
    if (strange) strange_ += escape_;
    escape_.clear();
  }

  std::vector<std::string> lines_ = std::vector<std::string>(1);
  std::size_t row_ = 0;
  std::size_t column_ = 0;
  std::size_t height_ = 1;
  std::size_t widest_ = 0;
  bool cursor_visible_ = true;
  bool wraps_ = true;
  std::string escape_;
  std::string strange_;
};

/// A program whose standard input and output are a terminal of that size. Ended (SIGKILL) on
/// destruction.
class TerminalProgram {
 public:
  TerminalProgram(std::vector<std::string> argv, std::vector<std::string> env,
                  const std::filesystem::path& stderr_file, unsigned short rows,
                  unsigned short columns) {
    master_ = FileDescriptor(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!master_ || ::grantpt(master_.get()) != 0 || ::unlockpt(master_.get()) != 0) {
      throw_errno("pseudo-terminal");
    }
    const winsize size{rows, columns, 0, 0};
    ::ioctl(master_.get(), TIOCSWINSZ, &size);
    char name[128];
    if (::ptsname_r(master_.get(), name, sizeof name) != 0) throw_errno("ptsname");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, name, O_RDWR | O_NOCTTY, 0);
    posix_spawn_file_actions_adddup2(&actions, 0, 1);
    posix_spawn_file_actions_addopen(&actions, 2, stderr_file.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
    const auto pointers = [](std::vector<std::string>& strings) {
      std::vector<char*> list;
      for (std::string& text : strings) list.push_back(text.data());
      list.push_back(nullptr);
      return list;
    };
    const int code = ::posix_spawnp(&pid_, argv[0].c_str(), &actions, nullptr,
                                    pointers(argv).data(), pointers(env).data());
    posix_spawn_file_actions_destroy(&actions);
    if (code != 0) throw StorageError("cannot start " + argv[0]);
  }
  TerminalProgram(const TerminalProgram&) = delete;
  TerminalProgram& operator=(const TerminalProgram&) = delete;
  ~TerminalProgram() {
    if (reaped_) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  void signal(int number) const { ::kill(pid_, number); }
  const Screen& screen() const { return screen_; }
  /// Reads until the screen is so; false when it is not within a minute, or the program has ended.
  bool until(const std::function<bool(const Screen&)>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    while (!condition(screen_)) {
      if (std::chrono::steady_clock::now() >= end || !read_some()) return condition(screen_);
    }
    return true;
  }
  bool until_shown(std::string_view text) {
    return until([&](const Screen& screen) { return screen.shows(text); });
  }
  /// Reads to the end, which must come within a minute; the exit code, 128 + signal for a signal.
  int wait() {
    until([](const Screen&) { return false; });
    if (!at_end_) {
      ADD_FAILURE() << "the program did not end";
      return -1;
    }
    int status = 0;
    ::waitpid(pid_, &status, 0);
    reaped_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  bool read_some() {
    pollfd waiting{master_.get(), POLLIN, 0};
    if (::poll(&waiting, 1, 100) == 0) return true;
    char piece[4096];
    const ssize_t got = ::read(master_.get(), piece, sizeof piece);  // EIO: nobody has it open
    at_end_ = got <= 0;
    if (at_end_) return false;
    screen_.take(std::string_view(piece, static_cast<std::size_t>(got)));
    return true;
  }

  FileDescriptor master_;
  pid_t pid_ = -1;
  Screen screen_;
  bool at_end_ = false;
  bool reaped_ = false;
};

}  // namespace necrocode::test
