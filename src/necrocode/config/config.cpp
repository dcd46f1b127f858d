#include "necrocode/config/config.hpp"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <utility>

#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/config/settings.hpp"
#include "necrocode/config/yaml.hpp"

namespace necrocode::config {
namespace {

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

  // Of settings that are a part of another one's value.
  void note_origins_below(const std::string& key, const Json& value,
                          const std::function<std::string(const std::string&)>& origin) {
    for (const std::string& inner : keys_below(key + ".")) {
      Json at = value;
      std::string pointer;
      for (const std::string_view part :
           split(std::string_view(inner).substr(key.size() + 1), '.')) {
        at = Json(at[part]);
        pointer += "/" + std::string(part);
      }
      if (!at.is_null()) loaded.origin[inner] = origin(pointer);
    }
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
        note_origins_below(key, value, origin);
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
