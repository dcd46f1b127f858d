// What commands print: tables and lines for people, JSON for programs, checked writes for both.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/json.hpp"
#include "necrocode/base/masking.hpp"

namespace necrocode::app {

/// What all below take out of what they print; from Runtime, before any other thread prints.
void set_output_masker(std::shared_ptr<const Masker> masker);
std::string masked(std::string_view text);
/// Masked, then made safe for one line of a terminal: how text of others is shown. Cut it after
/// this, not before: half a secret is not recognized.
std::string presentable(std::string_view text);

/// The same of a text of several lines: what moves a cursor or hides is shown, lines and tabs stay.
std::string presentable_text(std::string_view text);

/// Writes to stdout, masked. A closed pipe is quiet; any other failure throws StorageError.
void print(std::string_view text);
/// Byte for byte: the content of an artifact that the user asked for. False when the pipe is
/// closed.
bool print_raw(std::string_view bytes);
void print_line(std::string_view line);
void print_json(const Json& document);  ///< indented, for one document
void print_json_line(const Json& record);

/// One presentable() line on stderr; the only way to it beside the log. Never throws: where stderr
/// does not take it, there is nobody to tell.
void note(std::string_view line);
/// presentable() lines on a terminal's stderr, in place of the `above` lines drawn before.
void draw_notes(const std::vector<std::string>& lines, std::size_t above);

/// Printing while a run goes on: the first failure is noted and kept, later output is dropped, and
/// the run is not disturbed. Thread-safe.
class RunOutput {
 public:
  void print(std::string_view text);
  void print_line(std::string_view line);
  void print_json_line(const Json& record);
  /// Throws what was kept, so that the command does not end with 0.
  void finish();

 private:
  std::mutex mutex_;
  std::exception_ptr failure_;
  void guarded(const std::function<void()>& print);
};

/// Columns as wide as their content; cells made safe for a terminal. The header comes first.
std::vector<std::string> table_lines(const std::vector<std::string>& header,
                                     const std::vector<std::vector<std::string>>& rows);
/// At most so many characters, the last one "…" when some are left out.
std::string cut_to_width(std::string_view text, std::size_t columns);
void print_table(const std::vector<std::string>& header,
                 const std::vector<std::vector<std::string>>& rows);

/// True when `fd` is a terminal and NO_COLOR is not set.
bool colour(int fd);
bool is_terminal(int fd);
/// `text` in green ("good"), red ("bad"), yellow ("warn") or grey ("dim"), if stdout shows colour.
std::string styled(std::string_view style, std::string_view text);

}  // namespace necrocode::app
