#include "necrocode/llm/edits.hpp"

#include <algorithm>
#include <optional>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::llm {
namespace {

constexpr std::size_t kPlacesSought = 6;  // five are named
constexpr std::size_t kTabWidthMax = 16;

bool is_only(std::string_view text, char c) {
  return text.find_first_not_of(c) == std::string_view::npos;
}

// The indentation of a line of the file, and of the line that was searched for.
struct IndentPair {
  std::string_view file;
  std::string_view search;
};

// How an indentation of the file comes from the one that was written for it: the same string before
// each, or taken off each; or tabs against spaces.
struct Reindent {
  std::string added;
  std::string removed;
  // spaces = width * tabs + shift
  long width = 0;  // 0: by the strings above
  long shift = 0;
  bool file_has_tabs = false;

  std::optional<std::string> operator()(std::string_view written) const {
    if (width == 0) {
      if (!written.starts_with(removed)) return std::nullopt;
      return added + std::string(written.substr(removed.size()));
    }
    // Spaces behind tabs align; they stay.
    const std::size_t tabs = std::min(written.find_first_not_of('\t'), written.size());
    const auto spaces = static_cast<long>(written.size() - tabs);
    if (!is_only(written.substr(tabs), ' ')) return std::nullopt;
    if (!file_has_tabs) {
      const long columns = width * static_cast<long>(tabs) + shift + spaces;
      if (columns < 0) return std::nullopt;
      return std::string(static_cast<std::size_t>(columns), ' ');
    }
    const long columns = spaces - shift;
    if (tabs != 0 || columns < 0) return std::nullopt;
    return std::string(static_cast<std::size_t>(columns / width), '\t') +
           std::string(static_cast<std::size_t>(columns % width), ' ');
  }
};

std::optional<Reindent> same_characters(const std::vector<IndentPair>& pairs) {
  Reindent how;
  const auto& [file, search] = pairs.front();
  if (file.ends_with(search)) {
    how.added = file.substr(0, file.size() - search.size());
  } else if (search.ends_with(file)) {
    how.removed = search.substr(0, search.size() - file.size());
  } else {
    return std::nullopt;
  }
  for (const IndentPair& pair : pairs) {
    if (how(pair.search) != pair.file) return std::nullopt;
  }
  return how;
}

// The width of a tab is the one by which two lines of different depth differ; when all are of one
// depth, the one that makes them equally deep.
std::optional<Reindent> tabs_for_spaces(const std::vector<IndentPair>& pairs, bool file_has_tabs) {
  const auto tabs = [&](const IndentPair& pair) {
    return static_cast<long>((file_has_tabs ? pair.file : pair.search).size());
  };
  const auto spaces = [&](const IndentPair& pair) {
    return static_cast<long>((file_has_tabs ? pair.search : pair.file).size());
  };
  for (const IndentPair& pair : pairs) {
    if (!is_only(file_has_tabs ? pair.file : pair.search, '\t')) return std::nullopt;
    if (!is_only(file_has_tabs ? pair.search : pair.file, ' ')) return std::nullopt;
  }
  const auto fit = [&](long run, long rise) -> std::optional<Reindent> {
    if (run == 0 || rise % run != 0) return std::nullopt;
    Reindent how;
    how.file_has_tabs = file_has_tabs;
    how.width = rise / run;
    how.shift = spaces(pairs.front()) - how.width * tabs(pairs.front());
    if (how.width < 1 || how.width > static_cast<long>(kTabWidthMax)) return std::nullopt;
    for (const IndentPair& pair : pairs) {
      if (how(pair.search) != pair.file) return std::nullopt;
    }
    return how;
  };
  for (const IndentPair& pair : pairs) {
    if (tabs(pair) != tabs(pairs.front())) {
      return fit(tabs(pair) - tabs(pairs.front()), spaces(pair) - spaces(pairs.front()));
    }
  }
  return fit(tabs(pairs.front()), spaces(pairs.front()));
}

// How the lines of the file from `at` on are indented, where the block matches them but for that.
std::optional<Reindent> reindent(const Lines& file, std::size_t at, const Lines& block) {
  std::vector<IndentPair> pairs;
  for (std::size_t i = 0; i < block.size(); ++i) {
    if (!is_blank(block[i])) pairs.push_back({indentation(file[at + i]), indentation(block[i])});
  }
  if (auto how = same_characters(pairs)) return how;
  if (auto how = tabs_for_spaces(pairs, true)) return how;
  return tabs_for_spaces(pairs, false);
}

// One file, while its edits are applied.
class Editing {
 public:
  Editing(std::string_view path, std::string file, WorkBudget& budget)
      : path_(path), file_(std::move(file)), line_end_(line_end_of(file_)), budget_(budget) {}

  void apply(std::size_t index, const Edit& edit) {
    index_ = index;
    if (edit.search.empty()) fail("has an empty search text");
    if (!apply_bytes(edit.search, edit.replace) && !apply_lines(edit)) {
      fail("is not there: " + in_quotes(edit.search) +
           nearest_place(split_lines(file_), split_lines(edit.search), budget_));
    }
    require_size(path_, file_);
  }
  std::string_view line_end() const { return line_end_; }
  std::string take() { return std::move(file_); }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw ImplementationError("the search text of /edits/" + std::to_string(index_) + " for \"" +
                              printable(path_) + "\" " + why);
  }
  [[noreturn]] void fail_ambiguous(const std::vector<std::size_t>& numbers) const {
    fail("stands there more than once, at " + name_lines(numbers) +
         ": add lines around it until it is the only one");
  }

  bool apply_bytes(const std::string& search, const std::string& replace) {
    if (replace_bytes(search, replace)) return true;
    const std::string adapted = with_line_end(search, line_end_);
    return adapted != search && replace_bytes(adapted, replace);
  }

  bool replace_bytes(std::string_view search, std::string_view replace) {
    std::vector<std::size_t> places;
    find_bytes(file_, search, budget_, [&](std::size_t at) {
      places.push_back(at);
      return places.size() < kPlacesSought;
    });
    if (places.empty()) return false;
    if (places.size() > 1) {
      for (std::size_t& at : places) at = line_number(at);
      fail_ambiguous(places);
    }
    file_.replace(places.front(), search.size(), with_line_end(replace, line_end_));
    return true;
  }

  std::size_t line_number(std::size_t offset) const {
    return 1 + static_cast<std::size_t>(std::count(
                   file_.begin(), file_.begin() + static_cast<std::ptrdiff_t>(offset), '\n'));
  }

  bool apply_lines(const Edit& edit) {
    const Lines block = split_lines(edit.search);
    if (std::all_of(block.begin(), block.end(), is_blank)) return false;
    const Lines lines = split_lines(file_);
    for (const Whitespace counts : {Whitespace::kLeading, Whitespace::kNone}) {
      std::vector<std::size_t> places;
      Reindent how;
      find_lines(lines, 0, block, counts, budget_, [&](std::size_t at) {
        if (counts == Whitespace::kNone) {
          budget_.spend(edit.search.size() + kLineWorkBytes * block.size());
          const auto found = reindent(lines, at, block);
          if (!found) return true;
          how = *found;
        }
        places.push_back(at + 1);
        return places.size() < kPlacesSought;
      });
      if (places.size() > 1) fail_ambiguous(places);
      if (places.empty()) continue;
      replace_lines(lines, places.front() - 1, block.size(), edit, how);
      return true;
    }
    return false;
  }

  void replace_lines(const Lines& lines, std::size_t first, std::size_t count, const Edit& edit,
                     const Reindent& how) {
    const auto offset = [&](std::string_view line) {
      return static_cast<std::size_t>(line.data() - file_.data());
    };
    const std::size_t begin = offset(lines[first]);
    const std::string_view last = lines[first + count - 1];
    std::size_t end = offset(last) + last.size();
    const std::string_view line_end = !line_end_.empty()             ? line_end_
                                      : lines[first].ends_with('\r') ? "\r\n"
                                                                     : "\n";
    if (!edit.search.ends_with('\n')) {
      if (last.ends_with('\r')) --end;  // a part of the line end, which stays
    } else if (end < file_.size()) {
      ++end;  // without one, the file's end stays as it was
    }
    std::string text = reindented(edit.replace, how);
    // Whole lines were asked for, and whole lines were meant.
    if (edit.search.ends_with('\n') && !text.empty() && !text.ends_with('\n')) text += '\n';
    file_.replace(begin, end - begin, with_line_end(text, line_end));
  }

  std::string reindented(std::string_view text, const Reindent& how) const {
    std::string result;
    std::size_t number = 0;
    for (const std::string_view line : split(text, '\n')) {
      if (number++ > 0) result += '\n';
      if (is_blank(line)) {
        result += line;
        continue;
      }
      const std::string_view before = indentation(line);
      const auto indented = how(before);
      if (!indented) {
        fail("is there with another indentation, to which line " + std::to_string(number) +
             " of its replacement cannot be brought: " + in_quotes(line));
      }
      result.append(*indented).append(line.substr(before.size()));
    }
    return result;
  }

  std::string_view path_;
  std::string file_;
  std::string_view line_end_;  // of a literal
  WorkBudget& budget_;
  std::size_t index_ = 0;
};

}  // namespace

std::string apply_edits(std::string_view path, std::string file, const std::vector<Edit>& edits,
                        WorkBudget& budget) {
  require_text(path, file);
  const bool had_text = !file.empty();
  const bool had_newline = file.ends_with('\n');
  Editing editing(path, std::move(file), budget);
  for (std::size_t i = 0; i < edits.size(); ++i) editing.apply(i, edits[i]);
  std::string result = editing.take();
  if (!had_text || result.empty()) return result;
  if (had_newline && !result.ends_with('\n')) {
    result += editing.line_end().empty() ? "\n" : editing.line_end();
    require_size(path, result);
  }
  while (!had_newline && result.ends_with('\n')) {
    result.resize(result.size() - (result.ends_with("\r\n") ? 2 : 1));
  }
  return result;
}

}  // namespace necrocode::llm
