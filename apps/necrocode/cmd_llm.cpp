// necrocode llm: talk to a model service. Being one is in cmd_llm_replay.cpp.
#include <unistd.h>

#include "commands.hpp"
#include "model_checks.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct LlmArguments {
  CommonOptions common;
  std::string prompt;
  std::string system;
  bool whole = false;
};

LlmArguments arguments;

// A person sees the answer come; a program gets it when it is whole, and never a broken one.
ChatResponse ask(LLMClient& client, const ChatRequest& request, const CallContext& context) {
  if (arguments.whole) return client.chat(request, context);
  const bool show = !arguments.common.json && is_terminal(STDOUT_FILENO);
  return client.stream(
      request,
      [show](const llm::ChatDelta& delta) {
        if (!show) return;
        if (delta.kind == llm::ChatDelta::Kind::kText) print(delta.text);
        if (delta.kind == llm::ChatDelta::Kind::kRestart) {
          print_line("");
          note("necrocode: the answer broke off; it is asked for again");
        }
      },
      context);
}

int chat() {
  StopOnSignal signals;
  Runtime runtime(arguments.common);
  runtime.require_model_key();
  ChatRequest request;
  if (!arguments.system.empty()) request.messages.push_back({"system", arguments.system});
  request.messages.push_back({"user", arguments.prompt});
  LLMClient client = runtime.llm();
  const ChatResponse answer = ask(client, request, signals.context());
  if (arguments.common.json) {
    print_json(Json::object({{"content", answer.content},
                             {"reasoning", answer.reasoning},
                             {"model", answer.model},
                             {"endpoint", answer.endpoint},
                             {"finish_reason", answer.finish_reason},
                             {"request_id", answer.request_id},
                             {"attempts", answer.attempts},
                             {"maybe_billed_twice", answer.maybe_billed_twice},
                             {"duration_ms", answer.duration.count()},
                             {"usage", answer.usage.to_json()}}));
  } else {
    const bool shown = !arguments.whole && is_terminal(STDOUT_FILENO);
    print_line(shown ? std::string() : answer.content);
  }
  return 0;
}

int models() {
  StopOnSignal signals;
  Runtime runtime(arguments.common);
  runtime.require_model_key();
  const std::vector<std::string> names = runtime.llm().models(signals.context());
  if (arguments.common.json) {
    print_json(Json::object({{"items", names}}));
  } else {
    for (const std::string& name : names) print_line(presentable(name));
  }
  return 0;
}

int check() {
  StopOnSignal signals;
  Runtime runtime(arguments.common);
  runtime.require_model_key();
  LLMClient client = runtime.llm();
  bool ok = true;
  Json list = Json::array();
  for (const ModelCheck& one : check_model(client, signals.context())) {
    ok = ok && (one.ok || !one.required);
    list.push_back(Json::object(
        {{"name", one.name}, {"ok", one.ok}, {"required", one.required}, {"detail", one.detail}}));
    if (arguments.common.json) continue;
    const char* word = one.ok ? "ok  " : one.required ? "FAIL" : "no  ";
    print_line(styled(one.ok         ? "good"
                      : one.required ? "bad"
                                     : "warn",
                      word) +
               "  " + one.name + "  " + presentable(one.detail));
  }
  if (arguments.common.json) {
    print_json(Json::object({{"ok", ok},
                             {"endpoint", client.endpoint()},
                             {"model", client.model()},
                             {"checks", std::move(list)},
                             {"capabilities", client.capabilities()}}));
  }
  return ok ? 0 : 1;
}

Cli& model_command(Cli& llm, const char* name, const char* help) {
  Cli& command = llm.command(name, help);
  arguments.common.declare(command);
  arguments.common.declare_llm(command);
  arguments.common.declare_json(command);
  return command;
}

}  // namespace

void declare_llm(Cli& cli) {
  Cli& llm = cli.command("llm", "Model services: ask one, check it, or record and replay answers");
  declare_llm_replay(llm);
  model_command(llm, "chat", "Ask the configured model one thing")
      .option("--system", arguments.system, "what the model is told first")
      .flag("--whole", arguments.whole, "ask for the answer in one piece, not streamed")
      .positional("prompt", arguments.prompt, "the question")
      .action(chat);
  model_command(llm, "check", "See what works at the configured endpoint; costs a few short calls")
      .action(check);
  model_command(llm, "models", "List the endpoint's models").action(models);
}

}  // namespace necrocode::app
