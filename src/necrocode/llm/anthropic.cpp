// Anthropic Messages (docs.anthropic.com/en/api/messages).
#include <algorithm>

#include "necrocode/llm/dialect.hpp"
#include "necrocode/llm/json_view.hpp"

namespace necrocode::llm {
namespace {

constexpr std::string_view kVersion = "2023-06-01";
constexpr double kTemperatureMax = 1;
// There is no response format: the schema is a tool's that the model has to call.
constexpr std::string_view kAnswerTool = "necrocode_answer";

struct StopReason {
  std::string_view word;
  Finish finish;
};
constexpr StopReason kStopReasons[] = {
    {"end_turn", Finish::kStop},     {"stop_sequence", Finish::kStop},
    {"max_tokens", Finish::kLength}, {"model_context_window_exceeded", Finish::kLength},
    {"refusal", Finish::kRefused},   {"tool_use", Finish::kToolCalls},
    {"pause_turn", Finish::kLength},  // of tools on their side, which are not asked for
};

Finish meaning(std::string_view word) {
  for (const StopReason& known : kStopReasons) {
    if (known.word == word) return known.finish;
  }
  return Finish::kFailed;  // perhaps half of an answer
}

bool asks_for_schema(const ChatRequest& request, const Capabilities& capabilities) {
  return !request.json_schema.is_null() && request.tools.empty() &&
         capabilities.format == Format::kJsonSchema;
}

Json text_block(const std::string& text) {
  return Json::object({{"type", "text"}, {"text", text}});
}

// The blocks of one turn: a tool's result counts as the user's.
Json::Array blocks_of(const Message& message) {
  Json::Array blocks;
  if (message.role == "tool") {
    blocks.push_back(Json::object({{"type", "tool_result"},
                                   {"tool_use_id", message.tool_call_id},
                                   {"content", message.content}}));
    return blocks;
  }
  if (!message.content.empty()) blocks.push_back(text_block(message.content));
  for (const ToolCall& call : message.tool_calls) {
    blocks.push_back(Json::object({{"type", "tool_use"},
                                   {"id", call.id},
                                   {"name", call.name},
                                   {"input", arguments_object(call.arguments)}}));
  }
  return blocks;
}

// Turns alternate here: what follows in one role is one message.
Json messages_json(const ChatRequest& request) {
  std::vector<std::pair<std::string, Json::Array>> turns;
  for (const Message& message : request.messages) {
    if (message.role == "system") continue;
    const std::string role = message.role == "assistant" ? "assistant" : "user";
    if (turns.empty() || turns.back().first != role) turns.emplace_back(role, Json::Array{});
    for (Json& block : blocks_of(message)) turns.back().second.push_back(std::move(block));
  }
  Json messages = Json::array();
  for (auto& [role, blocks] : turns) {
    messages.push_back(Json::object({{"role", role}, {"content", Json(std::move(blocks))}}));
  }
  return messages;
}

std::string system_text(const ChatRequest& request) {
  std::string text;
  for (const Message& message : request.messages) {
    if (message.role != "system") continue;
    if (!text.empty()) text += "\n\n";
    text += message.content;
  }
  return text;
}

Json tool_json(std::string_view name, std::string_view description, const Json& schema) {
  return Json::object({{"name", name}, {"description", description}, {"input_schema", schema}});
}

void add_tools(Json& body, const ChatRequest& request, const Capabilities& capabilities) {
  if (asks_for_schema(request, capabilities)) {
    body.set("tools",
             Json::Array{tool_json(kAnswerTool, "Gives the answer.", request.json_schema)});
    body.set("tool_choice", Json::object({{"type", "tool"}, {"name", kAnswerTool}}));
    return;
  }
  if (request.tools.empty()) return;
  Json tools = Json::array();
  for (const Tool& tool : request.tools) {
    tools.push_back(tool_json(tool.name, tool.description, tool.parameters));
  }
  body.set("tools", std::move(tools));
  const std::string& choice = request.tool_choice;
  if (choice.empty()) return;
  if (is_general_choice(choice)) {
    body.set("tool_choice", Json::object({{"type", choice == "required" ? "any" : choice}}));
  } else {
    body.set("tool_choice", Json::object({{"type", "tool"}, {"name", choice}}));
  }
}

// What is read from the cache and written to it is not in input_tokens, but in the prompt. A stream
// tells its counts at its start and again at its end, there perhaps only some of them.
void read_usage(JsonView usage, TokenCounts& counts) {
  if (!usage.is_object()) return;
  const std::int64_t before = counts.prompt.value_or(0) - counts.cached - counts.cache_write;
  const auto cached = usage["cache_read_input_tokens"].count(kTokensMax);
  const auto written = usage["cache_creation_input_tokens"].count(kTokensMax);
  const auto input = usage["input_tokens"].count(kTokensMax);
  counts.cached = cached.value_or(counts.cached);
  counts.cache_write = written.value_or(counts.cache_write);
  const auto for_an_hour = usage["cache_creation"]["ephemeral_1h_input_tokens"].count(kTokensMax);
  counts.hour_cache_write = for_an_hour.value_or(counts.hour_cache_write);
  if (input || counts.prompt) {
    counts.prompt = input.value_or(before) + counts.cached + counts.cache_write;
  }
  if (const auto output = usage["output_tokens"].count(kTokensMax)) counts.completion = output;
}

bool is_answer(JsonView block) {
  return block["type"].text() == "tool_use" && block["name"].text() == kAnswerTool;
}

class Anthropic final : public Dialect {
 public:
  std::string_view name() const override { return "anthropic"; }
  std::string_view path() const override { return "/messages"; }
  std::string_view models_path() const override { return "/models?limit=1000"; }
  void authorize(net::Headers& headers, std::string_view key) const override {
    headers.add("x-api-key", std::string(key));
  }
  void add_headers(net::Headers& headers) const override {
    headers.add("anthropic-version", std::string(kVersion));
  }

  std::string request_body(const ChatRequest& request, const std::string& model,
                           const Capabilities& capabilities, bool stream) const override {
    Json body = Json::object({{"model", model}, {"max_tokens", request.max_tokens}});
    body.set("messages", messages_json(request)).set("stream", stream);
    if (const std::string system = system_text(request); !system.empty()) {
      body.set("system", system);
    }
    if (capabilities.temperature && request.temperature) {
      body.set("temperature", std::min(*request.temperature, kTemperatureMax));
    }
    add_tools(body, request, capabilities);
    return body.dump();
  }

  std::string read_answer(JsonView body, Completion& completion) const override {
    if (!body["content"].is_array()) return "it has no content";
    completion.model = body["model"].text();
    read_usage(body["usage"], completion.counts);
    completion.finish_reason = body["stop_reason"].text();
    if (completion.finish_reason.empty()) return "it has no stop_reason";
    completion.finish = meaning(completion.finish_reason);
    std::string defect;
    body["content"].each([&](JsonView block) {
      if (is_answer(block)) {
        completion.content.append(block["input"].dump());
      } else if (block["type"].text() == "tool_use") {
        const std::string reason = add_tool_call(
            completion, {std::string(block["id"].text()), std::string(block["name"].text()),
                         arguments_text(block["input"])});
        if (defect.empty()) defect = reason;
      } else {
        completion.content.append(block["text"].text());
        completion.reasoning.append(block["thinking"].text());
      }
    });
    return defect;
  }

  void read_event(std::string_view event, JsonView data, AnswerPieces& pieces) const override {
    if (tells_an_error(data["error"])) pieces.fail(read_error(data.dump()));
    const std::string_view named = data["type"].text();
    const std::string_view type = named.empty() ? event : named;
    Completion& completion = pieces.completion();
    if (type == "content_block_delta") {
      take_delta(data, pieces);
    } else if (type == "content_block_start") {
      begin_block(index_of(data), data["content_block"], pieces);
    } else if (type == "message_start") {
      completion.model = data["message"]["model"].text();
      read_usage(data["message"]["usage"], completion.counts);
    } else if (type == "message_delta") {
      read_usage(data["usage"], completion.counts);
      const std::string_view reason = data["delta"]["stop_reason"].text();
      if (!reason.empty()) pieces.finish(reason, meaning(reason));
    } else if (type == "message_stop") {
      pieces.end();
    }
  }

 private:
  static std::size_t index_of(JsonView data) {
    return static_cast<std::size_t>(data["index"].count(kBlocksMax).value_or(0));
  }
  // The input comes in pieces after it; some services send it whole, here.
  static void begin_block(std::size_t index, JsonView block, AnswerPieces& pieces) {
    pieces.text(block["text"].text());
    if (block["type"].text() != "tool_use") return;
    const std::string input = block["input"].is_object() ? block["input"].dump() : std::string();
    const std::string_view told = input == "{}" ? std::string_view() : std::string_view(input);
    if (is_answer(block)) {
      pieces.answer_block = index;
      pieces.text(told);
    } else {
      pieces.tool_call(index, block["id"].text(), block["name"].text(), told);
    }
  }
  // The pieces of the answering tool's input are the content.
  static void take_delta(JsonView data, AnswerPieces& pieces) {
    const JsonView delta = data["delta"];
    pieces.text(delta["text"].text());
    pieces.reasoning(delta["thinking"].text());
    if (!delta["partial_json"].is_string()) return;
    if (pieces.has_tool_call(index_of(data))) {
      pieces.tool_call(index_of(data), {}, {}, delta["partial_json"].text());
    } else if (pieces.answer_block == index_of(data)) {
      pieces.text(delta["partial_json"].text());
    }
  }
  static constexpr std::int64_t kBlocksMax = 1'000'000;
};

}  // namespace

const Dialect& anthropic() {
  static const Anthropic kDialect;
  return kDialect;
}

}  // namespace necrocode::llm
