#include "necrocode/config/config.hpp"

#include <algorithm>
#include <cctype>
#include <climits>
#include <cstdlib>
#include <functional>
#include <utility>

#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/placeholders.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/config/yaml.hpp"

namespace necrocode::config {
namespace {

// Reads the text into the field; what is wrong, or empty.
using Setter = std::function<std::string(Config&, const std::string&)>;
using Getter = std::function<Json(const Config&)>;
// The same for a map or a list: what is wrong where in it, as pointers ("/0/model").
using Reader = std::function<std::vector<FieldError>(Config&, const Json&)>;

struct Setting {
  std::string key;
  std::string variable;
  std::string description;
  Setter set;
  Getter get;
  Reader read{};  // of a map or a list, which only the file can give

  bool is_number() const { return get(Config{}).is_number(); }
};

std::optional<bool> parse_flag(const std::string& value) {
  const std::string lower = ascii_lower(value);
  if (lower == "true" || lower == "1" || lower == "yes" || lower == "on") return true;
  if (lower == "false" || lower == "0" || lower == "no" || lower == "off") return false;
  return std::nullopt;
}

// Enough to see that a URL is meant; the client that takes it checks the rest.
bool is_http_url(std::string_view value) {
  const std::string lower = ascii_lower(value);
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!lower.starts_with(scheme)) continue;
    const std::string_view host = std::string_view(lower).substr(scheme.size());
    return !host.empty() && host.front() != '/' && host.front() != ':' &&
           host.find_first_of(" \t\r\n") == std::string_view::npos;
  }
  return false;
}

template <class T>
using Field = T Config::*;

Setting text(std::string key, std::string variable, Field<std::string> field,
             std::string description) {
  return {std::move(key), std::move(variable), std::move(description),
          [field](Config& config, const std::string& value) -> std::string {
            if (value.empty()) return "must not be empty";
            config.*field = value;
            return {};
          },
          [field](const Config& config) { return config.*field; }};
}

// One of a few words, in any case.
Setting choice(std::string key, std::string variable, Field<std::string> field,
               std::vector<std::string> allowed, std::string description) {
  return {std::move(key), std::move(variable), std::move(description),
          [field, allowed](Config& config, const std::string& value) -> std::string {
            const std::string lower = ascii_lower(value);
            if (std::find(allowed.begin(), allowed.end(), lower) == allowed.end())
              return "must be one of " + join(allowed, ", ");
            config.*field = lower;
            return {};
          },
          [field](const Config& config) { return config.*field; }};
}

Setting url(std::string key, std::string variable, Field<std::string> field,
            std::string description) {
  return {std::move(key), std::move(variable), std::move(description),
          [field](Config& config, const std::string& value) -> std::string {
            // A service that there need not be may be left out by an empty one.
            const bool left_out = value.empty() && (Config{}.*field).empty();
            if (!left_out && !is_http_url(value)) return "must be http://… or https://…";
            config.*field = value;
            return {};
          },
          [field](const Config& config) { return config.*field; }};
}

Setting whole(std::string key, std::string variable, Field<int> field, int min, int max,
              std::string description) {
  return {std::move(key), std::move(variable), std::move(description),
          [field, min, max](Config& config, const std::string& value) -> std::string {
            const auto number = parse_int(value);
            if (!number || *number < min || *number > max) {
              return "must be a whole number from " + std::to_string(min) + " to " +
                     std::to_string(max);
            }
            config.*field = static_cast<int>(*number);
            return {};
          },
          [field](const Config& config) { return config.*field; }};
}

Setting real(std::string key, std::string variable, Field<double> field, double min, double max,
             std::string description) {
  return {std::move(key), std::move(variable), std::move(description),
          [field, min, max](Config& config, const std::string& value) -> std::string {
            const auto number = parse_double(value);
            if (!number || *number < min || *number > max) {
              return "must be a number from " + Json(min).dump() + " to " + Json(max).dump();
            }
            config.*field = *number;
            return {};
          },
          [field](const Config& config) { return config.*field; }};
}

Setting flag(std::string key, std::string variable, Field<bool> field, std::string description) {
  return {std::move(key), std::move(variable), std::move(description),
          [field](Config& config, const std::string& value) -> std::string {
            const auto on = parse_flag(value);
            if (!on) return "must be true or false";
            config.*field = *on;
            return {};
          },
          [field](const Config& config) { return config.*field; }};
}

const Setting* find_setting(std::string_view key);

std::string not_this(std::string_view value) {
  return ", not \"" + printable(shorten(value, 100)) + "\"";
}

// What is wrong with a value of the file for a setting that is one value; else it is set.
std::string set_value(Config& config, const Setting& setting, const Json& value) {
  if (setting.is_number() && !value.is_number())
    return "must be a number, not " + std::string(value.type_name());
  if (value.is_array() || value.is_object())
    return "must be one value, not " + std::string(value.type_name());
  const std::string text = value.is_string() ? value.string_or("") : value.dump();
  const std::string problem = setting.set(config, text);
  return problem.empty() ? "" : problem + not_this(text);
}

// A member of a map within a setting, and the rule for its value.
struct Member {
  std::string name;
  std::function<std::string(const Json&)> check;  // what is wrong, or empty
  bool required = false;
};

// As the setting of that key is checked.
std::function<std::string(const Json&)> like(std::string key) {
  return [key](const Json& value) {
    Config scratch;
    return set_value(scratch, *find_setting(key), value);
  };
}

void check_members(const Json& map, const std::string& pointer, const std::vector<Member>& members,
                   std::vector<FieldError>& defects) {
  if (!map.is_object()) {
    defects.push_back({pointer, "must be a map, not " + std::string(map.type_name())});
    return;
  }
  std::vector<std::string> names;
  for (const Member& member : members) {
    names.push_back(member.name);
    const Json& value = map[member.name];
    std::string problem = value.is_null() ? "" : member.check(value);
    if (value.is_null() && member.required) problem = "must have " + member.name;
    if (problem.empty()) continue;
    defects.push_back({pointer + (value.is_null() ? "" : "/" + member.name), std::move(problem)});
  }
  for (const auto& [name, value] : map.members()) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    defects.push_back(
        {pointer + "/" + name, "is unknown; did you mean \"" + nearest(name, names) + "\"?"});
  }
}

Setting whole_value(std::string key, Field<Json> field, Reader read, std::string description) {
  return {std::move(key),
          "",
          std::move(description),
          [](Config&, const std::string&) { return std::string("must stand in the file"); },
          [field](const Config& config) { return config.*field; },
          std::move(read)};
}

std::vector<FieldError> read_fallbacks(Config& config, const Json& list) {
  constexpr std::size_t kFallbacks = 16;  // more than one call has time to ask
  static const std::vector<Member> kMembers = {
      {"model", like("llm.model"), true},
      {"endpoint", like("llm.endpoint")},
      {"provider", like("llm.provider")},
      {"api_key_env_var", like("llm_api_key_env_var")},
      {"timeout_seconds", like("llm.timeout_seconds")},
      {"max_tokens", like("llm.max_tokens")},
      {"temperature", like("llm.temperature")},
  };
  if (!list.is_array()) return {{"", "must be a list, not " + std::string(list.type_name())}};
  if (list.size() > kFallbacks)
    return {{"", "must have at most " + std::to_string(kFallbacks) + " elements"}};
  std::vector<FieldError> defects;
  for (std::size_t i = 0; i < list.size(); ++i)
    check_members(list.items()[i], "/" + std::to_string(i), kMembers, defects);
  config.llm_fallbacks = list;
  return defects;
}

std::vector<FieldError> read_prices(Config& config, const Json& table) {
  const auto price = [](const Json& value) {
    const auto dollars = value.as_double();
    return dollars && *dollars >= 0 && *dollars <= 1e6
               ? std::string()
               : "must be a number from 0 to 1000000, not " + printable(shorten(value.dump(), 100));
  };
  const auto tokens = [](const Json& value) {
    const auto count = value.as_int();
    return count && *count >= 1 && *count <= 1'000'000'000
               ? std::string()
               : "must be a whole number from 1 to 1000000000, not " +
                     printable(shorten(value.dump(), 100));
  };
  const std::vector<Member> members = {{"input", price, true},
                                       {"output", price, true},
                                       {"cached_input", price},
                                       {"cache_write", price},
                                       {"max_output_tokens", tokens}};
  if (!table.is_object()) return {{"", "must be a map, not " + std::string(table.type_name())}};
  std::vector<FieldError> defects;
  for (const auto& [model, prices] : table.members())
    check_members(prices, "/" + model, members, defects);
  config.prices = table;
  return defects;
}

std::vector<FieldError> read_skill_limits(Config& config, const Json& table) {
  constexpr std::int64_t kRunningMax = 1'000'000;
  if (!table.is_object()) return {{"", "must be a map, not " + std::string(table.type_name())}};
  std::vector<FieldError> defects;
  for (const auto& [skill, limit] : table.members()) {
    const auto number = limit.as_int();
    if (number && *number >= 1 && *number <= kRunningMax) continue;
    defects.push_back({"/" + skill, "must be a whole number from 1 to " +
                                        std::to_string(kRunningMax) + ", not " +
                                        printable(shorten(limit.dump(), 100))});
  }
  config.registry_max_running_by_skill = table;
  return defects;
}

std::vector<FieldError> read_trusted_repositories(Config& config, const Json& list) {
  if (!list.is_array()) return {{"", "must be a list, not " + std::string(list.type_name())}};
  std::vector<FieldError> defects;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!list.items()[i].string_or("").empty()) continue;
    defects.push_back({"/" + std::to_string(i), "must be the URL of a repository, or a glob"});
  }
  config.playbooks_trusted_repositories = list;
  return defects;
}

// One line that can stand in a commit's header: git takes "<" and ">" out of names silently.
Setting identity(std::string key, Field<std::string> field, std::string description) {
  return {std::move(key), "", std::move(description),
          [field](Config& config, const std::string& value) -> std::string {
            const bool wrong =
                trim(value).empty() || value.find_first_of("<>") != std::string::npos;
            if (wrong || printable(value) != value) return "must be one line without < and >";
            config.*field = value;
            return {};
          },
          [field](const Config& config) { return config.*field; }};
}

Setting commit_template(std::string key, Field<std::string> field, std::string description) {
  return {std::move(key), "", std::move(description),
          [field](Config& config, const std::string& value) -> std::string {
            if (trim(value).empty()) return "must not be empty";
            if (printable(value) != value) return "must be one line";
            if (auto defect = placeholder_defect(value, kCommitPlaceholders)) return *defect;
            config.*field = value;
            return {};
          },
          [field](const Config& config) { return config.*field; }};
}

// What git takes for a trailer (git-interpret-trailers(1)).
std::optional<std::string> trailer_defect(const Json& item) {
  const std::string text = item.string_or("");
  const std::size_t colon = text.find(": ");
  const bool has_key =
      colon != std::string::npos && colon > 0 &&
      std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(colon),
                  [](unsigned char c) { return std::isalnum(c) != 0 || c == '-'; });
  if (!has_key || printable(text) != text) return "must be one line, \"Key: value\"";
  if (ascii_lower(text.substr(0, colon)) == "necrocode-task") {
    return "is the trailer that every commit of a run has";
  }
  return placeholder_defect(text, kCommitPlaceholders);
}

std::vector<FieldError> read_trailers(Config& config, const Json& list) {
  if (!list.is_array()) return {{"", "must be a list, not " + std::string(list.type_name())}};
  std::vector<FieldError> defects;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (auto defect = trailer_defect(list.items()[i])) {
      defects.push_back({"/" + std::to_string(i), std::move(*defect)});
    }
  }
  config.commit_trailers = list;
  return defects;
}

const std::vector<Setting>& settings() {
  constexpr int kDay = 86'400;
  constexpr int kDaysMax = 36'500;
  static const std::vector<Setting> kSettings = {
      url("task_registry_url", "TASK_REGISTRY_URL", &Config::task_registry_url,
          "base URL of the Task Registry; empty: work without one"),
      url("repo_pool_url", "REPO_POOL_URL", &Config::repo_pool_url,
          "base URL of the Repo Pool Manager; empty: make own workspaces"),
      url("artifact_store_url", "ARTIFACT_STORE_URL", &Config::artifact_store_url,
          "base URL of the Artifact Store; empty: keep artifacts in the run's folder"),
      {"data_dir", "NECROCODE_DATA", "where the services and runs keep their files",
       [](Config& config, const std::string& value) -> std::string {
         if (value.empty()) return "must not be empty";
         config.data_dir = std::filesystem::absolute(value);
         return {};
       },
       [](const Config& config) { return config.data_dir.string(); }},
      {"ca_file", "NECROCODE_CA_FILE",
       "PEM file of the authorities that services and model are trusted by; empty: the system's",
       [](Config& config, const std::string& value) -> std::string {
         if (value.empty()) return {};
         config.ca_file = std::filesystem::absolute(value);
         std::error_code error;
         const bool is_file = std::filesystem::is_regular_file(config.ca_file, error);
         return is_file ? "" : "must be a file that can be read";
       },
       [](const Config& config) { return config.ca_file.string(); }},
      choice("execution_mode", "", &Config::execution_mode, {"local-process"}, "where runs happen"),
      whole("default_timeout_seconds", "RUNNER_TIMEOUT", &Config::default_timeout_seconds, 1, kDay,
            "time for a task that names none"),
      whole("test_timeout_seconds", "", &Config::test_timeout_seconds, 1, kDay,
            "time for one test command of a task that names none"),
      whole("tests_total_timeout_seconds", "", &Config::tests_total_timeout_seconds, 0, kDay,
            "time for all test commands of one round together; 0: the task's own"),
      whole("test_retry_count", "", &Config::test_retry_count, 0, 5,
            "further attempts of a failed test command; one that then passes is reported as flaky"),
      whole("max_repairs", "", &Config::max_repairs, 0, 20,
            "how often failing test output goes back to the model"),
      whole("drain_seconds", "", &Config::drain_seconds, 0, kDay,
            "time that a worker gives its runs after SIGTERM before it hands them back"),
      text("llm.model", "LLM_MODEL", &Config::llm_model, "name of the language model"),
      url("llm.endpoint", "LLM_ENDPOINT", &Config::llm_endpoint,
          "base URL of an OpenAI-compatible service"),
      choice("llm.provider", "LLM_PROVIDER", &Config::llm_provider,
             {"openai-chat", "openai-responses", "anthropic"}, "the API that the service speaks"),
      real("llm.timeout_seconds", "", &Config::llm_timeout_seconds, 0.1, kDay,
           "time for one attempt of a model call"),
      real("llm.connect_timeout_seconds", "", &Config::llm_connect_timeout_seconds, 0.1, kDay,
           "time until the service is connected"),
      real("llm.idle_timeout_seconds", "", &Config::llm_idle_timeout_seconds, 0, kDay,
           "longest silence of an answer; 0: as llm.timeout_seconds"),
      real("llm.progress_timeout_seconds", "", &Config::llm_progress_timeout_seconds, 0, kDay,
           "longest time without new content of an answer; 0: as llm.timeout_seconds"),
      whole("llm.max_tokens", "", &Config::llm_max_tokens, 1, 10'000'000, "longest answer"),
      real("llm.temperature", "", &Config::llm_temperature, 0, 2, "sampling temperature"),
      real("llm.requests_per_minute", "", &Config::llm_requests_per_minute, 0, 1e9,
           "most model calls a minute; 0: only what the service says"),
      real("llm.tokens_per_minute", "", &Config::llm_tokens_per_minute, 0, 1e12,
           "most tokens a minute; 0: only what the service says"),
      real("llm.min_request_interval", "", &Config::llm_min_request_interval, 0, kDay,
           "seconds between the begins of two model calls"),
      whole_value("llm.fallbacks", &Config::llm_fallbacks, read_fallbacks,
                  "models to ask in turn when the first cannot answer"),
      whole_value("prices", &Config::prices, read_prices,
                  "US dollars per million tokens, by model"),
      real("budgets.run_usd", "", &Config::budgets_run_usd, 0, 1e9,
           "US dollars that a run may spend on model calls; 0: no cap"),
      whole("budgets.run_tokens", "", &Config::budgets_run_tokens, 0, INT_MAX,
            "tokens that a run may spend on model calls; 0: no cap"),
      whole("git_retry_count", "", &Config::git_retry_count, 0, 20, "retries of fetch and push"),
      whole("network_retry_count", "", &Config::network_retry_count, 0, 20,
            "retries of service calls"),
      whole("llm_retry_count", "", &Config::llm_retry_count, 0, 20, "retries of model calls"),
      text("git_token_env_var", "", &Config::git_token_env_var,
           "variable that holds the git token"),
      text("llm_api_key_env_var", "", &Config::llm_api_key_env_var,
           "variable that holds the model's key"),
      choice("log_level", "RUNNER_LOG_LEVEL", &Config::log_level,
             {"debug", "info", "warn", "warning", "error", "off"},
             "least severe level that is logged"),
      choice("log_format", "NECROCODE_LOG_FORMAT", &Config::log_format, {"auto", "json", "text"},
             "form of the log on stderr"),
      {"structured_logging", "", "older name: true is log_format json, false is text",
       [](Config& config, const std::string& value) -> std::string {
         const auto json = parse_flag(value);
         if (!json) return "must be true or false";
         config.log_format = *json ? "json" : "text";
         return {};
       },
       [](const Config& config) { return config.log_format == "json"; }},
      {"mask_secrets", "", "masking is always on; only true is accepted",
       [](Config&, const std::string& value) -> std::string {
         return parse_flag(value) == true ? "" : "must be true: masking cannot be turned off";
       },
       [](const Config&) { return true; }},
      whole("registry.keep_tasksets_days", "", &Config::registry_keep_tasksets_days, 0, kDaysMax,
            "finished tasksets are removed when so long unchanged; 0: never"),
      whole("registry.keep_events_days", "", &Config::registry_keep_events_days, 0, kDaysMax,
            "events are removed when so old; 0: never"),
      whole_value("registry.max_running_by_skill", &Config::registry_max_running_by_skill,
                  read_skill_limits, "most tasks at once that need a skill, by skill"),
      whole("max_test_commands", "", &Config::max_test_commands, 0, 10'000,
            "test commands that a process runs side by side; 0: twice its processors"),
      whole("llm.max_in_flight", "", &Config::llm_max_in_flight, 0, 10'000,
            "model calls of a process at once; 0: no bound"),
      whole("min_free_memory_mb", "", &Config::min_free_memory_mb, 0, INT_MAX,
            "a worker claims no task while the machine has less memory available, in MiB"),
      identity("commit.author_name", &Config::commit_author_name, "author of the runs' commits"),
      identity("commit.author_email", &Config::commit_author_email, "the author's address"),
      commit_template(
          "commit.title", &Config::commit_title,
          "title of the runs' commits; {task_id}, {spec}, {number}, {title} are filled"),
      whole_value("commit.trailers", &Config::commit_trailers, read_trailers,
                  "further trailers of the runs' commits, \"Key: value\", filled like the title"),
      text("default_playbook_path", "", &Config::default_playbook_path,
           "playbook of a task that names none"),
      text("playbooks.directory", "", &Config::playbooks_directory,
           "folder of the playbooks that tasks name"),
      whole_value("playbooks.trusted_repositories", &Config::playbooks_trusted_repositories,
                  read_trusted_repositories,
                  "URLs, or globs of them, of repositories whose own playbooks are used"),
      flag("pools.auto_create", "", &Config::pools_auto_create,
           "make a pool for an unknown repository at its first allocation"),
      whole("pools.num_slots", "", &Config::pools_num_slots, 1, 1000, "slots of a pool made so"),
      whole("pools.max_slots", "", &Config::pools_max_slots, 1, 1000,
            "how far a pool may grow on demand"),
      whole("max_memory_mb", "", &Config::max_memory_mb, 16, INT_MAX,
            "MiB of memory that a test command may take; default: half of the machine's"),
      whole("max_cpu_percent", "", &Config::max_cpu_percent, 1, 1'000'000,
            "processor time that a test command may take, 100 is one processor; default: no limit"),
      whole("max_processes", "", &Config::max_processes, 16, 4'194'304,
            "processes and threads that a test command may have at once; default: 2048"),
  };
  return kSettings;
}

const Setting* find_setting(std::string_view key) {
  const auto& all = settings();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Setting& s) { return s.key == key; });
  return found == all.end() ? nullptr : &*found;
}

std::vector<std::string> keys_below(std::string_view prefix) {
  std::vector<std::string> keys;
  for (const Setting& setting : settings()) {
    if (setting.key.starts_with(prefix)) keys.push_back(setting.key);
  }
  return keys;
}

std::filesystem::path home() {
  const char* value = std::getenv("HOME");
  return value && *value ? std::filesystem::path(value) : std::filesystem::path("/");
}

std::filesystem::path default_data_dir() {
  const char* xdg = std::getenv("XDG_DATA_HOME");
  return (xdg && *xdg == '/' ? std::filesystem::path(xdg) : home() / ".local/share") / "necrocode";
}

// Applies values in the order of the sources and collects every defect.
struct Loader {
  LoadedConfig loaded;
  std::vector<FieldError> errors;

  Loader() {
    loaded.config.data_dir = default_data_dir();
    for (const Setting& setting : settings()) loaded.origin[setting.key] = "default";
  }

  void apply(const std::string& key, const std::string& value, const std::string& origin) {
    const Setting* setting = find_setting(key);
    if (!setting) return refuse_unknown(key, origin);
    if (const std::string problem = setting->set(loaded.config, value); !problem.empty()) {
      // Of a flag its user knows the name, not the key.
      refuse(origin, (origin.starts_with("--") ? "" : key + " ") + problem + not_this(value));
      return;
    }
    loaded.origin[key] = origin;
  }

  void refuse_unknown(const std::string& key, const std::string& origin) {
    refuse(origin, "unknown key \"" + printable(key) + "\"; did you mean \"" +
                       nearest(key, keys_below("")) + "\"?");
  }

  void apply_flags(const std::vector<Flag>& flags) {
    for (const Flag& flag : flags) apply(flag.key, flag.value, flag.name);
  }

  void refuse(const std::string& origin, std::string problem) {
    // One flag may set several keys.
    const bool told =
        !errors.empty() && errors.back().pointer == origin && errors.back().message == problem;
    if (!told) errors.push_back({origin, std::move(problem)});
  }

  // What is wrong with settings together, not with any alone.
  void look_over() {
    const Config& config = loaded.config;
    if (config.pools_num_slots > config.pools_max_slots) {
      refuse(loaded.origin["pools.num_slots"],
             "pools.num_slots (" + std::to_string(config.pools_num_slots) +
                 ") must not be above pools.max_slots (" + std::to_string(config.pools_max_slots) +
                 ", from: " + loaded.origin["pools.max_slots"] + ")");
    }
  }

  LoadedConfig finish() {
    if (errors.empty()) look_over();
    if (errors.empty()) return std::move(loaded);
    ErrorInfo info;
    info.fields = errors;
    throw ConfigError("the configuration is wrong", std::move(info));
  }

  void apply_file(const std::filesystem::path& file) {
    std::map<std::string, int> lines;
    const Json root = parse_yaml(read_file(file, limits::kMiB), file.string(), &lines);
    if (!root.is_object() && !root.is_null()) {
      throw ConfigError(file.string() + " must be a map of settings");
    }
    apply_members(root, "", file.string(), lines);
  }

  void apply_members(const Json& object, const std::string& prefix, const std::string& file,
                     const std::map<std::string, int>& lines) {
    for (const auto& [name, value] : object.members()) {
      const std::string key = prefix.empty() ? name : prefix + "." + name;
      const std::string pointer = "/" + replace_all(key, ".", "/");
      const auto origin = [&](const std::string& below) {
        auto line = lines.find(pointer + below);
        if (line == lines.end()) line = lines.find(pointer);
        return "file " + file + ":" + (line == lines.end() ? "?" : std::to_string(line->second));
      };
      const Setting* setting = find_setting(key);
      const std::vector<std::string> below = keys_below(key + ".");
      if (value.is_null() && (setting || !below.empty())) continue;  // left out
      if (setting && setting->read) {
        for (const FieldError& defect : setting->read(loaded.config, value)) {
          refuse(origin(defect.pointer), printable(key + defect.pointer) + " " + defect.message);
        }
        loaded.origin[key] = origin("");
      } else if (value.is_object() && !setting) {
        apply_members(value, key, file, lines);
      } else if (!below.empty()) {
        refuse(origin(""), key + " must be a map, as of " + below.front());
      } else if (!setting) {
        refuse_unknown(key, origin(""));
      } else if (const std::string problem = set_value(loaded.config, *setting, value);
                 !problem.empty()) {
        refuse(origin(""), key + " " + problem);
      } else {
        loaded.origin[key] = origin("");
      }
    }
  }
};

std::filesystem::path find_file(const std::filesystem::path& named) {
  if (!named.empty()) return named;
  if (const char* variable = std::getenv("NECROCODE_CONFIG"); variable && *variable)
    return variable;
  const std::filesystem::path usual = home() / ".config/necrocode/config.yaml";
  std::error_code error;
  return std::filesystem::exists(usual, error) ? usual : std::filesystem::path();
}

}  // namespace

LoadedConfig load(const std::filesystem::path& file, const std::vector<Flag>& flags) {
  Loader loader;
  loader.loaded.file = find_file(file);
  if (!loader.loaded.file.empty()) {
    try {
      loader.apply_file(loader.loaded.file);
    } catch (const StorageError& error) {
      throw ConfigError("cannot read the configuration: " + error.summary());
    }
  }
  for (const Setting& setting : settings()) {
    const char* value = setting.variable.empty() ? nullptr : std::getenv(setting.variable.c_str());
    if (value && *value) loader.apply(setting.key, value, "environment " + setting.variable);
  }
  loader.apply_flags(flags);
  return loader.finish();
}

LoadedConfig load_flags(const std::vector<Flag>& flags) {
  Loader loader;
  loader.apply_flags(flags);
  return loader.finish();
}

std::vector<SettingInfo> describe(const Config& config) {
  std::vector<SettingInfo> infos;
  for (const Setting& setting : settings()) {
    infos.push_back({setting.key, setting.variable, setting.description, setting.get(config)});
  }
  return infos;
}

}  // namespace necrocode::config
