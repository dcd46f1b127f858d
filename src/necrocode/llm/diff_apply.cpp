// Finds where the hunks of a diff belong, and puts them there.
#include <algorithm>
#include <cstdlib>
#include <limits>

#include "necrocode/base/text.hpp"
#include "necrocode/llm/unified_diff.hpp"

namespace necrocode::llm {
namespace {

// One file, while hunks are applied to it from above.
class Patching {
 public:
  Patching(std::string_view path, std::string_view file, WorkBudget& budget)
      : path_(path),
        file_(file),
        lines_(split_lines(file)),
        uniform_end_(line_end_of(file)),
        budget_(budget) {}

  void apply(const Hunk& hunk) {
    const Place place = find_place(hunk);
    copy_to(place.at);
    // Where the old lines match to the last byte, the diff knows the file's line ends; but the last
    // line of a file may have none to tell.
    const bool tells_end = uniform_end_ != "\r\n" || has_carriage_return(hunk);
    const bool as_told = place.counts == Whitespace::kExact && tells_end;
    line_end_ = as_told ? "\n" : line_end_at(place.at);
    for (const DiffLine& line : hunk.lines) {
      if (line.kind == '+') {
        add(as_told || !line.text.ends_with('\r') ? line.text
                                                  : line.text.substr(0, line.text.size() - 1));
      } else {
        if (line.kind == ' ') copy_line(done_);
        ++done_;
      }
    }
    if (hunk.old_ends_bare || hunk.new_ends_bare) ends_bare_ = hunk.new_ends_bare;
  }

  std::string finish() {
    const bool reaches_end = done_ == lines_.size();
    copy_to(lines_.size());
    const bool bare = ends_bare_.value_or(!file_.empty() && !file_.ends_with('\n'));
    if (reaches_end && bare && result_.ends_with(line_end_)) {
      result_.resize(result_.size() - line_end_.size());
    }
    require_size(path_, result_);
    return std::move(result_);
  }

 private:
  struct Place {
    std::size_t at = 0;
    Whitespace counts = Whitespace::kExact;
  };
  // The places where a hunk may belong; the nearest to where it says it does.
  struct Places {
    std::vector<std::size_t> numbers;
    std::size_t nearest = 0;
    std::size_t distance = std::numeric_limits<std::size_t>::max();
  };

  static bool has_carriage_return(const Hunk& hunk) {
    return std::any_of(hunk.lines.begin(), hunk.lines.end(),
                       [](const DiffLine& line) { return line.text.ends_with('\r'); });
  }

  [[noreturn]] void fail(const Hunk& hunk, const std::string& why) const {
    throw ImplementationError("the hunk at line " + std::to_string(hunk.line) +
                              " of the diff for \"" + printable(path_) + "\" " + why);
  }

  Place find_place(const Hunk& hunk) {
    Lines old;
    for (const DiffLine& line : hunk.lines) {
      if (line.kind != '+') old.push_back(line.text);
    }
    if (old.empty()) {
      if (!file_.empty() || !result_.empty())
        fail(hunk, "has no line of the file: nothing tells where it belongs");
      return {};
    }
    for (const Whitespace counts : {Whitespace::kExact, Whitespace::kLeading}) {
      const Places places = find_places(hunk, old, counts, done_);
      if (places.numbers.empty()) continue;
      // The numbers of models are seldom right: one that is nearly right decides nothing.
      const bool unique = places.numbers.size() == 1;
      const bool clear = unique || (hunk.old_start && places.distance == 0);
      if (!clear) {
        fail(hunk, "belongs to more than one place, " + name_lines(places.numbers) +
                       ": give it more lines around it");
      }
      if (hunk.old_start && unique) drift_ = static_cast<long>(places.nearest) - told(hunk);
      return {places.nearest, counts};
    }
    if (done_ > 0 && !find_places(hunk, old, Whitespace::kLeading, 0).numbers.empty()) {
      fail(hunk, "belongs above the end of the hunk before: hunks go in order, without overlap");
    }
    if (hunk.old_ends_bare || hunk.new_ends_bare) {
      fail(hunk, "is not the end of the file, as it says" + nearest_place(lines_, old, budget_));
    }
    fail(hunk, "does not match the file" + nearest_place(lines_, old, budget_));
  }

  // From 0, as the hunk says it.
  static long told(const Hunk& hunk) { return static_cast<long>(*hunk.old_start) - 1; }

  Places find_places(const Hunk& hunk, const Lines& old, Whitespace counts, std::size_t from) {
    Places places;
    const long expected = hunk.old_start ? told(hunk) + drift_ : 0;
    find_lines(lines_, from, old, counts, budget_, [&](std::size_t at) {
      const bool at_end = at + old.size() == lines_.size();
      if ((hunk.old_ends_bare || hunk.new_ends_bare) && !at_end) return true;
      const auto distance = static_cast<std::size_t>(std::labs(static_cast<long>(at) - expected));
      if (distance < places.distance) {
        places.distance = distance;
        places.nearest = at;
      }
      places.numbers.push_back(at + 1);
      return true;
    });
    return places;
  }

  std::string_view line_end_at(std::size_t at) const {
    if (!uniform_end_.empty()) return uniform_end_;
    return lines_[at].ends_with('\r') ? "\r\n" : "\n";
  }

  void copy_to(std::size_t end) {
    for (; done_ < end; ++done_) copy_line(done_);
  }
  // With its own end. The last may have none: it gets one when another follows.
  void copy_line(std::size_t at) {
    end_last_line();
    const bool bare = at + 1 == lines_.size() && !file_.ends_with('\n');
    result_.append(lines_[at]).append(bare ? "" : "\n");
    open_ = bare;
  }
  void add(std::string_view text) {
    end_last_line();
    result_.append(text).append(line_end_);
  }
  void end_last_line() {
    if (open_) result_ += line_end_;
    open_ = false;
  }

  std::string_view path_;
  std::string_view file_;
  Lines lines_;
  std::string_view uniform_end_;  // of the file's lines, if they have the same
  WorkBudget& budget_;
  std::string result_;
  std::size_t done_ = 0;  // lines of the file that are in the result or left out
  bool open_ = false;     // the result's last line has no end
  long drift_ = 0;        // by how much the last hunk stood below where it said
  std::string_view line_end_ = "\n";
  std::optional<bool> ends_bare_;
};

}  // namespace

std::string apply_diff(std::string_view path, std::string_view file, std::string_view diff,
                       WorkBudget& budget) {
  require_text(path, file);
  budget.spend(file.size() + diff.size());
  Patching patching(path, file, budget);
  for (const Hunk& hunk : read_hunks(path, diff)) patching.apply(hunk);
  return patching.finish();
}

}  // namespace necrocode::llm
