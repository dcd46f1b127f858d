// Edits and diffs of any bytes, applied to a file of any bytes: refused with one error, or a text
// that a plain reading of the rules allows.
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/edits.hpp"
#include "necrocode/llm/unified_diff.hpp"

namespace {

using namespace necrocode;

// The input's parts stand between lines of "====".
std::vector<std::string> parts_of(std::string_view input) {
  constexpr std::string_view kBorder = "====\n";
  std::vector<std::string> parts;
  while (parts.size() < 8) {
    const std::size_t end = input.find(kBorder);
    parts.emplace_back(input.substr(0, end));
    if (end == std::string_view::npos) break;
    input.remove_prefix(end + kBorder.size());
  }
  return parts;
}

std::size_t count(std::string_view text, std::string_view piece) {
  std::size_t times = 0;
  for (std::size_t at = text.find(piece); at != std::string_view::npos;
       at = text.find(piece, at + 1)) {
    ++times;
  }
  return times;
}

std::string without_whitespace(std::string_view text) {
  std::string kept;
  for (const char c : text) {
    if (c != ' ' && c != '\t' && c != '\r' && c != '\n') kept += c;
  }
  return kept;
}

// One edit: the text that was found is, whitespace aside, the one that was searched for, and all
// else stays.
void check_edit(const std::string& file, const llm::Edit& edit) {
  llm::WorkBudget budget;
  try {
    const std::string result = llm::apply_edits("f", file, {edit}, budget);
    FUZZ_CHECK(count(file, edit.search) <= 1);
    if (!result.empty() && !file.empty()) {
      FUZZ_CHECK(file.ends_with('\n') == result.ends_with('\n'));
    }
    const std::string before = without_whitespace(file);
    const std::string search = without_whitespace(edit.search);
    const std::string after = without_whitespace(result);
    const std::string replace = without_whitespace(edit.replace);
    bool explained = false;
    for (std::size_t at = before.find(search); at != std::string::npos && !explained;
         at = before.find(search, at + 1)) {
      explained = before.substr(0, at) + replace + before.substr(at + search.size()) == after;
    }
    FUZZ_CHECK(explained);
    if (is_utf8(edit.search) && is_utf8(edit.replace)) FUZZ_CHECK(is_utf8(result));
  } catch (const ImplementationError&) {
    // An exact and only match of a text is never refused, unless for what the file is.
    FUZZ_CHECK(edit.search.empty() || count(file, edit.search) != 1 || !is_utf8(file) ||
               file.find('\0') != std::string::npos);
  }
}

// A diff: the added lines are there, and each line that it does not touch still is.
void check_diff(const std::string& file, const std::string& diff) {
  llm::WorkBudget budget;
  try {
    const std::string result = llm::apply_diff("f", file, diff, budget);
    std::size_t added = 0;
    std::size_t removed = 0;
    for (const llm::Hunk& hunk : llm::read_hunks("f", diff)) {
      for (const llm::DiffLine& line : hunk.lines) {
        added += line.kind == '+' ? 1 : 0;
        removed += line.kind == '-' ? 1 : 0;
        if (line.kind == '+') FUZZ_CHECK(result.find(trim(line.text)) != std::string::npos);
      }
    }
    FUZZ_CHECK(added + removed > 0);
    const std::size_t before = llm::split_lines(file).size();
    const std::size_t after = llm::split_lines(result).size();
    // An empty last line is none when it loses its newline.
    FUZZ_CHECK(before + added - removed == after || before + added - removed == after + 1);
  } catch (const ImplementationError&) {
    return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::vector<std::string> parts = parts_of(test::as_text(data, size));
  if (parts.size() == 2) {
    check_diff(parts[0], parts[1]);
    return 0;
  }
  std::vector<llm::Edit> edits;
  for (std::size_t i = 1; i + 1 < parts.size(); i += 2) edits.push_back({parts[i], parts[i + 1]});
  for (const llm::Edit& edit : edits) check_edit(parts[0], edit);
  llm::WorkBudget budget;
  try {
    llm::apply_edits("f", parts[0], edits, budget);
  } catch (const ImplementationError&) {
    return 0;
  }
  return 0;
}
