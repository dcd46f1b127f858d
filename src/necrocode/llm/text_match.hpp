// Where a piece of text stands in a file: what edits and diffs share. Internal to the model client.
//
// Every search is linear in the file and what is searched for, whatever they hold, and takes what
// it reads from a WorkBudget: an answer of many edits of large files ends with an error, not with a
// busy hour.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/limits.hpp"

namespace necrocode::llm {

/// Bytes that applying one answer may read, all its files together: 125 edits of a file of the
/// largest size, or a thousand of one of 1 MiB; some seconds. Whoever needs more gives the content.
inline constexpr std::size_t kApplyWorkBytes = 1 * limits::kGiB;
/// What a line costs beside its bytes, so that short ones take no longer than they are charged for.
inline constexpr std::size_t kLineWorkBytes = 16;
/// In a file whose lines are compared, 20 bytes each beside the text.
inline constexpr std::size_t kMatchLines = 1'000'000;

/// What applying an answer may still cost. Not thread-safe.
class WorkBudget {
 public:
  explicit WorkBudget(std::size_t bytes = kApplyWorkBytes) : bytes_(bytes) {}
  /// Throws ImplementationError when there is less left.
  void spend(std::size_t bytes);
  std::size_t spent() const { return spent_; }

 private:
  std::size_t bytes_;
  std::size_t spent_ = 0;
};

/// Throws ImplementationError unless the file of that name is text: UTF-8 without NUL.
void require_text(std::string_view path, std::string_view file);
/// Throws ImplementationError when the changed file is larger than limits::kCodeChangeFileBytes.
void require_size(std::string_view path, std::string_view file);

/// The line end of a file that has only one kind, "\n" or "\r\n"; "" when it has both, or none.
std::string_view line_end_of(std::string_view file);
/// `text` with `end` for each of its line ends, "\n" and "\r\n"; as it is when `end` is "".
std::string with_line_end(std::string_view text, std::string_view end);

/// The lines of `text` without their "\n"; an "\r" before it stays. A "\n" at the end ends the last
/// line and begins none. Throws ImplementationError above kMatchLines.
std::vector<std::string_view> split_lines(std::string_view text);

/// What of a line's whitespace counts when two are compared.
enum class Whitespace {
  kExact,    ///< all
  kLeading,  ///< not that at its end, CR included
  kNone,     ///< neither that at its end nor its indentation
};
std::string_view significant(std::string_view line, Whitespace counts);
std::string_view indentation(std::string_view line);
/// Nothing but whitespace.
bool is_blank(std::string_view line);

using Lines = std::vector<std::string_view>;
/// Told where a match begins; false ends the search.
using Found = std::function<bool(std::size_t)>;

/// Calls `found` with each place of `piece` in `text`, overlapping ones included, from the left.
/// `piece` is not empty.
void find_bytes(std::string_view text, std::string_view piece, WorkBudget& budget,
                const Found& found);
/// The same for lines, from line `from` of `file` on (counted from 0).
void find_lines(const Lines& file, std::size_t from, const Lines& block, Whitespace counts,
                WorkBudget& budget, const Found& found);

/// " …: near line 12, where the file has "a" and the search "b"", for the place of `file` most of
/// whose lines are those of `block`; "" when nothing is alike. At most three lines are compared.
std::string nearest_place(const Lines& file, const Lines& block, WorkBudget& budget);

/// A line within a message: in quotes, printable, bounded. A word that is cut is left out, since
/// the beginning of a key is not known for one.
std::string in_quotes(std::string_view line);
/// "lines 3, 9 and 20", counted from 1 as given; at most five.
std::string name_lines(const std::vector<std::size_t>& numbers);

}  // namespace necrocode::llm
