// Unified diffs as models write them: the hunks of one file, and answers that are nothing but a
// diff of several. Internal to the model client and the runner.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/llm/text_match.hpp"

namespace necrocode::llm {

/// One line of a hunk.
struct DiffLine {
  char kind = ' ';        ///< ' ' in both, '-' only in the old text, '+' only in the new one
  std::string_view text;  ///< without its first character and "\n"; an "\r" stays
};

struct Hunk {
  std::size_t line = 0;                  ///< of its header in the diff, from 1
  std::optional<std::size_t> old_start;  ///< the line it tells, from 1; nothing: none is told
  std::vector<DiffLine> lines;
  bool old_ends_bare = false;  ///< its last old line is the file's, without a newline
  bool new_ends_bare = false;  ///< the same of its last new line
};

/// Reads the hunks of the file `path`: `@@ -a,b +c,d @@` or, without numbers, `@@`; lines that
/// begin with ' ', '-' or '+', empty ones (context that lost its space), and
/// `\ No newline at end of file`. The counts have to be right: nothing else tells a whole hunk from
/// one that was cut. A git header before them may stand there if it names this file.
/// Throws ImplementationError with the line and what is wrong there: no hunk, one that changes
/// nothing or has more or fewer lines than it tells, another file, a rename, a mode, a binary.
std::vector<Hunk> read_hunks(std::string_view path, std::string_view diff);

/// The text of `file` after all hunks of `diff`, or an error and none of them.
///
/// A hunk's place is where its old lines stand as they are, or else but for whitespace at their
/// ends, after the place of the hunk before. Where that is so at several places, the line it tells
/// decides (corrected by how far the hunk before was off): the nearest, if the second nearest is
/// more than twice as far. A hunk without old lines has a place only in an empty file.
///
/// Lines of context stay as the file has them. Added lines are taken as they are, or with the
/// file's line end if whitespace had to be disregarded. Whether the file ends in a newline is told
/// by `\ No newline at end of file`; without any such line at its end it stays as it was.
///
/// Throws ImplementationError as read_hunks() does, and for a hunk whose place is not there (with
/// the nearest), not clear, or before that of the hunk before; a file that is no text; a result
/// above limits::kCodeChangeFileBytes; more work than `budget` has.
std::string apply_diff(std::string_view path, std::string_view file, std::string_view diff,
                       WorkBudget& budget);

/// An answer that is a diff of one or more files instead of the code-change JSON.
struct DiffAnswer {
  std::string explanation;          ///< what stands before the first diff
  Json changes = Json::array();     ///< "code_changes", as the JSON form would tell them
  std::vector<FieldError> defects;  ///< what that form cannot tell, by pointers into it
                                    ///< (a file it cannot tell at all is null there)
};

/// A piece of an answer that is meant to be a diff.
struct DiffBlock {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool fenced = false;
  bool closed = true;  ///< the fence; without one there is nothing to close
};

/// The diffs in an answer: each begins with a line `diff --git …`, or `---` followed by `+++`, at
/// the start of a Markdown fence or else anywhere; the latter goes to the answer's end.
std::vector<DiffBlock> find_diffs(std::string_view answer);

/// Reads the diffs of an answer, one at least. A new file becomes create, a deleted one delete,
/// others modify with "diff". "a/" and "b/" are taken off the paths. Renames, copies, modes, links
/// and binaries are defects, and so is text between or after diffs that stand in no fence. Paths
/// are not checked.
DiffAnswer read_diff_answer(std::string_view answer);

}  // namespace necrocode::llm
