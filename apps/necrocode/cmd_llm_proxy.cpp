// necrocode llm proxy: be the configured model's front for a program that we do not control.
#include "commands.hpp"
#include "listen_address.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/llm/metering_proxy.hpp"
#include "runtime.hpp"
#include "spend_options.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct ProxyArguments {
  CommonOptions common;
  std::string listen = "127.0.0.1:0";
  std::string cap_usd;
  std::string daily_cap_usd;
  std::string owner;
  std::string owner_cap_usd;
  std::string prices;
  std::string record;
};

ProxyArguments arguments;

llm::MeteringProxyOptions proxy_options(Runtime& runtime) {
  llm::MeteringProxyOptions options = runtime.metering_proxy_options();
  if (!arguments.prices.empty()) options.prices = read_prices("--prices", arguments.prices);
  options.shared_state = shared_spending(runtime.config());
  options.server = server_options(parse_listen_address(arguments.listen));
  return options;
}

Json stopped(const llm::Metered& metered) {
  Json line = Json::object({{"event", "stopped"},
                            {"calls", metered.calls},
                            {"refused", metered.refused},
                            {"usage", metered.usage.to_json()}});
  if (metered.failure) line.set("failure", metered.failure->to_json());
  return line;
}

int proxy() {
  llm::MeteredRunOptions run_options;
  run_options.caps.run_usd = positive_usd("--cap-usd", arguments.cap_usd);
  run_options.caps.daily_usd = positive_usd("--daily-cap-usd", arguments.daily_cap_usd);
  run_options.caps.owner_usd = positive_usd("--owner-cap-usd", arguments.owner_cap_usd);
  StopOnSignal signals;
  Runtime runtime(arguments.common);
  runtime.expect_runs(static_cast<int>(limits::kProxyExchanges));
  RunOutput output;
  run_options.account = {uuid7(), arguments.owner};
  run_options.recording = arguments.record;
  run_options.on_exchange = [&output](const llm::ExchangeReport& report) {
    Json line = Json::object({{"event", "exchange"}});
    for (const auto& [name, value] : report.to_json().members()) line.set(name, value);
    output.print_json_line(line);
  };
  llm::MeteringProxy server(proxy_options(runtime));
  server.start();
  const auto run = server.open(std::move(run_options));
  // Unmasked: the key is made to be told, and is worth nothing elsewhere.
  const Json ready = Json::object({{"event", "ready"},
                                   {"url", server.url()},
                                   {"endpoint", server.url() + "/v1"},
                                   {"key", run->key()}});
  print_raw(ready.dump() + "\n");
  real_clock().sleep_until(SteadyTime::max(), signals.token());
  const llm::Metered metered = run->end();
  server.stop();
  output.print_json_line(stopped(metered));
  output.finish();
  return 0;
}

}  // namespace

void declare_llm_proxy(Cli& llm) {
  Cli& command =
      llm.command("proxy",
                  "Pass a program's calls on to the configured model, with its key, and count, cap "
                  "and class them; the first line has the program's \"endpoint\" and \"key\"");
  arguments.common.declare(command);
  arguments.common.declare_llm(command);
  command.option("--listen", arguments.listen, "HOST:PORT; port 0 takes a free one")
      .text("--cap-usd", arguments.cap_usd, "the most that these calls may cost, in US dollars")
      .text("--daily-cap-usd", arguments.daily_cap_usd,
            "the most that all of this host's calls may cost today (UTC)")
      .option("--owner", arguments.owner, "on whose account it goes: a user, a team")
      .text("--owner-cap-usd", arguments.owner_cap_usd, "the most for this owner today (UTC)")
      .text("--prices", arguments.prices,
            "YAML or JSON file of prices, as prices: in the configuration, in its place")
      .text("--record", arguments.record,
            "file to which each exchange is added as a JSON line, without secrets")
      .action(proxy);
}

}  // namespace necrocode::app
