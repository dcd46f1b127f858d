#include "necrocode/agent/adapter.hpp"

#include <algorithm>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/placeholders.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/config/yaml.hpp"

namespace necrocode::agent {

extern const std::string_view kAdaptersYaml;  // adapters.yaml, embedded

namespace {

using Values = std::vector<std::pair<std::string, std::string>>;

constexpr std::size_t kArguments = 256;
constexpr std::size_t kTextBytes = 64 * limits::kKiB;
constexpr std::size_t kVersions = 32;

const std::vector<std::string> kMembers = {"verified", "argv",  "resume", "prompt_by_stdin",
                                           "env",      "files", "model"};
const std::vector<std::string> kPlaceholders = {"endpoint", "key", "model", "home", "workspace"};

std::vector<std::string> with_prompt() {
  std::vector<std::string> names = {"prompt"};
  names.insert(names.end(), kPlaceholders.begin(), kPlaceholders.end());
  return names;
}

bool is_variable(std::string_view name) {
  return !name.empty() && !is_ascii_digit(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return is_ascii_alnum(c) || c == '_'; });
}

// Below the home, by a path that says so itself.
bool is_inner_path(std::string_view path) {
  if (path.empty() || path.size() > limits::kPathBytes) return false;
  for (const std::string_view part : split(path, '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return path.find('\0') == std::string_view::npos;
}

// One adapter's members. Those that are absent stay as they are in `adapter`.
class AdapterReader {
 public:
  AdapterReader(JsonFields& fields, AgentAdapter& adapter) : fields_(fields), adapter_(adapter) {}

  void read() {
    const std::vector<std::string> versions = fields_.strings("verified", kVersions, 64);
    if (fields_.has("verified")) adapter_.verified = versions;
    adapter_.prompt_by_stdin =
        fields_.boolean("prompt_by_stdin").value_or(adapter_.prompt_by_stdin);
    adapter_.model = fields_.string("model", limits::kNameBytes).value_or(adapter_.model);
    read_arguments("argv", adapter_.argv);
    read_arguments("resume", adapter_.resume);
    if (adapter_.argv.empty()) fields_.fail("argv", "must name the program and its arguments");
    check_prompt("argv", adapter_.argv);
    check_prompt("resume", adapter_.resume);
    read_environment();
    read_files();
    for (const std::string& name : fields_.unknown()) {
      fields_.fail(name, "is unknown; did you mean \"" + nearest(name, kMembers) + "\"?");
    }
  }

 private:
  void check_text(std::string_view member, const std::string& below, const std::string& text,
                  const std::vector<std::string>& names) {
    if (const auto defect = placeholder_defect(text, names)) fail(member, below, *defect);
    if (text.find('\0') != std::string::npos) fail(member, below, "has a NUL byte");
  }

  void fail(std::string_view member, const std::string& below, const std::string& message) {
    const std::string where = below.empty() ? "" : "\"" + printable(below) + "\" ";
    fields_.fail(member, where + message);
  }

  void read_arguments(std::string_view member, std::vector<std::string>& arguments) {
    static const std::vector<std::string> kNames = with_prompt();
    std::vector<std::string> given = fields_.strings(member, kArguments, kTextBytes);
    if (!fields_.has(member)) return;
    arguments = std::move(given);
    for (const std::string& argument : arguments) check_text(member, argument, argument, kNames);
    if (!arguments.empty() && (arguments[0].empty() || arguments[0].find('{') != std::string::npos))
      fields_.fail(member, "must begin with the program's name or path");
  }

  void check_prompt(std::string_view member, const std::vector<std::string>& arguments) {
    if (arguments.empty()) return;
    const bool named = std::any_of(arguments.begin(), arguments.end(), [](const std::string& one) {
      return one.find("{prompt}") != std::string::npos;
    });
    if (named && adapter_.prompt_by_stdin) {
      fields_.fail(member, "has a {prompt}, although prompt_by_stdin is true");
    } else if (!named && !adapter_.prompt_by_stdin) {
      fields_.fail(member, "has no {prompt}, and prompt_by_stdin is not true");
    }
  }

  void read_environment() {
    const Json given = fields_.object("env");
    if (fields_.has("env")) adapter_.env.clear();
    for (const auto& [name, value] : given.members()) {
      const auto text = value.as_string();
      if (!is_variable(name)) {
        fail("env", name, "is not the name of a variable");
      } else if (!text) {
        fail("env", name, "must be a text (put it in quotes), not " + value.dump());
      } else {
        check_text("env", name, std::string(*text), kPlaceholders);
        adapter_.env[name] = *text;
      }
    }
  }

  void read_files() {
    const Json given = fields_.object("files");
    if (fields_.has("files")) adapter_.files.clear();
    for (const auto& [path, content] : given.members()) {
      if (!is_inner_path(path)) fail("files", path, "must be a relative path without \"..\"");
      if (!content.is_string() && !content.is_object() && !content.is_array()) {
        fail("files", path,
             "must be a text, or a map or list to be written as JSON, not " + content.dump());
      }
      check_content(path, content);
      adapter_.files[path] = content;
    }
  }

  void check_content(const std::string& path, const Json& content) {
    if (const auto text = content.as_string()) {
      check_text("files", path, std::string(*text), kPlaceholders);
    }
    for (const auto& [name, member] : content.members()) {
      check_text("files", path, name, kPlaceholders);
      check_content(path, member);
    }
    for (const Json& item : content.items()) check_content(path, item);
  }

  JsonFields& fields_;
  AgentAdapter& adapter_;
};

Json filled(const Json& content, const Values& values) {
  if (const auto text = content.as_string()) return fill_placeholders(*text, values);
  if (content.is_array()) {
    Json list = Json::array();
    for (const Json& item : content.items()) list.push_back(filled(item, values));
    return list;
  }
  if (!content.is_object()) return content;
  Json map = Json::object();
  for (const auto& [name, member] : content.members()) {
    map.set(fill_placeholders(name, values), filled(member, values));
  }
  return map;
}

Values values_of(const AgentAdapter& adapter, const AgentValues& values) {
  return {{"prompt", values.prompt},
          {"endpoint", values.endpoint},
          {"key", values.key},
          {"model", values.model.empty() ? adapter.model : values.model},
          {"home", values.home.string()},
          {"workspace", values.workspace.string()}};
}

// Environment and files.
AgentCommand surroundings_of(const AgentAdapter& adapter, const Values& values) {
  AgentCommand command;
  for (const auto& [name, text] : adapter.env) {
    command.env.push_back(name + "=" + fill_placeholders(text, values));
  }
  for (const auto& [path, content] : adapter.files) {
    const Json whole = filled(content, values);
    command.files[path] = whole.is_string() ? whole.string_or("") : whole.pretty() + "\n";
  }
  return command;
}

}  // namespace

AgentAdapters::AgentAdapters(const Json& configured) {
  static const Json kCompiledIn =
      config::parse_yaml(kAdaptersYaml, "the compiled-in agent programs");
  std::vector<FieldError> defects;
  for (const Json* source : {&kCompiledIn, &configured}) {
    if (!source->is_object() && !source->is_null()) {
      defects.push_back({"", "must be a map of agent programs"});
    }
    for (const auto& [name, members] : source->members()) {
      JsonFields fields(members, "/" + name);
      AgentAdapter& adapter = adapters_[name];
      adapter.name = name;
      const bool plain = !name.empty() && name.size() <= limits::kNameBytes &&
                         name.find_first_of(", :{}\t\r\n") == std::string::npos;
      if (!plain) defects.push_back({"/" + name, "must be a name without spaces, ',' and ':'"});
      if (members.is_object()) AdapterReader(fields, adapter).read();
      defects.insert(defects.end(), fields.errors().begin(), fields.errors().end());
    }
  }
  if (defects.empty()) return;
  ErrorInfo info;
  info.fields = std::move(defects);
  throw ConfigError("invalid agents", std::move(info));
}

const AgentAdapter* AgentAdapters::find(std::string_view name) const {
  const auto found = adapters_.find(name);
  return found == adapters_.end() ? nullptr : &found->second;
}

const AgentAdapter* AgentAdapters::of_program(const std::filesystem::path& program) const {
  const std::string file = program.filename().string();
  for (const auto& [name, adapter] : adapters_) {
    if (std::filesystem::path(adapter.argv.front()).filename() == file) return &adapter;
  }
  return nullptr;
}

std::string AgentAdapters::names() const {
  std::vector<std::string> names;
  for (const auto& [name, adapter] : adapters_) names.push_back(name);
  return join(names, ", ");
}

AgentCommand command_of(const AgentAdapter& adapter, const AgentValues& values, bool resumed) {
  const Values texts = values_of(adapter, values);
  AgentCommand command = surroundings_of(adapter, texts);
  for (const std::string& argument :
       resumed && !adapter.resume.empty() ? adapter.resume : adapter.argv) {
    command.argv.push_back(fill_placeholders(argument, texts));
  }
  if (adapter.prompt_by_stdin) command.input = values.prompt;
  return command;
}

AgentCommand command_of(const AgentAdapter* adapter, const std::vector<std::string>& argv,
                        const AgentValues& values) {
  AgentCommand command =
      adapter ? surroundings_of(*adapter, values_of(*adapter, values)) : AgentCommand();
  command.argv = argv;
  return command;
}

}  // namespace necrocode::agent
