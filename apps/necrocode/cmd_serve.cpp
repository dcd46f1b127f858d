// necrocode serve: the Task Registry, Repo Pool Manager and Artifact Store on one address.
#include "commands.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/http.hpp"
#include "runtime.hpp"
#include "service_host.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

CommonOptions common;
std::string listen_text = "127.0.0.1:8000";
std::string only;
std::string public_url;

/// What others reach this by; without a slash at the end.
std::string checked_public_url(std::string url) {
  if (url.empty()) return url;
  const auto parsed = net::Url::parse(url);
  if (!parsed || !parsed->user_info.empty() || url.find_first_of("?#") != std::string::npos) {
    throw ConfigError(
        "--public-url takes an http or https URL without credentials and query, such as "
        "https://agents.example.org/necrocode");
  }
  while (url.ends_with('/')) url.pop_back();
  return url;
}

int run() {
  StopOnSignal signals;
  process::Supervisor& children = supervisor();
  Runtime runtime(common);
  git::GitOptions git_options;
  git_options.token = runtime.credentials().git_token.copy();
  const git::Git git(children, std::move(git_options));

  ServiceHostOptions options;
  options.listen = parse_listen_address(listen_text);
  options.data_dir = runtime.config().data_dir;
  options.config = runtime.config();
  options.public_url = checked_public_url(public_url);
  for (const std::string_view name : split(only, ',')) {
    if (trim(name).empty()) continue;
    if (trim(name) != "registry" && trim(name) != "pool" && trim(name) != "artifacts") {
      throw ConfigError("--only takes registry, pool and artifacts, not \"" + printable(name) +
                        "\"");
    }
    options.only.emplace(trim(name));
  }
  require_folder("--data", options.data_dir);
  ServiceHost host(git, std::move(options));
  host.start();
  print_json_line(Json::object({{"event", "ready"}, {"url", host.url()}}));
  real_clock().sleep_until(SteadyTime::max(), signals.token());
  host.stop();
  return 0;
}

}  // namespace

void declare_serve(Cli& cli) {
  Cli& command = cli.command("serve", "The three services on one address");
  common.declare(command);
  command.option("--listen", listen_text, "HOST:PORT; port 0 takes a free one")
      .option("--only", only, "some of registry,pool,artifacts")
      .option("--public-url", public_url,
              "what artifacts' uris begin with, where a proxy stands before it (default: the "
              "address it listens on)")
      .action(run);
}

}  // namespace necrocode::app
