// Search/replace edits, applied to the text of one file. Internal to the model client and the
// runner.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "necrocode/llm/model.hpp"
#include "necrocode/llm/text_match.hpp"

namespace necrocode::llm {

/// The text of `file` after `edits`, in order, each of the result of those before.
///
/// Each search text has to stand in the file exactly once. Looked for is, and the first that is
/// there at all decides:
///  1. the text as it is, anywhere in a line too;
///  2. the same with the file's line ends;
///  3. its lines as whole lines, without regard to whitespace at their ends;
///  4. the same with all of them indented by as much more or less, or with tabs for spaces of one
///     width; the replacement is then indented in the same way.
///
/// In a file with one kind of line end the replacement gets that one. Whether the file ends in a
/// newline stays as it was (to change that, give the whole content). A search text of whitespace
/// alone is only found as it is.
///
/// Throws ImplementationError, which names the path, the edit by its pointer ("/edits/0") and, when
/// its text is not there, the nearest place: for a search text that is empty, missing or there more
/// than once; a replacement that cannot be indented as its place is; a file that is no text; a
/// result above limits::kCodeChangeFileBytes; more work than `budget` has.
std::string apply_edits(std::string_view path, std::string file, const std::vector<Edit>& edits,
                        WorkBudget& budget);

}  // namespace necrocode::llm
