// Reads a model's code changes: lenient about what stands around the JSON, strict about the JSON.
// An answer that is a diff instead is brought to the same form, and checked as it is. Only the text
// is looked at; whether a path leads out of the workspace through a link is the runner's.
#include <algorithm>
#include <set>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/model.hpp"
#include "necrocode/llm/unified_diff.hpp"

namespace necrocode::llm {
namespace {

constexpr std::string_view kListName = "code_changes";
constexpr std::size_t kNotClosed = std::string_view::npos;

// The answer, as it may be shown: it repeats what it was told, and that may be a key.
class Answer {
 public:
  Answer(std::string_view text, const Masker& masker) : text_(text), masker_(masker) {}
  std::string_view text() const { return text_; }

  // A short piece of it, within a message.
  std::string in_quotes(std::string_view piece) const {
    return "\"" + shown(piece, limits::kNameBytes) + "\"";
  }
  // A message that may quote it; what it quotes is cut between words.
  std::string masked(const std::string& message) const { return masker_.mask(message); }
  ErrorInfo info(std::vector<FieldError> fields) const {
    ErrorInfo info;
    info.detail = shown(text_, limits::kModelMessageBytes);
    info.fields = std::move(fields);
    return info;
  }
  [[noreturn]] void reject(const std::string& reason, std::vector<FieldError> fields = {}) const {
    throw ImplementationError("the model's answer is not usable: " + reason,
                              info(std::move(fields)));
  }

 private:
  std::string shown(std::string_view piece, std::size_t bytes) const {
    return shorten(printable(masker_.mask_head(piece, limits::kModelHeadBytes)), bytes);
  }
  std::string_view text_;
  const Masker& masker_;
};

// A brace of prose or code is seldom followed by a quote: this spares most vain attempts.
bool may_begin_object(std::string_view text) {
  const std::size_t next = text.find_first_not_of(" \t\r\n", 1);
  return next != std::string_view::npos && (text[next] == '"' || text[next] == '}');
}

// One past the brace that closes the object at the start of `text`; braces inside strings don't
// count.
std::size_t object_end(std::string_view text) {
  std::size_t open = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{') {
      ++open;
    } else if (c == '}' && --open == 0) {
      return i + 1;
    }
  }
  return kNotClosed;
}

std::string syntax_error(std::string_view piece) {
  try {
    Json::parse(piece, "its JSON");
  } catch (const InvalidResponse& error) {
    return error.summary();
  }
  return {};
}

// JSON leaves open which of two members of one name counts (RFC 8259 section 4).
bool stands_twice(const Json& object, std::string_view name) {
  const Json::Object& members = object.members();
  return std::count_if(members.begin(), members.end(),
                       [&](const auto& member) { return member.first == name; }) > 1;
}

// Whether places of the text, asked for from the left, lie in a line of a diff.
class DiffLines {
 public:
  explicit DiffLines(std::string_view text) : text_(text), blocks_(find_diffs(text)) {}
  bool any() const { return !blocks_.empty(); }
  bool hold(std::size_t at) {
    const std::size_t end = text_.substr(asked_, at - asked_).rfind('\n');
    if (end != std::string_view::npos) line_ = asked_ + end + 1;
    asked_ = at;
    while (block_ < blocks_.size() && blocks_[block_].end <= at) ++block_;
    constexpr std::string_view kKinds = " -+";
    return block_ < blocks_.size() && blocks_[block_].begin <= at &&
           kKinds.find(text_[line_]) != std::string_view::npos;
  }

 private:
  std::string_view text_;
  std::vector<DiffBlock> blocks_;
  std::size_t block_ = 0;  // the first that is not over
  std::size_t asked_ = 0;
  std::size_t line_ = 0;  // begins here
};

// The one object in the answer that has "code_changes": whole, fenced, or between sentences; or
// nothing when there is a diff in its place. An object within one that is broken, or in a line of a
// diff, is a part of a file, not the answer.
std::optional<Json> find_object(const Answer& answer) {
  const std::string_view text = answer.text();
  std::optional<Json> found;
  std::string reason = "there is no JSON object in it";
  std::string broken;  // what is wrong with the first one that was meant to be the answer
  // The braces that close no JSON: an object in there, after the name, is what a file was to hold.
  std::size_t wreck_end = 0;
  std::size_t wreck_name = 0;  // where the name first stands in it
  std::size_t scanned = 0;
  DiffLines diff_lines(text);
  std::size_t next_name = text.find(kListName);  // the name's first place from here on
  std::size_t at = text.find('{');
  while (at != std::string_view::npos && scanned < limits::kModelScanBytes) {
    std::size_t next = at + 1;
    if (!diff_lines.hold(at) && may_begin_object(text.substr(at))) {
      const std::size_t end = object_end(text.substr(at));
      const std::string_view piece = text.substr(at, end);
      scanned += piece.size();
      const bool within = at < wreck_end;
      auto value = end == kNotClosed ? std::nullopt : Json::try_parse(piece);
      if (value) {
        next = at + end;
        if (within && wreck_name < at) {
          // Not the answer.
        } else if (!value->find(kListName)) {
          reason = "its JSON object has no \"code_changes\"";
        } else if (found && *found != *value) {
          answer.reject("there are two different code-change objects in it");
        } else {
          found = std::move(value);
        }
      } else {
        if (!within) {
          wreck_end = at + piece.size();
          // Looked for once: what lies before has none.
          if (next_name != std::string_view::npos && next_name < at) {
            next_name = text.find(kListName, at);
          }
          wreck_name = next_name;
        }
        if (broken.empty() && piece.find(kListName) != std::string_view::npos) {
          broken = end == kNotClosed ? "its JSON is cut off" : syntax_error(piece);
        }
      }
    }
    at = text.find('{', next);
  }
  if (!found && broken.empty() && diff_lines.any()) return std::nullopt;
  if (!found) answer.reject(broken.empty() ? reason : broken);
  if (stands_twice(*found, kListName)) answer.reject("\"code_changes\" stands in it twice");
  return found;
}

// What the model wants, in the one form in which it is checked.
struct Wanted {
  Json changes;
  std::string explanation;
  std::vector<FieldError> defects;
};

Wanted find_wanted(const Answer& answer) {
  if (answer.text().size() > limits::kModelAnswerBytes) {
    answer.reject("it is longer than " + std::to_string(limits::kModelAnswerBytes) + " bytes");
  }
  if (const auto object = find_object(answer)) {
    return {(*object)[kListName], (*object)["explanation"].string_or(""), {}};
  }
  // JSON cannot hold such bytes; a diff could.
  if (!is_utf8(answer.text())) answer.reject("it is not UTF-8");
  DiffAnswer diff = read_diff_answer(answer.text());
  for (FieldError& defect : diff.defects) defect.message = answer.masked(defect.message);
  return {std::move(diff.changes), std::move(diff.explanation), std::move(diff.defects)};
}

// Code points that HFS+ leaves out when it compares names: ".g\u200cit" is ".git" there. The list
// is the one git checks for core.protectHFS: U+200C–200F, U+202A–202E, U+206A–206F, U+FEFF.
std::string without_ignorable(std::string_view name) {
  std::string kept;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const auto byte = [&](std::size_t offset) {
      return i + offset < name.size() ? static_cast<unsigned char>(name[i + offset]) : 0u;
    };
    const unsigned last = byte(2);
    const bool general = byte(0) == 0xE2 && byte(1) == 0x80 &&
                         ((last >= 0x8C && last <= 0x8F) || (last >= 0xAA && last <= 0xAE));
    const bool deprecated = byte(0) == 0xE2 && byte(1) == 0x81 && last >= 0xAA && last <= 0xAF;
    const bool mark = byte(0) == 0xEF && byte(1) == 0xBB && last == 0xBF;
    if (general || deprecated || mark) {
      i += 2;
    } else {
      kept += name[i];
    }
  }
  return kept;
}

// ".git" as any file system may understand it: case, trailing dots and spaces, streams, 8.3 names.
bool names_git_directory(std::string_view segment) {
  std::string name = ascii_lower(without_ignorable(segment));
  name = name.substr(0, name.find(':'));
  while (!name.empty() && (name.back() == '.' || name.back() == ' ')) name.pop_back();
  if (name == ".git") return true;
  constexpr std::string_view kShort = "git~";
  return name.starts_with(kShort) && name.size() > kShort.size() &&
         std::all_of(name.begin() + kShort.size(), name.end(), is_ascii_digit);
}

// Why `path` is refused; empty when it is fine.
std::string_view refusal(std::string_view path) {
  if (path.empty()) return "is empty";
  if (path.size() > limits::kPathBytes) return "is too long";
  if (path.front() == '/') return "is absolute";
  if (path.find('\\') != std::string_view::npos) return "has a backslash";
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (std::any_of(path.begin(), path.end(), control)) return "has a control character";
  for (const std::string_view segment : split(path, '/')) {
    if (segment.empty() || segment == ".") return "has an empty part";
    if (segment == "..") return "leads upward";
    if (names_git_directory(segment)) return "leads into .git";
  }
  return {};
}

std::string_view without_dot_slash(std::string_view path) {
  while (path.starts_with("./")) path.remove_prefix(2);
  return path;
}

// Collects what is wrong with the changes, all at once, so that the model can be told all at once.
class ChangeReader {
 public:
  ChangeReader(const Answer& answer, std::vector<FieldError> defects)
      : answer_(answer), defects_(std::move(defects)) {}
  std::vector<CodeChange> read(const Json& list) {
    std::vector<CodeChange> changes;
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::string pointer = "/" + std::string(kListName) + "/" + std::to_string(i);
      const bool told = std::any_of(defects_.begin(), defects_.end(),
                                    [&](const FieldError& one) { return one.pointer == pointer; });
      if (!told) changes.push_back(read_one(list.items()[i], pointer));
    }
    return changes;
  }
  const std::vector<FieldError>& defects() const { return defects_; }
  const std::vector<FieldError>& refused() const { return refused_; }

 private:
  CodeChange read_one(const Json& item, const std::string& pointer) {
    JsonFields fields(item, pointer);
    CodeChange change;
    if (item.is_object()) {
      for (const char* name : {"file_path", "operation", "content", "edits", "diff"}) {
        if (stands_twice(item, name)) fields.fail(name, "stands twice");
      }
      change.file_path = read_path(item["file_path"], fields);
      read_operation(change, fields);
      change.content = fields.string("content", limits::kCodeChangeFileBytes);
      read_edits(change, fields);
      read_diff(change, fields);
      check_parts(change, fields);
    }
    for (const FieldError& error : fields.errors()) add(defects_, error);
    return change;
  }

  std::string read_path(const Json& value, JsonFields& fields) {
    const auto text = value.as_string();
    if (!text) {
      fields.fail("file_path", "must be a string, not " + std::string(value.type_name()));
      return {};
    }
    const std::string path(without_dot_slash(*text));
    if (const std::string_view reason = refusal(path); !reason.empty()) {
      add(refused_,
          {fields.pointer("file_path"), answer_.in_quotes(path) + " " + std::string(reason)});
    } else if (!paths_.insert(path).second) {
      fields.fail("file_path", answer_.in_quotes(path) + " is named twice");
    }
    return path;
  }

  void read_operation(CodeChange& change, JsonFields& fields) const {
    const auto name = fields.string("operation", limits::kNameBytes);
    if (!name) {
      if (!fields.has("operation")) fields.fail("operation", "is required");
      return;
    }
    for (const Operation known : {Operation::kCreate, Operation::kModify, Operation::kDelete}) {
      if (*name == to_string(known)) {
        change.operation = known;
        return;
      }
    }
    fields.fail("operation", "must be create, modify or delete, not " + answer_.in_quotes(*name));
  }

  static void read_edits(CodeChange& change, JsonFields& fields) {
    fields.each("edits", limits::kCodeEdits, [&](JsonFields& edit) {
      for (const char* name : {"search", "replace"}) {
        if (stands_twice(edit.value(), name)) edit.fail(name, "stands twice");
      }
      const std::string search = edit.required_string("search", limits::kCodeChangeFileBytes);
      const auto replace = edit.string("replace", limits::kCodeChangeFileBytes);
      edit.require("replace");
      change.edits.push_back({search, replace.value_or("")});
    });
  }

  // Empty is as if it were not there, as it is with edits.
  void read_diff(CodeChange& change, JsonFields& fields) const {
    change.diff = fields.string("diff", limits::kCodeChangeFileBytes).value_or("");
    if (change.diff.empty()) return;
    try {
      read_hunks(change.file_path, change.diff);
    } catch (const ImplementationError& error) {
      fields.fail("diff", answer_.masked(error.summary()));
    }
  }

  // Which of content, edits and diff each operation takes.
  static void check_parts(const CodeChange& change, JsonFields& fields) {
    if (!fields.errors().empty()) return;  // what they mean is not known
    const bool edits = !change.edits.empty();
    const bool diff = !change.diff.empty();
    const int parts = (change.content ? 1 : 0) + (edits ? 1 : 0) + (diff ? 1 : 0);
    if (change.operation == Operation::kDelete) {
      if (edits || diff || !change.content.value_or("").empty()) {
        fields.fail("operation", "delete takes neither content nor edits nor a diff");
      }
    } else if (parts > 1) {
      fields.fail(diff ? "diff" : "edits", "content, edits and diff exclude each other");
    } else if (change.operation == Operation::kCreate && !change.content) {
      fields.fail("content", "is required to create a file");
    } else if (parts == 0) {
      fields.fail("content", "content, edits or a diff are required to modify a file");
    }
  }

  static void add(std::vector<FieldError>& list, FieldError error) {
    if (list.size() < limits::kCodeChangeDefects) list.push_back(std::move(error));
  }

  const Answer& answer_;
  std::set<std::string> paths_;
  std::vector<FieldError> defects_;
  std::vector<FieldError> refused_;
};

}  // namespace

std::vector<CodeChange> parse_code_changes(std::string_view text, std::string& explanation,
                                           const Masker& masker) {
  const Answer answer(text, masker);
  Wanted wanted = find_wanted(answer);
  const Json& list = wanted.changes;
  if (!list.is_array()) {
    answer.reject("\"code_changes\" must be an array, not " + std::string(list.type_name()));
  }
  if (list.size() == 0) answer.reject("it changes nothing");
  if (list.size() > limits::kCodeChanges) {
    answer.reject("it changes more than " + std::to_string(limits::kCodeChanges) + " files");
  }
  ChangeReader reader(answer, std::move(wanted.defects));
  std::vector<CodeChange> changes = reader.read(list);
  if (!reader.refused().empty()) {
    throw SecurityError("the model's answer names refused paths", answer.info(reader.refused()));
  }
  if (!reader.defects().empty()) {
    answer.reject("its code changes are malformed", reader.defects());
  }
  explanation = std::move(wanted.explanation);
  return changes;
}

}  // namespace necrocode::llm
