// necrocode llm: talk to a model service, or be one from recorded answers.
#include "commands.hpp"
#include "listen_address.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/replay.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct LlmArguments {
  CommonOptions common;
  std::string cassette;
  std::string listen = "127.0.0.1:0";
  std::string prompt;
};

LlmArguments arguments;

int serve_replay() {
  StopOnSignal signals;
  Runtime runtime(arguments.common);
  llm::ReplayServer server(llm::Cassette::load(arguments.cassette),
                           server_options(parse_listen_address(arguments.listen)));
  server.start();
  std::string url = server.url();
  if (url.ends_with("/v1")) url.resize(url.size() - 3);
  print_json_line(Json::object({{"event", "ready"}, {"url", url}, {"endpoint", url + "/v1"}}));
  real_clock().sleep_until(SteadyTime::max(), signals.token());
  server.stop();
  return 0;
}

int chat() {
  StopOnSignal signals;
  Runtime runtime(arguments.common);
  ChatRequest request;
  request.messages = {{"user", arguments.prompt}};
  const ChatResponse answer = runtime.llm().chat(request, signals.context());
  if (arguments.common.json) {
    print_json(Json::object({{"content", answer.content},
                             {"model", answer.model},
                             {"finish_reason", answer.finish_reason},
                             {"request_id", answer.request_id},
                             {"attempts", answer.attempts},
                             {"usage", answer.usage.to_json()}}));
  } else {
    print_line(answer.content);
  }
  return 0;
}

}  // namespace

void declare_llm(Cli& cli) {
  Cli& llm = cli.command("llm", "Model services: ask one, or replay recorded answers");
  Cli& replay = llm.command("serve-replay",
                            "Answer the OpenAI API from a cassette; its first line names the "
                            "\"endpoint\" to give to --llm-endpoint");
  arguments.common.declare(replay);
  replay.input_file("cassette", arguments.cassette, "cassette file")
      .option("--listen", arguments.listen, "HOST:PORT; port 0 takes a free one")
      .action(serve_replay);
  Cli& ask = llm.command("chat", "Ask the configured model one thing");
  arguments.common.declare(ask);
  arguments.common.declare_llm(ask);
  arguments.common.declare_json(ask);
  ask.positional("prompt", arguments.prompt, "the question").action(chat);
}

}  // namespace necrocode::app
