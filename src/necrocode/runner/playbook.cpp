#include "necrocode/runner/playbook.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/config/yaml.hpp"

namespace necrocode::runner {
namespace {

constexpr std::size_t kSteps = 200;
constexpr std::size_t kParallel = 16;
constexpr std::size_t kCommandBytes = 16 * limits::kKiB;
constexpr std::size_t kEnvironment = 100;
constexpr std::size_t kJunitGlobs = 20;
constexpr int kRetries = 10;
constexpr int kSecondsMax = 7 * 86'400;
/// Linux takes no string of an environment beyond 128 KiB.
constexpr std::size_t kValueBytes = 100 * limits::kKiB;
constexpr std::string_view kVariable = "NECROCODE_VALUE_";

/// What a condition or command may ask for: of metadata anything below, of steps what check_names()
/// says.
const std::vector<std::string> kValues = {
    "task_id",     "spec_name",   "number",         "title",    "description", "branch",
    "base_branch", "base_commit", "required_skill", "metadata", "steps"};

bool is_value_name(std::string_view name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return is_ascii_alnum(c) || c == '_' || c == '-' || c == '.';
  });
  return plain && !name.empty() && !is_ascii_digit(name.front());
}

std::string text_of(const Json& value) {
  if (value.is_null()) return {};
  return value.is_string() ? value.string_or("") : value.dump();
}

const Json& value_of(const Json& values, const std::string& name) {
  const Json* value = find_value(values, name);
  if (!value) throw PlaybookExecutionError("there is no value named \"" + printable(name) + "\"");
  return *value;
}

/// Where a shell is in its quotes, one character after the other.
class Quotes {
 public:
  bool single() const { return quote_ == '\''; }
  bool within_double() const { return quote_ == '"'; }
  bool open() const { return quote_ != '\0'; }
  bool after_backslash() const { return escaped_; }
  void pass(char c) {
    const bool ends_word = std::string_view(" \t\n;&|()<>").find(c) != std::string_view::npos;
    const bool word_begins = std::exchange(word_begins_, ends_word && !escaped_);
    if (comment_) {
      comment_ = c != '\n';
    } else if (escaped_) {
      escaped_ = false;
    } else if (c == '\\' && quote_ != '\'') {
      escaped_ = true;
    } else if (quote_ != '\0') {
      if (c == quote_) quote_ = '\0';
    } else if (c == '"' || c == '\'') {
      quote_ = c;
    } else {
      comment_ = c == '#' && word_begins;
    }
  }

 private:
  char quote_ = '\0';
  bool escaped_ = false;
  bool comment_ = false;
  bool word_begins_ = true;
};

}  // namespace

Template Template::literal(std::string text) {
  Template whole;
  whole.text_ = text;
  whole.pieces_.push_back({std::move(text), {}, false});
  return whole;
}

Template Template::shell(std::string_view text) {
  return read(text, true);
}
Template Template::plain(std::string_view text) {
  return read(text, false);
}

Template Template::read(std::string_view text, bool is_shell) {
  Template whole;
  whole.text_ = text;
  Quotes quotes;
  // Where these stand the shell reads quotes anew, or not at all.
  const bool nested = is_shell && (text.find("$(") != std::string_view::npos ||
                                   text.find('`') != std::string_view::npos ||
                                   text.find("<<") != std::string_view::npos);
  for (std::size_t at = 0; at < text.size();) {
    if ((is_shell && quotes.single()) || !text.substr(at).starts_with("{{")) {
      if (whole.pieces_.empty() || !whole.pieces_.back().name.empty()) whole.pieces_.emplace_back();
      whole.pieces_.back().text += text[at];
      quotes.pass(text[at++]);
      continue;
    }
    const std::size_t end = text.find("}}", at);
    if (end == std::string_view::npos) throw PlaybookExecutionError("\"{{\" has no \"}}\"");
    const std::string_view name = trim(text.substr(at + 2, end - at - 2));
    if (!is_value_name(name)) {
      throw PlaybookExecutionError("\"" + printable(shorten(name, 100)) +
                                   "\" is not the name of a value; single quotes keep {{ as it is");
    }
    if (nested || (is_shell && quotes.after_backslash())) {
      throw PlaybookExecutionError("{{ " + std::string(name) +
                                   " }} cannot stand in a command with $(, ` or <<, nor after a "
                                   "backslash; put it into env: and write \"$VARIABLE\"");
    }
    whole.pieces_.push_back({{}, std::string(name), quotes.within_double()});
    quotes.pass('x');  // what follows goes on with this word
    at = end + 2;
  }
  if (is_shell && quotes.open() && !whole.names().empty()) {
    throw PlaybookExecutionError("a quote has no end");
  }
  return whole;
}

std::vector<std::string> Template::names() const {
  std::vector<std::string> names;
  for (const Piece& piece : pieces_) {
    if (!piece.name.empty()) names.push_back(piece.name);
  }
  return names;
}

namespace {

void require_fits(const std::string& name, const std::string& value) {
  if (value.size() <= kValueBytes && value.find('\0') == std::string::npos) return;
  throw PlaybookExecutionError("the value of \"" + printable(name) +
                               "\" is longer than 100 KiB, or holds a NUL: no command takes it");
}

}  // namespace

std::string Template::fill(const Json& values) const {
  std::string text;
  for (const Piece& piece : pieces_) {
    text += piece.name.empty() ? piece.text : text_of(value_of(values, piece.name));
  }
  require_fits(text_, text);
  return text;
}

std::string Template::fill_shell(const Json& values, std::vector<std::string>& env) const {
  std::string text;
  int count = 0;
  for (const Piece& piece : pieces_) {
    if (piece.name.empty()) {
      text += piece.text;
      continue;
    }
    const std::string value = text_of(value_of(values, piece.name));
    require_fits(piece.name, value);
    const std::string variable = std::string(kVariable) + std::to_string(++count);
    env.push_back(variable + "=" + value);
    text += piece.quoted ? "${" + variable + "}" : "\"${" + variable + "}\"";
  }
  return text;
}

namespace {

class Reader {
 public:
  Reader(std::string_view text, std::string what) : what_(std::move(what)) {
    try {
      document_ = config::parse_yaml(text, what_, &lines_);
    } catch (const ConfigError& error) {
      throw PlaybookExecutionError(error.summary());
    }
  }

  Playbook read() {
    if (!document_.is_object()) {
      throw PlaybookExecutionError(what_ + ": a playbook is a mapping with a list of \"steps\"");
    }
    JsonFields fields(document_);
    Playbook playbook;
    playbook.name = fields.string("name", limits::kNameBytes).value_or("");
    fields.string("description");
    fields.require("steps");
    playbook.steps = steps(fields, "steps", kSteps, false);
    if (playbook.steps.empty() && fields.has("steps")) fields.fail("steps", "must hold a step");
    refuse_unknown(fields);
    if (!fields.errors().empty()) throw defects(fields.errors());
    return playbook;
  }

 private:
  std::vector<PlaybookStep> steps(JsonFields& fields, std::string_view member, std::size_t max,
                                  bool in_group) {
    std::vector<PlaybookStep> list;
    fields.each(member, max, [&](JsonFields& each) {
      list.push_back(step(each, in_group));
      refuse_unknown(each);
    });
    return list;
  }

  PlaybookStep step(JsonFields& fields, bool in_group) {
    if (++steps_ == kSteps + 1) {
      fields.fail("name", "a playbook has at most " + std::to_string(kSteps) + " steps");
    }
    PlaybookStep step;
    step.name = fields.required_string("name", limits::kNameBytes);
    // Before the step's own name is known: a condition asks for what has been.
    read_condition(fields, step);
    const auto command = fields.string("command", kCommandBytes);
    if (command) step.command = read_template(fields, "command", Template::shell, *command);
    step.fail_fast = fields.boolean("fail_fast").value_or(true);
    if (const auto seconds = fields.integer("timeout_seconds", 1, kSecondsMax)) {
      step.timeout = std::chrono::seconds(*seconds);
    }
    step.retry_count = static_cast<int>(fields.integer("retry_count", 0, kRetries).value_or(0));
    read_environment(fields, step);
    read_directory(fields, step);
    read_junit(fields, step);
    if (fields.has("else")) {
      if (!step.condition) fields.fail("else", "needs a condition beside it");
      if (in_group) fields.fail("else", "does not go within a parallel group");
      step.otherwise = steps(fields, "else", kSteps, in_group);
    }
    if (fields.has("parallel")) {
      if (in_group) fields.fail("parallel", "does not go within a parallel group");
      for (const char* name :
           {"command", "retry_count", "timeout_seconds", "env", "working_directory", "junit"}) {
        if (fields.has(name)) fields.fail(name, "goes with each step of the parallel group");
      }
      step.parallel = steps(fields, "parallel", kParallel, true);
      keys_.merge(group_);
      if (step.parallel.empty()) fields.fail("parallel", "must hold a step");
    } else if (!command || trim(*command).empty()) {
      fields.fail("command", "is required (or a parallel group)");
    }
    const std::string key = step_key(step.name);
    const bool fresh = !keys_.contains(key) && (in_group ? group_ : keys_).insert(key).second;
    if (!step.name.empty() && (key.empty() || !fresh)) {
      fields.fail("name", "another step has this name, or it has no letter or digit");
    }
    return step;
  }

  void read_condition(JsonFields& fields, PlaybookStep& step) {
    if (const Json* given = fields.value().find("condition"); given && given->is_bool()) {
      step.condition = Condition::parse(given->dump());
      fields.boolean("condition");
      return;
    }
    const auto text = fields.string("condition", kCommandBytes);
    if (!text) return;
    try {
      step.condition = Condition::parse(*text);
      check_names(fields, "condition", step.condition->names());
    } catch (const PlaybookExecutionError& error) {
      fields.fail("condition", error.summary());
    }
  }

  template <class Make>
  Template read_template(JsonFields& fields, std::string_view member, Make make,
                         const std::string& text) {
    try {
      Template whole = make(text);
      check_names(fields, member, whole.names());
      return whole;
    } catch (const PlaybookExecutionError& error) {
      fields.fail(member, error.summary());
      return {};
    }
  }

  void check_names(JsonFields& fields, std::string_view member,
                   const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const std::vector<std::string_view> parts = split(name, '.');
      const std::string root(parts.front());
      if (std::find(kValues.begin(), kValues.end(), root) == kValues.end()) {
        const std::string near = nearest(root, kValues);
        fields.fail(member, "there is no value named \"" + printable(name) + "\"; known are " +
                                join(kValues, ", ") +
                                (near.empty() ? "" : " (did you mean \"" + near + "\"?)"));
      } else if (root == "steps" &&
                 (parts.size() != 3 || (parts[2] != "passed" && parts[2] != "skipped"))) {
        fields.fail(member, "of a step there is steps.NAME.passed and steps.NAME.skipped");
      } else if (root == "steps" && !keys_.contains(std::string(parts[1]))) {
        fields.fail(member, "no step before this one is named \"" + std::string(parts[1]) + "\"");
      } else if (root != "metadata" && root != "steps" && parts.size() > 1) {
        fields.fail(member, "\"" + root + "\" has nothing below it");
      }
    }
  }

  void read_environment(JsonFields& fields, PlaybookStep& step) {
    const Json env = fields.object("env");
    if (env.size() > kEnvironment) fields.fail("env", "holds more than 100 variables");
    for (const auto& [name, value] : env.members()) {
      const bool plain = std::all_of(name.begin(), name.end(),
                                     [](char c) { return is_ascii_alnum(c) || c == '_'; });
      if (name.empty() || !plain || is_ascii_digit(name.front()) || name.starts_with(kVariable)) {
        fields.fail("env", "\"" + printable(name) + "\" cannot be the name of a variable");
      } else if (!value.is_string()) {
        fields.fail("env", "\"" + name + "\" must be text; put it in quotes");
      } else {
        step.env.emplace_back(name,
                              read_template(fields, "env", Template::plain, value.string_or("")));
      }
    }
  }

  static bool leads_out(std::string_view path) {
    const std::vector<std::string_view> parts = split(path, '/');
    return path.starts_with('/') || std::find(parts.begin(), parts.end(), "..") != parts.end();
  }

  static void read_directory(JsonFields& fields, PlaybookStep& step) {
    step.working_directory = fields.string("working_directory", limits::kPathBytes).value_or("");
    if (leads_out(step.working_directory)) {
      fields.fail("working_directory", "must be a path inside the repository");
    }
  }

  /// One glob, or a list of them.
  static void read_junit(JsonFields& fields, PlaybookStep& step) {
    const Json* given = fields.value().find("junit");
    if (given && given->is_string()) {
      step.junit.push_back(fields.string("junit", limits::kPathBytes).value_or(""));
    } else {
      step.junit = fields.strings("junit", kJunitGlobs, limits::kPathBytes);
    }
    for (const std::string& glob : step.junit) {
      if (glob.empty() || leads_out(glob)) {
        fields.fail("junit", "\"" + printable(shorten(glob, 100)) +
                                 "\" must be a path or glob inside the repository");
      }
    }
  }

  static void refuse_unknown(JsonFields& fields) {
    for (const std::string& name : fields.unknown()) fields.fail(name, "is not known here");
  }

  int line_of(std::string pointer) const {
    while (true) {
      const auto found = lines_.find(pointer);
      if (found != lines_.end()) return found->second;
      const std::size_t slash = pointer.rfind('/');
      if (slash == std::string::npos) return 1;
      pointer.resize(slash);
    }
  }

  PlaybookExecutionError defects(const std::vector<FieldError>& all) const {
    std::set<std::pair<int, std::string>> by_line;
    for (const FieldError& defect : all) {
      const std::size_t slash = defect.pointer.rfind('/');
      const std::string member =
          slash == std::string::npos ? defect.pointer : defect.pointer.substr(slash + 1);
      by_line.emplace(line_of(defect.pointer), member + " " + defect.message);
    }
    std::vector<std::string> told;
    for (const auto& [line, problem] : by_line) {
      told.push_back("line " + std::to_string(line) + ": " + printable(problem));
    }
    return PlaybookExecutionError(what_ + ": " + join(told, "; "));
  }

  std::string what_;
  Json document_;
  std::map<std::string, int> lines_;
  std::set<std::string> keys_;   // of the steps so far
  std::set<std::string> group_;  // of the group under way: its steps know nothing of each other
  std::size_t steps_ = 0;
};

}  // namespace

Playbook read_playbook(std::string_view text, const std::string& what) {
  return Reader(text, what).read();
}

namespace {

void collect_commands(const std::vector<PlaybookStep>& steps, std::vector<std::string>& commands) {
  for (const PlaybookStep& step : steps) {
    if (!step.command.empty()) commands.push_back(step.command.text());
    collect_commands(step.parallel, commands);
    collect_commands(step.otherwise, commands);
  }
}

}  // namespace

namespace {

Json describe(const Template& text, const Json& values) {
  Json list = Json::array();
  list.push_back(text.text());
  for (const std::string& name : text.names()) {
    const Json* value = find_value(values, name);
    list.push_back(value ? *value : Json());
  }
  return list;
}

Json describe(const std::vector<PlaybookStep>& steps, const Json& values) {
  Json list = Json::array();
  for (const PlaybookStep& step : steps) {
    Json told = Json::array();
    told.push_back(describe(step.command, values));
    if (step.condition) {
      told.push_back(step.condition->text());
      for (const std::string& name : step.condition->names()) {
        const Json* value = find_value(values, name);
        told.push_back(value ? *value : Json());
      }
    }
    for (const auto& [name, text] : step.env) {
      told.push_back(name);
      told.push_back(describe(text, values));
    }
    told.push_back(step.working_directory);
    told.push_back(step.junit);
    told.push_back(step.retry_count);
    told.push_back(
        static_cast<std::int64_t>(step.timeout.value_or(std::chrono::seconds(0)).count()));
    told.push_back(describe(step.parallel, values));
    told.push_back(describe(step.otherwise, values));
    list.push_back(std::move(told));
  }
  return list;
}

}  // namespace

std::string Playbook::fingerprint(const Json& values) const {
  return sha256_hex(describe(steps, values).dump());
}

std::vector<std::string> Playbook::commands() const {
  std::vector<std::string> all;
  collect_commands(steps, all);
  return all;
}

Playbook playbook_of(const std::vector<std::string>& commands, bool fail_fast, int retry_count) {
  Playbook playbook;
  for (const std::string& command : commands) {
    PlaybookStep& step = playbook.steps.emplace_back();
    step.name = command;
    step.command = Template::literal(command);
    step.fail_fast = fail_fast;
    step.retry_count = retry_count;
  }
  return playbook;
}

std::string step_key(std::string_view name) {
  return slugify(name, limits::kNameBytes);
}

}  // namespace necrocode::runner
