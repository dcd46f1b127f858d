// The form of a diff is read here; where its hunks belong is found in diff_apply.cpp.
#include "necrocode/llm/unified_diff.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/text.hpp"

namespace necrocode::llm {
namespace {

constexpr std::size_t kLineNumberMax = 1'000'000'000;
constexpr std::string_view kFence = "```";
constexpr std::string_view kGitHeader = "diff --git ";
constexpr std::string_view kOldHeader = "--- ";
constexpr std::string_view kNewHeader = "+++ ";
constexpr std::string_view kNoFile = "/dev/null";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::string_view without_return(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

// A text, line by line.
class LineReader {
 public:
  explicit LineReader(std::string_view text) : text_(text) {}
  bool done() const { return at_ >= text_.size(); }
  std::string_view line() const { return line_at(at_); }
  std::string_view next_line() const { return line_at(end_of_line() + 1); }
  void advance() {
    at_ = std::min(end_of_line() + 1, text_.size());
    ++number_;
  }
  std::size_t number() const { return number_; }
  std::size_t offset() const { return at_; }
  bool starts_with(std::string_view head) const { return text_.substr(at_).starts_with(head); }
  bool blank() const { return without_return(line()).empty(); }
  void skip_blank() {
    while (!done() && blank()) advance();
  }

 private:
  std::size_t end_of_line() const { return std::min(text_.find('\n', at_), text_.size()); }
  std::string_view line_at(std::size_t at) const {
    if (at >= text_.size()) return {};
    return text_.substr(at, text_.find('\n', at) - at);
  }
  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t number_ = 1;
};

[[noreturn]] void fail(std::size_t line, const std::string& why) {
  throw ImplementationError("line " + std::to_string(line) + " of the diff " + why);
}

bool starts_file(const LineReader& in) {
  return in.starts_with(kGitHeader) ||
         (in.starts_with(kOldHeader) && in.next_line().starts_with(kNewHeader));
}

// ' ', '-' or '+', '\\' for the remark on a missing newline; 0 for what is no line of a hunk.
char kind_of(const LineReader& in) {
  if (in.blank()) return ' ';
  const char c = in.line().front();
  return c == ' ' || c == '-' || c == '+' || c == '\\' ? c : '\0';
}

struct Counts {
  std::size_t old_lines = 0;
  std::size_t new_lines = 0;
};

// What follows `@@ -`: `a,b +c,d @@`, each count 1 when it is left out.
class HunkHeader {
 public:
  HunkHeader(std::string_view text, std::size_t line) : text_(text), line_(line) {}
  std::size_t start = 0;
  Counts counts;
  void read() {
    start = number();
    counts.old_lines = count();
    expect(" +");
    number();
    counts.new_lines = count();
    expect(" @@");
  }

 private:
  std::size_t number() {
    const std::size_t end = std::min(text_.find_first_not_of("0123456789"), text_.size());
    const auto value = parse_uint(text_.substr(0, end));
    if (!value || *value > kLineNumberMax) malformed();
    text_.remove_prefix(end);
    return static_cast<std::size_t>(*value);
  }
  std::size_t count() {
    if (!text_.starts_with(',')) return 1;
    text_.remove_prefix(1);
    return number();
  }
  void expect(std::string_view mark) {
    if (!text_.starts_with(mark)) malformed();
    text_.remove_prefix(mark.size());
  }
  [[noreturn]] void malformed() const {
    fail(line_, "is not of the form \"@@ -line,count +line,count @@\"");
  }
  std::string_view text_;
  std::size_t line_;
};

// One hunk, its lines added as they come.
class HunkReader {
 public:
  explicit HunkReader(LineReader& in) : in_(in), header_(in.line()) { hunk_.line = in.number(); }

  Hunk read() {
    constexpr std::string_view kNumbered = "@@ -";
    in_.advance();
    const LineReader body = in_;
    if (header_.starts_with(kNumbered)) {
      HunkHeader header(header_.substr(kNumbered.size()), hunk_.line);
      header.read();
      hunk_.old_start = header.start;
      if (!read_counted(header.counts)) fail_counts(header.counts, body);
    } else {
      read_uncounted();
    }
    const auto changes = [](const DiffLine& line) { return line.kind != ' '; };
    if (std::none_of(hunk_.lines.begin(), hunk_.lines.end(), changes)) {
      fail(hunk_.line, "begins a hunk that changes nothing");
    }
    return std::move(hunk_);
  }

 private:
  // False when there are fewer lines than told, or more.
  bool read_counted(Counts left) {
    while (left.old_lines > 0 || left.new_lines > 0) {
      const char kind = in_.done() ? '\0' : kind_of(in_);
      if (kind == '\0') return false;
      if (kind != '\\') {
        if (kind != '+' && left.old_lines-- == 0) return false;
        if (kind != '-' && left.new_lines-- == 0) return false;
      }
      take(kind);
    }
    while (!in_.done() && in_.starts_with("\\")) take('\\');
    in_.skip_blank();
    return in_.done() || starts_file(in_) || kind_of(in_) == '\0';
  }

  void read_uncounted() {
    while (!in_.done() && !in_.starts_with("@@") && !starts_file(in_)) {
      const char kind = kind_of(in_);
      if (kind == '\0') fail(in_.number(), "begins with none of \" \", \"-\", \"+\"");
      take(kind);
    }
    // Empty lines at its end part it from what follows.
    while (!hunk_.lines.empty() && hunk_.lines.back().kind == ' ' &&
           without_return(hunk_.lines.back().text).empty() && !hunk_.old_ends_bare) {
      hunk_.lines.pop_back();
    }
  }

  void take(char kind) {
    if (kind == '\\') {
      const char before = hunk_.lines.empty() ? '\0' : hunk_.lines.back().kind;
      if (before == '\0') fail(in_.number(), "stands behind no line");
      if (before != '+') hunk_.old_ends_bare = true;
      if (before != '-') hunk_.new_ends_bare = true;
    } else {
      if ((kind != '+' && hunk_.old_ends_bare) || (kind != '-' && hunk_.new_ends_bare)) {
        fail(in_.number(), "follows one that is said to be the last, without a newline");
      }
      if (hunk_.lines.size() == kMatchLines) fail(in_.number(), "is one too many");
      const std::string_view line = in_.line();
      hunk_.lines.push_back({kind, in_.blank() ? line : line.substr(1)});
    }
    in_.advance();
  }

  [[noreturn]] void fail_counts(const Counts& told, LineReader body) const {
    Counts real;
    std::size_t blank = 0;  // not counted at the end
    for (; !body.done() && kind_of(body) != '\0' && !starts_file(body); body.advance()) {
      blank = body.blank() ? blank + 1 : 0;
      real.old_lines += kind_of(body) == ' ' || kind_of(body) == '-' ? 1 : 0;
      real.new_lines += kind_of(body) == ' ' || kind_of(body) == '+' ? 1 : 0;
    }
    const auto text = [](const Counts& counts) {
      return std::to_string(counts.old_lines) + " old and " + std::to_string(counts.new_lines) +
             " new lines";
    };
    real.old_lines -= blank;
    real.new_lines -= blank;
    fail(hunk_.line, "tells " + text(told) + ", but its hunk has " + text(real) + ": " +
                         in_quotes(without_return(header_)) +
                         " (a header without numbers is a plain @@)");
  }

  LineReader& in_;
  std::string_view header_;
  Hunk hunk_;
};

// What stands before the hunks of a file.
struct FileHeader {
  std::string path;
  bool creates = false;
  bool deletes = false;
  std::string defect;  ///< why it cannot be taken
};

class FileHeaderReader {
 public:
  explicit FileHeaderReader(LineReader& in) : in_(in) {}

  FileHeader read() {
    if (in_.starts_with(kGitHeader)) {
      git_names_ = take_after(kGitHeader);
    }
    for (; !in_.done() && !in_.blank() && !in_.starts_with("@@") && !starts_file(in_);
         in_.advance()) {
      read_extended(without_return(in_.line()));
    }
    if (in_.starts_with(kOldHeader) && starts_file(in_)) {
      old_name_ = name(take_after(kOldHeader));
      new_name_ = name(take_after(kNewHeader));
    } else {
      names_from_git_line();
    }
    header_.creates = header_.creates || old_name_ == kNoFile;
    header_.deletes = header_.deletes || new_name_ == kNoFile;
    find_path();
    return std::move(header_);
  }

 private:
  struct Known {
    std::string_view head;
    std::string_view defect;  ///< empty: means nothing to us
  };
  static constexpr std::array<Known, 9> kKnown = {{
      {"index ", ""},
      {"similarity index ", ""},
      {"dissimilarity index ", ""},
      {"rename ", "renames a file: delete the one and create the other"},
      {"copy ", "copies a file: create it with its content"},
      {"old mode ", "changes the mode of a file"},
      {"new mode ", "changes the mode of a file"},
      {"Binary files ", "changes a binary file"},
      {"GIT binary patch", "changes a binary file"},
  }};

  void read_extended(std::string_view line) {
    constexpr std::string_view kNewMode = "new file mode ";
    constexpr std::string_view kDeletedMode = "deleted file mode ";
    if (line.starts_with(kNewMode)) {
      header_.creates = true;
      if (line != "new file mode 100644") refuse("creates what is no plain file of mode 100644");
    } else if (line.starts_with(kDeletedMode)) {
      header_.deletes = true;
      if (!line.substr(kDeletedMode.size()).starts_with("100")) refuse("deletes no plain file");
    } else {
      const auto known = std::find_if(kKnown.begin(), kKnown.end(),
                                      [&](const Known& one) { return line.starts_with(one.head); });
      if (known == kKnown.end()) {
        refuse("has a line before its hunks that means nothing: " + in_quotes(line));
      } else if (!known->defect.empty()) {
        refuse(std::string(known->defect));
      }
    }
  }

  std::string_view take_after(std::string_view head) {
    const std::string_view rest = without_return(in_.line()).substr(head.size());
    in_.advance();
    return rest;
  }

  // Without the time that other programs than git write behind a tab.
  std::string_view name(std::string_view text) {
    if (text.starts_with('"')) refuse("has a path in quotes: give it in the JSON form");
    return text.substr(0, text.find('\t'));
  }

  // An empty file has no hunks, and so no names but these: "a/x b/x".
  void names_from_git_line() {
    const std::size_t half = git_names_.size() / 2;
    if (git_names_.size() % 2 == 0 || git_names_[half] != ' ') return;
    old_name_ = git_names_.substr(0, half);
    new_name_ = git_names_.substr(half + 1);
  }

  void find_path() {
    const bool prefixed = (header_.creates || old_name_.starts_with("a/")) &&
                          (header_.deletes || new_name_.starts_with("b/"));
    const auto stripped = [&](std::string_view text, std::string_view prefix) {
      return prefixed && text.starts_with(prefix) ? text.substr(prefix.size()) : text;
    };
    const std::string_view before = stripped(old_name_, "a/");
    const std::string_view after = stripped(new_name_, "b/");
    header_.path = header_.deletes ? before : after;
    if (header_.creates && header_.deletes) refuse("both creates and deletes a file");
    if (!header_.creates && !header_.deletes && before != after) {
      refuse("renames a file: delete the one and create the other");
    }
    if (header_.path.empty()) refuse("names no file");
    const std::string both = "a/" + header_.path + " b/" + header_.path;
    const std::string bare = header_.path + " " + header_.path;
    if (!git_names_.empty() && git_names_ != both && git_names_ != bare) {
      refuse("names different files in its header");
    }
  }

  void refuse(std::string why) {
    if (header_.defect.empty()) header_.defect = std::move(why);
  }

  LineReader& in_;
  FileHeader header_;
  std::string_view git_names_;
  std::string_view old_name_;
  std::string_view new_name_;
};

// The text of a file that its only hunk writes.
std::string content_of(const std::vector<Hunk>& hunks) {
  if (hunks.empty()) return {};
  const Hunk& hunk = hunks.front();
  const auto added = [](const DiffLine& line) { return line.kind == '+'; };
  if (hunks.size() > 1 || !std::all_of(hunk.lines.begin(), hunk.lines.end(), added)) {
    fail(hunk.line, "begins a hunk of a new file that does not only add lines");
  }
  std::string content;
  for (const DiffLine& line : hunk.lines) content.append(line.text).append("\n");
  if (hunk.new_ends_bare) content.pop_back();
  return content;
}

// All hunks that follow each other. A reader that is not at its end then is at what is no hunk;
// when one is malformed, at its header.
std::vector<Hunk> take_hunks(LineReader& in) {
  std::vector<Hunk> hunks;
  std::size_t lines = 0;
  for (in.skip_blank(); in.starts_with("@@"); in.skip_blank()) {
    if (hunks.size() == limits::kCodeEdits) {
      fail(in.number(), "is one hunk more than " + std::to_string(limits::kCodeEdits));
    }
    LineReader ahead = in;
    hunks.push_back(HunkReader(ahead).read());
    lines += hunks.back().lines.size();
    if (lines > kMatchLines) fail(in.number(), "begins a hunk with which it is too long");
    in = ahead;
  }
  return hunks;
}

class DiffAnswerReader {
 public:
  DiffAnswer read(std::string_view answer) {
    const std::vector<DiffBlock> blocks = find_diffs(answer);
    answer_.explanation = explanation(answer, blocks.front());
    for (const DiffBlock& block : blocks) {
      if (!block.closed) add("", "the fence around the diff is not closed");
      read_block(answer.substr(block.begin, block.end - block.begin));
    }
    return std::move(answer_);
  }

 private:
  static std::string explanation(std::string_view answer, const DiffBlock& first) {
    std::string_view before = trim(answer.substr(0, first.begin));
    if (first.fenced) before = trim(before.substr(0, before.rfind(kFence)));
    if (before.starts_with(kByteOrderMark)) before.remove_prefix(kByteOrderMark.size());
    return std::string(before);
  }

  void read_block(std::string_view text) {
    LineReader in(text);
    for (in.skip_blank(); !in.done(); in.skip_blank()) {
      if (starts_file(in)) {
        read_file(in, text);
      } else {
        add("", "the diff has a line that is no part of it: " + in_quotes(in.line()));
        to_next_file(in);
      }
    }
  }

  void read_file(LineReader& in, std::string_view text) {
    const std::string pointer = "/code_changes/" + std::to_string(answer_.changes.size());
    const FileHeader header = FileHeaderReader(in).read();
    Json change;
    if (header.defect.empty()) change.set("file_path", header.path);
    if (!header.defect.empty()) {
      add(pointer, "the diff " + header.defect);
      to_next_file(in);
    } else if (header.creates) {
      change.set("operation", "create");
      change.set("content", read_content(in, pointer));
    } else {
      const std::size_t begin = in.offset();
      // What is wrong with them is told when they are read as the "diff" of the change.
      const std::string defect = pass_hunks(in, [](const std::vector<Hunk>&) {});
      if (header.deletes && !defect.empty()) add(pointer, defect);
      change.set("operation", header.deletes ? "delete" : "modify");
      if (!header.deletes) change.set("diff", text.substr(begin, in.offset() - begin));
    }
    answer_.changes.push_back(std::move(change));
  }

  std::string read_content(LineReader& in, const std::string& pointer) {
    // In an answer whose own lines end so, the file's do not for that.
    const bool foreign_ends = in.line().ends_with('\r');
    std::string content;
    const std::string defect =
        pass_hunks(in, [&](const std::vector<Hunk>& hunks) { content = content_of(hunks); });
    if (!defect.empty()) add(pointer + "/content", defect);
    return foreign_ends ? with_line_end(content, "\n") : content;
  }

  // What is wrong with the file's hunks, or ""; the reader is behind them in any case.
  template <class Take>
  static std::string pass_hunks(LineReader& in, const Take& take) {
    try {
      take(take_hunks(in));
      return {};
    } catch (const ImplementationError& error) {
      to_next_file(in);
      return error.summary();
    }
  }

  static void to_next_file(LineReader& in) {
    while (!in.done() && !starts_file(in)) in.advance();
  }

  void add(std::string pointer, std::string message) {
    if (answer_.defects.size() < limits::kCodeChangeDefects)
      answer_.defects.push_back({std::move(pointer), std::move(message)});
  }

  DiffAnswer answer_;
};

}  // namespace

std::vector<Hunk> read_hunks(std::string_view path, std::string_view diff) {
  LineReader in(diff);
  in.skip_blank();
  if (!in.done() && !in.starts_with("@@")) {
    const std::size_t line = in.number();
    if (!starts_file(in)) fail(line, "is no part of one: " + in_quotes(in.line()));
    const FileHeader header = FileHeaderReader(in).read();
    if (!header.defect.empty()) fail(line, header.defect);
    if (header.creates || header.deletes) fail(line, "creates or deletes the file, not modifies");
    if (header.path != path) fail(line, "names another file: " + in_quotes(header.path));
  }
  const std::vector<Hunk> hunks = take_hunks(in);
  if (!in.done() && starts_file(in)) fail(in.number(), "begins a second file");
  if (!in.done()) fail(in.number(), "is no part of one: " + in_quotes(in.line()));
  if (hunks.empty()) throw ImplementationError("there is no hunk in the diff");
  return hunks;
}

std::vector<DiffBlock> find_diffs(std::string_view answer) {
  const std::size_t skipped = answer.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  LineReader in(answer.substr(skipped));
  std::vector<DiffBlock> blocks;
  while (!in.done()) {
    if (starts_file(in)) {
      blocks.push_back({skipped + in.offset(), answer.size()});
      break;
    }
    const bool fenced = in.starts_with(kFence);
    in.advance();
    if (!fenced) continue;
    const bool is_diff = starts_file(in);
    const std::size_t begin = in.offset();
    while (!in.done() && !in.starts_with(kFence)) in.advance();
    if (is_diff) blocks.push_back({skipped + begin, skipped + in.offset(), true, !in.done()});
    if (!in.done()) in.advance();
  }
  return blocks;
}

DiffAnswer read_diff_answer(std::string_view answer) {
  return DiffAnswerReader().read(answer);
}

}  // namespace necrocode::llm
