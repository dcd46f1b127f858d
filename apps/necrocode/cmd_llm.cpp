// necrocode llm: talk to a model service. Being one is in cmd_llm_replay.cpp, standing before
// one in cmd_llm_proxy.cpp.
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

// A person sees the answer come, without a key in it and without what commands a terminal; a
// program gets it as it is when it is whole, and never a broken one.
class Screen {
 public:
  explicit Screen(const Masker& masker) : text_(masker) {}
  void show(const llm::ChatDelta& delta) {
    if (delta.kind == llm::ChatDelta::Kind::kText) print(presentable_text(text_.push(delta.text)));
    if (delta.kind != llm::ChatDelta::Kind::kRestart) return;
    finish();
    note("necrocode: the answer broke off; it is asked for again");
  }
  void finish() { print_line(presentable_text(text_.finish())); }

 private:
  MaskingStream text_;
};

bool shows_on_screen() {
  return !arguments.common.json && is_terminal(STDOUT_FILENO);
}

ChatResponse ask(const Runtime& runtime, const ChatRequest& request, const CallContext& context) {
  LLMClient client = runtime.llm();
  if (arguments.whole) return client.chat(request, context);
  if (!shows_on_screen()) return client.stream(request, {}, context);
  Screen screen(runtime.masker());
  try {
    ChatResponse answer = client.stream(
        request, [&screen](const llm::ChatDelta& delta) { screen.show(delta); }, context);
    screen.finish();
    return answer;
  } catch (...) {
    screen.finish();
    throw;
  }
}

int chat() {
  StopOnSignal signals;
  Runtime runtime(arguments.common);
  runtime.require_model_key();
  ChatRequest request;
  if (!arguments.system.empty()) request.messages.push_back({"system", arguments.system});
  request.messages.push_back({"user", arguments.prompt});
  const ChatResponse answer = ask(runtime, request, signals.context());
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
  } else if (!shows_on_screen()) {
    print_line(answer.content);
  } else if (arguments.whole) {
    print_line(presentable_text(answer.content));
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
  Cli& llm = cli.command(
      "llm", "Model services: ask one, check it, meter it, or record and replay answers");
  declare_llm_replay(llm);
  declare_llm_proxy(llm);
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
