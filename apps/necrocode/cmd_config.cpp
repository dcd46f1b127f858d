// necrocode config: what is set, and where each value came from.
#include "commands.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

CommonOptions common;

int show() {
  const config::LoadedConfig loaded = config::load(common.config_file, common.flags());
  if (common.json) {
    Json settings = Json::object();
    for (const config::SettingInfo& setting : config::describe(loaded.config))
      settings.set(setting.key, setting.value);
    print_json(settings);
    return 0;
  }
  for (const config::SettingInfo& setting : config::describe(loaded.config)) {
    print_line(setting.key + ": " + setting.value);
  }
  return 0;
}

int check() {
  const config::LoadedConfig loaded = config::load(common.config_file, common.flags());
  if (common.json) {
    Json settings = Json::array();
    for (const config::SettingInfo& setting : config::describe(loaded.config)) {
      settings.push_back(Json::object({{"key", setting.key},
                                       {"value", setting.value},
                                       {"origin", loaded.origin.at(setting.key)},
                                       {"variable", setting.variable},
                                       {"description", setting.description}}));
    }
    print_json(Json::object(
        {{"ok", true}, {"file", loaded.file.string()}, {"settings", std::move(settings)}}));
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const config::SettingInfo& setting : config::describe(loaded.config)) {
    rows.push_back(
        {setting.key, setting.value, loaded.origin.at(setting.key), setting.description});
  }
  print_table({"SETTING", "VALUE", "FROM", "WHAT IT IS"}, rows);
  print_line(loaded.file.empty() ? "no configuration file"
                                 : "file " + loaded.file.string() + ": ok");
  return 0;
}

}  // namespace

void declare_config(Cli& cli) {
  Cli& config = cli.command("config", "The settings in force");
  common.service_command(config, "show", "Every value", show);
  common.service_command(config, "check", "Every value and where it came from", check);
}

}  // namespace necrocode::app
