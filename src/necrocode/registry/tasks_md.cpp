#include "necrocode/registry/tasks_md.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::registry {
namespace {

constexpr std::size_t kDefectsTold = 100;
/// Of each task above another one, in that one's description.
constexpr std::size_t kContextBytes = 8 * limits::kKiB;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kBlanks = " \t";

struct Line {
  std::size_t number = 0;    ///< from 1
  std::size_t at = 0;        ///< of `content`, in the whole text
  std::size_t indent = 0;    ///< in columns; a tab stops at each fourth
  std::string_view content;  ///< without indentation and line end
};

/// A bullet with a box, `- [x]* rest`.
struct Box {
  std::string_view mark;  ///< between the brackets
  std::size_t at = 0;     ///< of the mark, in the line's content
  bool optional = false;
  std::string_view rest;
};

bool is_blank(char c) {
  return kBlanks.find(c) != std::string_view::npos;
}

bool is_one_character(std::string_view text) {
  return !text.empty() &&
         text.size() ==
             1 + static_cast<std::size_t>(std::count_if(text.begin() + 1, text.end(), [](char c) {
               return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
             }));
}

std::optional<Box> read_box(std::string_view content) {
  constexpr std::size_t kMarkBytes = 4;  // one character of UTF-8
  if (content.size() < 2 || std::string_view("-*+").find(content[0]) == std::string_view::npos ||
      !is_blank(content[1])) {
    return std::nullopt;
  }
  const std::size_t open = content.find_first_not_of(kBlanks, 1);
  if (open == std::string_view::npos || content[open] != '[') return std::nullopt;
  const std::size_t close = content.find(']', open);
  if (close == std::string_view::npos || close - open > kMarkBytes + 1) return std::nullopt;
  Box box;
  box.at = open + 1;
  box.mark = content.substr(box.at, close - box.at);
  // A word in brackets is text.
  if (!trim(box.mark).empty() && !is_one_character(box.mark)) return std::nullopt;
  std::size_t after = close + 1;
  box.optional = after < content.size() && content[after] == '*';
  if (box.optional) ++after;
  // Without a blank it is a link, or a footnote.
  if (after < content.size() && !is_blank(content[after])) return std::nullopt;
  box.rest = trim(content.substr(std::min(after, content.size())));
  return box;
}

/// The box's state as MarkdownTask has it; nothing for an unknown mark.
std::optional<char> read_mark(std::string_view mark) {
  if (mark == "X") return 'x';
  if (mark == " " || mark == "x" || mark == "-" || mark == "~") return mark.front();
  return std::nullopt;
}

/// The word that stands where a number may.
std::string_view first_word(std::string_view text) {
  return text.substr(0, text.find_first_of(kBlanks));
}

/// Digits, and then nothing or a dot: somebody meant a number. Not "3D".
bool means_number(std::string_view word) {
  const std::size_t end = std::min(word.find_first_not_of("0123456789"), word.size());
  return end > 0 &&
         (end == word.size() || std::string_view(".):").find(word[end]) != std::string_view::npos);
}

/// "1.2" of "1.2", "1.2.", "1.2)" and "1.2:"; nothing when it is malformed.
std::optional<std::string> read_number(std::string_view word) {
  if (!word.empty() && std::string_view(".):").find(word.back()) != std::string_view::npos) {
    word.remove_suffix(1);
  }
  if (!is_plain_name(word)) return std::nullopt;
  for (const std::string_view part : split(word, '.')) {
    if (part.empty() || part.find_first_not_of("0123456789") != std::string_view::npos ||
        (part.size() > 1 && part.front() == '0')) {
      return std::nullopt;
    }
  }
  return std::string(word);
}

/// The list of a line `_Requirements: 1.1, 2.3_`, which may be a bullet.
std::optional<std::vector<std::string>> read_requirements(std::string_view content) {
  constexpr std::string_view kHead = "_requirements:";
  if (content.size() > 1 && (content[0] == '-' || content[0] == '*') && is_blank(content[1])) {
    content = trim(content.substr(1));
  }
  if (content.size() <= kHead.size() || !content.ends_with('_') ||
      !iequals(content.substr(0, kHead.size()), kHead)) {
    return std::nullopt;
  }
  content = content.substr(kHead.size(), content.size() - kHead.size() - 1);
  std::vector<std::string> requirements;
  for (const std::string_view one : split(content, ',')) {
    if (!trim(one).empty()) requirements.emplace_back(trim(one));
  }
  return requirements;
}

/// Lines with their common indentation taken away, and without blank ones at both ends.
std::string join_description(const std::vector<Line>& lines) {
  std::size_t common = std::string::npos;
  for (const Line& line : lines) {
    if (!line.content.empty()) common = std::min(common, line.indent);
  }
  std::string text;
  for (const Line& line : lines) {
    if (!line.content.empty()) text += std::string(line.indent - common, ' ');
    text += line.content;
    text += '\n';
  }
  const std::size_t first = text.find_first_not_of('\n');
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of('\n') + 1 - first);
}

/// Walks over the lines once. What is malformed becomes a defect, and no task.
class PlanReader {
 public:
  explicit PlanReader(std::string_view text) {
    std::size_t at = text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
    for (std::size_t number = 1; at < text.size(); ++number) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      take(line_of(text.substr(at, end - at), at, number));
      at = end + 1;
    }
    end_description();
    if (fence_) fail(fence_->line, "opens a code fence that is never closed");
    if (comment_line_ > 0) fail(comment_line_, "opens a comment that is never closed");
    relate();
  }

  std::vector<MarkdownTask> tasks;
  std::vector<FieldError> defects;
  std::map<std::string, std::vector<std::size_t>> by_number;  ///< indices of tasks

 private:
  struct Fence {
    char mark = '`';
    std::size_t length = 0;
    std::size_t line = 0;
    std::size_t indent_min = 0;  ///< a line with less ends the list item, and the fence in it
  };

  static Line line_of(std::string_view text, std::size_t at, std::size_t number) {
    Line line;
    line.number = number;
    std::size_t skipped = 0;
    for (; skipped < text.size() && is_blank(text[skipped]); ++skipped) {
      line.indent = text[skipped] == '\t' ? (line.indent / 4 + 1) * 4 : line.indent + 1;
    }
    line.at = at + skipped;
    line.content = text.substr(skipped);
    while (!line.content.empty() &&
           (is_blank(line.content.back()) || line.content.back() == '\r')) {
      line.content.remove_suffix(1);
    }
    return line;
  }

  void fail(std::size_t line, std::string message) {
    defects.push_back({"line " + std::to_string(line), std::move(message)});
  }

  void take(const Line& line) {
    if (!is_utf8(line.content)) fail(line.number, "is not UTF-8");
    if (fence_ && ends_item(line)) fence_.reset();
    if (fence_) {
      if (closes_fence(line)) fence_.reset();
      return add_text(line);
    }
    if (comment_line_ > 0) {
      if (line.content.find("-->") != std::string_view::npos) comment_line_ = 0;
      return;
    }
    if (opens_fence(line)) return add_text(line);
    if (line.content.starts_with("<!--")) {
      if (line.content.find("-->") == std::string_view::npos) comment_line_ = line.number;
      return;
    }
    if (is_heading(line)) return leave_item();
    if (const auto box = read_box(line.content)) return take_box(line, *box);
    const auto requirements = read_requirements(line.content);
    if (!requirements) return add_text(line);
    if (!in_task_) return;
    auto& known = tasks.back().requirements;
    known.insert(known.end(), requirements->begin(), requirements->end());
  }

  void take_box(const Line& line, const Box& box) {
    const std::string_view word = first_word(box.rest);
    const std::optional<char> mark = read_mark(box.mark);
    if (!means_number(word)) {
      // A list of one's own below a task, or brackets that are no box.
      if (!mark || (item_indent_ && line.indent > *item_indent_)) return add_text(line);
      begin_item(line);
      return fail(line.number, "a task needs a number, such as 1. or 1.2");
    }
    begin_item(line);
    const std::optional<std::string> number = read_number(word);
    const std::string_view title = trim(box.rest.substr(word.size()));
    if (!mark) fail(line.number, "a box is [ ], [x], [-] or [~]");
    if (!number) {
      fail(line.number, "\"" + shorten(printable(word), limits::kNameBytes) +
                            "\" is no number of a task; such as 1 or 1.2 is");
    }
    if (title.empty()) fail(line.number, "the task has no title");
    if (!mark || !number || title.empty()) return;
    MarkdownTask& task = tasks.emplace_back();
    task.number = *number;
    task.title = title;
    task.box = *mark;
    task.optional = box.optional;
    task.line = line.number;
    task.box_at = line.at + box.at;
    in_task_ = true;
    note_number(tasks.size() - 1);
  }

  void note_number(std::size_t index) {
    const MarkdownTask& task = tasks[index];
    std::vector<std::size_t>& same = by_number[task.number];
    if (!same.empty()) {
      fail(task.line, "number " + task.number + " was given in line " +
                          std::to_string(tasks[same.front()].line) + " already");
    }
    same.push_back(index);
  }

  // The nearest number above each, and whether something above it is optional.
  void relate() {
    for (MarkdownTask& task : tasks) {
      std::string_view above = task.number;
      for (std::size_t dot = above.rfind('.'); dot != std::string_view::npos;
           dot = above.rfind('.')) {
        above = above.substr(0, dot);
        const auto found = by_number.find(std::string(above));
        if (found == by_number.end()) continue;
        if (task.parent.empty()) task.parent = above;
        task.optional = task.optional || tasks[found->second.front()].optional;
      }
    }
  }

  bool ends_item(const Line& line) const {
    return !line.content.empty() && line.indent < fence_->indent_min;
  }

  static std::size_t run_of(std::string_view text, char mark) {
    return std::min(text.find_first_not_of(mark), text.size());
  }

  bool opens_fence(const Line& line) {
    if (line.content.empty()) return false;
    const char mark = line.content.front();
    const std::size_t length = run_of(line.content, mark);
    if ((mark != '`' && mark != '~') || length < 3) return false;
    if (mark == '`' && line.content.find('`', length) != std::string_view::npos) return false;
    const bool inside = item_indent_ && line.indent > *item_indent_;
    fence_ = Fence{mark, length, line.number, inside ? *item_indent_ + 1 : 0};
    return true;
  }

  bool closes_fence(const Line& line) const {
    const std::size_t length = run_of(line.content, fence_->mark);
    return length >= fence_->length && length == line.content.size();
  }

  bool is_heading(const Line& line) const {
    const std::size_t level = run_of(line.content, '#');
    return level >= 1 && level <= 6 &&
           (level == line.content.size() || is_blank(line.content[level])) &&
           !(item_indent_ && line.indent > *item_indent_);
  }

  void add_text(const Line& line) {
    if (in_task_) description_.push_back(line);
  }

  void end_description() {
    if (in_task_) tasks.back().description = to_valid_utf8(join_description(description_));
    description_.clear();
    in_task_ = false;
  }

  void begin_item(const Line& line) {
    end_description();
    item_indent_ = line.indent;
  }

  void leave_item() {
    end_description();
    item_indent_.reset();
  }

  std::vector<Line> description_;           // of the last task
  bool in_task_ = false;                    // lines belong to the last task
  std::optional<std::size_t> item_indent_;  // of the last box, also of one with a defect
  std::optional<Fence> fence_;
  std::size_t comment_line_ = 0;
};

/// Which tasks stand below which.
class Tree {
 public:
  explicit Tree(const std::vector<MarkdownTask>& plan) {
    for (std::size_t i = 0; i < plan.size(); ++i) position_.try_emplace(plan[i].number, i);
    children_.resize(plan.size());
    for (std::size_t i = 0; i < plan.size(); ++i) {
      if (!plan[i].parent.empty()) children_[position_.at(plan[i].parent)].push_back(i);
    }
  }
  std::size_t parent_of(const MarkdownTask& task) const { return position_.at(task.parent); }
  const std::vector<std::size_t>& children(std::size_t index) const { return children_[index]; }

 private:
  std::map<std::string, std::size_t> position_;
  std::vector<std::vector<std::size_t>> children_;
};

/// The task's own words, then those of the tasks above it, the nearest first.
std::string full_description(const std::vector<MarkdownTask>& plan, const Tree& tree,
                             const MarkdownTask& task) {
  std::string text = task.description;
  const MarkdownTask* below = &task;
  while (!below->parent.empty()) {
    below = &plan[tree.parent_of(*below)];
    if (!text.empty()) text += "\n\n";
    text += "Part of " + below->number + ", " + below->title;
    if (!below->description.empty()) text += ":\n" + shorten(below->description, kContextBytes);
  }
  return text;
}

Json task_json(const MarkdownTask& task, std::string description, const std::string& after,
               const TasksetOptions& options) {
  Json json = Json::object({{"id", task.number}, {"title", task.title}});
  if (!description.empty()) json.set("description", std::move(description));
  if (!after.empty()) json.set("dependencies", std::vector<std::string>{after});
  if (!options.repo_url.empty()) json.set("repo_url", options.repo_url);
  if (task.optional) json.set("labels", std::vector<std::string>{"optional"});
  if (task.box == 'x') json.set("done", true);
  if (!task.requirements.empty()) {
    json.set("metadata", Json::object({{"requirements", task.requirements}}));
  }
  return json;
}

class Ticking {
 public:
  Ticking(std::string_view text, const std::map<std::string, WantedBox>& wanted)
      : plan_(text), tree_(plan_.tasks), wanted_(wanted), touched_(plan_.tasks.size()) {
    result_.text = text;
  }

  TickResult run() {
    for (std::size_t i = 0; i < plan_.tasks.size(); ++i) tick_task(i);
    for (const auto& [number, box] : wanted_) {
      if (mark_of(box.state) && plan_.by_number.count(number) == 0) {
        result_.conflicts.push_back({number, 0, "is not in the file"});
      }
    }
    tick_groups();
    std::sort(result_.changes.begin(), result_.changes.end(),
              [](const BoxChange& a, const BoxChange& b) { return a.line < b.line; });
    return std::move(result_);
  }

 private:
  static std::optional<char> mark_of(TaskState state) {
    if (state == TaskState::kDone) return 'x';
    if (state == TaskState::kRunning) return '-';
    return std::nullopt;
  }

  void tick_task(std::size_t index) {
    MarkdownTask& task = plan_.tasks[index];
    const auto found = wanted_.find(task.number);
    if (found == wanted_.end()) return;
    const auto& [title, state] = found->second;
    const auto conflict = [&](std::string message) {
      result_.conflicts.push_back({task.number, task.line, std::move(message)});
    };
    const std::optional<char> mark = mark_of(state);
    if (mark && is_twice(task)) {
      if (plan_.by_number.at(task.number).front() == index) conflict("is there more than once");
      return;
    }
    if (mark && title != task.title) return conflict("has another title than the task: " + title);
    if (mark && has_required_children(index)) {
      return conflict("has sub-tasks now, and was imported as one task");
    }
    if (task.box == 'x' && mark != 'x') {
      result_.differences.push_back(
          {task.number, task.line, "is ticked, and the task is " + std::string(to_string(state))});
      return;
    }
    touched_[index] = true;
    if (mark) set_box(task, *mark);
  }

  // The deepest first, so that each finds what is below it settled.
  void tick_groups() {
    std::vector<std::pair<std::size_t, std::size_t>> deepest;
    for (std::size_t i = 0; i < plan_.tasks.size(); ++i) {
      const std::string& number = plan_.tasks[i].number;
      const auto dots = static_cast<std::size_t>(std::count(number.begin(), number.end(), '.'));
      if (!tree_.children(i).empty()) deepest.emplace_back(dots, i);
    }
    std::sort(deepest.rbegin(), deepest.rend());
    for (const auto& [depth, index] : deepest) tick_group(index);
  }

  void tick_group(std::size_t index) {
    MarkdownTask& group = plan_.tasks[index];
    const bool required_only = has_required_children(index);
    bool touched = false;
    bool all_done = true;
    bool begun = false;
    for (const std::size_t child : tree_.children(index)) {
      touched = touched || touched_[child];
      begun = begun || plan_.tasks[child].box == 'x' || plan_.tasks[child].box == '-';
      if (required_only && is_left_out(child, index)) continue;
      all_done = all_done && plan_.tasks[child].box == 'x';
    }
    touched_[index] = touched_[index] || touched;
    const auto own = wanted_.find(group.number);  // it was imported as one task
    if (own != wanted_.end() && (!required_only || mark_of(own->second.state))) return;
    if (!touched || is_twice(group)) return;
    if (all_done) return set_box(group, 'x');
    if (begun) set_box(group, '-');
  }

  /// An optional task below one that is not.
  bool is_left_out(std::size_t child, std::size_t group) const {
    return plan_.tasks[child].optional && !plan_.tasks[group].optional;
  }

  bool has_required_children(std::size_t index) const {
    const auto& children = tree_.children(index);
    return std::any_of(children.begin(), children.end(),
                       [&](std::size_t child) { return !is_left_out(child, index); });
  }

  bool is_twice(const MarkdownTask& task) const {
    return plan_.by_number.at(task.number).size() > 1;
  }

  void set_box(MarkdownTask& task, char mark) {
    if (task.box == mark || task.box == 'x') return;
    result_.changes.push_back({task.number, task.title, task.line, task.box, mark});
    result_.text[task.box_at] = mark;
    task.box = mark;
  }

  PlanReader plan_;
  Tree tree_;
  const std::map<std::string, WantedBox>& wanted_;
  std::vector<bool> touched_;  // the registry knows it, or something below it
  TickResult result_;
};

}  // namespace

std::vector<MarkdownTask> parse_tasks_md(std::string_view text) {
  PlanReader reader(text);
  std::vector<FieldError>& defects = reader.defects;
  if (reader.tasks.empty() && defects.empty()) {
    defects.push_back({"line 1", "there is no task; one is a line such as `- [ ] 1. Title`"});
  }
  if (!defects.empty()) {
    ErrorInfo info;
    const std::size_t more = defects.size() - std::min(defects.size(), kDefectsTold);
    defects.resize(defects.size() - more);
    info.fields = std::move(defects);
    if (more > 0) info.detail = std::to_string(more) + " more defects";
    throw TaskContextValidationError("the plan cannot be read", std::move(info));
  }
  return std::move(reader.tasks);
}

Json to_taskset(const std::vector<MarkdownTask>& plan, const std::string& spec_name,
                const TasksetOptions& options) {
  const Tree tree(plan);
  Json tasks = Json::array();
  std::string last;  // that is not optional
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const MarkdownTask& task = plan[i];
    if (options.without_optional && task.optional) continue;
    const auto& children = tree.children(i);
    const bool is_group = std::any_of(children.begin(), children.end(), [&](std::size_t child) {
      return !options.without_optional || !plan[child].optional;
    });
    if (is_group) continue;
    tasks.push_back(task_json(task, full_description(plan, tree, task),
                              options.parallel ? std::string() : last, options));
    if (!task.optional) last = task.number;
  }
  const Json source = Json::object({{"format", "tasks.md"},
                                    {"name", options.source_name},
                                    {"order", options.parallel ? "none" : "file"}});
  return Json::object({{"spec_name", spec_name},
                       {"tasks", std::move(tasks)},
                       {"metadata", Json::object({{"source", source}})}});
}

TickResult tick_tasks_md(std::string_view text, const std::map<std::string, WantedBox>& wanted) {
  return Ticking(text, wanted).run();
}

}  // namespace necrocode::registry
