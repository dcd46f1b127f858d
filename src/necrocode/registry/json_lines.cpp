#include "necrocode/registry/json_lines.hpp"

#include <algorithm>
#include <set>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/registry/model.hpp"

namespace necrocode::registry {
namespace {

constexpr std::size_t kDefectsTold = 100;
constexpr std::size_t kLinesNamed = 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr const char* kUseCopy = "it is as COPY writes it: use --format copy";

/// What a state of another queue means here.
enum class Meaning { kOpen, kBegun, kDone, kFailed };

std::optional<Meaning> meaning_of(std::string_view state) {
  // Oban, River, pg-boss, graphile-worker, BullMQ, Sidekiq, GoodJob and ours.
  static const std::map<std::string, Meaning, std::less<>> kStates = {
      {"open", Meaning::kOpen},         {"todo", Meaning::kOpen},
      {"new", Meaning::kOpen},          {"queued", Meaning::kOpen},
      {"pending", Meaning::kOpen},      {"available", Meaning::kOpen},
      {"scheduled", Meaning::kOpen},    {"delayed", Meaning::kOpen},
      {"retry", Meaning::kOpen},        {"retryable", Meaning::kOpen},
      {"created", Meaning::kOpen},      {"waiting", Meaning::kOpen},
      {"ready", Meaning::kOpen},        {"blocked", Meaning::kOpen},
      {"not_started", Meaning::kOpen},  {"active", Meaning::kBegun},
      {"running", Meaning::kBegun},     {"executing", Meaning::kBegun},
      {"in_progress", Meaning::kBegun}, {"processing", Meaning::kBegun},
      {"started", Meaning::kBegun},     {"done", Meaning::kDone},
      {"completed", Meaning::kDone},    {"complete", Meaning::kDone},
      {"succeeded", Meaning::kDone},    {"success", Meaning::kDone},
      {"finished", Meaning::kDone},     {"failed", Meaning::kFailed},
      {"failure", Meaning::kFailed},    {"error", Meaning::kFailed},
      {"dead", Meaning::kFailed},       {"discarded", Meaning::kFailed},
      {"cancelled", Meaning::kFailed},  {"canceled", Meaning::kFailed},
      {"expired", Meaning::kFailed}};
  const auto found = kStates.find(ascii_lower(state));
  if (found == kStates.end()) return std::nullopt;
  return found->second;
}

/// The names that a submitted task may have, as its reader asks for them; and those of ours that
/// only an import understands.
const std::set<std::string, std::less<>>& our_fields() {
  static const std::set<std::string, std::less<>> kFields = [] {
    std::set<std::string, std::less<>> names = {"done",   "not_before", "spec_name",    "state",
                                                "status", "run_at",     "scheduled_at", "id",
                                                "number", "task_id"};
    const Json schema = describe_fields([](JsonFields& reader) { TaskSpec::from_json(reader); });
    for (const auto& [name, property] : schema["properties"].members()) names.insert(name);
    return names;
  }();
  return kFields;
}

/// RFC 3339 of a time as PostgreSQL's JSON and text write it: without an offset it is UTC.
std::optional<std::string> as_rfc3339(std::string_view text) {
  std::string time(trim(text));
  if (time.size() > 10 && time[10] == ' ') time[10] = 'T';
  const std::size_t offset = time.size() > 10 ? time.find_first_of("Zz+-", 11) : std::string::npos;
  if (offset == std::string::npos) {
    time += "Z";
  } else if (time.size() == offset + 3) {
    time += ":00";
  }
  const auto read = parse_rfc3339(time);
  if (!read) return std::nullopt;
  return to_rfc3339(*read);
}

/// All backslashes stand in pairs, and there are some.
bool has_doubled_backslashes(std::string_view text) {
  bool some = false;
  for (std::size_t at = text.find('\\'); at < text.size(); at = text.find('\\', at)) {
    const std::size_t end = std::min(text.find_first_not_of('\\', at), text.size());
    if ((end - at) % 2 != 0) return false;
    some = true;
    at = end;
  }
  return some;
}

/// Lines, as "3, 5, 9 and 12 more".
std::string named(const std::vector<std::size_t>& lines) {
  std::vector<std::string> names;
  for (const std::size_t line : lines) {
    if (names.size() == kLinesNamed) break;
    names.push_back(std::to_string(line));
  }
  std::string text = (lines.size() == 1 ? "line " : "lines ") + join(names, ", ");
  if (lines.size() > names.size()) {
    text += " and " + std::to_string(lines.size() - names.size()) + " more";
  }
  return text;
}

/// One line's task, made of its columns.
class RowReader {
 public:
  RowReader(const Json& row, const JsonLinesOptions& options) : row_(row), options_(options) {}

  std::string spec_name;
  Json task = Json::object();
  std::optional<Meaning> meaning;
  std::vector<FieldError> defects;     ///< by our field's name
  std::set<std::string> found_mapped;  ///< fields of --map whose column was there

  void read() {
    read_names();
    for (const std::string& name : our_fields()) {
      if (is_special(name)) continue;
      if (const Json* value = take(name)) task.set(name, *value);
    }
    if (const Json* list = task.find("dependencies")) {
      Json names = Json::array();
      for (const Json& one : list->items()) names.push_back(as_name(one));
      if (list->is_array()) task.set("dependencies", std::move(names));
    }
    if (task["repo_url"].is_null() && !options_.repo_url.empty()) {
      task.set("repo_url", options_.repo_url);
    }
    read_state();
    read_time();
    keep_the_rest();
    check();
  }

 private:
  static bool is_special(std::string_view name) {
    for (const char* one : {"id", "number", "task_id", "spec_name", "state", "status", "done",
                            "not_before", "run_at", "scheduled_at"}) {
      if (name == one) return true;
    }
    return false;
  }

  /// Whole numbers name tasks, too.
  static Json as_name(const Json& value) {
    const auto number = value.as_int();
    return number ? Json(std::to_string(*number)) : value;
  }

  /// The column for our field, from then on used; nullptr when absent or null.
  const Json* take(const std::string& name) {
    const auto mapped = options_.columns.find(name);
    const std::string& column = mapped == options_.columns.end() ? name : mapped->second;
    if (mapped == options_.columns.end() && is_mapped_away(column)) return nullptr;
    const Json* value = row_.find(column);
    if (value) {
      used_.insert(column);
    } else if (!(value = find_inside(column))) {
      return nullptr;
    }
    if (mapped != options_.columns.end()) found_mapped.insert(name);
    return value->is_null() ? nullptr : value;
  }

  /// What a dotted name leads to.
  const Json* find_inside(const std::string& path) const {
    const Json* value = &row_;
    for (const std::string_view part : split(path, '.')) {
      value = value->find(part);
      if (!value) return nullptr;
    }
    return value;
  }

  /// A column that --map gives to another field of ours.
  bool is_mapped_away(const std::string& column) const {
    return std::any_of(options_.columns.begin(), options_.columns.end(),
                       [&](const auto& one) { return one.second == column; });
  }

  void read_names() {
    Json id;
    for (const char* name : {"id", "number", "task_id"}) {
      if (!id.is_null()) break;
      if (const Json* value = take(name)) id = as_name(*value);
    }
    const Json* spec = take("spec_name");
    spec_name = spec ? spec->string_or("") : options_.spec_name;
    const auto full = TaskId::parse(id.string_or(""));
    if (full && (!spec || spec_name == full->spec())) {
      spec_name = full->spec();
      id = std::string(full->number());
    }
    if (spec_name.empty()) {
      defects.push_back({"spec_name", "is missing; --spec gives one to all"});
    } else if (!is_plain_name(spec_name)) {
      defects.push_back({"spec_name", "must be [A-Za-z0-9][A-Za-z0-9._-]{0,99}"});
    }
    task.set("id", std::move(id));
  }

  void read_state() {
    const Json* done = take("done");
    if (done && !done->is_bool()) defects.push_back({"done", "must be true or false"});
    const Json* state = take("state");
    const char* name = "state";
    if (!state && (state = take("status"))) name = "status";
    if (state) {
      meaning = meaning_of(state->string_or(""));
      if (!meaning) {
        defects.push_back({name, shorten(printable(state->dump()), 100) +
                                     " is no state that we know; --map state=COLUMN names another "
                                     "column"});
      }
    }
    if (done && *done == Json(true)) {
      if (meaning && *meaning != Meaning::kDone) {
        defects.push_back({"done", "is true, but the " + std::string(name) + " says otherwise"});
      }
      meaning = Meaning::kDone;
    }
    if (meaning == Meaning::kDone) task.set("done", true);
    if (meaning == Meaning::kFailed && options_.reopen_failed) {
      Json labels = task["labels"].is_array() ? task["labels"] : Json::array();
      labels.push_back("was-failed");
      task.set("labels", std::move(labels));
    }
  }

  // A done task waits for nothing: its time stays among what we have no field for.
  void read_time() {
    if (meaning == Meaning::kDone) return;
    for (const char* name : {"not_before", "run_at", "scheduled_at"}) {
      const Json* value = take(name);
      if (!value) continue;
      const auto text = value->is_string() ? as_rfc3339(*value->as_string()) : std::nullopt;
      const auto seconds =
          value->is_number() ? from_unix_seconds(*value->as_double()) : std::optional<SystemTime>();
      if (!text && !seconds) {
        defects.push_back({name, "must be a time: RFC 3339, or Unix seconds"});
      } else {
        task.set("not_before", text ? *text : to_rfc3339(*seconds));
      }
      return;
    }
  }

  void keep_the_rest() {
    Json metadata = task["metadata"];
    if (!metadata.is_null() && !metadata.is_object()) return;  // a defect, told by check()
    for (const auto& [column, value] : row_.members()) {
      if (value.is_null() || used_.count(column) > 0) continue;
      if (metadata.find(column)) {
        defects.push_back({column, "stands in metadata, too, and both cannot be kept"});
      } else {
        metadata.set(column, value);
      }
    }
    if (metadata.size() > 0) task.set("metadata", std::move(metadata));
  }

  void check() {
    JsonFields reader(task);
    TaskSpec::from_json(reader);
    for (const FieldError& defect : reader.errors()) {
      defects.push_back(
          {defect.pointer.substr(std::min<std::size_t>(1, defect.pointer.size())), defect.message});
    }
  }

  const Json& row_;
  const JsonLinesOptions& options_;
  std::set<std::string, std::less<>> used_;
};

class LinesReader {
 public:
  explicit LinesReader(const JsonLinesOptions& options) : options_(options) {
    for (const auto& [field, column] : options.columns) {
      if (our_fields().count(field) > 0) continue;
      const std::vector<std::string> known(our_fields().begin(), our_fields().end());
      throw ConfigError("--map: a task has no field \"" + printable(field) + "\"; did you mean " +
                        nearest(field, known) + "?");
    }
  }

  JsonLinesTasks read(std::string_view text) {
    const bool doubled = !options_.copy && has_doubled_backslashes(text);
    if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    std::size_t at = 0;
    for (std::size_t number = 1; at < text.size(); ++number) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      std::string_view line = text.substr(at, end - at);
      at = end + 1;
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (options_.copy && line == "\\.") break;  // COPY's end of data
      if (!trim(line).empty()) take_line(line, number);
    }
    if (result_.tasksets.empty() && defects_.empty()) fail(1, "there is no task");
    for (const auto& [field, column] : options_.columns) {
      if (!result_.tasksets.empty() && found_mapped_.count(field) == 0) {
        defects_.push_back({"--map " + field, "no line has a column " + printable(column)});
      }
    }
    if (!failed_.empty() && !options_.reopen_failed) {
      fail(failed_.front(), "failed or cancelled, with which nothing can go on: " + named(failed_) +
                                "; --reopen-failed imports them as open, labelled was-failed");
    }
    finish();
    if (doubled) {
      result_.warnings.push_back("every backslash is doubled; if texts show \\n, " +
                                 std::string(kUseCopy));
    }
    if (!begun_.empty()) {
      result_.warnings.push_back("running where they come from, imported as open: " +
                                 named(begun_));
    }
    return std::move(result_);
  }

 private:
  void fail(std::size_t line, std::string message) {
    if (defects_.size() < kDefectsTold) {
      defects_.push_back({"line " + std::to_string(line), std::move(message)});
    } else {
      ++untold_;
    }
  }

  void take_line(std::string_view line, std::size_t number) {
    const auto row = read_row(line, number);
    if (!row) return;
    if (!row->is_object()) return fail(number, "must be an object, one task");
    RowReader reader(*row, options_);
    reader.read();
    found_mapped_.merge(reader.found_mapped);
    for (const FieldError& defect : reader.defects) {
      fail(number, printable(defect.pointer) + " " + defect.message);
    }
    if (reader.meaning == Meaning::kBegun) begun_.push_back(number);
    if (reader.meaning == Meaning::kFailed) failed_.push_back(number);
    if (reader.defects.empty()) add(std::move(reader.task), reader.spec_name, number);
  }

  std::optional<Json> read_row(std::string_view line, std::size_t number) {
    if (!options_.copy) {
      if (auto row = Json::try_parse(line)) return row;
      const auto unescaped = unescape_copy(line);
      const bool as_copied = unescaped && Json::try_parse(*unescaped);
      fail(number, as_copied ? "is no JSON; " + std::string(kUseCopy) : why_no_json(line));
      return std::nullopt;
    }
    if (line.find('\t') != std::string_view::npos) {
      fail(number, "has several columns; copy one, as in COPY (SELECT row_to_json(t) FROM t)");
      return std::nullopt;
    }
    const auto unescaped = unescape_copy(line);
    if (!unescaped) {
      fail(number, "is null");
      return std::nullopt;
    }
    if (auto row = Json::try_parse(*unescaped)) return row;
    fail(number, why_no_json(*unescaped));
    return std::nullopt;
  }

  static std::string why_no_json(std::string_view text) {
    try {
      Json::parse(text);
    } catch (const InvalidResponse& error) {
      return error.summary();
    }
    return "is no JSON";
  }

  void add(Json task, const std::string& spec, std::size_t line) {
    const auto [place, fresh] = specs_.try_emplace(spec, result_.tasksets.size());
    if (fresh) {
      const Json source = Json::object({{"format", options_.copy ? "copy" : "jsonl"}});
      tasks_.emplace_back();
      result_.lines.emplace_back();
      result_.tasksets.push_back(Json::object({{"spec_name", spec},
                                               {"tasks", Json::array()},
                                               {"metadata", Json::object({{"source", source}})}}));
    }
    const std::string id = spec + ":" + task["id"].string_or("");
    const auto [known, first] = line_of_.try_emplace(id, line);
    if (!first) {
      return fail(line,
                  "id " + id + " was given in line " + std::to_string(known->second) + " already");
    }
    tasks_[place->second].push_back(std::move(task));
    result_.lines[place->second].push_back(line);
  }

  void finish() {
    if (!defects_.empty()) {
      ErrorInfo info;
      info.fields = std::move(defects_);
      if (untold_ > 0) info.detail = std::to_string(untold_) + " more defects";
      throw TaskContextValidationError("the lines cannot be imported", std::move(info));
    }
    for (std::size_t i = 0; i < tasks_.size(); ++i) {
      result_.tasksets[i].set("tasks", Json(std::move(tasks_[i])));
    }
  }

  const JsonLinesOptions& options_;
  JsonLinesTasks result_;
  std::vector<Json::Array> tasks_;  // of each taskset
  std::map<std::string, std::size_t> specs_;
  std::map<std::string, std::size_t> line_of_;
  std::vector<FieldError> defects_;
  std::size_t untold_ = 0;
  std::set<std::string> found_mapped_;
  std::vector<std::size_t> begun_;
  std::vector<std::size_t> failed_;
};

}  // namespace

JsonLinesTasks parse_json_lines(std::string_view text, const JsonLinesOptions& options) {
  return LinesReader(options).read(text);
}

std::optional<std::string> unescape_copy(std::string_view text) {
  if (text == "\\N") return std::nullopt;
  const auto digit = [](char c, int base) {
    const char lower = ascii_lower(c);
    const int value = is_ascii_digit(c)              ? c - '0'
                      : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
                                                     : 99;
    return value < base ? value : -1;
  };
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[++i];
    constexpr std::string_view kNames = "bfnrtv";
    constexpr std::string_view kControls = "\b\f\n\r\t\v";
    if (const std::size_t at = kNames.find(c); at != std::string_view::npos) {
      out += kControls[at];
      continue;
    }
    const int base = c == 'x' ? 16 : 8;
    std::size_t from = c == 'x' ? i + 1 : i;
    const std::size_t digits_max = c == 'x' ? 2 : 3;
    int value = 0;
    std::size_t digits = 0;
    for (; digits < digits_max && from < text.size() && digit(text[from], base) >= 0; ++digits) {
      value = value * base + digit(text[from++], base);
    }
    if (digits == 0) {
      out += c;  // any other character stands for itself
    } else {
      out += static_cast<char>(value & 0xff);
      i = from - 1;
    }
  }
  return out;
}

}  // namespace necrocode::registry
