// necrocode pool: the Repo Pool Manager from the command line.
#include "commands.hpp"
#include "necrocode/base/text.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct PoolArguments {
  CommonOptions common;
  std::string url;
  std::string name;
  std::string branch;
  int slots = 2;
  int max_slots = 8;
};

PoolArguments arguments;

int add() {
  if (arguments.slots > arguments.max_slots) {
    throw ConfigError("--slots (" + std::to_string(arguments.slots) +
                      ") must not be above --max-slots (" + std::to_string(arguments.max_slots) +
                      ")");
  }
  Runtime runtime(arguments.common);
  PoolSpec spec;
  spec.name = arguments.name;
  spec.repo_url = arguments.url;
  spec.num_slots = arguments.slots;
  spec.max_slots = arguments.max_slots;
  spec.base_branch = arguments.branch;
  print_json(runtime.pool().add_pool(spec));
  return 0;
}

int list() {
  Runtime runtime(arguments.common);
  const Json pools = runtime.pool().list_pools();
  if (arguments.common.json) {
    print_json(pools);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& pool : pools["items"].items()) {
    rows.push_back({pool["name"].string_or(""), pool["num_slots"].dump(), pool["max_slots"].dump(),
                    pool["base_branch"].string_or(""), pool["repo_url"].string_or("")});
  }
  print_table({"POOL", "SLOTS", "MAX", "BRANCH", "REPOSITORY"}, rows);
  return 0;
}

int show() {
  Runtime runtime(arguments.common);
  print_json(runtime.pool().get_pool(arguments.name));
  return 0;
}

int warm() {
  Runtime runtime(arguments.common);
  print_json(runtime.pool().warm(arguments.name));
  return 0;
}

int remove() {
  Runtime runtime(arguments.common);
  runtime.pool().remove_pool(arguments.name);
  if (arguments.common.json) {
    print_json(Json::object({{"removed", arguments.name}}));
  } else {
    print_line("removed " + printable(arguments.name));
  }
  return 0;
}

Cli& sub(Cli& parent, const std::string& name, const std::string& help,
         std::function<int()> action) {
  return arguments.common.service_command(parent, name, help, {Service::kPool}, std::move(action));
}

}  // namespace

void declare_pool(Cli& cli) {
  Cli& pool = cli.command("pool", "Workspace pools: add, look, warm, remove");
  sub(pool, "add", "Make a pool of ready workspaces for a repository", add)
      .positional("url", arguments.url, "repository")
      .option("--name", arguments.name, "pool name (default: from the URL)")
      .option("--slots", arguments.slots, 1, 1000, "slots to keep ready")
      .option("--max-slots", arguments.max_slots, 1, 1000, "how far it may grow on demand")
      .option("--base-branch", arguments.branch, "branch to keep slots at (default: the remote's)");
  sub(pool, "list", "All pools", list);
  sub(pool, "show", "One pool with its slots", show)
      .positional("name", arguments.name, "pool name");
  sub(pool, "warm", "Prepare free slots ahead", warm)
      .positional("name", arguments.name, "pool name");
  sub(pool, "remove", "Remove a pool that nobody uses", remove)
      .positional("name", arguments.name, "pool name");
}

}  // namespace necrocode::app
