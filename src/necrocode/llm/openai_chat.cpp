// OpenAI Chat Completions (platform.openai.com/docs/api-reference/chat), and how Azure, vLLM,
// llama.cpp, Ollama, OpenRouter, Mistral and others deviate from it.
#include <array>

#include "necrocode/base/text.hpp"
#include "necrocode/llm/dialect.hpp"
#include "necrocode/llm/json_view.hpp"

namespace necrocode::llm {
namespace {

struct FinishWord {
  std::string_view word;
  Finish finish;
};
// OpenAI's words, and those of Mistral, DeepSeek, TGI, Together and gateways before other dialects.
// What stands here neither as good nor as bad may mean that half of the answer is missing.
constexpr FinishWord kFinishWords[] = {
    {"stop", Finish::kStop},
    {"eos", Finish::kStop},
    {"eos_token", Finish::kStop},
    {"stop_sequence", Finish::kStop},
    {"end_turn", Finish::kStop},
    {"STOP", Finish::kStop},
    {"COMPLETE", Finish::kStop},
    {"tool_calls", Finish::kToolCalls},
    {"tool_use", Finish::kToolCalls},
    {"function_call", Finish::kToolCalls},
    {"length", Finish::kLength},
    {"model_length", Finish::kLength},
    {"max_tokens", Finish::kLength},
    {"MAX_TOKENS", Finish::kLength},
    {"insufficient_system_resource", Finish::kLength},
    {"content_filter", Finish::kFiltered},
    {"SAFETY", Finish::kFiltered},
    {"refusal", Finish::kRefused},
};

Finish meaning(std::string_view word) {
  for (const FinishWord& known : kFinishWords) {
    if (known.word == word) return known.finish;
  }
  return Finish::kFailed;
}

Json response_format(const Json& schema, Format format) {
  if (format == Format::kJsonObject) return Json::object({{"type", "json_object"}});
  return Json::object(
      {{"type", "json_schema"},
       {"json_schema", Json::object({{"name", "answer"}, {"strict", true}, {"schema", schema}})}});
}

Json message_json(const Message& message) {
  Json json = Json::object({{"role", message.role}, {"content", message.content}});
  if (!message.tool_call_id.empty()) json.set("tool_call_id", message.tool_call_id);
  if (message.tool_calls.empty()) return json;
  Json calls = Json::array();
  for (const ToolCall& call : message.tool_calls) {
    calls.push_back(Json::object(
        {{"id", call.id},
         {"type", "function"},
         {"function", Json::object({{"name", call.name}, {"arguments", call.arguments}})}}));
  }
  json.set("tool_calls", std::move(calls));
  if (message.content.empty()) json.set("content", nullptr);
  return json;
}

void add_tools(Json& body, const ChatRequest& request) {
  if (request.tools.empty()) return;
  Json tools = Json::array();
  for (const Tool& tool : request.tools) {
    tools.push_back(Json::object({{"type", "function"},
                                  {"function", Json::object({{"name", tool.name},
                                                             {"description", tool.description},
                                                             {"parameters", tool.parameters}})}}));
  }
  body.set("tools", std::move(tools));
  if (request.tool_choice.empty()) return;
  if (is_general_choice(request.tool_choice)) {
    body.set("tool_choice", request.tool_choice);
  } else {
    body.set("tool_choice",
             Json::object({{"type", "function"},
                           {"function", Json::object({{"name", request.tool_choice}})}}));
  }
}

void read_usage(JsonView usage, TokenCounts& counts) {
  if (!usage.is_object()) return;  // null in all chunks but the last one
  counts.prompt = usage["prompt_tokens"].count(kTokensMax);
  counts.completion = usage["completion_tokens"].count(kTokensMax);
  counts.total = usage["total_tokens"].count(kTokensMax);
  counts.cached = count_or_zero(usage["prompt_tokens_details"]["cached_tokens"]);
  counts.reasoning = count_or_zero(usage["completion_tokens_details"]["reasoning_tokens"]);
}

// A string, or the text parts of an array, as some endpoints answer.
template <class Take>
void each_text(JsonView content, Take take) {
  if (content.is_string()) return take(content.text());
  content.each([&](JsonView part) {
    if (part["text"].is_string()) take(part["text"].text());
  });
}

// vLLM and DeepSeek say reasoning_content; Ollama, OpenRouter and newer vLLM say reasoning.
std::string_view reasoning_of(JsonView message) {
  const std::string_view named = message["reasoning_content"].text();
  return named.empty() ? message["reasoning"].text() : named;
}

class OpenAiChat final : public Dialect {
 public:
  std::string_view name() const override { return "openai-chat"; }
  std::string_view path() const override { return "/chat/completions"; }
  void authorize(net::Headers& headers, std::string_view key) const override {
    headers.add("Authorization", "Bearer " + std::string(key));
  }

  std::string request_body(const ChatRequest& request, const std::string& model,
                           const Capabilities& capabilities, bool stream) const override {
    Json messages = Json::array();
    for (const Message& message : request.messages) messages.push_back(message_json(message));
    Json body = Json::object({{"model", model}});
    body.set("messages", std::move(messages)).set("stream", stream);
    if (stream && capabilities.stream_options) {
      body.set("stream_options", Json::object({{"include_usage", true}}));
    }
    body.set(capabilities.max_tokens ? "max_tokens" : "max_completion_tokens", request.max_tokens);
    if (capabilities.temperature && request.temperature)
      body.set("temperature", *request.temperature);
    if (!request.json_schema.is_null() && capabilities.format != Format::kText) {
      body.set("response_format", response_format(request.json_schema, capabilities.format));
    }
    add_tools(body, request);
    return body.dump();
  }

  std::string read_answer(JsonView body, Completion& completion) const override {
    const JsonView choice = body["choices"].front();
    if (!choice.given()) return "it has no choices";
    const JsonView message = choice["message"];
    if (!message.is_object()) return "its first choice has no message";
    completion.model = body["model"].text();
    completion.null_content = !message["content"].given();
    each_text(message["content"], [&](std::string_view text) { completion.content.append(text); });
    completion.reasoning = reasoning_of(message);
    completion.refusal = message["refusal"].text();
    std::string defect;
    message["tool_calls"].each([&](JsonView call) {
      const JsonView function = call["function"];
      const std::string reason = add_tool_call(
          completion, {std::string(call["id"].text()), std::string(function["name"].text()),
                       arguments_text(function["arguments"])});
      if (defect.empty()) defect = reason;
    });
    read_usage(body["usage"], completion.counts);
    completion.finish_reason = choice["finish_reason"].text();
    if (completion.finish_reason.empty()) return "it does not say why it ended";
    completion.finish = meaning(completion.finish_reason);
    return defect;
  }

  void read_event(std::string_view, JsonView data, AnswerPieces& pieces) const override {
    Completion& completion = pieces.completion();
    data.each_member([&](std::string_view name, JsonView value) {
      if (name == "choices") {
        take_choice(value.front(), pieces);
      } else if (name == "usage") {
        read_usage(value, completion.counts);
      } else if (name == "model" && completion.model.empty()) {
        completion.model = value.text();
      } else if (name == "error" ? tells_an_error(value)
                                 : name == "object" && value.text() == "error") {
        pieces.fail(read_error(data.dump()));  // the latter is vLLM's
      }
    });
  }

 private:
  // Its end is told after what it ends with, in whatever order they stand.
  static void take_choice(JsonView choice, AnswerPieces& pieces) {
    std::string_view reason;
    choice.each_member([&](std::string_view name, JsonView value) {
      if (name == "delta") {
        take_delta(value, pieces);
      } else if (name == "finish_reason") {
        reason = value.text();
      } else if (name == "error" && value.is_object()) {
        // OpenRouter tells a failure of the provider behind it here.
        pieces.fail(read_error("{\"error\":" + value.dump() + "}"));
      }
    });
    if (!reason.empty()) pieces.finish(reason, meaning(reason));
  }

  static void take_delta(JsonView delta, AnswerPieces& pieces) {
    std::string_view reasoning;  // some services say it by both names
    delta.each_member([&](std::string_view name, JsonView value) {
      if (name == "content") {
        each_text(value, [&](std::string_view text) { pieces.text(text); });
      } else if (name == "reasoning_content" || name == "reasoning") {
        if (!value.text().empty()) reasoning = value.text();
      } else if (name == "refusal") {
        pieces.refusal(value.text());
      } else if (name == "tool_calls") {
        value.each([&](JsonView call) { take_call(call, pieces); });
      }
    });
    pieces.reasoning(reasoning);
  }

  // Gemini and some local services send each call whole and without its number.
  static void take_call(JsonView call, AnswerPieces& pieces) {
    const JsonView function = call["function"];
    std::optional<std::size_t> index;
    if (call["index"].given()) {
      const auto number = call["index"].count(kToolCallsMax - 1);
      if (!number) pieces.malformed("a tool's call has a number that is none");
      index = static_cast<std::size_t>(*number);
    }
    pieces.tool_call(index, call["id"].text(), function["name"].text(),
                     arguments_text(function["arguments"]));
  }
};

}  // namespace

const Dialect& openai_chat() {
  static const OpenAiChat kDialect;
  return kDialect;
}

}  // namespace necrocode::llm
