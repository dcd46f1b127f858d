// necrocode llm: talk to a model service. Being one is in cmd_llm_replay.cpp.
#include "commands.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct LlmArguments {
  CommonOptions common;
  std::string prompt;
};

LlmArguments arguments;

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
  declare_llm_replay(llm);
  Cli& ask = llm.command("chat", "Ask the configured model one thing");
  arguments.common.declare(ask);
  arguments.common.declare_llm(ask);
  arguments.common.declare_json(ask);
  ask.positional("prompt", arguments.prompt, "the question").action(chat);
}

}  // namespace necrocode::app
