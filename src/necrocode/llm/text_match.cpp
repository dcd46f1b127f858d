#include "necrocode/llm/text_match.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::llm {
namespace {

constexpr std::size_t kShownLineBytes = 100;
constexpr std::size_t kShownDifferences = 3;
constexpr std::size_t kNamedLines = 5;
// A line that shares less than half of its bytes with another is not a slip of it.
constexpr std::size_t kAlikeOneIn = 2;

// Knuth, Morris, Pratt: never more than two comparisons an element of the text.
template <class Element>
void find_sequence(const Element* text, std::size_t text_size, const Element* piece,
                   std::size_t piece_size, const Found& found) {
  if (piece_size > text_size) return;
  // The longest proper prefix of the piece that ends at each of its elements; sizes are far below
  // 4 Gi, and half the memory matters.
  std::vector<std::uint32_t> border(piece_size);
  for (std::size_t i = 1, k = 0; i < piece_size; ++i) {
    while (k > 0 && !(piece[i] == piece[k])) k = border[k - 1];
    if (piece[i] == piece[k]) ++k;
    border[i] = static_cast<std::uint32_t>(k);
  }
  for (std::size_t i = 0, k = 0; i < text_size; ++i) {
    while (k > 0 && !(text[i] == piece[k])) k = border[k - 1];
    if (text[i] == piece[k]) ++k;
    if (k == piece_size) {
      if (!found(i + 1 - piece_size)) return;
      k = border[k - 1];
    }
  }
}

std::size_t work_of(const Lines& lines, std::size_t from = 0) {
  std::size_t bytes = 0;
  for (std::size_t i = from; i < lines.size(); ++i) bytes += lines[i].size() + kLineWorkBytes;
  return bytes;
}

// Lines as numbers, so that comparing two costs the same whatever their length. A number is the
// first place of its line in the block.
class LineNumbers {
 public:
  LineNumbers(const Lines& block, Whitespace counts) : counts_(counts) {
    for (const std::string_view line : block) {
      numbers_.push_back(
          numbers_of_.emplace(significant(line, counts), numbers_.size()).first->second);
    }
  }
  static constexpr std::uint32_t kUnknown = UINT32_MAX;
  const std::vector<std::uint32_t>& of_block() const { return numbers_; }
  std::uint32_t of(std::string_view line) const {
    const auto found = numbers_of_.find(significant(line, counts_));
    return found == numbers_of_.end() ? kUnknown : found->second;
  }

 private:
  Whitespace counts_;
  std::map<std::string_view, std::uint32_t> numbers_of_;
  std::vector<std::uint32_t> numbers_;
};

// Bytes at both ends that two lines share.
std::size_t shared_bytes(std::string_view a, std::string_view b) {
  const std::size_t size = std::min(a.size(), b.size());
  std::size_t head = 0;
  while (head < size && a[head] == b[head]) ++head;
  std::size_t tail = 0;
  while (tail < size - head && a[a.size() - 1 - tail] == b[b.size() - 1 - tail]) ++tail;
  return head + tail;
}

// Where the block would begin so that most of its lines, blank ones aside, stand in their place.
std::optional<std::size_t> place_of_most_lines(const Lines& file, const Lines& block) {
  const LineNumbers numbers(block, Whitespace::kNone);
  std::vector<std::uint32_t> votes(file.size());
  std::size_t best = 0;
  for (std::size_t i = 0; i < file.size(); ++i) {
    if (is_blank(file[i])) continue;
    const std::uint32_t at = numbers.of(file[i]);
    if (at == LineNumbers::kUnknown || at > i) continue;
    if (++votes[i - at] > votes[best]) best = i - at;
  }
  if (votes.empty() || votes[best] == 0) return std::nullopt;
  return best;
}

// Where the longest line of the block has its most similar one.
std::optional<std::size_t> place_of_similar_line(const Lines& file, const Lines& block) {
  const auto longest =
      std::max_element(block.begin(), block.end(), [](std::string_view a, std::string_view b) {
        return significant(a, Whitespace::kNone).size() < significant(b, Whitespace::kNone).size();
      });
  const std::string_view wanted = significant(*longest, Whitespace::kNone);
  const auto at = static_cast<std::size_t>(longest - block.begin());
  std::optional<std::size_t> best;
  std::size_t most = 0;
  for (std::size_t i = at; i < file.size(); ++i) {
    const std::string_view line = significant(file[i], Whitespace::kNone);
    const std::size_t shared = shared_bytes(line, wanted);
    if (shared > most && shared * kAlikeOneIn >= std::max(line.size(), wanted.size())) {
      most = shared;
      best = i - at;
    }
  }
  return best;
}

}  // namespace

void WorkBudget::spend(std::size_t bytes) {
  if (bytes > bytes_ - spent_) {
    throw ImplementationError(
        "the edits of this answer would take too much work: give such large files as whole "
        "content");
  }
  spent_ += bytes;
}

void require_text(std::string_view path, std::string_view file) {
  if (is_utf8(file) && file.find('\0') == std::string_view::npos) return;
  throw ImplementationError("\"" + printable(path) +
                            "\" cannot be edited: it is no text (not UTF-8, or with NUL)");
}

void require_size(std::string_view path, std::string_view file) {
  if (file.size() <= limits::kCodeChangeFileBytes) return;
  throw ImplementationError("\"" + printable(path) + "\" would be larger than " +
                            std::to_string(limits::kCodeChangeFileBytes) + " bytes");
}

std::string_view line_end_of(std::string_view file) {
  bool plain = false;
  bool with_return = false;
  for (std::size_t at = file.find('\n'); at != std::string_view::npos; at = file.find('\n', at + 1))
    (at > 0 && file[at - 1] == '\r' ? with_return : plain) = true;
  if (plain == with_return) return "";
  return plain ? "\n" : "\r\n";
}

std::string with_line_end(std::string_view text, std::string_view end) {
  if (end.empty()) return std::string(text);
  std::string result;
  result.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i, 2) == "\r\n") ++i;
    if (text[i] == '\n') {
      result += end;
    } else {
      result += text[i];
    }
  }
  return result;
}

Lines split_lines(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    if (lines.size() == kMatchLines) {
      throw ImplementationError("the file has more than " + std::to_string(kMatchLines) +
                                " lines; give its whole content");
    }
    const std::size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return lines;
}

bool is_blank(std::string_view line) {
  return significant(line, Whitespace::kNone).empty();
}

std::string_view indentation(std::string_view line) {
  return line.substr(0, std::min(line.find_first_not_of(" \t"), line.size()));
}

std::string_view significant(std::string_view line, Whitespace counts) {
  if (counts == Whitespace::kExact) return line;
  line = line.substr(0, line.find_last_not_of(" \t\r") + 1);
  if (counts == Whitespace::kNone) line.remove_prefix(indentation(line).size());
  return line;
}

void find_bytes(std::string_view text, std::string_view piece, WorkBudget& budget,
                const Found& found) {
  budget.spend(text.size() + piece.size());
  find_sequence(text.data(), text.size(), piece.data(), piece.size(), found);
}

void find_lines(const Lines& file, std::size_t from, const Lines& block, Whitespace counts,
                WorkBudget& budget, const Found& found) {
  budget.spend(work_of(file, from) + work_of(block));
  const LineNumbers numbers(block, counts);
  std::vector<std::uint32_t> text;
  text.reserve(file.size() - from);
  for (std::size_t i = from; i < file.size(); ++i) text.push_back(numbers.of(file[i]));
  find_sequence(text.data(), text.size(), numbers.of_block().data(), block.size(),
                [&](std::size_t at) { return found(from + at); });
}

std::string nearest_place(const Lines& file, const Lines& block, WorkBudget& budget) {
  budget.spend(2 * work_of(file) + work_of(block));
  auto place = place_of_most_lines(file, block);
  if (!place) place = place_of_similar_line(file, block);
  if (!place) return "";
  std::string text = "; the nearest is at line " + std::to_string(*place + 1);
  std::size_t shown = 0;
  for (std::size_t i = 0; i < block.size() && shown < kShownDifferences; ++i) {
    const bool ended = *place + i >= file.size();
    if (!ended && significant(file[*place + i], Whitespace::kLeading) ==
                      significant(block[i], Whitespace::kLeading)) {
      continue;
    }
    text += shown++ == 0 ? ": " : ", ";
    text += ended ? "the file ends"
                  : "line " + std::to_string(*place + i + 1) + " is " + in_quotes(file[*place + i]);
    text += " where it should be " + in_quotes(block[i]);
    if (ended) break;
  }
  return text;
}

std::string in_quotes(std::string_view line) {
  std::string shown(line);
  if (line.size() > kShownLineBytes) {
    const std::size_t space = line.substr(0, kShownLineBytes).find_last_of(" \t\n");
    shown = std::string(line.substr(0, space == std::string_view::npos ? 0 : space + 1)) + "…";
  }
  return "\"" + printable(shown) + "\"";
}

std::string name_lines(const std::vector<std::size_t>& numbers) {
  std::string text = "lines ";
  for (std::size_t i = 0; i < std::min(numbers.size(), kNamedLines); ++i) {
    if (i > 0) text += i + 1 == numbers.size() ? " and " : ", ";
    text += std::to_string(numbers[i]);
  }
  return numbers.size() > kNamedLines ? text + " …" : text;
}

}  // namespace necrocode::llm
