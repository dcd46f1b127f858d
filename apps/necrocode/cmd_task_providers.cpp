// necrocode task park, unpark, providers: model providers whose tasks wait.
#include "commands.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "runtime.hpp"
#include "terminal.hpp"
#include "time_options.hpp"

namespace necrocode::app {
namespace {

struct ProviderArguments {
  CommonOptions common;
  std::string name;
  std::string until;
  std::string duration;
  std::string reason;
};

ProviderArguments arguments;

SystemTime read_end() {
  if (arguments.until.empty() == arguments.duration.empty()) {
    throw ConfigError("park takes --until TIME or --for DURATION");
  }
  if (!arguments.until.empty()) return read_time("--until", arguments.until);
  return real_clock().system_now() + read_duration("--for", arguments.duration);
}

int park() {
  const SystemTime until = read_end();
  Runtime runtime(arguments.common);
  const registry::ParkedProvider parked =
      runtime.registry().park(arguments.name, until, arguments.reason);
  if (arguments.common.json) {
    print_json(parked.to_json());
  } else {
    print_line(presentable(parked.name) + " is parked until " + to_rfc3339(parked.until));
  }
  return 0;
}

int unpark() {
  Runtime runtime(arguments.common);
  runtime.registry().unpark(arguments.name);
  if (arguments.common.json) {
    print_json(Json::object({{"unparked", arguments.name}}));
  } else {
    print_line("tasks of " + presentable(arguments.name) + " go on");
  }
  return 0;
}

int providers() {
  Runtime runtime(arguments.common);
  const std::vector<registry::ParkedProvider> parked = runtime.registry().parked_providers();
  if (arguments.common.json) {
    Json items = Json::array();
    for (const registry::ParkedProvider& one : parked) items.push_back(one.to_json());
    print_json(Json::object({{"items", std::move(items)}}));
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const registry::ParkedProvider& one : parked) {
    rows.push_back({one.name, to_rfc3339(one.until), one.probe, one.reason});
  }
  print_table({"PROVIDER", "PARKED UNTIL", "TRIED AGAIN BY", "REASON"}, rows);
  return 0;
}

}  // namespace

void declare_task_providers(Cli& task) {
  const auto sub = [&](const char* name, const char* help, std::function<int()> action) -> Cli& {
    return arguments.common.service_command(task, name, help, {Service::kRegistry},
                                            std::move(action));
  };
  sub("park", "Let tasks of a model provider wait, and use up no attempt", park)
      .positional("provider", arguments.name, "the provider's name, as tasks or runners give it")
      .option("--until", arguments.until, "RFC 3339")
      .option("--for", arguments.duration, "how long: 90s, 30m, 2h, 7d")
      .option("--reason", arguments.reason, "shown with what waits");
  sub("unpark", "Let tasks of a parked model provider go on", unpark)
      .positional("provider", arguments.name, "the provider's name");
  sub("providers", "The model providers that are parked", providers);
}

}  // namespace necrocode::app
