// necrocode llm serve-replay and record: be a model service from recorded answers, and record them.
#include "commands.hpp"
#include "listen_address.hpp"
#include "necrocode/llm/recorder.hpp"
#include "necrocode/llm/replay.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct ReplayArguments {
  CommonOptions common;
  std::string cassette;
  std::string listen = "127.0.0.1:0";
  std::string out;
  std::vector<std::string> drills;
};

ReplayArguments arguments;

// `endpoint` as clients take it, and what else there is to know.
void print_ready(const std::string& endpoint, std::initializer_list<JsonMember> more) {
  const std::string url = endpoint.substr(0, endpoint.rfind("/v1"));
  Json ready = Json::object({{"event", "ready"}, {"url", url}, {"endpoint", endpoint}});
  for (const auto& [name, value] : more) ready.set(name, value);
  print_json_line(ready);
}

int serve_replay() {
  StopOnSignal signals;
  Runtime runtime(arguments.common);
  llm::Cassette cassette = llm::Cassette::load(arguments.cassette);
  // Those of the command line come first: they are what the user wants now.
  for (std::size_t i = 0; i < arguments.drills.size(); ++i) {
    cassette.drills.insert(cassette.drills.begin() + static_cast<std::ptrdiff_t>(i),
                           llm::DrillRule::parse(arguments.drills[i]));
  }
  std::vector<std::string> drills;
  for (const llm::DrillRule& rule : cassette.drills) drills.push_back(rule.to_text());
  llm::ReplayServer server(std::move(cassette),
                           server_options(parse_listen_address(arguments.listen)));
  server.start();
  print_ready(server.url(), {{"drills", drills}});
  real_clock().sleep_until(SteadyTime::max(), signals.token());
  server.stop();
  return 0;
}

int record() {
  StopOnSignal signals;
  Runtime runtime(arguments.common);
  if (arguments.out.empty()) throw ConfigError("no cassette is named; give --out FILE");
  runtime.require_model_key();
  llm::RecorderOptions options;
  options.endpoint = runtime.llm_endpoint();
  options.api_key = runtime.credentials().llm_api_key.copy();
  options.out = arguments.out;
  options.masker = runtime.credentials().masker();
  options.http = runtime.http();
  options.server = server_options(parse_listen_address(arguments.listen));
  llm::Recorder recorder(std::move(options));
  recorder.start();
  print_ready(recorder.url(), {{"records", runtime.llm_endpoint()}});
  real_clock().sleep_until(SteadyTime::max(), signals.token());
  recorder.stop();
  const llm::Recorder::Counts counts = recorder.counts();
  print_json_line(Json::object(
      {{"event", "stopped"}, {"recorded", counts.recorded}, {"left_out", counts.left_out}}));
  return 0;
}

}  // namespace

void declare_llm_replay(Cli& llm) {
  Cli& replay = llm.command("serve-replay",
                            "Answer Chat Completions, Responses and Messages from a cassette; the "
                            "first line names the \"endpoint\" to give to --llm-endpoint");
  arguments.common.declare(replay);
  replay.input_file("cassette", arguments.cassette, "cassette file")
      .option("--listen", arguments.listen, "HOST:PORT; port 0 takes a free one")
      .options("--drill", arguments.drills,
               "NAME[:every=N][:probability=P][:seed=S][:times=N][:after=N]…: let answers go "
               "wrong; NAME is " +
                   llm::drill_names())
      .action(serve_replay);
  Cli& recorder = llm.command("record",
                              "Pass requests on to the configured model, with its key, and write "
                              "what is said as a cassette, without secrets");
  arguments.common.declare(recorder);
  arguments.common.declare_llm(recorder);
  recorder.option("--listen", arguments.listen, "HOST:PORT; port 0 takes a free one")
      .option("--out", arguments.out, "cassette file; one that is there is continued")
      .action(record);
}

}  // namespace necrocode::app
