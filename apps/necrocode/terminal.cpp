#include "terminal.hpp"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::app {
namespace {

// Characters, not bytes; wide characters count as one.
std::size_t width(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

std::shared_ptr<const Masker>& output_masker() {
  static std::shared_ptr<const Masker> masker = std::make_shared<const Masker>();
  return masker;
}

// How long a reader may take nothing before a run goes on without it.
constexpr std::chrono::milliseconds kStallMax{10'000};
constexpr std::chrono::milliseconds kForEver{-1};

// 0, or the errno of the write that failed, ETIMEDOUT when nothing was taken for `stall_max`. Over
// short writes, signals, and a descriptor that whoever started us made non-blocking.
int write_fully(int fd, std::string_view text, std::chrono::milliseconds stall_max) {
  while (!text.empty()) {
    pollfd room{fd, POLLOUT, 0};
    const int ready = ::poll(&room, 1, static_cast<int>(stall_max.count()));
    if (ready == 0) return ETIMEDOUT;
    // A pipe that is ready takes so much without blocking.
    const ssize_t wrote =
        ready < 0 ? -1 : ::write(fd, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF));
    if (wrote >= 0) {
      text.remove_prefix(static_cast<std::size_t>(wrote));
    } else if (errno != EINTR && errno != EAGAIN) {
      return errno;
    }
  }
  return 0;
}

bool print_within(std::string_view text, std::chrono::milliseconds stall_max) {
  errno = write_fully(STDOUT_FILENO, text, stall_max);
  if (errno != 0 && errno != EPIPE) throw_errno("cannot write to standard output");
  return errno == 0;
}

}  // namespace

void set_output_masker(std::shared_ptr<const Masker> masker) {
  output_masker() = std::move(masker);
}

std::string masked(std::string_view text) {
  return output_masker()->mask(text);
}

std::string presentable(std::string_view text) {
  return printable(masked(text));
}

std::string presentable_text(std::string_view text) {
  std::string shown;
  for (const std::string_view line : split(text, '\n')) {
    if (!shown.empty() || line.data() != text.data()) shown += '\n';
    bool first = true;
    for (const std::string_view cell : split(line, '\t')) {
      if (!std::exchange(first, false)) shown += '\t';
      shown += printable(cell);
    }
  }
  return shown;
}

void print(std::string_view text) {
  print_raw(masked(text));
}

bool print_raw(std::string_view text) {
  return print_within(text, kForEver);
}

void note(std::string_view line) {
  write_fully(STDERR_FILENO, presentable(line) + "\n", kStallMax);
}

void draw_notes(const std::vector<std::string>& lines, std::size_t above) {
  std::string screen;
  if (above > 0) screen = "\x1b[" + std::to_string(above) + "A";
  for (const std::string& line : lines) screen += "\x1b[2K" + presentable(line) + "\n";
  write_fully(STDERR_FILENO, screen, kStallMax);
}

void RunOutput::guarded(const std::function<void()>& print) {
  const std::lock_guard lock(mutex_);
  if (failure_) return;
  try {
    print();
  } catch (const StorageError& error) {
    failure_ = std::current_exception();
    note("necrocode: " + error.summary() + "; going on without");
  }
}

void RunOutput::print(std::string_view text) {
  guarded([&] { print_within(output_masker()->mask(text), kStallMax); });
}

void RunOutput::print_line(std::string_view line) {
  print(std::string(line) + "\n");
}

void RunOutput::print_json_line(const Json& record) {
  print_line(record.dump());
}

void RunOutput::finish() {
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
}

void print_line(std::string_view line) {
  print(std::string(line) + "\n");
}
void print_json(const Json& document) {
  print_line(document.pretty());
}
void print_json_line(const Json& record) {
  print_line(record.dump());
}

std::vector<std::string> table_lines(const std::vector<std::string>& header,
                                     const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> all{header};
  for (const auto& row : rows) {
    all.emplace_back();
    for (const std::string& cell : row) all.back().push_back(presentable(cell));
  }
  std::vector<std::size_t> widths(header.size(), 0);
  for (const auto& row : all) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  std::vector<std::string> lines;
  for (const auto& row : all) {
    std::string& line = lines.emplace_back();
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - width(row[i]) + 2, ' ');
    }
  }
  return lines;
}

void print_table(const std::vector<std::string>& header,
                 const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::string> lines = table_lines(header, rows);
  lines.front() = styled("dim", lines.front());
  for (const std::string& line : lines) print_line(line);
}

std::string cut_to_width(std::string_view text, std::size_t columns) {
  if (width(text) <= columns) return std::string(text);
  std::size_t end = 0;
  for (std::size_t count = 0; end < text.size(); ++end) {
    const bool starts = (static_cast<unsigned char>(text[end]) & 0xC0) != 0x80;
    if (starts && ++count == std::max<std::size_t>(columns, 1)) break;
  }
  return std::string(text.substr(0, end)) + "…";
}

bool is_terminal(int fd) {
  return ::isatty(fd) == 1;
}

bool colour(int fd) {
  const char* no_colour = std::getenv("NO_COLOR");
  return is_terminal(fd) && (!no_colour || !*no_colour);
}

std::string styled(std::string_view style, std::string_view text) {
  if (!colour(STDOUT_FILENO)) return std::string(text);
  const std::string_view code = style == "good"   ? "32"
                                : style == "bad"  ? "31"
                                : style == "warn" ? "33"
                                                  : "2";
  return "\x1b[" + std::string(code) + "m" + std::string(text) + "\x1b[0m";
}

}  // namespace necrocode::app
