// necrocode config: what is set, and where each value came from.
#include "commands.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

CommonOptions common;

// A value as one reads it; `--json` has it typed.
std::string shown(const Json& value) {
  return value.is_string() ? value.string_or("") : value.dump();
}

int show() {
  const config::LoadedConfig loaded = common.load();
  Json settings = Json::object();
  for (const config::SettingInfo& setting : config::describe(loaded.config)) {
    settings.set(setting.key, setting.value);
    if (!common.json) print_line(setting.key + ": " + shown(setting.value));
  }
  if (common.json) print_json(settings);
  return 0;
}

int check() {
  const config::LoadedConfig loaded = common.load();
  const agent::AgentAdapters known(loaded.config.agents);  // throws for one that is wrong
  Json settings = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const config::SettingInfo& setting : config::describe(loaded.config)) {
    const std::string& origin = loaded.origin.at(setting.key);
    settings.push_back(Json::object({{"key", setting.key},
                                     {"value", setting.value},
                                     {"origin", origin},
                                     {"variable", setting.variable},
                                     {"description", setting.description}}));
    rows.push_back({setting.key, shown(setting.value), origin, setting.description});
  }
  if (common.json) {
    print_json(Json::object(
        {{"ok", true}, {"file", loaded.file.string()}, {"settings", std::move(settings)}}));
    return 0;
  }
  print_table({"SETTING", "VALUE", "FROM", "WHAT IT IS"}, rows);
  print_line(loaded.file.empty() ? "no configuration file"
                                 : "file " + loaded.file.string() + ": ok");
  return 0;
}

}  // namespace

void declare_config(Cli& cli) {
  Cli& config = cli.command("config", "The settings in force");
  const auto declare = [&config](const std::string& name, const std::string& help,
                                 std::function<int()> action) {
    Cli& command = config.command(name, help);
    common.declare(command);
    common.declare_json(command);
    command.action(std::move(action));
  };
  declare("show", "Every value", show);
  declare("check", "Every value and where it came from", check);
}

}  // namespace necrocode::app
