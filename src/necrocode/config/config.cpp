#include "necrocode/config/config.hpp"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <utility>

#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/config/yaml.hpp"

namespace necrocode::config {
namespace {

// Reads the text into the field; what is wrong, or empty.
using Setter = std::function<std::string(Config&, const std::string&)>;
using Getter = std::function<std::string(const Config&)>;

struct Setting {
  std::string key;
  std::string variable;
  std::string description;
  Setter set;
  Getter get;
  bool is_number = false;
};

Setting text(std::string key, std::string variable, std::string Config::* field,
             std::string description, std::vector<std::string> allowed = {}) {
  return {
      std::move(key), std::move(variable), std::move(description),
      [field, allowed](Config& config, const std::string& value) -> std::string {
        if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
          return "must be one of " + join(allowed, ", ");
        }
        config.*field = value;
        return {};
      },
      [field](const Config& config) { return config.*field; }};
}

Setting whole(std::string key, std::string variable, int Config::* field, int min, int max,
              std::string description) {
  return {std::move(key),
          std::move(variable),
          std::move(description),
          [field, min, max](Config& config, const std::string& value) -> std::string {
            const auto number = parse_int(value);
            if (!number || *number < min || *number > max) {
              return "must be a whole number from " + std::to_string(min) + " to " +
                     std::to_string(max);
            }
            config.*field = static_cast<int>(*number);
            return {};
          },
          [field](const Config& config) { return std::to_string(config.*field); },
          true};
}

Setting real(std::string key, std::string variable, double Config::* field, double min, double max,
             std::string description) {
  return {std::move(key),
          std::move(variable),
          std::move(description),
          [field, min, max](Config& config, const std::string& value) -> std::string {
            const auto number = parse_double(value);
            if (!number || *number < min || *number > max) {
              return "must be a number from " + Json(min).dump() + " to " + Json(max).dump();
            }
            config.*field = *number;
            return {};
          },
          [field](const Config& config) { return Json(config.*field).dump(); },
          true};
}

Setting flag(std::string key, std::string variable, bool Config::* field, std::string description) {
  return {std::move(key), std::move(variable), std::move(description),
          [field](Config& config, const std::string& value) -> std::string {
            const std::string lower = ascii_lower(value);
            const bool on = lower == "true" || lower == "1" || lower == "yes" || lower == "on";
            const bool off = lower == "false" || lower == "0" || lower == "no" || lower == "off";
            if (!on && !off) return "must be true or false";
            config.*field = on;
            return {};
          },
          [field](const Config& config) { return config.*field ? "true" : "false"; }};
}

const std::vector<Setting>& settings() {
  constexpr int kDay = 86'400;
  static const std::vector<Setting> kSettings = {
      text("task_registry_url", "TASK_REGISTRY_URL", &Config::task_registry_url,
           "base URL of the Task Registry; empty: work without one"),
      text("repo_pool_url", "REPO_POOL_URL", &Config::repo_pool_url,
           "base URL of the Repo Pool Manager; empty: make own workspaces"),
      text("artifact_store_url", "ARTIFACT_STORE_URL", &Config::artifact_store_url,
           "base URL of the Artifact Store; empty: keep artifacts in the run's folder"),
      {"data_dir", "NECROCODE_DATA", "where the services and runs keep their files",
       [](Config& config, const std::string& value) -> std::string {
         if (value.empty()) return "must not be empty";
         config.data_dir = std::filesystem::absolute(value);
         return {};
       },
       [](const Config& config) { return config.data_dir.string(); }},
      text("execution_mode", "", &Config::execution_mode, "where runs happen", {"local-process"}),
      whole("default_timeout_seconds", "RUNNER_TIMEOUT", &Config::default_timeout_seconds, 1, kDay,
            "time for a task that names none"),
      whole("test_timeout_seconds", "", &Config::test_timeout_seconds, 1, kDay,
            "time for one test command of a task that names none"),
      whole("max_repairs", "", &Config::max_repairs, 0, 20,
            "how often failing test output goes back to the model"),
      whole("drain_seconds", "", &Config::drain_seconds, 0, kDay,
            "time that a worker gives its runs after SIGTERM before it hands them back"),
      text("llm.model", "LLM_MODEL", &Config::llm_model, "name of the language model"),
      text("llm.endpoint", "LLM_ENDPOINT", &Config::llm_endpoint,
           "base URL of an OpenAI-compatible service"),
      real("llm.timeout_seconds", "", &Config::llm_timeout_seconds, 0.1, kDay,
           "time for one model call"),
      whole("llm.max_tokens", "", &Config::llm_max_tokens, 1, 10'000'000, "longest answer"),
      real("llm.temperature", "", &Config::llm_temperature, 0, 2, "sampling temperature"),
      whole("git_retry_count", "", &Config::git_retry_count, 0, 20, "retries of fetch and push"),
      whole("network_retry_count", "", &Config::network_retry_count, 0, 20,
            "retries of service calls"),
      whole("llm_retry_count", "", &Config::llm_retry_count, 0, 20, "retries of model calls"),
      text("git_token_env_var", "", &Config::git_token_env_var,
           "variable that holds the git token"),
      text("llm_api_key_env_var", "", &Config::llm_api_key_env_var,
           "variable that holds the model's key"),
      text("log_level", "RUNNER_LOG_LEVEL", &Config::log_level, "least severe level that is logged",
           {"debug", "info", "warn", "warning", "error", "off", "DEBUG", "INFO", "WARN", "WARNING",
            "ERROR"}),
      text("log_format", "NECROCODE_LOG_FORMAT", &Config::log_format, "form of the log on stderr",
           {"auto", "json", "text"}),
      {"structured_logging", "", "older name: true is log_format json, false is text",
       [](Config& config, const std::string& value) -> std::string {
         if (value != "true" && value != "false") return "must be true or false";
         config.log_format = value == "true" ? "json" : "text";
         return {};
       },
       [](const Config& config) { return config.log_format == "json" ? "true" : "false"; }},
      {"mask_secrets", "", "masking is always on; only true is accepted",
       [](Config&, const std::string& value) -> std::string {
         return value == "true" ? "" : "must be true: masking cannot be turned off";
       },
       [](const Config&) { return "true"; }},
      flag("pools.auto_create", "", &Config::pools_auto_create,
           "make a pool for an unknown repository at its first allocation"),
      whole("pools.num_slots", "", &Config::pools_num_slots, 1, 1000, "slots of a pool made so"),
      whole("pools.max_slots", "", &Config::pools_max_slots, 1, 1000,
            "how far a pool may grow on demand"),
  };
  return kSettings;
}

const Setting* find_setting(std::string_view key) {
  const auto& all = settings();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Setting& s) { return s.key == key; });
  return found == all.end() ? nullptr : &*found;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

std::string nearest_key(std::string_view key) {
  const auto& all = settings();
  return std::min_element(all.begin(), all.end(),
                          [&](const Setting& a, const Setting& b) {
                            return edit_distance(key, a.key) < edit_distance(key, b.key);
                          })
      ->key;
}

// Applies values in the order of the sources and collects every defect.
struct Loader {
  LoadedConfig loaded;
  std::vector<FieldError> errors;

  void apply(const std::string& key, const std::string& value, const std::string& origin) {
    const Setting* setting = find_setting(key);
    if (!setting) {
      errors.push_back({origin, "unknown key \"" + printable(key) + "\"; did you mean \"" +
                                    nearest_key(key) + "\"?"});
      return;
    }
    if (const std::string problem = setting->set(loaded.config, value); !problem.empty()) {
      errors.push_back(
          {origin, key + " " + problem + ", not \"" + printable(shorten(value, 100)) + "\""});
      return;
    }
    loaded.origin[key] = origin;
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
      const auto line = lines.find("/" + replace_all(key, ".", "/"));
      const std::string origin =
          "file " + file + ":" + (line == lines.end() ? "?" : std::to_string(line->second));
      if (value.is_object()) {
        apply_members(value, key, file, lines);
      } else if (const Setting* setting = find_setting(key);
                 setting && setting->is_number && !value.is_number()) {
        errors.push_back(
            {origin, key + " must be a number, not " + std::string(value.type_name())});
      } else {
        apply(key, value.is_string() ? value.string_or("") : value.dump(), origin);
      }
    }
  }
};

std::filesystem::path home() {
  const char* value = std::getenv("HOME");
  return value && *value ? std::filesystem::path(value) : std::filesystem::path("/");
}

std::filesystem::path default_data_dir() {
  const char* xdg = std::getenv("XDG_DATA_HOME");
  return (xdg && *xdg == '/' ? std::filesystem::path(xdg) : home() / ".local/share") / "necrocode";
}

std::filesystem::path find_file(const std::filesystem::path& named) {
  if (!named.empty()) return named;
  if (const char* variable = std::getenv("NECROCODE_CONFIG"); variable && *variable)
    return variable;
  const std::filesystem::path usual = home() / ".config/necrocode/config.yaml";
  std::error_code error;
  return std::filesystem::exists(usual, error) ? usual : std::filesystem::path();
}

}  // namespace

LoadedConfig load(const std::filesystem::path& file,
                  const std::map<std::string, std::string>& flags) {
  Loader loader;
  loader.loaded.config.data_dir = default_data_dir();
  loader.loaded.file = find_file(file);
  for (const Setting& setting : settings()) loader.loaded.origin[setting.key] = "default";
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
  for (const auto& [key, value] : flags) loader.apply(key, value, "flag");
  if (!loader.errors.empty()) {
    ErrorInfo info;
    info.fields = loader.errors;
    throw ConfigError("the configuration is wrong", std::move(info));
  }
  return std::move(loader.loaded);
}

std::vector<SettingInfo> describe(const Config& config) {
  std::vector<SettingInfo> infos;
  for (const Setting& setting : settings()) {
    infos.push_back({setting.key, setting.variable, setting.description, setting.get(config)});
  }
  return infos;
}

}  // namespace necrocode::config
