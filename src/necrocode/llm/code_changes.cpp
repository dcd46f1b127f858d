// Reads a model's code changes: lenient about what stands around the JSON, strict about the JSON.
// Only the text is looked at; whether a path leads out of the workspace through a link is the
// runner's.
#include <algorithm>
#include <set>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/model.hpp"

namespace necrocode::llm {
namespace {

constexpr std::string_view kListName = "code_changes";
constexpr std::size_t kNotClosed = std::string_view::npos;

// The text's head, safe for a message. More is masked than is shown, so that no secret is cut in
// two.
std::string excerpt(std::string_view text) {
  const std::string_view head = text.substr(0, 8 * limits::kModelMessageBytes);
  return shorten(printable(Masker().mask(head)), limits::kModelMessageBytes);
}

// A short piece of the answer, within a message.
std::string in_quotes(std::string_view text) {
  return "\"" + shorten(printable(Masker().mask(text)), limits::kNameBytes) + "\"";
}

[[noreturn]] void reject(const std::string& reason, std::string_view text,
                         std::vector<FieldError> fields = {}) {
  ErrorInfo info;
  info.detail = excerpt(text);
  info.fields = std::move(fields);
  throw ImplementationError("the model's answer is not usable: " + reason, std::move(info));
}

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

// The one object in `text` that has "code_changes": whole, fenced, or between sentences.
Json find_answer(std::string_view text) {
  std::optional<Json> found;
  std::string reason = "there is no JSON object in it";
  std::string broken;  // what is wrong with the first one that was meant to be the answer
  std::size_t scanned = 0;
  std::size_t at = text.find('{');
  while (at != std::string_view::npos && scanned < limits::kModelScanBytes) {
    std::size_t next = at + 1;
    if (may_begin_object(text.substr(at))) {
      const std::size_t end = object_end(text.substr(at));
      const std::string_view piece = text.substr(at, end);
      scanned += piece.size();
      const bool named = piece.find(kListName) != std::string_view::npos;
      if (end == kNotClosed) {
        if (named && broken.empty()) broken = "its JSON is cut off";
      } else if (auto value = Json::try_parse(piece)) {
        next = at + end;
        if (!value->find(kListName)) {
          reason = "its JSON object has no \"code_changes\"";
        } else if (found && *found != *value) {
          reject("there are two different code-change objects in it", text);
        } else {
          found = std::move(value);
        }
      } else if (named && broken.empty()) {
        broken = syntax_error(piece);
      }
    }
    at = text.find('{', next);
  }
  if (!found) reject(broken.empty() ? reason : broken, text);
  return std::move(*found);
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
  std::vector<CodeChange> read(const Json& list) {
    std::vector<CodeChange> changes;
    for (std::size_t i = 0; i < list.size(); ++i) {
      changes.push_back(
          read_one(list.items()[i], "/" + std::string(kListName) + "/" + std::to_string(i)));
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
      change.file_path = read_path(item["file_path"], fields);
      read_operation(change, fields);
      change.content = fields.string("content", limits::kCodeChangeFileBytes);
      read_edits(change, fields);
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
      add(refused_, {fields.pointer("file_path"), in_quotes(path) + " " + std::string(reason)});
    } else if (!paths_.insert(path).second) {
      fields.fail("file_path", in_quotes(path) + " is named twice");
    }
    return path;
  }

  static void read_operation(CodeChange& change, JsonFields& fields) {
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
    fields.fail("operation", "must be create, modify or delete, not " + in_quotes(*name));
  }

  static void read_edits(CodeChange& change, JsonFields& fields) {
    std::size_t index = 0;
    for (const Json& item : fields.array("edits", limits::kCodeEdits)) {
      JsonFields edit(item, fields.pointer("edits") + "/" + std::to_string(index++));
      const std::string search = edit.required_string("search", limits::kCodeChangeFileBytes);
      const auto replace = edit.string("replace", limits::kCodeChangeFileBytes);
      if (item.is_object() && !edit.has("replace")) edit.fail("replace", "is required");
      change.edits.push_back({search, replace.value_or("")});
      fields.absorb(edit);
    }
  }

  // Which of content and edits each operation takes.
  static void check_parts(const CodeChange& change, JsonFields& fields) {
    if (!fields.errors().empty()) return;  // what they mean is not known
    const bool edits = !change.edits.empty();
    if (change.operation == Operation::kDelete) {
      if (edits || !change.content.value_or("").empty()) {
        fields.fail("operation", "delete takes neither content nor edits");
      }
    } else if (change.content && edits) {
      fields.fail("edits", "content and edits exclude each other");
    } else if (change.operation == Operation::kCreate && !change.content) {
      fields.fail("content", "is required to create a file");
    } else if (!change.content && !edits) {
      fields.fail("content", "content or edits are required to modify a file");
    }
  }

  static void add(std::vector<FieldError>& list, FieldError error) {
    if (list.size() < limits::kCodeChangeDefects) list.push_back(std::move(error));
  }

  std::set<std::string> paths_;
  std::vector<FieldError> defects_;
  std::vector<FieldError> refused_;
};

}  // namespace

std::vector<CodeChange> parse_code_changes(std::string_view text, std::string& explanation) {
  const Json answer = find_answer(text);
  const Json& list = answer[kListName];
  if (!list.is_array()) {
    reject("\"code_changes\" must be an array, not " + std::string(list.type_name()), text);
  }
  if (list.size() == 0) reject("it changes nothing", text);
  if (list.size() > limits::kCodeChanges) {
    reject("it changes more than " + std::to_string(limits::kCodeChanges) + " files", text);
  }
  ChangeReader reader;
  std::vector<CodeChange> changes = reader.read(list);
  if (!reader.refused().empty()) {
    ErrorInfo info;
    info.detail = excerpt(text);
    info.fields = reader.refused();
    throw SecurityError("the model's answer names refused paths", std::move(info));
  }
  if (!reader.defects().empty()) reject("its code changes are malformed", text, reader.defects());
  explanation = answer["explanation"].string_or("");
  return changes;
}

}  // namespace necrocode::llm
